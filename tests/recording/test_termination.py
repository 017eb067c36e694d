"""Somebody terminates a run: its program learns of it, and its own ends replace what the termination said."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import AgentTerminated, Run, Tracer
from agentspan.errors import DatabaseBusy
from agentspan.journal.names import Closer
from agentspan.model.changes import Move
from agentspan.model.rows import RefusedChangeRow
from agentspan.storage.questions import Query
from tests.recording.stored import spans_of


def database(tracer: Tracer) -> agentspan.Database:
    """The same storage as another process sees it: through connections of its own, where it has any."""
    path = getattr(tracer.storage, "path", None)
    return agentspan.open(tracer.storage if path is None else path)


def terminate(tracer: Tracer, run: agentspan.Run, reason: str = "enough") -> None:
    database(tracer).agent_instances.terminate(run.id, reason)


def refused(tracer: Tracer) -> list[RefusedChangeRow]:
    rows = tracer.storage.ask(Query("refused_change")).rows
    return [row for row in rows if isinstance(row, RefusedChangeRow)]


def test_a_run_learns_of_its_termination_at_its_next_span(tracer: Tracer) -> None:
    with tracer.run("a") as run:
        assert (run.terminated, run.termination_reason) == (False, None)
        terminate(tracer, run, "too expensive")
        assert not run.terminated
        with tracer.span("tool", {"name": "late"}) as span:
            assert run.terminated
        assert (run.status, run.termination_reason) == ("terminated", "too expensive")
    assert run.status == "terminated"
    (stored,) = spans_of(tracer)
    assert (stored.id, stored.status) == (span.id, "complete")  # nothing that an agent did is lost


def test_a_function_is_called_once_with_the_run(tracer: Tracer) -> None:
    told: list[agentspan.Run] = []
    with tracer.run("a", on_terminate=told.append) as run:
        terminate(tracer, run)
        for _ in range(3):
            with tracer.span("tool", {"name": "late"}):
                pass
    assert told == [run]


def test_a_function_that_raises_does_not_reach_the_program(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db")

    def fail(run: agentspan.Run) -> None:
        raise RuntimeError("mine")

    with tracer.run("a", on_terminate=fail) as run:
        terminate(tracer, run)
        with tracer.span("tool", {"name": "late"}):
            pass
    assert run.terminated


def test_asked_to_a_terminated_run_raises_instead_of_every_later_span(tracer: Tracer) -> None:
    calls: list[str] = []

    @tracer.span
    def step(name: str) -> None:
        calls.append(name)

    block = tracer.run("a", on_terminate="raise")
    runs: list[Run] = []

    def agent() -> None:
        with block as run:
            runs.append(run)
            step("before")
            terminate(tracer, run, "the user left")
            with pytest.raises(AgentTerminated):
                step("late")
            with pytest.raises(AgentTerminated):
                run.create_span("tool", {"name": "planned"})
            with tracer.span("tool", {"name": "block"}):
                calls.append("never")

    with pytest.raises(AgentTerminated) as raised:
        agent()
    assert calls == ["before"]
    assert (raised.value.run_id, raised.value.reason) == (runs[0].id, "the user left")
    assert not isinstance(raised.value, Exception)
    spans = {span.payload.get("name", "step"): span for span in spans_of(tracer)}
    assert [span.status for span in spans_of(tracer)] == ["complete", "failed", "cancelled", "failed"]
    assert spans["block"].result_payload["error"]["type"].endswith("AgentTerminated")
    assert tracer.current_run() is None


def test_coroutines_and_generators_stop_too(tracer: Tracer) -> None:
    @tracer.span
    async def fetch() -> None:
        raise AssertionError("it began")

    @tracer.span
    def stream() -> Iterator[int]:
        raise AssertionError("it began")
        yield 1

    async def main() -> None:
        with tracer.run("a", on_terminate="raise") as run:
            terminate(tracer, run)
            with pytest.raises(AgentTerminated):
                await fetch()
            with pytest.raises(AgentTerminated):
                next(stream())

    asyncio.run(main())


def test_what_is_in_flight_is_closed_and_its_own_end_is_kept(tracer: Tracer) -> None:
    with tracer.run("a") as run:
        planned = run.create_span("retrieval", {"query": "x"})
        with tracer.span("tool", {"name": "slow"}) as span:
            terminate(tracer, run)
            closed = {span.id: span for span in spans_of(tracer)}
            span.set_result({"output": "done after all"})
        assert tracer.flush()
        assert closed[span.id].closed_at is not None
        assert (closed[span.id].status, closed[planned.id].status) == ("failed", "cancelled")
        assert closed[span.id].result_payload["error"] == {"type": "Terminated", "message": "enough"}
    assert run.terminated  # an end that comes too late tells as well
    stored = {span.id: span for span in spans_of(tracer)}[span.id]
    assert (stored.status, stored.result_payload) == ("complete", {"output": "done after all"})
    assert (stored.closed_by, stored.closed_at, stored.ended_late) == ("terminated", closed[span.id].closed_at, True)
    assert refused(tracer) == []
    assert tracer.health()[1:5] == (0, 0, 0, 0)


def test_the_result_of_a_run_that_ends_too_late_is_kept(tracer: Tracer) -> None:
    with tracer.run("a") as run:
        terminate(tracer, run)
        run.set_result({"output": 42})
    assert tracer.flush()
    assert run.status == "terminated"
    assert refused(tracer) == []
    with database(tracer) as db:
        stored = db.agent_instances.get(run.id)
    assert (stored.status, stored.result, stored.ended_late) == ("terminated", {"output": 42}, True)


def test_the_end_of_a_terminated_run_closes_what_never_ended_in_it(tracer: Tracer) -> None:
    with tracer.run("a") as run:
        terminate(tracer, run)
        late = run.create_span("tool", {"name": "x"}, status="active")
    assert tracer.flush()
    (stored,) = spans_of(tracer)
    assert (stored.id, stored.status, stored.closed_by) == (late.id, "failed", "terminated")
    late.finish(result_payload={"output": 1})
    assert tracer.flush()
    (stored,) = spans_of(tracer)
    assert (stored.status, stored.result_payload, stored.ended_late) == ("complete", {"output": 1}, True)


def test_what_never_ended_in_a_terminated_run_is_closed_also_after_a_failure_in_between(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, calls = Closer.close_terminated, []

    def fail_once(self: Closer, *args: str) -> list[Move]:
        calls.append(args)
        if len(calls) == 1:
            raise DatabaseBusy("busy for a moment")
        return close(self, *args)

    with suppress(DatabaseBusy), tracer.run("a") as run:  # this tracer raises
        assert tracer.flush()
        terminate(tracer, run)
        late = run.create_span("tool", {"name": "x"}, status="active")
        tracer.flush()
        monkeypatch.setattr(Closer, "close_terminated", fail_once)
    while not tracer.flush():
        pass
    (stored,) = spans_of(tracer)
    assert (stored.id, stored.status, stored.closed_by) == (late.id, "failed", "terminated")
    assert refused(tracer) == []


def test_a_planned_span_that_starts_after_a_termination_was_never_cancelled(tracer: Tracer) -> None:
    with tracer.run("a") as run:
        planned, other = (run.create_span("tool", {"name": name}) for name in "xy")
        tracer.flush()
        terminate(tracer, run)
        planned.update_payload({"arguments": {"a": 1}})
        planned.start()
        other.start()
        assert tracer.flush()
        stored = {span.id: span for span in spans_of(tracer)}[planned.id]
        assert (stored.status, stored.closed_by, stored.ended_late) == ("failed", "terminated", False)
        assert stored.payload == {"name": "x", "arguments": {"a": 1}}
        other.finish("failed")
    assert tracer.flush()
    stored = {span.id: span for span in spans_of(tracer)}[other.id]
    assert (stored.status, stored.ended_late) == ("failed", True)
    assert stored.started_at is not None
    assert stored.closed_at is not None
    assert stored.started_at > stored.closed_at
    assert refused(tracer) == []


def test_other_runs_are_not_concerned(tracer: Tracer) -> None:
    with tracer.run("a", on_terminate="raise") as one, tracer.run("b", on_terminate="raise") as two:
        terminate(tracer, one)
        with tracer.span("tool", {"name": "fine"}):
            pass
    assert (two.terminated, two.status) == (False, "complete")


@pytest.mark.parametrize("wrong", ["stop", 3, {}])
def test_what_cannot_be_asked_for_is_said_at_once(tracer: Tracer, wrong: Any) -> None:
    with pytest.raises(agentspan.InvalidValue, match="on_terminate"):
        tracer.run("a", on_terminate=wrong)


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_a_span_that_another_process_finished_first_is_kept_as_this_program_saw_it(
    tmp_path: Path, durability: Any
) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability=durability)
    with tracer.run("a"), tracer.span("tool", {"name": "shared"}) as span:
        database(tracer).agent_spans.finish(span.id, "complete", {"output": "theirs"})
        span.set_result({"output": "ours"})
    (late,) = refused(tracer)
    assert (late.subject, late.stored_status) == (span.id, "complete")
    assert "ours" in late.wanted
    assert spans_of(tracer)[0].result_payload == {"output": "theirs"}


def test_spans_belong_to_their_run_also_after_it_has_learned_of_its_termination(tracer: Tracer) -> None:
    with tracer.run("a") as run:
        terminate(tracer, run)
        for _ in range(3):
            with tracer.span("tool", {"name": "late"}) as span:
                pass
            assert span.run is run
