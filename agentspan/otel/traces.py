"""Decides about traces, for spans of this process and for spans that arrive: their root, their run's name and its end.

The trace of an agent, of a call of a framework, or of a request is one run. All other traces of a process are one run.
Pure: the processor gives the decisions to a recorder, the receiver makes rows of them.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from agentspan.otel.mapping.mapped import Mapped, Program, RunFacts, program_of
from agentspan.otel.span import OtelSpan
from agentspan.recording.capture.redaction import suspicious

ABANDONED = {"type": "Abandoned", "message": "its end was never sent"}
"""The error of a span, and of a run, whose end never came."""


class Step(NamedTuple):
    """A span with its record in agentspan."""

    span: OtelSpan
    mapped: Mapped


UNKNOWN = "unknown"
"""The target of a handoff whose instrumentor does not tell it."""


def with_targets(trace: list[Step]) -> list[Step]:
    """Return a trace in which each handoff without a target has the agent that began next."""
    agents = [step for step in trace if step.mapped.type == "agent"]
    for index, (span, mapped) in enumerate(trace):
        if mapped.type == "handoff" and mapped.payload.get("to_agent", UNKNOWN) == UNKNOWN:
            names = (agent.mapped.payload.get("name") for agent in agents if agent.span.start_ns >= span.start_ns)
            payload = {**mapped.payload, "to_agent": next(names, UNKNOWN)}
            trace[index] = Step(span, mapped._replace(payload=payload))
    return trace


def trace_key(trace_id: str) -> str:
    """Return the key of a run that is one trace."""
    return f"otel:trace:{trace_id}"


def process_key(program: Program) -> str:
    """Return the key of the run of a process, which is stored: a hash where there may be a credential in it."""
    key = program.key
    if suspicious()(key):
        key = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"otel:process:{key}"


def in_order(steps: Iterable[Step]) -> list[Step]:
    """Return steps in the order of their starts."""
    return sorted(steps, key=lambda step: order(step[0]))


def order(span: OtelSpan) -> tuple[int, int, str, str]:
    """Return the key by which spans are in the order of their starts."""
    return span.start_ns, span.parent_span_id is not None, span.trace_id, span.span_id


def root_of(trace: Sequence[Step]) -> Step:
    """Return the root of a trace; where it is missing, the first span whose parent is."""
    root = root_span([step.span for step in trace])
    return next(step for step in trace if step.span is root)


def root_span(trace: Sequence[OtelSpan]) -> OtelSpan:
    """Return the same of spans."""
    here = {span.span_id for span in trace}
    tops = [span for span in trace if span.parent_span_id not in here]
    return min(tops or trace, key=lambda span: (-rank_of(span), *order(span)))


def rank_of(span: OtelSpan) -> int:
    """Return how sure it is that a span is the root of its trace: 2 without a parent, 1 of a request to a server, 0."""
    return 2 if span.parent_span_id is None else int(span.kind == "SERVER")


class RunName(NamedTuple):
    """The facts that a run is registered with.

    Attributes:
        key: tells it from all others: `otel:trace:…` or `otel:process:…`.
        agent, version: of its agent.
    """

    key: str
    agent: str
    version: str | None


def name_of_trace(root: OtelSpan, facts: RunFacts, *, is_own: bool) -> RunName:
    """Return the name of the run of a trace.

    Args:
        root: its first span.
        facts: the facts of that span.
        is_own: whether the span is the root of a run; without it, or the name of an agent, the program gives the name.
    """
    program = program_of(root.resource)
    agent = facts.agent or (root.name if is_own else program.name)
    return RunName(trace_key(root.trace_id), agent, facts.version or program.version)


def name_of_process(program: Program) -> RunName:
    """Return the name of the run of a process."""
    return RunName(process_key(program), program.name, program.version)


def run_metadata(
    resource: Mapping[str, Any], scopes: Iterable[str] | None = None, trace_id: str | None = None
) -> dict[str, Any]:
    """Return the metadata of a run.

    Args:
        resource: of the process.
        scopes: the names of its instrumentors, once they are known.
        trace_id: of a run that is one trace.
    """
    about: dict[str, Any] = {"resource": dict(resource)}
    if scopes is not None:
        about["scopes"] = [*scopes]
    if trace_id is not None:
        about["trace_id"] = trace_id
    return {"otel": about}


class RunEnd(NamedTuple):
    """The end of a run as its root tells it: plain JSON, `error` and `result` None without one."""

    status: Literal["complete", "failed"]
    result: dict[str, Any] | None
    error: dict[str, Any] | None


def end_of_run(root: Mapped) -> RunEnd:
    """Return the end of a run, which ends as its root did."""
    returned = root.result_payload or {}
    output = returned.get("output")
    error = returned.get("error", {}) if root.status == "failed" else None
    return RunEnd(root.status, None if output is None else {"output": output}, error)


def conversation(steps: Iterable[Step]) -> tuple[str | None, str | None]:
    """Return the session and the user of a run: of each the first that one of its spans has."""
    facts = [step.mapped.run for step in steps]
    session = next((found for each in facts if (found := each.session)), None)
    return session, next((found for each in facts if (found := each.user)), None)
