"""OpenTelemetry: records the spans of instrumentors in agentspan, and sends agentspan's spans to other backends.

Each module of this package is imported at its first use only.
"""

from typing import TYPE_CHECKING

from agentspan import host

if TYPE_CHECKING:
    from agentspan.otel.forwarding import forward
    from agentspan.otel.processor import SpanProcessor
    from agentspan.otel.trace_context import extract, inject
else:
    __getattr__ = host.lazily(
        __name__,
        {
            "agentspan.otel.forwarding": "forward",
            "agentspan.otel.processor": "SpanProcessor",
            "agentspan.otel.trace_context": "extract inject",
        },
    )

__all__ = ["SpanProcessor", "extract", "forward", "inject"]
