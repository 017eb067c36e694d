"""Logs changes and removals of finished spans in the recorded file, so that the index beside it can be updated.

The table `rewritten_runs` is created at its first use. It is in the recorded file, so that a note is committed with its
change. Recording adds a note only if a span's own end replaces an end that was set on its behalf. Other notes are from
the commands `rederive`, which changes finished spans, and `prune`, which removes them.
"""

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

CREATE = (
    "create table if not exists rewritten_runs "
    "(id integer primary key autoincrement, agent_instance_id text not null, last_row integer) strict",
    "create index if not exists idx_rewritten_runs on rewritten_runs (agent_instance_id)",
)
NEVER = 2**63 - 1


class Rewrites(NamedTuple):
    """The changes of finished spans since a note.

    Attributes:
        last: the number of the last note; 0 if there never was a note.
        runs: the ids of runs whose finished spans changed, and of runs that were removed.
        removed: whether runs were removed.
        floor: the last rowid that surely belongs to the same span as before. SQLite may have reused higher rowids.
    """

    last: int
    runs: list[str]
    removed: bool
    floor: int


def rewritten(connection: sqlite3.Connection, span_id: str) -> None:
    """Log, in the open transaction, that a span changed that may be finished."""
    (run,) = connection.execute("select agent_instance_id from agent_spans where id = ?", (span_id,)).fetchone()
    for statement in CREATE:
        connection.execute(statement)
    connection.execute("delete from rewritten_runs where agent_instance_id = ? and last_row is null", (run,))
    connection.execute("insert into rewritten_runs (agent_instance_id) values (?)", (run,))


def removed(connection: sqlite3.Connection, runs: Sequence[str]) -> None:
    """Log, in the transaction that removed them, that runs were removed."""
    for statement in CREATE:
        connection.execute(statement)
    (last_row,) = connection.execute("select ifnull(max(rowid), 0) from agent_spans").fetchone()
    connection.executemany(
        "insert into rewritten_runs (agent_instance_id, last_row) values (?, ?)", [(run, last_row) for run in runs]
    )


def unseen(connection: sqlite3.Connection, seen: int) -> Rewrites:
    """Return the changes after the note with the number `seen`, from the file that is attached as `recorded`."""
    known = "select 1 from recorded.sqlite_master where name = 'rewritten_runs'"
    if connection.execute(known).fetchone() is None:
        return Rewrites(0, [], False, NEVER)
    last = connection.execute("select ifnull(max(id), 0) from recorded.rewritten_runs").fetchone()[0]
    notes = connection.execute(
        "select agent_instance_id, last_row from recorded.rewritten_runs where id > ?", (seen,)
    ).fetchall()
    floors = [floor for _, floor in notes if floor is not None]
    return Rewrites(last, [run for run, _ in notes], bool(floors), min(floors, default=NEVER))
