"""Families of attributes that no recording here has, and versions of one: where each value goes."""

import json
from dataclasses import replace
from typing import Any

import pytest

from agentspan import jsontext
from agentspan.otel.mapping.draft import MAX_VALUES, Draft, Family
from agentspan.otel.mapping.mapped import map_span
from agentspan.otel.span import MAX_SCOPE, Event, Link, Log, Scope, scope_attributes
from tests.otel.recorded import mapped, plain, span

USER = {"role": "user", "content": "hi"}
CITY = {"city": "Seattle"}


def _json(value: Any) -> str:
    return json.dumps(value)


def test_a_plain_span_has_its_own_name_as_type_and_keeps_its_attributes() -> None:
    told = mapped({"country": "US"}, "look up rules", scope="visa-server")
    assert (told.schema_name, told.type, told.families) == ("look up rules", "custom", ())
    assert told.payload == {"attributes": {"country": "US"}}
    assert told.result_payload is None


@pytest.mark.parametrize("name", ["llm", "agent", "my:tool:x", "", " ", "\x00"])
def test_a_plain_span_whose_name_means_a_type_is_custom(name: str) -> None:
    assert mapped({}, name).schema_name in ("custom", "\ufffd")
    assert mapped({}, name).type == "custom"


def test_an_id_in_a_name_makes_no_type() -> None:
    ids = ("15be94af-5e1d-4236-8f2c-925f4578eaff", "0f" * 16, "20261202")
    names = [f"autogen process one_{id}.({id})-A" for id in ids]
    found = [map_span(span({}, name)) for name in names]
    assert {each.schema_name for each in found} == {"autogen process one_*.(*)-A"}
    assert [each.payload["otel"]["name"] for each in found] == names
    assert map_span(span({}, "step 12 of v1.2")).schema_name == "step 12 of v1.2"


def test_zeros_for_tokens_are_no_usage() -> None:
    zeros = {"llm.token_count.prompt": 0, "llm.token_count.completion": 0, "llm.cost.total": 0.0}
    call = {"openinference.span.kind": "LLM", "llm.model_name": "m", **zeros}
    assert (map_span(span(call)).result_payload or {}).keys() == {"response_model"}
    one = map_span(span({**call, "llm.token_count.prompt": 3})).result_payload or {}
    assert (one["input_tokens"], one["output_tokens"], one["cost_usd"]) == (3, 0, 0.0)


@pytest.mark.parametrize(("kind", "method"), [("EMBEDDING", "get_query_embedding"), ("RETRIEVER", "retrieve")])
def test_llama_index_embeds_and_retrieves_once(kind: str, method: str) -> None:
    scope = "openinference.instrumentation.llama_index"
    both = [
        map_span(span({"openinference.span.kind": kind}, f"A.{name}", scope)).type for name in (method, f"_{method}")
    ]
    assert both == ["embedding" if kind == "EMBEDDING" else "retrieval", "chain"]


def test_to_create_an_agent_is_no_run() -> None:
    made, called = (
        {"gen_ai.operation.name": f"{verb}_agent", "gen_ai.agent.name": "a"} for verb in ("create", "invoke")
    )
    assert [map_span(span(each)).run.is_own for each in (made, called)] == [False, True]


def test_openinference_before_genai_field_by_field() -> None:
    told = mapped(
        {
            "openinference.span.kind": "LLM",
            "llm.model_name": "gpt-4.1-mini-2026-04-14",
            "llm.invocation_parameters": _json({"model": "gpt-4.1-mini", "temperature": 0.2, "seed": 7, "user": "mia"}),
            "llm.token_count.prompt": 10,
            "gen_ai.operation.name": "chat",
            "gen_ai.usage.input_tokens": 99,
            "gen_ai.usage.output_tokens": 5,
        }
    )
    assert told.type == "llm"
    assert told.payload["model"] == "gpt-4.1-mini"
    assert (told.payload["temperature"], told.payload["seed"]) == (0.2, 7)
    assert told.payload["parameters"] == {"user": "mia"}
    assert told.result_payload is not None
    assert told.result_payload["response_model"] == "gpt-4.1-mini-2026-04-14"
    assert (told.result_payload["input_tokens"], told.result_payload["output_tokens"]) == (10, 5)
    assert told.payload["attributes"]["gen_ai.usage.input_tokens"] == 99, "what says something else is kept"


