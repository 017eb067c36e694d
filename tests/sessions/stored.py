"""What an import leaves in a storage, comparable between two files."""

from typing import Any

from agentspan.database import Database
from tests.sessions.test_importing import rows_of


def stored(database: Database) -> list[Any]:
    """Return the rows of runs and spans as `rows_of`, without what two files have in common by chance only."""
    return [(run, [_comparable(span) for span in spans]) for run, spans in rows_of(database)]


def _comparable(span: dict[str, Any]) -> dict[str, Any]:
    return {**span, "parent_span_id": (span["parent_span_id"] or "")[16:]}
