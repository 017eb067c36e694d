"""The TracerProvider that instrumentors are handed. It is never made the global one, which a program may set once."""

import os
import uuid

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.util.types import AttributeValue

from agentspan.otel.live.processor import SpanProcessor
from agentspan.recovery.writers import program_name

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
