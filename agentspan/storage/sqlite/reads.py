"""The reads of a file, over a connection that sees one state: a snapshot's, or that of a transaction under way."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

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
from agentspan.storage.protocol import Found, Query, Rows, SpanCounts, SpanSum, StoredKey, span_counts, with_rest
from agentspan.storage.sqlite import statements
from agentspan.storage.sqlite.lending import chunks
from agentspan.storage.sqlite.page_rows import rows_within
from agentspan.storage.sqlite.score_reads import ScoreReads
from agentspan.storage.sqlite.tables import table_of

# Where an id is looked for, the likeliest first.
_TYPES: tuple[ResourceType, ...] = (
    "agent_span",
    "agent_instance",
    "agent",
    "agent_schema_version",
    "agent_version",
    "writer",
    "refused_change",
    "account",
    "otel_trace",
    "otel_log",
    "tag",
    "score",
)


class Reads(ScoreReads):
    """The reads of Storage, Outlines, Sums and Scores.

    Args:
        reading: lends the connection of each read.
    """

    def account(self) -> AccountRow:
        """See Storage."""
        with self.reading() as connection:
            return AccountRow(*connection.execute(statements.SELECT["account"]).fetchone())

    def find(self, *ids: str, key: Key | None = None, instance_id: str | None = None) -> Found:
        """See Storage."""
        with self.reading() as connection:
            stored = None
            if key is not None:
                values = connection.execute(statements.KEY, (key.operation, key.key)).fetchone()
                stored = StoredKey(*values) if values is not None else None
            rows: dict[str, tuple[ResourceType, Row]] = {}
            terminated: dict[str, str] = {}
            for id in (*ids, stored.subject) if stored is not None else ids:
                located = locate(connection, id)
                if located is not None:
                    rows[id] = located
                    reason = terminated_in(connection, located[1])
                    if reason is not None:
                        terminated[instance_of(located[1])] = reason
            return Found(rows, stored, terminated)

    def page(self, query: Query) -> Rows:
        """See Storage."""
        with self.reading() as connection:
            rows, is_cut = rows_within(connection, *statements.page(query), ROWS[query.type], query.most_bytes)
            rest: list[str] = []
            if is_cut:
                left = None if query.limit is None else query.limit - len(rows)
                others = replace(query, offset=query.offset + len(rows), limit=left)
                only_ids = f"select id from {table_of(query.type)}"
                rest = [id for (id,) in connection.execute(*statements.page(others, only_ids))]
            if not query.with_total:
                return with_rest(Rows(rows), rest) if is_cut else Rows(rows)
            number = len(rows) + len(rest)
            is_all = not query.offset and not query.after and (query.limit is None or number < query.limit)
            total = number if is_all else connection.execute(*statements.total(query)).fetchone()[0]
            return with_rest(Rows(rows, total), rest) if is_cut else Rows(rows, total)

    def iter_spans(self, instance_id: str) -> Iterator[AgentSpanRow]:
        """See Storage."""
        with self.reading() as connection:
            yield from map(AgentSpanRow._make, connection.execute(statements.SPANS, (instance_id,)))

    def outlines(
        self, instance_id: str, *, after: str = "", limit: int | None = None, since: str | None = None
    ) -> list[AgentSpanRow]:
        """See Outlines."""
        values = (instance_id, after, since or "", -1 if limit is None else limit)
        with self.reading() as connection:
            return [AgentSpanRow._make(row) for row in connection.execute(statements.OUTLINES, values)]

    def counts(self, instance_ids: Sequence[str]) -> Mapping[str, SpanCounts]:
        """See Storage."""
        by_instance: dict[str, dict[str, int]] = {id: {} for id in instance_ids}
        with self.reading() as connection:
            for chunk in chunks(instance_ids):
                for id, status, number in connection.execute(statements.counts(len(chunk)), chunk):
                    by_instance[id][status] = number
        return {id: span_counts(numbers) for id, numbers in by_instance.items()}

    def sums(self, instance_id: str) -> list[SpanSum]:
        """See Sums."""
        with self.reading() as connection:
            return [SpanSum._make(row) for row in connection.execute(statements.SUMS, (instance_id,))]

    def violations(self, span_ids: Sequence[str], *, instance_id: str | None = None) -> Mapping[str, list[Violation]]:
        """See Storage."""
        found: dict[str, list[Violation]] = {id: [] for id in span_ids}
        with self.reading() as connection:
            for chunk in chunks(span_ids):
                for id, *violation in connection.execute(statements.violations(len(chunk)), chunk):
                    found[id].append(Violation._make(violation))
        return found


def locate(connection: sqlite3.Connection, id: str) -> tuple[ResourceType, Row] | None:
    """Return the row of an id, of any type."""
    for type_ in _TYPES:
        values = connection.execute(statements.BY_ID[type_], (id,)).fetchone()
        if values is not None:
            return type_, ROWS[type_]._make(values)
    return None


def terminated_in(connection: sqlite3.Connection, row: Row) -> str | None:
    """Return the reason why a row's instance (or the row itself) was terminated; None if it was not."""
    if isinstance(row, AgentInstanceRow):
        return row.termination_reason or "" if row.status == "terminated" else None
    if not isinstance(row, AgentSpanRow):
        return None
    values = connection.execute(statements.TERMINATED, (row.agent_instance_id,)).fetchone()
    return values[0] or "" if values is not None else None
