"""Maintenance of a file: removes runs and keys, compacts, checks for damage, backs up, and runs a user's SELECT."""

import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agentspan import files
from agentspan.errors import InvalidValue, StorageError
from agentspan.host import guard, let_through
from agentspan.model.columns import columns_of
from agentspan.model.rows import ROWS, ResourceType
from agentspan.model.status import INSTANCE_STATUSES, SPAN_STATUSES
from agentspan.storage.answers import Answer
from agentspan.storage.questions import Compact, FileBytes, PutKeys, Question, RemoveKeys, RemoveRuns, UsedBytes
from agentspan.storage.sqlite.connections import Connections
from agentspan.storage.sqlite.contents import remove_contents
from agentspan.storage.sqlite.driver import storage_error, waiting
from agentspan.storage.sqlite.index import index_file
from agentspan.storage.sqlite.index.answers import IndexParts
from agentspan.storage.sqlite.index.span_sums import IS_OPEN
from agentspan.storage.sqlite.joining import BIT, damage, missing
from agentspan.storage.sqlite.migrations import table_of
from agentspan.storage.sqlite.statements import INSERT_KEY
from agentspan.storage.sqlite.writes import removed

PAGES = 500
"""The number of pages that one transaction returns to the operating system: 2 MB, about 10 ms."""
PAUSE_S = 0.01
"""The seconds between two attempts to truncate the log, which other connections may be using."""
REMOVABLE = (
    f"select 1 from agent_instances i where id = ? and not {IS_OPEN} "
    f"and not exists (select 1 from agent_spans where agent_instance_id = i.id and {IS_OPEN})"
)
OLD_KEYS = "from idempotency_keys where inserted_at < ?"


