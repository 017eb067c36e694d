"""Stores spans of OpenTelemetry that have come whole, such as those of files: finished, with their own times."""

from collections.abc import Iterable

from agentspan.operations.context import Context
from agentspan.otel.receiving import Receiver, Stored
from agentspan.otel.span import Log, OtelSpan


def import_spans(ctx: Context, found: Iterable[OtelSpan], logs: Iterable[Log] = ()) -> Stored:
    """Store spans with their runs, which end at once. Spans that are stored already stay as they are.

    Args:
        found: in any order. A span that comes twice counts once; the one that has ended is taken.
        logs: the log records of these spans.
    """
    return Receiver(ctx).store(found, logs, is_whole=True)
