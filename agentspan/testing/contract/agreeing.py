"""Contract tests: random units and queries have the same outcomes and answers as in the memory backend."""

import random
from typing import Any

from agentspan.model.changes import (
    CLOSERS,
    LEAVES,
    OPEN,
    REPLACED,
    SPAN_STATUSES,
    Change,
    Key,
    Move,
    Outcome,
    Over,
    Put,
    PutSpans,
    Ref,
    Refused,
    Remove,
    Unit,
)
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSpanRow, Row, Value, instance_of
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, Query, RemoveRuns, SpansOf, Violations
from agentspan.testing.contract.base import T0, T1, T2, Base, Rows, violation

UNITS = 300
"""The number of units in a test. Ids and keys are few, so that units conflict."""


class Agreeing(Base):
    """Contract tests: a storage does the same as the memory backend."""

    def test_random_units_have_the_outcomes_that_they_have_in_memory(self, storage: Storage) -> None:
        """The rows, violations, keys and counts that are stored afterwards are the same, too."""
        like = MemoryStorage()
        units = _Units(random.Random(1), like)
        for row in units.begin:
            for each in (storage, like):
                each.apply([Unit((Put(row),))])
        for number in range(UNITS):
            unit = units.new()
            outcomes = [_comparable(unit, each.apply([unit])[0]) for each in (storage, like)]
            assert outcomes[0] == outcomes[1], f"unit {number}: {unit}"
        keys = [Key("op", name, "", T0) for name in units.keys]
        for read in (
            lambda each: each.ask(Find(*units.ids)),
            lambda each: [each.ask(Find(key=key)) for key in keys],
            lambda each: {id: sorted(found) for id, found in each.ask(Violations(units.ids)).items()},
            lambda each: each.ask(Counts(units.ids)),
            lambda each: [list(each.ask(SpansOf(id))) for id in units.ids],
        ):
            of_storage, of_memory = read(storage), read(like)
            assert of_storage == of_memory

    def test_random_queries_have_the_pages_that_they_have_in_memory(self, storage: Storage) -> None:
        """Each page has the same rows, in the same order, and the same total."""
        like = MemoryStorage()
        chance = random.Random(2)
        agent = self.rows.agent("a")
        version, schema, run = self.rows.family(agent)
        rows: list[Row] = [agent, version, schema, run, run._replace(id=self.rows.ids.new(), started_at=None)]
        rows += [_queried_span(chance, self.rows, chance.choice((rows[3], rows[4]))) for _ in range(40)]
        for row in rows:
            for each in (storage, like):
                each.apply([Unit((Put(row),))])
        for _ in range(UNITS):
            query = _query(chance, rows)
            assert storage.ask(query) == like.ask(query), query

    def test_pages_of_an_agents_spans_are_those_in_memory_while_it_grows(self, storage: Storage) -> None:
        """The agent has overlapping and consecutive runs, late ids, spans that start later, and removed runs."""
        like, chance = MemoryStorage(), random.Random(3)
        agents = [self.rows.agent(name) for name in "ab"]
        runs: list[AgentInstanceRow] = []

        def both(*changes: Change) -> None:
            units = [Unit((change,)) for change in changes]
            assert storage.apply(units) == like.apply(units)

        both(*(Put(agent) for agent in agents))
        for _ in range(60):
            kind = chance.random()
            if not runs or kind < 0.3:
                version, schema, run = self.rows.family(chance.choice(agents))
                both(*(Put(row) for row in (version, schema, run)))
                runs.append(run)
            elif kind < 0.35 and RemoveRuns in storage.capabilities().answers:
                run = runs.pop(chance.randrange(len(runs)))
                for span in [*like.ask(SpansOf(run.id))]:
                    both(Move("agent_span", span.id, frozenset(), {"status": "complete", "started_at": T1}))
                both(Move("agent_instance", run.id, frozenset(), {"status": "complete"}))
                assert storage.ask(RemoveRuns([run.id], 5.0)) == like.ask(RemoveRuns([run.id], 5.0))
            elif kind < 0.45:
                found = chance.choice([span for run in runs for span in like.ask(SpansOf(run.id))] or [None])
                if found is not None and found.started_at is None:
                    both(
                        Move("agent_span", found.id, frozenset({found.status}), {"started_at": chance.choice((T0, T2))})
                    )
            else:
                latest = runs[-3:] if chance.random() < 0.7 else runs
                spans = [_queried_span(chance, self.rows, chance.choice(latest)) for _ in range(chance.randrange(1, 9))]
                chance.shuffle(spans)
                both(*(Put(span) for span in spans))
            for _ in range(4):
                query = Query(
                    "agent_span",
                    {"agent_id": chance.choice(agents).id},
                    start_time=chance.choice((None, None, T0, T1)),
                    end_time=chance.choice((None, None, T1, T2)),
                    order=chance.choice(("id", "id", "started_at")),
                    descending=chance.random() < 0.5,
                    offset=chance.choice((0, 0, 1, 7, 40)),
                    limit=chance.choice((0, 1, 3, 100)),
                    with_total=True,
                )
                assert storage.ask(query) == like.ask(query), query


