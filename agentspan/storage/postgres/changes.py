"""Changes of a schema: the spans of a run that were committed since a cursor, by the transactions that wrote them.

Each row has the number of its transaction (`xmin`). A snapshot knows the lowest one that is still under way: all below
it have ended. So whoever has read a snapshot misses only rows from that number on, in whatever order transactions
commit. A sequence, or a time, would let a slow one slip through. Numbers have 32 bits and go around: a row that is 2
billion transactions old may be read again, but none is missed. (On Citus each node has numbers of its own, so a storage
whose spans are distributed does not claim this.)
"""

import re

from agentspan.model.rows import AgentSpanRow
from agentspan.storage.answers import Changed
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.lending import rows_of
from agentspan.storage.postgres.statements import OUTLINE, SPAN_TABLES
from agentspan.storage.postgres.values import is_storable
from agentspan.storage.questions import ChangedSpans

_NOW = """
select pg_snapshot_xmin(now.it)::text::bigint, pg_snapshot_xmax(now.it)::text::bigint,
       (extract(epoch from clock_timestamp()) * 1000)::bigint,
       extract(epoch from pg_postmaster_start_time())::bigint
from (select pg_current_snapshot() as it) now
"""
_SINCE = " and ((xmin::text::bigint - %(xmin)s) & 4294967295) < 2147483648"
_WHERE = "agent_instance_id = %(run)s and id > %(after)s{0} order by id limit %(limit)s"
_SPANS = " union all ".join(f"(select {OUTLINE} from {table} where {_WHERE})" for table in SPAN_TABLES)
_CURSOR = re.compile(r"(\d{1,20})\.(\d{1,10})\.(\d{1,15})\Z", re.ASCII)


def changed_spans(connections: Connections, asked: ChangedSpans) -> Changed:
    """Return the spans that were committed since a cursor.

    A cursor has the number of a transaction, the start of the server, and since when the number is the lowest. After a
    restart everything is read once more: the server may be a copy, whose numbers mean others.
    """
    if not is_storable(asked.instance_id) or not is_storable(asked.after):
        return Changed([], "", 0.0)
    with connections.glance() as connection:
        xmin, xmax, now_ms, started = rows_of(connection, _NOW)[0]
        known = _CURSOR.match(asked.cursor)
        before, since_ms = None, now_ms
        if known is not None and int(known[2]) == started and int(known[1]) <= xmin:
            before = int(known[1])
            if before == xmin < xmax:
                since_ms = int(known[3])
        condition = "" if before is None else _SINCE
        low = 0 if before is None else before & 0xFFFFFFFF
        values = {"run": asked.instance_id, "after": asked.after, "limit": asked.limit, "xmin": low}
        sql = f"select * from ({_SPANS.format(condition)}) spans order by id limit %(limit)s"
        rows = [AgentSpanRow._make(row) for row in rows_of(connection, sql, values)]
    return Changed(rows, f"{xmin}.{started}.{since_ms}", max(0.0, (now_ms - since_ms) / 1000))
