"""Two contexts as one tree: agentspan's own, and OpenTelemetry's. Each may be inside of the other, in any order."""

from typing import Any

from opentelemetry import trace

from agentspan.otel.identity import caller_id
from agentspan.otel.w3c import MEMBER, Named, read_member
from agentspan.recording.recorder import Recorder
from agentspan.recording.span_and_run import Span

Key = tuple[int, int]
"""The ids of a trace and of a span, as the SDK has them."""


def join(recorder: Recorder, active: dict[Key, Span]) -> None:
    """Let what begins under a recorder be inside of the OpenTelemetry span that is current there.

    Args:
        active: the spans of OpenTelemetry that are recorded and have not ended.
    """
    current = recorder.current.get

    def innermost() -> Any:
        context = trace.get_current_span().get_span_context()
        other = active.get((context.trace_id, context.span_id)) if context.is_valid else None
        return inner_of(going_on(current()), other)

    recorder.innermost = innermost


def parent_id(run: str, trace_id: str, parent: Any) -> str | None:
    """Return the id of a parent that has ended, or is of another process, which may have named a span of agentspan."""
    if parent is None:
        return None
    named = read_member(parent.trace_state.get(MEMBER)) if parent.is_remote else Named()
    return caller_id(run, named, trace_id, f"{parent.span_id:016x}")


def part(recorder: Recorder) -> None:
    """Undo `join`."""
    recorder.innermost = recorder.current.get


def going_on(node: Any) -> Any:
    """Return the innermost node that goes on: a span of OpenTelemetry ends without leaving agentspan's context."""
    while node is not None and not node.goes_on():
        node = node.outer
    return node


def inner_of(node: Any, other: Any) -> Any:
    """Return the inner one of two nodes, `other` where none is inside of the other; None of none."""
    if node is None or other is None:
        return node if other is None else other
    outer = node
    while outer is not None:
        if outer is other:
            return node
        outer = outer.outer
    return other
