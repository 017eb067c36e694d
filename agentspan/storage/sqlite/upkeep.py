"""Maintenance of a file: removes runs and keys, compacts, checks for damage, backs up, and runs a user's SELECT."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agentspan import disk
from agentspan.errors import InvalidValue, StorageError
from agentspan.host import guard, let_through
from agentspan.model.changes import INSTANCE_STATUSES, SPAN_STATUSES
from agentspan.model.columns import columns_of
from agentspan.model.rows import ROWS, ResourceType
from agentspan.storage.questions import (
    PUT_AGENTS,
    BackUp,
    Compact,
    Damage,
    FileBytes,
    Mend,
    PutKeys,
    Question,
    RemoveKeys,
    RemoveRuns,
    Select,
    UsedBytes,
)
from agentspan.storage.sqlite.connections import Connections
from agentspan.storage.sqlite.contents import remove_contents
from agentspan.storage.sqlite.driver import is_damage, storage_error, waiting
from agentspan.storage.sqlite.file_watch import aside
from agentspan.storage.sqlite.index import index_file
from agentspan.storage.sqlite.index.answers import parts_of
from agentspan.storage.sqlite.index.span_sums import IS_OPEN
from agentspan.storage.sqlite.joining import BIT, damage, missing
from agentspan.storage.sqlite.migrations import table_of
from agentspan.storage.sqlite.statements import INSERT_KEY, SET_AGENT_OF_SPANS
from agentspan.storage.sqlite.writes import removed
from agentspan.storage.sums import Answer

PAGES = 500
"""The number of pages that one transaction returns to the operating system: 2 MB, about 10 ms."""
PAUSE_S = 0.01
"""The seconds between two attempts to truncate the log, which other connections may be using."""
REMOVABLE = (
    f"select 1 from agent_instances i where id = ? and not {IS_OPEN} "
    f"and not exists (select 1 from agent_spans where agent_instance_id = i.id and {IS_OPEN})"
)
OLD_KEYS = "from idempotency_keys where inserted_at < ?"


def remove_runs(connections: Connections, asked: RemoveRuns) -> tuple[int, int]:
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

    return connections.transact(remove, asked.wait_s)


def remove_keys(connections: Connections, asked: RemoveKeys) -> int:
    """Remove idempotency keys that were stored before a time, or only count them. Return their number."""
    values = (asked.before,)
    if asked.dry_run:
        with connections.snapshot() as connection:
            return int(connection.execute(f"select count(*) {OLD_KEYS}", values).fetchone()[0])
    delete = f"delete {OLD_KEYS}"
    return connections.transact(lambda connection: connection.execute(delete, values).rowcount, asked.wait_s)


def put_keys(connections: Connections, asked: PutKeys) -> int:
    """Store the idempotency keys that are not stored yet, and return their number."""
    return connections.transact(
        lambda connection: connection.executemany(INSERT_KEY, asked.keys).rowcount, asked.wait_s
    )


def used_bytes(connections: Connections, asked: UsedBytes) -> int:
    """Return the number of bytes of all pages that are not free."""
    with connections.snapshot() as connection:
        pages, free, size = (_pragma(connection, name) for name in ("page_count", "freelist_count", "page_size"))
    return (pages - free) * size


def file_bytes(connections: Connections, asked: FileBytes) -> int:
    """Return the size of the file plus its write-ahead log, in bytes."""
    connections.check_open()
    return sum(disk.getsize(path) for end in ("", "-wal") if disk.exists(path := f"{connections.path}{end}"))


def compact(connections: Connections, asked: Compact) -> None:
    """Return free pages to the system, in steps. A file without `auto_vacuum` is rewritten once, in one step."""
    path, wait_s = connections.path, asked.wait_s
    try:
        with connections.writing(wait_s):
            connection = connections.writer()
            if _pragma(connection, "auto_vacuum") == 0 and _pragma(connection, "freelist_count"):
                connection.execute("pragma auto_vacuum = incremental")
                waiting(lambda: connection.execute("vacuum"), path, wait_s)
            while before := _pragma(connection, "freelist_count"):
                step = f"pragma incremental_vacuum({PAGES})"
                waiting(lambda step=step: connection.execute(step).fetchall(), path, wait_s)  # type: ignore[misc]
                if _pragma(connection, "freelist_count") >= before:
                    break
            _empty_log(connection, wait_s)
    except sqlite3.Error as error:
        raise storage_error(error, path) from error
    _compact_index(connections)


def _compact_index(connections: Connections) -> None:
    """Bring the existing parts of the index up to date, which removes the words and numbers of removed spans."""
    path, tuning = connections.path, connections.tuning
    if not disk.exists(index_file.path_of(path)):
        return
    with (
        guard(OSError, StorageError, sqlite3.Error),
        connections.no_fork(),
        index_file.opened(path, in_memory=False) as connection,
    ):
        for part in parts_of(tuning, connections.sqlite_version):
            if index_file.is_made(connection, part):
                with index_file.current(connection, part, pause_s=tuning.index_pause_s):
                    pass
        return
    index_file.discard(path)


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
        disk.sleep(PAUSE_S)
        slept += PAUSE_S


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"pragma {name}").fetchone()[0]
    return value


MOST = 20
"""The largest number of problems of one kind that are returned."""

PARTS = "select cast(text as blob), json_valid(text) from contents"
_STATUSES = {"agent_instance": INSTANCE_STATUSES, "agent_span": SPAN_STATUSES}
_DIGIT = "[0-9]"
_TIME = "{4}-{2}-{2}T{2}:{2}:{2}.{6}Z".format(*(_DIGIT * number for number in range(7)))


def problems(connections: Connections, asked: Damage) -> list[str]:
    """Check a file for damage, and return one sentence per problem, without stored values.

    SQLite's integrity check does not detect a flipped bit within a text, so each text is checked, too. That is not done
    by a function of Python in SQL: Ctrl-C in one is an error of SQLite, which would be reported as damage.
    """
    with connections.snapshot() as connection:
        lines = [row[0] for row in connection.execute(f"pragma integrity_check({MOST})")]
        found = [] if lines == ["ok"] else lines
        for table, _, parent, _ in connection.execute("pragma foreign_key_check").fetchmany(MOST):
            found.append(f"a row of {table} refers to a row of {parent} that is not there")
        counts = [
            (sum(not (is_valid and _is_text(text)) for text, is_valid in connection.execute(texts)), problem)
            for texts, problem in [
                *((_texts(type_), f"row{{s}} of {table_of(type_)} cannot be read") for type_ in ROWS),
                (PARTS, "row{s} of contents cannot be read"),
            ]
        ]
        counts.append((connection.execute(f"select count(*) {_APART}").fetchone()[0], _OTHER_AGENT))
        for column in BIT:
            (count,) = connection.execute(missing(column)).fetchone()
            counts.append((count, f"reference{{s}} of {column} to contents that are not there"))
        for count, problem in counts:
            if count:
                found.append(f"{count} {problem.format(s='s' * (count != 1))}")
        return found + damage(connection)


_OTHER_AGENT = "row{s} of agent_spans with another agent than their run"
_APART = "from agent_spans s join agent_instances i on i.id = s.agent_instance_id where s.agent_id <> i.agent_id"


def mend(connections: Connections, asked: Mend) -> tuple[int, int]:
    """Mend references to agents, and return the numbers of agents and spans (see questions.Mend)."""
    with connections.snapshot() as connection:
        runs = connection.execute(f"select distinct i.agent_id, i.id {_APART}").fetchall()

    def mended(connection: sqlite3.Connection) -> tuple[int, int]:
        if runs:
            removed(connection, [id for _, id in runs])  # the caches by agent must drop the runs
        spans = sum(connection.execute(f"{SET_AGENT_OF_SPANS} and agent_id <> ?1", run).rowcount for run in runs)
        return connection.execute(PUT_AGENTS).rowcount, spans

    return connections.transact(mended, asked.wait_s)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _texts(type_: ResourceType) -> str:
    """Return the SELECT of the texts of each row as bytes, and whether its JSON, times and status are valid."""
    columns = columns_of(type_)
    whole = " || ',' || ".join(f"ifnull({column.name}, '')" for column in columns)
    conditions = ["true"]
    conditions += [f"ifnull(json_valid({column.name}), true)" for column in columns if column.is_json]
    conditions += [f"ifnull({column.name} glob '{_TIME}', true)" for column in columns if column.holds == "time"]
    if type_ in _STATUSES:
        statuses = ", ".join(f"'{status}'" for status in _STATUSES[type_])
        conditions.append(f"status in ({statuses})")
    return f"select cast({whole} as blob), {' and '.join(conditions)} from {table_of(type_)}"


def back_up(connections: Connections, asked: BackUp) -> int:
    """Copy the database to a new file, with SQLite's backup function, and return its size in bytes.

    Raises:
        InvalidValue: the path has a file already, its folder does not exist, or the copy cannot be written.
    """
    path = Path(asked.path).absolute()
    if disk.exists(path):
        raise _exists(path)
    if not disk.isdir(path.parent):
        raise InvalidValue("path", f"the folder {path.parent} does not exist; create it")
    try:
        with connections.snapshot() as source:
            source.execute("select 1 from sqlite_master").fetchone()  # the snapshot begins here
            with aside(path) as name:
                with closing(sqlite3.connect(name)) as target:
                    source.backup(target)
                disk.link(name, path)  # unlike a rename, it never replaces a file
    except FileExistsError:
        raise _exists(path) from None
    except StorageError as error:
        cause = error.__cause__
        if getattr(cause, "sqlite_errorcode", None) != sqlite3.SQLITE_FULL:
            raise
        raise InvalidValue("path", f"{path} cannot be written: {cause}") from error
    except OSError as error:
        let_through(error)
        raise InvalidValue("path", f"{path} cannot be written: {error.strerror}") from error
    return disk.stat(path).st_size


def _exists(path: Path) -> InvalidValue:
    return InvalidValue("path", f"{path} exists already; choose another name, or move it away")


_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE, sqlite3.SQLITE_FUNCTION})
_PRAGMAS = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"})
_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})
STEPS = 100_000
"""SQLite virtual machine steps between two checks for Ctrl-C and for the time."""
LONGEST = 100_000_000
"""The largest number of bytes of a value in a query with a time limit."""


def select(connections: Connections, asked: Select) -> Answer:
    """Run a user's SELECT over the file, read-only, and return its columns and rows (see questions.Select)."""
    connections.check_open()
    end_s = None if asked.limit_s is None else disk.monotonic() + asked.limit_s
    try:
        with closing(sqlite3.connect(connections.path.as_uri() + "?mode=ro", uri=True, timeout=5)) as connection:
            connection.execute("pragma query_only = on")
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            # A handler also lets Ctrl-C through, which else waits for the last row.
            connection.set_progress_handler(lambda: end_s is not None and disk.monotonic() > end_s, STEPS)
            connection.set_authorizer(_allows)
            if end_s is not None:  # one call, such as zeroblob, may take a gigabyte between two checks of the time
                connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
            cursor = connection.execute(asked.query, tuple(asked.values))
            rows = cursor.fetchall() if asked.most_rows is None else cursor.fetchmany(asked.most_rows)
            return Answer([column[0] for column in cursor.description or ()], rows)
    except sqlite3.Error as error:
        if is_damage(error):
            raise storage_error(error, connections.path) from error
        if end_s is not None and getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise InvalidValue("query", f"took longer than {asked.limit_s:g} s") from None
        raise InvalidValue("query", f"SQLite says: {error}") from None


def _allows(action: int, first: str | None, second: str | None, *_: object) -> int:
    if action == sqlite3.SQLITE_FUNCTION and second in _FUNCTIONS:
        return sqlite3.SQLITE_DENY
    if action in _READS or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


TASKS: Mapping[type[Question[Any]], Callable[[Connections, Any], Any]] = {
    RemoveRuns: remove_runs,
    RemoveKeys: remove_keys,
    PutKeys: put_keys,
    UsedBytes: used_bytes,
    FileBytes: file_bytes,
    Compact: compact,
    Damage: problems,
    Mend: mend,
    BackUp: back_up,
    Select: select,
}
"""Type of a question → function that answers it, or does the task."""
