"""The segments that this process appends to. Records are appended at one end and drained from the other.

A lock serializes all work except appending. Appending needs no lock: the interpreter switches to another thread or to a
signal handler only at calls and at the ends of loops, and the lines that must run together contain neither. Where the
interpreter may switch between any two lines, appending takes the lock, too (class Guarded).
"""

import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast
from zlib import crc32

from agentspan import files
from agentspan.host import guard, let_through
from agentspan.journal.journal_folder import shares_blocks
from agentspan.journal.records import END, HEADER, MAGIC, PRIME, length_of, pack
from agentspan.journal.segments import COLLECTS_ANYWHERE, START, Segment, room_for
from agentspan.journal.spool import create, place, tidy
from agentspan.tuning import STANDARD

_END = len(END)


class Portion(NamedTuple):
    """Undrained bytes of a segment. They begin with a record; the last record may be cut off.

    Attributes:
        epoch: the epoch of the segment. A record may refer only to records of its own epoch.
    """

    segment: Segment
    start: int
    data: bytes
    epoch: int


class Place(NamedTuple):
    """A position in a segment. All records before it were drained to the storage.

    Attributes:
        sequence: the number of the last record before the position.
    """

    segment: Segment
    position: int
    epoch: int
    sequence: int


class Log:
    """The journal of one process in one folder.

    Drained records stay in their segment until `keep` notes that they are on the disk of the storage.

    Args:
        folder: the folder of the segments.
        writer_id: returns the id of this process's writer.
        size: bytes of the first segment. Each later segment has twice the size of the one before, up to the largest.
        growth: the size of the largest segment, as a multiple of `size`.
        is_mapped: whether records are written through a memory mapping; if None, wherever a mapping is safe.

    Attributes:
        sequence: the number of the latest record. Numbers begin at 1, so it is also the count of records.
        writer_id: returns the id of this process's writer.
        full_bytes: total size of the full segments with records that may still be needed.
        begun: number of segments that were begun.
        alert: True if the owner must do its checks before the next append. Set when a segment begins, or by the owner.
        error: the reason why the latest segment could not be created; None once one was created.
    """

    def __init__(
        self,
        folder: Path,
        writer_id: Callable[[], str],
        size: int = STANDARD.journal_segment_bytes,
        *,
        growth: int = STANDARD.journal_segment_growth,
        is_mapped: bool | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self.sequence = 0
        self.full_bytes = 0
        self.begun = 0
        self.alert = True
        self.error: OSError | None = None
        self._folder = folder
        self.writer_id = writer_id
        self._size = self._next_size = size
        self._largest = growth * size
        self._made = self._synced_made = 0
        self._segment: Segment | None = None
        self._full: deque[Segment] = deque()
        self._spare: Segment | None = None
        self._maps = not shares_blocks(folder) if is_mapped is None else is_mapped
        self._guard()

    def append(self, body: bytes, epoch: int = 0) -> bool:
        """Append a record; return False if no segment has room for it (0.6 µs: without the lock, and in one method).

        Args:
            epoch: the epoch of the records that this record refers to; 0 if it refers to no other record. If the
                current segment has another epoch, nothing is appended and the method returns False.
        """
        length = len(body)
        while True:
            sequence = self.sequence + 1
            head = pack(MAGIC, length, sequence, crc32(body, length ^ sequence % PRIME))
            if COLLECTS_ANYWHERE:
                body[:0]
            # No call may stand from here to the return: other threads, signal handlers and Ctrl-C run at calls.
            if self.sequence + 1 == sequence:
                segment = self._segment
                if segment is not None:
                    if epoch:
                        if segment.epoch != epoch:
                            return False
                        segment.is_referred_to = True
                    start = segment.end
                    end = start + HEADER + length
                    if end + _END <= segment.size:
                        segment.map[start + HEADER : end + _END] = body + END
                        # The header comes last: a process that is killed in the middle leaves the end where it was.
                        segment.map[start : start + HEADER] = head
                        segment.end = end
                        self.sequence = sequence
                        return True
            segment = None  # else a dropped segment is freed at the next assignment, and freeing runs code there
            with self.lock:
                if not self._has_room(length) and self._next_segment(length) is None:
                    return False

    def _has_room(self, length: int) -> bool:
        """Return whether a record fits into the segment. Another thread may have made a new one."""
        segment = self._segment
        return segment is not None and segment.end + HEADER + length + _END <= segment.size

    def take(self, size: int) -> Portion | None:
        """Return the oldest undrained bytes: up to `size`, but at least one record. None if all records are drained.

        Repeated calls return the same bytes until `trim` notes that they are in the storage.
        """
        with self.lock:
            segment = self.next_segment()
            if segment is None or segment.drained == segment.end:
                return None
            start = segment.drained
            size = max(size, length_of(segment.read(start, HEADER)))
            return Portion(segment, start, segment.read(start, min(segment.end - start, size)), segment.epoch)

    def next_segment(self) -> Segment | None:
        """Return the oldest segment with undrained records, else the current segment. None if there is no segment."""
        for segment in self._full:
            if segment.drained < segment.end:
                return segment
        return self._segment

    def behind(self, portion: Portion, length: int, size: int) -> Portion | None:
        """Return `size` bytes that follow the first `length` bytes of an untrimmed portion; at least one record.

        None if the segment of the portion ends before, or has a new epoch.
        """
        segment, start = portion.segment, portion.start + length
        with self.lock:
            if segment.epoch != portion.epoch or segment.end - start < max(size, HEADER):
                return None
            size = max(size, length_of(segment.read(start, HEADER)))
            if segment.end - start < size:
                return None
            return Portion(segment, start, segment.read(start, size), segment.epoch)

    def is_next(self, portion: Portion) -> bool:
        """Return whether a portion begins at the first undrained record."""
        with self.lock:
            first = self.next_segment()
            segment = portion.segment
            return segment is first and segment.epoch == portion.epoch and segment.drained == portion.start

    def trim(self, segment: Segment, drained: int) -> None:
        """Note that a segment is drained up to the position `drained`."""
        segment.drained = drained

    def place(self, sequence: int) -> Place | None:
        """Return the place of the first undrained record; None if the segments hold no drained record.

        Args:
            sequence: the number of the last drained record.
        """
        with self.lock:
            found: Place | None = None
            for segment in (*self._full, self._segment):
                if segment is None or segment.drained == START:
                    break
                found = Place(segment, segment.drained, segment.epoch, sequence)
                if segment.drained < segment.end:
                    break
            return found

    def keep(self, place: Place) -> None:
        """Release the records before a place, which are on the disk of the storage. Remove or recycle full segments."""
        while True:
            with self.lock:  # else another thread may fill the segment and unmap it between these lines
                segment = self._full[0] if self._full else self._segment
                if segment is None or all(each is not place.segment for each in (*self._full, self._segment)):
                    return  # another thread released records beyond this place
                is_place = segment is place.segment
                if is_place and segment.epoch != place.epoch:
                    return
                kept = place.position if is_place else segment.end
                if kept > segment.kept:
                    segment.keep(kept, place.sequence + 1)
                if segment is self._segment:
                    following = self.sequence + 1
                    if START < segment.end == segment.kept and not segment.keeps_records:
                        segment.reset(following)
                    return
                if segment.kept < segment.end:
                    return
                self.full_bytes -= segment.size
                self._full.popleft()  # the only call: an exception from a signal handler comes after both, or before
            self._done_with(segment)
            if is_place:
                return

    def rewind(self) -> dict[Segment, int]:
        """Mark all kept records as undrained, because the storage was replaced. Return each old drained position."""
        with self.lock:
            found = {each: each.drained for each in (*self._full, self._segment) if each is not None}
            for segment in found:
                segment.drained = segment.kept
            return found

    @property
    def has_committed(self) -> bool:
        """True if the segments keep drained records that may not be on the disk of the storage yet."""
        with self.lock:
            return any(
                segment is not None and segment.drained > segment.kept for segment in (*self._full, self._segment)
            )

    def sync(self) -> None:
        """Flush all segments, and their names in the folder, to the disk.

        Raises:
            OSError: the flush failed.
        """
        with self.lock:
            segments = [segment for segment in (*self._full, self._segment) if segment is not None]
            made = self._made
        for segment in segments:
            segment.sync()
        if made != self._synced_made and segments:
            with suppress(FileNotFoundError):  # somebody has deleted it: the next segment makes another one
                files.sync(self._folder)
                files.sync(self._folder.parent)  # it holds the name of the folder
                self._synced_made = made

    def rest(self) -> None:
        """Drop the current segment if none of its records is needed. For idle times; the next append creates one."""
        with self.lock:
            current = self._segment
            if current is None or current.end == START or current.kept < current.end:
                return
            self._put_behind(current)
            if len(self._full) > 1 or current.kept < current.end:
                return
            self.full_bytes -= current.size
            self._full.popleft()
        self._done_with(current)

    def begin_anew(self) -> None:
        """Append to a new segment from now on, so that the current one can be deleted as soon as it is drained."""
        with self.lock:
            current = self._segment
            if current is not None and current.end > START:
                self._put_behind(current)

    @property
    def epoch(self) -> int:
        """The epoch of the current segment; 0 if there is no segment."""
        segment = self._segment
        return 0 if segment is None else segment.epoch

    def begin(self, room: int) -> int:
        """Create a segment unless the current one has room for a body of `room` bytes. Return the epoch, or 0."""
        with self.lock:
            if not self._has_room(room):
                self._next_segment(room)
            return self.epoch

    @property
    def undrained_bytes(self) -> int:
        """Size of the records that are not in the storage yet, in bytes."""
        with self.lock:
            current = self._segment
            segments = (*self._full, current) if current is not None else tuple(self._full)
            return sum(segment.end - segment.drained for segment in segments)

    def prepare(self) -> None:
        """Create the next segment in a background thread, before an append needs it.

        Each step of the creation waits for its turn of the GIL while other threads append. So the creation begins when
        a sixteenth of the first segment's size is undrained, and the segment has the largest size.
        """
        segment = self._segment
        if self._spare is None and segment is not None and segment.end - segment.drained > self._size // 16:
            spare: Segment | None = None
            with guard(OSError):
                spare = Segment(place(self._folder, self.writer_id(), 0), self._largest, is_mapped=self._maps)
            if spare is None:  # the append that needs it tries again, and reports the error
                return
            spare.fill()
            with self.lock:
                if self._spare is None and self._segment is not None:
                    self._spare = spare
                    return
            spare.remove()  # meanwhile the log was released, or a recycled segment became the spare one

    def look_after_files(self) -> None:
        """Stop appending to the current segment if its file was deleted. Its records can still be drained."""
        with self.lock:
            gone = self._segment
            if gone is not None and not gone.is_there():
                self._put_behind(gone)

    def release(self, *, for_good: bool = False) -> None:
        """Delete the segments that are not needed and shrink the others. With `for_good`, also close the others."""
        with self.lock:
            current = self._segment
            if current is not None:
                self._segment = None  # first, because other threads append to it without the lock
                self._full.append(current)
            for segment in self._full:
                if segment.kept == segment.end:
                    segment.remove()
                    continue
                segment.unmap()
                segment.shrink()
                if for_good:
                    segment.leave()
            self._full = deque(segment for segment in self._full if segment.is_mine)
            self.full_bytes = sum(segment.size for segment in self._full)
            self._next_size = self._size
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.remove()
        tidy(self._folder)

    def leave(self) -> None:
        """In a forked child: close the parent's segments without deleting them."""
        segments = (*self._full, self._segment, self._spare)
        self._full, self._segment, self._spare = deque(), None, None
        for segment in segments:
            if segment is not None:
                segment.leave()

    def _next_segment(self, length: int) -> Segment | None:
        if self._segment is not None:
            self._put_behind(self._segment)
        self._made = number = self._made + 1
        self._guard()
        made = self._begun_spare(length, number)
        with guard(OSError, report=self._no_segment):
            made = made or create(
                self._folder, self.writer_id(), number, self.sequence + 1, length, self._next_size, is_mapped=self._maps
            )
        if made is None:
            return None
        self.error = None
        self._next_size = min(2 * self._next_size, self._largest)
        if self._segment is None:
            self._segment = made
            self.begun += 1
            self.alert = True
        else:  # a signal handler interrupted this method and created a segment
            made.remove()
        return self._segment

    def _no_segment(self, error: Exception) -> None:
        self.error = cast(OSError, error)

    def _put_behind(self, segment: Segment) -> None:
        if self._segment is not segment:  # a signal handler has put the segment behind already
            return
        self._segment = None
        self.full_bytes += segment.size
        self._full.append(segment)
        segment.unmap()

    def _begun_spare(self, length: int, number: int) -> Segment | None:
        spare, self._spare = self._spare, None
        if spare is None:
            return None
        if spare.size >= room_for(length):
            try:
                spare.begin(place(self._folder, self.writer_id(), number), self.sequence + 1)
                return spare  # no call in between: an exception from a signal handler would leave the file behind
            except OSError as raised:  # somebody has deleted it
                let_through(raised)
        spare.remove()
        return None

    def _done_with(self, segment: Segment) -> None:
        if self._maps and self._spare is None and segment.size == self._largest:
            with guard(OSError):
                segment.recycle()
                with self.lock:
                    if self._spare is None:  # else another thread has created a spare segment meanwhile
                        self._spare = segment
                        return
        segment.remove()

    def _guard(self) -> None:
        if not self._maps:
            self.__class__ = Written
        elif _runs_code_anywhere():
            self.__class__ = Guarded


class Guarded(Log):
    """A log that locks for each append: other code may run between any two lines (no GIL, a debugger, a tracer)."""

    def append(self, body: bytes, epoch: int = 0) -> bool:
        """Append a record with the lock held. Return False if no segment has room for it."""
        with self.lock:
            return super().append(body, epoch)


class Written(Log):
    """A log that uses no mapping, for file systems where a mapped write can end the process (see shares_blocks).

    A record is written by one or two system calls with the lock held, which takes four times as long. A signal handler
    or a finalizer may record during the write: its record follows the space that the interrupted record has reserved.
    Segments are never reused, so that zeros follow the last record.
    """

    _is_appending = False

    def append(self, body: bytes, epoch: int = 0) -> bool:
        """Append a record by a write to the file, with the lock held. Return False if that is not possible."""
        with self.lock:
            is_first, self._is_appending = not self._is_appending, True
            try:
                return self._write(body, epoch)
            finally:
                if is_first:
                    self._is_appending = False

    def _write(self, body: bytes, epoch: int) -> bool:
        length = len(body)
        while True:
            sequence = self.sequence + 1
            head = pack(MAGIC, length, sequence, crc32(body, length ^ sequence % PRIME))
            segment = self._segment
            if self.sequence + 1 == sequence and segment is not None:  # no call from here until the space is reserved
                if epoch and segment.epoch != epoch:
                    return False
                start = segment.end
                end = start + HEADER + length
                if end + _END <= segment.size:
                    segment.end = end
                    self.sequence = sequence
                    break
            segment = None
            if not self._has_room(length) and self._next_segment(length) is None:
                return False
        try:
            segment.write(start, head, body)
            return True
        except BaseException as error:
            if self.sequence == sequence:  # else there is a record behind it: a hole stays, and is passed over
                segment.end = start
                self.sequence = sequence - 1
            if not isinstance(error, OSError):
                raise
            self.error = error
            return False

    def take(self, size: int) -> Portion | None:
        """Return the oldest undrained bytes; None if a signal handler calls this while a record is being appended."""
        return None if self._is_in_the_middle() else super().take(size)

    def release(self, *, for_good: bool = False) -> None:
        """Delete or shrink the segments. Do nothing if a signal handler calls this while a record is being appended."""
        if not self._is_in_the_middle():
            super().release(for_good=for_good)

    def _is_in_the_middle(self) -> bool:
        """Return whether this thread is appending a record. Wait until no other thread is appending."""
        with self.lock:
            return self._is_appending


def _runs_code_anywhere() -> bool:
    if not getattr(sys, "_is_gil_enabled", lambda: True)() or sys.gettrace() or threading.gettrace():
        return True
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12
    if monitoring is None:
        return False
    events = monitoring.events.LINE | monitoring.events.INSTRUCTION
    return any(monitoring.get_tool(tool) and monitoring.get_events(tool) & events for tool in range(6))
