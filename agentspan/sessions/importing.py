"""Imports session files into a storage: reads what is new in each file, and notes in the storage how far it was read.

A file that has not changed since is not opened. Of a file that has grown, the known lines are decoded again, because
new lines refer to them, but only new steps are stored. `Importer` keeps the decoders of files that it follows, so that
a growing file is not read again from its start.
"""

import os
import stat
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from agentspan.arriving import (
    TOGETHER,
    TOGETHER_BYTES,
    Arrival,
    Arrived,
    ParentMissing,
    Record,
    Session,
    about_of,
    hashed_id,
)
from agentspan.ground import (
    AgentInstanceRow,
    Context,
    Move,
    Put,
    SessionFileRow,
    Storage,
    Unit,
    clock,
    errors,
    host,
    jsontext,
    scan,
    unique,
)
from agentspan.sessions.formats import Format, LineDecoder, Source
from agentspan.sessions.reading import (
    PACKED,
    Line,
    Unreadable,
    head_hash,
    is_same_file,
    lines_of,
    opened,
    plain_path,
    tail_hash,
)
from agentspan.sessions.rehoming import awaited, awaiting, removed
from agentspan.sessions.surroundings import Surroundings

LIVE_S = 300.0
"""Seconds after the last change of a file for which its session is taken to go on."""
MOST_FOLLOWED = 64
"""The most files whose decoders are kept while they are followed."""


class Stamp(NamedTuple):
    """The size and the time of change of a file, by which an unchanged file is known."""

    size: int
    changed_ns: int


@dataclass(slots=True)
class _Followed:
    """A source that is followed: its decoder, how far each of its files was fed, and what stood before that place."""

    decoder: LineDecoder
    fed: dict[Path, int] = field(default_factory=dict)
    inodes: dict[Path, int] = field(default_factory=dict)
    tails: dict[Path, str] = field(default_factory=dict)


class Wanted(NamedTuple):
    """The choice of the sessions that are imported from a file of many.

    Attributes:
        takes: returns whether a session is wanted.
        name: a text that names the choice. If it differs from the last one, the file is read again.
    """

    takes: Callable[[Session], bool]
    name: str


