"""Counted ids and ticking clocks, with and without pytest."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

import agentspan
from agentspan import Tracer, clock, ids
from agentspan.recording.git_commit import commit_replaced
from agentspan.storage.questions import Account
from agentspan.testing import CapturedRuns, capture, deterministic


def recorded(agent: Callable[[], Any]) -> list[Any]:
    """Everything that an agent records."""
    with capture() as runs:
        agent()
        db = agentspan.open(runs.storage)
        (instance,) = db.agent_instances.list()
        spans = list(db.agent_spans.list(instance.id, include_summaries=True))
        for thing in (instance, *spans):
            for error in (getattr(thing, "error", None), (getattr(thing, "result_payload", None) or {}).get("error")):
                assert error is None or error.pop("stacktrace")
        return [runs.storage.ask(Account()), instance, *db.agents.list(), *spans]


def test_the_same_is_recorded_each_time(agent: Callable[[], Any]) -> None:
    assert recorded(agent) == recorded(agent)


def test_ids_are_pfids_that_ascend_from_a_fixed_time() -> None:
    with deterministic(start="2026-05-01T12:00:00Z"):
        storage = agentspan.MemoryStorage()
        tracer = Tracer(storage, raise_errors=True)
        with tracer.run("a") as run, tracer.span("tool", {"name": "x"}) as span:
            pass
    found = [storage.ask(Account()).id, run.id, span.id]
    assert all(map(ids.is_pfid, found))
    assert found == sorted(found)
    assert {ids.decode(id)[:2] for id in found} == {(1_777_636_800_000, 0)}
    assert storage.ask(Account()).partition == 0
    assert storage.ask(Account()).id.endswith("0001")


def test_the_clock_begins_at_start_and_ticks() -> None:
    with deterministic(start=datetime(2026, 5, 1, 12, tzinfo=UTC), step_ms=250.5):
        assert [clock.now() for _ in range(3)] == [
            "2026-05-01T12:00:00.000000Z",
            "2026-05-01T12:00:00.250500Z",
            "2026-05-01T12:00:00.501000Z",
        ]
        first, second = clock.monotonic_ns(), clock.monotonic_ns()
        assert second - first == 250_500_000
    with deterministic():
        assert clock.now() == "2026-01-01T00:00:00.000000Z"


def test_durations_count_steps(captured_runs: CapturedRuns) -> None:
    with agentspan.run("a"):
        with agentspan.span("tool", {"name": "outer"}), agentspan.span("tool", {"name": "inner"}):
            pass
        with agentspan.span("tool", {"name": "next"}):
            pass
    assert [(span.name, span.duration_ms) for span in captured_runs.one().spans] == [
        ("outer", 3.0),
        ("inner", 1.0),
        ("next", 1.0),
    ]
    assert captured_runs.one().duration_ms == 7.0


def test_everything_is_as_before_afterwards() -> None:
    before = (clock.now, clock.monotonic_ns, ids.IdSource.new, ids.random_partition)
    source = ids.IdSource(5)
    first = source.new()
    with deterministic():
        assert ids.decode(source.new())[1:] == (0, 1)
    with pytest.raises(KeyError), deterministic():
        raise KeyError
    assert (clock.now, clock.monotonic_ns, ids.IdSource.new, ids.random_partition) == before
    assert ids.decode(source.new())[1] == 5
    assert source.new() > first


def test_a_block_within_another_changes_the_clock_only(captured_runs: CapturedRuns) -> None:
    with agentspan.run("a"):
        with (
            deterministic(start="2030-01-01T00:00:00Z", step_ms=1000),
            agentspan.span("tool", {"name": "x"}) as slow,
        ):
            pass
        with agentspan.span("tool", {"name": "y"}) as quick:
            pass
    assert quick.id > slow.id
    found = {span.name: span.duration_ms for span in captured_runs.one().spans}
    assert found == {"x": 1000.0, "y": 1.0}
    stored = agentspan.open(captured_runs.storage).agent_spans.get(slow.id)
    assert stored.started_at is not None
    assert stored.started_at.year == 2030


def test_runs_have_no_commit() -> None:
    with commit_replaced("ab" * 20), capture() as runs:
        with agentspan.run("a") as run:
            pass
        assert agentspan.open(runs.storage).agent_instances.get(run.id).git_commit is None


def test_threads_share_the_count() -> None:
    made: list[str] = []
    with deterministic():
        source = ids.IdSource(0)
        threads = [threading.Thread(target=lambda: made.extend(source.new() for _ in range(200))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(ids.decode(id)[2] for id in made) == list(range(1, 1601))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": "yesterday"}, "start: not an RFC 3339 time"),
        ({"start": datetime(2026, 1, 1)}, "start: a time without an offset"),
        ({"start": "1969-12-31T23:59:59Z"}, "start: must not lie before 1970"),
        ({"step_ms": -1}, "step_ms: must be"),
        ({"step_ms": float("nan")}, "step_ms: must be"),
    ],
)
def test_times_that_cannot_be_are_refused(arguments: dict[str, Any], message: str) -> None:
    before = clock.now
    with pytest.raises(agentspan.InvalidValue, match=message), deterministic(**arguments):
        pass
    assert clock.now is before