class Upkeep:
    """Does the tasks of a file (see questions.Task).

    Args:
        connections: the connections to the file.
        parts: the parts of the index beside the file.
    """

    def __init__(self, connections: Connections, parts: IndexParts) -> None:
        self._path = connections.path
        self._parts = parts
        self._connections = connections

    def remove_runs(self, asked: RemoveRuns) -> tuple[int, int]:
        """Remove finished runs, and return the numbers of removed runs and spans (see questions.RemoveRuns)."""

        def remove(connection: sqlite3.Connection) -> tuple[int, int]:
            gone = [id for id in asked.ids if connection.execute(REMOVABLE, (id,)).fetchone() is not None]
            connection.execute("pragma secure_delete = on").fetchone()  # zeros removed rows
            try:
                spans = sum(_remove(connection, id) for id in gone)
            finally:
                connection.execute("pragma secure_delete = off").fetchone()
            if gone:
                removed(connection, gone)
            return len(gone), spans

        return self._connections.transact(remove, asked.wait_s)

    def remove_keys(self, asked: RemoveKeys) -> int:
        """Remove idempotency keys that were stored before a time, or only count them. Return their number."""
        values = (asked.before,)
        if asked.dry_run:
            with self._connections.snapshot() as connection:
                (count,) = connection.execute(f"select count(*) {OLD_KEYS}", values).fetchone()
                return int(count)
        delete = f"delete {OLD_KEYS}"
        return self._connections.transact(lambda connection: connection.execute(delete, values).rowcount, asked.wait_s)

    def put_keys(self, asked: PutKeys) -> int:
        """Store the idempotency keys that are not stored yet, and return their number."""
        return self._connections.transact(
            lambda connection: connection.executemany(INSERT_KEY, asked.keys).rowcount, asked.wait_s
        )

    def used_bytes(self, asked: UsedBytes) -> int:
        """Return the number of bytes of all pages that are not free."""
        with self._connections.snapshot() as connection:
            pages, free, size = (_pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def file_bytes(self, asked: FileBytes) -> int:
        """Return the size of the file plus its write-ahead log, in bytes."""
        self._connections.check_open()
        return sum(os.path.getsize(path) for end in ("", "-wal") if os.path.exists(path := f"{self._path}{end}"))

    def compact(self, asked: Compact) -> None:
        """Return free pages to the system, in steps. A file without `auto_vacuum` is rewritten once, in one step."""
        connections, wait_s = self._connections, asked.wait_s
        try:
            with connections.writing(wait_s):
                connection = connections.writer()
                if _pragma(connection, "auto_vacuum") == 0 and _pragma(connection, "freelist_count"):
                    connection.execute("pragma auto_vacuum = incremental")
                    waiting(lambda: connection.execute("vacuum"), self._path, wait_s)
                while before := _pragma(connection, "freelist_count"):
                    step = f"pragma incremental_vacuum({PAGES})"
                    waiting(lambda step=step: connection.execute(step).fetchall(), self._path, wait_s)  # type: ignore[misc]
                    if _pragma(connection, "freelist_count") >= before:
                        break
                _empty_log(connection, wait_s)
        except sqlite3.Error as error:
            raise storage_error(error, self._path) from error
        self._compact_index()

    def _compact_index(self) -> None:
        """Bring the existing parts of the index up to date, which removes the words and numbers of removed spans."""
        if not index_file.path_of(self._path).exists():
            return
        with (
            guard(OSError, StorageError, sqlite3.Error),
            self._connections.no_fork(),
            index_file.opened(self._path, in_memory=False) as connection,
        ):
            for part in self._parts:
                if index_file.is_made(connection, part):
                    with index_file.current(connection, part, pause_s=self._connections.tuning.index_pause_s):
                        pass
            return
        index_file.discard(self._path)


def _remove(connection: sqlite3.Connection, run: str) -> int:
    spans = "select id from agent_spans where agent_instance_id = ?"
    connection.execute(f"delete from schema_violations where agent_span_id in ({spans})", (run,))
    count = connection.execute("delete from agent_spans where agent_instance_id = ?", (run,)).rowcount
    for table in ("refused_changes", "otel_traces", "tags", "scores"):
        connection.execute(f"delete from {table} where agent_instance_id = ?", (run,))
    remove_contents(connection, run)
    connection.execute("delete from agent_instances where id = ?", (run,))
    return count


def _empty_log(connection: sqlite3.Connection, wait_s: float) -> None:
    """Copy the log into the file and truncate it, because it still contains removed rows. Wait for other connections.

    After `wait_s` seconds without success, the log keeps its size; later commits overwrite it.
    """
    slept = 0.0
    while connection.execute("pragma wal_checkpoint(truncate)").fetchone()[0] and slept < wait_s:
        time.sleep(PAUSE_S)
        slept += PAUSE_S


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"pragma {name}").fetchone()[0]
    return value


TASKS: Mapping[type[Question[Any]], Callable[[Upkeep, Any], Any]] = {
    RemoveRuns: Upkeep.remove_runs,
    RemoveKeys: Upkeep.remove_keys,
    PutKeys: Upkeep.put_keys,
    UsedBytes: Upkeep.used_bytes,
    FileBytes: Upkeep.file_bytes,
    Compact: Upkeep.compact,
}
"""Type of a task → method that does it."""


MOST = 20
"""The largest number of problems of one kind that are returned."""

UNREADABLE_PARTS = "select count(*) from contents where not (is_text(cast(text as blob)) and json_valid(text))"
_STATUSES = {"agent_instance": INSTANCE_STATUSES, "agent_span": SPAN_STATUSES}
_DIGIT = "[0-9]"
_TIME = "{4}-{2}-{2}T{2}:{2}:{2}.{6}Z".format(*(_DIGIT * number for number in range(7)))


