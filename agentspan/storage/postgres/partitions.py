"""Lists, makes and drops the partitions of `finished_spans`. Each holds the spans of a range of run ids.

Ids carry time, so a run lies in one partition as a whole, and an old partition can be dropped. A span out of all ranges
lies in the default partition. A writer does not make the missing partition, though it notices first: a role that only
records may not change tables, and attaching a partition waits for every reader of the default one.

The number of statements of a drop does not depend on the number of runs. (A partition cannot be detached CONCURRENTLY
while there is a default one. A drop takes an exclusive lock on all spans for a moment, so this is its last step.)

On a Citus cluster, `distribute` spreads the finished spans over the workers, by run; all else stays on the coordinator.
Finished spans are nearly all that is stored, and are only appended to. The other tables are small. The guards of a
change read several of them under locks, in one statement. Citus allows that only if all their rows are in one shard,
and a key, a name and a run are not. So the other tables stay ordinary tables. A run's spans lie on one worker; a commit
that stores finished spans is a two-phase commit.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

from agentspan import clock, ids
from agentspan.errors import DatabaseBusy, DatabaseUnusable
from agentspan.model.changes import CLOSERS, OPEN
from agentspan.storage.location import Location
from agentspan.storage.postgres.connection import Connection, rows_of
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.statements import TIME, VERSION
from agentspan.storage.postgres.upkeep import BELONGS
from agentspan.storage.questions import (
    AHEAD,
    DropPartitions,
    MakePartitions,
    MissingPartitions,
    Partitions,
    TablesState,
)
from agentspan.storage.sums import MOST_LATE, Dropped, Made, Partition, State, Width

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DEFAULT_WIDTH: Width = "week"
"""Narrow enough that 30 days are dropped in five parts; wide enough that a year is 52 tables."""
_DIGITS = 10
"""The number of leading characters of an id that carry its time. Alone they sort before each id of that time."""
_REST = "0" * 22


class Range(NamedTuple):
    """The ids from `start` on, before `end`: texts that compare by code points; None where there is no bound."""

    start: str | None
    end: str | None


def bound_at(at: datetime) -> str:
    """Return the text that is not greater than any id of a time, and greater than all ids of earlier times."""
    millis = max(0, (at - EPOCH) // timedelta(milliseconds=1))
    return ids.encode(millis, 0, 0)[:_DIGITS]


def time_of(id: str) -> datetime | None:
    """Return the time that an id, or a bound, carries; None where it is no PFID, or of a year after 9999."""
    padded = id if len(id) > _DIGITS else id[:_DIGITS] + _REST
    if not ids.is_pfid(padded):
        return None
    try:
        return EPOCH + timedelta(milliseconds=ids.decode(padded)[0])
    except OverflowError:
        return None


def floor(at: datetime, width: Width) -> datetime:
    """Return the beginning of the day, the week (its Monday) or the month of a time, in UTC."""
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if width == "month":
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if width == "week" else day


def following(at: datetime, width: Width) -> datetime:
    """Return the beginning of the day, week or month after the one that contains a time."""
    days = {"day": 1, "week": 7, "month": 31}[width]
    return floor(floor(at, width) + timedelta(days=days), width)


def width_of(ranges: Sequence[Range]) -> Width:
    """Return the width of the latest range that has both bounds; else the default."""
    for start, end in reversed(ranges):
        begins, ends = (None if bound is None else time_of(bound) for bound in (start, end))
        if begins is not None and ends is not None:
            days = (ends - begins).days
            return "day" if days <= 1 else "week" if days <= 7 else "month"
    return DEFAULT_WIDTH


def missing(ranges: Sequence[Range], width: Width, *, since: datetime, now: datetime, ahead: int) -> Iterator[Range]:
    """Yield the ranges without a partition, from the one of `since` to the `ahead` ranges that begin after `now`.

    Args:
        ranges: the ranges of the existing partitions, in order.
        since: not after `now`.
    """
    at = floor(since, width)
    later = 0
    while at <= now or later < ahead:
        bound = bound_at(at)
        covering = next((each for each in ranges if _is_in(bound, each)), None)
        if covering is not None:
            if covering.end is None:
                return
            until = time_of(covering.end)
            assert until is not None
        else:
            end = bound_at(following(at, width))
            # An existing range of another width may begin in the middle.
            end = min([end, *(each.start for each in ranges if each.start is not None and bound < each.start)])
            yield Range(bound, end)
            until = time_of(end)
            assert until is not None
        later += at > now
        at = until


def _is_in(id: str, range: Range) -> bool:
    return (range.start is None or range.start <= id) and (range.end is None or id < range.end)


def name_of(table: str, range: Range) -> str:
    """Return the name of a partition: `finished_spans_20261123_20261130`, by the days in which its range begins, ends.

    A range that begins or ends within a day, after a change of the width, has the time, too.
    """
    return "_".join([table, *(_named(bound) for bound in range)])


def _named(bound: str | None) -> str:
    at = None if bound is None else time_of(bound)
    if at is None:
        return "before"
    return f"{at:%Y%m%d}" if at == floor(at, "day") else f"{at:%Y%m%dt%H%M%S%f}"


TABLE = "finished_spans"
DEFAULT = f"{TABLE}_default"
MANY = 1000
"""The number of spans in the default partition at which their range gets a partition. Fewer spans stay there."""
LOCK = "select pg_advisory_xact_lock(hashtextextended('agentspan partitions:' || current_schema(), 0))"
_NOW = "select extract(epoch from now())::float8"
_PARTS = f"""
select c.relname, pg_get_expr(c.relpartbound, c.oid), {{0}}, pg_stat_get_live_tuples(c.oid),
       greatest(c.reltuples, 0)::bigint
