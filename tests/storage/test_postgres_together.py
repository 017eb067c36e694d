"""Changes of spans that are one statement each: in how many round trips, and with the same outcomes as in memory."""

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from agentspan.model.changes import (
    LEAVES,
    OPEN,
    Applied,
    Key,
    KeyTaken,
    Move,
    Outcome,
    Put,
    Ref,
    Refused,
    Replayed,
    Unit,
)
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, Row, Value
from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, Query, Violations
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.base import T0, T1, Rows, finish, violation
from tests.postgres import Emptied, prepare_nothing
from tests.postgres_proxy import Proxy, proxy
from tests.waiting import until

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

pytestmark = pytest.mark.full


@pytest.fixture
def between(postgres_location: Location) -> Iterator[Proxy]:
    with proxy(postgres_location.text) as made:
        yield made


@pytest.fixture
def storage(between: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    prepare_nothing(monkeypatch)
    made = open_direct(between.url)
    yield made
    made.close()


def begun(rows: Rows, *stores: Storage) -> AgentInstanceRow:
    version, schema, run = rows.family(agent := rows.agent())
    begin: tuple[Row, ...] = (agent, version, schema, run)
    for each in stores:
        each.apply([Unit((Put(row),)) for row in begin])
    return run


def key(name: str, request: str = "h") -> Key:
    return Key("op", name, request, T0)


def test_a_change_of_a_span_is_one_round_trip(storage: Storage, between: Proxy) -> None:
    """With its key, its violations, the rows that it refers to, the row that it returns; as is reading a span."""
    rows = Rows()
    run = begun(rows, storage)
    parent, pending = rows.span(run), rows.span(run, status="pending", started_at=None)
    child = rows.span(run, parent_span_id=parent.id)
    refs = (Ref("agent", run.agent_id), Ref("agent_span", parent.id))
    start = Move("agent_span", pending.id, LEAVES["active"], {"status": "active", "started_at": T0})
    learnt = Move("agent_span", pending.id, OPEN, {"status": "failed", "payload": '{"a": 1}'}, (violation(),))
    units = [
        Unit((Put(parent, minted=True),)),
        Unit((Put(pending, (), (violation(), violation(path="$.b")), minted=True),), pending.id, key("1")),
        Unit((Put(child, refs, minted=True),), child.id),
        Unit((start,), pending.id, key("2")),
        Unit((learnt,), pending.id),
        Unit((finish(child.id)._replace(violations=(violation("result_payload"),)),), child.id, key("3")),
        Unit((finish(parent.id),)),
        Unit((Put(rows.span(run)),)),  # with an id that may be in any table
    ]
    for number, unit in enumerate(units):
        before = between.round_trips
        (outcome,) = storage.apply([unit])
        assert isinstance(outcome, Applied), number
        assert between.round_trips - before == 1, number
    before = between.round_trips
    assert len(storage.ask(Find(parent.id, child.id, pending.id)).rows) == 3
    assert len(storage.ask(Find(run.id, instance_id=run.id)).rows) == 1
    assert between.round_trips - before == 2
    assert storage.ask(Violations([pending.id, child.id])) == {
        pending.id: [violation()],
        child.id: [violation("result_payload")],
    }


def test_changes_of_spans_that_do_not_depend_on_each_other_are_two_round_trips(
    storage: Storage, between: Proxy
) -> None:
    rows = Rows()
    run = begun(rows, storage)
    spans = [rows.span(run) for _ in range(10)]  # whose rows fit into the server's buffer
    before = between.round_trips
    puts = [Unit((Put(span, minted=number > 2),), span.id, key(span.id)) for number, span in enumerate(spans)]
    assert storage.apply(puts) == [Applied(span) for span in spans]
    assert between.round_trips - before == 2
    before = between.round_trips
    ends = [Unit((finish(span.id)._replace(instance_id=run.id),), span.id) for span in spans]
    assert storage.apply(ends) == [Applied(span._replace(status="complete", updated_at=T1)) for span in spans]
    assert between.round_trips - before == 2


def test_reading_what_is_no_span_takes_few_round_trips(storage: Storage, between: Proxy) -> None:
    rows = Rows()
    run = begun(rows, storage)
    span = rows.span(run)
    storage.apply([Unit((Put(span, minted=True),), span.id, key("k"))])
    for limit, ids, asked in ((2, (run.id, span.id), key("k")), (3, (run.id,), None), (4, (run.agent_id, "x"), None)):
        before = between.round_trips
        found = storage.ask(Find(*ids, key=asked))
        assert found.rows.keys() == {*ids} - {"x"}
        assert between.round_trips - before <= limit
    before = between.round_trips
    assert storage.ask(Query("agent_span", limit=1, with_total=True)).total == 1
    assert between.round_trips - before == 3


class Maker:
    """Makes units that often have something in their way, from numbers that are random, but the same each time."""

    def __init__(self, seed: int, runs: list[AgentInstanceRow]) -> None:
        self._random = random.Random(seed)
        self._runs = runs
        self._rows = Rows()
        self._spans: list[AgentSpanRow] = []
        self._keys = 0

    def unit(self) -> Unit:
        change = self._change()
        id = change.row.id if isinstance(change, Put) else change.id
        unit = Unit((change,), id if self._random.random() < 0.7 else None)
        if unit.subject is not None and self._random.random() < 0.5:
            self._keys += self._random.random() < 0.7
            unit = unit._replace(key=key(str(self._keys), self._random.choice("hhi")))
        return unit

    def _change(self) -> Put | Move:
        choice = self._random.random()
        if choice < 0.4 or not self._spans:
            status = self._random.choice(["active", "pending", "complete"])
            violations = (violation(),) * self._random.choice([0, 0, 2])
            run = self._random.choice(self._runs)
            parent = self._random.choice([*self._spans[-3:], None])
            span = self._rows.span(run, status=status, is_aggregate=self._random.random() < 0.5)
            refs = [Ref("agent", run.agent_id)]
            if parent is not None:
                span = span._replace(parent_span_id=parent.id)
                refs.append(Ref("agent_span", parent.id, parent.agent_instance_id))
            if self._random.random() < 0.1:
                refs.append(Ref("agent", self._rows.ids.new()))
            self._spans.append(span)
            return Put(span, tuple(refs), violations, minted=self._random.random() < 0.9)
        span = self._random.choice(self._spans[-12:])
        if choice < 0.45:
            return Put(span, minted=True)
        run_id = span.agent_instance_id if self._random.random() < 0.9 else None
        wanted = self._random.choice(["active", "complete", "failed"])
        values: dict[str, Any] = {"updated_at": T1, "input_tokens": self._random.choice([None, 7, 70_000])}
        if self._random.random() < 0.2:
            values["payload"] = '{"b": 2}'
        move = finish(span.id, wanted, **values)._replace(instance_id=run_id)
        found = (violation(self._random.choice(["payload", "result_payload"])),) * self._random.choice([0, 0, 2])
        unchanged: list[dict[str, Value]] = [{}, {}, {"label": None}, {"updated_at": T0}]
        return move._replace(violations=found, unchanged=self._random.choice(unchanged))


@pytest.mark.parametrize("seed", range(3))
def test_outcomes_are_those_of_memory_however_many_units_share_a_commit(storage: Storage, seed: int) -> None:
    like, rows = MemoryStorage(), Rows()
    runs = [begun(rows, storage, like) for _ in range(2)]
    ended = Move("agent_instance", runs[1].id, OPEN, {"status": "terminated", "termination_reason": "x"})
    maker, chance = Maker(seed, runs), random.Random(seed)
    seen: list[type[Outcome]] = []
    for number in range(60):
        if number == 30:
            assert storage.apply([Unit((ended,))]) == like.apply([Unit((ended,))])
        units = [maker.unit() for _ in range(chance.choice([1, 2, 3, 9]))]
        outcomes = storage.apply(units)
        assert outcomes == like.apply(units), units
        seen += map(type, outcomes)
    assert {*seen} == {Applied, Refused, KeyTaken, Replayed}
    query = Query("agent_span")
    assert storage.ask(query).rows == like.ask(query).rows
    ids = [row.id for row in like.ask(query).rows]
    assert storage.ask(Violations(ids)) == like.ask(Violations(ids))


def test_groups_in_opposite_orders_do_not_wait_for_each_other(storage: Storage, postgres_location: Location) -> None:
    """Locks of runs and spans are taken in one order, so that no deadlock has to be found first."""
    rows = Rows()
    runs = [begun(rows, storage) for _ in range(3)]
    spans = [rows.span(run) for run in runs for _ in range(20)]
    storage.apply([Unit((Put(span, minted=True),)) for span in spans])
    other = open_direct(f"{postgres_location.text}&options=-cdeadlock_timeout%3D30s")
    outcomes: list[list[Outcome]] = []

    def write(to: Storage, order: list[AgentSpanRow]) -> None:
        for start in range(0, len(order), 10):
            some = order[start : start + 10]
            outcomes.append(
                to.apply([Unit((finish(span.id)._replace(instance_id=span.agent_instance_id),)) for span in some])
            )

    threads = [threading.Thread(target=write, args=each) for each in ((storage, spans), (other, spans[::-1]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    applied = [outcome for some in outcomes for outcome in some if isinstance(outcome, Applied)]
    assert len(applied) == len(spans)
    assert len(outcomes) == 12


def test_a_group_whose_key_another_program_uses_at_the_same_moment_is_applied_again(
    storage: Storage, postgres_server: Emptied
) -> None:
    rows = Rows()
    run = begun(rows, storage)
    spans = [rows.span(run) for _ in range(3)]
    storage.apply([Unit((Put(span, minted=True),)) for span in spans])
    units = [Unit((finish(span.id)._replace(instance_id=run.id),), span.id, key(span.id)) for span in spans]
    outcomes: list[Outcome] = []
    with psycopg.connect(postgres_server.url, options="-csearch_path=shared") as other:
        other.execute(
            "insert into idempotency_keys values (%s, %s, %s, %s, %s)", (*key(spans[1].id, "i")[:3], run.id, T0)
        )
        thread = threading.Thread(target=lambda: outcomes.extend(storage.apply(units, wait_s=30)))
        thread.start()
        with psycopg.connect(postgres_server.url, autocommit=True) as watch:
            waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
            until(lambda: watch.execute(waits).fetchall())
        other.commit()
    thread.join()
    assert [type(outcome) for outcome in outcomes] == [Applied, KeyTaken, Applied]
    assert storage.ask(Counts([run.id]))[run.id].complete == 2
