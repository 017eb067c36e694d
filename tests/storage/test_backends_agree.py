"""Any units, in both backends: the same outcomes, and the same rows afterwards."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentspan.model.changes import OPEN, REPLACED, Key, Move, Outcome, Over, Put, PutSpans, Refused, Remove, Unit
from agentspan.model.rows import AgentSpanRow, Row, Violation
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Damage, Query, Violations
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing.contract.base import Rows
from tests.tiers import longer

EXAMPLES = longer("AGENTSPAN_TEST_UNITS", 5, 15, 1000)
AT = "2026-01-02T00:00:00.000000Z"
ROWS = Rows()
AGENT = ROWS.agent("a")
VERSION, SCHEMA, RUN = ROWS.family(AGENT)
RUNS = [RUN, RUN._replace(id=ROWS.ids.new())]
IDS = [ROWS.ids.new() for _ in range(3)]
STATUSES = st.sampled_from(["pending", "active", "complete", "failed", "cancelled"])
CLOSERS = st.sampled_from([None, "terminated", "abandoned"])
SAID = ['"a"', f'{{"role":"user","content":"{"long " * 50}"}}', '{"n":1}', f'"{"b" * 300}"']
PAYLOADS = st.sampled_from(['{"n": 1}', "{}"]) | st.builds(
    lambda said, text, odd: f'{{"of":1.0,"said":[{",".join(said)}],"text":"{text}","odd":{odd}}}',
    st.lists(st.sampled_from(SAID), max_size=5),
    st.sampled_from(["", "t" * 500, "u" * 600]),
    st.sampled_from(["1e400", '{"$contents":"1"}', '{"$content":1}', "[]"]),
)
"""Payloads of which some have parts that are stored once in a run, and some look like that."""
VIOLATIONS = st.lists(
    st.builds(Violation, st.sampled_from(["payload", "result_payload"]), st.just("$"), st.just("type"), st.just("no")),
    max_size=1,
).map(tuple)


@st.composite
def spans(draw: st.DrawFn) -> AgentSpanRow:
    run = draw(st.sampled_from(RUNS)).id
    late = draw(st.sampled_from([None, 1]))
    row = ROWS.span(RUN)._replace(id=draw(st.sampled_from(IDS)), agent_instance_id=run, status=draw(STATUSES))
    row = row._replace(payload=draw(PAYLOADS), result_payload=draw(st.none() | PAYLOADS))
    return row._replace(closed_by=draw(CLOSERS), ended_late=late, closed_at=draw(st.sampled_from([None, AT])))


VALUES: Any = st.fixed_dictionaries(
    {"status": STATUSES, "updated_at": st.just(AT)},
    optional={"finished_at": st.just(AT), "ended_late": st.just(1), "closed_by": CLOSERS},
)
LEAVES = st.sampled_from([frozenset(), frozenset({"pending"}), frozenset({"active"}), OPEN, frozenset({"failed"})])
OVERS: Any = st.lists(
    st.builds(Over, st.sampled_from([REPLACED["complete"], REPLACED["cancelled"]]), VALUES, st.booleans()), max_size=2
).map(tuple)


@st.composite
def moves(draw: st.DrawFn) -> Move:
    of_span = draw(st.booleans())
    id = draw(st.sampled_from([*IDS, RUNS[0].id] if of_span else [each.id for each in RUNS]))
    values = draw(VALUES)
    if of_span and draw(st.booleans()):
        values["payload"] = draw(PAYLOADS)
    elif of_span and draw(st.booleans()):
        values["result_payload"] = draw(st.none() | PAYLOADS)
    elif not of_span and draw(st.booleans()):
        values = {**values, "status": "terminated", "termination_reason": "enough", "closed_by": "terminated"}
    unchanged = draw(st.sampled_from([{}, {"finished_at": None}] + ([{"payload": draw(PAYLOADS)}] if of_span else [])))
    violations = draw(VIOLATIONS) if of_span else ()
    type_: Any = "agent_span" if of_span else "agent_instance"
    return Move(type_, id, draw(LEAVES), values, violations, unchanged, draw(OVERS))


PUTS: Any = st.builds(Put, spans(), st.just(()), VIOLATIONS, st.booleans())
TOGETHER: Any = st.builds(PutSpans, st.lists(spans(), min_size=1, max_size=2), st.just(()))
REMOVES: Any = st.builds(Remove, st.just("agent_instance"), st.sampled_from([each.id for each in RUNS]))
CHANGES: Any = st.lists(PUTS | moves() | moves() | TOGETHER | REMOVES, min_size=1, max_size=2).map(tuple)


@st.composite
def units(draw: st.DrawFn) -> Unit:
    changes = draw(CHANGES)
    subject = changes[-1].id if isinstance(changes[-1], Move) and draw(st.booleans()) else None
    if subject is None:
        return Unit(changes)
    key = Key("x", draw(st.sampled_from("ab")), draw(st.sampled_from("12")), AT)
    return Unit(changes, subject, draw(st.sampled_from([None, key])))


def everything(storage: Storage) -> Any:
    rows = [row for type_ in ("agent_instance", "agent_span") for row in storage.ask(Query(type_)).rows]
    return sorted(rows, key=lambda row: row.id), [sorted(found) for found in storage.ask(Violations(IDS)).values()]


def damage(storage: Storage) -> list[str]:
    return storage.ask(Damage())


def told(unit: Unit, outcome: Outcome) -> Outcome:
    """What both backends have to say: of spans that are put together, any guard that failed, and not for which one."""
    are_together = any(isinstance(change, PutSpans) for change in unit.changes)
    return outcome._replace(why="missing", stored=None) if are_together and isinstance(outcome, Refused) else outcome


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(units(), max_size=8))
def test_any_units_do_the_same_in_both_backends(done: list[Unit]) -> None:
    with TemporaryDirectory() as folder:
        storages: list[Storage] = [MemoryStorage(), SQLiteStorage(Path(folder) / "runs.db")]
        try:
            for storage in storages:
                begin: tuple[Row, ...] = (AGENT, VERSION, SCHEMA, *(run._replace(status="active") for run in RUNS))
                storage.apply([Unit(tuple(Put(row) for row in begin))])
            for unit in done:
                of_memory, of_file = (told(unit, storage.apply([unit])[0]) for storage in storages)
                assert of_memory == of_file
            assert everything(storages[0]) == everything(storages[1])
            assert damage(storages[1]) == []
        finally:
            for storage in storages:
                storage.close()
