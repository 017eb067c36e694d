"""Brings session files into a storage: reads what is new in each file, and notes in the storage how far it was read.

A file that has not changed since is not opened. Of a file that has grown, the known lines are decoded again for what
the new ones need, but only new steps are stored. `Importer` keeps the decoders of files that it follows, so that a
growing file is not read again from its start.
"""

import os
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

from agentspan import clock, jsontext
from agentspan.api.context import Context
from agentspan.model.changes import Move, Put, Unit
from agentspan.model.rows import AgentInstanceRow, SessionFileRow
from agentspan.otel.identity import hashed_id
from agentspan.sessions.arriving import Arrival, Arrived
from agentspan.sessions.formats import Format, LineDecoder, Source
from agentspan.sessions.reading import Unreadable, head_hash, is_same_file, lines_of, opened, plain_path
from agentspan.sessions.records import Session
from agentspan.sessions.surroundings import Surroundings
from agentspan.storage.access import scan, unique

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
    """A source that is followed: its decoder, and how far each of its files was fed."""

    decoder: LineDecoder
    fed: dict[Path, int] = field(default_factory=dict)
    inodes: dict[Path, int] = field(default_factory=dict)


class Importer:
    """Brings sources into one storage. For one thread.

    Args:
        ctx: the context of the storage, with the redaction of sent data.
        formats: the formats by name.
        again: read files from their start, and compare all their steps, even if they have not changed.
        follows: keep decoders, because the same sources will be brought in again and again.
        now: returns the time in nanoseconds since the epoch, which tests set.

    Attributes:
        problems: a sentence for each file that could not be read.
        read, unchanged: the numbers of sources that were read, and that had not changed.
    """

    def __init__(
        self,
        ctx: Context,
        formats: Mapping[str, Format],
        *,
        again: bool = False,
        follows: bool = False,
        now: Callable[[], int] = clock.wall_ns,
    ) -> None:
        self._ctx = ctx
        self._formats = formats
        self._again = again
        self._follows = follows
        self._now = now
        self._arrival = Arrival(ctx, surroundings=Surroundings(now))
        self._followed: OrderedDict[Path, _Followed] = OrderedDict()
        self._known = {(row.format, row.path): row for row in scan(ctx.storage, SessionFileRow)}
        self.problems: list[str] = []
        self.read = self.unchanged = 0

    @property
    def arrived(self) -> Arrived:
        """What has been stored so far."""
        return self._arrival.arrived

    def run_of(self, source: Source) -> str | None:
        """Return the id of the run of a source that was brought in; None if it has many, or none."""
        row = self._known.get((source.format, _path_of(source.path)))
        return None if row is None else row.agent_instance_id

    def bring_in(self, source: Source) -> bool:
        """Bring in what is new of a source; return whether anything was read.

        A file that cannot be read is named in `problems`; its session goes on with the other files.
        """
        stamps = {file: stamp for file in source.files if (stamp := stamp_of(file)) is not None}
        newest_ns = max((stamp.changed_ns for stamp in stamps.values()), default=0)
        live = self._now() - newest_ns < LIVE_S * 1e9
        if not stamps or (not self._again and self._is_unchanged(source, stamps, live=live)):
            self.unchanged += 1
            return False
        if self._is_removed(source):
            return False
        self.read += 1
        format = self._formats[source.format]
        try:
            if format.lines is None or (format.decode is not None and plain_path(source.path).suffix == ".json"):
                self._decode_whole(format, source, stamps, live=live)
            else:
                self._decode_lines(format, source, stamps, live=live)
        except (OSError, Unreadable, EOFError, zlib.error) as error:
            self._followed.pop(source.path, None)
            why = error.strerror if isinstance(error, OSError) else str(error)
            self.problems.append(str(error) if isinstance(error, Unreadable) else f"{source.path}: {why}")
        finally:
            self._arrival.forget()
        return True

    def _is_unchanged(self, source: Source, stamps: Mapping[Path, Stamp], *, live: bool) -> bool:
        version = self._formats[source.format].version
        for file, stamp in stamps.items():
            row = self._known.get((source.format, _path_of(file)))
            if row is None or (row.size, row.changed_ns) != stamp:
                return False
            state = jsontext.decode(row.state)
            if state.get("version") != version or (state.get("live") and not live):
                return False
        return True

    def _is_removed(self, source: Source) -> bool:
        """Return whether the run of a source was removed, as by `prune`: it does not come back by itself."""
        row = self._known.get((source.format, _path_of(source.path)))
        if row is None or row.agent_instance_id is None or self._again:
            return False
        return unique(self._ctx.storage, AgentInstanceRow, id=row.agent_instance_id) is None

    def _decode_lines(self, format: Format, source: Source, stamps: Mapping[Path, Stamp], *, live: bool) -> None:
        assert format.lines is not None
        followed = self._followed.pop(source.path, None)
        if followed is not None and _goes_on(followed, stamps):
            sessions = (each for each in followed.decoder.rest() if isinstance(each, Session))
            self._arrival.take(format.name, sessions)
        else:
            followed = _Followed(format.lines(source))
        arrival, read_to, heads = self._arrival, dict[Path, int](), dict[Path, str]()
        for file in stamps:
            try:
                with closing(opened(file)) as opened_file:
                    place = self._known_place(format, file, opened_file)
                    start = followed.fed.get(file, 0)
                    for line in lines_of(opened_file, start):
                        records = followed.decoder.feed(file, line.text)
                        arrival.take(format.name, records, known=line.end <= place)
                        start = line.end
                    read_to[file], heads[file] = start, head_hash(opened_file)
                    followed.fed[file] = start
                    followed.inodes[file] = os.stat(file).st_ino
            except (OSError, Unreadable, EOFError, zlib.error) as error:
                why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                self.problems.append(str(error) if isinstance(error, Unreadable) else f"{file}: {why}")
        arrival.take(format.name, followed.decoder.rest())
        arrival.finish(live=live)
        if self._follows:
            self._followed[source.path] = followed
            while len(self._followed) > MOST_FOLLOWED:
                self._followed.popitem(last=False)
        self._note(format, source, {file: stamps[file] for file in read_to}, read_to, heads, live=live)

    def _known_place(self, format: Format, file: Path, opened_file: IO[bytes]) -> int:
        """Return the place in a file before which all steps are stored; 0 if it was replaced by another file."""
        row = self._known.get((format.name, _path_of(file)))
        if row is None or self._again or jsontext.decode(row.state).get("version") != format.version:
            return 0
        return row.read_to if is_same_file(opened_file, row.head) else 0

    def _decode_whole(self, format: Format, source: Source, stamps: Mapping[Path, Stamp], *, live: bool) -> None:
        assert format.decode is not None
        row = self._known.get((format.name, _path_of(source.path)))
        state = {} if row is None or self._again else jsontext.decode(row.state)
        after = state.get("position") if state.get("version") == format.version else None
        position = None if format.position is None else format.position(source.path)
        self._arrival.take(format.name, format.decode(source.path, after))
        self._arrival.finish(live=live, quiet_ns=int(self._now() - LIVE_S * 1e9))
        read_to = {file: stamp.size for file, stamp in stamps.items()}
        self._note(format, source, stamps, read_to, dict.fromkeys(stamps, ""), live=live, position=position)

    def _note(
        self,
        format: Format,
        source: Source,
        stamps: Mapping[Path, Stamp],
        read_to: Mapping[Path, int],
        heads: Mapping[Path, str],
        *,
        live: bool,
        position: str | None = None,
    ) -> None:
        """Note in the storage how far the files of a source were read."""
        ctx, now = self._ctx, clock.now()
        sessions = self._arrival.sessions(format.name)
        session = sessions[0] if len(sessions) == 1 else None
        placed = None if session is None else self._arrival.place(format.name, session.id)
        state = jsontext.text_of(
            {"version": format.version, "live": live, **({} if position is None else {"position": position})}
        )
        units = []
        for file, stamp in stamps.items():
            path = _path_of(file)
            before = self._known.get((format.name, path))
            row = SessionFileRow(
                hashed_id(f"{format.name}:{path}", 0, ctx.account.partition) if before is None else before.id,
                format.name,
                path,
                None if session is None else session.id,
                None if session is None else session.first,
                None if placed is None else placed.run,
                stamp.size,
                stamp.changed_ns,
                read_to[file],
                heads[file],
                state,
                now if before is None else before.inserted_at,
                now,
            )
            values: dict[str, Any] = {name: getattr(row, name) for name in row._fields if name not in _FIXED}
            change = Put(row) if before is None else Move("session_file", row.id, frozenset(), values)
            units.append(Unit((change,)))
            self._known[format.name, path] = row
        ctx.storage.apply(units, wait_s=ctx.wait_s)


_FIXED = ("id", "format", "path", "inserted_at")


def _goes_on(followed: _Followed, stamps: Mapping[Path, Stamp]) -> bool:
    """Return whether the files of a source are those that were followed, and none was replaced or cut."""
    for file, place in followed.fed.items():
        stamp = stamps.get(file)
        if stamp is None or stamp.size < place or inode_of(file) != followed.inodes[file]:
            return False
    return True


def _path_of(file: Path) -> str:
    """Return the path of a file as it is noted: absolute, without links, and as before it was compressed."""
    return os.path.realpath(plain_path(file))


def stamp_of(file: Path) -> Stamp | None:
    """Return the stamp of a file; None if it is no file, or vanished."""
    try:
        found = file.stat()
    except OSError:
        return None
    return Stamp(found.st_size, found.st_mtime_ns)


def inode_of(file: Path) -> int:
    """Return the number of a file in its file system; 0 if it vanished."""
    try:
        return file.stat().st_ino
    except OSError:
        return 0
