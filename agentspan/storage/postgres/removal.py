"""Removes old runs, with all that belongs to them, and old keys."""

from collections.abc import Sequence

from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.lending import rows_of, storable
from agentspan.storage.postgres.statements import NOTE_REWRITTEN, compared

# FOR UPDATE waits for a span that is being put, whose run is locked FOR SHARE; the next statement sees that span.
_LOCK = (
    "select id from agent_instances where id = any(%s) and status not in ('pending', 'active') order by id for update"
)
_WITH_OPEN_SPANS = "select distinct agent_instance_id from open_spans where agent_instance_id = any(%s)"
BELONGS = ("schema_violations", "refused_changes", "otel_traces", "run_names", "tags", "scores")


class PostgresRemoval:
    """See Removal."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def remove_runs(self, ids: Sequence[str], wait_s: float) -> tuple[int, int]:
        """See Removal."""

        def remove(connection: Connection) -> tuple[int, int]:
            found = [id for (id,) in rows_of(connection, _LOCK, (storable(ids),))]
            stay = {id for (id,) in rows_of(connection, _WITH_OPEN_SPANS, (found,))}
            gone = [id for id in found if id not in stay]
            spans = connection.execute("delete from finished_spans where agent_instance_id = any(%s)", (gone,)).rowcount
            connection.execute(NOTE_REWRITTEN, (gone,))
            for table in BELONGS:
                connection.execute(f"delete from {table} where agent_instance_id = any(%s)", (gone,))
            connection.execute("delete from agent_instances where id = any(%s)", (gone,))
            return len(gone), spans

        return self._connections.transact(remove, wait_s)

    def remove_keys(self, before: str, wait_s: float, *, dry_run: bool = False) -> int:
        """See Removal."""
        old = f"from idempotency_keys where {compared('inserted_at', '<', before)}"
        if dry_run:
            with self._connections.reading() as connection:
                count: int = rows_of(connection, f"select count(*) {old}", (before,))[0][0]
                return count
        delete = f"delete {old}"
        return self._connections.transact(lambda connection: connection.execute(delete, (before,)).rowcount, wait_s)
