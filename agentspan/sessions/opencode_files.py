"""Reads the files of OpenCode: its database, and the tree of JSON files of older versions. Decodes nothing.

The database is opened for reading only (see reading.database). Only the tables `session`, `project`, `message` and
`part` are read: others hold credentials.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from agentspan.arriving import id_in, list_in, object_in, parsed, text_in
from agentspan.sessions.formats import head_of, open_regular
from agentspan.sessions.reading import Unreadable, database
from agentspan.sessions.timeline import MS, ms_ns

BUSY_S = 0.5
"""Seconds to wait for a file that another program has locked."""
RECENT_MS = 600_000
"""Sessions that changed so recently before the last reading are read again: they may have ended since."""
_TABLES = ("session", "message", "part")
_FIELDS = (
    "id", "parent_id", "project_id", "directory", "title", "version", "agent", "permission", "revert",
    "summary_additions", "summary_deletions", "summary_files", "time_created", "time_updated", "time_archived",
)  # fmt: skip
"""The columns of a session that are read: others may be long, such as the differences of all files."""
_MAGIC = b"SQLite format 3\0"


class Row(NamedTuple):
    """A message or a part: its id, its time in nanoseconds or None, and what it says (None: no JSON object)."""

    id: str
    created_ns: int | None
    data: dict[str, Any] | None


class Store(Protocol):
    """The sessions of a file."""

    def sessions(self) -> list[dict[str, Any]]:
        """Return the fields of all sessions by the names of the database's columns, in order of their starts."""

    def changed(self, after: str | None) -> set[str]:
        """Return the ids of the sessions that may have changed since a position."""

    def messages(self, session: str) -> Iterator[Row]:
        """Yield the messages of a session in order."""

    def parts(self, message: str) -> Iterator[Row]:
        """Yield the parts of a message in order."""

    def spawned(self, session: str) -> dict[str, str]:
        """Return the parts of a session that started other sessions, by the ids of these."""

    def at(self, session: str, created_ms: int) -> Iterator[Row]:
        """Yield the messages of one time in a session."""

    def same_time(self, created_ms: int, session: str, before_ms: int) -> Iterator[tuple[str, Row]]:
        """Yield the messages of one time in other sessions that started before a time, with their sessions' ids."""

    def above(self, session: str) -> "Store | None":
        """Return the store of a session that is not in this one; None if there is none."""


def is_database(path: Path) -> bool:
    """Return whether a file is a database with the tables of sessions."""
    if head_of(path, 16) != _MAGIC:
        return False
    try:
        with closing(_connected(path)) as connection:
            return all(_columns(connection, table) for table in _TABLES)
    except (sqlite3.Error, Unreadable):
        return False


def position(path: Path) -> str:
    """Return the greatest time of change in a database, in milliseconds."""
    try:
        with closing(_connected(path)) as connection:
            newest = [0]
            for table in _TABLES:
                if "time_updated" in _columns(connection, table):
                    found = connection.execute(f"SELECT max(time_updated) FROM {table}").fetchone()[0]
                    newest.append(found if type(found) is int else 0)
            return str(max(newest))
    except sqlite3.Error as error:
        raise _unreadable(path, error)


def _unreadable(path: Path, error: sqlite3.Error) -> Unreadable:
    return Unreadable(f"{path} cannot be read now ({error}); it is read again the next time")


