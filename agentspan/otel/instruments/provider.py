"""agentspan's own TracerProvider, for instrumentors, and for SDKs that use the global provider while none is set.

OpenTelemetry accepts a global provider only once, so agentspan never sets it. Until the program sets a provider,
`get_tracer_provider` returns a substitute. Its tracers check at each span whether the program has set a provider, and
use the program's provider from then on.
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
"""The limit for attributes, events and links of a span. The SDK's default of 128 holds only 30 messages."""
_CONTENT = {
    "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
    "SEMANTICKERNEL_EXPERIMENTAL_GENAI_ENABLE_OTEL_DIAGNOSTICS_SENSITIVE": "true",
    "USE_OTEL_LITELLM_REQUEST_SPAN": "true",
}
"""Environment variables that make instrumentors record messages on spans.

Without the first two, OpenTelemetry's own instrumentors leave messages out or send them as log records. Without the
third, Semantic Kernel makes no spans of agents and calls of models. Without the last, LiteLLM's callback writes each
call on the program's span around it, over the call before.
"""


def new_provider(processor: SpanProcessor) -> TracerProvider:
    """Return a provider that samples all spans and passes them to a processor."""
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
    """Set the environment variables that make instrumentors record messages. Variables that are set stay unchanged."""
    for name, value in _CONTENT.items():
        os.environ.setdefault(name, value)


_get_provider: Callable[[], trace.TracerProvider] = trace.get_tracer_provider


class UntilSet(ProxyTracerProvider):
    """A provider whose tracers use another provider until the program sets the global provider.

    It is a ProxyTracerProvider, so that libraries such as Langfuse's SDK still set their own provider.
    """

    def __init__(self, other: trace.TracerProvider) -> None:
        self._other = other

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        """Return a tracer that switches to the program's provider once the program has set one."""
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
        """Start a span with the program's provider, or with the other provider while none is set."""
        return self._current().start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        """Start a span as `start_span` does, and make it the current span."""
        return self._current().start_as_current_span(*args, **kwargs)


def _is_set() -> bool:
    return not isinstance(_get_provider(), ProxyTracerProvider)


def use_until_set(provider: trace.TracerProvider) -> None:
    """Let `get_tracer_provider` return a substitute for `provider` while the program has set no provider."""
    fallback = UntilSet(provider)
    trace.get_tracer_provider = lambda: _get_provider() if _is_set() else fallback


def stop_using() -> None:
    """Undo `use_until_set`. Tracers made in between keep working as before."""
    trace.get_tracer_provider = _get_provider
