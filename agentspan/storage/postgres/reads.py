"""The reads of a schema, over a connection that sees one state: a snapshot's, or that of a transaction under way."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import psycopg

from agentspan.errors import StorageError
from agentspan.model.changes import Key, Violation
from agentspan.model.rows import (
    ROWS,
    AccountRow,
    AgentInstanceRow,
    AgentSpanRow,
    ResourceType,
    Row,
    instance_of,
)
from agentspan.storage.postgres import statements
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.lending import Lend, rows_of, storable
from agentspan.storage.postgres.score_reads import ScoreReads
from agentspan.storage.postgres.values import is_storable
from agentspan.storage.protocol import Found, Query, Rows, SpanCounts, SpanSum, StoredKey, span_counts

FETCHED = 1000
"""Spans that are fetched at a time of a run that is read whole."""
_LIKELY: tuple[ResourceType, ...] = ("agent_span", "agent_instance")
_OTHERS: tuple[ResourceType, ...] = tuple(type_ for type_ in ROWS if type_ not in _LIKELY)


class Reads(ScoreReads):
    """The reads of Storage, Outlines, Sums and Scores.

    Args:
        reading: lends the connection of a read of one statement.
        snapshot: lends the connection of a read of several statements, which all see the same state.
    """

    def __init__(self, reading: Lend, snapshot: Lend) -> None:
        super().__init__(reading)
        self.snapshot = snapshot

    def account(self) -> AccountRow:
        """See Storage."""
        with self.reading() as connection:
            return AccountRow(*rows_of(connection, statements.SELECT["account"])[0])

    def find(self, *ids: str, key: Key | None = None, instance_id: str | None = None) -> Found:
        """See Storage."""
        with self.snapshot() as connection:
            stored = None if key is None else key_of(connection, key)
            rows = located(connection, (*ids, stored.subject) if stored is not None else ids)
            terminated: dict[str, str] = {}
            for run in {instance_of(row) for type_, row in rows.values() if type_ in _LIKELY}:
                reason = terminated_in(connection, run)
                if reason is not None:
                    terminated[run] = reason
            return Found(rows, stored, terminated)

    def page(self, query: Query) -> Rows:
        """See Storage."""
        sql, values = statements.page(query)
        if not all(is_storable(value) for value in values if isinstance(value, str)):
            return Rows([], 0 if query.with_total else None)
        make = ROWS[query.type]._make
        with self.snapshot() if query.with_total else self.reading() as connection:
            rows = [make(row) for row in rows_of(connection, sql, values)]
            if not query.with_total:
                return Rows(rows)
            is_all = not query.offset and not query.after and (query.limit is None or len(rows) < query.limit)
            return Rows(rows, len(rows) if is_all else rows_of(connection, *statements.total(query))[0][0])

    def iter_spans(self, instance_id: str) -> Iterator[AgentSpanRow]:
        """See Storage."""
        with self.reading() as connection:
            few = rows_of(connection, statements.FIRST_SPANS, (instance_id, FETCHED + 1))
        if len(few) <= FETCHED:  # as nearly all runs: one round trip instead of six
            yield from map(AgentSpanRow._make, few)
            return
        process = os.getpid()
        with self.snapshot() as connection, psycopg.ServerCursor(connection, "spans") as cursor:
            cursor.execute(statements.SPANS, (instance_id,), binary=True)
            while rows := cursor.fetchmany(FETCHED):
                for row in rows:
                    yield AgentSpanRow._make(row)
                if os.getpid() != process:
                    raise StorageError("this process was forked while it read the spans of a run; read them again")

    def outlines(
        self, instance_id: str, *, after: str = "", limit: int | None = None, since: str | None = None
    ) -> list[AgentSpanRow]:
        """See Outlines."""
        changed = "" if since is None else f" and {statements.compared('updated_at', '>=', since)}"
        values = (instance_id, after, *(() if since is None else (since,)), limit)
        if len(storable([value for value in values if isinstance(value, str)])) < len(values) - 1:
            return []
        with self.reading() as connection:
            rows = rows_of(connection, statements.OUTLINES.format(changed), values)
        return [AgentSpanRow._make(row) for row in rows]

    def counts(self, instance_ids: Sequence[str]) -> Mapping[str, SpanCounts]:
        """See Storage."""
        by_instance: dict[str, dict[str, int]] = {id: {} for id in instance_ids}
        with self.reading() as connection:
            for id, status, number in rows_of(connection, statements.COUNTS, (storable(instance_ids),)):
                by_instance[id][status] = number
        return {id: span_counts(numbers) for id, numbers in by_instance.items()}

    def sums(self, instance_id: str) -> list[SpanSum]:
        """See Sums."""
        with self.reading() as connection:
            return [SpanSum._make(row) for row in rows_of(connection, statements.SUMS, (instance_id,))]

    def violations(self, span_ids: Sequence[str], *, instance_id: str | None = None) -> Mapping[str, list[Violation]]:
        """See Storage."""
        found: dict[str, list[Violation]] = {id: [] for id in span_ids}
        with self.reading() as connection:
            for id, *violation in rows_of(connection, statements.VIOLATIONS, (storable(span_ids),)):
                found[id].append(Violation._make(violation))
        return found


def located(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[ResourceType, Row]]:
    """Return the rows of ids, of whatever type."""
    rows: dict[str, tuple[ResourceType, Row]] = {}
    left = storable(ids)
    for type_ in (*_LIKELY, *_OTHERS):
        if not left:
            break
        for values in rows_of(connection, statements.BY_IDS[type_], (left,)):
            row = ROWS[type_]._make(values)
            rows[row.id] = type_, row
        left = [id for id in left if id not in rows]
    return {id: rows[id] for id in ids if id in rows}


def locate(connection: Connection, id: str) -> tuple[ResourceType, Row] | None:
    """Return the row of an id, of any type."""
    return located(connection, (id,)).get(id)


def key_of(connection: Connection, key: Key) -> StoredKey | None:
    """Return what is stored under a key."""
    found = rows_of(connection, statements.KEY, (key.operation, key.key))
    return StoredKey(*found[0]) if found else None


def terminated_in(connection: Connection, instance_id: str) -> str | None:
    """Return the reason why an instance was terminated; None if it was not."""
    found = rows_of(connection, statements.TERMINATED, (instance_id,))
    return cast(str, found[0][0] or "") if found else None


def terminated_of(connection: Connection, row: Row) -> str | None:
    """Return the reason why a row's instance, or the row itself, was terminated; None if it was not."""
    if isinstance(row, AgentInstanceRow):
        return row.termination_reason or "" if row.status == "terminated" else None
    return terminated_in(connection, row.agent_instance_id) if isinstance(row, AgentSpanRow) else None
