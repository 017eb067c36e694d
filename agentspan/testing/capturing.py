"""Captures in memory what the functions of the package record, even if the code under test calls `configure`."""

from collections.abc import Iterator
from contextlib import contextmanager

from agentspan.recording.default import captured
from agentspan.storage.memory import MemoryStorage
from agentspan.testing.determinism import deterministic
from agentspan.testing.runs import CapturedRuns


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

    Yields:
        The runs. Each access reads them again, so they can be used inside the block.
    """
    with deterministic():
        storage = _Kept()
        with captured(storage):
            yield CapturedRuns(storage)
