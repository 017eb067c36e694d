"""A run of smolagents that raises has an end, which its instrumentor leaves out."""

import importlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.trace import TracerProvider

from agentspan import Tracer
from agentspan.otel import SpanProcessor
from agentspan.otel.instruments.additions import SMOLAGENTS
from tests.otel.fake_packages import importable
from tests.otel.recorded import exception, mapped
from tests.otel.replaying import runs_in, spans_in

AGENTS = """
class MultiStepAgent:
    def run(self, task):
        return task()
"""
SCOPE = "openinference.instrumentation.smolagents"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of a package with smolagents' names."""
    with importable(tmp_path / "packages", monkeypatch, "smolagents.agents", AGENTS):
        yield importlib.import_module("smolagents.agents")
        SMOLAGENTS.turn_off()


def instrumented(agent: Any, otel: trace.Tracer) -> None:
    """Wrap runs as the instrumentor does: a span stays open, and current, where one raises."""
    real = agent.run

    def run(self: Any, task: Any) -> Any:
        span = otel.start_span("Agent.run", attributes={"openinference.span.kind": "AGENT"})
        token = context.attach(trace.set_span_in_context(span))
        try:
            answer = real(self, task)
        except Exception as error:
            span.record_exception(error)
            span.set_status(trace.StatusCode.ERROR)
            raise
        span.end()
        context.detach(token)
        return answer

    agent.run = run


def interrupted() -> None:
    raise KeyboardInterrupt


def test_a_run_that_raises_ends_with_the_error_and_the_next_is_no_part_of_it(tmp_path: Path, module: Any) -> None:
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer))
    agent = module.MultiStepAgent
    instrumented(agent, provider.get_tracer(SCOPE))
    SMOLAGENTS.turn_on()
    for task in (lambda: int("no number"), lambda: 2, interrupted):
        with suppress(ValueError, KeyboardInterrupt):
            agent().run(task)
        assert not trace.get_current_span().is_recording()
    assert tracer.flush()
    spans = [(span.status, span.parent_span_id) for span in spans_in(tracer.storage)]
    assert sorted(spans, key=str) == [("complete", None), ("failed", None), ("failed", None)]
    runs = sorted(runs_in(tracer.storage), key=lambda run: run.id)
    assert [run.status for run in runs] == ["failed", "complete", "failed"]
    assert "invalid literal" in str(runs[0].error)
    assert "KeyboardInterrupt" in str(runs[2].error)
    provider.shutdown()
    tracer.shutdown()


def test_a_run_that_is_read_in_parts_fails_with_the_error_that_its_span_hides() -> None:
    kind = {"openinference.span.kind": "AGENT"}
    told = mapped(kind, scope=SCOPE, status="OK", events=(exception("ValueError", "no"),))
    assert (told.status, (told.result_payload or {})["error"]["message"]) == ("failed", "no")
