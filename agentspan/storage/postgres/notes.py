"""Notes of a schema: texts by name, for programs on several machines. Times are the server's."""

from collections.abc import Mapping

from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.lending import rows_of

_IS_OVER = "expires_at <= now()"
_OF_NAMES = f"select name, value from notes where name = any(%s) and (expires_at is null or not {_IS_OVER})"
_STORE = (
    "insert into notes (name, value, expires_at) values (%s, %s, now() + make_interval(secs => %s)) "
    "on conflict (name) do update set value = {0}, expires_at = {1} returning value"
)
_REPLACE = _STORE.format("excluded.value", "excluded.expires_at")
_KEEP = _STORE.format("notes.value", "notes.expires_at")  # an update that changes nothing returns the stored value
_WAIT_S = 5.0


class PostgresNotes:
    """See Notes."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def notes(self, *names: str) -> Mapping[str, str]:
        """See Notes."""
        with self._connections.reading() as connection:
            return dict(rows_of(connection, _OF_NAMES, ([*names],)))

    def note(self, name: str, text: str, *, lasts_s: float | None = None, replace: bool = True) -> str:
        """See Notes."""

        def store(connection: Connection) -> str:
            connection.execute(f"delete from notes where {_IS_OVER}")
            stored: str = rows_of(connection, _REPLACE if replace else _KEEP, (name, text, lasts_s))[0][0]
            return stored

        return self._connections.transact(store, _WAIT_S)

    def count_notes(self, prefix: str) -> int:
        """See Notes."""
        with self._connections.reading() as connection:
            number: int = rows_of(connection, "select count(*) from notes where starts_with(name, %s)", (prefix,))[0][0]
            return number

    def forget_notes(self, prefix: str) -> None:
        """See Notes."""
        sql = "delete from notes where starts_with(name, %s)"
        self._connections.transact(lambda connection: connection.execute(sql, (prefix,)), _WAIT_S)
