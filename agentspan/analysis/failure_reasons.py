"""The reason of a run's failure, on one line: its own error, else that of the last step that failed in it."""

from agentspan import jsontext
from agentspan.analysis.tree import title_of
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.meaning import error_text
from agentspan.storage.answers import RunSummary
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Query
from agentspan.text import one_line

MAX_REASON = 300
"""Characters of a reason, at most."""


def failure_reason(storage: Storage, run: RunSummary) -> str | None:
    """Return why a run failed, or was terminated, or what failed in it; None if nothing did."""
    row = run.run
    if row.termination_reason:
        return one_line(f"terminated: {row.termination_reason}", MAX_REASON)
    if row.error is not None and (text := error_text({"error": jsontext.decode(row.error)})):
        return one_line(text, MAX_REASON)
    if not run.failed:
        return None
    query = Query("agent_span", {"agent_instance_id": row.id, "status": "failed"}, descending=True, limit=1)
    found = storage.ask(query).rows
    return one_line(_of_step(found[0]), MAX_REASON) if found and isinstance(found[0], AgentSpanRow) else None


def _of_step(span: AgentSpanRow) -> str:
    """Return what failed and its error, without what it was given: a long summary would leave no room for the error."""
    error = error_text(None if span.result_payload is None else jsontext.decode(span.result_payload))
    name = " ".join(text for text in (span.schema_title, span.label) if text)
    return title_of(span, MAX_REASON) if error is None else f"{name}: {error}"
