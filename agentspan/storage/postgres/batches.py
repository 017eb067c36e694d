"""Puts many spans at once, by COPY. A refusal names a guard that failed, not the row: `changes.parted` finds that."""

from collections.abc import Collection, Sequence

from agentspan.model.changes import PutSpans, Refused
from agentspan.model.rows import AgentSpanRow, Row
from agentspan.storage.postgres import statements
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.lending import rows_of, storable
from agentspan.storage.postgres.statements import span_table

_VIOLATIONS = "copy schema_violations (agent_instance_id, agent_span_id, side, path, keyword, message) from stdin"


def put_spans(connection: Connection, put: PutSpans, late: list[Row]) -> Refused | None:
    """Put new spans, all of them or none, within the transaction that is under way.

    The rows of their runs are locked first, in the order of ids. So two batches of the same run wait for each other,
    and no span is put as open and as finished at the same moment, which no unique key would see.
    """
    rows = put.rows
    runs = {row.agent_instance_id for row in rows}
    ids = [row.id for row in rows]
    found = rows_of(connection, statements.LOCK_RUNS, (storable(sorted(runs)),))
    if len(found) < len(runs):
        return Refused("missing")
    if len(set(ids)) < len(ids) or _are_used(connection, rows, runs):
        return Refused("id_used")
    insert(connection, rows)
    if put.violations:
        run_of = {row.id: row.agent_instance_id for row in rows}
        with connection.cursor().copy(_VIOLATIONS) as copy:
            for id, violation in put.violations:
                copy.write_row((run_of[id], id, *violation))
    terminated = {id for id, status, _ in found if status == "terminated"}
    if terminated:
        late.append(next(row for row in rows if row.agent_instance_id in terminated))
    return None


def _are_used(connection: Connection, rows: Sequence[AgentSpanRow], runs: Collection[str]) -> bool:
    if not rows:
        return False
    ids = [row.id for row in rows]
    values = {"runs": list(runs), "first": min(ids), "last": max(ids)}
    if not rows_of(connection, statements.SPANS_BETWEEN, values):
        return False
    if connection.is_distributed:
        return any(rows_of(connection, sql, (list(runs), ids)) for sql in statements.SPAN_IDS_USED_APART)
    asked = (statements.SEPARATOR.join(texts) for texts in ((row.agent_instance_id for row in rows), ids))
    return bool(rows_of(connection, statements.SPAN_IDS_USED, tuple(asked)))


def insert(connection: Connection, rows: Sequence[AgentSpanRow]) -> None:
    """Insert spans into the tables that their statuses say, without looking at any guard."""
    by_table: dict[str, list[AgentSpanRow]] = {}
    for row in rows:
        by_table.setdefault(span_table(row.status), []).append(row)
    for table, some in by_table.items():
        with connection.cursor().copy(statements.copy(table)) as copy:
            for row in some:
                copy.write_row(row)
