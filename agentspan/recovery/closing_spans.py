"""Closes the open spans of a program, because their run was terminated or the program died."""

from typing import Any

from agentspan import jsontext
from agentspan.model import sensitive, spans
from agentspan.model.changes import Move
from agentspan.model.rows import AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.recovery.stored_span_types import StoredSpanTypes
from agentspan.schemas.meaning import describe
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf


class Closer:
    """Makes the changes that close spans; the caller commits them."""

    def __init__(self, storage: Storage, stored_span_types: StoredSpanTypes) -> None:
        self._storage = storage
        self._stored_span_types = stored_span_types

    def close(self, span: AgentSpanRow, by: str, error: dict[str, str], at: str, now: str) -> Move:
        """Return the move that closes an open span, with `error` in its result (see spans.closed)."""
        result: dict[str, Any] = {"error": error}
        status = "failed" if span.status == "active" else "cancelled"
        span_type = self._stored_span_types.of(self._storage, span.agent_instance_id).resolve(span.schema_name)
        payload = sensitive.read(span.payload)[0]
        meaning = describe(span_type, span.schema_name, status, payload, result, None, (False, False))
        if span_type.lacks_liquid:  # another program rendered it, with python-liquid
            meaning = meaning._replace(summary=span.summary)
        return spans.closed(span, by, result_payload=jsontext.encode(result)[0], meaning=meaning, at=at, now=now)

    def close_terminated(self, instance_id: str, reason: str, now: str) -> list[Move]:
        """Return the moves that close all open spans of a run that is terminated for this reason."""
        error = {"type": "Terminated", "message": reason}
        found = self._storage.ask(SpansOf(instance_id))
        return [self.close(span, "terminated", error, now, now) for span in found if span.status in OPEN]
