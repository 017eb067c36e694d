"""OpenTelemetry: records the spans of instrumentors in agentspan, and sends agentspan's spans to other backends.

Each module of this package is imported at its first use only.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentspan.otel.forwarding import forward
    from agentspan.otel.processor import SpanProcessor
    from agentspan.otel.trace_context import extract, inject

__all__ = ["SpanProcessor", "extract", "forward", "inject"]

_LAZY = {
    "SpanProcessor": "agentspan.otel.processor",
    "extract": "agentspan.otel.trace_context",
    "forward": "agentspan.otel.forwarding",
    "inject": "agentspan.otel.trace_context",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'agentspan.otel' has no attribute {name!r}")
    from importlib import import_module

    from agentspan import host

    with host.importing:
        value = getattr(import_module(module), name)
    globals()[name] = value
    return value
