"""Budgets and the spans of OpenTelemetry: the program gets the exception where the SDK would begin the span."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

import agentspan
from agentspan import Budget, BudgetExceeded
from agentspan.otel import SpanProcessor
from tests.recording.stored import runs_of, spans_of

CALL = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4.1",
    "gen_ai.usage.input_tokens": 60,
    "gen_ai.usage.output_tokens": 40,
}


@pytest.fixture(params=["journal", "commit"])
def made(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[agentspan.Tracer]:
    tracer = agentspan.Tracer(tmp_path / "runs.db", durability=request.param, budget=Budget(tokens=300))
    yield tracer
    tracer.shutdown()


def test_a_call_of_an_instrumentor_is_stopped_and_its_run_fails(made: agentspan.Tracer) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor(made))
    otel = provider.get_tracer("a.framework")

    def agent() -> None:
        with otel.start_as_current_span("agent", attributes={"gen_ai.operation.name": "invoke_agent"}):
            for _ in range(9):
                with otel.start_as_current_span("chat gpt-4.1", attributes=CALL):
                    pass

    with pytest.raises(BudgetExceeded, match="tokens: 300 of 300"):
        agent()
    assert not trace.get_current_span().get_span_context().is_valid
    provider.shutdown()
    assert made.flush()
    (run,) = runs_of(made)
    assert (run.status, run.error["type"].rpartition(".")[2]) == ("failed", "BudgetExceeded")
    assert run.metadata["budget"]["tokens"] == 300
    assert len(spans_of(made)) == 4


def test_spans_of_an_instrumentor_inside_of_a_run_count_in_its_budget(made: agentspan.Tracer) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SpanProcessor(made))
    otel = provider.get_tracer("a.framework")
    with made.run("a", budget=Budget(steps=2, on_spent="warn")):
        for _ in range(4):
            with otel.start_as_current_span("chat gpt-4.1", attributes=CALL):
                pass
    provider.shutdown()
    assert [(run.status, run.metadata["budget"]["steps"]) for run in runs_of(made)] == [("complete", 2)]
    assert len(spans_of(made)) == 4
