"""The index beside a file (`NAME-index`): a small copy of the numbers of every span, and of the words of its texts.

Created by the first read that needs it, and brought up to date by each later one. It may be deleted at any time.
A file of its own, because indexing a million spans takes longer than a recorder may wait for the file's lock; and
because an index on `agent_spans` would be paid for by every write. docs/reading.md has the figures.

New spans are found by rowid, which SQLite gives in the order of commits: not by id, since spans of several processes,
or from a journal, arrive in another order than they began. Open spans are not copied but listed, and read anew each
time. A finished span never changes, except by changes that are noted in `rewritten_runs` (see rewrites).

The runs that a question is restricted to are temporary tables of the connection: their ids, or numbers. The ids come as
one JSON text: a statement for each of 27,586 runs takes 350 ms, a text of them all 30.
"""

import json
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from agentspan import files
from agentspan.storage.sqlite.contents import blobs
from agentspan.storage.sqlite.contents.recent import FileConnection
from agentspan.storage.sqlite.driver_errors import waiting
from agentspan.storage.sqlite.index.rewrites import Rewrites, unseen
from agentspan.tuning import STANDARD

log = logging.getLogger("agentspan")

SUFFIX = "-index"
STATE = (
    "create table state (part text primary key, version integer, account text, row integer, row_id text, "
    "rewrite integer)"
)
WAIT_S = 10.0
"""Seconds that a read waits for another one that is updating the index."""
CACHE_KIB = 64 * 1024
TEMP_CACHE_KIB = 32 * 1024
"""For the temporary tables: a batch with its names and numbers fits. In SQLite's 2 MB it goes through a file."""


class Part:
    """A part of the index that is kept up to date by itself: the numbers, or the texts.

    Attributes:
        name: under which its state is kept.
        statements: all SQL that decides the content of its tables. The part's version is derived from it: a part that
            other SQL made is rebuilt.
        other: what else decides that, raised by hand: 1 unless it is computed in Python.
        batch: how many spans it takes in one transaction.
    """

    name: str
    statements: tuple[str, ...]
    other: int = 1

    def __init__(self, batch: int) -> None:
        self.batch = batch

    @property
    def version(self) -> int:
        """The version of its tables and of their content."""
        return fingerprint(*self.statements, str(self.other))

    def create(self, connection: sqlite3.Connection) -> None:
        """Create its tables, empty, and drop existing ones."""
        raise NotImplementedError

    def take(self, connection: sqlite3.Connection, after: int, until: int) -> None:
        """Add the spans that were listed as open and are finished, and those with rowids in (after, until]."""
        raise NotImplementedError

    def forget(self, connection: sqlite3.Connection, rewrites: Rewrites) -> bool:
        """Remove spans that were rewritten or removed, and list those to read again as open; False if impossible."""
        raise NotImplementedError


def fingerprint(*statements: str) -> int:
    """Return a 31-bit hash of the SQL, which fits into `pragma user_version`."""
    return zlib.crc32("\n".join(statements).encode()) & 0x7FFFFFFF


def path_of(path: Path) -> Path:
    """Return the path of a file's index."""
    return path.with_name(path.name + SUFFIX)


def discard(path: Path) -> None:
    """Delete the index of a file. The next read that needs it builds it again."""
    for end in ("", "-wal", "-shm"):
        with suppress(OSError):
            os.unlink(f"{path_of(path)}{end}")


@contextmanager
def opened(path: Path, *, in_memory: bool) -> Iterator[sqlite3.Connection]:
    """Open a connection to the index of a file, with the file attached read-only as `recorded`.

    Args:
        in_memory: use a temporary index.
    """
    if in_memory:
        uri = ":memory:"
    else:
        beside = path_of(path)
        _check(path)
        files.ensure(beside)  # the texts are as private as the file
        os.close(os.open(beside, os.O_RDWR))  # where it cannot be written, this says so, and no statement later
        uri = beside.as_uri()
    connection = sqlite3.connect(
        uri, uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False, factory=FileConnection
    )
    try:
        if not in_memory:
            _check(path)  # again: until SQLite had opened it, somebody may have put another one there
        connection.execute(f"pragma cache_size = -{CACHE_KIB}")
        connection.execute(f"pragma temp.cache_size = -{TEMP_CACHE_KIB}")
        waiting(lambda: connection.execute("pragma journal_mode = wal"), path, WAIT_S)  # that one does not by itself
        connection.execute("pragma synchronous = normal")
        connection.execute("attach database ? as recorded", (path.as_uri() + "?mode=ro",))
        blobs.register(connection, "recorded")
        yield connection
    finally:
        connection.close()


def _check(path: Path) -> None:
    """Raise if another user may have made the index, or its log: agentspan writes to both.

    Raises:
        PermissionError: why, as its `strerror`; the log says so, too.
    """
    owners = files.owners_of(path)
    try:
        for end in ("", "-wal", "-shm", "-journal"):
            files.check(Path(f"{path_of(path)}{end}"), owners)
    except PermissionError as error:
        _warn(str(error.strerror))
        raise


@cache
def _warn(said: str) -> None:
    log.warning("%s", said)


def is_made(connection: sqlite3.Connection, part: Part) -> bool:
    """Return whether a part exists: a read has needed it before."""
    known = connection.execute("select 1 from main.sqlite_master where name = 'state'").fetchone()
    return known is not None and bool(connection.execute("select 1 from state where part = ?", (part.name,)).fetchone())


