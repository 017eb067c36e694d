"""What is stored of sessions, without what differs between two databases."""

from typing import Any

from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf


def rows_of(database: Database) -> list[Any]:
    """Return what is stored of runs and spans, without the times of storing."""
    found: list[Any] = []
    for run in scan(database.storage, AgentInstanceRow):
        spans = [_timeless(span) for span in database.storage.ask(SpansOf(run.id))]
        found.append((_timeless(run), spans))
    return found


def _timeless(row: AgentInstanceRow | AgentSpanRow) -> Any:
    values = row._asdict()
    for name in ("inserted_at", "updated_at", "agent_id", "agent_version_id", "agent_schema_version_id", "partition"):
        values.pop(name, None)
    return {**values, "id": row.id[16:], "agent_instance_id": values.get("agent_instance_id", "")[16:]}


def spans_of(database: Database) -> list[dict[str, Any]]:
    """Return the spans of the only run."""
    ((_, spans),) = rows_of(database)
    return sorted(spans, key=lambda span: (span["started_at"], span["id"]))


def stored(database: Database) -> list[Any]:
    """Return the runs and their spans. Ids are cut to what is derived from the source."""
    found = rows_of(database)
    for _, spans in found:
        for span in spans:
            span["parent_span_id"] = (span["parent_span_id"] or "")[16:]
    return found


def by_session(storage: Storage) -> dict[str, Any]:
    """Return the runs and spans, without the times of storing and the ids that are minted."""
    found: dict[str, Any] = {}
    for run in scan(storage, AgentInstanceRow):
        spans = {span.id[16:]: _without_ids(span) for span in storage.ask(SpansOf(run.id))}
        found[run.external_identifier or ""] = (_without_ids(run), spans)
    return found


def _without_ids(row: AgentInstanceRow | AgentSpanRow) -> Any:
    left_out = {"inserted_at", "updated_at", "agent_id", "agent_version_id", "agent_schema_version_id", "id"}
    values = {name: value for name, value in row._asdict().items() if name not in left_out}
    return {**values, "agent_instance_id": None, "parent_span_id": (values.get("parent_span_id") or "")[16:]}
