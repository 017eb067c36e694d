"""Derives runs and their steps from the entries of sessions that the Claude Agent SDK has stored.

How far the entries of a session were derived is noted in the storage, after the steps are. So a program that was killed
loses nothing: the next one goes on there. `Deriver` keeps the decoders of sessions that go on, so that their entries
are not decoded again at each append. The steps are those of the session's file, with the same ids.
"""

import atexit
import threading
import time
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from agentspan.arriving import Arrival, Arrived, Session
from agentspan.ground import (
    AgentInstanceRow,
    Context,
    SessionFileRow,
    SessionSummaryRow,
    clock,
    errors,
    host,
    jsontext,
    scan,
    unique,
)
from agentspan.sessions.entries import Address, Entries, mtime_of, verbatim
from agentspan.sessions.formats import Format, LineDecoder, Source
from agentspan.sessions.importing import LIVE_S, MOST_FOLLOWED, noting

PAUSE_S = 0.1
"""How long the thread waits for further appends before it derives, so that many are committed together."""
LONGEST_PAUSE_S = 0.8
"""The pause after a long round. It is three times the round, so that the thread takes a quarter of a processor."""
AGAIN_S = 2.0
"""How long the thread waits after a fault of the storage."""
EXIT_WAIT_S = 10.0
"""How long the end of a program waits for the thread. The next program derives the rest."""
MOST_WAITING_BYTES = 64 * 2**20
"""The most bytes of entries that wait in memory, if they are not kept in the storage."""


class Of(NamedTuple):
    """A session of a project. Its entries are derived together."""

    project_key: str
    session: str

    @property
    def place(self) -> str:
        """The `path` of its SessionFileRow. It is no path of a file."""
        return f"claude-agent-sdk:{self.project_key}/{self.session}"

    def file(self, subpath: str) -> Path:
        """The path that Claude Code's own file of the entries has, below its folder of projects."""
        name = f"{self.session}/{subpath}" if subpath else self.session
        return Path(self.project_key, f"{name}.jsonl")


@dataclass(slots=True)
class _Followed:
    """The decoder of a session, and the id of the last entry of each subpath that it was fed."""

    decoder: LineDecoder
    fed: dict[str, str] = field(default_factory=dict)


