"""Sessions and steps for tests, and what is stored of them."""

from typing import Any

from agentspan.api.context import Context
from agentspan.arriving.arrival import Arrival, Arrived
from agentspan.arriving.records import Record, Session, Step
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf

SECOND = 1_000_000_000
T0 = 1_700_000_000 * SECOND


def session(id: str = "s", **more: Any) -> Session:
    """Return a session of a minute that was answered."""
    facts: dict[str, Any] = {"ended_ns": T0 + 60 * SECOND, "outcome": "answered", "version": "2.1", **more}
    return Session(id, "coder", T0, **facts)


def llm(key: str, at: int, *, session: str = "s", parent: str | None = None, tokens: int = 100) -> Step:
    """Return a call of a model that took a second."""
    result = {"text": f"answer {key}", "input_tokens": tokens, "output_tokens": 10}
    start = T0 + at * SECOND
    return Step(session, key, parent, "llm", start, start + SECOND, "complete", {"model": "gpt-4o"}, result)


def tool(key: str, at: int, *, session: str = "s", parent: str | None = None, output: Any = None, **more: Any) -> Step:
    """Return a call of a tool: active without an output."""
    start = T0 + at * SECOND
    payload = {"name": "Bash", "arguments": {"command": "make"}, "call_id": key, **more}
    if output is None:
        return Step(session, key, parent, "tool", start, None, "active", payload)
    return Step(session, key, parent, "tool", start, start + SECOND, "complete", payload, {"output": output})


def arrive(storage: Storage, *records: Record, live: bool = False) -> Arrived:
    """Store records as one source, as a program does that has just started."""
    arrival = Arrival(Context(storage))
    arrival.take("toy", records)
    arrival.finish(live=live)
    return arrival.arrived


def run_of(storage: Storage, external: str = "toy:s") -> AgentInstanceRow:
    """Return the run of a session."""
    return next(run for run in scan(storage, AgentInstanceRow) if run.external_identifier == external)


def spans_of(storage: Storage, external: str = "toy:s") -> dict[str, AgentSpanRow]:
    """Return the spans of a session's run by their summary."""
    return {span.summary or "": span for span in storage.ask(SpansOf(run_of(storage, external).id))}