def test_flat_messages_may_have_holes() -> None:
    told = mapped(
        {
            "openinference.span.kind": "LLM",
            "llm.input_messages.7.message.role": "user",
            "llm.input_messages.7.message.content": "second",
            "llm.input_messages.12.message.role": "tool",
            "llm.input_messages.12.message.tool_call_id": "call_1",
            "llm.input_messages.12.message.content": "third",
            "llm.input_messages.x": "kept",
        },
        dropped={"attributes": 20},
    )
    assert told.payload["messages"] == [
        {"role": "user", "content": "second"},
        {"role": "tool", "content": "third", "tool_call_id": "call_1"},
    ]
    assert told.payload["attributes"] == {"llm.input_messages.x": "kept"}
    assert told.payload["dropped"] == {"attributes": 20}, "what an SDK's limit cut off is said"


@pytest.mark.parametrize(
    ("url", "attributes", "family"),
    [
        ("https://opentelemetry.io/schemas/1.30.0", {"gen_ai.provider.name": "openai"}, "GenAI 2024"),
        ("https://opentelemetry.io/schemas/1.37.0", {"gen_ai.system": "openai"}, "GenAI 2025"),
        ("https://opentelemetry.io/schemas/gen-ai/0.1.0", {"gen_ai.system": "openai"}, "GenAI 2026"),
        ("https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev", {"gen_ai.system": "openai"}, "GenAI 2026"),
        ("", {"gen_ai.system": "openai"}, "GenAI 2024"),
        ("", {"gen_ai.provider.name": "openai"}, "GenAI 2025"),
        ("", {"gen_ai.provider.name": "openai", "gen_ai.usage.cache_write.input_tokens": 1}, "GenAI 2026"),
    ],
)
def test_the_version_of_a_convention_follows_its_url_then_its_attributes(
    url: str, attributes: dict[str, Any], family: str
) -> None:
    assert map_span(span(attributes, url=url)).families == (family,)


@pytest.mark.parametrize("name", ["cache_write", "cache_creation"])
def test_both_names_of_written_tokens_are_read(name: str) -> None:
    told = mapped({"gen_ai.operation.name": "chat", f"gen_ai.usage.{name}.input_tokens": 16})
    assert told.result_payload == {"cache_write_tokens": 16}


def test_the_oldest_names_of_tokens_are_read() -> None:
    said = {"gen_ai.system": "openai", "gen_ai.operation.name": "chat"}
    told = mapped({**said, "gen_ai.usage.prompt_tokens": 7, "gen_ai.usage.completion_tokens": 3})
    assert told.result_payload == {"input_tokens": 7, "output_tokens": 3}


def test_log_records_join_their_span() -> None:
    ids = ("a" * 32, "b" * 16)
    logs = [
        Log(*ids, Event("gen_ai.system.message", 1, {}, {"content": "Be brief."})),
        Log(*ids, Event("gen_ai.user.message", 2, {}, {"content": "hi"})),
        Log(*ids, Event("gen_ai.choice", 3, {}, {"finish_reason": "stop", "message": {"content": "Hello."}})),
    ]
    told = map_span(span({"gen_ai.system": "openai", "gen_ai.operation.name": "chat"}), logs)
    assert told.payload["system"] == "Be brief."
    assert told.payload["messages"] == [{"role": "user", "content": "hi"}]
    assert told.result_payload is not None
    assert (told.result_payload["text"], told.result_payload["finish_reason"]) == ("Hello.", "stop")
    assert "events" not in told.payload


def test_messages_may_be_events_of_the_span() -> None:
    said = {"role": "user", "content": "hi"}
    events = (
        Event("gen_ai.content.prompt", 1, {"gen_ai.prompt": _json([said])}),
        Event(
            "gen_ai.content.completion", 2, {"gen_ai.completion": _json([{"role": "assistant", "content": "Hello."}])}
        ),
    )
    told = map_span(span({"gen_ai.system": "openai", "gen_ai.operation.name": "chat"}, events=events))
    assert told.payload["messages"] == [said]
    assert told.result_payload is not None
    assert told.result_payload["text"] == "Hello."


CHOICE = {"finish_reason": "stop", "message": {"content": "Yes"}}