from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = to_regclass('{TABLE}')
"""
_BOUND = re.compile(r"FOR VALUES FROM \((MINVALUE|'[^']*')\) TO \((MAXVALUE|'[^']*')\)\Z")
_IN_DEFAULT = f"select agent_instance_id from {DEFAULT} where agent_instance_id >= %s order by 1 limit 1"
_HAS_MANY = f"""
select count(*) from (
    select 1 from {DEFAULT} where agent_instance_id >= %s and agent_instance_id < %s limit {MANY}
) many
"""
_INDEX = "select part, greatest(taken, target)::text from index_state order by part"
_LATE = f"select count(*) from (select 1 from {TABLE} where xid >= %s::xid8 limit %s) late"
_FIRST_TIME = datetime(2000, 1, 1, tzinfo=UTC)


class _Part(NamedTuple):
    """A partition as the catalog describes it; `range` is None for the default partition."""

    name: str
    range: Range | None
    bytes: int
    rows: int | None


def partitions(connections: Connections, asked: Partitions) -> list[Partition]:
    """Return all partitions in the order of their times, the default one last."""
    with connections.snapshot() as connection:
        parts = parts_of(connection)
        return [_described(connection, part) for part in parts]


def tables_state(connections: Connections, asked: TablesState) -> State:
    """Return the version of the tables, and the number of late spans of each part of the index."""
    with connections.snapshot() as connection:
        version: int = rows_of(connection, VERSION)[0][0]
        late = {
            part: rows_of(connection, _LATE, (target, MOST_LATE))[0][0] for part, target in rows_of(connection, _INDEX)
        }
    return State(version, late)


def missing_partitions(connections: Connections, asked: MissingPartitions) -> int:
    """Return how many partitions are missing for now and for the ranges ahead."""
    with connections.snapshot() as connection:
        ranges = _ranges(parts_of(connection))
        now = _now(connection)
    width = width_of(ranges)
    if not ranges:
        return 0
    return sum(1 for _ in missing(ranges, width, since=now, now=now, ahead=asked.ahead))


def make_partitions(connections: Connections, asked: MakePartitions) -> Made:
    """Make the missing partitions. A lock keeps two programs from making the same partition."""
    begins = None if asked.since is None else clock.to_datetime(asked.since)
    names: list[str] = []
    moved = 0
    while True:
        made = patiently(
            connections, lambda connection: _made_next(connection, asked.ahead, begins, asked.width), asked.wait_s
        )
        if made is None:
            return Made(names, moved)
        names.append(made[0])
        moved += made[1]


def drop_partitions(connections: Connections, asked: DropPartitions) -> Dropped:
    """Drop the partitions whose whole range is older than `asked.before`, the oldest first, if their runs allow it."""
    with connections.snapshot() as connection:
        parts, now = parts_of(connection), _now(connection)
    done = Dropped()
    for part in parts:
        end = None if part.range is None or part.range.end is None else time_of(part.range.end)
        if part.range is not None and end is not None and end <= min(now, clock.to_datetime(asked.before)):
            dropped = _drop(connections, part.name, part.range, asked)
            done = Dropped(*map(sum, zip(done, dropped, strict=True)))
    return done


def parts_of(connection: Connection) -> list[_Part]:
    """Return the partitions in the order of their ranges, the default one last; empty if there are none."""
    found = []
    size = "citus_total_relation_size(c.oid)" if connection.is_distributed else "pg_total_relation_size(c.oid)"
    for name, bound, bytes_, live, analyzed in rows_of(connection, _PARTS.format(size)):
        match = _BOUND.match(bound)
        # On Citus the rows are on the workers, and the coordinator does not count them.
        rows = None if connection.is_distributed else max(live, analyzed)
        if match is not None:
            start, end = (None if each in ("MINVALUE", "MAXVALUE") else each[1:-1] for each in match.groups())
            found.append(_Part(name, Range(start, end), bytes_, rows))
        elif bound == "DEFAULT":
            found.append(_Part(name, None, bytes_, rows))
    return sorted(found, key=lambda part: (part.range is None, "" if part.range is None else part.range.start or ""))


def make_ahead(connection: Connection) -> None:
    """Make the missing partitions for now and for the next ranges, within the caller's transaction."""
    while _made_next(connection, AHEAD, None, None) is not None:
        pass


