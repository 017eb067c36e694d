"""Any runs under any filter: the index answers in SQL what Python finds in a storage that has no index."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentspan.analysis.runs import find_runs
from agentspan.model.changes import INSTANCE_STATUSES, PURPOSES, SPAN_STATUSES, Put, Unit
from agentspan.model.rows import Row
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SORTS, RunFilter, RunSort, RunsWhere
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing.contract import Rows
from tests.tiers import examples

ROWS = Rows()
AGENTS = [ROWS.agent("one"), ROWS.agent("two")._replace(name="Zwei"), ROWS.agent(None)._replace(name="one")]
FAMILIES = [ROWS.family(agent) for agent in AGENTS]
TIMES = st.sampled_from([f"2026-01-0{day}T00:00:00.000000Z" for day in range(1, 4)])
COMMIT = st.sampled_from(["ab" * 20, "ac" * 20, "ba" * 32])
TEXTS = st.none() | st.sampled_from(['{"a": "Straße"}', '{"a": "STRASSE %_"}', '{"b": "one"}'])


@st.composite
def runs(draw: st.DrawFn) -> tuple[Row, ...]:
    _, _, run = draw(st.sampled_from(FAMILIES))
    run = run._replace(
        id=ROWS.ids.new(),
        status=draw(st.sampled_from(INSTANCE_STATUSES)),
        purpose=draw(st.sampled_from(PURPOSES)),
        started_at=draw(st.none() | TIMES),
        inserted_at=draw(TIMES),
        duration_ms=draw(st.none() | st.just(2.5)),
        metadata=draw(TEXTS),
        result=draw(TEXTS),
        error=draw(TEXTS),
        git_commit=draw(st.none() | COMMIT),
        session=draw(st.none() | st.sampled_from(["s", "S", "s%"])),
        termination_reason=draw(st.sampled_from([None, "Too dear"])),
    )
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from(SPAN_STATUSES), st.sampled_from([None, 3]), st.booleans(), TEXTS), max_size=3
        )
    )
    spans = [
        ROWS.span(run, input_tokens=used, cost_usd=None if used is None else 0.5, is_aggregate=int(sums_up))._replace(
            status=status, result_payload=result
        )
        for status, used, sums_up, result in steps
    ]
    return (run, *spans)


VERSIONS = ["nothing", *(version.external_identifier for version, _, _ in FAMILIES)]
AGENT = st.sampled_from(["one", "two", "Zwei", "nobody", *(agent.id for agent in AGENTS)])
GREP = st.sampled_from(["", "straSSE", "ß", "%", "_", "ONE", "too dear", "2026", AGENTS[0].id[:8].upper()])
FILTERS = st.builds(
    lambda *values, **named: RunFilter(*values, **named),  # of RunFilter itself, values of all fields would be drawn
    agent=st.none() | AGENT,
    status=st.none() | st.sampled_from(INSTANCE_STATUSES),
    since=st.none() | TIMES,
    failed=st.booleans(),
    grep=st.none() | GREP,
    git_commit=st.none() | st.sampled_from(["", "a", "AB", "b", "%", "\ud800"]) | COMMIT,
    version=st.none() | st.sampled_from(VERSIONS),
    session=st.none() | st.sampled_from(["s", "S", "\ud800"]),
    purpose=st.none() | st.sampled_from(PURPOSES),
    until=st.none() | TIMES,
    error=st.none() | GREP,
    meta=st.just(())
    | st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["one", "Straße"])), max_size=2).map(tuple),
)


@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(runs(), max_size=8),
    st.lists(
        st.tuples(FILTERS, st.none() | st.integers(0, 4), st.integers(0, 3), st.sampled_from(SORTS)),
        min_size=1,
        max_size=6,
    ),
)
def test_any_filter_finds_the_same_runs_with_and_without_an_index(
    made: list[tuple[Row, ...]], asked: list[tuple[RunFilter, int | None, int, RunSort]]
) -> None:
    with TemporaryDirectory() as folder:
        storages: list[Storage] = [MemoryStorage(), SQLiteStorage(Path(folder) / "runs.db")]
        try:
            families = [row for agent, family in zip(AGENTS, FAMILIES, strict=True) for row in (agent, *family[:2])]
            for storage in storages:
                storage.apply([Unit(tuple(Put(row) for row in (*families, *(row for each in made for row in each))))])
            assert [RunsWhere in storage.capabilities().answers for storage in storages] == [False, True]
            for filter, limit, offset, sort in asked:
                of_memory, of_file = (
                    find_runs(each, filter, limit=limit, offset=offset, sort=sort) for each in storages
                )
                assert of_memory == of_file
        finally:
            for storage in storages:
                storage.close()
