"""Rules for traces: finds the root span of a trace, and derives the name and the end of its run from the root.

The trace of an agent, of a call of a framework, or of a server's request is a run of its own. All other traces of a
process share one run. The functions are pure. Two modules use them: `processor` for spans of this process, and
`receiving` for spans that exporters send.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from agentspan.otel.mapping.mapped import Mapped, Program, RunFacts, program_of
from agentspan.otel.span import OtelSpan
from agentspan.recording.capture.redaction import suspicious

ABANDONED = {"type": "Abandoned", "message": "its end was never sent"}
"""The error of a span or a run whose end was never recorded."""


class Step(NamedTuple):
    """An OpenTelemetry span, and the agentspan record that it was mapped to."""

    span: OtelSpan
    mapped: Mapped


UNKNOWN = "unknown"
"""The target of a handoff whose instrumentor does not name the target."""


def with_targets(trace: list[Step]) -> list[Step]:
    """Return the trace with a target for each handoff that has none: the next agent that began at or after its start.

    Changes the list in place.
    """
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
    """Return the stored key of the run of a process. A key that may contain a credential is replaced by its hash."""
    key = program.key
    if suspicious()(key):
        key = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"otel:process:{key}"


def in_order(steps: Iterable[Step]) -> list[Step]:
    """Return steps sorted by their start times."""
    return sorted(steps, key=lambda step: order(step[0]))


def order(span: OtelSpan) -> tuple[int, int, str, str]:
    """Return the sort key of a span: its start time, then root spans before others, then its ids."""
    return span.start_ns, span.parent_span_id is not None, span.trace_id, span.span_id


def root_of(trace: Sequence[Step]) -> Step:
    """Return the root step of a trace, chosen by `root_span`."""
    root = root_span([step.span for step in trace])
    return next(step for step in trace if step.span is root)


def root_span(trace: Sequence[OtelSpan]) -> OtelSpan:
    """Return the root span of a trace; if the root is missing, the best of the spans whose parent is missing.

    A request to a server is better than another span, then an earlier span is better than a later one.
    """
    here = {span.span_id for span in trace}
    tops = [span for span in trace if span.parent_span_id not in here]
    return min(tops or trace, key=lambda span: (-rank_of(span), *order(span)))


def rank_of(span: OtelSpan) -> int:
    """Return how likely a span is the root of its trace: 2 without a parent, 1 for a server's request, else 0."""
    return 2 if span.parent_span_id is None else int(span.kind == "SERVER")


class RunName(NamedTuple):
    """The identity of a run: its key, and the name and version of its agent.

    Attributes:
        key: unique for each run: `otel:trace:…` or `otel:process:…`.
        agent, version: the name of the agent, and the agent's version if it is known.
    """

    key: str
    agent: str
    version: str | None


def name_of_trace(root: OtelSpan, facts: RunFacts, *, is_own: bool) -> RunName:
    """Return the key, agent and version of the run of a trace.

    The agent's name is that of `facts`, else with `is_own` the name of the root span, else the name of the program.

    Args:
        root: the root span of the trace, or the first known span.
        facts: the facts about the run that were mapped from the root span.
        is_own: whether the root span may name the run.
    """
    program = program_of(root.resource)
    agent = facts.agent or (root.name if is_own else program.name)
    return RunName(trace_key(root.trace_id), agent, facts.version or program.version)


def name_of_process(program: Program) -> RunName:
    """Return the key, agent and version of the run that holds the other traces of a process."""
    return RunName(process_key(program), program.name, program.version)


def run_metadata(
    resource: Mapping[str, Any], scopes: Iterable[str] | None = None, trace_id: str | None = None
) -> dict[str, Any]:
    """Return the metadata of a run that came from OpenTelemetry.

    Args:
        resource: the attributes of the process.
        scopes: the names of the instrumentors of the run; None if they are not known yet.
        trace_id: the id of the trace if the run is one trace; None for the run of a process.
    """
    about: dict[str, Any] = {"resource": dict(resource)}
    if scopes is not None:
        about["scopes"] = [*scopes]
    if trace_id is not None:
        about["trace_id"] = trace_id
    return {"otel": about}


class RunEnd(NamedTuple):
    """The status, result and error that a run takes from its root span. `result` and `error` are None if missing."""

    status: Literal["complete", "failed"]
    result: dict[str, Any] | None
    error: dict[str, Any] | None


def end_of_run(root: Mapped) -> RunEnd:
    """Return the end of a run: the status, output and error of its root span."""
    returned = root.result_payload or {}
    output = returned.get("output")
    error = returned.get("error", {}) if root.status == "failed" else None
    return RunEnd(root.status, None if output is None else {"output": output}, error)


def conversation(steps: Iterable[Step]) -> tuple[str | None, str | None]:
    """Return the first session and the first user that the steps of a run name; None for each that no step names."""
    facts = [step.mapped.run for step in steps]
    session = next((found for each in facts if (found := each.session)), None)
    return session, next((found for each in facts if (found := each.user)), None)
