"""What an import leaves in a storage, comparable between two files."""

from typing import Any

from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.access import scan
from agentspan.storage.questions import SpansOf

_BY_CHANCE = ("inserted_at", "updated_at", "agent_id", "agent_version_id", "agent_schema_version_id", "partition")
_HEAD = 16
"""The characters of an id that depend on the file: its time and the file's partition."""


def stored(database: Database) -> list[Any]:
    """Return the rows of runs, each with its spans, without what depends on the file or the time of storing."""
    storage = database.storage
    runs = scan(storage, AgentInstanceRow)
    return [(_comparable(run), [_comparable(span) for span in storage.ask(SpansOf(run.id))]) for run in runs]


def _comparable(row: AgentInstanceRow | AgentSpanRow) -> dict[str, Any]:
    values = {name: value for name, value in row._asdict().items() if name not in _BY_CHANCE}
    ids = ("id", "agent_instance_id", "parent_span_id")
    return {**values, **{name: (values.get(name) or "")[_HEAD:] for name in ids}}
