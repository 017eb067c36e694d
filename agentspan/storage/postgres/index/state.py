"""The state of the index: the finished spans that it holds, and how a reader adds the others.

Nothing of it is on the way of a write: the index is filled by the reader that needs it, in batches, each of which is a
transaction. An answer is exact whatever the index holds: it is computed from the index for the spans that are in it,
and from `finished_spans` for the others, the *late* ones, in one snapshot. So a reader that may not write, and one that
finds few late spans, leaves the index as it is.

Spans are found by the number of the transaction that stored them (`xid`). A span is in the index if its number is below
`taken`; or below `target`, if its run and id are not after `after_run` and `after_span`: a pass over new spans, by run
and id, that is not done yet. All transactions below `target` had ended when the pass began, so none of them adds spans
that the pass has gone by. A sequence could not promise that: its numbers are not committed in their order.

A finished span that changes keeps its number, and one that is removed leaves none. Their run is noted in
`rewritten_runs`, and is late as a whole until a reader has taken it again (`noted` is the first number whose notes are
not taken).

Where the spans are distributed (see citus), there is no index: a transaction has ended on the coordinator before its
rows can be seen on the workers, so a pass would go by them.
"""

import logging
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from agentspan.errors import DatabaseBusy, DatabaseUnusable, NotPermitted, StorageError
from agentspan.storage.answers import Progress
from agentspan.storage.postgres.connection import Connection, rows_of
from agentspan.storage.postgres.connections import DRIVER_ERRORS, Connections, translated, wait_at_most

log = logging.getLogger("agentspan")

WAIT_S = 10.0
"""Seconds that a reader waits for another one that is adding a batch."""
_PENDING = "(s.xid >= '{0}' and (s.xid >= '{1}' or (s.agent_instance_id, s.id) > ({2}, {3})))"
# Another cluster, as after pg_restore, counts its transactions anew: there the table was made by another one. (Not
# every service lets its users call pg_control_system; a GRANT changes the row in pg_class, not that in pg_attribute.)
_ORIGIN = """(
    select attrelid::oid || ':' || xmin from pg_attribute where attrelid = 'finished_spans'::regclass and attnum = 1
)"""
_READ = f"""
select taken::text, target::text, after_run, after_span, noted::text,
       coalesce((select array_agg(distinct agent_instance_id) from rewritten_runs r where r.xid >= noted), '{{}}')
from index_state where part = %s and version = %s and origin = {_ORIGIN}
"""
_FIRST = f"""
insert into index_state values (%s, 0, {_ORIGIN}, '0', '0', '', '', '0') on conflict do nothing
"""
_LOCK = f"select version, origin = {_ORIGIN} from index_state where part = %s for update"
_RESET = f"""
update index_state set version = %s, origin = {_ORIGIN}, taken = '0', target = '0', after_run = '', after_span = '',
noted = pg_snapshot_xmin(pg_current_snapshot()) where part = %s
"""
_OF_ANOTHER_CLUSTER = """
update finished_spans set xid = '0' where xid >= pg_snapshot_xmax(pg_current_snapshot())
"""
_WRITE = "update index_state set taken = %s, target = %s, after_run = %s, after_span = %s, noted = %s where part = %s"
_NOTED = "select distinct agent_instance_id from rewritten_runs where xid >= %s::xid8 and xid < %s::xid8"
_FORGET_NOTES = """
delete from rewritten_runs where xid < (select min(noted) from index_state)
"""
_LAST_OF_BATCH = """
select s.agent_instance_id, s.id from finished_spans s where {0} order by s.agent_instance_id, s.id offset %s limit 1
"""
_HORIZON = "select pg_snapshot_xmin(pg_current_snapshot())::text"
_FEW = "select count(*) from (select 1 from finished_spans s where {0} order by s.xid limit %s) few"


class Cursor(NamedTuple):
    """The place that a part of the index has come to; see the module.

    Attributes:
        rewritten: runs that are noted and not taken again yet.
    """

    taken: str
    target: str
    after_run: str
    after_span: str
    noted: str
    rewritten: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """True if the index holds nothing."""
        return self.taken == "0" and not self.after_run

    @property
    def pending(self) -> str:
        """The condition for a finished span, `s`, that was not taken yet."""
        return _PENDING.format(self.taken, self.target, _literal(self.after_run), _literal(self.after_span))


class Part:
    """A part of the index that is filled by itself: the numbers, or the words.

    Attributes:
        name: under which its state is kept.
        of_runs: its tables of which each row is of one run, in `agent_instance_id`.
        of_all: its other tables.
        statements: all SQL that decides what its tables hold; a part that other SQL filled is filled again.
        other: what else decides that.
        batch: how many spans are added in one transaction.
        few: how many late spans a reader leaves to the next one.
    """

    name: str
    of_runs: tuple[str, ...]
    of_all: tuple[str, ...] = ()
    statements: tuple[str, ...]
    other: int = 1

    def __init__(self, batch: int, few: int) -> None:
        self.batch = batch
        self.few = few

    @property
    def version(self) -> int:
        """The version of what its tables hold."""
        return zlib.crc32("\n".join((*self.statements, str(self.other))).encode())

    def empty(self, connection: Connection) -> None:
        """Remove everything."""
        for table in (*self.of_runs, *self.of_all):
            connection.execute(f"delete from {table}")

    def forget(self, connection: Connection, runs: Sequence[str]) -> None:
        """Remove the spans of these runs."""
        for table in self.of_runs:
            connection.execute(f"delete from {table} where agent_instance_id = any(%s)", (list(runs),))

    def take(self, connection: Connection, condition: str, values: Sequence[object]) -> None:
        """Add the finished spans, `s`, for which a condition holds; none of them is there already."""
        raise NotImplementedError


