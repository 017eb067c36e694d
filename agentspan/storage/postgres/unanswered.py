"""Finds out, on a new connection, the outcome of a statement or a COMMIT that was sent and never answered."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import psycopg

from agentspan.errors import InDoubt, StorageError
from agentspan.model.changes import Applied, Move, Outcome, Put, PutSpans, Unit
from agentspan.model.rows import AgentSpanRow, Row
from agentspan.storage import patience
from agentspan.storage.location import Location
from agentspan.storage.postgres.connection import Backend, Connection

PAUSE_S = 0.05
"""Seconds between two attempts to get the state of a transaction or process from the server."""
_AS_PUT = ("id", "agent_instance_id", "parent_span_id", "inserted_at")
"""Columns of a span that no later change sets, so they show whether a put was applied."""
_STATUS = "select pg_xact_status(%s::xid8)"
# The old server process may not have noticed that the connection broke: it holds locks and waits for a lost COMMIT.
_END = "select pg_terminate_backend(pid) from pg_stat_activity where backend_xid = %s::xid8::xid"


def is_lost(error: BaseException) -> bool:
    """Return whether an error may come from a broken connection, so that the server's answer is unknown."""
    state = getattr(error, "sqlstate", None)
    return isinstance(error, psycopg.OperationalError) and (state is None or state.startswith(("08", "57P")))


def is_committed(connect: Callable[[], Connection], location: Location, xid: str, life: str, within_s: float) -> bool:
    """Return whether a transaction was committed; False means that it never will be.

    After a crash, a server may give the number of a transaction that left no trace in its log to another transaction.
    So after a restart, the answer "committed" may be about the other one, and is not trusted.

    Args:
        connect: opens a new connection.
        xid: the number of the transaction.
        life: the `Connection.life` of the connection on which the transaction began.
        within_s: seconds after which no further attempt is made.

    Raises:
        InDoubt: the server cannot be reached, was restarted, or does not know the transaction any more.
    """
    deadline = time.monotonic() + min(within_s, patience.left_s())
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
    raise InDoubt(in_doubt(location))


def in_doubt(location: Location) -> str:
    """Return the message of an InDoubt."""
    return (
        f"the connection to {location} broke while changes were committed: they are stored, or not. Look, or try "
        "again with the same idempotency key"
    )


class Unanswered(InDoubt):
    """A statement was sent and not answered: it may still be applied, until its process at the server has ended.

    Attributes:
        backend: the server process that got the statement.
    """

    def __init__(self, location: Location, backend: Backend) -> None:
        super().__init__(in_doubt(location))
        self.backend = backend


def subjects_of(unit: Unit) -> Iterator[str]:
    """Yield the ids of the rows that a unit changes."""
    for change in unit.changes:
        if isinstance(change, PutSpans):
            yield from (row.id for row in change.rows)
        else:
            yield change.row.id if isinstance(change, Put) else change.id


def applied_before(unit: Unit, stored: Row | None, terminated: Mapping[str, str]) -> Outcome | None:
    """Return the outcome of an unanswered unit, if the stored row of its span shows that it was applied; else None.

    If the span has all values that the unit sets, the unit was applied: no other program makes the same id, or
    finishes a span in the same microsecond with the same result.

    Args:
        terminated: the termination reasons, by run id.
    """
    change = unit.changes[0]
    if not isinstance(stored, AgentSpanRow) or len(unit.changes) > 1:
        return None
    if isinstance(change, Move):
        values = change.set
    elif isinstance(change, Put) and isinstance(change.row, AgentSpanRow):
        values = {column: getattr(change.row, column) for column in _AS_PUT}
    else:
        return None
    if any(getattr(stored, column) != value for column, value in values.items()):
        return None
    reason = terminated.get(stored.agent_instance_id)
    if unit.subject is not None:
        return Applied(stored, reason)
    return Applied(None, reason if isinstance(change, Put) else None)  # as in each storage (see outcome_of)
