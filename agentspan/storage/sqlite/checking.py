"""Questions that are seldom asked of a whole file: its damage, a copy of it, and a person's own SELECT.

A copy has another name until it is whole; others write to the file meanwhile. SQLite itself keeps a SELECT from
writing, in three ways: the file is opened with mode=ro, the connection has `query_only`, and an authorizer allows
reading and functions only: no ATTACH (it could make another file), no pragma that changes anything, no extension.
"""

import os
import sqlite3
from pathlib import Path
from typing import Any

from agentspan import files
from agentspan.errors import InvalidValue
from agentspan.interrupts import let_through
from agentspan.model.columns import columns_of
from agentspan.model.rows import ROWS, ResourceType
from agentspan.model.status import INSTANCE_STATUSES, SPAN_STATUSES
from agentspan.storage.answers import Answer
from agentspan.storage.sqlite.contents.blobs import damage
from agentspan.storage.sqlite.contents.joining import BIT, missing
from agentspan.storage.sqlite.tables import table_of

MOST = 20
"""The most problems of one kind that are returned."""

UNREADABLE_PARTS = "select count(*) from contents where not (is_text(cast(text as blob)) and json_valid(text))"
_STATUSES = {"agent_instance": INSTANCE_STATUSES, "agent_span": SPAN_STATUSES}
_DIGIT = "[0-9]"
_TIME = "{4}-{2}-{2}T{2}:{2}:{2}.{6}Z".format(*(_DIGIT * number for number in range(7)))


def problems(connection: sqlite3.Connection) -> list[str]:
    """Return the problems found, a sentence each, without stored values.

    SQLite's own check does not see a bit that flipped within a text, so each text is checked, too.
    """
    said = [row[0] for row in connection.execute(f"pragma integrity_check({MOST})")]
    found = [] if said == ["ok"] else said
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
    """Return the SELECT that counts the rows with a value that no program could have written."""
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
    """Check that a copy may be made at a path.

    Raises:
        InvalidValue: there is a file already, or no folder.
    """
    if path.exists():
        raise _exists(path)
    if not path.parent.is_dir():
        raise InvalidValue("path", f"the folder {path.parent} does not exist; create it")


def copy(source: sqlite3.Connection, path: Path) -> None:
    """Copy what a connection sees to a new file, by SQLite's own way.

    Raises:
        InvalidValue: a file has come there meanwhile, or the copy cannot be written.
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
            os.link(name, path)  # unlike a rename it fails where a file has come meanwhile
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
    """Run one SELECT over the file.

    Raises:
        sqlite3.Error: it is no SQL, or does more than read.
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
