"""The shape of what lends a connection to a read, and one statement over it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.values import is_storable

Lend = Callable[[], AbstractContextManager[Connection]]
"""Lends a connection for a read."""


def rows_of(connection: Connection, sql: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
    """Execute a statement that returns rows."""
    return connection.execute(sql, values, binary=True).fetchall()


def storable(ids: Sequence[str]) -> list[str]:
    """Return those ids that a row can have."""
    return [id for id in ids if is_storable(id)]
