"""Counted ids and a clock that advances by a step: the same behaviour is recorded as the same rows. Captures runs."""

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from agentspan import clock, ids
from agentspan.errors import InvalidValue
from agentspan.recording.blocks import program_called
from agentspan.recording.git_commit import commit_replaced
from agentspan.recording.tracer import captured
from agentspan.storage.memory import MemoryStorage
from agentspan.testing.runs import CapturedRuns

START = "2026-01-01T00:00:00Z"
PARTITION = 0
PROGRAM = "program"
"""The name of a run that a span outside any run opens. Without it the name would differ in pytest, an IDE and xdist."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@contextmanager
def deterministic(*, start: datetime | str = START, step_ms: float = 1.0) -> Iterator[None]:
    """Record the same ids, times and durations every time: `with deterministic():`.

    The first reading of the clock is `start`, and each reading is a step after the one before. Durations use a clock of
    their own: an empty span takes one step. Ids are PFIDs that count up from 1, all with the time of `start` and
    partition 0. Runs have no `git_commit`. A nested block changes the clock only; its ids go on counting.

    The block affects all threads of the process, and tracers and databases that were opened before it. Each
    block mints the same ids, so record into a new database in each. Other code that reads the time is not affected.

    Args:
        start: the first time, an aware datetime or RFC 3339 text with an offset.
        step_ms: milliseconds between two readings, 0 or more.

    Raises:
        InvalidValue: `start` is no such time or is before 1970, or `step_ms` is negative or not finite.
    """
    start_ns = _epoch_ns(start)
    if not (math.isfinite(step_ms) and step_ms >= 0):
        raise InvalidValue("step_ms", "must be a number of milliseconds, from 0 up")
    step_ns = round(step_ms * 1_000_000)
    with (
        ids.counted(start_ns // 1_000_000, PARTITION),
        program_called(PROGRAM),
        commit_replaced(None),
        clock.replaced(_ticks(start_ns, step_ns), _ticks(0, step_ns)),
    ):
        yield


def _ticks(start_ns: int, step_ns: int) -> Callable[[], int]:
    count = itertools.count()
    return lambda: start_ns + next(count) * step_ns


def _epoch_ns(start: datetime | str) -> int:
    try:
        since = clock.to_datetime(clock.parse(start)) - _EPOCH
    except ValueError as error:
        raise InvalidValue("start", str(error)) from None
    if since < timedelta(0):
        raise InvalidValue("start", "must not lie before 1970, where ids begin")
    return since // timedelta(microseconds=1) * 1000


class _Kept(MemoryStorage):
    """A storage that cannot be closed: after a `shutdown` in the code under test its runs can still be read."""

    def close(self) -> None:
        pass


@contextmanager
def capture() -> Iterator[CapturedRuns]:
    """Record into memory what `agentspan.run`, `agentspan.span` and the other functions record, in any thread.

    Faults of agentspan are raised (`raise_errors=True`), and ids and clock are those of `deterministic`. In pytest this
    is the fixture `captured_runs`.

    The code under test may call `agentspan.configure`, as programs do when they start. Its arguments apply, except the
    file, which is neither created nor written, and `raise_errors`. After `agentspan.shutdown` recording goes on. The
    configuration before the block stays open and unchanged, and is in use again after the block.

    Not captured: tracers that the code creates itself, `agentspan.open`, and other processes.

    Examples:
        import agentspan
        from agentspan.testing import capture

        with capture() as runs:
            with agentspan.run("researcher"), agentspan.span("tool", name="search", arguments={"query": "flights"}):
                pass
            run = runs.one()
            run.assert_called("search", times=1, query="flights")
            run.assert_no_failures()
            print(run.tree())

    Yields:
        The runs. Each access reads them again, so they can be used inside the block.
    """
    with deterministic():
        storage = _Kept()
        with captured(storage):
            yield CapturedRuns(storage)
