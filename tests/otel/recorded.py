"""Recorded spans for tests: those in `recordings/`, and how a tree of spans is written as text."""

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentspan.otel.mapping.mapped import Mapped, Program, map_span, program_of
from agentspan.otel.otlp import json_bodies
from agentspan.otel.span import Event, Log, OtelSpan, Scope
from agentspan.otel.traces import (
    Call,
    Step,
    call_of,
    duplicates,
    in_order,
    process_key,
    root_of,
    trace_key,
    with_targets,
)
from agentspan.schemas.span_types import describe, fallback

FOLDER = Path(__file__).parent / "recordings"
NAMES = sorted(path.name.removesuffix(".jsonl.gz") for path in FOLDER.glob("*.jsonl.gz"))


def lines_of(name: str) -> list[bytes]:
    """The lines of a recording: each is a request."""
    return gzip.decompress((FOLDER / f"{name}.jsonl.gz").read_bytes()).splitlines()


def recorded(name: str) -> tuple[list[OtelSpan], list[Log]]:
    """The spans and log records of a recording."""
    spans: list[OtelSpan] = []
    logs: list[Log] = []
    for line in lines_of(name):
        spans += json_bodies.spans(json_bodies.parsed(line)).spans
        logs += json_bodies.logs(json_bodies.parsed(line)).logs
    return spans, logs


def steps_of(spans: Iterable[OtelSpan], logs: Iterable[Log] = ()) -> list[Step]:
    """Each span with what agentspan records of it."""
    joined: dict[tuple[str, str], list[Log]] = {}
    for log in logs:
        joined.setdefault((log.trace_id, log.span_id), []).append(log)
    return [Step(span, map_span(span, joined.get((span.trace_id, span.span_id), ()))) for span in spans]


def span(attributes: Mapping[str, Any], name: str = "step", scope: str = "", url: str = "", **fields: Any) -> OtelSpan:
    """A span of one second with these attributes."""
    made: dict[str, Any] = {"trace_id": "a" * 32, "span_id": "b" * 16, "parent_span_id": None}
    made |= {"start_ns": 1_000_000_000, "end_ns": 2_000_000_000, **fields}
    return OtelSpan(name=name, attributes=dict(attributes), scope=Scope(scope, "1.0", url), **made)


def mapped(attributes: Mapping[str, Any], name: str = "step", scope: str = "", **fields: Any) -> Mapped:
    """What agentspan records of a span with these attributes."""
    return map_span(span(attributes, name, scope, **fields))


def exception(type_: str, message: str, stacktrace: str = "") -> Event:
    """The event of an exception."""
    said = {"exception.type": type_, "exception.message": message, "exception.stacktrace": stacktrace}
    return Event("exception", 1_500_000_000, {name: value for name, value in said.items() if value})


def outline(step: Step) -> str:
    """A span on one line: type, status, tokens, summary."""
    mapped_ = step.mapped
    payload, result = plain(mapped_.payload), plain(mapped_.result_payload)
    span_type = fallback(mapped_.schema_name)
    meaning = describe(span_type, mapped_.schema_name, mapped_.status, payload, result, None)
    tokens = "" if meaning.input_tokens is None else f" [{meaning.input_tokens}+{meaning.output_tokens}]"
    status = "" if mapped_.status == "complete" else f" {mapped_.status}"
    return f"{mapped_.type}{status}{tokens}: {meaning.summary or mapped_.schema_name}"


def plain(value: Any) -> Any:
    """A payload as it is read back from the storage."""
    return json.loads(json.dumps(value))


@dataclass(slots=True)
class Run:
    """The spans of one run, as they should be stored: grouped here without anything that is remembered or stored.

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
        run.steps = in_order(run.steps)
    return list(runs.values())


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


def trees(spans: Sequence[OtelSpan], logs: Sequence[Log]) -> str:
    """The runs of a recording as text."""
    lines: list[str] = []
    for run in runs_of(steps_of(spans, logs)):
        facts = [part for part in (run.version, run.session, run.user) if part]
        lines += [f"run {run.name} ({', '.join(facts)})", *_tree(run), ""]
    return "\n".join(lines)


def _tree(run: Run) -> list[str]:
    here = {(step.span.trace_id, step.span.span_id) for step in run.steps}
    children: dict[tuple[str, str] | None, list[Step]] = {}
    for step in run.steps:
        parent = (step.span.trace_id, step.span.parent_span_id or "")
        children.setdefault(parent if parent in here else None, []).append(step)
    lines: list[str] = []
    waiting = [(1, step) for step in reversed(children.get(None, []))]
    while waiting:
        depth, step = waiting.pop()
        id = (step.span.trace_id, step.span.span_id)
        twin = "  (duplicate)" if id in run.duplicate_of else ""
        lines.append(f"{'  ' * depth}{outline(step)}{twin}")
        waiting += [(depth + 1, child) for child in reversed(children.get(id, []))]
    return lines
