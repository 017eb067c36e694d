"""The index beside a file (`NAME-index`): a small copy of the numbers of every span, and the words of its texts.

The first read that needs it creates it, and each later one updates it. It may be deleted at any time. It is a separate
file, because indexing a million spans takes longer than a recorder may wait for the file's lock, and because an SQL
index on `agent_spans` would slow every write. docs/reading.md has the figures.

New spans are found by rowid, which SQLite assigns in the order of commits. Ids would not do: spans of several
processes, or from a journal, are committed in another order than they began. Open spans are not copied; they are listed
and read again each time. A finished span changes only together with a note in `rewritten_runs` (see writes.rewritten).

If a question is restricted to some runs, temporary tables of the connection contain the ids or numbers of these runs.
The ids are passed as one JSON text: for 27,586 runs this takes 30 ms, and one statement per run would take 350 ms.
"""

import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from agentspan import disk, files
from agentspan.storage.sqlite import joining
from agentspan.storage.sqlite.contents import FileConnection
from agentspan.storage.sqlite.driver import waiting
from agentspan.storage.sqlite.reads import Rewrites, unseen
from agentspan.tuning import STANDARD

log = logging.getLogger("agentspan")

SUFFIX = "-index"
STATE = (
    "create table state (part text primary key, version integer, account text, row integer, row_id text, "
    "rewrite integer)"
)
WAIT_S = 10.0
"""The seconds that a read waits for another process that updates the index."""
CACHE_KIB = 64 * 1024
TEMP_CACHE_KIB = 32 * 1024
"""The cache for temporary tables, which fits a batch of spans. With SQLite's default of 2 MB, a file would be used."""


class Part:
    """A part of the index, such as the numbers or the texts, that is updated independently of the other parts.

    Attributes:
        name: the name under which the state of the part is stored.
        statements: all SQL that determines the content of its tables. The part's version is a hash of it, so that a
            part is rebuilt after the SQL has changed.
        other: the version of the Python code that determines the content; 1 if there is no such code. Raised by hand.
        batch: how many spans are added in one transaction.
    """

    name: str
    statements: tuple[str, ...]
    other: int = 1

    def __init__(self, batch: int) -> None:
        self.batch = batch

    @property
    def version(self) -> int:
        """The version of the part's tables and content. A part with another version is rebuilt."""
        return fingerprint(*self.statements, str(self.other))

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the empty tables of the part, and drop existing ones."""
        raise NotImplementedError

    def take(self, connection: sqlite3.Connection, after: int, until: int) -> None:
        """Add the spans that were listed as open and have finished, and the spans with rowids in (after, until]."""
        raise NotImplementedError

    def forget(self, connection: sqlite3.Connection, rewrites: Rewrites) -> bool:
        """Remove rewritten and removed spans, and list rewritten spans as open, to be added again.

        Return False if the part cannot remove spans; then it is rebuilt.
        """
        raise NotImplementedError


def fingerprint(*statements: str) -> int:
    """Return a 31-bit hash of SQL statements. It has 31 bits to fit into `pragma user_version`."""
    return zlib.crc32("\n".join(statements).encode()) & 0x7FFFFFFF


def path_of(path: Path) -> Path:
    """Return the path of the index beside a file."""
    return path.with_name(path.name + SUFFIX)


def discard(path: Path) -> None:
    """Delete the index of a file. The next read that needs it builds it again."""
    for end in ("", "-wal", "-shm"):
        with suppress(OSError):
            disk.unlink(f"{path_of(path)}{end}")


@contextmanager
def opened(path: Path, *, in_memory: bool) -> Iterator[sqlite3.Connection]:
    """Open a connection to the index of a file, with the file attached read-only as `recorded`.

    Args:
        in_memory: use a temporary index in memory.
    """
    if in_memory:
        uri = ":memory:"
    else:
        beside = path_of(path)
        _check(path)
        files.ensure(beside)  # with the permissions of the file: the index has the same words
        disk.close(disk.open(beside, os.O_RDWR))  # raises here if the index is not writable, and not in a statement
        uri = beside.as_uri()
    connection = sqlite3.connect(
        uri, uri=True, timeout=WAIT_S, isolation_level=None, check_same_thread=False, factory=FileConnection
    )
    try:
        if not in_memory:
            _check(path)  # again: it may have been replaced before SQLite opened it
        connection.execute(f"pragma cache_size = -{CACHE_KIB}")
        connection.execute(f"pragma temp.cache_size = -{TEMP_CACHE_KIB}")
        waiting(lambda: connection.execute("pragma journal_mode = wal"), path, WAIT_S)  # the pragma does not wait
        connection.execute("pragma synchronous = normal")
        connection.execute("attach database ? as recorded", (path.as_uri() + "?mode=ro",))
        joining.register(connection, "recorded")
        yield connection
    finally:
        connection.close()


def _check(path: Path) -> None:
    """Check that no other user owns the index or its log, because agentspan writes to both.

    Raises:
        PermissionError: another user may own one of them. Its `strerror` has the reason, which is also logged.
    """
    owners = files.owners_of(path)
    try:
        for end in ("", "-wal", "-shm", "-journal"):
            files.check(Path(f"{path_of(path)}{end}"), owners)
    except PermissionError as error:
        _warn(str(error.strerror))
        raise


@cache
def _warn(sentence: str) -> None:
    log.warning("%s", sentence)


def is_made(connection: sqlite3.Connection, part: Part) -> bool:
    """Return whether a part of the index exists, because an earlier read needed it."""
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
    """Update a part of the index. Within the block, reads of the part and of the recorded file are one snapshot.

    Args:
        progress: called with the amount done and the total amount, after each batch.
        pause_s: the seconds between two batches, in which other connections can lock the index.
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
        disk.sleep(pause_s)  # SQLite polls for the lock: without a gap, others would never get it


