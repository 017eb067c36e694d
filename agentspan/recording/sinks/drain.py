"""Drains a journal of this process: derives units from the records and commits them, in batches, oldest first.

A committed record leaves the journal only when it is on the disk of the file, and a new connection finds it (`settle`).
If the path has a new file, all records that are still in the journal are drained again, into the new file.

All in one thread: deriving one batch in a second thread while another is committed took longer, because each statement
waits 5 ms for a computing thread. In front of a server, the thread derives the next batch while it waits for answers.
"""

import threading
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from agentspan import disk
from agentspan.errors import NOT_NOW, DatabaseBusy, StorageError
from agentspan.host import Occupied, let_through, within
from agentspan.journal.committer import Committer, Tally
from agentspan.journal.deriving import BatchInSteps
from agentspan.journal.log import Log, Place, Portion
from agentspan.journal.records import Bodies, Elements, bodies
from agentspan.journal.segments import START, Segment
from agentspan.recording.sinks.facts import Progress, until_trusted
from agentspan.storage.patience import ENDLESS, Patience
from agentspan.storage.protocol import BesideJournals, FileReplaced, NotTrustedYet
from agentspan.tuning import STANDARD, Tuning

LEAST = 16 * 1024
KEEPS_S = 1.0
"""Seconds that records stay in the journal after they were found in the file, if the log of the file is not synced."""
PORTION_S = 0.1
"""The target time of one portion, in seconds, because a fork waits for the current portion. Usually the largest portion
takes half of it. While other threads compute, each statement waits 5 ms, and each run that begins needs more
statements."""
SERVER_PORTION_S, SERVER_LEAST = 1.0, 128 * 1024
"""The target time and the smallest size of a portion in front of a server, for which a fork does not wait so long. Each
portion takes about ten round trips, so small portions are slow: runs of 20 spans, drained on a busy machine, took three
times the processor."""


class _Taken(NamedTuple):
    """A portion of the log that is not committed yet, and the batch derived from it."""

    portion: Portion
    read: Bodies
    elements: Elements
    begun: BatchInSteps


class _Given(NamedTuple):
    """The committed records that are still in the journal at one moment.

    Attributes:
        place: the end of the last committed record.
        drained: the number of the last committed record.
        counted: the outcomes of all records of the journal up to the last committed one.
        newest: the ids of the rows that were written last.
        files: the number of the file that the records were committed to.
    """

    place: Place
    drained: int
    counted: Tally
    newest: tuple[str, ...]
    files: int


