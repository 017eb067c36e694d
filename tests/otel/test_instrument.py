"""`agentspan.instrument` turns installed instrumentors on, and names the package where one is missing."""

import importlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import ProxyTracerProvider

import agentspan
from agentspan import installing
from agentspan.errors import InvalidValue
from agentspan.otel.instruments import instrument, known
from agentspan.otel.instruments.wrapping import Waiting
from tests.otel.fake_packages import packages_in, without
from tests.otel.replaying import spans_in

FAKES = ("openai", "crewai", "dspy", "fake_openai_instrumentor", "fake_broken_instrumentor")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A framework that is recorded, one whose instrumentor is broken, one without, and a file to record into."""
    monkeypatch.syspath_prepend(str(packages_in(tmp_path / "packages")))
    wanted = ("OTEL_SEMCONV_STABILITY_OPT_IN", "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT")
    for name in (*wanted, "USE_OTEL_LITELLM_REQUEST_SPAN"):
        monkeypatch.setenv(name, "set")
    agentspan.configure(tmp_path / "runs.db", raise_errors=True)
    with without(*FAKES):
        yield
        agentspan.uninstrument()
    agentspan.shutdown()


def recorded() -> list[str]:
    agentspan.flush()
    return [span.schema_name for span in spans_in(agentspan.get_tracer().storage)]


@pytest.mark.usefixtures("packages")
def test_it_turns_on_what_is_installed_and_undoes_that(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "agentspan"):
        on = agentspan.instrument()
    expected = agentspan.Instrumented("openai", "openinference-instrumentation-openai", "9.9")
    assert expected in on
    assert isinstance(trace.get_tracer_provider(), ProxyTracerProvider), "libraries that want to set one ask for this"
    assert f"nothing records dspy; {installing.command('openinference-instrumentation-dspy')}" in caplog.text
    assert "crewai could not be turned on: RuntimeError: does not fit" in caplog.text
    assert agentspan.instrument("openai") == (), "it is on already"
    client = importlib.import_module("openai")
    assert client.ask("a") == "A"
    agentspan.uninstrument("openai")
    client.ask("b")
    assert recorded() == ["llm"]
    assert not isinstance(trace.get_tracer_provider(), TracerProvider), "the global one is the program's"


@pytest.mark.usefixtures("packages")
def test_only_what_is_named_is_turned_on_and_what_is_missing_is_said() -> None:
    with pytest.raises(InvalidValue, match=r"install .*openinference-instrumentation-dspy"):
        agentspan.instrument("dspy")
    with pytest.raises(InvalidValue, match="neither a known framework"):
        agentspan.instrument("opnai")
    assert instrument.instrumented() == []
    assert [each.name for each in agentspan.instrument("OpenAI")] == ["openai"]


@pytest.mark.usefixtures("packages")
def test_a_provider_of_the_program_gets_a_processor() -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    agentspan.instrument("openai", provider=provider)
    with provider.get_tracer("x").start_as_current_span("mine"):
        importlib.import_module("openai").ask("a")
    assert sorted(recorded()) == ["llm", "mine"]


UNSET = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
import agentspan
agentspan.configure(sys.argv[1])
agentspan.instrument()
early = trace.get_tracer("an.sdk")
with early.start_as_current_span("before"):
    pass
class Seen(SpanProcessor):
    def on_end(self, span):
        print(span.name)
provider = TracerProvider()
provider.add_span_processor(Seen())
trace.set_tracer_provider(provider)
for tracer in (early, trace.get_tracer("another")):
    with tracer.start_as_current_span("after"):
        pass
"""


@pytest.mark.full
def test_while_the_program_has_set_no_provider_its_spans_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    done = subprocess.run([sys.executable, "-c", UNSET, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "after\nafter\n", "the program's provider gets what it would have got"
    with agentspan.open(path) as database:
        assert [span.schema_name for span in spans_in(database.storage)] == ["before"]


@pytest.mark.usefixtures("packages")
def test_one_instrumentor_of_a_framework_is_chosen() -> None:
    found = known.named("openai_v2")
    assert found is not None
    assert (found.package, found.can_record) == ("openinference-instrumentation-openai", True)


def test_importing_agentspan_imports_nothing_of_opentelemetry() -> None:
    code = "import sys, agentspan, agentspan.otel; print([name for name in sys.modules if 'opentelemetry' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_namespace_package_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no loader: such is `llama_index`, which holds the packages of several distributions."""
    (tmp_path / "spread_out" / "core").mkdir(parents=True)
    (tmp_path / "spread_out" / "core" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())
    imported: list[str] = []
    names = ("spread_out", "spread_out.core")
    Waiting({name: lambda module: imported.append(module.__name__) for name in names})
    with without("spread_out"):
        assert list(importlib.import_module("spread_out").__path__) == [str(tmp_path / "spread_out")]
        importlib.import_module("spread_out.core")
    assert imported == [*names]


def test_an_import_goes_on_if_what_waits_for_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "comes_late.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())

    def fails(module: ModuleType) -> None:
        raise LookupError(module.__name__)

    agentspan.configure(tmp_path / "runs.db")
    Waiting({"comes_late": fails, "json": fails})
    with without("comes_late"):
        importlib.import_module("comes_late")
    agentspan.shutdown()
    assert "LookupError" in caplog.text


def test_without_the_extra_the_error_says_what_to_install() -> None:
    code = "import sys, agentspan; sys.modules['opentelemetry'] = None; agentspan.instrument()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: recording frameworks needs more packages; run: {installing.extra('otel')}"
    )


def test_nothing_is_advised_for_what_a_framework_or_the_package_itself_records() -> None:
    frameworks = {each.name: each for each in known.FRAMEWORKS}
    installed = {name: known.Available(frameworks[name], is_installed=True) for name in frameworks}
    entry = EntryPoint("x", "x:X", known.GROUP)
    assert known.missing([installed["groq"], installed["bedrock"]]) == [installed["groq"]], (
        "boto3 is not for models only"
    )
    with_calls = installed["langchain"]._replace(entry=entry)
    assert known.missing([installed["groq"], with_calls]) == []
    without = installed["crewai"]._replace(entry=entry)
    assert known.missing([installed["groq"], without, installed["mcp"]]) == [installed["groq"]], "crewai brings mcp"
    assert known.missing([installed["mcp"]]) == [installed["mcp"]]
    assert known.needs_its_own(frameworks["langchain"], "langgraph"), "a part of it imports another"
    assert not known.needs_its_own(frameworks["groq"], "langchain_groq")
    assert not known.needs_its_own(frameworks["openai"], "langfuse"), "its client records the calls"


def test_the_traces_of_a_framework_itself_win_over_an_instrumentor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except those of a client, which have no messages."""
    entries = {name: [EntryPoint(name, "x:X", known.GROUP)] for name in ("google-adk", "strands-agents", "anthropic")}
    for file in ("google/adk/telemetry/tracing.py", "strands/__init__.py", "anthropic/_tracing.py"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "google/adk/__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(known, "_instrumentors", lambda: entries)
    with without("google", "strands", "anthropic"):
        found = {each.framework.name: each for each in known.available()}
        assert {name: (found[name].entry is None, found[name].can_record) for name in entries} == {
            "google-adk": (True, True),
            "strands-agents": (True, True),
            "anthropic": (False, True),
        }
        (tmp_path / "google/adk/telemetry/tracing.py").unlink()
        adk = known.named("google-adk")
        assert adk is not None
        assert adk.entry is not None, "an older version does not trace itself"