class Importer:
    """Imports sources into one storage. For one thread.

    Args:
        ctx: the context of the storage, with the redaction of sent data.
        formats: the formats by name.
        again: read files from their start, and compare all their steps, even if they have not changed.
        follows: keep decoders, because the same sources will be imported again and again.
        wanted: which sessions of a file that holds many are imported; None for all.
        now: returns the time in nanoseconds since the epoch, which tests set.

    Attributes:
        problems: a sentence for each file that could not be read.
        read, unchanged: the numbers of sources that were read, and that had not changed.
        removed: the number of sources that have changed, but whose run was removed: they were not read.
    """

    def __init__(
        self,
        ctx: Context,
        formats: Mapping[str, Format],
        *,
        again: bool = False,
        follows: bool = False,
        wanted: Wanted | None = None,
        now: Callable[[], int] = clock.wall_ns,
    ) -> None:
        self._ctx, self._formats, self._wanted, self._now = ctx, formats, wanted, now
        self._again, self._follows = again, follows
        self._arrival = Arrival(ctx, surroundings=Surroundings(now).of, again=again)
        self._followed: OrderedDict[Path, _Followed] = OrderedDict()
        self._known = {(row.format, row.path): row for row in scan(ctx.storage, SessionFileRow)}
        notes = [row for row in self._known.values() if '"awaits"' in row.state]
        self._awaiting = awaiting(notes) if notes else {}
        came = {(row.format, row.session) for row in self._known.values()}
        self._came = [key for key in self._awaiting if key in came]
        self._is_rehoming = False
        self._unread: dict[str, int] = {}
        self.problems: list[str] = []
        self.read = self.unchanged = self.removed = 0

    def is_new(self, source: Source) -> bool:
        """Return whether a source has changed since it was imported, or should end now; it is not opened."""
        stamps = self._stamps(source)
        return bool(stamps) and (self._again or not self._is_unchanged(source, stamps, live=self._is_live(stamps)))

    def _stamps(self, source: Source) -> dict[Path, Stamp]:
        return stamps_of(source, self._formats[source.format])

    def _is_live(self, stamps: Mapping[Path, Stamp]) -> bool:
        return self._is_recent(max((stamp.changed_ns for stamp in stamps.values()), default=0))

    def _is_recent(self, ns: int) -> bool:
        """Return whether a time is close to now. A time far in the future is wrong: it keeps no session going on."""
        return abs(self._now() - ns) < LIVE_S * 1e9

    @property
    def arrived(self) -> Arrived:
        """Counts of what has been stored so far."""
        return self._arrival.arrived

    @property
    def storage(self) -> Storage:
        """The storage."""
        return self._ctx.storage

    def is_live(self, source: Source) -> bool:
        """Return whether the run of a source was left active, because its session goes on."""
        row = self._known.get((source.format, noted_path(source.path)))
        return row is not None and bool(jsontext.decode(row.state).get("live"))

    def run_of(self, source: Source) -> str | None:
        """Return the id of the run of a source that was imported; None if it has many, or none."""
        row = self._known.get((source.format, noted_path(source.path)))
        return None if row is None else row.agent_instance_id

    def import_source(self, source: Source, *, waits: bool = False) -> bool:
        """Import what is new of a source; return whether anything was read.

        A file that cannot be read is named in `problems`; its session goes on with the other files.

        Args:
            waits: raise ParentMissing for a sub-agent's file whose session has not arrived; else it gets its own run.

        Raises:
            ParentMissing: nothing of the source was stored.
            StorageError: the storage cannot be written. What was committed stays.
        """
        stamps = self._stamps(source)
        live = self._is_live(stamps)
        if not stamps or (not self._again and self._is_unchanged(source, stamps, live=live)):
            self.unchanged += 1
            return False
        if self._is_removed(source):
            self.removed += 1
            return False
        self.read += 1
        self._unread = dict(self.arrived.unread)
        format = self._formats[source.format]
        self._arrival.replaces = self._again or self._has_grown(source, stamps)
        self._arrival.waits_for_parents = waits and format.lines is not None
        try:
            if format.lines is None or (format.decode is not None and plain_path(source.path).suffix == ".json"):
                self._decode_whole(format, source, stamps, live=live)
            else:
                self._decode_lines(format, source, stamps, live=live)
        except (OSError, Unreadable, EOFError, zlib.error) as error:
            self._followed.pop(source.path, None)
            self.problems.append(_why(source.path, error))
        finally:
            self._arrival.forget()
        if not self._is_rehoming:
            self._is_rehoming = True
            try:
                self._rehome()
            finally:
                self._is_rehoming = False
        return True

    def _rehome(self) -> None:
        """Store sessions again, in their place, that came before a session that has come since."""
        came, self._came = dict.fromkeys(self._came), []
        for format, session in came:
            for run in self._awaiting.pop((format, session), ()):
                moving = removed(self._ctx, self._formats[format], run, session)
                if moving is not None:
                    self._known.update({(note.format, note.path): note for note in moving.notes})
                    self._arrival.arrived.runs.pop(run, None)
                    for source in moving.sources:
                        self._followed.pop(source.path, None)
                    for _ in self.import_waiting(moving.sources):
                        pass

    def import_waiting(self, sources: Sequence[Source]) -> Iterator[Source]:
        """Import sources, those of sessions before those of their sub-agents, and yield each when it is stored.

        A sub-agent whose session is in none of them becomes a run of its own.
        """
        late = [*sources]
        while late:
            waiting: list[Source] = []
            for source in late:
                try:
                    self.import_source(source, waits=True)
                    yield source
                except ParentMissing:
                    waiting.append(source)
            if len(waiting) == len(late):
                self.import_source(waiting[-1])  # the one that has waited since the oldest file
                yield waiting.pop()
            late = waiting

    def _is_unchanged(self, source: Source, stamps: Mapping[Path, Stamp], *, live: bool) -> bool:
        format = self._formats[source.format]
        wish = None if self._wanted is None or format.lines is not None else self._wanted.name
        for file, stamp in stamps.items():
            row = self._known.get((source.format, noted_path(file)))
            if row is None or (row.size, row.changed_ns) != stamp:
                return False
            state = jsontext.decode(row.state)
            if _is_new_part(source, file, state):
                return False
            if state.get("version") != format.version or (state.get("live") and not live):
                return False
            if state.get("wanted") != wish:
                return False
        return True

    def _has_grown(self, source: Source, stamps: Mapping[Path, Stamp]) -> bool:
        """Return whether a source has grown since it was read, and no other program has read more of it."""
        before = ((stamps[file].size, self._known.get((source.format, noted_path(file)))) for file in stamps)
        notes = [
            (size, unique(self._ctx.storage, SessionFileRow, id=row.id)) for size, row in before if row is not None
        ]
        grown = [size - note.size for size, note in notes if note is not None]
        return bool(grown) and max(grown) > 0 <= min(grown)

    def _is_removed(self, source: Source) -> bool:
        """Return whether the run of a source was removed, as by `prune`: it does not come back by itself."""
        row = self._known.get((source.format, noted_path(source.path)))
        if row is None or row.agent_instance_id is None or self._again:
            return False
        return unique(self._ctx.storage, AgentInstanceRow, id=row.agent_instance_id) is None

    def _decode_lines(self, format: Format, source: Source, stamps: Mapping[Path, Stamp], *, live: bool) -> None:
        assert format.lines is not None
        followed = self._followed.pop(source.path, None)
        if followed is not None and not self._again and _goes_on(followed, stamps):
            rest = _guarded(source.path, followed.decoder.rest)
            sessions = (each for each in rest if isinstance(each, Session))
            self._arrival.take(format.name, sessions)
        else:
            followed = _Followed(format.lines(source))
        arrival, read_to, heads, tails = self._arrival, dict[Path, int](), dict[Path, str](), followed.tails
        is_whole = True
        arrival.replaces_ends = any(self._is_new_part(source, file) for file in stamps)
        steps, has_begun = arrival.steps, not arrival.replaces_ends
        for file in stamps:
            try:
                followed.inodes[file] = inode_of(file)
                with closing(opened(file)) as opened_file:
                    is_new_part = self._is_new_part(source, file)
                    place = 0 if is_new_part else self._known_place(format, file, opened_file, stamps[file])
                    start = followed.fed.get(file, 0)
                    for records, end in _decoded(followed.decoder, file, lines_of(opened_file, start), place):
                        arrival.take(format.name, records, known=end <= place)
                        records.clear()  # they may be long, and storing needs memory, too
                        arrival.settle()
                        start = end
                    read_to[file], heads[file] = start, head_hash(opened_file)
                    tails[file] = "" if file.suffix in PACKED else tail_hash(opened_file, start)
                    followed.fed[file] = start
                    has_begun |= file == source.path and arrival.steps > steps
            except FileNotFoundError:
                is_whole = False  # it was moved or deleted meanwhile
            except (OSError, Unreadable, EOFError, zlib.error) as error:
                is_whole = False
                self.problems.append(_why(file, error))
        arrival.take(format.name, _guarded(source.path, followed.decoder.rest))
        live = live and self._goes_on(format)
        arrival.finish(live=live)
        if self._follows and is_whole:  # else the decoder has lines that `fed` does not count
            self._followed[source.path] = followed
            while len(self._followed) > MOST_FOLLOWED:
                self._followed.popitem(last=False)
        has_part = {file: file != source.path and has_begun for file in read_to}
        states = {file: {"live": live, "tail": tails[file], "part": has_part[file]} for file in read_to}
        self._note(format, source, {file: stamps[file] for file in read_to}, read_to, heads, states)

    def _is_new_part(self, source: Source, file: Path) -> bool:
        row = self._known.get((source.format, noted_path(file)))
        return row is not None and _is_new_part(source, file, jsontext.decode(row.state))

    def _goes_on(self, format: Format) -> bool:
        """Return whether the last record of the sessions is new: a copy of an old file is new, its session is old."""
        last_ns = (session.ended_ns or session.started_ns for session in self._arrival.sessions(format.name))
        return self._is_recent(max(last_ns, default=0))

    def _known_place(self, format: Format, file: Path, opened_file: IO[bytes], stamp: Stamp) -> int:
        """Return the place in a file before which all steps are stored; 0 if it was replaced or rewritten."""
        row = self._known.get((format.name, noted_path(file)))
        if row is None or self._again:
            return 0
        state = jsontext.decode(row.state)
        if state.get("version") != format.version or not is_same_file(opened_file, row.head):
            return 0
        tail = "" if file.suffix in PACKED else state.get("tail")
        is_kept = not tail or (stamp.size >= row.read_to and tail_hash(opened_file, row.read_to) == tail)
        return row.read_to if is_kept else 0

    def _decode_whole(self, format: Format, source: Source, stamps: Mapping[Path, Stamp], *, live: bool) -> None:
        assert format.decode is not None
        row = self._known.get((format.name, noted_path(source.path)))
        state = {} if row is None or self._again else jsontext.decode(row.state)
        wanted = self._wanted
        wish = {} if wanted is None else {"wanted": wanted.name}
        is_same_wish = state.get("version") == format.version and state.get("wanted") == wish.get("wanted")
        has_ended = state.get("live") and not live  # all is read once more: what has not changed since ends, too
        after = state.get("position") if is_same_wish and not has_ended else None
        position = {} if format.position is None else {"position": format.position(source.path)}
        records = _guarded(source.path, partial(format.decode, source.path, after))
        self._arrival.take(format.name, records if wanted is None else chosen(records, wanted))
        live = live and self._goes_on(format)
        self._arrival.finish(live=live, quiet_ns=int(self._now() - LIVE_S * 1e9))
        read_to = {file: stamp.size for file, stamp in stamps.items()}
        states = {file: {"live": live, **wish, **position} for file in stamps}
        self._note(format, source, stamps, read_to, dict.fromkeys(stamps, ""), states)

    def _lacking(self, format: Format, sessions: Sequence[Session], *, live: bool) -> str | None:
        """Return what a source lacks of which nothing can be used, as when its format has changed; None for others."""
        if not sessions:
            new = sorted(what for what, n in self.arrived.unread.items() if n > self._unread.get(what, 0))
            return f"no session was found in it: {', '.join(new)}" if new else None
        arrival = self._arrival
        if arrival.calls and arrival.calls == arrival.empty:
            return "its calls of models have neither tokens nor text"
        # Tokens come last: not while it is written, or for one call that was broken off. Documents often have none.
        counts = format.lines is not None and not live and any(session.version for session in sessions)
        return "its calls of models have no tokens" if counts and arrival.calls == arrival.uncounted > 1 else None

    def _note(
        self,
        format: Format,
        source: Source,
        stamps: Mapping[Path, Stamp],
        read_to: Mapping[Path, int],
        heads: Mapping[Path, str],
        states: Mapping[Path, Mapping[str, Any]],
    ) -> None:
        """Note in the storage how far the files of a source were read."""
        ctx = self._ctx
        sessions = self._arrival.sessions(format.name)
        tops = [each for each in sessions if each.parent is None or len(sessions) == 1]
        session = tops[0] if len(tops) == 1 else None
        placed = None if session is None else self._arrival.place(format.name, session.id)
        awaits = None
        has_original = session is not None and session.conversation not in (None, session.id)
        if session is not None and placed is not None and (has_original or session.parent is not None):
            awaits = awaited(ctx, format.name, session, is_own_run=placed.top is None)
        if awaits is not None and placed is not None:
            self._awaiting.setdefault((format.name, awaits), set()).add(placed.run)
            self._came.append((format.name, awaits))  # it may have come while this run was open
        keys = [(format.name, about_of(ctx, each.id) or "") for each in sessions]
        self._came += [key for key in keys if key in self._awaiting]
        live = any(state["live"] for state in states.values())
        more: dict[str, Any] = {} if awaits is None else {"awaits": awaits}
        if (lacking := self._lacking(format, sessions, live=live)) is not None:
            self.problems.append(f"{source.path}: {lacking}; a later version of agentspan may read it")
            more["version"] = None  # it is read again
        units = []
        for file, stamp in stamps.items():
            key = format.name, noted_path(file)
            self._known[key], unit = noting(
                ctx,
                *key,
                self._known.get(key),
                session=None if session is None else about_of(ctx, session.id),
                first=None if session is None else about_of(ctx, session.first),
                agent_instance_id=None if placed is None else placed.run,
                size=stamp.size,
                changed_ns=stamp.changed_ns,
                read_to=read_to[file],
                head=heads[file],
                state=jsontext.text_of({"version": format.version, **states[file], **more}),
            )
            units.append(unit)
        ctx.storage.apply(units, wait_s=ctx.wait_s)


