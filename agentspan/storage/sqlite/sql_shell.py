"""Runs a person's own SELECT over a file. SQLite itself prevents writes, in three ways.

The file is opened with mode=ro, the connection has `query_only`, and an authorizer allows reading and functions only:
no ATTACH (it could make another file), no pragma that changes anything, no extension.
"""

import sqlite3
from pathlib import Path
from typing import Any

from agentspan.storage.answers import Answer

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
