"""The index of PostgreSQL: exact whatever it holds, also while others write, and for users that may not fill it."""

import random
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from agentspan.analysis.runs import in_order, stats
from agentspan.analysis.search import search
from agentspan.model.changes import Applied, Move, Put, PutSpans, Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, RemoveRuns, RunFilter, RunsWhere, Search, SpanStats
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.answering import Answering
from agentspan.testing.contract.base import T1, Rows, finish
from agentspan.tuning import Tuning
from tests.checkout import ROOT
from tests.postgres import Emptied
from tests.storage.plain import Plain
from tests.tuned import tuned

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

from agentspan.storage.postgres import index as state  # noqa: E402
from agentspan.storage.postgres.connection import Connection  # noqa: E402  # needs psycopg
from agentspan.storage.postgres.search import LONGEST  # noqa: E402

pytestmark = pytest.mark.full

PAGE = ROOT / "docs" / "postgresql.md"
in_few_batches = tuned(
    postgres_numbers_batch_spans=7,
    postgres_numbers_late_spans=-1,
    postgres_words_batch_spans=7,
    postgres_words_late_spans=-1,
)
"""Readers add each late span, in batches of few."""


@pytest.fixture
def storage(postgres_location: Location, tuning: Tuning) -> Iterator[Storage]:
    made = open_direct(postgres_location, tuning=tuning)
    yield made
    made.close()


def run_in(storage: Storage) -> AgentInstanceRow:
    rows = Rows()
    version, schema, run = rows.family(agent := rows.agent())
    storage.apply([Unit((Put(row),)) for row in (agent, version, schema, run)])
    return run


def put(storage: Storage, run: AgentInstanceRow, *texts: str, **values: Any) -> list[str]:
    """Put a complete span for each text; return their ids."""
    rows = [Rows().span(run, status="complete", payload=f'{{"text":"{text}"}}', **values) for text in texts]
    assert storage.apply([Unit((PutSpans(rows),))]) == [Applied()]
    return [row.id for row in rows]


def same(storage: Storage, words: str = "one") -> int:
    """Compare the answers with those that are read row by row; return the number of spans that are counted."""
    plain: Any = Plain(storage)
    answered = storage.ask(SpanStats(since=None, until=None))
    assert answered is not None
    assert in_order(answered) == stats(plain)
    assert search(storage, words) == search(plain, words)
    found = storage.ask(RunsWhere(RunFilter(), limit=None, offset=0))
    assert found is not None
    counts = storage.ask(Counts([each.run.id for each in found.runs]))
    assert {each.run.id: each.spans for each in found.runs} == {id: each.total for id, each in counts.items()}
    return found.totals.spans