def _comparable(unit: Unit, outcome: Outcome) -> Outcome:
    """Return the part of an outcome that storages must agree on: for a batch of spans, only that it is refused."""
    are_together = any(isinstance(change, PutSpans) for change in unit.changes)
    return outcome._replace(why="missing", stored=None) if are_together and isinstance(outcome, Refused) else outcome


class _Units:
    """Makes random units over few rows, so that units conflict."""

    def __init__(self, chance: random.Random, like: Storage) -> None:
        rows, self.like = Rows(), like
        self.chance, self.keys = chance, ("a", "b", "c", "d")
        agent = rows.agent("a")
        version, schema, run = rows.family(agent)
        self.agent, self.runs = agent, [run._replace(id=rows.ids.new(), external_identifier=name) for name in "xyz"]
        self.begin: list[Row] = [agent, version, schema, *self.runs]
        self.agents = [agent._replace(id=rows.ids.new(), external_identifier=name) for name in ("a", "b", "b")]
        # Each id has one run: a storage need not look for a minted id in other runs.
        self.spans = [rows.span(self.runs[number % 3]) for number in range(12)]
        self.ids = [row.id for row in (*self.begin, *self.agents, *self.spans)]

    def new(self) -> Unit:
        chance = self.chance
        changes: tuple[Change, ...] = tuple(self._change() for _ in range(chance.choice((1, 1, 1, 2, 3))))
        # A run is terminated by a unit of its own: backends may differ on whether a span of the same unit is late.
        changes = next(((each,) for each in changes if _terminates(each)), changes)
        last = changes[-1]
        if isinstance(last, Move | Put) and chance.random() < 0.5:
            subject = last.id if isinstance(last, Move) else last.row.id
            key = Key("op", chance.choice(self.keys), chance.choice("12"), T0)
            return Unit(changes, subject, key if chance.random() < 0.4 else None)
        return Unit(changes)

    def _change(self) -> Change:
        chance = self.chance
        kind = chance.random()
        if kind < 0.3:
            parent = chance.choice(self.ids)
            refs = (Ref("agent_span", parent),) if chance.random() < 0.3 else ()
            return Put(self._span(), refs, self._violations(), minted=not refs)
        if kind < 0.4:
            return PutSpans([self._span(), self._span()])
        if kind < 0.45:
            return Put(chance.choice(self.agents))
        if kind < 0.5:
            return Remove("agent", chance.choice((self.agent, *self.agents)).id)
        return self._move_span() if kind < 0.9 else self._move_run()

    def _span(self) -> AgentSpanRow:
        chance = self.chance
        row = chance.choice(self.spans)
        run = row.agent_instance_id if chance.random() < 0.95 else "missing"
        row = row._replace(agent_instance_id=run, status=chance.choice(SPAN_STATUSES))
        return row._replace(closed_by=self._closer(), ended_late=chance.choice((None, None, 1)))

    def _move_span(self) -> Move:
        chance = self.chance
        values = self._values()
        if chance.random() < 0.4:
            values["payload"] = '{"n": 1}'
        overs = tuple(
            Over(REPLACED[chance.choice(("complete", "cancelled"))], self._values(), chance.random() < 0.5)
            for _ in range(chance.randrange(3))
        )
        leaves = chance.choice((frozenset[str](), OPEN, frozenset({"pending"}), LEAVES["complete"]))
        unchanged: dict[str, Value] = {"label": None} if chance.random() < 0.2 else {}
        id = self.runs[0].id if chance.random() < 0.05 else chance.choice(self.spans).id
        stored = self.like.ask(Find(id)).rows.get(id)
        run = instance_of(stored[1]) if stored is not None and chance.random() < 0.5 else None
        return Move("agent_span", id, leaves, values, self._violations(), unchanged, overs, run)

    def _move_run(self) -> Move:
        chance = self.chance
        values = {"status": "terminated", "termination_reason": "enough"} if chance.random() < 0.1 else self._values()
        leaves = chance.choice((frozenset[str](), LEAVES["complete"]))
        return Move("agent_instance", chance.choice(self.runs).id, leaves, values)

    def _values(self) -> dict[str, Any]:
        chance = self.chance
        values: dict[str, Any] = {"status": chance.choice(SPAN_STATUSES), "updated_at": chance.choice((T0, T1, T2))}
        if chance.random() < 0.3:
            values["closed_by"] = self._closer()
        return values

    def _closer(self) -> str | None:
        return self.chance.choice((None, None, *sorted(CLOSERS)))

    def _violations(self) -> tuple[Any, ...]:
        sides = ("payload", "result_payload")
        return (violation(self.chance.choice(sides)),) if self.chance.random() < 0.2 else ()