@contextmanager
def current(
    connection: sqlite3.Connection,
    part: Part,
    progress: Callable[[int, int], None] | None = None,
    *,
    pause_s: float = STANDARD.index_pause_s,
) -> Iterator[None]:
    """Bring a part up to date. In the block, reads of it and of the recorded file are one snapshot.

    Args:
        progress: see Analytics.
        pause_s: seconds between two batches, in which others can lock the index.
    """
    while True:
        with connection:  # the driver rolls back what is not committed
            connection.execute("begin immediate")
            done, last = _take_batch(connection, part)
            if done >= last:
                yield
                connection.execute("commit")
                return
            connection.execute("commit")
        if progress is not None:
            progress(done, last)
        time.sleep(pause_s)  # SQLite's waiting is a look now and then: without a gap others would wait for the end


def _take_batch(connection: sqlite3.Connection, part: Part) -> tuple[int, int]:
    """Add one batch; return the rowid up to which all spans are in, and the last rowid of the file."""
    row, row_id, seen = _state(connection, part)
    rewrites = unseen(connection, seen)
    usable = rewrites.last >= seen  # else an older copy of the file is in its place
    if usable and rewrites.last > seen:
        row, row_id = _row_at_most(connection, min(row, rewrites.floor))
        usable = part.forget(connection, rewrites._replace(floor=row))
    if not usable or (row and _row_at_most(connection, row) != (row, row_id)):  # rows have other numbers now
        row, row_id, rewrites = _reset(connection, part)
    first, last = connection.execute(
        "select (select min(rowid) from recorded.agent_spans where rowid > ?), max(rowid) from recorded.agent_spans",
        (row,),
    ).fetchone()
    until = row if first is None else min(last, first - 1 + part.batch)
    part.take(connection, row, until)
    row, row_id = _row_at_most(connection, until)
    values = (part.name, part.version, _account(connection), row, row_id, rewrites.last)
    connection.execute("insert or replace into state values (?, ?, ?, ?, ?, ?)", values)
    return row, last or 0


def _state(connection: sqlite3.Connection, part: Part) -> tuple[int, str, int]:
    """Return the last row of a part, that row's id, and its last rewrite; create the part if needed."""
    if connection.execute("pragma user_version").fetchone()[0] != fingerprint(STATE):
        connection.execute("drop table if exists state")
        connection.execute(STATE)
        connection.execute(f"pragma user_version = {fingerprint(STATE)}")
    found = connection.execute(
        "select version, account, row, row_id, rewrite from state where part = ?", (part.name,)
    ).fetchone()
    if found is None or found[:2] != (part.version, _account(connection)):
        row, row_id, rewrites = _reset(connection, part)
        return row, row_id, rewrites.last
    return found[2], found[3], found[4]


def _reset(connection: sqlite3.Connection, part: Part) -> tuple[int, str, Rewrites]:
    part.create(connection)
    return 0, "", unseen(connection, 0)


def _account(connection: sqlite3.Connection) -> str:
    account: str = connection.execute("select id from recorded.accounts").fetchone()[0]
    return account


def _row_at_most(connection: sqlite3.Connection, row: int) -> tuple[int, str]:
    """Return the last row up to this one, and its id."""
    found = connection.execute(
        "select rowid, id from recorded.agent_spans where rowid <= ? order by rowid desc limit 1", (row,)
    ).fetchone()
    return (found[0], found[1]) if found is not None else (0, "")


CREATE = (
    "create temp table if not exists wanted (id text primary key) without rowid",
    "create temp table if not exists wanted_numbers (run integer primary key)",
)
EMPTY = "delete from temp.wanted"
ADD = "insert or ignore into temp.wanted select value from json_each(?)"
EMPTY_NUMBERS = "delete from temp.wanted_numbers"
ADD_NUMBERS = """
insert or ignore into temp.wanted_numbers
select r.run from json_each(?) j cross join main.runs r on r.id = j.value
"""
IDS = "select r.run, r.id from temp.wanted_numbers w cross join main.runs r where r.run = w.run"
OF_SPAN = "s.agent_instance_id in (select id from temp.wanted)"
"""The condition for a recorded span, `s`, of one of them."""
OF_FACT = "run in (select run from temp.wanted_numbers)"
"""The same for a row of the index that has the number of its run."""


def restrict(connection: sqlite3.Connection, runs: Collection[str]) -> None:
    """Fill the table of ids."""
    _fill(connection, EMPTY, ADD, runs)


def number(connection: sqlite3.Connection, runs: Collection[str]) -> None:
    """Fill the table of numbers. A run without finished spans has none."""
    _fill(connection, EMPTY_NUMBERS, ADD_NUMBERS, runs)


def numbered(connection: sqlite3.Connection, runs: Collection[str]) -> dict[int, str]:
    """Fill the table of numbers, and return the ids by number: a text for each row of an answer costs more."""
    number(connection, runs)
    return dict(connection.execute(IDS).fetchall())


def _fill(connection: sqlite3.Connection, empty: str, add: str, runs: Collection[str]) -> None:
    for statement in (*CREATE, empty):
        connection.execute(statement)
    connection.execute(add, (json.dumps(list(runs)),))
