"""The TracerProvider that instrumentors get, and that SDKs get which ask for the global one while none is set.

OpenTelemetry accepts one global provider, once, so agentspan never sets it. Until the program sets one, a provider is
returned in its place whose tracers look at each span: they use the program's provider from then on.
"""

import os
import uuid
from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import ProxyTracerProvider, Tracer
from opentelemetry.util.types import AttributeValue

from agentspan.journal.writers import program_name
from agentspan.otel.processor import SpanProcessor

MOST = 10_000
"""Attributes, events and links of a span that are kept. The SDK's 128 attributes hold a conversation of 30 messages."""
_CONTENT = {
    "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
    "USE_OTEL_LITELLM_REQUEST_SPAN": "true",
}
"""Without these, instrumentors of OpenTelemetry's own leave messages out, or send them as log records, and LiteLLM's
callback writes a call on the span of the program around it, over the one before."""


def new_provider(processor: SpanProcessor) -> TracerProvider:
    """Return a provider that records all spans through a processor."""
    about: dict[str, AttributeValue] = {"service.instance.id": str(uuid.uuid4()), "process.pid": os.getpid()}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        about["service.name"] = program_name()
    limits = SpanLimits(
        max_span_attributes=MOST,
        max_event_attributes=MOST,
        max_link_attributes=MOST,
        max_events=MOST,
        max_links=MOST,
        max_span_attribute_length=SpanLimits.UNSET,
        max_attribute_length=SpanLimits.UNSET,
    )
    made = TracerProvider(sampler=ALWAYS_ON, resource=Resource.create(about), span_limits=limits)
    made.add_span_processor(processor)
    return made


def ask_for_content() -> None:
    """Let instrumentors record messages, unless the environment says something else."""
    for name, value in _CONTENT.items():
        os.environ.setdefault(name, value)


_get_provider: Callable[[], trace.TracerProvider] = trace.get_tracer_provider


class UntilSet(ProxyTracerProvider):
    """A provider of tracers that record into another provider as long as no global one is set.

    It is a ProxyTracerProvider, by which libraries such as Langfuse's SDK see that they may set theirs.
    """

    def __init__(self, other: trace.TracerProvider) -> None:
        self._other = other

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        """Return a tracer that uses the program's provider once it is set."""
        return _UntilSet(self._other, args, kwargs)


class _UntilSet(Tracer):
    def __init__(self, other: trace.TracerProvider, args: Any, kwargs: Any) -> None:
        self._arguments = args, kwargs
        self._tracer = other.get_tracer(*args, **kwargs)
        self._is_global = False

    def _current(self) -> Tracer:
        if not self._is_global and _is_set():
            args, kwargs = self._arguments
            self._tracer, self._is_global = _get_provider().get_tracer(*args, **kwargs), True
        return self._tracer

    def start_span(self, *args: Any, **kwargs: Any) -> Any:
        """Start a span of the provider that counts now."""
        return self._current().start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        """Start a span of the provider that counts now, and make it the current one."""
        return self._current().start_as_current_span(*args, **kwargs)


def _is_set() -> bool:
    return not isinstance(_get_provider(), ProxyTracerProvider)


def use_until_set(provider: trace.TracerProvider) -> None:
    """Record spans into a provider while the program has set none."""
    fallback = UntilSet(provider)
    trace.get_tracer_provider = lambda: _get_provider() if _is_set() else fallback


def stop_using() -> None:
    """Undo `use_until_set`. Tracers that were made meanwhile stay."""
    trace.get_tracer_provider = _get_provider
