"""The other end of a journal: what was appended is derived and committed, batch by batch, oldest first.

One after the other: to derive one batch in a thread while another is committed took longer, because each statement
waits 5 ms for a thread that computes.
"""

import threading
import time
from collections.abc import Callable

from agentspan import clock
from agentspan.errors import DatabaseBusy, StorageError
from agentspan.interrupts import let_through
from agentspan.journal.log import Log
from agentspan.journal.records import bodies
from agentspan.journal.segments import Segment
from agentspan.locks import Occupied, within
from agentspan.recording.sink import RETRY_NS, WAIT_S, CommitSink
from agentspan.recovery.committer import Committer, Listener
from agentspan.storage.protocol import Storage

CHUNK = 640 * 1024
"""Bytes of a journal that are committed at once."""


class Draining(CommitSink):
    """A sink with a journal in front of it, but for what goes into that.

    Args:
        log: what is to be drained.
    """

    def __init__(
        self, storage: Storage, committer: Callable[[Listener], Committer], listener: Listener, log: Log
    ) -> None:
        super().__init__(storage, committer, listener)
        self._log = log
        self._draining = threading.RLock()  # held by `within`, which does not nest
        self._taken: tuple[Segment, int, int] | None = None
        self._hurried = False
        self._settled = 0
        self._moved_ns = time.monotonic_ns()

    @property
    def journaled(self) -> int:
        """See Sink."""
        return self._log.sequence - self._settled

    @property
    def journaled_bytes(self) -> int:
        """See Sink."""
        return self._log.undrained_bytes

    @property
    def oldest_s(self) -> float:
        """See Sink: since when the journal was drained last, in part or to its end."""
        waits_s = (time.monotonic_ns() - self._moved_ns) / 1e9 if self.journaled else 0.0
        return max(waits_s, super().oldest_s)

    def drain(self, wait_s: float, *, most: int | None = None) -> bool:
        """Bring what was appended into the storage; tell whether that was all.

        Args:
            wait_s: for how long at most to wait for another thread that is about it, and for the storage.
            most: bytes after which to stop.
        """
        try:
            with within(self._draining, wait_s):
                return self._drain(wait_s, most, time.monotonic() + max(wait_s, WAIT_S))
        except Occupied:  # by another thread; or a signal handler, or a read, comes in the middle of it
            return False
        except StorageError as error:
            self._retry_ns = clock.monotonic_ns() + RETRY_NS
            self._failing(error)
            if not isinstance(error, DatabaseBusy):
                self._listener.fault(error)
            return False
        except Exception as error:
            let_through(error)  # it says nothing about the storage
            self._failing(error)
            raise

    def _drain(self, wait_s: float, most: int | None, deadline: float) -> bool:
        while True:
            tried = 0 if self._taken is None else self._taken[2]
            portion = self._log.take(max(CHUNK if most is None else most, tried))
            if portion is None:
                return True
            read = bodies(portion.data)
            # The same again where an exception came before it was trimmed: all of it, to know what is outdated.
            before, self._taken = self._taken, (portion.segment, portion.start, len(portion.data))
            is_repeated = before is not None and before[:2] == self._taken[:2]
            tally = self._committer.commit(read.bodies, wait_s, are_repeated=is_repeated)
            self._moved_ns = time.monotonic_ns()
            # No call in between: who is interrupted before has it committed again, and counted then.
            if read.last > self._settled:
                self.recorded += read.last - self._settled - tally.refused - tally.failed
                self.refused += tally.refused
                self.failed += tally.failed
                self._settled = read.last
            self._taking()
            self._log.trim(portion.segment, portion.start + read.end, read.last)
            self._taken = None
            if most is not None or self._hurried or time.monotonic() > deadline:
                return False