def _ranges(parts: Sequence[_Part]) -> list[Range]:
    return [part.range for part in parts if part.range is not None]


def _now(connection: Connection) -> datetime:
    return datetime.fromtimestamp(rows_of(connection, _NOW)[0][0], UTC)


def _described(connection: Connection, part: _Part) -> Partition:
    rows = part.rows if part.range is not None else rows_of(connection, f"select count(*) from {part.name}")[0][0]
    start, end = (None, None) if part.range is None else (_text_of(bound) for bound in part.range)
    return Partition(part.name, start, end, part.range is None, rows, part.bytes)


def _text_of(bound: str | None) -> str | None:
    at = None if bound is None else time_of(bound)
    return None if at is None else clock.parse(at)


def _made_next(
    connection: Connection, ahead: int, since: datetime | None, width: Width | None
) -> tuple[str, int] | None:
    """Make the first missing partition; return its name and how many spans it got, or None if none is missing."""
    connection.execute(LOCK)
    parts = parts_of(connection)
    if not parts:  # the tables were made by hand, without ranges
        return None
    ranges, now = _ranges(parts), _now(connection)
    width = width or width_of(ranges)
    wanted = missing(ranges, width, since=min(since or now, now), now=now, ahead=ahead)
    range = next(wanted, None) or _crowded(connection, ranges, width)
    return None if range is None else _make(connection, range)


def _crowded(connection: Connection, ranges: Sequence[Range], width: Width) -> Range | None:
    """Return the first range of which the default partition holds MANY spans; None if there is none."""
    id = bound_at(_FIRST_TIME)
    while True:
        found = rows_of(connection, _IN_DEFAULT, (id,))
        at = time_of(found[0][0]) if found else None
        if at is None or at.year > 9998:
            return None
        range = next(missing(ranges, width, since=at, now=at, ahead=0), None)
        if range is None:
            return None
        if rows_of(connection, _HAS_MANY, range)[0][0] == MANY:
            return range
        id = bound_at(following(at, width))