def noting(
    ctx: Context, format: str, path: str, before: SessionFileRow | None, **values: Any
) -> tuple[SessionFileRow, Unit]:
    """Return the row that says how far a file was read, and the unit that stores it in place of the row `before`."""
    now = values["updated_at"] = clock.now()
    if before is not None:
        return before._replace(**values), Unit((Move("session_file", before.id, frozenset(), values),))
    id = hashed_id(f"{format}:{path}", 0, ctx.account.partition)
    row = SessionFileRow(id=id, format=format, path=path, inserted_at=now, **values)
    return row, Unit((Put(row),))


def _decoded(decoder: LineDecoder, file: Path, lines: Iterator[Line], known: int) -> Iterator[tuple[list[Record], int]]:
    """Feed lines of a file to a decoder; yield its records, many at once, and the place after their last line.

    Many at once, because the code that decodes and that which stores displace each other in the processor's cache: an
    import takes 4 % less. If the file cannot be read any further, what was decoded is yielded before the error.

    Args:
        known: a place in the file. Records before it are not yielded together with others.

    Yields:
        A list that the caller may clear, and a place.
    """
    records: list[Record] = []
    size, end = 0, 0
    guarded = host.guard(report=partial(_fail, file))
    try:
        for after, text in lines:
            if records and end <= known < after:
                yield records, end
                records, size = [], 0
            with guarded:
                records += decoder.feed(file, text)
            size, end = size + len(text), after
            del text  # it may be long
            if len(records) >= TOGETHER or size >= TOGETHER_BYTES:
                yield records, end
                records, size = [], 0
    except (OSError, Unreadable, EOFError, zlib.error):
        if records:
            yield records, end
        raise
    if end:
        yield records, end


