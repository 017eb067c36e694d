"""Sends several statements at once: they share one round trip."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg

from agentspan.storage.postgres.connection import Connection

Values = Sequence[Any] | Mapping[str, Any]


class Statement(NamedTuple):
    """A statement and its values."""

    sql: str
    values: Values = ()


class Ahead:
    """Statements that are sent together with the BEGIN of a transaction, and the rows that each returned.

    Attributes:
        rows: for each statement, in the attempt that is under way.
    """

    def __init__(self, statements: Sequence[Statement]) -> None:
        self.statements = statements
        self.rows: list[list[Any]] = []


def rows_of_each(connection: Connection, statements: Sequence[Statement]) -> list[list[Any]]:
    """Execute statements in their order, in one round trip; return the rows of each, none where it has no result.

    In a pipeline that is under way, each returns rows. After the first that fails, no other is executed; its error is
    raised.
    """
    if connection.info.pipeline_status:  # to enter it again would wait for what was sent before
        sent = [connection.execute(sql, values, binary=True) for sql, values in statements]
        return [cursor.fetchall() for cursor in sent]
    with pipelined(connection):
        cursors = [connection.execute(sql, values, binary=True) for sql, values in statements]
    return [[] if cursor.description is None else cursor.fetchall() for cursor in cursors]


@contextmanager
def pipelined(connection: Connection) -> Iterator[None]:
    """Let statements be sent without waiting for the answers to those before."""
    broken: psycopg.Error | None = None
    connection.raised = None
    try:
        with connection.pipeline():
            try:
                yield
            except psycopg.Error as error:  # not to the end of the pipeline, which would log that it fails as well
                broken = error
    except Exception:
        raised, connection.raised = connection.raised, None
        if raised is None:
            raise
        # The end of a pipeline raises an error of its own instead, or takes the traceback away, by which an exception
        # of the program's signal handler is told from a fault.
        raise raised[0].with_traceback(raised[1]) from None
    if broken is not None:
        raise broken
