"""Results of slow reads, which are kept until the file changes."""

import asyncio
import os
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from tempfile import SpooledTemporaryFile
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic_core import from_json

from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.serve.responses import IN_MEMORY, encoded
from agentspan.storage.answers import SpanMark
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpanMarks
from agentspan.viewer import conversation
from agentspan.viewer.conversation import Conversation

T = TypeVar("T")

MOST = 200
"""The most results that are kept. A result is a page of texts: some kilobytes."""
FRESH_NS = 50_000_000
"""Nanoseconds for which a file that was written may be written again without another time: file systems count ticks of
up to 10 ms."""
AGAIN = 10
"""A result is kept for so many times the seconds that it took, even if the file changes: else a page over a large file
that a program records into would be computed all the time."""
LONGEST_S = 60.0
"""The longest that a result is kept after the file has changed."""


class _Result(NamedTuple):
    stamp: Hashable
    began: float
    took_s: float
    value: Any


class Kept(Generic[T]):
    """Keeps the results of reads of one storage.

    The event loop calls all methods. Reads run in two threads, and of equal reads at the same time only one.
    """

    def __init__(self, storage: Storage) -> None:
        location = storage.capabilities().location
        self._path = None if location is None else location.path
        self._results: OrderedDict[Hashable, _Result] = OrderedDict()
        self._running: dict[Hashable, asyncio.Task[T]] = {}
        self._threads = ThreadPoolExecutor(2, "agentspan-pages")

    def has(self, key: Hashable) -> bool:
        """Return whether `get` would return a kept result."""
        found = self._results.get(key)
        return found is not None and self._is_current(found)

    async def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return the kept result with this key, or else that of `read`, which runs to its end in any case."""
        found = self._results.get(key)
        if found is not None and self._is_current(found):
            self._results.move_to_end(key)
            value: T = found.value
            return value
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(self._read(key, read))
            task.add_done_callback(lambda done: (self._running.pop(key, None), done.cancelled() or done.exception()))
        return await asyncio.shield(task)

    async def _read(self, key: Hashable, read: Callable[[], T]) -> T:
        stamp, began = self.stamp(), time.monotonic()
        value = await asyncio.get_running_loop().run_in_executor(self._threads, read)
        self._results[key] = _Result(stamp, began, time.monotonic() - began, value)
        self._results.move_to_end(key)
        while len(self._results) > MOST:
            self._results.popitem(last=False)
        return value

    def _is_current(self, found: _Result) -> bool:
        age_s = time.monotonic() - found.began
        return (found.stamp is not None and found.stamp == self.stamp()) or age_s < min(AGAIN * found.took_s, LONGEST_S)

    def stamp(self) -> Hashable:
        """Return a value that changes with each commit; None if that is unknown, as for a database server."""
        if self._path is None:
            return None
        states: list[tuple[int, ...] | None] = []
        for path in (self._path, f"{self._path}-wal"):
            try:
                state = os.stat(path)
            except OSError:
                states.append(None)
                continue
            if time.time_ns() - state.st_mtime_ns < FRESH_NS:
                return None
            states.append((state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))
        return tuple(states)


MOST_CONVERSATIONS = 4
"""The most conversations whose turns are kept."""
MOST_BYTES = 128 * 2**20
"""The bytes of turns beyond which only the conversation that was read last is kept. 30,000 turns have some 45 MB."""
TURNS = 500
"""The most turns of a conversation in one answer."""
BEFORE = 50
"""The number of turns before the one that is asked for."""
_PLACES = ("span", "side", "asked_by", "at")
"""The members of a turn that tell which turn shows a span."""


class Conversations:
    """Keeps the turns of the conversations that were read last, as JSON in files without names.

    To read 30,000 turns takes 2 s, and to read 500 of them from the file 1 ms. One thread at a time calls `page`.

    Args:
        stamp: returns a value that changes with each commit to the storage; None if commits cannot be noticed.
    """

    def __init__(self, storage: Storage, stamp: Callable[[], Hashable]) -> None:
        self._storage = storage
        self._stamp = stamp
        self._kept: OrderedDict[str, _Turns] = OrderedDict()

    def page(self, run: AgentInstanceRow, offset: int, span: AgentSpanRow | None) -> bytes:
        """Return turns of a run as JSON (TurnPage in types.d.ts): from `offset` on, or around that of a span."""
        turns = self._turns(run)
        place = None if span is None else turns.place_of(span)
        return turns.page(offset if place is None else max(0, place - BEFORE), place)

    def _turns(self, run: AgentInstanceRow) -> "_Turns":
        stamp, known = self._stamp(), self._kept.pop(run.id, None)
        if known is None or stamp is None or stamp != known.stamp:
            marks = self._storage.ask(SpanMarks([run.id]))[run.id]
            # What is open may change while the marks of its spans stay the same.
            is_open = run.status in OPEN or any(mark.status in OPEN for mark in marks)
            if known is None or is_open or (run, marks) != known.state:
                known = _Turns(conversation.stored(self._storage, run), (run, marks))
            known.stamp = stamp
        self._kept[run.id] = known
        while len(self._kept) > 1 and (
            len(self._kept) > MOST_CONVERSATIONS or sum(each.size for each in self._kept.values()) > MOST_BYTES
        ):
            self._kept.popitem(last=False)
        return known


class _Turns:
    """The turns of one conversation in a file: their JSON texts with commas between, then what `place_of` needs."""

    def __init__(self, found: Conversation, state: tuple[AgentInstanceRow, frozenset[SpanMark]]) -> None:
        self.stamp: Hashable = None
        self.state = state
        parts = {"sections": found.sections, "chapters": found.chapters, "files": found.files}
        self._parts = encoded(parts)[1:-1]
        self._starts = array("Q", [0])
        self._file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        at = 0
        for turn in found.turns:
            at += self._file.write(encoded(turn) + b",")
            self._starts.append(at)
        self._file.write(encoded([{name: turn[name] for name in _PLACES} for turn in found.turns]))  # type: ignore[literal-required]

    def __del__(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def size(self) -> int:
        return self._starts[-1]

    def page(self, offset: int, place: int | None) -> bytes:
        total = len(self._starts) - 1
        start, end = (self._starts[min(number, total)] for number in (offset, offset + TURNS))
        self._file.seek(start)
        turns = self._file.read(end - start)[:-1]
        rest = encoded({"total": total, "offset": offset, "place": place})[1:]
        return b'{"turns":[%b],%b,%b' % (turns, self._parts, rest)

    def place_of(self, span: AgentSpanRow) -> int | None:
        """Return the index of the turn that shows a span (see Conversation.place_of)."""
        self._file.seek(self._starts[-1])
        return Conversation(from_json(self._file.read()), {}).place_of(span)
