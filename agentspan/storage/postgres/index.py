"""The state of the index: the finished spans that it holds, and how a reader adds the others.

Recording does not wait for the index: the reader that needs it fills it, in batches, each of which is a transaction. A
span that is not in the index yet is *late*. An answer is exact whatever the index holds: it is computed from the index
for indexed spans, and from `finished_spans` for late spans, in one snapshot. So a reader that may not write, or finds
few late spans, leaves the index as it is.

Spans are found by the number of the transaction that stored them (`xid`). A pass adds new spans in the order of run and
id. A span is in the index if its number is below `taken`. While a pass is under way, it is also in the index if its
number is below `target`, and its run and id are not after `after_run` and `after_span`. All transactions below `target`
had ended when the pass began, so none of them adds a span behind the pass. The numbers of a sequence would not do: they
are not committed in their order.

A finished span that changes keeps its number, and a removed span leaves none. So the run is noted in `rewritten_runs`.
All its spans are late until a reader has indexed the run again. `noted` is the first transaction number whose notes are
not processed yet.

If the spans are distributed (see partitions), there is no index: a transaction has ended on the coordinator before its
rows are visible on the workers, so a pass would miss them.
"""

import logging
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from agentspan.errors import DatabaseBusy, DatabaseUnusable, NotPermitted, StorageError
from agentspan.storage.postgres.connection import Connection, rows_of
from agentspan.storage.postgres.connections import Connections, wait_at_most
from agentspan.storage.sums import Progress

log = logging.getLogger("agentspan")

WAIT_S = 10.0
"""Seconds that a reader waits while another reader adds a batch."""
_PENDING = "(s.xid >= '{0}' and (s.xid >= '{1}' or (s.agent_instance_id, s.id) > ({2}, {3})))"
# Identifies the cluster by the transaction that made the table: another cluster, as after pg_restore, counts its
# transactions anew. (Not every service lets its users call pg_control_system. A GRANT changes the row in pg_class, but
# not the row in pg_attribute.)
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
    """The position of a part of the index: the module says which finished spans it holds.

    Attributes:
        rewritten: runs with changed or removed spans, which are not indexed again yet.
    """

    taken: str
    target: str
    after_run: str
    after_span: str
    noted: str
    rewritten: Sequence[str] = ()

    @property
    def is_empty(self) -> bool:
        """True if the part of the index holds no span."""
        return self.taken == "0" and not self.after_run

    @property
    def pending(self) -> str:
        """The SQL condition for a finished span, `s`, that is not in the index yet."""
        return _PENDING.format(self.taken, self.target, _literal(self.after_run), _literal(self.after_span))


def late(cursor: Cursor | None) -> tuple[str, list[object]]:
    """Return the SQL condition for a finished span, `s`, that an answer does not take from the index, and its values.

    Args:
        cursor: None if the index cannot be used.
    """
    if cursor is None or not cursor.rewritten:
        return _pending(cursor), []
    return f"({cursor.pending} or s.agent_instance_id = any(%s))", [list(cursor.rewritten)]


class Part:
    """One of the two parts of the index, the numbers and the words, which are filled independently.

    Attributes:
        name: the key of its row in `index_state`.
        of_runs: its tables whose rows belong to one run each, in `agent_instance_id`.
        of_all: its other tables.
        statements: all SQL that decides the contents of its tables. After a change, the part is filled anew.
        other: a number to raise if other code that decides the contents changes.
        batch: how many spans are added in one transaction.
        few: the most late spans, and rewritten runs, that a reader does not add to the index.
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
        """A checksum of `statements` and `other`. Contents with another stored version are replaced."""
        return zlib.crc32("\n".join((*self.statements, str(self.other))).encode())

    def empty(self, connection: Connection) -> None:
        """Delete all rows of the part's tables."""
        for table in (*self.of_runs, *self.of_all):
            connection.execute(f"delete from {table}")

    def forget(self, connection: Connection, runs: Sequence[str]) -> None:
        """Delete the index rows of these runs."""
        for table in self.of_runs:
            connection.execute(f"delete from {table} where agent_instance_id = any(%s)", (list(runs),))

    def take(self, connection: Connection, condition: str, values: Sequence[object]) -> None:
        """Add the finished spans, `s`, for which a condition holds. None of them may be in the index already."""
        raise NotImplementedError


@contextmanager
def current(
    connections: Connections, part: Part, progress: Progress | None
) -> Iterator[tuple[Connection, Cursor | None]]:
    """Lend a snapshot, with the position of a part of the index in it; None if the part cannot be used.

    It cannot be used if it is empty, was filled by other code or in another cluster, or if the spans are distributed.
    More than `part.few` late spans are added to the index first, if this user may write.
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
    """Add all late spans to a part of the index. Do nothing if this user may not write."""
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
        return  # another reader fills the index, or this user may only read
    except StorageError as error:  # the answer needs no index
        log.warning("the index for reading cannot be filled: %s", error)


def _add_batch(connections: Connections, part: Part) -> bool:
    """Add one batch of late spans to a part of the index; return whether it was the last batch."""
    with connections.reading(WAIT_S) as connection:
        wait_at_most(connection, WAIT_S)
        connection.execute("begin read write")  # also in a read-only storage: the index is no recorded data
        cursor = _take_notes(connection, part, _locked(connection, part))
        if not cursor.after_run:
            cursor = cursor._replace(target=rows_of(connection, _HORIZON)[0][0])
        is_done = True
        if cursor.target != cursor.taken:
            cursor, is_done = _take(connection, part, cursor)
        connection.execute(_WRITE, (*cursor[:5], part.name))
        connection.execute(_FORGET_NOTES)
        connection.execute("commit")
        return is_done


def _locked(connection: Connection, part: Part) -> Cursor:
    """Lock the state of a part of the index, so that one reader at a time adds to it; return the state.

    A part that was filled by other code, or in another cluster, is emptied first.
    """
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
    """Index the spans of rewritten runs again, except their late spans; return the new position."""
    horizon = rows_of(connection, _HORIZON)[0][0]
    runs = [run for (run,) in rows_of(connection, _NOTED, (cursor.noted, horizon))]
    if runs:
        part.forget(connection, runs)
        part.take(connection, f"s.agent_instance_id = any(%s) and not {cursor.pending}", (runs,))
    return cursor._replace(noted=horizon)


def _take(connection: Connection, part: Part, cursor: Cursor) -> tuple[Cursor, bool]:
    """Index the next batch of a pass; return the new position, and whether the pass is done."""
    new = f"s.xid < '{cursor.target}' and s.xid >= '{cursor.taken}'"
    if cursor.is_empty or cursor.after_run:
        # `is not false` hides the condition from the planner: it then reads many spans by the primary key, instead of
        # all of them by the index on `xid` for each batch.
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
    """Return a text as an SQL literal. Each `%` is doubled, because psycopg parses the statement."""
    doubled = id.replace("'", "''").replace("%", "%%")
    return f"'{doubled}'"
