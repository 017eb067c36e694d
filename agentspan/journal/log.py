"""The segments that this process appends to. Records are appended at one end and drained from the other.

A lock serializes all work but appending. Appending needs none: the interpreter turns to another thread, or to a signal
handler, at calls and at the ends of loops only, so whatever must not be seen half done is done without one in between.
Where that does not hold, appending takes the lock, too: see Guarded.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from agentspan import files
from agentspan.interrupts import guard, let_through
from agentspan.journal.journal_folder import shares_blocks
from agentspan.journal.records import END, HEADER, MAGIC, PRIME, length_of, pack
from agentspan.journal.segments import COLLECTS_ANYWHERE, START, Segment, room_for
from agentspan.journal.spool import create, place, tidy
from agentspan.tuning import STANDARD

_END = len(END)


class Portion(NamedTuple):
    """Bytes of a segment that were not drained before. They begin with a record; the last record may be cut off.

    Attributes:
        epoch: records of the same epoch may refer to each other.
    """

    segment: Segment
    start: int
    data: bytes
    epoch: int


class Place(NamedTuple):
    """A place in a journal: all records before it were given to the storage.

    Attributes:
        sequence: the number of the last one of them.
    """

    segment: Segment
    position: int
    epoch: int
    sequence: int


class Log:
    """The journal of one process in one folder.

    What was given to the storage stays until `keep` says that it will not be needed any more.

    Args:
        folder: where segments lie.
        writer_id: the id of this process's writer.
        size: bytes of the first segment. Those that are made when one is full are larger and larger.
        growth: the largest segment, in sizes of the first one.
        is_mapped: whether records are written through a mapping; when left out, wherever that is safe.

    Attributes:
        sequence: the number of the latest record, which is how many there were.
        writer_id: returns the id of this process's writer.
        full_bytes: size of the segments that are full, and of which something may be needed.
        begun: number of segments that were appended to.
        alert: True if the next append must look around first: a segment was begun, or the owner set it.
        error: why the latest segment could not be made, while there is none.
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
        """Append a record; return whether that was possible (0.6 µs: without the lock, and in one method).

        Args:
            epoch: append it only to a segment of this epoch, whose records it refers to; 0 if it refers to none.
        """
        length = len(body)
        while True:
            sequence = self.sequence + 1
            head = pack(MAGIC, length, sequence, crc32(body, length ^ sequence % PRIME))
            if COLLECTS_ANYWHERE:
                body[:0]
            # No call from here to the return: other threads, signal handlers and Ctrl-C come at calls.
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
            segment = None  # else what is dropped meanwhile is freed, which runs code, where the next one is taken
            with self.lock:
                if not self._has_room(length) and self._next_segment(length) is None:
                    return False

    def _has_room(self, length: int) -> bool:
        """Return whether a record fits into the segment. Another thread may have made a new one."""
        segment = self._segment
        return segment is not None and segment.end + HEADER + length + _END <= segment.size

    def take(self, size: int) -> Portion | None:
        """Return the next bytes, oldest first, at least one record; None where there are none.

        The same again, until trim says that they are in the storage.
        """
        with self.lock:
            segment = self.next_segment()
            if segment is None or segment.drained == segment.end:
                return None
            start = segment.drained
            size = max(size, length_of(segment.read(start, HEADER)))
            return Portion(segment, start, segment.read(start, min(segment.end - start, size)), segment.epoch)

    def next_segment(self) -> Segment | None:
        """Return the segment that is taken from next; None where there is none."""
        for segment in self._full:
            if segment.drained < segment.end:
                return segment
        return self._segment

    def behind(self, portion: Portion, length: int, size: int) -> Portion | None:
        """Return the bytes behind the first `length` ones of a portion that is not trimmed yet, at least one record.

        They are of the same epoch; None where its segment does not have so many.
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
        """Return whether a portion begins with what is drained next."""
        with self.lock:
            first = self.next_segment()
            segment = portion.segment
            return segment is first and segment.epoch == portion.epoch and segment.drained == portion.start

    def trim(self, segment: Segment, drained: int) -> None:
        """Note that a segment was given to the storage up to a place."""
        segment.drained = drained

    def place(self, sequence: int) -> Place | None:
        """Return the place up to which all was given to the storage; None where nothing was that is still here.

        Args:
            sequence: the number of the last record before it.
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
        """Note that what comes before a place will not be needed any more: it is in the storage, and on its disk."""
        while True:
            with self.lock:  # else another thread may fill a segment, and unmap it, in the middle of this
                segment = self._full[0] if self._full else self._segment
                if segment is None or all(each is not place.segment for each in (*self._full, self._segment)):
                    return  # another thread has noted more
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
        """Give all that may be needed to the storage again, which is another one now; return up to where it had it."""
        with self.lock:
            found = {each: each.drained for each in (*self._full, self._segment) if each is not None}
            for segment in found:
                segment.drained = segment.kept
            return found

    @property
    def has_given(self) -> bool:
        """True if something was given to the storage that may still be needed."""
        with self.lock:
            return any(
                segment is not None and segment.drained > segment.kept for segment in (*self._full, self._segment)
            )

    def sync(self) -> None:
        """Have on the disk what was appended, and the names of the segments.

        Raises:
            OSError: the disk does not take it.
        """
        with self.lock:
            segments = [segment for segment in (*self._full, self._segment) if segment is not None]
            made = self._made
        for segment in segments:
            segment.sync()
        if made != self._synced_made and segments:
            with suppress(FileNotFoundError):  # somebody has deleted it: the next segment makes another one
                files.sync(self._folder)
                files.sync(self._folder.parent)  # which tells that the folder is there
                self._synced_made = made

    def rest(self) -> None:
        """Have no segment of which nothing is needed, until the next record: nobody appends, or refers to records."""
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
        """Append to another segment from now on: what this one has is wanted no more, once it is in the storage."""
        with self.lock:
            current = self._segment
            if current is not None and current.end > START:
                self._put_behind(current)

    @property
    def epoch(self) -> int:
        """The epoch of the segment that is appended to; 0 where there is none."""
        segment = self._segment
        return 0 if segment is None else segment.epoch

    def begin(self, room: int) -> int:
        """Make a segment if there is none in which a body of so many bytes has room; return the epoch.

        0 if that is impossible.
        """
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
        """Make the next segment, in another thread, before those who append need it.

        While others append, each step of making it waits for a turn, so it is begun early, and is of the largest.
        """
        segment = self._segment
        if self._spare is None and segment is not None and segment.end - segment.drained > self._size // 16:
            spare: Segment | None = None
            with guard(OSError):
                spare = Segment(place(self._folder, self.writer_id(), 0), self._largest, is_mapped=self._maps)
            if spare is None:  # who needs it will see
                return
            spare.fill()
            with self.lock:
                if self._spare is None and self._segment is not None:
                    self._spare = spare
                    return
            spare.remove()  # all was released meanwhile, or another one has become free

    def look_after_files(self) -> None:
        """Begin a new segment if the file of the current one was deleted. The records in it can still be read."""
        with self.lock:
            gone = self._segment
            if gone is not None and not gone.is_there():
                self._put_behind(gone)

    def release(self, *, for_good: bool = False) -> None:
        """Delete empty segments. With `for_good`, close the others too. Those that stay take no more than they need."""
        with self.lock:
            current = self._segment
            if current is not None:
                self._segment = None  # at once: others append to it
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
        try:
            made = self._begun_spare(length, number) or create(
                self._folder,
                self.writer_id(),
                number,
                self.sequence + 1,
                length,
                self._next_size,
                is_mapped=self._maps,
            )
        except OSError as error:
            let_through(error)
            self.error = error
            return None
        self.error = None
        self._next_size = min(2 * self._next_size, self._largest)
        if self._segment is None:
            self._segment = made
            self.begun += 1
            self.alert = True
        else:  # a signal handler came in between, and has made one
            made.remove()
        return self._segment

    def _put_behind(self, segment: Segment) -> None:
        if self._segment is not segment:  # a signal handler has done it
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
                    if self._spare is None:  # else another thread has prepared one meanwhile
                        self._spare = segment
                        return
        segment.remove()

    def _guard(self) -> None:
        if not self._maps:
            self.__class__ = Written
        elif _runs_code_anywhere():
            self.__class__ = Guarded


class Guarded(Log):
    """A journal where code runs between any two lines: without a GIL, under a debugger, while lines are traced."""

    def append(self, body: bytes, epoch: int = 0) -> bool:
        """Append a record with the lock held."""
        with self.lock:
            return super().append(body, epoch)


class Written(Log):
    """A journal on a file system where a write through a mapping can end the process (journal_folder.shares_blocks).

    A record is written by one call of the system, or two, with the lock held, which takes four times as long. A signal
    handler or a finalizer may record in between: its record comes after the place that is taken already. Segments are
    used once, so that zeros end what was appended.
    """

    _is_appending = False

    def append(self, body: bytes, epoch: int = 0) -> bool:
        """Append a record by writing it, with the lock held."""
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
            if self.sequence + 1 == sequence and segment is not None:  # no call from here until the place is taken
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
        """Take a portion; none where a signal handler asks in the middle of a record."""
        return None if self._is_in_the_middle() else super().take(size)

    def release(self, *, for_good: bool = False) -> None:
        """Close the files, unless a signal handler asks in the middle of a record."""
        if not self._is_in_the_middle():
            super().release(for_good=for_good)

    def _is_in_the_middle(self) -> bool:
        """Return whether this thread is appending. If another thread is, this call waits until that has ended."""
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
