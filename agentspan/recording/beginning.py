"""Begins spans: under the active span or run of the context, or in a run of their own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agentspan import host
from agentspan.host import page
from agentspan.journal.parts import Parts
from agentspan.journal.writers import program_name
from agentspan.recording.capture.arguments import Arguments
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState
from agentspan.recording.span_state import SpanState

DEFAULT_TYPE = "tool"
"""The span type of a bare `@span`: it records a function's name, arguments and output."""


def begin(
    recorder: Recorder, schema_name: str, payload: Mapping[str, Any] | None, captured: str | Parts = "{}"
) -> SpanState:
    """Create an active span under the active node, and make it the active one.

    Args:
        payload: the payload as the program passed it; None if `captured` has it.
        captured: the captured payload, as JSON text or in parts.
    """
    if not page[0]:
        host.renew()
    node = recorder.innermost()
    kind = type(node)
    if kind is SpanState:
        span = SpanState(recorder, node.run, node.id or node.parent_span_id, schema_name)
    elif kind is RunState:
        span = SpanState(recorder, node, None, schema_name)
    else:
        span = SpanState(recorder, _run_of_one_span(recorder), None, schema_name)
        span.owns_run = True
    try:
        span.create(captured if payload is None else recorder.capture.object(payload, span.run.repeats), "active")
    except Exception as error:
        span.not_created("active", error)
    if span.run.termination_reason is not None:
        span.stop()
    span.outer = node
    try:
        recorder.current.set(span)
    except BaseException as error:  # from a signal handler, after the call: no block will end it
        span.leave(error)
        raise
    return span


def begin_call(
    recorder: Recorder,
    schema_name: str,
    arguments: Arguments,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    payload: Mapping[str, Any] | None,
) -> SpanState:
    """Create the span of a decorated call. Its payload has the name and arguments if its type has fields for them."""
    fields = recorder.registry.resolve(schema_name).fields
    captured: str | Parts = "{}"
    try:
        bound = arguments.bind(args, kwargs)
        if payload is None and "arguments" in fields and "name" in fields:
            captured = recorder.capture.call(arguments.name, arguments.head, bound)
        else:
            if "arguments" in fields or ("name" in fields and "name" in bound):
                bound = {"name": arguments.name, "arguments": bound} if "name" in fields else {"arguments": bound}
            elif "name" in fields:
                bound = {"name": arguments.name, **bound}
            node = recorder.innermost()
            run = node.run if type(node) is SpanState else node
            repeats = None if run is None else run.repeats
            captured = recorder.capture.object(bound if payload is None else {**bound, **payload}, repeats)
    except Exception as error:
        recorder.faults.add(error)
    return begin(recorder, schema_name, None, captured)


_program: str | None = None


@contextmanager
def program_called(name: str) -> Iterator[None]:
    """Name runs of a single span `name`, instead of after the program, for the length of a with-block; for tests."""
    global _program
    before, _program = _program, name
    try:
        yield
    finally:
        _program = before


def _run_of_one_span(recorder: Recorder) -> RunState:
    """Begin a run for a span that is outside any run. It is named after the program, and ends with the span."""
    run = RunState(recorder, program_name() if _program is None else _program)
    run.begin()
    return run