@in_few_batches
def test_an_index_that_lacks_some_spans_answers_as_reading_row_by_row_does(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill: Any = state._fill
    chance = random.Random(1)

    def now_and_then(*args: Any) -> None:
        if chance.random() < 0.3:
            fill(*args)

    monkeypatch.setattr(state, "_fill", now_and_then)
    Answering().test_answers_about_many_runs_are_those_of_reading_row_by_row(storage)


@in_few_batches
def test_a_pass_that_was_ended_in_its_middle_goes_on(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_in(storage)
    put(storage, run, *("one" for _ in range(30)))
    add_batch: Any = state._add_batch
    left = [0]

    def few_batches(*args: Any) -> bool:
        left[0] -= 1
        return left[0] < 0 or add_batch(*args)

    monkeypatch.setattr(state, "_add_batch", few_batches)
    for batches in (1, 2, 0, 1, 1):
        left[0] = batches
        assert same(storage) >= 30
        put(storage, run, "one", "two")  # late, whether the pass is done or not
    left[0] = 100
    assert same(storage) == 40


@in_few_batches
def test_spans_that_are_committed_while_another_transaction_goes_on_are_counted_once(
    storage: Storage, postgres_server: Emptied
) -> None:
    run = run_in(storage)
    put(storage, run, "one")
    with psycopg.connect(postgres_server.url, options="-csearch_path=shared") as other:
        columns = "id, agent_id, agent_instance_id, schema_name, schema_title, status, payload, inserted_at, updated_at"
        other.execute(
            f"insert into finished_spans ({columns}) select %s, agent_id, agent_instance_id, schema_name, schema_title,"
            " status, payload, inserted_at, updated_at from finished_spans limit 1",
            (Rows().ids.new(),),
        )
        assert same(storage) == 1
        put(storage, run, "one", "one")
        assert same(storage) == 3  # the transaction that began first is not done
        other.commit()
        assert same(storage) == 4
    assert same(storage) == 4


@pytest.mark.parametrize("seen", [True, False], ids=["indexed", "late"])
@in_few_batches
def test_spans_that_change_after_their_end_are_taken_again(storage: Storage, seen: bool) -> None:
    run = run_in(storage)
    first, second = put(storage, run, "one", "one", label="a", closed_by="abandoned")
    if seen:
        assert same(storage) == 2
    values: dict[str, Any] = {"status": "failed", "summary": "one two", "duration_ms": 5.0, "updated_at": T1}
    assert storage.apply([Unit((Move("agent_span", first, frozenset({"complete"}), values),))]) == [Applied()]
    assert same(storage, "two") == 2
    assert [hit.span_id for hit in search(storage, "two").hits] == [first]
    values = {"status": "active", "updated_at": T1}
    assert storage.apply([Unit((Move("agent_span", second, frozenset({"complete"}), values),))]) == [Applied()]
    assert same(storage) == 2


@in_few_batches
def test_removed_runs_leave_the_index(storage: Storage, postgres_server: Emptied) -> None:
    kept, gone = run_in(storage), run_in(storage)
    for run in (kept, gone):
        put(storage, run, "one", "x" * 600)
    assert same(storage) == 4
    storage.apply([Unit((Move("agent_instance", gone.id, frozenset({"active"}), {"status": "complete"}),))])
    assert storage.ask(RemoveRuns([gone.id], 5.0)) == (1, 2)
    assert same(storage) == 2
    with psycopg.connect(postgres_server.url, options="-csearch_path=shared") as connection:
        for table in ("index_facts", "index_runs", "index_texts", "index_parts"):
            left = {run for (run,) in connection.execute(f"select agent_instance_id from {table}")}
            assert left == {kept.id}
        assert connection.execute("select count(*) from rewritten_runs").fetchone() == (0,)


@in_few_batches
def test_what_a_vector_cannot_hold_is_found_all_the_same(storage: Storage) -> None:
    run = run_in(storage)
    long, many, places, short = put(
        storage,
        run,
        "a" * (LONGEST + 100),
        " ".join(f"w{number}{'z' * 20}" for number in range(25_000)),
        "one two " * 9000,
        "b" * LONGEST,
    )
    for words, found in (
        ("a" * LONGEST, []),
        ("a" * (LONGEST + 100), [long]),
        ("a" * (LONGEST + 99) + "*", [long]),
        ("a*", [long]),
        ("w24999*", [many]),
        (f'"w23999{"z" * 20} w24000{"z" * 20}"', [many]),
        ('"two one"', [places]),
        ('"two two"', []),
        ("b" * LONGEST, [short]),
        ("b" * LONGEST + "b", []),
    ):
        assert [hit.span_id for hit in search(storage, words).hits] == found
        assert search(storage, words) == search(Plain(storage), words)


@in_few_batches
def test_a_user_that_only_reads_fills_the_index_where_it_may(
    storage: Storage, tuning: Tuning, postgres_server: Emptied
) -> None:
    run = run_in(storage)
    put(storage, run, "one", "two")
    with psycopg.connect(postgres_server.url, autocommit=True) as owner:
        if owner.execute("select 1 from pg_roles where rolname = 'onlooker'").fetchone() is None:
            owner.execute("create role onlooker login")
        owner.execute("grant usage on schema shared to onlooker")
        owner.execute("grant select on all tables in schema shared to onlooker")
        url = postgres_server.url.replace("agentspan:sesame", "onlooker") + "?schema=shared"
        onlooker = open_direct(url, read_only=True, tuning=tuning)
        assert same(onlooker) == 2
        assert owner.execute("select count(*) from shared.index_state").fetchone() == (0,)
        assert same(storage) == 2
        put(storage, run, "one")
        assert same(onlooker) == 3
        owner.execute("delete from shared.index_state")
        (grant,) = re.findall(r"^```sql\n(grant insert.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        owner.execute(grant.replace("agentspan.", "shared.").replace("to reader", "to onlooker"))
        assert same(onlooker) == 3
        assert owner.execute("select count(*) from shared.index_state").fetchone() == (2,)
        onlooker.close()


@in_few_batches
def test_a_storage_that_is_opened_to_be_read_only_fills_the_index(
    storage: Storage, tuning: Tuning, postgres_location: Location, postgres_server: Emptied
) -> None:
    put(storage, run_in(storage), "one")
    reader = open_direct(postgres_location, read_only=True, tuning=tuning)
    assert same(reader) == 1
    reader.close()
    with psycopg.connect(postgres_server.url, options="-csearch_path=shared") as connection:
        assert connection.execute("select count(*) from index_state").fetchone() == (2,)


def test_few_late_spans_are_left_to_the_next_reader(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones, too: a database of few spans has no index."""
    put(storage, run_in(storage), "one")
    statements: list[str] = []
    execute: Any = Connection.execute

    def counted(self: Any, query: Any, *args: Any, **how: Any) -> Any:
        statements.append(query)
        return execute(self, query, *args, **how)

    monkeypatch.setattr(Connection, "execute", counted)
    storage.ask(RunsWhere(RunFilter(), limit=1, offset=0))
    assert not [each for each in statements if each.lstrip().startswith(("insert", "update", "delete", "begin read w"))]


@in_few_batches
def test_a_database_that_was_restored_elsewhere_is_indexed_anew(storage: Storage, postgres_server: Emptied) -> None:
    """There, transactions are counted from another number, and the numbers of the spans mean nothing."""
    run = run_in(storage)
    put(storage, run, "one", "two")
    assert same(storage) == 2
    with psycopg.connect(postgres_server.url, options="-csearch_path=shared", autocommit=True) as connection:
        connection.execute("update index_state set origin = '1:2', taken = '99999999999'")
        connection.execute("update finished_spans set xid = '99999999990'")
        put(storage, run, "one")
        assert same(storage) == 3
        assert connection.execute("select count(*) from index_facts").fetchone() == (3,)


@in_few_batches
def test_readers_that_fill_at_the_same_time_take_each_span_once(storage: Storage) -> None:
    run = run_in(storage)
    put(storage, run, *("one" for _ in range(40)))
    totals: list[int] = []

    def work() -> None:
        for _ in range(3):
            put(storage, run, "one")
            totals.append(same_total(storage))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(totals) == 12
    assert same(storage) == 52


def same_total(storage: Storage) -> int:
    found = storage.ask(RunsWhere(RunFilter(), limit=1, offset=0))
    assert found is not None
    storage.ask(Search(["one"], limit=1, offset=0, progress=None))
    return found.total


@in_few_batches
def test_memory_agrees(storage: Storage) -> None:
    like = MemoryStorage()
    rows = Rows()
    version, schema, run = rows.family(agent := rows.agent())
    span, other = rows.span(run, payload='{"text":"one"}'), rows.span(run, payload='{"text":"one two"}')
    for each in (storage, like):
        each.apply([Unit((Put(row),)) for row in (agent, version, schema, run, span, other)])
    for step in (finish(span.id, duration_ms=1.5), finish(other.id, "failed", duration_ms=2.5)):
        for each in (storage, like):
            each.apply([Unit((step,))])
        assert stats(storage) == stats(like)
        assert search(storage, "one") == search(like, "one")
