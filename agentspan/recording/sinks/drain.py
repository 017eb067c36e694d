"""Drains a journal of this process: derives what was appended and commits it, batch by batch, oldest first.

In one thread: to derive one batch in a thread while another is committed took longer, because each statement waits 5 ms
for a thread that computes. In front of a server, this thread derives the next batch while it waits for answers.
"""

import threading
import time
from typing import NamedTuple

from agentspan.errors import NOT_NOW, DatabaseBusy
from agentspan.interrupts import let_through
from agentspan.journal.begun import Begun
from agentspan.journal.log import Log, Portion
from agentspan.journal.parts import Elements
from agentspan.journal.records import Bodies, bodies
from agentspan.journal.segments import Segment
from agentspan.locks import Occupied, within
from agentspan.recording.sinks.progress import Progress
from agentspan.recovery.committer import Committer
from agentspan.tuning import STANDARD, Tuning

LEAST = 16 * 1024
PORTION_S = 0.1
"""Seconds that a portion is to take, since a fork waits for the one under way. Usually the largest takes half of that.
While other threads compute, each statement waits 5 ms for them, and each run that begins takes more statements."""
SERVER_PORTION_S, SERVER_LEAST = 1.0, 128 * 1024
"""The same in front of a server, for which a fork does not wait so long. Each portion takes about ten round trips, so
small ones take many times as long: runs of 20 spans, drained on a busy machine, took three times the processor."""


class _Taken(NamedTuple):
    """A portion of the log that is not trimmed yet, and the batch that is made of it."""

    portion: Portion
    read: Bodies
    elements: Elements
    begun: Begun


class Drain:
    """Moves the records of one log to the storage.

    Args:
        log: the log to drain.
        committer: commits the records.
        progress: the counts of the sink.
        is_server: whether a server takes them.
        tuning: sizes and times.

    Attributes:
        lock: held by the thread that drains.
        makes_way: stop after the batch under way: a fork waits.
        derives_ahead: whether to derive the next portion while the storage takes one.
    """

    def __init__(
        self,
        log: Log,
        committer: Committer,
        progress: Progress,
        *,
        is_server: bool = False,
        tuning: Tuning = STANDARD,
    ) -> None:
        self.derives_ahead = is_server
        self._portion_s, self._least = (SERVER_PORTION_S, SERVER_LEAST) if is_server else (PORTION_S, LEAST)
        self.log = log
        self.lock = threading.RLock()  # held by `within`, which does not nest
        self.makes_way = False
        self._committer = committer
        self._progress = progress
        self._tried: tuple[Segment, int, int] | None = None
        self._ahead: _Taken | None = None
        self._epoch = 0
        self._elements: Elements | None = None  # whether they are in parts, the storage says
        self._drained = 0
        self._chunk = self._largest = tuning.drain_portion_bytes
        self._round_s = tuning.recording_wait_s
        self._moved_ns = time.monotonic_ns()

    @property
    def last_drained(self) -> int:
        """The number of the last record that is in the storage."""
        return self._drained

    @property
    def journaled(self) -> int:
        """The number of records that are in the log and not in the storage yet."""
        return self.log.sequence - self._drained

    @property
    def oldest_s(self) -> float:
        """Seconds since the log was drained last, in part or to its end; 0.0 where nothing is in it."""
        return (time.monotonic_ns() - self._moved_ns) / 1e9 if self.journaled else 0.0

    def note_empty(self) -> None:
        """Note that nothing waits in the log at this moment, or nothing has for longer."""
        self._moved_ns = time.monotonic_ns()

    def run(self, wait_s: float, *, most: int | None = None) -> bool:
        """Move records to the storage; return whether all were moved.

        Args:
            wait_s: how long to wait for another thread that drains, and for the storage.
            most: bytes after which to stop.
        """
        try:
            with within(self.lock, wait_s):
                return self._run(wait_s, most, time.monotonic() + max(wait_s, self._round_s))
        except Occupied:  # by another thread; or a signal handler, or a read, comes in the middle of it
            return False
        except NOT_NOW as error:
            let_through(error)
            self._progress.try_later()
            self._progress.storage_failed(error)
            if not isinstance(error, DatabaseBusy):
                self._progress.listener.fault(error)
            return False
        except Exception as error:
            let_through(error)  # it says nothing about the storage
            self._progress.storage_failed(error)
            raise

    def _run(self, wait_s: float, most: int | None, deadline: float) -> bool:
        progress = self._progress
        while True:
            began = time.monotonic()
            taken = self._taken_ahead(most) or self._take(most)
            if taken is None:
                return True
            portion, read, _, begun = taken
            # The same again where an exception came before it was trimmed: all of it, to know what is outdated.
            before, self._tried = self._tried, (portion.segment, portion.start, len(portion.data))
            is_repeated = before is not None and before[:2] == self._tried[:2]
            ahead = self._take_behind(taken) if self.derives_ahead and most is None else None
            following = None if ahead is None else ahead.begun
            tally = self._committer.commit(begun, wait_s, are_repeated=is_repeated, following=following)
            self._moved_ns = time.monotonic_ns()
            # No call in between: where an exception comes before, the portion is committed again, and counted then.
            if read.last > self._drained:
                progress.recorded += read.last - self._drained - tally.refused - tally.failed
                progress.refused += tally.refused
                progress.failed += tally.failed
                self._drained = read.last
            progress.storage_took()
            self.log.trim(portion.segment, portion.start + read.end, read.last)
            self._tried, self._ahead = None, ahead
            took_s = time.monotonic() - began
            if took_s > self._portion_s:
                self._chunk = max(self._chunk // 2, self._least)
            elif took_s < self._portion_s / 4:
                self._chunk = min(self._chunk * 2, self._largest)
            if most is not None or self.makes_way or time.monotonic() > deadline:
                return False

    def _take(self, most: int | None) -> _Taken | None:
        tried = 0 if self._tried is None else self._tried[2]
        portion = self.log.take(max(min(self._chunk, most or self._largest), tried))
        if portion is None:
            return None
        if portion.epoch != self._epoch or self._elements is None:
            self._epoch, self._elements = portion.epoch, self._committer.new_elements()
        return self._taken(portion, self._elements)

    def _take_behind(self, taken: _Taken) -> _Taken | None:
        portion = self.log.behind(taken.portion, taken.read.end, self._chunk)
        return None if portion is None else self._taken(portion, taken.elements)

    def _taken_ahead(self, most: int | None) -> _Taken | None:
        """Return what was taken ahead, if it is what comes next."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or most is not None or self._tried is not None or ahead.elements is not self._elements:
            return None
        return ahead if self.log.is_next(ahead.portion) else None

    def _taken(self, portion: Portion, elements: Elements) -> _Taken:
        read = bodies(portion.data)
        return _Taken(portion, read, elements, self._committer.begin(read.bodies, elements))