def problems(connection: sqlite3.Connection) -> list[str]:
    """Check a file for damage, and return one sentence per problem, without stored values.

    SQLite's integrity check does not detect a flipped bit within a text, so each text is checked, too.
    """
    lines = [row[0] for row in connection.execute(f"pragma integrity_check({MOST})")]
    found = [] if lines == ["ok"] else lines
    for table, _, parent, _ in connection.execute("pragma foreign_key_check").fetchmany(MOST):
        found.append(f"a row of {table} refers to a row of {parent} that is not there")
    connection.create_function("is_text", 1, _is_text, deterministic=True)
    for type_ in ROWS:
        (count,) = connection.execute(_unreadable(type_)).fetchone()
        if count:
            found.append(f"{count} row{'s' * (count != 1)} of {table_of(type_)} cannot be read")
    (count,) = connection.execute(UNREADABLE_PARTS).fetchone()
    if count:
        found.append(f"{count} row{'s' * (count != 1)} of contents cannot be read")
    for column in BIT:
        (count,) = connection.execute(missing(column)).fetchone()
        if count:
            found.append(f"{count} reference{'s' * (count != 1)} of {column} to contents that are not there")
    return found + damage(connection)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unreadable(type_: ResourceType) -> str:
    """Return the SELECT that counts the rows with an invalid value: no UTF-8, JSON, time or status."""
    columns = columns_of(type_)
    whole = " || ',' || ".join(f"ifnull({column.name}, '')" for column in columns)
    conditions = [f"is_text(cast({whole} as blob))"]
    conditions += [f"ifnull(json_valid({column.name}), true)" for column in columns if column.is_json]
    conditions += [f"ifnull({column.name} glob '{_TIME}', true)" for column in columns if column.holds == "time"]
    if type_ in _STATUSES:
        statuses = ", ".join(f"'{status}'" for status in _STATUSES[type_])
        conditions.append(f"status in ({statuses})")
    return f"select count(*) from {table_of(type_)} where not ({' and '.join(conditions)})"


def check_target(path: Path) -> None:
    """Check that a backup can be created at a path.

    Raises:
        InvalidValue: the path has a file already, or its folder does not exist.
    """
    if path.exists():
        raise _exists(path)
    if not path.parent.is_dir():
        raise InvalidValue("path", f"the folder {path.parent} does not exist; create it")


def copy(source: sqlite3.Connection, path: Path) -> None:
    """Copy a connection's database to a new file, with SQLite's backup function.

    Raises:
        InvalidValue: the path has a file now, or the copy cannot be written.
    """
    source.execute("select 1 from sqlite_master").fetchone()  # the snapshot begins here
    try:
        number, name = files.aside(path)
        os.close(number)
        try:
            target = sqlite3.connect(name)
            try:
                source.backup(target)
            finally:
                target.close()
            os.link(name, path)  # unlike a rename, it never replaces a file
        finally:
            for end in ("", "-wal", "-shm", "-journal"):
                if os.path.exists(name + end):
                    os.unlink(name + end)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        let_through(error)
        raise InvalidValue("path", f"{path} cannot be written: {error.strerror}") from error


def _exists(path: Path) -> InvalidValue:
    return InvalidValue("path", f"{path} exists already; choose another name, or move it away")


_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_FUNCTION})
_PRAGMAS = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"})
_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})
STEPS = 100_000
"""SQLite virtual machine steps between two checks for Ctrl-C."""


def ask(path: Path, query: str, values: tuple[Any, ...] = ()) -> Answer:
    """Run a user's SELECT over the file, read-only, and return its columns and rows.

    Raises:
        sqlite3.Error: the text is no valid SQL, or would write.
    """
    connection = sqlite3.connect(path.as_uri() + "?mode=ro", uri=True, timeout=5)
    try:
        connection.execute("pragma query_only = on")
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        connection.set_progress_handler(lambda: 0, STEPS)  # else Ctrl-C waits for the last row
        connection.set_authorizer(_allows)
        cursor = connection.execute(query, values)
        return Answer([column[0] for column in cursor.description or ()], cursor.fetchall())
    finally:
        connection.close()


def _allows(action: int, first: str | None, second: str | None, *_: object) -> int:
    if action == sqlite3.SQLITE_FUNCTION and second in _FUNCTIONS:
        return sqlite3.SQLITE_DENY
    if action in _READS or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY
