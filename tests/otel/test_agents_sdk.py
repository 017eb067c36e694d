"""OpenAI's Agents SDK is recorded by a processor of its own tracing, without OpenTelemetry, and as an import reads it.

The package that stands for the SDK has its tracing only: traces, spans, and processors that are called at their ends.
"""

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

import agentspan
from agentspan.api.context import Context
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.otel.instruments import known
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.openai_agents import FORMATS
from agentspan.sessions.openai_agents_live import PROCESSOR
from tests.otel.fake_packages import without
from tests.otel.replaying import runs_in, spans_in

TRACING = """
import itertools
from datetime import datetime, timezone

_processors = []
_numbers = itertools.count(1)


def add_trace_processor(processor):
    _processors.append(processor)


class Span:
    def __init__(self, trace, parent, span_data):
        self.trace_id, self.parent_id, self.span_data = trace.trace_id, parent, span_data
        self.span_id, self.error, self.started_at, self.ended_at = f"span_{next(_numbers)}", None, None, None

    def export(self):
        times = {"started_at": self.started_at, "ended_at": self.ended_at}
        ids = {"id": self.span_id, "trace_id": self.trace_id, "parent_id": self.parent_id}
        return {"object": "trace.span", **ids, **times, "span_data": self.span_data.export(), "error": self.error}

    def __enter__(self):
        self.started_at = datetime.now(timezone.utc).isoformat()
        [processor.on_span_start(self) for processor in _processors]
        return self

    def __exit__(self, *_):
        self.ended_at = datetime.now(timezone.utc).isoformat()
        [processor.on_span_end(self) for processor in _processors]


class Trace:
    def __init__(self, name):
        self.trace_id, self.name = f"trace_{next(_numbers)}", name

    def export(self):
        return {"object": "trace", "id": self.trace_id, "workflow_name": self.name, "group_id": "g1", "metadata": None}

    def __enter__(self):
        [processor.on_trace_start(self) for processor in _processors]
        return self

    def __exit__(self, *_):
        [processor.on_trace_end(self) for processor in _processors]


class Data:
    def __init__(self, type, hidden=(), **members):
        self.type, self.hidden, self.members = type, hidden, members

    def __getattr__(self, name):
        return self.__dict__["members"][name]

    def export(self):
        return {"type": self.type, **{k: v for k, v in self.members.items() if k not in self.hidden}}
"""


class Collected:
    """A processor that keeps the exported items, as the SDK's exporter sends them."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def on_trace_start(self, trace: Any) -> None:
        """Keep the item of a trace."""
        self.items.append(trace.export())

    def on_span_end(self, span: Any) -> None:
        """Keep the item of a span."""
        self.items.append(span.export())

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


class Response:
    """An answer of the Responses API."""

    def model_dump(self, **how: Any) -> dict[str, Any]:
        """Return it as JSON."""
        text = {"type": "output_text", "text": "sunny"}
        output = [{"type": "message", "role": "assistant", "content": [text]}]
        return {"id": "resp_1", "model": "gpt-4o-mini", "output": output, "instructions": "be brief"}


@pytest.fixture
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the package, which this process can import, and a file to record into."""
    folder = tmp_path / "packages"
    tracing = folder / "agents" / "tracing"
    tracing.mkdir(parents=True)
    (folder / "agents" / "__init__.py").write_text("from agents import tracing\n")
    (tracing / "__init__.py").write_text(TRACING)
    (tracing / "processor_interface.py").touch()
    about = folder / "openai_agents-9.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: openai-agents\nVersion: 9.9\n")
    monkeypatch.syspath_prepend(str(folder))
    agentspan.configure(tmp_path / "runs.db", raise_errors=True)
    with without("agents"):
        yield folder
        agentspan.uninstrument()
    agentspan.shutdown()
    PROCESSOR.is_added = False


def recorded() -> tuple[list[AgentInstanceRow], list[AgentSpanRow]]:
    """Return the runs, and the spans in their order."""
    agentspan.flush()
    storage = agentspan.get_tracer().storage
    return runs_in(storage), sorted(spans_in(storage), key=lambda span: span.started_at or "")


def run_agent(tracing: Any, *, inner: Any = None) -> None:
    """Run an agent that calls a model and a tool."""
    asked = [{"role": "user", "content": "How is Rome?"}]
    call = {"type": "function_call", "call_id": "k1", "name": "look", "arguments": "{}"}
    usage = {"input_tokens": 10, "output_tokens": 5}
    with tracing.Trace("Trip") as trace, tracing.Span(trace, None, tracing.Data("agent", name="Asker")) as agent:
        model = tracing.Data("generation", model="gpt-4o-mini", input=asked, output=[call], usage=usage)
        with tracing.Span(trace, agent.span_id, model):
            if inner is not None:
                inner()
        tool = tracing.Data("function", name="look", input="{}", output="sunny", mcp_data=None)
        with tracing.Span(trace, agent.span_id, tool), agentspan.span("tool", name="inner"):
            pass


def test_it_is_recorded_from_its_import_on(sdk: Path) -> None:
    (on,) = agentspan.instrument("openai-agents")
    assert on == agentspan.Instrumented("openai-agents", "openai-agents", "9.9")
    assert "agents" not in sys.modules, "the program may never import it"
    run_agent(importlib.import_module("agents").tracing)
    (run,), spans = recorded()
    assert (run.status, run.session, run.task) == ("complete", "g1", "how is rome?")
    by_id = {span.id: span for span in spans}
    above = {span.label or span.schema_name: by_id.get(span.parent_span_id or "") for span in spans}
    assert [span.schema_name for span in spans] == ["agent", "message", "llm", "tool", "tool"]
    assert {name: parent and parent.label for name, parent in above.items()} == {
        "Asker": None, "message": "Asker", "gpt-4o-mini": "Asker", "look": "Asker", "inner": "look",
    }  # fmt: skip
    assert sum(span.input_tokens or 0 for span in spans if not span.is_aggregate) == 10