def _terminates(change: Change) -> bool:
    return isinstance(change, Move) and change.set["status"] == "terminated"


def _queried_span(chance: random.Random, rows: Rows, run: Any) -> AgentSpanRow:
    times = (None, T0, T1, T2)
    return rows.span(run)._replace(
        status=chance.choice(SPAN_STATUSES),
        label=chance.choice((None, "x", "Y", "é")),
        started_at=chance.choice(times),
        inserted_at=chance.choice(times[1:]),
        duration_ms=chance.choice((None, 0.0, 1.5)),
        input_tokens=chance.choice((None, 3, 20)),
    )


def _query(chance: random.Random, rows: list[Row]) -> Query:
    type_: Any = chance.choice(("agent", "agent_instance", "agent_span", "agent_span", "agent_span"))
    row: Any = chance.choice([row for row in rows if isinstance(row, AgentSpanRow)])
    if type_ != "agent_span":
        kept: Any = AgentRow if type_ == "agent" else AgentInstanceRow
        row = chance.choice([row for row in rows if isinstance(row, kept)])
    columns = [column for column in ("status", "label", "agent_id", "agent_instance_id") if hasattr(row, column)]
    orders = [column for column in ("id", "started_at", "duration_ms", "label", "status") if hasattr(row, column)]
    order = chance.choice(orders)
    return Query(
        type_,
        {column: getattr(row, column) for column in columns if chance.random() < 0.25},
        start_time=chance.choice((None, None, T0, T1)),
        end_time=chance.choice((None, None, T1, T2)),
        prefix=chance.choice(("", "", "", row.id[:4], row.id[:-2], row.id)),
        order=order,
        descending=chance.random() < 0.5,
        offset=chance.choice((0, 0, 1, 7)),
        limit=chance.choice((None, 0, 1, 3, 100)),
        after=chance.choice(rows).id if order == "id" and chance.random() < 0.4 else "",
        with_total=chance.random() < 0.5,
    )
