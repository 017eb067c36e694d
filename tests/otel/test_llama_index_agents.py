"""An agent of LlamaIndex has its name on the span of its run, which instrumentors leave out."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from agentspan import Tracer
from agentspan.model.rows import AgentRow
from agentspan.otel import SpanProcessor
from agentspan.otel.instruments.additions import LLAMA_INDEX
from agentspan.storage.questions import Find
from tests.otel.fake_packages import importable
from tests.otel.replaying import runs_in

DISPATCHER = """
class Dispatcher:
    def span_enter(self, id_, bound_args, instance=None, parent_id=None):
        self.entered = id_
"""


@pytest.fixture
def dispatcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A dispatcher of a package with LlamaIndex's names."""
    name = "llama_index_instrumentation.dispatcher"
    with importable(tmp_path / "packages", monkeypatch, name, DISPATCHER):
        LLAMA_INDEX.turn_on()
        yield importlib.import_module(name).Dispatcher()
        LLAMA_INDEX.turn_off()


def test_the_run_has_the_name_that_the_agent_was_given(tmp_path: Path, dispatcher: Any) -> None:
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer))
    otel = provider.get_tracer("openinference.instrumentation.llama_index")
    chain = {"openinference.span.kind": "CHAIN"}
    for name in ("weatherman", "Agent", None):
        with otel.start_as_current_span("FunctionAgent.run", attributes=chain):
            dispatcher.span_enter("FunctionAgent.run-1", None, instance=SimpleNamespace(name=name), parent_id=None)
            with otel.start_as_current_span("BaseWorkflowAgent.init_run", attributes=chain):
                dispatcher.span_enter("BaseWorkflowAgent.init_run-2", None, SimpleNamespace(name=name))
    assert dispatcher.entered == "BaseWorkflowAgent.init_run-2"
    assert tracer.flush()
    agents = [tracer.storage.ask(Find(run.agent_id)).rows[run.agent_id][1] for run in runs_in(tracer.storage)]
    names = sorted(str(agent.name) for agent in agents if isinstance(agent, AgentRow))
    assert names == ["FunctionAgent", "FunctionAgent", "weatherman"]
    provider.shutdown()
    tracer.shutdown()
