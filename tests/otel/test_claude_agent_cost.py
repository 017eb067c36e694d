"""A query of the Claude Agent SDK has the cost that the SDK reports, of which a client reports the sum of a session."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.trace import TracerProvider

from agentspan import Tracer
from agentspan.otel import SpanProcessor
from agentspan.otel.instruments.additions import CLAUDE
from tests.otel.fake_packages import importable
from tests.otel.replaying import spans_in

SCOPE = "fake_claude_instrumentor"
WRAPPERS = """
def _process_message(msg, span, *, turn_usage=None):
    return False
"""


def test_a_query_has_its_part_of_the_cost_of_the_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrapping = {f"{SCOPE}._wrappers": next(iter(CLAUDE._modules.values()))}
    monkeypatch.setattr(CLAUDE, "_modules", wrapping)
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer))
    queries = [("s", 0.25), ("s", 0.75), ("other", 0.125), ("s", 0.5), ("s", None)]
    with importable(tmp_path / "packages", monkeypatch, f"{SCOPE}._wrappers", WRAPPERS):
        CLAUDE.turn_on()
        module = importlib.import_module(f"{SCOPE}._wrappers")
        for session, total in queries:
            agent = {"openinference.span.kind": "AGENT", "agent.name": "a"}
            otel = provider.get_tracer("openinference.instrumentation.claude_agent_sdk")
            with otel.start_as_current_span("query", attributes=agent) as span:
                message = SimpleNamespace(total_cost_usd=total, session_id=session)
                assert module._process_message(message, span, turn_usage={}) is False
        CLAUDE.turn_off()
    provider.shutdown()
    assert tracer.flush()
    found = sorted(spans_in(tracer.storage), key=lambda span: str(span.started_at))
    assert [span.cost_usd for span in found] == [0.25, 0.5, 0.125, 0.5, None], "a smaller sum is one that began anew"
    tracer.shutdown()
