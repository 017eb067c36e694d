"""Counts the instructions that a span of OpenTelemetry takes in the thread of the program that makes it.

Recorded by `agentspan.otel.SpanProcessor`, on disk when it starts and when it ends, beside OpenTelemetry's own
`BatchSpanProcessor` with an exporter that does nothing. With content, a span has the attributes of a call of a model
(OpenInference: 2 kB of messages at its start, 0.7 kB of answer at its end); what they add is compared with `json.dumps`
of them. Instructions do not depend on what else runs. Threads that drain or export are not counted.

    python benchmarks/count_otel.py [--base /path/to/other/checkout/.venv/bin/python] [--rounds 3]

`valgrind` counts (Linux and macOS).
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from counting import mark, turns
from measuring import verdict

SPANS = 100
TEXT = "The flight HAT136 leaves JFK at 09:40 for $305, and Seattle will be rainy. "
ASKED: dict[str, Any] = {
    "openinference.span.kind": "LLM",
    "llm.model_name": "gpt-4.1-mini",
    "llm.invocation_parameters": '{"temperature": 0.2}',
    "input.value": json.dumps({"messages": [{"role": "user", "content": TEXT * 12}]}),
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.content": TEXT * 12,
}
ANSWERED: dict[str, Any] = {
    "output.value": json.dumps({"text": TEXT * 4}),
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.content": TEXT * 4,
    "llm.token_count.prompt": 330,
    "llm.token_count.completion": 36,
}


@contextmanager
def opentelemetry(folder: str) -> Iterator[Any]:
    """Yield a tracer that exports to nowhere, as programs have it."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    yield provider.get_tracer("openinference.instrumentation.openai", "1.0")
    provider.shutdown()


@contextmanager
def agentspans(folder: str) -> Iterator[Any]:
    """Yield a tracer whose spans agentspan records."""
    from opentelemetry.sdk.trace import TracerProvider

    import agentspan
    from agentspan.otel import SpanProcessor

    tracer = agentspan.Tracer(Path(folder, "agentspan.db"))
    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor(tracer))
    yield provider.get_tracer("openinference.instrumentation.openai", "1.0")
    provider.shutdown()
    tracer.shutdown()


def plain(tracer: Any) -> None:
    """Make a span without content."""
    with tracer.start_as_current_span("ChatCompletion"):
        pass


def call(tracer: Any) -> None:
    """Make a span of a call of a model."""
    with tracer.start_as_current_span("ChatCompletion", attributes=ASKED) as span:
        span.set_attributes(ANSWERED)


def dumps(tracer: Any) -> None:
    """Write the attributes of one as JSON."""
    json.dumps(ASKED | ANSWERED)


def child(rounds: int) -> None:
    """Make spans, and print what was made between each two marks."""
    told: list[str] = []

    def count(name: str, make: Callable[[Any], None], tracer: Any) -> None:
        for number in range(rounds + 1):
            mark()
            for _ in range(SPANS):
                make(tracer)
            mark()
            told.append(name if number else "")  # the first round warms up

    with tempfile.TemporaryDirectory() as folder:
        for name, source in (("OpenTelemetry", opentelemetry), ("agentspan", agentspans)):
            with source(folder) as tracer, tracer.start_as_current_span("agent"):
                count(name, plain, tracer)
                count(f"{name}, call", call, tracer)
    count("json.dumps", dumps, None)
    print(json.dumps(told), flush=True)


def counted(python: str, rounds: int) -> dict[str, float]:
    """Return the instructions of a span of each kind with the agentspan of an interpreter: medians of the rounds."""
    found: dict[str, list[float]] = {}
    for name, instructions in turns((python, __file__, "--child", "--rounds", str(rounds))):
        found.setdefault(name, []).append(instructions / SPANS)
    return {name: statistics.median(values) for name, values in found.items() if name}


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="an interpreter with another agentspan, to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.rounds)
        return
    found = counted(sys.executable, options.rounds)
    base = counted(options.base, options.rounds) if options.base else {}
    print(f"{'instructions of a span':<24}{'':>12}" + f"{'base':>12}{'ratio':>8}" * bool(base))
    for name, value in found.items():
        print(f"{name:<24}{value:>12,.0f}" + (f"{base[name]:>12,.0f}{value / base[name]:>8.3f}" if base else ""))
    print(verdict("a span without content", found["agentspan"] / found["OpenTelemetry"], 1.5))
    added = found["agentspan, call"] - found["agentspan"] - found["OpenTelemetry, call"] + found["OpenTelemetry"]
    print(verdict("what content adds beside OpenTelemetry / json.dumps of it", added / found["json.dumps"], 1.2))


if __name__ == "__main__":
    main()
