"""Spans of OpenTelemetry recorded live: one tree with agentspan's own, on disk when they start, closed in the end."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider

import agentspan
from agentspan import Tracer
from agentspan.api.context import Context
from agentspan.journal.writers import program_name
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.otel import SpanProcessor
from agentspan.otel.receiving import import_spans
from agentspan.otel.sdk import span_of
from agentspan.recording.capture.capture import Capture
from agentspan.recording.tracer import recorder_of
from agentspan.storage.questions import Counts, Find, RunSums, SpansOf
from agentspan.tuning import STANDARD, Tuning
from tests.otel.replaying import runs_in, spans_in

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.provider.name": "openai"}
AGENT = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "helper"}
PROGRAM = Resource({"service.name": "program", "service.instance.id": "1"})


@pytest.fixture
def tuning() -> Tuning:
    """The tracer's; a test may have another one."""
    return STANDARD


@pytest.fixture(params=["journal", "commit"])
def tracer(tmp_path: Path, request: pytest.FixtureRequest, tuning: Tuning) -> Iterator[Tracer]:
    made = Tracer(tmp_path / "runs.db", durability=request.param, raise_errors=True, tuning=tuning)
    yield made
    made.shutdown()


@pytest.fixture
def provider(tracer: Tracer) -> Iterator[TracerProvider]:
    made = TracerProvider(resource=PROGRAM, shutdown_on_exit=False)
    made.add_span_processor(SpanProcessor(tracer))
    yield made
    made.shutdown()


@pytest.fixture
def otel(provider: TracerProvider) -> trace.Tracer:
    return provider.get_tracer("opentelemetry.instrumentation.openai_v2", "1.0")


def rows(tracer: Tracer) -> dict[str, AgentSpanRow]:
    """The spans by type, or by name where the payload has one."""
    assert tracer.flush()
    named = {row: json.loads(row.payload).get("name") or row.schema_name for row in spans_in(tracer.storage)}
    return {name.removeprefix("execute_tool ").removeprefix("invoke_agent "): row for row, name in named.items()}


def runs(tracer: Tracer, provider: TracerProvider) -> dict[str, AgentInstanceRow]:
    """The runs by the name of their agent, at the end of the program."""
    provider.shutdown()
    assert tracer.flush()
    found = runs_in(tracer.storage)
    agents = tracer.storage.ask(Find(*(run.agent_id for run in found))).rows
    return {getattr(agents[run.agent_id][1], "name", ""): run for run in found}


