"""Sentences about late ends: the own end of a span or run that came after it was closed for its program."""

from agentspan.model.rows import AgentInstanceRow, AgentSpanRow


def late_text(row: AgentSpanRow | AgentInstanceRow) -> str | None:
    """Return a sentence about a late end; None where the end was not late, or there was no close."""
    if not row.ended_late:
        return None
    what = "the termination" if row.closed_by == "terminated" else "doctor closed it"
    return f"its own end came after {what}"


def closed_text(row: AgentSpanRow | AgentInstanceRow) -> str | None:
    """Return by what a row was closed, and that its own end came after that; None if it was not closed."""
    if row.closed_by is None:
        return None
    late = late_text(row)
    return row.closed_by if late is None else f"{row.closed_by}; {late}"
