"""The spans that are one run: the trace of an agent, of a call of a framework, or of a request.

All other traces of a process are one run.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agentspan.otel.duplicates import Call, call_of, duplicates
from agentspan.otel.mapping.mapped import Mapped
from agentspan.otel.mapping.resources import Program, program_of
from agentspan.otel.span import OtelSpan
from agentspan.recording.capture.credential_search import suspicious


class Step(NamedTuple):
    """A span, and what agentspan records of it."""

    span: OtelSpan
    mapped: Mapped


@dataclass(slots=True)
class Run:
    """The spans of one run.

    Attributes:
        key: tells it from all others: `otel:trace:…` or `otel:process:…`.
        name, version: of its agent.
        session, user: of the conversation, if a span says so, and no other trace of the run says something else.
        steps: in the order of their starts.
        root: the span that the run is named by; None of a run of many traces.
        duplicate_of: by the ids of a trace and a span, the id of the span in it that is kept.
        program: the process.
    """

    key: str
    name: str
    version: str | None
    program: Program
    session: str | None = None
    user: str | None = None
    steps: list[Step] = field(default_factory=list)
    root: Step | None = None
    duplicate_of: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def start_ns(self) -> int:
        """The time when its first span began."""
        return self.steps[0].span.start_ns

    @property
    def end_ns(self) -> int | None:
        """The time when its last span ended; None if none of them did."""
        return max((step.span.end_ns for step in self.steps if step.span.end_ns is not None), default=None)


def runs_of(steps: Iterable[Step], known: Mapping[str, bool] | None = None) -> list[Run]:
    """Return the runs that steps belong to. Their order does not matter.

    Args:
        known: traces of which spans are stored already: whether such a trace is a run of its own.
    """
    traces: dict[str, list[Step]] = {}
    for step in steps:
        traces.setdefault(step.span.trace_id, []).append(step)
    runs: dict[str, Run] = {}
    for trace_id in sorted(traces, key=lambda trace_id: (min(s.span.start_ns for s in traces[trace_id]), trace_id)):
        trace = in_order(traces[trace_id])
        trace = with_targets(trace)
        run = _run_of(trace_id, trace, runs, (known or {}).get(trace_id))
        run.steps += trace
        calls: list[Call] = [call for step in trace if (call := call_of(*step)) is not None]
        run.duplicate_of |= {(trace_id, id): kept for id, kept in duplicates(calls).items()}
    for run in runs.values():
        run.steps.sort(key=_order)
    return list(runs.values())


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
    return sorted(steps, key=_order)


def _order(step: Step) -> tuple[int, int, str, str]:
    return order(step.span)


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


def _run_of(trace_id: str, trace: Sequence[Step], runs: dict[str, Run], is_own: bool | None) -> Run:
    root = root_of(trace)
    program, facts = program_of(root.span.resource), root.mapped.run
    session = next((found for step in (root, *trace) if (found := step.mapped.run.session)), None)
    user = next((found for step in (root, *trace) if (found := step.mapped.run.user)), None)
    version = facts.version or program.version
    if facts.is_own if is_own is None else is_own:
        key = trace_key(trace_id)
        name = facts.agent or root.span.name
        runs[key] = Run(key, name, version, program, session, user, root=root)
        return runs[key]
    key = process_key(program)
    run = runs.setdefault(key, Run(key, program.name, program.version, program))
    is_first = not run.steps
    run.session = session if is_first or run.session == session else None
    run.user = user if is_first or run.user == user else None
    return run