def _connected(path: Path) -> sqlite3.Connection:
    try:
        connection = database(path, BUSY_S)
    except sqlite3.Error as error:
        raise _unreadable(path, error)
    connection.text_factory = bytes  # a text that is no UTF-8 raises otherwise
    return connection


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [_text(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _value(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _json(text: Any) -> dict[str, Any] | None:
    found = parsed(text) if isinstance(text, str | bytes) else None
    return found if type(found) is dict else None


class DatabaseStore:
    """The sessions of a database. To be closed.

    Raises:
        Unreadable: the file cannot be opened, or is no database; also while it is read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = _connected(path)
        try:
            self._found = {table: set(_columns(self._connection, table)) for table in (*_TABLES, "project")}
        except sqlite3.Error as error:
            self.close()
            raise _unreadable(path, error)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _rows(self, sql: str, values: Iterable[Any] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            with closing(self._connection.execute(sql, tuple(values))) as cursor:
                yield from cursor
        except sqlite3.Error as error:
            raise _unreadable(self._path, error)

    def _records(self, table: str, where: str, order: str, values: Iterable[Any]) -> Iterator[Row]:
        created = "time_created" if "time_created" in self._found[table] else "NULL"
        for id, ms, data in self._rows(
            f"SELECT id, {created}, data FROM {table} WHERE {where} ORDER BY {order}", values
        ):
            yield Row(_text(id), ms_ns(ms), _json(data))

    def sessions(self) -> list[dict[str, Any]]:
        """Return the fields of all sessions, with the project's folder as `worktree`."""
        names = [name for name in _FIELDS if name in self._found["session"]]
        order = "time_created, id" if "time_created" in names else "id"
        columns = ", ".join(f'"{name}"' for name in names)
        found = [
            dict(zip(names, map(_value, row), strict=True))
            for row in self._rows(f"SELECT {columns} FROM session ORDER BY {order}")
        ]
        folders: Mapping[Any, Any] = {}
        if {"id", "worktree"} <= self._found["project"]:
            folders = {_value(id): _value(folder) for id, folder in self._rows("SELECT id, worktree FROM project")}
        return [{**row, "id": _text(row["id"]), "worktree": folders.get(row.get("project_id"))} for row in found]

    def changed(self, after: str | None) -> set[str]:
        """Return the ids of sessions of which a row changed since shortly before a position; all without one."""
        if after is None or not after.isdigit() or any("time_updated" not in self._found[each] for each in _TABLES):
            return {_text(id) for (id,) in self._rows("SELECT id FROM session")}
        since = (int(after) - RECENT_MS,)
        found = {_text(id) for (id,) in self._rows("SELECT id FROM session WHERE time_updated >= ?", since)}
        for table in ("message", "part"):
            sql = f"SELECT DISTINCT session_id FROM {table} NOT INDEXED WHERE time_updated >= ?"
            found.update(_text(id) for (id,) in self._rows(sql, since))
        return found

    def messages(self, session: str) -> Iterator[Row]:
        """Yield the messages of a session in order."""
        order = "time_created, id" if "time_created" in self._found["message"] else "id"
        yield from self._records("message", "session_id = ?", order, (session,))

    def parts(self, message: str) -> Iterator[Row]:
        """Yield the parts of a message in order."""
        yield from self._records("part", "message_id = ?", "id", (message,))

    def spawned(self, session: str) -> dict[str, str]:
        """Return the parts of a session that started other sessions, by the ids of these."""
        where = "session_id = ? AND (instr(data, '\"sessionId\"') OR instr(data, '\"sessionID\"'))"
        return _spawned(self._records("part", where, "id", (session,)))

    def at(self, session: str, created_ms: int) -> Iterator[Row]:
        """Yield the messages of one time in a session."""
        yield from self._records("message", "session_id = ? AND time_created = ?", "id", (session, created_ms))

    def same_time(self, created_ms: int, session: str, before_ms: int) -> Iterator[tuple[str, Row]]:
        """Yield the messages of one time in other sessions that started before a time."""
        sql = (
            "SELECT s.id, m.id, m.data FROM session s JOIN message m ON m.session_id = s.id AND m.time_created = ?"
            " WHERE s.time_created < ? AND s.id <> ? ORDER BY s.time_created, s.id, m.id"
        )
        for owner, id, data in self._rows(sql, (created_ms, before_ms, session)):
            yield _text(owner), Row(_text(id), created_ms * MS, _json(data))

    def above(self, session: str) -> None:
        """Return None: all sessions are in this store."""


def _spawned(parts: Iterable[Row]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in parts:
        state = object_in((part.data or {}).get("state"))
        metadata = object_in(state.get("metadata"))
        if child := text_in(metadata.get("sessionId")) or text_in(metadata.get("sessionID")):
            found.setdefault(child, part.id)
    return found


class TreeStore:
    """One session of the older tree: `session/PROJECT/ID.json`, `message/SESSION/*.json`, `part/MESSAGE/*.json`.

    Args:
        path: the session's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._storage = storage_of(path)
        self._parts: dict[str, list[Any]] = {}

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def sessions(self) -> list[dict[str, Any]]:
        """Return the fields of the session."""
        info = _file(self._path)
        if info is None:
            return []
        time = object_in(info.get("time"))
        return [
            {
                **{name: value for name, value in info.items() if type(value) in (str, int, float)},
                "id": id_in(info.get("id")) or self._path.stem,
                "parent_id": info.get("parentID"),
                "project_id": info.get("projectID"),
                "revert": info.get("revert"),
                "time_created": time.get("created"),
                "time_updated": time.get("updated"),
                "time_archived": time.get("archived"),
            }
        ]

    def changed(self, after: str | None) -> set[str]:
        """Return the id of the session."""
        return {row["id"] for row in self.sessions()}

    def messages(self, session: str) -> Iterator[Row]:
        """Yield the messages of a session in order."""
        found = []
        for file in files_of(self._storage / "message", session):
            data = _file(file)
            id = id_in((data or {}).get("id")) or file.stem
            created = ms_ns(object_in((data or {}).get("time")).get("created"))
            found.append(Row(id, created, data))
            self._parts[id] = list_in((data or {}).get("parts"))
        yield from sorted(found, key=lambda row: (row.created_ns or 0, row.id))

    def parts(self, message: str) -> Iterator[Row]:
        """Yield the parts of a message: in the order that the message names, then by name."""
        named = [each for each in self._parts.get(message, []) if type(each) is str]
        place = {name: number for number, name in enumerate(named)}
        rows = []
        for file in files_of(self._storage / "part", message):
            data = _file(file)
            id = id_in((data or {}).get("id")) or file.stem
            rows.append((place.get(id, len(place)), file.name, Row(id, None, data)))
        yield from (row for _, _, row in sorted(rows, key=lambda each: each[:2]))

    def spawned(self, session: str) -> dict[str, str]:
        """Return the parts of the session that started other sessions, by the ids of these."""
        return _spawned(part for message in self.messages(session) for part in self.parts(message.id))

    def at(self, session: str, created_ms: int) -> Iterator[Row]:
        """Yield nothing: the tree's versions had no forks."""
        yield from ()

    def same_time(self, created_ms: int, session: str, before_ms: int) -> Iterator[tuple[str, Row]]:
        """Yield nothing: the tree's versions had no forks."""
        yield from ()

    def above(self, session: str) -> "TreeStore | None":
        """Return the store of another session of the tree; None if it has none."""
        for file in self._storage.glob(f"session/*/{_escaped(session)}.json"):
            return TreeStore(file)
        return None


def _escaped(name: str) -> str:
    return "".join(f"[{each}]" if each in "*?[" else each for each in name).replace("/", "?")


def storage_of(path: Path) -> Path:
    """Return the folder of the tree that a session's file is in."""
    return path.parent.parent.parent


def files_of(folder: Path, name: str) -> list[Path]:
    """Return the JSON files of a folder in a folder, by name; none if it vanished, or the name leads elsewhere."""
    if Path(name).name != name:
        return []
    try:
        return sorted(each for each in (folder / name).iterdir() if each.suffix == ".json")
    except (OSError, ValueError):
        return []


def _file(path: Path) -> dict[str, Any] | None:
    try:
        with open_regular(path) as file:
            return _json(file.read())
    except OSError:
        return None
