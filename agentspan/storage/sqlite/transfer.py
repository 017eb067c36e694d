"""Transfer of a file: what a copy of a whole file reads and writes beside rows."""

from collections.abc import Mapping, Sequence

from agentspan.storage.sqlite.connections import Connections
from agentspan.storage.sqlite.lending import Lend, chunks
from agentspan.storage.transfer import KeyRow, SpanMark

_MARKS = (
    "select agent_instance_id, status, count(*), max(updated_at), count(ended_late) from agent_spans "
    "where agent_instance_id in ({0}) group by agent_instance_id, status"
)
_KEYS = (
    "select operation, key, request_hash, subject, inserted_at from idempotency_keys "
    "where (operation, key) > (?, ?) and inserted_at >= ? order by operation, key limit ?"
)
_PUT = (
    "insert into idempotency_keys (operation, key, request_hash, subject, inserted_at) values (?, ?, ?, ?, ?) "
    "on conflict do nothing"
)


class FileTransfer:
    """See Transfer.

    Args:
        reading: lends the connection of a read.
        connections: what writes.
    """

    def __init__(self, reading: Lend, connections: Connections) -> None:
        self._reading = reading
        self._connections = connections

    def span_marks(self, instance_ids: Sequence[str]) -> Mapping[str, frozenset[SpanMark]]:
        """See Transfer."""
        found: dict[str, set[SpanMark]] = {id: set() for id in instance_ids}
        with self._reading() as connection:
            for some in chunks(instance_ids):
                sql = _MARKS.format(", ".join("?" * len(some)))
                for id, *mark in connection.execute(sql, some):
                    found[id].add(SpanMark._make(mark))
        return {id: frozenset(marks) for id, marks in found.items()}

    def keys(self, *, after: tuple[str, str] | None = None, limit: int = 500, since: str = "") -> list[KeyRow]:
        """See Transfer."""
        with self._reading() as connection:
            rows = connection.execute(_KEYS, (*(after or ("", "")), since, limit))
            return [KeyRow._make(row) for row in rows]

    def put_keys(self, keys: Sequence[KeyRow], wait_s: float) -> int:
        """See Transfer."""
        return self._connections.transact(lambda connection: connection.executemany(_PUT, keys).rowcount, wait_s)