def _make(connection: Connection, range: Range) -> tuple[str, int]:
    """Make a partition, and move its spans from the default one; return its name and how many spans were moved.

    Until the commit, readers find the spans in the default partition. Attaching checks all rows of the default
    partition. A constraint there could avoid the check, but that partition is small.
    """
    name = name_of(TABLE, range)
    start, end = range
    connection.execute(f"create table {name} (like {TABLE} including all)")
    connection.execute(f"lock table {DEFAULT} in access exclusive mode")  # upgrading a weaker lock could deadlock
    within = f"agent_instance_id >= '{start}' and agent_instance_id < '{end}'"
    moved = connection.execute(
        f"with gone as (delete from {DEFAULT} where {within} returning *) insert into {name} select * from gone"
    ).rowcount
    connection.execute(f"alter table {TABLE} attach partition {name} for values from ('{start}') to ('{end}')")
    return name, moved


T = TypeVar("T")

LOCK_S = 1.0
"""Seconds of one wait for a lock: later transactions queue behind it."""
PORTION = 10_000
"""The number of violations that one statement deletes."""
EXACT = 10_000_000
"""The largest estimated number of spans that is counted exactly; counting more takes seconds."""
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
# Removed runs are noted in `rewritten_runs`, so that the index forgets them.
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
    """A run of the partition may not be removed. Raised to roll the transaction back."""


def _drop(connections: Connections, name: str, range: Range, asked: DropPartitions) -> Dropped:
    """Drop a partition with all its runs, if each of them may be removed; else keep it, and return zeros.

    Raises:
        DatabaseUnusable: the user does not own the partition.
    """
    before, wait_s = asked.before, asked.wait_s
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
    dead = [writer for writer in writers if asked.is_dead(writer)]
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
        if rows_of(connection, _NEW_RUNS, ids)[0][0]:  # a run was imported at this moment, perhaps with spans
            raise _Stays
        return Dropped(1, runs, spans)

    try:
        return patiently(connections, remove, wait_s)
    except _Stays:
        return Dropped()


def patiently(connections: Connections, work: Callable[[Connection], T], wait_s: float) -> T:
    """Call `work` in a transaction; retry until `wait_s` while other transactions hold a lock.

    Each attempt waits for a second at most, so that transactions that queue behind it proceed in between.

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
    return int(rows_of(connection, f"select count(*) from {name}")[0][0])


LONGEST_S = 86_400
"""The most seconds that distributing already stored spans may take."""
_HAS_CITUS = "select exists (select 1 from pg_extension where extname = 'citus')"
_IS_DISTRIBUTED = "select exists (select 1 from pg_dist_partition where logicalrelid = to_regclass('finished_spans'))"
_DISTRIBUTE = "select create_distributed_table('finished_spans', 'agent_instance_id', shard_count => %s)"
_WORKERS = "select count(*) from pg_dist_node where noderole = 'primary' and shouldhaveshards and isactive"


def is_distributed(connections: Connections) -> bool:
    """Return whether the finished spans are on several servers."""
    with connections.reading() as connection:
        return _is_distributed(connection)


def distribute(location: Location, shards: int) -> bool:
    """Distribute the finished spans over the workers; return whether they were not distributed before.

    Already stored spans are moved. Citus blocks writers meanwhile.

    Raises:
        DatabaseUnusable: the database has no extension `citus`, or the cluster has no workers.
    """
    connections = Connections(location, read_only=False, wait_s=10.0)
    try:
        with connections.reading() as connection:
            if not rows_of(connection, _HAS_CITUS)[0][0]:
                raise DatabaseUnusable(f"{location} has no extension citus; install it, and create it in the database")
            if _is_distributed(connection):
                return False
            if not rows_of(connection, _WORKERS)[0][0]:
                raise DatabaseUnusable(f"{location} has no workers; add them by citus_add_node")
            connection.execute("set statement_timeout = 0")
            connection.answer_s = LONGEST_S
            connection.execute(_DISTRIBUTE, (shards,))
            return True
    finally:
        connections.close()


def _is_distributed(connection: Connection) -> bool:
    return bool(rows_of(connection, _HAS_CITUS)[0][0]) and bool(rows_of(connection, _IS_DISTRIBUTED)[0][0])