def _guarded(file: Path, records: Callable[[], Iterable[Record]]) -> Iterator[Record]:
    """Yield what a function of a decoder returns."""
    with host.guard(report=partial(_fail, file)):
        yield from records()


def _fail(file: Path, error: BaseException) -> None:
    """Raise the error of a file that cannot be read. A fault of its decoder must not end the import of other files."""
    if isinstance(error, (errors.AgentspanError, OSError, EOFError, zlib.error)):
        raise error
    raise Unreadable(
        f"{file}: its decoder failed ({type(error).__name__}); what stands before that is stored"
    ) from error


def _is_new_part(source: Source, file: Path, state: Mapping[str, Any]) -> bool:
    """Return whether a file of a sub-agent was read alone, before the main file of its session was there."""
    return file != source.path and state.get("part") is False


def _why(file: Path, error: Exception) -> str:
    """Return the sentence for a file that could not be read."""
    if isinstance(error, Unreadable):
        return str(error)
    return f"{file}: {getattr(error, 'strerror', None) or error}"


def chosen(records: Iterable[Record], wanted: Wanted) -> Iterator[Record]:
    """Yield the records of the sessions that are wanted, and of their sub-agents."""
    takes: dict[str | None, bool] = {None: True}
    for record in records:
        if isinstance(record, Session):
            above = None if record.parent is None else takes.get(record.parent[0])
            takes[record.id] = wanted.takes(record) if above is None else above
            if takes[record.id]:
                yield record
        elif takes.get(record.session, True):
            yield record