class Deriver:
    """Derives steps from entries of one storage. For one thread.

    Args:
        ctx: the context of the storage, with the redaction of sent data.
        entries: the entries of the same storage.
        format: the format of Claude Code's files.
    """

    def __init__(self, ctx: Context, entries: Entries, format: Format) -> None:
        self._ctx = ctx
        self._entries = entries
        self._format = format
        self._arrival = Arrival(ctx)
        self._followed: OrderedDict[Of, _Followed] = OrderedDict()

    @property
    def arrived(self) -> Arrived:
        """Counts of what has been stored so far."""
        return self._arrival.arrived

    def pending(self) -> list[Of]:
        """Return the sessions with entries that were not derived, or that were left going on and have ended."""
        notes = {row.path: row for row in scan(self._ctx.storage, SessionFileRow, {"format": self._format.name})}
        by_session: dict[Of, list[SessionSummaryRow]] = defaultdict(list)
        for row in self._entries.rows():
            by_session[Of(row.project_key, row.session)].append(row)
        return [of for of, keys in by_session.items() if self._is_pending(notes.get(of.place), keys)]

    def _is_pending(self, note: SessionFileRow | None, keys: Sequence[SessionSummaryRow]) -> bool:
        state = self._state(note)
        is_behind = any(key.last_entry > state["after"].get(key.subpath, "") for key in keys)
        return is_behind or (state["live"] and not is_live(keys))

    def _state(self, note: SessionFileRow | None) -> dict[str, Any]:
        """Return how far a session was derived: with this version of the decoder, or before its run was removed."""
        state = {} if note is None else jsontext.decode(note.state)
        after = state.get("after", {})
        if note is not None and state.get("version") != self._format.version and not self._is_removed(note):
            after = {}
        return {"after": after, "live": bool(state.get("live"))}

    def _is_removed(self, note: SessionFileRow) -> bool:
        """Return whether the run of a session was removed, as by `prune`: its old steps do not come back."""
        run = note.agent_instance_id
        return run is not None and unique(self._ctx.storage, AgentInstanceRow, id=run) is None

    def derive(self, of: Of, *, has_ended: bool = False) -> bool:
        """Store the steps of entries that were not derived, and return whether the session may go on.

        Args:
            has_ended: the session does not go on, although its last entry may be new.
        """
        keys = self._entries.rows(**of._asdict())
        if not keys:
            self._followed.pop(of, None)
            return False
        note, live = self._note_of(of), is_live(keys) and not has_ended
        after = self._state(note)["after"]
        followed = self._going_on(of, note, keys)
        try:
            for key in keys:
                self._feed(of, followed, key.subpath, after.get(key.subpath, ""))
            newest_ns = max(map(mtime_of, keys)) * 1_000_000
            self._finish(of, followed, note, live=live, newest_ns=newest_ns)
        finally:
            self._arrival.forget()
        self._follow(of, followed, live=live)
        return live

    def take(self, of: Of, lines: Sequence[tuple[str, bytes]], *, has_ended: bool = False) -> bool:
        """Store the steps of entries that are not in the storage, and return whether the session may go on.

        Args:
            lines: the subpath and the JSON of each entry.
            has_ended: the session does not go on.
        """
        followed = self._followed.pop(of, None)
        if followed is None and not lines:
            return False
        if followed is None:
            followed = self._new(of, ())
        else:
            self._place(followed)
        try:
            for subpath, line in lines:
                self._arrival.take(self._format.name, followed.decoder.feed(*_as_in_file(of.file(subpath), line)))
            self._finish(of, followed, self._note_of(of), live=not has_ended, newest_ns=clock.wall_ns())
        finally:
            self._arrival.forget()
        self._follow(of, followed, live=not has_ended)
        return not has_ended

    def _follow(self, of: Of, followed: _Followed, *, live: bool) -> None:
        if live:
            self._followed[of] = followed
        while len(self._followed) > MOST_FOLLOWED:
            self._followed.popitem(last=False)

    def _going_on(self, of: Of, note: SessionFileRow | None, keys: Sequence[SessionSummaryRow]) -> _Followed:
        """Return the decoder of a session that goes on; else a new one.

        Another process may have derived more of the session meanwhile: the decoder is fed these entries, too.
        """
        followed = self._followed.pop(of, None)
        subpaths = [key.subpath for key in keys]
        was_replaced = note is None  # and so was the file, or the entries were deleted
        if followed is None or was_replaced or not followed.fed.keys() <= set(subpaths):
            return self._new(of, subpaths)
        self._place(followed)
        return followed

    def _new(self, of: Of, subpaths: Sequence[str]) -> _Followed:
        assert self._format.lines is not None
        parts = tuple(of.file(subpath) for subpath in subpaths if subpath)
        return _Followed(self._format.lines(Source(self._format.name, of.file(""), parts, None)))

    def _place(self, followed: _Followed) -> None:
        """Pass the sessions of a decoder to the arrival again, which has forgotten them."""
        sessions = [each for each in followed.decoder.rest() if isinstance(each, Session)]
        self._arrival.take(self._format.name, sessions)

    def _feed(self, of: Of, followed: _Followed, subpath: str, derived: str) -> None:
        file, fed = of.file(subpath), followed.fed.get(subpath, "")
        for row in self._entries.after(Address(*of, subpath), fed):
            records = followed.decoder.feed(*_as_in_file(file, row.entry.encode()))
            self._arrival.take(self._format.name, records, known=row.id <= derived)
            followed.fed[subpath] = row.id

    def _finish(self, of: Of, followed: _Followed, note: SessionFileRow | None, *, live: bool, newest_ns: int) -> None:
        """Commit the steps, then note how far they go."""
        self._arrival.take(self._format.name, followed.decoder.rest())
        self._arrival.finish(live=live)
        state = {"version": self._format.version, "live": live, "after": followed.fed}
        self._note(of, note, jsontext.text_of(state), newest_ns)

    def _note_of(self, of: Of) -> SessionFileRow | None:
        return unique(self._ctx.storage, SessionFileRow, format=self._format.name, path=of.place)

    def _note(self, of: Of, note: SessionFileRow | None, state: str, newest_ns: int) -> None:
        name, ctx = self._format.name, self._ctx
        found = next((each for each in self._arrival.sessions(name) if each.id == of.session), None)
        placed = self._arrival.place(name, of.session)
        _, unit = noting(
            ctx,
            name,
            of.place,
            note,
            session=of.session,
            first=None if found is None else found.first,
            agent_instance_id=None if placed is None else placed.run,
            size=0,
            changed_ns=newest_ns,
            read_to=0,
            head="",
            state=state,
        )
        ctx.storage.apply([unit], wait_s=ctx.wait_s)