def test_a_span_is_in_the_file_when_it_starts_and_completed_when_it_ends(tracer: Tracer, otel: trace.Tracer) -> None:
    span = otel.start_span("chat m", attributes=CHAT)
    (begun,) = rows(tracer).values()
    assert (begun.schema_name, begun.status, begun.label) == ("llm", "active", "m")
    span.set_attributes({"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 6})
    span.end()
    (ended,) = rows(tracer).values()
    assert (ended.id, ended.status, ended.input_tokens, ended.output_tokens) == (begun.id, "complete", 5, 6)


def test_a_type_that_is_told_at_the_end_replaces_the_guess(tracer: Tracer, otel: trace.Tracer) -> None:
    span = otel.start_span("something")
    (begun,) = rows(tracer).values()
    span.set_attributes({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"})
    span.end()
    (ended,) = rows(tracer).values()
    assert begun.schema_name == "llm", "most spans of this instrumentor are calls"
    assert (ended.schema_name, ended.schema_title, ended.label) == ("tool", "Tool", "search")


def test_each_call_of_a_graph_is_a_run_that_ends_as_the_call_does(tracer: Tracer, provider: TracerProvider) -> None:
    graphs = provider.get_tracer("openinference.instrumentation.langchain")
    for name in ("researcher", "LangGraph"):
        with suppress(ValueError), graphs.start_as_current_span(name) as root:
            with graphs.start_as_current_span("ask"):
                pass
            root.set_attribute("openinference.span.kind", "CHAIN")
            if name == "LangGraph":
                raise ValueError("no")
    assert {name: run.status for name, run in runs(tracer, provider).items()} == {
        "researcher": "complete",
        "LangGraph": "failed",
    }


def test_the_tokens_of_an_agent_count_whose_calls_are_in_another_program(
    tracer: Tracer, provider: TracerProvider
) -> None:
    """As the Claude Agent SDK's, whose calls of the model are those of a command that it runs."""
    otel = provider.get_tracer("openinference.instrumentation.claude_agent_sdk")
    told = {"llm.model_name": "claude-sonnet-4-5", "llm.provider": "anthropic", "llm.system": "anthropic"}
    with otel.start_as_current_span("ClaudeAgentSDK.query", attributes={"openinference.span.kind": "AGENT"}) as span:
        span.set_attributes({**told, "llm.token_count.prompt": 3500, "llm.token_count.completion": 90})
    (run,) = runs(tracer, provider).values()
    (total,) = tracer.storage.ask(RunSums([run.id]))
    assert (total.input_tokens, total.output_tokens) == (3500, 90)
    assert total.cost_usd == pytest.approx(0.01185)
    assert not total.is_aggregate


def test_calls_below_a_root_that_never_ends_are_recognised_at_the_end(tracer: Tracer, provider: TracerProvider) -> None:
    """As below smolagents' agent whose run raised; the call that failed names no model."""
    agents = provider.get_tracer("openinference.instrumentation.smolagents")
    client = provider.get_tracer("openinference.instrumentation.openai")
    asked = {"openinference.span.kind": "LLM", "llm.input_messages.0.message.role": "user"}
    with (
        trace.use_span(agents.start_span("ToolCallingAgent.run")),
        agents.start_as_current_span("OpenAIModel.generate", attributes=asked),
        client.start_as_current_span("ChatCompletion", attributes={**asked, "llm.model_name": "m"}),
    ):
        pass
    provider.shutdown()
    assert tracer.flush()
    assert sorted(span.schema_name for span in spans_in(tracer.storage)) == ["OpenAIModel.generate", "agent", "llm"]


def test_status_scope_state_and_links_are_kept(tracer: Tracer, provider: TracerProvider) -> None:
    state = trace.TraceState([("vendor", "1")])
    flags = trace.TraceFlags(1)
    other = trace.SpanContext(1, 2, is_remote=True, trace_flags=flags, trace_state=state)
    otel = provider.get_tracer("my.http", "1.0", attributes={"team": "search"})
    parent = trace.set_span_in_context(trace.NonRecordingSpan(other))
    for name, context_ in (("root", context.Context()), ("below", parent)):
        with otel.start_as_current_span(
            name, context_, trace.SpanKind.CLIENT, links=[trace.Link(other)] if name == "root" else None
        ) as span:
            span.set_status(trace.StatusCode.OK)
    found = {name: json.loads(row.payload) for name, row in rows(tracer).items()}
    about = {"kind": "CLIENT", "status": "OK", "scope_attributes": {"team": "search"}}
    assert found["root"]["otel"] == about
    assert found["below"]["otel"] == {**about, "trace_state": "vendor=1"}
    assert found["root"]["links"][0]["trace_state"] == "vendor=1"


def test_spans_of_both_libraries_are_one_tree(tracer: Tracer, otel: trace.Tracer) -> None:
    with tracer.run("mine") as run, tracer.span("chain", {"name": "a"}) as a:
        with otel.start_as_current_span("execute_tool b"):
            with tracer.span("tool", {"name": "c"}) as c:
                assert tracer.current_span() is c
                with otel.start_as_current_span("execute_tool d"):
                    pass
            with tracer.span("tool", {"name": "e"}):
                pass
        assert tracer.current_span() is a
    found = rows(tracer)
    above = {name: row.parent_span_id for name, row in found.items()}
    assert above == {"a": None, "b": a.id, "c": found["b"].id, "d": found["c"].id, "e": found["b"].id}
    assert {row.agent_instance_id for row in found.values()} == {run.id}


def test_threads_tasks_and_generators_keep_the_tree(tracer: Tracer, otel: trace.Tracer) -> None:
    def in_thread(name: str) -> None:
        with otel.start_as_current_span(f"execute_tool {name}"):
            pass

    async def task(name: str) -> None:
        with otel.start_as_current_span(f"execute_tool {name}"):
            await asyncio.sleep(0)
            with tracer.span("tool", {"name": f"in {name}"}):
                await asyncio.sleep(0)

    async def tasks() -> None:
        await asyncio.gather(task("f"), task("g"))

    @tracer.span("chain")
    def items() -> Iterator[int]:
        with otel.start_as_current_span("execute_tool h"):
            yield 1

    with tracer.run("mine"), otel.start_as_current_span("invoke_agent outer"):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(tracer.propagate(in_thread), "b").result()
            here = context.get_current()
            pool.submit(lambda: (context.attach(here), in_thread("c"))).result()
        asyncio.run(tasks())
        list(items())
    found = rows(tracer)
    above = {name: row.parent_span_id for name, row in found.items()}
    outer = found["outer"].id
    assert {above[name] for name in ("b", "c", "f", "g", "items")} == {outer}
    assert (above["in f"], above["in g"]) == (found["f"].id, found["g"].id)
    assert above["h"] == found["items"].id


def test_a_trace_of_an_agent_is_a_run_and_all_others_are_one(
    tracer: Tracer, otel: trace.Tracer, provider: TracerProvider
) -> None:
    for _ in range(3):
        with otel.start_as_current_span("chat m", attributes=CHAT):
            pass
    with otel.start_as_current_span("invoke_agent") as root:
        with otel.start_as_current_span("chat m", attributes={**CHAT, "gen_ai.conversation.id": "talk-1"}):
            pass
        root.set_attributes({**AGENT, "gen_ai.agent.version": "7"})
    found = runs(tracer, provider)
    assert sorted(found) == ["helper", "program"]
    counts = tracer.storage.ask(Counts([run.id for run in found.values()]))
    assert [counts[found[name].id].finished for name in ("helper", "program")] == [2, 3]
    assert {run.status for run in found.values()} == {"complete"}
    assert {row.agent_id for row in tracer.storage.ask(SpansOf(found["helper"].id))} == {found["helper"].agent_id}
    assert found["helper"].session == "talk-1"
    version = tracer.storage.ask(Find(found["helper"].agent_version_id)).rows[found["helper"].agent_version_id][1]
    assert getattr(version, "external_identifier", None) == "7"


def test_a_program_that_nobody_named_has_the_name_of_its_script(tracer: Tracer) -> None:
    for said, expected in (("unknown_service:python", program_name()), ("shop", "shop")):
        provider = TracerProvider(resource=Resource({"service.name": said}), shutdown_on_exit=False)
        provider.add_span_processor(SpanProcessor(tracer))
        with provider.get_tracer("mine").start_as_current_span("step"):
            pass
        assert expected in runs(tracer, provider)


def test_a_run_fails_with_its_root(tracer: Tracer, otel: trace.Tracer, provider: TracerProvider) -> None:
    with (
        pytest.raises(ValueError, match="no"),
        otel.start_as_current_span("invoke_agent helper", attributes=AGENT),
        otel.start_as_current_span("chat m", attributes=CHAT),
    ):
        raise ValueError("no")
    run = runs(tracer, provider)["helper"]
    assert run.status == "failed"
    assert json.loads(run.error or "")["type"] == "ValueError"
    for row in rows(tracer).values():
        error = json.loads(row.result_payload or "")["error"]
        assert (row.status, error["type"], error["message"]) == ("failed", "ValueError", "no")
        assert "Traceback" in error["stacktrace"]


@pytest.mark.parametrize("tuning", [STANDARD._replace(otel_grace_s=0.0)], ids=["no grace"])
def test_what_never_ends_is_closed_and_what_ends_late_still_lands(
    tracer: Tracer, otel: trace.Tracer, provider: TracerProvider
) -> None:
    with otel.start_as_current_span("invoke_agent helper", attributes=AGENT):
        late = otel.start_span("execute_tool late")
        otel.start_span("execute_tool never")
    with otel.start_as_current_span("chat m", attributes=CHAT):  # closes what the grace is over for
        pass
    found = rows(tracer)
    assert {(found[name].status, found[name].closed_by) for name in ("late", "never")} == {("failed", "abandoned")}
    late.set_attributes({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.result": "ok"})
    late.end()
    found = rows(tracer)
    assert (found["late"].status, found["late"].ended_late) == ("complete", 1)
    open_at_the_end = otel.start_span("chat m", attributes=CHAT)
    provider.shutdown()
    assert open_at_the_end.is_recording()
    assert {row.status for row in rows(tracer).values()} == {"complete", "failed"}
    assert tracer.health().refused == 0


def test_one_call_of_two_instrumentors_counts_once(
    tracer: Tracer, otel: trace.Tracer, provider: TracerProvider
) -> None:
    sdk = provider.get_tracer("com.anthropic.sdk.python")
    answer: dict[str, Any] = {
        "gen_ai.response.id": "r1",
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 6,
    }
    with tracer.run("mine"):
        outside = otel.start_span("chat m", attributes={**CHAT, **answer, "gen_ai.response.model": "m"})
        sdk.start_span("messages.create", attributes={**CHAT, **answer}).end()
        outside.end()
    with tracer.run("other"), otel.start_as_current_span("chat m", attributes={**CHAT, **answer}) as outer:
        outer.set_attribute("gen_ai.input.messages", '[{"role":"user","parts":[{"type":"text","content":"hi"}]}]')
        with sdk.start_as_current_span("messages.create", attributes={**CHAT, **answer}):
            pass
    assert tracer.flush()
    stored = spans_in(tracer.storage)
    kept = [row for row in stored if row.schema_name == "llm"]
    assert [row.input_tokens for row in kept] == [5, 5]
    twins = [row for row in stored if row.schema_name != "llm"]
    assert [row.input_tokens for row in twins] == [None, None]
    assert {json.loads(row.payload)["duplicate_of"] for row in twins} == {row.id for row in kept}


def test_credentials_and_what_is_too_long_stay_out(tmp_path: Path) -> None:
    for durability in ("journal", "commit"):
        path = tmp_path / f"{durability}.db"
        tracer = Tracer(path, durability=durability, limits=agentspan.Limits(value=1000))
        provider = TracerProvider(resource=PROGRAM, shutdown_on_exit=False)
        provider.add_span_processor(SpanProcessor(tracer))
        otel = provider.get_tracer("x")
        with otel.start_as_current_span("step") as span:
            span.set_attribute("arguments", '{"password": "hunter2-very-secret"}')
            span.set_attribute("key", "sk-proj-abcdefghijklmnop1234567890")
        with otel.start_as_current_span("execute_tool long") as span:
            span.set_attributes({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.result": "x" * 5000})
        provider.shutdown()
        tracer.shutdown()
        data = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
        assert b"hunter2" not in data
        assert b"sk-proj-abc" not in data
        with closing(sqlite3.connect(path)) as connection:
            (text,) = connection.execute("select result_payload from agent_spans where schema_name = 'tool'").fetchone()
        assert "$truncated" in text


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_credentials_of_the_resource_stay_out(tmp_path: Path, durability: Any) -> None:
    secret = "sk-proj-" + "abcdefghijklmnop1234567890"
    tracer = Tracer(tmp_path / "runs.db", durability=durability, raise_errors=True)
    about = {
        "service.name": f"svc {secret}",
        "service.version": secret,
        "service.instance.id": secret,
        "db.pw": "hunter2",
    }
    provider = TracerProvider(resource=Resource(about), shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer))
    with provider.get_tracer("x").start_as_current_span("step"):
        pass
    provider.shutdown()
    tracer.shutdown()
    data = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"svc [redacted]" in data
    assert secret.encode() not in data
    assert b"hunter2" not in data


def test_attributes_of_the_start_are_written_and_searched_once(
    tracer: Tracer, otel: trace.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    unchanged = Capture.unchanged

    def noted(self: Capture, value: dict[str, Any], *more: Any) -> str | None:
        searched.extend(value)
        return unchanged(self, value, *more)

    monkeypatch.setattr(Capture, "unchanged", noted)
    with otel.start_as_current_span("execute_tool a", attributes={"asked": "x", "model": "m"}) as span:
        span.set_attribute("answered", "y")
    (row,) = rows(tracer).values()
    assert json.loads(row.payload)["attributes"] == {"asked": "x", "model": "m", "answered": "y"}
    is_journaled = recorder_of(tracer).destination.is_journaled
    assert [name for name in searched if name in ("asked", "model", "answered")] == (
        ["asked", "model", "answered"] if is_journaled else []
    )


def test_lists_of_the_start_and_of_the_end_are_recorded(tracer: Tracer, otel: trace.Tracer) -> None:
    span = otel.start_span("step", attributes={"tags": ["a", "b"], "same": ["c"], "flag": 1})
    span.set_attributes({"more": [1, 2], "same": ["c"], "flag": True})
    span.end()
    (row,) = rows(tracer).values()
    told = json.loads(row.payload)["attributes"]
    assert told == {"tags": ["a", "b"], "same": ["c"], "flag": True, "more": [1, 2]}
    assert told["flag"] is True


def test_what_changes_while_a_span_runs_is_recorded_as_it_ended(tracer: Tracer, otel: trace.Tracer) -> None:
    said: dict[str, Any] = {"same": "s", "changed": 1, "list": ["a"]}
    with otel.start_as_current_span("begun", attributes=said) as span:
        span.update_name("execute_tool renamed")
        span.set_attributes({"changed": True, "list": ["b"], "new": 2.5})
    (row,) = rows(tracer).values()
    payload = json.loads(row.payload)
    assert payload["attributes"] == {"same": "s", "changed": True, "list": ["b"], "new": 2.5}
    assert type(payload["attributes"]["changed"]) is bool
    assert row.schema_name == "execute_tool renamed"


def test_what_a_span_tells_in_two_parts_has_the_limits_of_one(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", limits=agentspan.Limits(payload=3000))
    provider = TracerProvider(resource=PROGRAM, shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer))
    with provider.get_tracer("x").start_as_current_span("step", attributes={"asked": "x" * 2000}) as span:
        span.set_attribute("answered", "y" * 2000)
    provider.shutdown()
    (row,) = rows(tracer).values()
    tracer.shutdown()
    assert "$truncated" in row.payload
    assert len(row.payload) <= 3000


def test_what_a_provider_dropped_is_said(tracer: Tracer) -> None:
    provider = TracerProvider(span_limits=SpanLimits(max_span_attributes=10), shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer))
    with provider.get_tracer("x").start_as_current_span("step") as span:
        for number in range(13):
            span.set_attribute(f"a{number}", number)
    provider.shutdown()
    (row,) = rows(tracer).values()
    assert json.loads(row.payload)["dropped"] == {"attributes": 3}


def test_values_of_any_type_are_recorded(tracer: Tracer, otel: trace.Tracer) -> None:
    with otel.start_as_current_span("execute_tool a") as span:
        span.set_attributes({"list": ["a", "b"], "float": 1.5, "bytes": b"\x00", "nan": float("nan")})
    (row,) = rows(tracer).values()
    assert json.loads(row.payload)["attributes"]["list"] == ["a", "b"]


def test_a_disabled_tracer_records_nothing(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", enabled=False)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer))
    with provider.get_tracer("x").start_as_current_span("step"):
        pass
    provider.shutdown()
    assert not (tmp_path / "runs.db").exists()


KILLED = """
import sys, time
from opentelemetry.sdk.trace import TracerProvider
import agentspan, agentspan.otel
agentspan.configure(sys.argv[1])
provider = TracerProvider()
provider.add_span_processor(agentspan.otel.SpanProcessor())
otel = provider.get_tracer("opentelemetry.instrumentation.openai_v2")
with otel.start_as_current_span("invoke_agent helper", attributes={"gen_ai.operation.name": "invoke_agent"}):
    for number in range(50):
        with otel.start_as_current_span(f"execute_tool t{number}"):
            pass
    given = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.arguments": '{"a": 1}'}
    with otel.start_as_current_span("execute_tool last", attributes=given):
        print("ready", flush=True)
        time.sleep(60)
"""


def test_every_started_step_is_in_the_file_after_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    agentspan.open(path).close()  # which recovers its journal
    with closing(sqlite3.connect(path)) as connection:
        found = dict(connection.execute("select status, count(*) from agent_spans group by 1"))
        (payload,) = connection.execute("select payload from agent_spans where label = 'last'").fetchone()
    assert found == {"complete": 50, "active": 2}
    assert json.loads(payload)["arguments"] == {"a": 1}, "what it was given is known before its end"


def test_spans_that_come_a_second_time_by_a_file_are_stored_once(tracer: Tracer, otel: trace.Tracer) -> None:
    seen: list[Any] = []
    with tracer.run("mine"):
        outer = otel.start_span("chat m", attributes=CHAT)
        with trace.use_span(outer, end_on_exit=True), otel.start_as_current_span("execute_tool a") as inner:
            pass
        seen += [outer, inner]
    with otel.start_as_current_span("chat m", attributes=CHAT) as alone:
        seen.append(alone)
    before = rows(tracer)
    imported = import_spans(Context(tracer.storage), [span_of(span) for span in seen])
    assert (imported.spans, imported.known, imported.runs) == (0, 3, 0)
    assert rows(tracer) == before


def test_spans_of_two_providers_are_one_tree(tracer: Tracer, otel: trace.Tracer) -> None:
    other = TracerProvider(resource=PROGRAM, shutdown_on_exit=False)
    other.add_span_processor(SpanProcessor(tracer))
    mine = other.get_tracer("mine")
    with mine.start_as_current_span("outer"), otel.start_as_current_span("execute_tool a"):
        with tracer.span("tool", {"name": "b"}):
            pass
        with mine.start_as_current_span("c"):
            pass
    other.shutdown()
    found = rows(tracer)
    above = {name: row.parent_span_id for name, row in found.items()}
    assert above == {"outer": None, "a": found["outer"].id, "b": found["a"].id, "c": found["a"].id}
    assert len(runs_in(tracer.storage)) == 1


def test_a_run_of_a_process_goes_on_after_a_shutdown(tracer: Tracer) -> None:
    provider = TracerProvider(resource=PROGRAM, shutdown_on_exit=False)
    processor = SpanProcessor(tracer)
    provider.add_span_processor(processor)
    for _ in range(2):
        provider.get_tracer("x").start_span("step").end()
        processor.shutdown()
    assert tracer.flush()
    assert [run.status for run in runs_in(tracer.storage)] == ["complete"]
    assert len(spans_in(tracer.storage)) == 2
    assert tracer.health().failed == 0


def test_threads_that_begin_at_once_share_the_run_of_the_process(tracer: Tracer, otel: trace.Tracer) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: otel.start_span(f"step {number}").end(), range(40)))
    assert tracer.flush()
    assert (len(runs_in(tracer.storage)), len(spans_in(tracer.storage))) == (1, 40)