def _goes_on(followed: _Followed, stamps: Mapping[Path, Stamp]) -> bool:
    """Return whether the files of a source are those that were followed, and none was replaced, cut or rewritten."""
    for file, place in followed.fed.items():
        stamp = stamps.get(file)
        if stamp is None or inode_of(file) != followed.inodes[file]:
            return False
        if file.suffix not in PACKED and (stamp.size < place or _tail_of(file, place) != followed.tails[file]):
            return False
    return True


def _tail_of(file: Path, place: int) -> str | None:
    try:
        with opened(file) as opened_file:
            return tail_hash(opened_file, place)
    except OSError:
        return None


def noted_path(file: Path) -> str:
    """Return the path of a file as it is noted: absolute, without links, and as before it was compressed.

    Bytes of it that are no UTF-8 are escaped.
    """
    path = os.path.realpath(plain_path(file))
    return path if path.isascii() else os.fsencode(path).decode("utf-8", "backslashreplace")


def stamps_of(source: Source, format: Format) -> dict[Path, Stamp]:
    """Return the stamps of a source's files that exist."""
    with_log = format.lines is None
    found = ((file, stamp_of(file, with_log=with_log)) for file in source.files)
    return {file: stamp for file, stamp in found if stamp is not None}


def stamp_of(file: Path, *, with_log: bool = False) -> Stamp | None:
    """Return the stamp of a file; None if it is no regular file, or vanished.

    Args:
        with_log: the file may be an SQLite database: changes of the log beside it count, too.
    """
    try:
        found = file.stat()
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    log = stamp_of(file.with_name(f"{file.name}-wal")) if with_log else None
    return Stamp(found.st_size, found.st_mtime_ns if log is None else max(found.st_mtime_ns, log.changed_ns))


def inode_of(file: Path) -> int:
    """Return the number of a file in its file system; 0 if it vanished."""
    try:
        return file.stat().st_ino
    except OSError:
        return 0


Progress = Callable[[int, int], None]


def import_all(
    importer: Importer, sources: Sequence[Source], formats: Mapping[str, Format], progress: Progress | None = None
) -> Iterator[Source]:
    """Import sources in their order, and yield each when it is stored.

    The file of a sub-agent waits for the session that started it. If that is in no file, it becomes a run of its own.

    Args:
        progress: called with the bytes that are done, and with all bytes.

    Raises:
        StorageError: the storage cannot be written. What was committed stays, and the next call goes on.
    """
    sizes = [sum(stamp.size for stamp in stamps_of(source, formats[source.format]).values()) for source in sources]
    total, done = max(1, sum(sizes)), 0
    late: list[Source] = []
    for source, size in zip(sources, sizes, strict=True):
        try:
            importer.import_source(source, waits=True)
            yield source
        except ParentMissing:
            late.append(source)
        done += size
        if progress is not None:
            progress(done, total)
    yield from importer.import_waiting(late)