def _as_in_file(file: Path, line: bytes) -> tuple[Path, bytes]:
    """Return the file and the line that Claude Code writes for an entry.

    The SDK's entry of the type `agent_metadata` is a file beside that of the sub-agent.
    """
    if b'"agent_metadata"' not in line or not isinstance(entry := jsontext.decode(line.decode()), dict):
        return file, line
    if entry.pop("type", None) != "agent_metadata":
        return file, line
    return file.with_name(f"{file.stem}.meta.json"), verbatim(entry).encode()


def is_live(keys: Sequence[SessionSummaryRow]) -> bool:
    """Return whether a session may go on: its last entry came less than LIVE_S ago."""
    return clock.wall_ns() / 1e6 - max(map(mtime_of, keys)) < LIVE_S * 1000


class DerivingThread:
    """Derives what is appended, in a thread that is started when it is needed. Safe to call from any thread.

    Args:
        open: makes the Deriver, in the thread.
        keeps: whether the entries are in the storage; else they are passed to `appended`.
    """

    def __init__(self, open: Callable[[], Deriver], *, keeps: bool) -> None:
        self._open = open
        self._keeps = keeps
        self._is_closed = False
        self.renew()
        _all.add(self)

    def renew(self) -> None:
        """In a forked child: forget the thread, and what the parent derives."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._bell = host.Bell()
        self._thread: host.Thread | None = None
        self._waiting: dict[Of, list[tuple[str, bytes]]] = {}
        self._bytes = 0
        self._asked = self._done = 0
        self._has_ended = False
        self._own: set[Of] = set()

    def start(self) -> None:
        """Start the thread. At first, it derives what earlier programs have left."""
        if not host.page[0]:
            host.renew()
        with self._lock:
            if self._thread is None and not self._is_closed:
                self._thread = host.Thread(
                    target=self._work, args=(self._bell,), name="agentspan-sessions", daemon=True
                )
                host.start(self._thread)

    def appended(self, of: Of, lines: Sequence[tuple[str, bytes]] = ()) -> None:
        """Report new entries of a session. Waits only while entries in memory take more than MOST_WAITING_BYTES.

        Args:
            lines: the entries, if they are not in the storage: the subpath and the JSON of each.
        """
        self.start()
        with self._lock:
            self._changed.wait_for(lambda: self._bytes <= MOST_WAITING_BYTES or self._is_closed, 60.0)
            self._asked += 1
            self._put(of, lines)
        self._bell.ring()

    def _put(self, of: Of, lines: Sequence[tuple[str, bytes]]) -> None:
        self._own.add(of)
        self._waiting[of] = [*self._waiting.get(of, ()), *lines]
        self._bytes += sum(len(line) for _, line in lines)

    def settle(self, wait_s: float) -> bool:
        """Wait until the entries reported so far were derived; return whether they were in time."""
        with self._lock:
            asked = self._asked
            self._changed.wait_for(lambda: self._done >= asked or self._has_ended, wait_s)
            return self._done >= asked

    def close(self, wait_s: float) -> bool:
        """Derive the rest, end the runs, and end the thread; return whether it ended in time."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        if thread is None or not host.page[0]:
            return True
        self.end_soon()
        thread.join(wait_s)
        return not thread.is_alive()

    def end_soon(self) -> None:
        """Let the thread end after it has derived the rest. Waits for nothing: a garbage collection may call it."""
        self._bell.is_last = True
        self._bell.ring()

    def _work(self, bell: host.Bell) -> None:
        try:
            with host.guard(report=_report):
                self._go_on(bell)
        finally:
            with self._lock:
                self._has_ended = True
                self._changed.notify_all()

    def _go_on(self, bell: host.Bell) -> None:
        deriver: Deriver | None = None
        ends: dict[Of, float] | None = None
        while True:
            is_last, next_s, started = bell.is_last, inf, time.monotonic()
            try:
                deriver = deriver or self._open()
                if ends is None:
                    ends = dict.fromkeys(deriver.pending() if self._keeps else (), 0.0)
                self._round(deriver, ends, is_last=is_last)
                next_s = min(ends.values(), default=inf)
            except errors.NOT_NOW as error:
                _report(error)
                next_s = time.monotonic() + AGAIN_S
            if is_last:
                return
            pause_s = min(max(PAUSE_S, 3 * (time.monotonic() - started)), LONGEST_PAUSE_S)
            if bell.wait(min(max(0.0, next_s - time.monotonic()), 3600.0)):
                _sleep(bell, pause_s)

    def _round(self, deriver: Deriver, ends: dict[Of, float], *, is_last: bool) -> None:
        """Derive what was appended, and end the sessions that have not gone on; when closing, all of this program."""
        with self._lock:
            asked, waiting, self._waiting, self._bytes = self._asked, self._waiting, {}, 0
            self._changed.notify_all()
        now = time.monotonic()
        for of, lines in waiting.items():
            ends.pop(of, None)
            self._derive(deriver, of, lines, ends, is_last=is_last)
        for of in [of for of, at in ends.items() if is_last or at <= now]:
            del ends[of]
            self._derive(deriver, of, (), ends, is_last=is_last)
        with self._lock:
            self._done = asked
            self._changed.notify_all()

    def _derive(
        self, deriver: Deriver, of: Of, lines: Sequence[tuple[str, bytes]], ends: dict[Of, float], *, is_last: bool
    ) -> None:
        """Derive a session, and note in `ends` when it is to be looked at again."""
        # Only for one session: a fault of the decoder must not keep the others from being derived.
        with host.guard(report=_report):
            try:
                if self._keeps:
                    live = deriver.derive(of, has_ended=is_last and of in self._own)
                else:
                    live = deriver.take(of, lines, has_ended=is_last or not lines)
                if live:
                    ends[of] = time.monotonic() + LIVE_S + 1
            except errors.NOT_NOW as error:
                _report(error)
                ends[of] = time.monotonic() + AGAIN_S
                if lines:
                    with self._lock:
                        self._put(of, lines)


def _sleep(bell: host.Bell, pause_s: float) -> None:
    """Sleep; wake early if the thread is to end."""
    end = time.monotonic() + pause_s
    while not bell.is_last and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, PAUSE_S))


def _report(error: BaseException) -> None:
    host.log.warning("steps of a session could not be derived: %s: %s", type(error).__name__, error)


_all: "weakref.WeakSet[DerivingThread]" = weakref.WeakSet()


def close_all() -> None:
    """At exit: give the threads time to derive what was appended."""
    for each in host.members(_all):
        each.close(EXIT_WAIT_S)


def _renew_all() -> None:
    for each in host.members(_all):
        each.renew()


atexit.register(close_all)
host.renewal(host.Renewal.RECORDERS, _renew_all)
