"""Transfer of a schema: what a copy of a whole storage reads and writes beside rows."""

from collections.abc import Mapping, Sequence

from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.lending import rows_of, storable
from agentspan.storage.postgres.statements import SPAN_TABLES, TIME
from agentspan.storage.transfer import KeyRow, SpanMark

# A subquery for each run: with `= any` of 500 ids, PostgreSQL may read the whole table.
_MARKS = (
    "select asked.id, mark.* from unnest(%s::text[]) asked(id) cross join lateral ("
    "select status, count(*), max(updated_at), count(ended_late) from agent_spans "
    "where agent_instance_id = asked.id group by status) mark"
)
# The same where the tables are on several servers: a statement for each, whose statuses the other has not.
_MARKS_APART = tuple(
    f"select agent_instance_id, status, count(*), max(updated_at), count(ended_late) from {table} "
    "where agent_instance_id = any(%s) group by 1, 2"
    for table in SPAN_TABLES
)
_KEYS = (
    "select operation, key, request_hash, subject, inserted_at from idempotency_keys "
    f"where (operation, key) > (%s, %s) and inserted_at >= coalesce({TIME}, '-infinity') "
    "order by operation, key limit %s"
)
_PUT = (
    "insert into idempotency_keys (operation, key, request_hash, subject, inserted_at) "
    "select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[]) on conflict do nothing"
)


class PostgresTransfer:
    """See Transfer."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def span_marks(self, instance_ids: Sequence[str]) -> Mapping[str, frozenset[SpanMark]]:
        """See Transfer."""
        found: dict[str, set[SpanMark]] = {id: set() for id in instance_ids}
        with self._connections.reading() as connection:
            for sql in _MARKS_APART if connection.is_distributed else (_MARKS,):
                for id, *mark in rows_of(connection, sql, (storable(instance_ids),)):
                    found[id].add(SpanMark._make(mark))
        return {id: frozenset(marks) for id, marks in found.items()}

    def keys(self, *, after: tuple[str, str] | None = None, limit: int = 500, since: str = "") -> list[KeyRow]:
        """See Transfer."""
        with self._connections.reading() as connection:
            rows = rows_of(connection, _KEYS, (*(after or ("", "")), since or None, limit))
        return [KeyRow._make(row) for row in rows]

    def put_keys(self, keys: Sequence[KeyRow], wait_s: float) -> int:
        """See Transfer."""
        columns = [list(column) for column in zip(*keys, strict=True)]
        return self._connections.transact(
            lambda connection: connection.execute(_PUT, columns).rowcount if columns else 0, wait_s
        )