def test_mlflow_quotes_everything() -> None:
    told = mapped(
        {
            "mlflow.spanType": '"CHAT_MODEL"',
            "mlflow.llm.model": '"gpt-4.1-mini-2026-04-14"',
            "mlflow.spanInputs": _json({"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hi"}]}),
            "mlflow.spanOutputs": _json(
                {"id": "c1", "choices": [{"finish_reason": "stop", "message": {"content": "Yes"}}]}
            ),
            "mlflow.chat.tokenUsage": _json({"input_tokens": 330, "output_tokens": 36, "cache_read_input_tokens": 82}),
        }
    )
    assert told.type == "llm"
    assert told.payload["model"] == "gpt-4.1-mini"
    assert told.payload["messages"] == [{"role": "user", "content": "hi"}]
    assert told.result_payload == {
        "response_model": "gpt-4.1-mini-2026-04-14",
        "input_tokens": 330,
        "output_tokens": 36,
        "cached_tokens": 82,
        "finish_reason": "stop",
        "output_messages": [{"role": "assistant", "content": "Yes"}],
        "text": "Yes",
        "response_id": "c1",
    }


@pytest.mark.parametrize(
    ("kind", "type_"), [("AGENT", "agent"), ("UNKNOWN", "chain"), ("TOOL", "tool"), ("x", "custom")]
)
def test_mlflow_types(kind: str, type_: str) -> None:
    assert mapped({"mlflow.spanType": _json(kind)}).type == type_


def test_langfuse() -> None:
    told = mapped(
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.model.name": "gpt-4.1-mini-2026-04-14",
            "langfuse.observation.input": _json(
                {"tools": [{"name": "f"}], "messages": [{"role": "user", "content": "hi"}]}
            ),
            "langfuse.observation.output": _json({"role": "assistant", "content": "Yes"}),
            "langfuse.observation.usage_details": _json({"prompt_tokens": 330, "completion_tokens": 36}),
            "langfuse.observation.cost_details": _json({"input": 0.1, "output": 0.2}),
            "langfuse.observation.model.parameters": _json({"temperature": 0.2, "max_tokens": "Infinity"}),
            "session.id": "trip-7",
            "user.id": "mia",
        }
    )
    assert told.type == "llm"
    assert told.payload["tools"] == [{"name": "f"}]
    assert told.payload["temperature"] == 0.2
    result = told.result_payload or {}
    assert (result["text"], result["input_tokens"], result["output_tokens"]) == ("Yes", 330, 36)
    assert result["cost_usd"] == pytest.approx(0.3)
    assert (told.run.session, told.run.user) == ("trip-7", "mia")


def test_langfuse_tells_provider_and_finish_reason_beside_the_fields() -> None:
    said = {"langfuse.observation.type": "generation", "langfuse.observation.model.name": "m"}
    meta = {f"langfuse.observation.metadata.{name}": _json(value) for name, value in (("ls_provider", "anthropic"),
            ("finish_reason", "stop"))}  # fmt: skip
    told = mapped({**said, **meta}, "mine", scope="langfuse-sdk")
    assert (told.payload["provider"], told.result_payload) == ("anthropic", {"finish_reason": "stop"})
    assert "attributes" not in told.payload
    assert mapped(said, "OpenAI-generation", scope="langfuse-sdk").payload["provider"] == "openai"
    answer = {"choices": [{"message": {"content": "Yes"}, "finish_reason": "length"}]}
    whole = mapped({**said, "langfuse.observation.output": _json(answer)})
    assert (whole.result_payload or {})["finish_reason"] == "length"


def test_langfuse_takes_the_parts_of_langchains_tokens_out_of_their_sum() -> None:
    said = {"langfuse.observation.type": "generation", "langfuse.observation.model.name": "m"}
    used = {"input": 8, "input_cache_read": 2, "output": 4, "output_reasoning": 3, "total": 17}
    told = mapped({**said, "langfuse.observation.usage_details": _json(used)})
    assert told.result_payload == {"input_tokens": 10, "cached_tokens": 2, "output_tokens": 7, "reasoning_tokens": 3}
    used = {"input_tokens": 9, "input_audio": 2, "output_tokens": 4}
    told = mapped({**said, "langfuse.observation.usage_details": _json(used)})
    assert told.result_payload == {"input_tokens": 9, "output_tokens": 4}


