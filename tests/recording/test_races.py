"""Threads of one program that record at the same moment: none gets in the way of another."""

import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic_core
import pytest

import agentspan
from agentspan import Tracer, host
from agentspan.journal import spool
from agentspan.model.changes import Unit
from agentspan.recording.capture import credentials
from agentspan.recording.capture.repeats import Captured, Repeats
from agentspan.recording.span_and_run import state_of
from agentspan.recording.tracer import recorder_of
from agentspan.schemas import dialects
from tests.impatient import at_once, elsewhere


def test_threads_of_a_forked_child_register_each_run_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first registration of a child is interrupted by another thread, which makes its own."""
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    recorder = recorder_of(tracer)
    assert recorder.sink is not None
    inherited = [Unit((), f"run {number}") for number in range(2)]
    recorder._inherited = inherited.copy()
    restated: list[Unit] = []
    failed: list[Exception] = []

    def restate(unit: Unit) -> None:
        is_first = unit in inherited and not restated
        if unit in inherited:
            restated.append(unit)
        if is_first:
            elsewhere(lambda: failed.extend(at_once(1, lambda number: recorder.make_writer_known())))

    monkeypatch.setattr(recorder.sink, "restate", restate)
    recorder.make_writer_known()
    assert (failed, {unit.subject for unit in restated}) == ([], {"run 0", "run 1"})
    monkeypatch.undo()
    tracer.shutdown()


def test_threads_of_a_run_whose_payloads_have_lists_of_other_names_do_not_disturb_each_other() -> None:
    def captured(items: Any, name: str) -> list[Captured]:
        return [Captured(b"{}", 2) for _ in items]

    def capture(thread: int) -> None:
        for number in range(40):
            items = [{"thread": thread}, {"number": number}]
            assert repeats.take(f"{thread} {number}", items, items, captured) is not None

    for _ in range(30):
        repeats = Repeats()
        assert at_once(4, capture) == []


def test_a_program_is_told_once_of_a_termination_by_whichever_thread_learns_of_it_first(tmp_path: Path) -> None:
    tracer, told = Tracer(tmp_path / "runs.db", raise_errors=True), list[agentspan.Run]()

    def meanwhile(frame: Any, event: str, called: Any) -> None:
        if event == "c_return" and called is callable and frame.f_code.co_name == "tell":
            sys.setprofile(None)
            state_of(run).tell()  # as another thread that begins a span at this moment

    with tracer.run("a", on_terminate=told.append) as run:
        sys.setprofile(meanwhile)
        try:
            state_of(run).tell()
        finally:
            sys.setprofile(None)
    tracer.shutdown()
    assert told == [run]


def test_a_span_type_is_registered_although_another_thread_opens_a_journal_at_that_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Journal:
        folder = Path()
        changes = 0

        def types_changed(self) -> None:
            self.changes += 1

        def drain_now(self) -> None: ...

        def terminated(self, instance_id: str, reason: str) -> None: ...

    class Growing(weakref.WeakSet[spool.Journal]):
        """A set that another thread adds to after a first member was read."""

        def __iter__(self) -> Iterator[spool.Journal]:
            for each in super().__iter__():
                yield each
                self.add(second)

    first, second = Journal(), Journal()
    monkeypatch.setattr(spool, "journals", Growing([first]))
    spool.types_changed()
    assert (first.changes, second.changes) == (1, 1)


@pytest.mark.parametrize("search", [credentials.search, dialects.compile_pattern], ids=["credentials", "schemas"])
def test_a_fork_waits_for_a_thread_that_makes_a_validator(
    search: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pydantic makes the first one of a process under a lock. A child that inherits it held waits for ever."""
    made = pydantic_core.SchemaValidator
    held: list[bool] = []

    def watched(schema: Any) -> Any:
        held.append(threading.get_ident() in host._importing)
        return made(schema)

    monkeypatch.setattr(pydantic_core, "SchemaValidator", watched)
    monkeypatch.setattr(credentials, "SchemaValidator", watched)
    search("a+b")
    assert held == [True]
