"""The file that killed or forked programs leave: recovered, and checked by SQLite itself."""

import sqlite3
from pathlib import Path

import agentspan
from tests.waiting import until


def recover(path: Path) -> None:
    """Recover the journals of killed processes, by opening the file: each time for 3 s at most."""
    spool = path.with_name("runs.db.spool")
    until(lambda: agentspan.open(path).close() or not spool.exists())


def check_integrity(path: Path) -> None:
    """Let SQLite check the pages of a file and its foreign keys."""
    connection = sqlite3.connect(path)
    assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    assert connection.execute("pragma foreign_key_check").fetchall() == []
    connection.close()
