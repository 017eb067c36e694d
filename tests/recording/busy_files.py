"""Files that are busy for a moment, and what a program leaves in them."""

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agentspan.errors import DatabaseBusy
from agentspan.model.changes import Put
from agentspan.storage.sqlite import SQLiteStorage


def busy_for(row_type: type, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file be busy so many times when a row of a type comes."""
    apply, left = SQLiteStorage.apply, [None] * times

    def busy(storage: SQLiteStorage, units: Any, **how: Any) -> Any:
        puts = [change.row for unit in units for change in unit.changes if isinstance(change, Put)]
        if left and row_type in map(type, puts):
            left.pop()
            raise DatabaseBusy("for a moment")
        return apply(storage, units, **how)

    monkeypatch.setattr(SQLiteStorage, "apply", busy)


def unknown_writers(path: Path) -> int:
    """How many runs and spans there are whose program is not stored."""
    rows = "select writer_id from agent_instances union all select writer_id from agent_spans"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute(f"select count(*) from ({rows}) where writer_id not in (select id from writers)")
    return int(count[0])
