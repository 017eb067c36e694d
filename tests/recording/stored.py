"""The runs and spans that a tracer has stored."""

from typing import Any

import agentspan
from agentspan import Tracer
from agentspan.testing import CapturedRuns, CapturedSpan


def runs_of(tracer: Tracer) -> list[Any]:
    """All runs that a tracer recorded, in order."""
    return list(agentspan.open(tracer.storage).agent_instances.list())


def spans_of(tracer: Tracer) -> list[Any]:
    """All spans that a tracer recorded, in order, with their payloads as dicts."""
    db = agentspan.open(tracer.storage)
    return [span for run in db.agent_instances.list() for span in db.agent_spans.list(run.id, include_summaries=True)]


def only_span(tracer: Tracer) -> CapturedSpan:
    """The only span of the only run, which must have ended."""
    run = CapturedRuns(tracer.storage).one()
    run.assert_no_open_spans()
    (span,) = run.spans
    assert tracer.current_run() is None
    return span
