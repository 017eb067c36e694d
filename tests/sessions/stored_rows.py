"""What is stored of sessions, without what differs between two databases."""

from typing import Any

from agentspan.database import Database
from tests.sessions.test_importing import rows_of


def stored(database: Database) -> list[Any]:
    """Return the runs and their spans. Ids are cut to what is derived from the source."""
    found = rows_of(database)
    for _, spans in found:
        for span in spans:
            span["parent_span_id"] = (span["parent_span_id"] or "")[16:]
    return found