class Drain:
    """Moves the records of one log to the storage.

    Args:
        log: the log to drain.
        committer: commits the records.
        progress: the counts of the sink.
        is_server: whether the storage is a server.
        journals: the file that receives the records; None if each commit is on the disk at once.
        tuning: sizes and times.

    Attributes:
        lock: held by the thread that drains.
        makes_way: whether to stop after the current batch, because a fork waits.
        derives_ahead: whether to derive the next portion while the storage commits the current one.
    """

    def __init__(
        self,
        log: Log,
        committer: Committer,
        progress: Progress,
        *,
        is_server: bool = False,
        journals: BesideJournals | None = None,
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
        self._elements: Elements | None = None  # made late: the capabilities of the storage decide about parts
        self._drained = self._kept = 0
        self._journals = journals
        self._files = 0 if journals is None else journals.files
        self._counted = self._counted_kept = Tally()  # of all drained records; of those that have left the journal
        self._again: dict[Segment, tuple[int, int]] = {}  # epoch, and the position drained into the replaced file
        self._knows_writer = False
        self._latest: list[tuple[float, _Given]] = []  # records found in the file recently, with the time of the check
        self._keeps_s = KEEPS_S if tuning.sync_every_s is None else tuning.sync_every_s
        self._syncs = tuning.sync_every_s is not None
        self._chunk = self._largest = tuning.drain_portion_bytes
        self._round_s = tuning.recording_wait_s
        self._moved_ns = disk.monotonic_ns()

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
        """Seconds since the latest commit of records, or since the log was empty; 0.0 if no record waits."""
        return (disk.monotonic_ns() - self._moved_ns) / 1e9 if self.journaled else 0.0

    def note_empty(self) -> None:
        """Set the age of the waiting records to zero: the log is empty, or no thread was draining it until now."""
        self._moved_ns = disk.monotonic_ns()

    def run(self, wait_s: float, *, most: int | None = None, patience: Patience = ENDLESS) -> bool:
        """Move records to the storage. Return True if all were moved.

        Args:
            wait_s: seconds to wait for another thread that drains, and for the storage.
            most: move one portion of about this many bytes; if None, move portions until the log is empty.
            patience: how long to wait for the answers of a server.
        """
        try:
            with within(self.lock, wait_s):
                deadline = disk.monotonic() + max(wait_s, self._round_s)
                return self._run(self._committer.waiting(patience), wait_s, most, deadline)
        except Occupied:  # by another thread; or a signal handler, or a read, comes in the middle of it
            return False
        except NOT_NOW as error:
            self._not_now(error)
            return False
        except Exception as error:
            self._progress.storage_failed(error)
            raise

    def _not_now(self, error: Exception) -> None:
        self._progress.storage_failed(error)
        self._progress.try_later()
        self._follow_file()
        if not isinstance(error, DatabaseBusy):
            self._progress.listener.fault(error)

    def _run(self, committer: Committer, wait_s: float, most: int | None, deadline: float) -> bool:
        progress = self._progress
        while True:
            began = disk.monotonic()
            self._follow_file()
            taken = self._taken_ahead(most) or self._take(most)
            if taken is None:
                return True
            portion, read, _, begun = taken
            # After an exception between commit and trim, all of the portion is committed again, to skip old updates.
            before, self._tried = self._tried, (portion.segment, portion.start, len(portion.data))
            is_repeated = before is not None and before[:2] == self._tried[:2]
            is_repeated = is_repeated or portion.start < self._drained_before(portion.segment)
            ahead = self._take_behind(taken) if self.derives_ahead and most is None else None
            following = None if ahead is None else ahead.begun
            try:
                tally = committer.commit(begun, wait_s, are_repeated=is_repeated, following=following)
            except FileReplaced:
                self._tried = None
                continue
            self._moved_ns = disk.monotonic_ns()
            # Without a call in between, an exception comes before the counts, and they are made at the next commit.
            if read.last > self._drained:
                recorded = read.last - self._drained - tally.refused - tally.failed
                progress.recorded += recorded
                progress.refused += tally.refused
                progress.failed += tally.failed
                self._drained = read.last
                counted = recorded, tally.refused, tally.failed
                self._counted = Tally(*[each + more for each, more in zip(self._counted, counted, strict=True)])
            progress.storage_took()
            self.log.trim(portion.segment, portion.start + read.end)
            self._tried, self._ahead = None, ahead
            if self._journals is None:
                self._let_go(self._given())
            took_s = disk.monotonic() - began
            if took_s > self._portion_s:
                self._chunk = max(self._chunk // 2, self._least)
            elif took_s < self._portion_s / 4:
                self._chunk = min(self._chunk * 2, self._largest)
            if most is not None or self.makes_way or disk.monotonic() > deadline:
                return False

    def _take(self, most: int | None) -> _Taken | None:
        least = 0 if self._tried is None else self._tried[2]
        if self._again:  # all of the earlier drained bytes at once, so that outdated updates are found and skipped
            segment = self.log.next_segment()
            least = least if segment is None else max(least, self._drained_before(segment) - segment.drained)
        portion = self.log.take(max(min(self._chunk, most or self._largest), least))
        if portion is None:
            return None
        if portion.epoch != self._epoch or self._elements is None:
            self._epoch, self._elements = portion.epoch, self._committer.new_elements()
            if portion.start > START and portion.segment.is_referred_to:
                self._elements.note_stored(bodies(portion.segment.read(START, portion.start - START)).bodies)
        return self._taken(portion, self._elements)

    def _take_behind(self, taken: _Taken) -> _Taken | None:
        portion = self.log.behind(taken.portion, taken.read.end, self._chunk)
        return None if portion is None else self._taken(portion, taken.elements)

    def _taken_ahead(self, most: int | None) -> _Taken | None:
        """Return the portion that was derived ahead, if it is the next one to commit; else None."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or most is not None or self._tried is not None or ahead.elements is not self._elements:
            return None
        return ahead if self.log.is_next(ahead.portion) else None

    def _taken(self, portion: Portion, elements: Elements) -> _Taken:
        read = bodies(portion.data)
        return _Taken(portion, read, elements, self._committer.begin(read.bodies, elements))

    def settle(self, wait_s: float, *, keeps_latest: bool = False) -> bool:
        """Remove committed records from the journal once they are on the disk of the file and found there.

        Args:
            wait_s: seconds to wait for another thread that drains; without `keeps_latest` also for a file that is not
                trusted yet.
            keeps_latest: keep the records that were found less than a second ago, because the file may be deleted at
                any moment.

        Returns:
            whether the file has all committed records.
        """
        try:
            look = partial(self._settle, wait_s, keeps_latest=keeps_latest)
            return until_trusted(look, 0.0 if keeps_latest else wait_s)
        except NotTrustedYet as error:
            if not keeps_latest:
                self._progress.storage_failed(error)
            return False

    def _settle(self, wait_s: float, *, keeps_latest: bool) -> bool:
        journals = self._journals
        try:
            with within(self.lock, wait_s):
                handed = self._given()
            if self._syncs:
                self.log.sync()
            if journals is None:
                return True
            if handed is None:
                return journals.has(())
            if self._syncs:
                journals.sync()
            with within(self.lock, wait_s):
                self._follow_file()
                if handed.files != self._files or not self._is_found(journals, handed):
                    return False
                self._follow_file()  # the check may have found a new file at the path
                if handed.files != self._files:
                    return False
                self._latest = [*self._latest, (disk.monotonic(), handed)]
                before = disk.monotonic() - self._keeps_s if keeps_latest else float("inf")
                while self._latest and self._latest[0][0] <= before:
                    self._let_go(self._latest[0][1])
                    self._latest = self._latest[1:]
                return True
        except Occupied:
            return False
        except NotTrustedYet:
            raise
        except NOT_NOW as error:
            let_through(error)
            with suppress(Occupied), within(self.lock, wait_s):
                self._not_now(error if isinstance(error, StorageError) else StorageError(_unsynced(error)))
            return False

    @property
    def has_committed(self) -> bool:
        """True if committed records are still in the journal."""
        return self._journals is not None and self.log.has_committed

    def _given(self) -> _Given | None:
        place = self.log.place(self._drained)
        return place and _Given(place, self._drained, self._counted, tuple(self._committer.newest), self._files)

    def _is_found(self, journals: BesideJournals, handed: _Given) -> bool:
        """Return True if the committed records are in the file, or were removed by a user. If they are lost, rewind."""
        writer = (self.log.writer_id(),)
        is_known = journals.has(writer)
        if self._knows_writer and not is_known and not journals.has(handed.newest):
            self._rewind()
            return False
        self._knows_writer = is_known
        return True

    def _let_go(self, handed: _Given | None) -> None:
        if handed is not None:
            self.log.keep(handed.place)
            if handed.drained > self._kept:
                self._kept, self._counted_kept = handed.drained, handed.counted

    def _follow_file(self) -> None:
        """If the path has another file now, mark all records in the journal as undrained."""
        if self._journals is not None and self._journals.files != self._files:
            self._files = self._journals.files
            self._rewind()

    def _rewind(self) -> None:
        self._knows_writer = False
        self._tried = self._ahead = self._elements = None
        self._latest = []
        self._again = {segment: (segment.epoch, until) for segment, until in self.log.rewind().items()}
        progress, counted, kept = self._progress, self._counted, self._counted_kept
        with progress.lock:
            progress.recorded -= counted.recorded - kept.recorded
            progress.refused -= counted.refused - kept.refused
            progress.failed -= counted.failed - kept.failed
            self._counted, self._drained = kept, self._kept

    def _drained_before(self, segment: Segment) -> int:
        epoch, until = self._again.get(segment, (0, 0))
        return until if epoch == segment.epoch else 0


def _unsynced(error: Exception) -> str:
    return f"what was recorded may not be on the disk, which does not take it: {getattr(error, 'strerror', error)}"