def test_an_import_of_the_same_items_adds_nothing(sdk: Path, tmp_path: Path) -> None:
    agentspan.instrument("openai-agents")
    tracing = importlib.import_module("agents").tracing
    collected = Collected()
    tracing.add_trace_processor(collected)
    run_agent(tracing)
    path = tmp_path / "traces.jsonl"
    path.write_text("".join(f"{json.dumps(item)}\n" for item in collected.items))
    agentspan.flush()
    one = Importer(Context(agentspan.get_tracer().storage), {"openai-agents": FORMATS[0]}, now=lambda: 2**63)
    one.import_source(Source("openai-agents", path))
    assert (len(one.arrived.runs), one.arrived.spans, one.arrived.changed) == (0, 0, 0)


def test_what_is_not_exported_is_recorded(sdk: Path) -> None:
    agentspan.instrument("openai-agents")
    tracing = importlib.import_module("agents").tracing
    data = tracing.Data("response", ("input", "response"), input="How?", response=Response(), usage={"input_tokens": 3})
    with tracing.Trace("Trip") as trace, tracing.Span(trace, None, data):
        pass
    _, (message, call) = recorded()
    assert (message.schema_name, call.label, call.input_tokens) == ("message", "gpt-4o-mini", 3)
    assert json.loads(call.result_payload or "")["text"] == "sunny"
    assert json.loads(call.payload)["system"] == "be brief"


def test_inside_of_a_run_of_agentspan_it_belongs_to_that_run(sdk: Path) -> None:
    agentspan.instrument("openai-agents")
    tracing = importlib.import_module("agents").tracing
    with agentspan.run("mine"), agentspan.span("chain", name="around"):
        run_agent(tracing)
    (run,), spans = recorded()
    around = next(span for span in spans if span.label == "around")
    assert next(span for span in spans if span.label == "Asker").parent_span_id == around.id
    assert (run.status, len(spans)) == ("complete", 6)


def test_a_call_that_an_instrumentor_records_too_counts_once(sdk: Path) -> None:
    agentspan.instrument("openai-agents")
    tracing = importlib.import_module("agents").tracing
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(agentspan.otel.SpanProcessor())
    tracer = provider.get_tracer("openinference.instrumentation.openai")

    def call() -> None:
        with tracer.start_as_current_span("ChatCompletion") as span:
            span.set_attribute("openinference.span.kind", "LLM")
            span.set_attribute("llm.model_name", "gpt-4o-mini")
            span.set_attribute("llm.token_count.prompt", 10)

    run_agent(tracing, inner=call)
    (_,), spans = recorded()
    provider.shutdown()
    calls = [span for span in spans if span.schema_name == "llm"]
    assert len(calls) == 1
    assert sum(span.input_tokens or 0 for span in spans if not span.is_aggregate) == 10
    above = next(span for span in spans if span.id == calls[0].parent_span_id)
    assert (above.schema_name, above.label) == ("chain", "model call gpt-4o-mini")


def test_it_can_be_turned_off_and_on(sdk: Path) -> None:
    tracing = importlib.import_module("agents").tracing
    agentspan.instrument("openai-agents")
    agentspan.uninstrument("openai-agents")
    run_agent(tracing)
    assert [span.label for span in recorded()[1]] == ["inner"]
    agentspan.instrument("openai-agents")
    run_agent(tracing)
    assert len(recorded()[1]) == 6


def test_a_trace_that_does_not_end_is_closed(sdk: Path) -> None:
    agentspan.instrument("openai-agents")
    tracing = importlib.import_module("agents").tracing
    trace = tracing.Trace("Trip").__enter__()
    tracing.Span(trace, None, tracing.Data("agent", name="Asker")).__enter__()
    PROCESSOR.shutdown()
    _, (span,) = recorded()
    assert (span.status, span.label) == ("failed", "Asker")
    assert "its end was never sent" in (span.result_payload or "")


def test_a_fault_of_recording_never_reaches_the_program(sdk: Path) -> None:
    agentspan.instrument("openai-agents")
    tracing = importlib.import_module("agents").tracing
    strange = tracing.Data("custom", name="x", data={"object": object(), "nan": float("nan")})
    with tracing.Trace("Trip") as trace, tracing.Span(trace, None, strange):
        pass
    assert recorded()[1][0].status == "complete"
    broken = tracing.Data("custom", name="x", data={})
    with tracing.Trace("Trip") as trace, tracing.Span(trace, None, broken) as span:
        span.export = lambda: 1 / 0


def test_another_package_of_this_name_is_no_framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    found = known.named("openai-agents")
    assert found is not None
    assert not found.has_own


def test_it_needs_no_opentelemetry(sdk: Path, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['opentelemetry'] = None; import agentspan\n"
        "assert [each.name for each in agentspan.instrument()] == ['openai-agents']\n"
        "import agents; t = agents.tracing\n"
        "with t.Trace('Trip') as trace, t.Span(trace, None, t.Data('agent', name='Asker')): pass\n"
    )
    known_names = {"PYTHONPATH": f"{sdk}:{Path(agentspan.__file__).parents[1]}", "AGENTSPAN_DB": str(tmp_path / "b.db")}
    subprocess.run([sys.executable, "-c", program], env=known_names, check=True, timeout=60)
    with agentspan.open(tmp_path / "b.db") as database:
        assert [span.label for span in spans_in(database.storage)] == ["Asker"]
