"""DSPy's calls have the tokens and the cost of its history, which its instrumentor leaves out."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from agentspan import Tracer
from agentspan.otel import SpanProcessor
from agentspan.otel.instruments.additions import DSPY
from tests.otel.fake_packages import importable
from tests.otel.replaying import spans_in

BASE_LM = """
class BaseLM:
    def __init__(self):
        self.history = []
    def update_history(self, entry):
        self.history.append(entry)
"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A model of a package with DSPy's names."""
    with importable(tmp_path / "packages", monkeypatch, "dspy.clients.base_lm", BASE_LM):
        DSPY.turn_on()
        yield importlib.import_module("dspy.clients.base_lm").BaseLM()
        DSPY.turn_off()


def test_a_call_has_the_tokens_and_the_cost_of_the_history(tmp_path: Path, model: Any) -> None:
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer))
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}}
    entries: list[dict[str, Any]] = [{"usage": usage, "cost": 0.5}, {"usage": {}, "cost": 0.5}, {"usage": "none"}]
    for entry in entries:
        kind = {"openinference.span.kind": "LLM", "llm.model_name": "m"}
        otel = provider.get_tracer("openinference.instrumentation.dspy")
        with otel.start_as_current_span("LM.__call__", attributes=kind):
            model.update_history(entry)
    provider.shutdown()
    assert model.history == entries
    assert tracer.flush()
    found = [(span.input_tokens, span.output_tokens, span.cost_usd) for span in spans_in(tracer.storage)]
    assert sorted(found, key=str) == [(10, 4, 0.5), (None, None, None), (None, None, None)]
    tracer.shutdown()
