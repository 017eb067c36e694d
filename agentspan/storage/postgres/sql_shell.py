"""Runs a person's own SELECT in a READ ONLY transaction of a connection of its own, which ends after a time."""

import re
from collections.abc import Sequence
from typing import Any

import psycopg

from agentspan.errors import InvalidValue
from agentspan.storage.answers import Answer
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.driver_errors import translated
from agentspan.storage.postgres.values import register_plain

_READS = frozenset({"select", "with", "values", "table", "show", "explain"})
_FIRST = re.compile(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*([A-Za-z]+)", re.DOTALL)
_MARKS = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|\?|%""")
_OWN = frozenset({"08", "57", "53", "58", "XX"})
"""Classes of SQLSTATE that are no fault of the query."""


def ask(connections: Connections, query: str, given: Sequence[Any]) -> Answer:
    """Run one SELECT.

    Raises:
        InvalidValue: it is no SQL, does more than read, or takes too long.
        DatabaseUnusable: the server cannot be reached.
    """
    first = _FIRST.match(query)
    if first is None or first[1].lower() not in _READS:
        raise InvalidValue("query", f"must be one statement that reads, which begins with {', '.join(sorted(_READS))}")
    connection = connections.connected(connections.wait_s)
    try:
        register_plain(connection.adapters)
        connection.execute("set default_transaction_read_only = on")
        connection.execute("begin read only")
        # Prepared: the server then refuses a second statement after the first, such as a COMMIT.
        cursor = connection.execute(_with_marks(query) if given else query, tuple(given) or None, prepare=True)
        return Answer([column[0] for column in cursor.description or ()], cursor.fetchall())
    except UnicodeEncodeError:
        raise InvalidValue("query", "is no Unicode text") from None
    except psycopg.Error as error:
        state = error.sqlstate
        if state is not None and (state[:2] not in _OWN or state == "57014"):
            said = error.diag.message_primary or type(error).__name__
            raise InvalidValue("query", f"PostgreSQL says: {said}") from None
        if state is None and not isinstance(error, psycopg.OperationalError):
            raise InvalidValue("query", f"psycopg says: {error}") from None
        raise translated(error, connections.location) from error
    finally:
        connection.close()


def _with_marks(query: str) -> str:
    """Return a query whose `?` stand for values as psycopg wants them."""
    return _MARKS.sub(lambda m: "%s" if m[0] == "?" else m[0].replace("%", "%%"), query)
