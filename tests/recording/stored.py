"""The runs and spans that a tracer has stored."""

from collections.abc import Callable, Sequence
from typing import Any

import agentspan
from agentspan import Tracer
from agentspan.testing import CapturedRuns, CapturedSpan


def runs_of(tracer: Tracer) -> list[Any]:
    """All runs that a tracer recorded, in order."""
    runs = agentspan.open(tracer.storage).agent_instances
    return _all_of(lambda offset: runs.list(offset=offset))


def spans_of(tracer: Tracer) -> list[Any]:
    """All spans that a tracer recorded, in order, with their payloads as dicts."""
    spans = agentspan.open(tracer.storage).agent_spans
    found = []
    for run in runs_of(tracer):
        found += _all_of(lambda offset, id=run.id: spans.list(id, include_summaries=True, offset=offset))  # type: ignore[misc]
    return found


def _all_of(page: Callable[[int], Sequence[Any]]) -> list[Any]:
    found: list[Any] = []
    while more := page(len(found)):
        found += more
    return found


def only_span(tracer: Tracer) -> CapturedSpan:
    """The only span of the only run, which must have ended."""
    run = CapturedRuns(tracer.storage).one()
    run.assert_no_open_spans()
    (span,) = run.spans
    assert tracer.current_run() is None
    return span
