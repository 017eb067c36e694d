"""Finds out, on a new connection, the outcome of a transaction whose COMMIT was sent and never answered."""

import time
from collections.abc import Callable
from contextlib import suppress

import psycopg

from agentspan.errors import InDoubt, StorageError
from agentspan.model.changes import Applied, Move, Outcome, Put, Refused, Unit
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.location import Location
from agentspan.storage.postgres.connection import Connection

PAUSE_S = 0.05
"""Seconds between two looks."""
_AS_PUT = ("id", "agent_instance_id", "parent_span_id", "inserted_at")
"""Columns of a span that nothing changes."""
_STATUS = "select pg_xact_status(%s::xid8)"
# Its server process may not know yet that nobody is there, and waits for a COMMIT that was lost, with its locks.
_END = "select pg_terminate_backend(pid) from pg_stat_activity where backend_xid = %s::xid8::xid"


def is_lost(error: BaseException) -> bool:
    """Return whether an error may be that of a connection which broke: the server's answer is not known then."""
    state = getattr(error, "sqlstate", None)
    return isinstance(error, psycopg.OperationalError) and (state is None or state.startswith(("08", "57P")))


def is_committed(connect: Callable[[], Connection], location: Location, xid: str, life: str, within_s: float) -> bool:
    """Return whether a transaction was committed, else it was not and never will be.

    A server that has crashed gives the number of a transaction that left no trace in its log to another one. So once it
    was restarted, "committed" may be true of that one only.

    Args:
        connect: opens a new connection.
        xid: the number of the transaction.
        life: that of the server in which the transaction began (see Connection).
        within_s: seconds after which no other attempt is made.

    Raises:
        InDoubt: the server cannot be reached, was restarted, or does not know the transaction any more.
    """
    deadline = time.monotonic() + within_s
    while True:
        with suppress(psycopg.Error, StorageError):
            connection = connect()
            try:
                found = connection.execute(_STATUS, (xid,)).fetchone()
                status = None if found is None else found[0]
                was_restarted = connection.life != life
                if status is None or (was_restarted and status == "committed"):
                    break
                if was_restarted or status in ("committed", "aborted"):
                    return bool(status == "committed")
                connection.execute(_END, (xid,))
            finally:
                connection.close()
        if time.monotonic() >= deadline:
            break
        time.sleep(PAUSE_S)
    raise in_doubt(location)


def in_doubt(location: Location) -> InDoubt:
    """Return the error."""
    return InDoubt(
        f"the connection to {location} broke while changes were committed: they are stored, or not. Look, or try "
        "again with the same idempotency key"
    )


def applied_before(unit: Unit, outcome: Outcome) -> Outcome:
    """Return the outcome of a statement for a span that was sent before, alone, and was sent once more now.

    Where the second was refused because the span has all values of the first, the first was applied: no other program
    makes the same id, or finishes a span in the same microsecond with the same result.
    """
    change = unit.changes[0]
    if not isinstance(outcome, Refused) or not isinstance(outcome.stored, AgentSpanRow):
        return outcome
    stored = outcome.stored
    if isinstance(change, Move):
        values = change.set
    elif isinstance(change, Put) and isinstance(change.row, AgentSpanRow):
        values = {column: getattr(change.row, column) for column in _AS_PUT}
    else:
        return outcome
    if any(getattr(stored, column) != value for column, value in values.items()):
        return outcome
    return Applied(None if unit.subject is None else stored)
