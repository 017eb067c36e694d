"""Taking what the package's functions record into memory, for a while, whatever the code under test configures."""

from collections.abc import Iterator
from contextlib import contextmanager

from agentspan.recording.default import captured
from agentspan.storage.memory import MemoryStorage
from agentspan.testing.determinism import deterministic
from agentspan.testing.runs import CapturedRuns


class _Kept(MemoryStorage):
    """Cannot be closed: a shutdown in the code under test must not take away what it recorded."""

    def close(self) -> None:
        pass


@contextmanager
def capture() -> Iterator[CapturedRuns]:
    """Capture what is recorded through `agentspan.run`, `agentspan.span` and the other functions, in any thread.

    It is kept in memory. Faults of agentspan are raised (`raise_errors=True`), and ids and clock are those of
    `deterministic`. Within pytest this is the fixture `captured_runs`.

    Code under test may call `agentspan.configure`, as programs do when they start: everything that it says holds, but
    for the file, which is neither made nor written, and `raise_errors`. After `agentspan.shutdown` recording goes on.
    What was configured before the block is untouched by it, still open, and in use again afterwards.

    Not captured: tracers that the code makes itself, `agentspan.open`, and other processes.

    Yields:
        The runs, read anew at each look, so also in the middle of the block.
    """
    with deterministic():
        storage = _Kept()
        with captured(storage):
            yield CapturedRuns(storage)