@contextmanager
def current(
    connections: Connections, part: Part, progress: Progress | None
) -> Iterator[tuple[Connection, Cursor | None]]:
    """Lend a snapshot, with how far a part is in it; None where it holds nothing of this code and this database.

    If there are more than few late spans, they are added before, as far as this user may.
    """
    with connections.snapshot() as connection:
        if connections.is_distributed:
            yield connection, None
            return
        cursor = _read(connection, part)
        late = rows_of(connection, _FEW.format(_pending(cursor)), (part.few + 1,))[0][0]
        if late <= part.few and (cursor is None or len(cursor.rewritten) <= part.few):
            yield connection, cursor
            return
    _fill(connections, part, progress)
    with connections.snapshot() as connection:
        yield connection, _read(connection, part)


def _read(connection: Connection, part: Part) -> Cursor | None:
    found = rows_of(connection, _READ, (part.name, part.version))
    cursor = Cursor(*found[0]) if found else None
    return None if cursor is None or cursor.is_empty else cursor


def _pending(cursor: Cursor | None) -> str:
    return "true" if cursor is None else cursor.pending


def _fill(connections: Connections, part: Part, progress: Progress | None) -> None:
    """Add all late spans to a part, if this user may; else leave it as it is."""
    try:
        total = 0
        if progress is not None:
            with connections.snapshot() as connection:
                total = rows_of(connection, _FEW.format(_pending(_read(connection, part))), (None,))[0][0]
        done = 0
        while not _add_batch(connections, part):
            done += part.batch
            if progress is not None:
                progress(min(done, total), total)
    except (DatabaseBusy, DatabaseUnusable, NotPermitted):
        return  # others are at it, or this user only reads
    except StorageError as error:  # the answer needs no index
        log.warning("the index for reading cannot be filled: %s", error)


def _add_batch(connections: Connections, part: Part) -> bool:
    """Add one batch; return whether that was the last one."""
    try:
        with connections.lent(WAIT_S) as connection:
            wait_at_most(connection, WAIT_S)
            connection.execute("begin read write")  # also where the storage reads only: the index is no part of it
            cursor = _locked(connection, part)
            is_done = True
            cursor = _take_notes(connection, part, cursor)
            if not cursor.after_run:
                cursor = cursor._replace(target=rows_of(connection, _HORIZON)[0][0])
            if cursor.target != cursor.taken:
                cursor, is_done = _take(connection, part, cursor)
            connection.execute(_WRITE, (*cursor[:5], part.name))
            connection.execute(_FORGET_NOTES)
            connection.execute("commit")
            return is_done
    except DRIVER_ERRORS as error:
        raise translated(error, connections.location) from error


def _locked(connection: Connection, part: Part) -> Cursor:
    """Lock the state of a part, so that one reader at a time adds to it; empty it where it is of something else."""
    connection.execute(_FIRST, (part.name,))
    version, is_of_here = rows_of(connection, _LOCK, (part.name,))[0]
    if version != part.version or not is_of_here:
        if not is_of_here:
            connection.execute("set local statement_timeout = 0")
            connection.execute(_OF_ANOTHER_CLUSTER)
        part.empty(connection)
        connection.execute(_RESET, (part.version, part.name))
    return Cursor(*rows_of(connection, _READ, (part.name, part.version))[0])


def _take_notes(connection: Connection, part: Part, cursor: Cursor) -> Cursor:
    """Take the runs again that were rewritten: those of their spans that are in the index."""
    horizon = rows_of(connection, _HORIZON)[0][0]
    runs = [run for (run,) in rows_of(connection, _NOTED, (cursor.noted, horizon))]
    if runs:
        part.forget(connection, runs)
        part.take(connection, f"s.agent_instance_id = any(%s) and not {cursor.pending}", (runs,))
    return cursor._replace(noted=horizon)


def _take(connection: Connection, part: Part, cursor: Cursor) -> tuple[Cursor, bool]:
    """Take the next spans of a pass; return how far the part is then, and whether the pass is done."""
    new = f"s.xid < '{cursor.target}' and s.xid >= '{cursor.taken}'"
    if cursor.is_empty or cursor.after_run:
        # Many: in the order of the primary key, not all of them by the index of `xid` for each batch.
        new = f"({new}) is not false"
    if cursor.after_run:
        new += f" and (s.agent_instance_id, s.id) > ({_literal(cursor.after_run)}, {_literal(cursor.after_span)})"
    last = rows_of(connection, _LAST_OF_BATCH.format(new), (part.batch - 1,))
    done = cursor._replace(taken=cursor.target, after_run="", after_span="")
    if not last:
        part.take(connection, new, ())
        return done, True
    run, span = last[0]
    part.take(connection, f"{new} and (s.agent_instance_id, s.id) <= (%s, %s)", (run, span))
    return cursor._replace(after_run=run, after_span=span), False


def _literal(id: str) -> str:
    """Return a text as SQL, in a statement whose `%` are psycopg's."""
    doubled = id.replace("'", "''").replace("%", "%%")
    return f"'{doubled}'"