def test_an_item_of_an_answer_has_an_id_that_is_not_the_answers() -> None:
    said = {"langfuse.observation.type": "generation", "langfuse.observation.model.name": "m"}
    item = {"id": "i1", "type": "message", "status": "completed", "role": "assistant", "content": [{"text": "Yes"}]}
    assert "response_id" not in (mapped({**said, "langfuse.observation.output": _json(item)}).result_payload or {})


def test_langfuse_errors_have_a_level() -> None:
    said = {"langfuse.observation.type": "tool", "langfuse.observation.level": "ERROR"}
    told = mapped({**said, "langfuse.observation.status_message": "no seats"})
    assert told.status == "failed"
    assert told.result_payload == {"error": {"type": "Error", "message": "no seats"}}


def test_old_vercel_takes_tokens_of_the_inner_span_for_calls() -> None:
    usage = {"ai.usage.inputTokens": 356, "ai.usage.outputTokens": 36, "ai.usage.cachedInputTokens": 89}
    outer = mapped({"ai.operationId": "ai.generateText", "ai.telemetry.functionId": "travel-agent", **usage})
    inner = mapped(
        {
            "ai.operationId": "ai.generateText.doGenerate",
            "ai.model.id": "gpt-4.1-mini",
            "ai.model.provider": "openai.responses",
            "ai.prompt.messages": _json(
                [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
            ),
            "ai.prompt.tools": ['{"type":"function","name":"get_weather"}'],
            "ai.response.text": "I will look that up.",
            "ai.response.toolCalls": _json(
                [{"toolCallId": "c1", "toolName": "get_weather", "input": {"city": "Seattle"}}]
            ),
            "ai.response.finishReason": "tool-calls",
            "ai.response.msToFirstChunk": 66.8,
            **usage,
        }
    )
    assert (outer.type, outer.payload["name"]) == ("agent", "travel-agent")
    assert (inner.type, inner.payload["provider"], inner.payload["system"]) == ("llm", "openai", "Be brief.")
    assert inner.payload["tools"] == [{"type": "function", "name": "get_weather"}]
    result = inner.result_payload or {}
    assert result["tool_calls"] == [{"id": "c1", "name": "get_weather", "arguments": {"city": "Seattle"}}]
    assert (result["input_tokens"], result["cached_tokens"], result["time_to_first_token_ms"]) == (356, 89, 66.8)


def test_old_vercel_tool() -> None:
    said = {"ai.toolCall.name": "get_weather", "ai.toolCall.args": '{"city":"Seattle"}', "ai.toolCall.result": "rain"}
    told = mapped({"ai.operationId": "ai.toolCall", **said})
    assert told.payload["arguments"] == {"city": "Seattle"}
    assert told.result_payload == {"output": "rain"}


def test_litellm_does_not_turn_the_users_span_into_a_call() -> None:
    users = {"litellm.call_id": "c1", "gen_ai.operation.name": "acompletion", "gen_ai.usage.input_tokens": 5}
    told = mapped(users, "travel_agent", scope="travel-agent")
    assert (told.type, told.schema_name) == ("custom", "travel_agent")
    assert told.payload["attributes"]["gen_ai.usage.input_tokens"] == 5
    raw = mapped(
        {"llm.openai.model": "gpt-4.1-mini", "llm.openai.usage": "{'prompt_tokens': 5}"},
        "raw_gen_ai_request",
        "litellm",
    )
    assert (raw.type, raw.payload["model"], raw.payload["provider"]) == ("llm", "gpt-4.1-mini", "openai")
    assert raw.result_payload == {"input_tokens": 5}


@pytest.mark.parametrize(
    ("template", "attributes", "type_", "fields"),
    [
        (
            "Function: {name}",
            {"name": "f", "input": '{"a": 1}', "output": "2"},
            "tool",
            {"name": "f", "arguments": {"a": 1}},
        ),
        ("Handoff: {from_agent} → {to_agent}", {"from_agent": "a", "to_agent": "b"}, "handoff", {"from_agent": "a"}),
        ("Guardrail {name!r} {triggered=}", {"name": "g", "triggered": True}, "guardrail", {"name": "g"}),
        ("streaming response from {model} took {duration}s", {"gen_ai.usage.input_tokens": 3}, "custom", {}),
    ],
)
def test_logfires_spans_of_openais_agents(
    template: str, attributes: dict[str, Any], type_: str, fields: dict[str, Any]
) -> None:
    told = mapped({"logfire.msg_template": template, "logfire.msg": "x", **attributes}, scope="logfire.openai_agents")
    assert told.type == type_
    assert fields.items() <= told.payload.items()
    assert "input_tokens" not in (told.result_payload or {})


def test_a_tripped_guardrail_did_not_pass() -> None:
    said = {"logfire.msg_template": "Guardrail {name!r}", "name": "no_weapons", "triggered": True}
    assert mapped(said, scope="logfire.openai_agents").result_payload == {"passed": False}


@pytest.mark.parametrize("kind", ["pending_span", "log"])
def test_logfire_sends_more_than_steps(kind: str) -> None:
    assert not mapped({"logfire.span_type": kind, "logfire.msg": "x"}).is_step


def test_mcp_has_its_target_in_its_name() -> None:
    told = mapped({"mcp.method.name": "tools/call"}, "MCP send tools/call get_weather", scope="mcp-python-sdk")
    assert (told.type, told.payload["method"], told.payload["target"]) == ("mcp", "tools/call", "get_weather")


def test_events_and_links_are_kept() -> None:
    events = (Event("retry", 1_000_000_000, {"attempt": 2}), Event("mlflow.chunk.item.1", 1))
    told = map_span(span({}, events=events, links=(Link("c" * 32, "d" * 16, {"why": "batch"}),)))
    assert told.payload == {
        "events": [{"name": "retry", "time": "1970-01-01T00:00:01.000000Z", "attributes": {"attempt": 2}}],
        "links": [{"trace_id": "c" * 32, "span_id": "d" * 16, "attributes": {"why": "batch"}}],
    }


HOSTILE: list[Any] = [
    None,
    True,
    -1,
    2**70,
    1.5,
    "",
    "x",
    "{",
    "[" * 5000,
    [],
    [None],
    {},
    {"messages": [1, None, {}], "output": [1], "choices": [1], "usage": [1]},
    [[1]],
]


@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_of_an_attribute_breaks_a_mapping(value: Any) -> None:
    """Each attribute that any family reads, with each hostile value, plain and as JSON."""
    names = [
        *("openinference.span.kind", "input.value", "output.value", "llm.invocation_parameters", "tool.parameters"),
        *(
            "llm.input_messages.1",
            "llm.input_messages.0.message",
            "llm.input_messages.0.message.contents.0.message_content.type",
        ),
        *(
            "llm.output_messages.0.message.tool_calls",
            "retrieval.documents.0.document",
            "embedding.embeddings.0.embedding",
        ),
        *("gen_ai.operation.name", "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.call.arguments"),
        *("gen_ai.tool.call.result", "gen_ai.tool.definitions", "gen_ai.response.finish_reasons", "gen_ai.prompt"),
        *("gen_ai.completion", "gen_ai.usage.input_tokens", "gen_ai.system_instructions", "traceloop.entity.input"),
        *("traceloop.entity.output", "traceloop.span.kind", "langsmith.span.kind", "langsmith.metadata.usage_metadata"),
        *("langfuse.observation.type", "langfuse.observation.input", "langfuse.observation.output", "mlflow.spanType"),
        *("mlflow.spanInputs", "mlflow.spanOutputs", "mlflow.chat.tokenUsage", "ai.operationId", "ai.prompt.messages"),
        *("ai.response.toolCalls", "logfire.msg_template", "response_data", "request_data", "events", "error", "usage"),
        *("llm.openai.choices", "llm.openai.messages", "mcp.method.name", "error.type", "session.id", "metadata"),
    ]
    kinds = ("LLM", "TOOL", "AGENT", "CHAIN", "RETRIEVER", "EMBEDDING", "RERANKER", "GUARDRAIL", "EVALUATOR")
    for form in (value, _json(value)):
        hostile = dict.fromkeys(names, form)
        forms = [hostile, *({**hostile, "openinference.span.kind": kind} for kind in kinds)]
        for kind in ("llm", "retriever", "tool", "chain"):
            forms.append({**hostile, "openinference.span.kind": None, "langsmith.span.kind": kind})
        forms += [{name: form for name in names if "openinference" not in name} | {"gen_ai.operation.name": "chat"}]
        forms += [{"mlflow.spanType": '"LLM"', "mlflow.spanInputs": form, "mlflow.spanOutputs": form}]
        forms += [{"langfuse.observation.type": "generation", "langfuse.observation.output": form}]
        forms += [{"ai.operationId": "ai.x.doGenerate", "ai.prompt.messages": form, "ai.response.toolCalls": form}]
        forms += [{"logfire.msg_template": "Responses API with", "response_data": form, "events": form, "usage": form}]
        for attributes in forms:
            kept = {name: item for name, item in attributes.items() if item is not None}
            for status in ("OK", "ERROR"):
                told = map_span(span(kept, "raw_gen_ai_request", scope="litellm", status=status, status_message="{'x'"))
                plain([told.payload, told.result_payload])


def test_a_fault_of_a_mapping_loses_no_span() -> None:
    def broken(draft: Draft) -> None:
        raise KeyError("x")

    families = (Family("broken", lambda span: True, lambda span: "llm", {}, broken),)
    told = map_span(span({"a": 1}, "step", status="ERROR", status_message="no"), families=families)
    assert (told.schema_name, told.status) == ("step", "failed")
    assert (told.payload["unmapped"], told.payload["attributes"]) == ("KeyError", {"a": 1})
    assert told.result_payload == {"error": {"type": "Error", "message": "no"}}


def test_what_is_nested_too_deep_stays_a_text() -> None:
    deep = "[" * 2000 + "]" * 2000
    told = mapped({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.arguments": deep})
    assert told.payload["arguments"] == deep


def _arguments(text: str) -> Any:
    return mapped({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.arguments": text}).payload["arguments"]


def test_what_has_too_many_values_stays_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    half = MAX_VALUES // 2 - 1  # an empty object counts with the comma before it
    read: list[Any] = [[*range(MAX_VALUES)], {"a": [{}] * half}, [[1]] * half]
    for value in read:
        assert _arguments(json.dumps(value)) == value
    prose = {"said": 'one, "two", {three}\\, ' * MAX_VALUES}
    assert _arguments(json.dumps(prose)) == prose
    calls: list[str] = []
    monkeypatch.setattr(jsontext, "decode", calls.append)
    unread: list[Any] = [
        [1] * (MAX_VALUES + 1),
        {str(each): 1 for each in range(MAX_VALUES + 2)},
        [{}] * (half + 2),
        [[]] * (half + 2),
    ]
    for value in unread:
        text = json.dumps(value)
        assert _arguments(text) == text
    assert calls == []


def test_the_texts_of_a_span_may_have_so_many_values_together() -> None:
    inner = json.dumps([1] * (MAX_VALUES // 2))
    told = mapped({"gen_ai.operation.name": "chat", "gen_ai.tool.definitions": json.dumps([inner] * 20)})
    kinds = [type(each) for each in told.payload["tools"]]
    assert kinds.count(list) in (4, 5)  # of six, the list of them and what was read before
    assert kinds == sorted(kinds, key=lambda kind: kind is str)
    again = mapped({"gen_ai.operation.name": "chat", "gen_ai.tool.definitions": json.dumps([inner])})
    assert type(again.payload["tools"][0]) is list


@pytest.mark.parametrize(
    ("scope", "name", "type_"),
    [
        ("openinference.instrumentation.langchain", "ChatOpenAI", "llm"),
        ("openinference.instrumentation.langchain", "tools", "chain"),
        ("openinference.instrumentation.litellm", "acompletion", "llm"),
        ("openinference.instrumentation.litellm", "CreateEmbeddings", "embedding"),
        ("opentelemetry.instrumentation.langchain", "execute_tool get_weather", "tool"),
        ("opentelemetry.instrumentation.langchain", "invoke_agent travel_agent", "agent"),
        ("opentelemetry.util.genai.handler", "chat gpt-4.1-mini", "llm"),
        ("opentelemetry.util.genai.handler", "plan travel_agent", "chain"),
        ("opentelemetry.util.genai.handler", "upsert_memory", "memory"),
        ("openinference.instrumentation.llama_index", "VectorIndexRetriever.retrieve", "retrieval"),
        ("langsmith", "model", "chain"),
        ("travel-agent", "chat gpt-4.1-mini", "custom"),
    ],
)
def test_the_type_of_a_span_that_has_begun_is_guessed(scope: str, name: str, type_: str) -> None:
    assert mapped({}, name, scope, end_ns=None).type == type_
    assert mapped({}, name, scope).type == "custom", "a span that has ended told all"


@pytest.mark.parametrize(
    ("scope", "name", "agent"),
    [
        ("langchain", "LangGraph", "LangGraph"),
        ("langchain", "ChatPromptTemplate", None),
        ("langchain", "StrOutputParser", None),
        ("crewai", "Crew_fb908da1-dcb2-40d1-86b0-831ac2496a7b.kickoff", "Crew"),
        ("dspy", "Predict.aforward", "Predict"),
        ("llama_index", "RetrieverQueryEngine.query", "RetrieverQueryEngine"),
        ("llama_index", "SentenceSplitter.__call__", None),
    ],
)
def test_a_call_of_a_framework_by_the_program_is_a_run(scope: str, name: str, agent: str | None) -> None:
    called = {"openinference.span.kind": "CHAIN"}
    for end_ns in (None, 2_000_000_000):
        root = mapped(called, name, f"openinference.instrumentation.{scope}", end_ns=end_ns).run
        assert (root.agent, root.is_own) == (agent, agent is not None)
        inner = mapped(called, name, f"openinference.instrumentation.{scope}", end_ns=end_ns, parent_span_id="c" * 16)
        assert not inner.run.is_own
    assert not mapped(called, name, "my.program").run.is_own


def test_what_a_span_leaves_at_its_default_mostly_is_kept_where_it_does_not() -> None:
    said: dict[str, Any] = {
        "kind": "CLIENT",
        "status": "OK",
        "trace_state": "agentspan=x,vendor=1",
        "links": (Link("a" * 32, "b" * 16, {"why": "retry"}, "vendor=2"),),
        "events": (Event("gen_ai.choice", 1, {"index": 0}), Event("progress", 2)),
    }
    told = replace(span({}, "GET", "my.http", **said), scope=Scope("my.http", attributes={"team": "search"}))
    payload = map_span(told).payload
    assert payload["otel"] == {
        "kind": "CLIENT",
        "status": "OK",
        "scope_attributes": {"team": "search"},
        "trace_state": "vendor=1",
    }
    assert payload["links"][0]["trace_state"] == "vendor=2"
    assert [event["name"] for event in payload["events"]] == ["gen_ai.choice", "progress"], "it is no call of a model"
    assert "otel" not in map_span(span({}, "plain")).payload


def test_the_attributes_of_a_scope_are_short_since_each_span_repeats_them() -> None:
    assert scope_attributes({"a": "b"}) == {"a": "b"}
    assert scope_attributes({"a": "b" * MAX_SCOPE}) == {}


def test_tools_and_embeddings_of_llama_index_by_traceloop() -> None:
    scope = "opentelemetry.instrumentation.llamaindex"
    asked, made = "traceloop.entity.input", "traceloop.entity.output"
    kind = {"traceloop.span.kind": "task", "traceloop.entity.name": "FunctionTool.task"}
    returned = {"tool_name": "weather", "raw_output": "rain", "is_error": False}
    called = {**kind, asked: _json({"kwargs": {"city": "Rome"}}), made: _json(returned)}
    tool = mapped(called, "FunctionTool.task", scope)
    assert (tool.type, tool.status, tool.payload["name"]) == ("tool", "complete", "weather")
    assert tool.payload["arguments"] == {"city": "Rome"}
    assert tool.result_payload == {"output": "rain"}
    assert (
        mapped({**called, made: _json({**returned, "is_error": True})}, "FunctionTool.task", scope).status == "failed"
    )
    about = {**kind, "gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e"}
    texts = mapped({**about, asked: _json({"texts": ["a", "b"]}), made: "[[1, 2, 3], [4, 5, 6]]"}, "E.task", scope)
    assert (texts.type, texts.payload["model"], texts.payload["input"]) == ("embedding", "e", ["a", "b"])
    assert (texts.payload["input_count"], texts.result_payload) == (2, {"dimensions": 3})
    one = mapped({**about, asked: _json({"query": "a"}), made: "[1, 2]"}, "E.task", scope)
    assert (one.payload["input"], one.payload["input_count"], one.result_payload) == ("a", 1, {"dimensions": 2})


LLAMA_INDEX = "opentelemetry.instrumentation.llamaindex"
TASK = {"traceloop.span.kind": "task", "traceloop.entity.name": "OpenAILike.task"}


def test_calls_of_llama_index_by_traceloop() -> None:
    asked, made = "traceloop.entity.input", "traceloop.entity.output"
    tool = {"type": "function", "function": {"name": "f"}}
    chat = {
        **TASK,
        "gen_ai.operation.name": "chat",
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.input.messages": _json([{"role": "user", "parts": [{"type": "text", "content": "hi"}]}]),
        asked: _json({"messages": [{"role": "user"}], "kwargs": {"tools": [tool]}}),
        made: _json({"message": {"role": "assistant"}, "raw": {"id": "c1"}, "delta": None}),
    }
    told = mapped(chat, "OpenAILike.task", LLAMA_INDEX)
    assert (told.type, told.payload["model"], told.payload["tools"]) == ("llm", "m", [tool])
    assert told.payload["attributes"] == {"traceloop.entity.name": "OpenAILike.task"}
    raw = {"id": "c1", "model": "m", "choices": [{"message": {"content": "sunny"}, "finish_reason": "stop"}]}
    answer = {"text": "sunny", "raw": raw, "additional_kwargs": {"prompt_tokens": 10, "completion_tokens": 4}}
    completion = mapped({**TASK, asked: _json({"prompt": "hi"}), made: _json(answer)}, "OpenAILike.task", LLAMA_INDEX)
    result = completion.result_payload or {}
    assert (completion.type, completion.payload["messages"]) == ("llm", [{"role": "user", "content": "hi"}])
    assert (result["text"], result["finish_reason"], result["response_id"]) == ("sunny", "stop", "c1")
    assert (completion.payload["model"], result["input_tokens"], result["output_tokens"]) == ("m", 10, 4)
    others: tuple[dict[str, Any], ...] = ({"messages": []}, {"args": ["hi"]}, {"prompt": {"template": "hi"}})
    for around in others:
        assert mapped({**TASK, asked: _json(around)}, "OpenAILike.task", LLAMA_INDEX).type == "chain", "no call twice"


def test_retrieval_of_llama_index_by_traceloop_is_one_step() -> None:
    name, asked, made = "VectorIndexRetriever.task", "traceloop.entity.input", "traceloop.entity.output"
    node = {"node": {"id_": "n1", "text": "Rome is sunny", "metadata": {}}, "score": 0.5}
    inner = {"query_bundle": {"query_str": "Rome?"}}
    for query in ("Rome?", {"query_str": "Rome?"}):
        said = {**TASK, asked: _json({"str_or_query_bundle": query}), made: _json([_json(node)])}
        told = mapped(said, name, LLAMA_INDEX)
        assert (told.type, told.payload["query"], told.payload["source"]) == ("retrieval", "Rome?", "OpenAILike")
        assert (told.result_payload or {}) == {
            "documents": [{"id": "n1", "content": "Rome is sunny", "score": 0.5}],
            "count": 1,
        }
    assert mapped({**TASK, asked: _json(inner)}, name, LLAMA_INDEX).type == "chain"


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        (LLAMA_INDEX, {"traceloop.span.kind": "workflow", "traceloop.entity.name": "FunctionAgent.workflow"}),
        ("openinference.instrumentation.llama_index", {"openinference.span.kind": "CHAIN"}),
    ],
)
def test_an_agent_of_llama_index_has_its_name(scope: str, said: dict[str, str]) -> None:
    told = mapped({**said, "agent.name": "weatherman"}, "FunctionAgent.run", scope)
    assert (told.type, told.payload["name"], told.run.agent) == ("agent", "weatherman", "weatherman")
    assert mapped(said, "FunctionAgent.run", scope).type == "chain"


def test_langfuse_tells_the_time_of_the_first_token() -> None:
    began = "langfuse.observation.completion_start_time"
    said = {"langfuse.observation.type": "generation", began: _json("1970-01-01T00:00:01.250000Z")}
    assert (mapped(said).result_payload or {})["time_to_first_token_ms"] == 250.0
    for other in ("1970-01-01T00:00:00Z", "1970-01-01T00:00:01.25", "soon"):
        assert "time_to_first_token_ms" not in (mapped({**said, began: _json(other)}).result_payload or {})
