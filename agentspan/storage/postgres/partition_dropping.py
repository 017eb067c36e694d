"""Drops a partition that is old as a whole, with all that belongs to its runs.

The number of statements does not depend on the number of runs. (A partition cannot be detached CONCURRENTLY while there
is a default one. Dropping it takes an exclusive lock on all spans, for a moment, and last.)
"""

import time
from collections.abc import Callable
from typing import TypeVar

from agentspan.errors import DatabaseBusy, DatabaseUnusable
from agentspan.model.status import CLOSERS, OPEN
from agentspan.storage.answers import Dropped
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.lending import rows_of
from agentspan.storage.postgres.partition_ranges import Range
from agentspan.storage.postgres.statements import TIME
from agentspan.storage.postgres.tasks import BELONGS

T = TypeVar("T")

LOCK_S = 1.0
"""Seconds to wait for a lock at a time: all that come later wait behind."""
PORTION = 10_000
"""Violations that are removed by one statement."""
EXACT = 10_000_000
"""Spans up to which they are counted; counting more takes seconds."""
_OPEN, _CLOSERS = (", ".join(f"'{each}'" for each in sorted(names)) for names in (OPEN, CLOSERS))
_IS_GUESS = f"closed_by in ({_CLOSERS}) and coalesce(ended_late, 0) = 0 and writer_id is not null"
_IS_OLD = f"status not in ({_OPEN}) and coalesce(finished_at, updated_at) < {TIME}"
_IN = "agent_instance_id >= %s and (%s::text is null or agent_instance_id < %s)"
_IDS_IN = _IN.replace("agent_instance_id", "id")
_MAY_DROP = "select pg_has_role(relowner, 'USAGE') from pg_class where oid = to_regclass(%s)"
_STAYS = f"""
select exists (select 1 from agent_instances where {_IDS_IN} and not ({_IS_OLD}))
    or exists (select 1 from open_spans where {_IN})
"""
_WRITERS = f"select distinct writer_id from agent_instances where {_IDS_IN} and {_IS_GUESS}"
_MANY_VIOLATIONS = f"""
delete from schema_violations where ctid = any(array(
    select ctid from schema_violations where {_IN} limit {PORTION}
)) and (select count(*) from (select 1 from schema_violations where {_IN} limit {PORTION + 1}) many) > {PORTION}
"""
# What the index has of these runs is noted as rewritten, as for any that are removed.
_REMOVE_RUNS = f"""
with gone as (
    delete from agent_instances where {_IDS_IN}
    returning id, {_IS_OLD} and (not ({_IS_GUESS}) or writer_id = any(%s)) as may_go
), noted as (insert into rewritten_runs (agent_instance_id) select id from gone on conflict do nothing)
select count(*), coalesce(bool_and(may_go), true) from gone
"""
_OPEN_SPANS = f"select exists (select 1 from open_spans where {_IN})"
_NEW_RUNS = f"select exists (select 1 from agent_instances where {_IDS_IN})"

_ESTIMATE = "select greatest(reltuples, 0)::bigint from pg_class where oid = to_regclass(%s)"


class _Stays(Exception):
    """A run of the partition may not be removed: the transaction is taken back."""


def drop(
    connections: Connections, name: str, range: Range, before: str, is_dead: Callable[[str], bool], wait_s: float
) -> Dropped:
    """Drop a partition if all its runs may be removed; see Partitions.drop_old.

    Raises:
        DatabaseUnusable: the user may not drop it.
    """
    ids = (range.start or "", range.end, range.end)
    with connections.snapshot() as connection:
        allowed = rows_of(connection, _MAY_DROP, (name,))
        if not allowed:  # another program has dropped it
            return Dropped()
        if not allowed[0][0]:
            raise DatabaseUnusable(f"the user of {connections.location} does not own {name}, and may not drop it")
        if rows_of(connection, _STAYS, (*ids, before, *ids))[0][0]:
            return Dropped()
        writers = [writer for (writer,) in rows_of(connection, _WRITERS, ids)]
    dead = [writer for writer in writers if is_dead(writer)]
    if len(dead) < len(writers):
        return Dropped()
    while connections.transact(lambda connection: connection.execute(_MANY_VIOLATIONS, (*ids, *ids)).rowcount, wait_s):
        pass

    def remove(connection: Connection) -> Dropped:
        runs, may_go = rows_of(connection, _REMOVE_RUNS, (*ids, before, dead))[0]
        if not may_go or rows_of(connection, _OPEN_SPANS, ids)[0][0]:
            raise _Stays
        for table in BELONGS:
            connection.execute(f"delete from {table} where {_IN}", ids)
        spans = _counted(connection, name)
        connection.execute(f"drop table {name}")
        if rows_of(connection, _NEW_RUNS, ids)[0][0]:  # one was imported at this moment, perhaps with spans
            raise _Stays
        return Dropped(1, runs, spans)

    try:
        return patiently(connections, remove, wait_s)
    except _Stays:
        return Dropped()


def added(one: Dropped, other: Dropped) -> Dropped:
    """Return the sums of two."""
    return Dropped(*(sum(pair) for pair in zip(one, other, strict=True)))


def patiently(connections: Connections, work: Callable[[Connection], T], wait_s: float) -> T:
    """Do it in a transaction. It waits for a lock for a second at a time, so that others are let by between.

    Raises:
        DatabaseBusy: others held a lock for `wait_s` seconds.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            return connections.transact(work, max(0.01, min(LOCK_S, wait_s)))
        except DatabaseBusy:
            if time.monotonic() >= until:
                raise
            time.sleep(0.1)


def _counted(connection: Connection, name: str) -> int:
    estimate: int = rows_of(connection, _ESTIMATE, (name,))[0][0]
    if estimate > EXACT:
        return estimate
    count: int = rows_of(connection, f"select count(*) from {name}")[0][0]
    return count