def _take_batch(connection: sqlite3.Connection, part: Part) -> tuple[int, int]:
    """Add one batch of spans to a part; return the rowid up to which it has all spans, and the file's last rowid."""
    row, row_id, seen = _state(connection, part)
    rewrites = unseen(connection, seen, "recorded")
    usable = rewrites.last >= seen  # else the file was replaced by an older copy
    if usable and rewrites.last > seen:
        row, row_id = _row_at_most(connection, min(row, rewrites.floor))
        usable = part.forget(connection, rewrites._replace(floor=row))
    if not usable or (row and _row_at_most(connection, row) != (row, row_id)):  # rowids changed
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
    """Return the last rowid of a part, the id of that row, and its last note of a rewrite. Create a missing part."""
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
    return 0, "", unseen(connection, 0, "recorded")


def _account(connection: sqlite3.Connection) -> str:
    account: str = connection.execute("select id from recorded.accounts").fetchone()[0]
    return account


def _row_at_most(connection: sqlite3.Connection, row: int) -> tuple[int, str]:
    """Return the last rowid that is not greater than `row`, and the id of that span."""
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
"""The SQL condition for a recorded span `s` that belongs to a run in `wanted`."""
OF_FACT = "run in (select run from temp.wanted_numbers)"
"""The SQL condition for a row of the index that belongs to a run in `wanted_numbers`."""


def restrict(connection: sqlite3.Connection, runs: Collection[str]) -> None:
    """Fill the temporary table `wanted` with the ids of runs."""
    _fill(connection, EMPTY, ADD, runs)


def number(connection: sqlite3.Connection, runs: Collection[str]) -> None:
    """Fill the temporary table `wanted_numbers` with the numbers of runs. Runs without finished spans have none."""
    _fill(connection, EMPTY_NUMBERS, ADD_NUMBERS, runs)


def numbered(connection: sqlite3.Connection, runs: Collection[str]) -> dict[int, str]:
    """Fill the temporary table `wanted_numbers`, and return number → id of a run.

    The numbers are cheaper: reading the id as text in each row of an answer takes longer.
    """
    number(connection, runs)
    return dict(connection.execute(IDS).fetchall())


def _fill(connection: sqlite3.Connection, empty: str, add: str, runs: Collection[str]) -> None:
    for statement in (*CREATE, empty):
        connection.execute(statement)
    connection.execute(add, (json.dumps(list(runs)),))
