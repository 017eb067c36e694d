"""Spans that go out follow the newest conventions; what came from OpenTelemetry keeps its attributes, events and links.

The second part imports spans, forwards them, and compares the two.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import agentspan
from agentspan.api.context import Context
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.otel import forwarding, writing
from agentspan.otel.otlp import json_bodies, protobuf_bodies
from agentspan.otel.otlp.json_bodies import MAX_VALUES
from agentspan.otel.otlp.requests import trace_request
from agentspan.otel.receiving import import_spans
from agentspan.otel.span import Event, Link, Log, OtelSpan
from agentspan.schemas.span_types import BUILT_IN_TYPES
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Query, SpansOf
from tests.otel.recorded import NAMES, exception, recorded, span
from tests.otel.requests import protobuf_of
from tests.strategies import json_of

PNG = "iVBORw0KGgo="
REASONS = "gen_ai.response.finish_reasons"
INPUT, OUTPUT = "gen_ai.input.messages", "gen_ai.output.messages"


def _one() -> tuple[writing.OutgoingRun, AgentSpanRow]:
    """A run, and the row of its only step."""
    storage = MemoryStorage()
    tracer = agentspan.Tracer(storage)
    with tracer.run("guide"), tracer.span("tool", {"name": "look"}):
        pass
    tracer.flush()
    (run,) = storage.ask(Query("agent_instance")).rows
    assert isinstance(run, AgentInstanceRow)
    (row,) = storage.ask(SpansOf(run.id))
    return forwarding.named(storage, run), row


RUN, SENT = _one()
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}


def sent(storage: Storage) -> list[OtelSpan]:
    """All spans that `forward` would send, as a target decodes them."""
    ids = [row.id for row in storage.ask(Query("agent_instance")).rows]
    bodies = [line.encode() for line in forwarding.lines(storage, ids)]
    spans = [span for body in bodies for span in json_bodies.spans(json_bodies.parsed(body)).spans]
    for body in bodies:
        request = json.loads(body)
        ours, reference = (protobuf_bodies.spans(each(request)).spans for each in (trace_request, protobuf_of))
        assert ours == reference
    return spans


def step(type_: str, payload: dict[str, Any], result: dict[str, Any] | None = None, **run: Any) -> OtelSpan:
    """A step that agentspan recorded, as it goes out."""
    storage = MemoryStorage()
    tracer = agentspan.Tracer(storage, raise_errors=True)
    with tracer.run("guide", **run), tracer.span(type_, payload) as open_span:
        if result is not None:
            open_span.set_result(result)
    tracer.flush()
    return sent(storage)[0]


def through(spans: Sequence[OtelSpan], logs: Sequence[Log] = ()) -> list[OtelSpan]:
    """Spans of OpenTelemetry that were recorded, as they go out."""
    storage = MemoryStorage()
    import_spans(Context(storage), spans, logs)
    return [each for each in sent(storage) if "agentspan.id" in each.attributes]


def parsed(attributes: Any) -> dict[str, Any]:
    """Attributes, with JSON in texts read: how it is written is no matter."""
    return {name: _read(value) for name, value in attributes.items()}


def _read(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) and value[:1] in "{[" else value
    except ValueError:
        return value


@pytest.mark.parametrize(
    ("type_", "payload", "name", "kind", "attributes"),
    [
        ("llm", {"model": "m"}, "chat m", "CLIENT", {"gen_ai.operation.name": "chat"}),
        ("embedding", {"model": "e"}, "embeddings e", "CLIENT", {"gen_ai.operation.name": "embeddings"}),
        (
            "retrieval",
            {"query": "tea", "source": "kb", "top_k": 3},
            "retrieval kb",
            "CLIENT",
            {"gen_ai.retrieval.top_k": 3, "gen_ai.data_source.id": "kb", "gen_ai.retrieval.query.text": "tea"},
        ),
        (
            "memory",
            {"operation": "search", "store": "notes", "query": "tea"},
            "search_memory",
            "CLIENT",
            {"gen_ai.operation.name": "search_memory", "gen_ai.memory.store.id": "notes"},
        ),
        ("memory", {"operation": "get", "key": "k"}, "memory", "CLIENT", {"gen_ai.memory.record.id": "k"}),
        ("tool", {"name": "look"}, "execute_tool look", "INTERNAL", {"gen_ai.operation.name": "execute_tool"}),
        ("agent", {"name": "a"}, "invoke_agent a", "INTERNAL", {"gen_ai.agent.name": "a"}),
        ("chain", {"name": "c"}, "invoke_workflow c", "INTERNAL", {"gen_ai.agent.name": "c"}),
        (
            "mcp",
            {"method": "tools/call", "target": "look", "arguments": {"at": 1}, "session_id": "s1", "request_id": "7"},
            "tools/call look",
            "CLIENT",
            {
                "gen_ai.operation.name": "execute_tool",
                "mcp.method.name": "tools/call",
                "gen_ai.tool.name": "look",
                "gen_ai.tool.call.arguments": '{"at":1}',
                "mcp.session.id": "s1",
                "jsonrpc.request.id": "7",
            },
        ),
        (
            "mcp",
            {"method": "resources/read", "target": "file:///a"},
            "resources/read",
            "CLIENT",
            {"mcp.resource.uri": "file:///a"},
        ),
        (
            "mcp",
            {"method": "prompts/get", "target": "trip", "arguments": {"city": "Oslo"}},
            "prompts/get trip",
            "CLIENT",
            {"gen_ai.prompt.name": "trip", "gen_ai.prompt.variable.city": "Oslo"},
        ),
        ("my own type", {"any": 1}, "my own type", "INTERNAL", {}),
    ],
)
def test_a_step_follows_the_conventions(
    type_: str, payload: dict[str, Any], name: str, kind: str, attributes: dict[str, Any]
) -> None:
    out = step(type_, payload)
    assert (out.name, out.kind, out.status) == (name, kind, "UNSET")
    assert {key: out.attributes.get(key) for key in attributes} == attributes
    assert out.scope.schema_url == "https://opentelemetry.io/schemas/gen-ai/0.1.0"


def test_a_call_of_mcp_that_failed_has_its_code() -> None:
    called = {"method": "tools/call", "target": "look"}
    assert step("mcp", called, {"is_error": True}).attributes["error.type"] == "tool_error"
    failed = step("mcp", called, {"is_error": True, "error_code": -32602})
    assert failed.attributes["rpc.response.status_code"] == "-32602"


def test_a_call_of_a_model_has_its_request_and_its_answer() -> None:
    asked = {
        "model": "m",
        "provider": "openai",
        "system": "Be brief.",
        "stop_sequences": ["x"],
        "top_k": 4,
        "temperature": 1,
    }
    asked |= {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}
    said = {"text": "yes", "finish_reason": "stop", "time_to_first_token_ms": 250.0, "input_audio_tokens": 3}
    out = parsed(step("llm", asked, said, session="s1").attributes)
    expected = {
        "gen_ai.provider.name": "openai",
        "gen_ai.system_instructions": [{"type": "text", "content": "Be brief."}],
        "gen_ai.request.stop_sequences": ["x"],
        "gen_ai.request.top_k": 4,
        "gen_ai.tool.definitions": [{"type": "function", "name": "f", "parameters": {}}],
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.audio.input_tokens": 3,
        "gen_ai.conversation.id": "s1",
        OUTPUT: [{"role": "assistant", "parts": [{"type": "text", "content": "yes"}]}],
    }
    assert {name: out.get(name) for name in expected} == expected
    assert type(out["gen_ai.request.temperature"]) is float, "the conventions have a double"


def test_a_number_that_no_target_could_hold_is_left_out() -> None:
    out = step("llm", {"model": "m", "temperature": 10**400}, {"time_to_first_token_ms": 10**400}).attributes
    assert out.keys().isdisjoint({"gen_ai.request.temperature", "gen_ai.response.time_to_first_chunk"})


def test_an_agent_has_its_input_and_its_answer_as_messages() -> None:
    out = parsed(step("agent", {"name": "a", "input": "Where?"}, {"output": "Here.", "stop_reason": "stop"}).attributes)
    assert out[INPUT] == [{"role": "user", "parts": [{"type": "text", "content": "Where?"}]}]
    assert out[OUTPUT] == [{"role": "assistant", "parts": [{"type": "text", "content": "Here."}]}]
    assert out["gen_ai.response.finish_reasons"] == ["stop"]


@pytest.mark.parametrize("name", ["finish_reason", "stop_reason", "stopReason"])
@pytest.mark.parametrize("type_", ["llm", "agent"])
def test_why_a_model_stopped_goes_out_and_comes_back_as_the_column(type_: str, name: str) -> None:
    out = step(type_, {"name": "a", "model": "m"}, {name: "end_turn"})
    assert out.attributes[REASONS] == ["end_turn"]
    storage = MemoryStorage()
    operation = {"llm": "chat", "agent": "invoke_agent"}[type_]
    import_spans(Context(storage), [span({"gen_ai.operation.name": operation, REASONS: ["end_turn", "length"]})])
    rows = [row for run in storage.ask(Query("agent_instance")).rows for row in storage.ask(SpansOf(run.id))]
    assert [row.finish_reason for row in rows] == ["end_turn"]


IMAGE = {"type": "blob", "modality": "image", "mime_type": "image/png", "content": PNG}


@pytest.mark.parametrize(
    ("part", "out"),
    [
        ({"type": "text", "text": "hi"}, {"type": "text", "content": "hi"}),
        ("hi", {"type": "text", "content": "hi"}),
        ({"type": "reasoning", "text": "so"}, {"type": "reasoning", "content": "so"}),
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}, IMAGE),
        ({"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}, IMAGE),
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}, IMAGE),
        ({"inline_data": {"mime_type": "image/png", "data": PNG}}, IMAGE),
        (
            {"type": "image_url", "image_url": {"url": "https://x/a.png"}},
            {"type": "uri", "modality": "image", "uri": "https://x/a.png"},
        ),
        (
            {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}},
            {"type": "uri", "modality": "image", "uri": "https://x/a.png"},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": PNG, "format": "mp3"}},
            {"type": "blob", "modality": "audio", "mime_type": "audio/mpeg", "content": PNG},
        ),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PNG}},
            {"type": "blob", "modality": "document", "mime_type": "application/pdf", "content": PNG},
        ),
        ({"type": "file", "file": {"file_id": "f1"}}, {"type": "file", "modality": "document", "file_id": "f1"}),
        ({"type": "input_file", "file_id": "f1"}, {"type": "file", "modality": "document", "file_id": "f1"}),
        (IMAGE, IMAGE),
        ({"type": "uri", "modality": "audio", "uri": "gs://a"}, {"type": "uri", "modality": "audio", "uri": "gs://a"}),
        ({"type": "mine", "x": 1}, {"type": "mine", "x": 1}),
    ],
)
def test_a_part_of_a_message_has_the_form_of_the_conventions(part: Any, out: dict[str, Any]) -> None:
    sent_ = step("llm", {"model": "m", "messages": [{"role": "user", "content": [part, {"type": "mine"}]}]})
    assert parsed(sent_.attributes)[INPUT][0]["parts"][0] == out


def test_calls_of_tools_and_their_answers_are_parts() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    asked = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    asked += [{"role": "tool", "tool_call_id": "c1", "content": "7"}]
    out = parsed(step("llm", {"model": "m", "messages": asked}).attributes)
    assert out[INPUT] == [
        {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "f", "arguments": {"x": 1}}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "7"}]},
    ]


def test_a_span_goes_out_as_it_came() -> None:
    events = (Event("retry", 1_250_000_000, {"attempt": 2}), exception("ValueError", "no"))
    told = {
        **CHAT,
        "server.address": "api.example",
        "gen_ai.response.finish_reasons": ["stop", "length"],
        "gen_ai.usage.cache_write.input_tokens": 5,
        "mine": {"a": [1, None, {"b": 2.5}]},
    }
    links = (Link("c" * 32, "d" * 16, {"why": "batch"}, "x=1"),)
    about: dict[str, Any] = {"events": events, "links": links, "trace_state": "vendor=1", "dropped": {"events": 3}}
    came = span(told, "my call", "my.scope", kind="CLIENT", status="ERROR", status_message="no", **about)
    (out,) = through([came])
    assert (out.name, out.kind, out.status, out.status_message) == ("chat m", "CLIENT", "ERROR", "no")
    assert (out.links, out.trace_state, out.dropped) == (links, "vendor=1", {"events": 3})
    assert [event.name for event in out.events] == ["retry", "exception"]
    assert out.events[0] == events[0]
    assert {name: out.attributes[name] for name in told} == told
    assert (out.attributes["otel.scope.name"], out.attributes["otel.scope.version"]) == ("my.scope", "1.0")


def test_a_status_that_nobody_set_stays_unset() -> None:
    assert [through([span(CHAT, status=status)])[0].status for status in ("UNSET", "OK")] == ["UNSET", "OK"]


def test_a_link_within_the_trace_names_the_span_that_goes_out() -> None:
    root = span({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "a"}, "invoke_agent a")
    link = Link(root.trace_id, root.span_id)
    child = span(CHAT, "chat m", span_id="c" * 16, parent_span_id=root.span_id, links=(link,))
    out = {each.name: each for each in through([root, child])}
    (target,) = out["chat m"].links
    assert (target.trace_id, target.span_id) == (out["invoke_agent a"].trace_id, out["invoke_agent a"].span_id)


def test_members_of_a_payload_that_only_look_like_those_of_a_span_do_no_harm() -> None:
    odd = {"events": ["x", {"name": "e", "time": "noon"}, {"name": 1}], "links": [{"trace_id": "1"}, 2]}
    out = step("mine", {**odd, "otel": "yes", "attributes": [1], "dropped": {"events": -1}})
    assert (out.kind, out.links, out.dropped) == ("INTERNAL", (), {})
    assert [event.name for event in out.events] == ["e"]


MEMBERS = """
role content parts type text tool_calls function name arguments id kwargs lc data messages image_url source file url
output input output_messages system tools method target is_error error_code model temperature stop_sequences kind
otel attributes events links dropped trace_id time trace_state operation status error finish_reason
"""
WORDS = ["user", "tool", "image_url", "file", "constructor", "message", "tools/call", "prompts/get", "OK"]


@given(
    type_=st.sampled_from([*BUILT_IN_TYPES]),
    sides=st.tuples(*[json_of(st.sampled_from(MEMBERS.split()), st.sampled_from(WORDS))] * 2),
)
@example(type_="llm", sides=({"messages": [{"role": "user", "content": [{"type": ["x"]}]}]}, {}))
def test_no_payload_keeps_a_run_from_going_out(type_: str, sides: tuple[Any, Any]) -> None:
    names = ("messages", "output_messages")
    payload, result = (
        {name: [side]} | (side if isinstance(side, dict) else {}) for name, side in zip(names, sides, strict=True)
    )
    row = SENT._replace(schema_name=type_, payload=json.dumps(payload), result_payload=json.dumps(result))
    request = writing.request(RUN, [row], with_run=False)
    assert len(protobuf_bodies.spans(trace_request(request)).spans) == 1
    assert len(json_bodies.spans(request).spans) == 1


def test_an_attribute_of_another_span_is_not_taken_for_agentspans() -> None:
    (out,) = through([span({**CHAT, "agentspan.run.status": "failed", "agentspan.summary": "x"})])
    assert "agentspan.run.status" not in out.attributes
    assert out.attributes["agentspan.summary"] != "x"


def test_a_span_of_nearly_all_the_values_that_a_receiver_takes_is_stored_there() -> None:
    storage, copy = MemoryStorage(), MemoryStorage()
    import_spans(Context(storage), [span({**CHAT, "many": [1] * (MAX_VALUES - 10)})])
    assert import_spans(Context(copy), sent(storage)).spans == 1


def test_a_score_is_sent_once() -> None:
    event = Event("gen_ai.evaluation.result", 1_500_000_000, {"gen_ai.evaluation.name": "good"})
    judged = Event(event.name, event.time_ns, {**event.attributes, "gen_ai.evaluation.score.value": 0.5})
    (out,) = through([span(CHAT, events=(judged,))])
    assert [each.name for each in out.events] == ["gen_ai.evaluation.result"]


def test_a_score_among_the_attributes_is_one_in_the_copy() -> None:
    judged = {"annotations.0.annotation.name": "good", "annotations.0.annotation.score": 0.5}
    storage, copy = MemoryStorage(), MemoryStorage()
    import_spans(Context(storage), [span({**CHAT, **judged}, end_ns=2_000_000_001)])
    out = sent(storage)
    import_spans(Context(copy), out)
    id = str(out[0].attributes["agentspan.id"])
    ids = [[score.id for score in agentspan.open(each).scores.list(id, history=True)] for each in (storage, copy)]
    assert len(ids[0]) == 1
    assert ids[0] == ids[1]


PLAN = {"gen_ai.operation.name": "plan", "gen_ai.agent.name": "guide"}
SKILL = {"gen_ai.skill.name": "pdf", "gen_ai.skill.resource.name": "a.md", "gen_ai.skill.source.uri": "file:///pdf"}
PHOTO = [
    {"role": "user", "parts": [{"type": "text", "content": "Where?"}, {"type": "uri", "modality": "image", "uri": "x"}]}
]
TURN = [{"role": "assistant", "parts": [{"type": "text", "content": "Here."}], "finish_reason": "stop"}]


@pytest.mark.parametrize(
    ("name", "kind", "attributes"),
    [
        ("plan guide", "INTERNAL", PLAN),
        ("generate_content m", "CLIENT", {**CHAT, "gen_ai.operation.name": "generate_content"}),
        ("create_agent a", "CLIENT", {"gen_ai.operation.name": "create_agent", "gen_ai.agent.name": "a"}),
        ("invoke_workflow w", "INTERNAL", {"gen_ai.operation.name": "invoke_workflow", "gen_ai.agent.name": "w"}),
        (
            "upsert_memory",
            "CLIENT",
            {
                "gen_ai.operation.name": "upsert_memory",
                "gen_ai.memory.store.id": "s",
                "gen_ai.memory.record.id": "r",
                "gen_ai.memory.record.count": 1,
                "gen_ai.memory.records": '[{"content": "tea"}]',
            },
        ),
        ("delete_memory_store", "CLIENT", {"gen_ai.operation.name": "delete_memory_store"}),
        (
            "execute_tool read_skill_resource",
            "INTERNAL",
            {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "read_skill_resource", **SKILL},
        ),
        (
            "chat m",
            "CLIENT",
            {
                **CHAT,
                "gen_ai.usage.audio.input_tokens": 1,
                "gen_ai.usage.text.cache_read.input_tokens": 2,
                "gen_ai.usage.image.output_tokens": 3,
                "gen_ai.request.top_k": 4,
                "gen_ai.response.finish_reasons": ["stop"],
                INPUT: json.dumps([{"role": "system", "parts": [{"type": "text", "content": "Brief."}]}, *PHOTO]),
                OUTPUT: json.dumps(TURN),
            },
        ),
        (
            "invoke_agent a",
            "INTERNAL",
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": "a",
                "gen_ai.request.model": "m",
                "gen_ai.response.finish_reasons": ["stop"],
                INPUT: json.dumps(PHOTO),
            },
        ),
        (
            "retrieval kb",
            "CLIENT",
            {
                "gen_ai.operation.name": "retrieval",
                "gen_ai.data_source.id": "kb",
                "gen_ai.retrieval.top_k": 4,
                "gen_ai.retrieval.documents": '[{"id": "d", "score": 0.5}]',
            },
        ),
        (
            "tools/call look",
            "SERVER",
            {
                "mcp.method.name": "tools/call",
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "look",
                "mcp.session.id": "s",
                "mcp.protocol.version": "2025-11-25",
                "jsonrpc.request.id": "7",
                "gen_ai.tool.call.arguments": '{"x": 1}',
                "gen_ai.tool.call.result": '{"y": 2}',
                "network.transport": "pipe",
            },
        ),
        ("prompts/get trip", "CLIENT", {"mcp.method.name": "prompts/get", "gen_ai.prompt.variable.city": "Oslo"}),
    ],
)
def test_a_span_of_the_conventions_goes_out_with_the_same_attributes(
    name: str, kind: str, attributes: dict[str, Any]
) -> None:
    (out,) = through([span(attributes, name, url="https://opentelemetry.io/schemas/gen-ai/0.1.0", kind=kind)])
    assert (out.name, out.kind) == (name, kind)
    found, expected = parsed(out.attributes), parsed(attributes)
    assert {each: found.get(each) for each in expected} == expected
    others = {each for each in out.attributes if each.startswith(("gen_ai.", "mcp."))} - attributes.keys()
    assert others <= {"gen_ai.prompt.name"}, "nothing was added but what the name of the span says"


def test_the_answer_of_an_agent_goes_out_as_it_came() -> None:
    agent = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "a", OUTPUT: json.dumps(TURN)}
    out = parsed(through([span(agent, "invoke_agent a")])[0].attributes)
    assert out[OUTPUT][0]["parts"] == TURN[0]["parts"]
    assert out["gen_ai.response.finish_reasons"] == ["stop"]


NAMED = ("chat ", "embeddings ", "retrieval", "execute_tool ", "invoke_agent ", "vector_db_retrieve ")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "langgraph-langsmith"])
def test_statuses_and_links_of_a_recording_go_out_as_they_came(name: str) -> None:
    for came, out in _pairs(name):  # LangSmith says OK of calls that failed
        assert (out.status, out.links) == (came.status, came.links)


@pytest.mark.parametrize("name", NAMES)
def test_steps_of_a_recording_go_out_with_names_and_kinds_of_the_conventions(name: str) -> None:
    for came, out in _pairs(name):
        type_ = out.attributes["agentspan.schema_name"]
        if type_ in ("llm", "embedding", "retrieval", "tool", "agent"):
            assert f"{out.name} ".startswith(NAMED)
            assert out.name == came.name or not came.name.startswith(NAMED), "a name of the conventions stays"
        else:
            assert out.name == came.name
        if type_ in ("llm", "embedding", "retrieval"):
            assert out.kind == "CLIENT"
        elif came.kind != "INTERNAL":
            assert out.kind == came.kind


def test_only_a_whole_workflow_is_one() -> None:
    """A step inside has its own name, and no operation that the conventions have another meaning for."""
    chain = {"openinference.span.kind": "CHAIN"}
    graph = span(chain, "graph", "openinference.instrumentation.langchain", span_id="a" * 16)
    inside = span(chain, "model", graph.scope.name, span_id="b" * 16, parent_span_id="a" * 16)
    out = {each.name: each.attributes.get("gen_ai.operation.name") for each in through([graph, inside])}
    assert out == {"graph": "invoke_workflow", "model": None}


@pytest.mark.parametrize(
    ("type_", "payload", "found"),
    [
        ("agent", {"name": "a", "input": "Where?"}, ("Where?", "text/plain")),
        ("chain", {"name": "c", "input": {"at": 1}}, ('{"at":1}', "application/json")),
        (
            "llm",
            {"model": "m", "messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "!"}]},
            ("Where?", "text/plain"),
        ),
        ("retrieval", {"query": "tea"}, ("tea", "text/plain")),
        ("tool", {"name": "look", "arguments": {"at": 1}}, ('{"at":1}', "application/json")),
        ("message", {"role": "user", "content": "Where?"}, ("Where?", "text/plain")),
        ("message", {"role": "assistant", "content": "Here."}, ("trip", "text/plain")),
        ("my own type", {}, ("trip", "text/plain")),
    ],
)
def test_the_span_of_a_run_has_the_input_of_its_first_step_else_its_task(
    type_: str, payload: dict[str, Any], found: tuple[str, str]
) -> None:
    storage = MemoryStorage()
    tracer = agentspan.Tracer(storage, raise_errors=True)
    with tracer.run("guide", task="trip"), tracer.span("custom"), tracer.span(type_, payload):
        pass
    tracer.flush()
    run = sent(storage)[-1].attributes
    assert (run["input.value"], run["input.mime_type"]) == found


@pytest.mark.parametrize(
    ("steps", "fields", "found"),
    [
        ([("agent", {"output": {"dry": True}})], {}, ('{"dry":true}', "application/json")),
        ([("llm", {"text": "Dry."}), ("tool", {"output": "1"}), ("my own type", {})], {}, ("1", "text/plain")),
        ([("llm", {"text": "Wet."}), ("llm", {"text": "Dry."})], {}, ("Dry.", "text/plain")),
        ([("llm", {"text": "Wet."})], {"output": "Dry."}, ("Dry.", "text/plain")),
        ([("llm", {"text": "Wet."})], {"sky": "dry"}, ('{"sky":"dry"}', "application/json")),
        ([("my own type", {"a": 1})], {}, ("inside", "text/plain")),
    ],
)
def test_the_span_of_a_run_has_its_result_else_the_output_of_its_last_step(
    steps: list[tuple[str, dict[str, Any]]], fields: dict[str, Any], found: tuple[str, str]
) -> None:
    storage = MemoryStorage()
    tracer = agentspan.Tracer(storage, raise_errors=True)
    with tracer.run("guide") as open_run:
        for type_, result in steps:
            with tracer.span(type_, {"name": "a", "model": "m"}) as outer, tracer.span("llm", {"model": "m"}) as inner:
                inner.set_result({"text": "inside"})
                outer.set_result(result)
        if fields:
            open_run.set_result(fields)
    tracer.flush()
    run = sent(storage)[-1].attributes
    assert (run["output.value"], run["output.mime_type"]) == found


def test_a_failed_run_has_no_output() -> None:
    storage = MemoryStorage()
    tracer = agentspan.Tracer(storage, raise_errors=True)
    with suppress(KeyError), tracer.run("guide"):
        tracer.span("llm")(lambda: {"text": "Dry."})()
        raise KeyError
    tracer.flush()
    assert "output.value" not in sent(storage)[-1].attributes


def test_tokens_of_an_agent_go_out_with_the_calls_inside_alone() -> None:
    used = {"input_tokens": 8, "output_tokens": 2}
    assert not [name for name in step("agent", {"name": "a"}, used).attributes if "usage" in name]
    assert step("agent", {"name": "a", "own_tokens": True}, used).attributes["gen_ai.usage.input_tokens"] == 8


RENAMED = {"gen_ai.workflow.name": "gen_ai.agent.name", "gen_ai.system": "gen_ai.provider.name"}


@pytest.mark.parametrize("name", [name for name in NAMES if "genai" in name or name in ("mcp-client", "mcp-server")])
def test_a_recording_of_the_conventions_goes_out_as_it_came(name: str) -> None:
    for came, out in _pairs(name):
        expected = {RENAMED.get(each, each): _sorted(value) for each, value in parsed(came.attributes).items()}
        found = parsed(out.attributes)
        assert {each: _sorted(found.get(each)) for each in expected} == expected


def _pairs(name: str) -> list[tuple[OtelSpan, OtelSpan]]:
    """The spans of a recording, each with itself as it goes out."""
    spans, logs = recorded(name)
    both = (sorted(each, key=_place) for each in (spans, through(spans, logs)))
    return [*zip(*both, strict=True)]


def _place(each: OtelSpan) -> tuple[Any, ...]:
    return (each.start_ns // 1000, each.name, (each.end_ns or 0) // 1000)


def _sorted(value: Any) -> Any:
    """JSON without nulls, and with the texts of a message before its calls of tools, as agentspan keeps them."""
    if isinstance(value, dict):
        return {name: _sorted(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        found = [_sorted(item) for item in value]
        are_parts = all(isinstance(item, dict) and "type" in item for item in found)
        return sorted(found, key=lambda item: item["type"] == "tool_call") if are_parts else found
    return value
