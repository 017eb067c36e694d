"""What the program's own signal handlers raise reaches the program; what its objects raise does not."""

import functools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentspan import Tracer, files
from agentspan.host import guard, let_through
from agentspan.journal import journal_folder
from agentspan.journal.journal_folder import folder_of

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")


class Late(TimeoutError):
    """An OSError, too, which a recorder has its own reasons to hide."""


def late(number: int, frame: object) -> None:
    raise Late


class Handler:
    def method(self, number: int, frame: object) -> None:
        raise Late

    def __call__(self, number: int, frame: object) -> None:
        raise Late


@pytest.fixture(
    params=[late, Handler().method, Handler(), functools.partial(late)], ids=["def", "method", "object", "partial"]
)
def interrupt(request: pytest.FixtureRequest) -> Iterator[Callable[[], None]]:
    before = signal.signal(signal.SIGUSR1, request.param)
    yield lambda: signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Tracer]:
    tracer = Tracer(tmp_path / "runs.db")
    yield tracer
    tracer.shutdown()


class Odd:
    """Calls a function when it is asked for its repr, the first time."""

    def __init__(self, said: Callable[[], Any]) -> None:
        self.said = [said]

    def __repr__(self) -> str:
        if self.said:
            self.said.pop()()
        return "odd"


def fail() -> None:
    raise TimeoutError("of the object's own")


def test_a_handlers_exception_passes_wherever_recording_is(recording: Tracer, interrupt: Callable[[], None]) -> None:
    with recording.run("a") as run:
        with pytest.raises(Late), recording.span("tool", {"name": Odd(interrupt)}):
            pytest.fail("the block is not entered")
        assert (recording.current_span(), recording.current_run()) == (None, run)
        with pytest.raises(Late), recording.span("tool", {"name": "x"}) as ending:
            ending.set_result({"output": [Odd(interrupt)]})
        assert ending.status == "failed"
        with pytest.raises(Late), recording.span("tool", {"name": "x"}) as span:
            span.update_payload({"arguments": Odd(interrupt)})
        assert span.status == "failed"

        @recording.span
        def call(value: Any, result: Any) -> Any:
            return result

        with pytest.raises(Late):
            call(Odd(interrupt), 1)
        with pytest.raises(Late):
            call(1, Odd(interrupt))
        assert (recording.current_span(), recording.current_run()) == (None, run)
    health = recording.health()
    assert (health.failed, health.refused) == (0, 0)
    assert recording.flush()


def test_what_an_object_raises_by_itself_is_hidden(recording: Tracer, interrupt: Callable[[], None]) -> None:
    with recording.span("tool", {"name": Odd(fail)}) as span:
        span.set_result({"output": Odd(fail)})
    assert (span.status, recording.health().failed) == ("complete", 0)


def guarded_in_each_way(report: Callable[[Exception], object] | None) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    def as_block(function: Callable[[], Any]) -> Any:
        with guard(report=report):
            return function()
        return None

    def in_except(function: Callable[[], Any]) -> Any:
        try:
            return function()
        except Exception as error:
            let_through(error)
            if report is not None:
                report(error)
        return None

    yield as_block
    yield in_except
    yield lambda function: guard(report=report)(function)()


def test_a_guard_hides_and_reports_faults() -> None:
    hidden: list[Exception] = []
    for guarded in guarded_in_each_way(hidden.append):
        assert guarded(lambda: 7) == 7
        assert guarded(fail) is None
    assert [str(error) for error in hidden] == ["of the object's own"] * 3
    for guarded in guarded_in_each_way(None):
        assert guarded(fail) is None


def test_a_guard_hides_the_types_it_is_given_and_no_others() -> None:
    missing = guard(FileNotFoundError, KeyError, otherwise=0)
    assert missing(os.stat)("/no/such/file") == 0
    with missing:
        raise KeyError
    with pytest.raises(TimeoutError), missing:
        fail()


def test_a_guard_hides_no_interrupt(interrupt: Callable[[], None]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    hidden: list[Exception] = []
    for guarded in guarded_in_each_way(hidden.append):
        with pytest.raises(Late):
            guarded(interrupt)
        with pytest.raises(KeyboardInterrupt):
            guarded(stop)
    assert not hidden


def test_a_guard_can_be_entered_again_and_passes_on_what_its_report_raises() -> None:
    def give_up(error: Exception) -> None:
        raise LookupError from error

    once = guard(report=give_up)
    with once, once:
        pass
    with pytest.raises(LookupError), once:
        fail()


def test_a_rule_for_redaction_that_is_interrupted_does_not_redact_instead(
    tmp_path: Path, interrupt: Callable[[], None]
) -> None:
    tracer = Tracer(tmp_path / "runs.db", redact=lambda name, value: interrupt() or value)
    with pytest.raises(Late), tracer.span("tool", {"name": "x"}):
        pass
    tracer.shutdown()


@pytest.mark.parametrize("follows", [True, False])
def test_what_comes_while_files_are_looked_at_goes_through(
    interrupt: Callable[[], None], recording: Tracer, monkeypatch: pytest.MonkeyPatch, *, follows: bool
) -> None:
    interrupts = [interrupt]

    def interrupted(path: Any, *, follow_symlinks: bool = True) -> os.stat_result:
        if interrupts and follow_symlinks == follows and threading.current_thread() is threading.main_thread():
            interrupts.pop()()
        return os.stat(path, follow_symlinks=follow_symlinks)

    with recording.span("tool", {"name": "x"}):
        pass
    assert recording.flush()
    folder = str(folder_of(recording.storage.path))  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(files, "stat_of", guard(OSError)(interrupted))
        with pytest.raises(Late):
            journal_folder.check(folder)
    assert not interrupts
