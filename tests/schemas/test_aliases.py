"""What the official packages of the API send fills tokens, cost, label and error, as agentspan's own names do."""

from typing import Any

import pytest

from agentspan import Database
from agentspan.model.rows import Meaning
from agentspan.schemas.aliases import ALIASES
from agentspan.schemas.span_types import BUILT_IN_TYPES, Registry, describe, error_text, fallback, make
from agentspan.storage.questions import SpansOf

ENVELOPE: dict[str, Any] = {
    "span_id": "s",
    "trace_id": "t",
    "name": "ai:llm-call",
    "status": "complete",
    "metadata": {},
    "error": None,
}
FAILURE = {"error_type": "RateLimitError", "message": "slow down", "stacktrace": "Error: slow down\n  at f"}


def meaning(name: str, payload: dict[str, Any], result: dict[str, Any] | None, status: str = "complete") -> Meaning:
    return describe(fallback(name), name, status, payload, result, 1.0)


@pytest.mark.parametrize(
    ("payload", "result", "tokens"),
    [
        pytest.param(
            {**ENVELOPE, "inputs": {}, "token_usage": {"prompt_tokens": 812, "completion_tokens": 95}},
            {"ai.response.text": "Hi"},
            (812, 95),
            id="@prefactor/core",
        ),
        pytest.param(
            {"model_name": "m", "inputs": {}},
            {"outputs": {}, "token_usage": {"prompt_tokens": 8, "completion_tokens": 3, "total_tokens": 11}},
            (8, 3),
            id="prefactor-langchain",
        ),
        pytest.param({}, {"usage": {"prompt_tokens": 8, "completion_tokens": 3}}, (8, 3), id="OpenAI"),
        pytest.param({}, {"usage": {"input_tokens": 8, "output_tokens": 3}}, (8, 3), id="Anthropic"),
        pytest.param({}, {"usage": {"inputTokens": 8, "outputTokens": 3}}, (8, 3), id="AI SDK 5"),
        pytest.param(
            {},
            {"usage": {"inputTokens": {"total": 8, "cacheRead": 2}, "outputTokens": {"total": 3, "text": 3}}},
            (8, 3),
            id="AI SDK 6",
        ),
        pytest.param({}, {"usage": {"promptTokens": 8, "completionTokens": 3}}, (8, 3), id="AI SDK 4"),
        pytest.param(
            {},
            {"outputs": {"usage_metadata": {"input_tokens": 8, "output_tokens": 3, "input_token_details": {"a": 2}}}},
            (8, 3),
            id="LangChain",
        ),
        pytest.param(
            {},
            {"response_metadata": {"token_usage": {"prompt_tokens": 8, "completion_tokens": 3}}},
            (8, 3),
            id="LangChain, response_metadata",
        ),
        pytest.param(
            {},
            {"usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 3, "cachedContentTokenCount": 2}},
            (8, 3),
            id="Gemini",
        ),
        pytest.param(
            {"model_name": "m", "metadata": {}},
            {"status": "completed", "metrics": {"prompt_tokens": 8, "completion_tokens": 3, "prompt_cached_tokens": 0}},
            (8, 3),
            id="prefactor-livekit",
        ),
        pytest.param({}, {"metrics": {"promptTokens": 8, "completionTokens": 3}}, (8, 3), id="@prefactor/livekit"),
        pytest.param({}, {"promptTokens": 8.0, "completionTokens": 3.0}, (8, 3), id="flat, whole floats"),
        pytest.param({}, {"input_tokens": 648.0, "output_tokens": 3}, (648, 3), id="own names, whole floats"),
        pytest.param({}, {"input_tokens": 1, "usage": {"input_tokens": 8, "output_tokens": 3}}, (1, 3), id="own first"),
        pytest.param({}, {"usage": {"input_tokens": 8.5, "output_tokens": True}}, (None, None), id="no counts"),
        pytest.param({}, {"usage": "none", "metrics": [1], "outputs": None}, (None, None), id="other forms"),
        pytest.param({"inputs": {"usage": {"input_tokens": 8}}}, {}, (None, None), id="not of an earlier answer"),
    ],
)  # fmt: skip
def test_tokens(payload: dict[str, Any], result: dict[str, Any], tokens: tuple[int | None, int | None]) -> None:
    found = meaning("x:llm", payload, result)
    assert (found.input_tokens, found.output_tokens) == tokens


def test_cost_of_the_agent_sdk_of_claude() -> None:
    assert meaning("claude:agent", {}, {"total_cost_usd": 0.25}).cost_usd == 0.25
    assert meaning("claude:agent", {}, {"total_cost_usd": 0.25, "cost_usd": 0.5}).cost_usd == 0.5


@pytest.mark.parametrize(
    ("name", "payload", "label"),
    [
        ("llm", {"model": "gpt"}, "gpt"),
        ("langchain:llm", {"model_name": "gpt", "inputs": {}}, "gpt"),
        ("livekit:llm", {"modelName": "gpt"}, "gpt"),
        ("x:llm", {"model_id": "gpt"}, "gpt"),
        ("ai-sdk:llm", {**ENVELOPE, "inputs": {"ai.model.id": "gpt", "ai.model.provider": "p"}}, "gpt"),
        ("ai-sdk:llm", {"inputs": {"ai": {"model": {"id": "gpt"}}}}, "gpt"),
        ("langchain:llm", {**ENVELOPE, "inputs": {"langchain.model.name": "gpt", "messages": []}}, "gpt"),
        ("langchain:tool", {**ENVELOPE, "name": "langchain:tool-call", "inputs": {"toolName": "search"}}, "search"),
        (
            "langchain:tool",
            {
                **ENVELOPE,
                "name": "langchain:tool-call",
                "inputs": {"langchain.tool.name": {"lc": 1, "type": "not_implemented"}},
                "outputs": {"output": {"lc": 1, "kwargs": {"content": "found", "name": "search"}}},
            },
            "search",
        ),
        ("langchain:tool", {"tool_name": "search", "inputs": {"name": "x"}}, "search"),
        ("tool", {"name": "search", "inputs": {"q": 1}}, "search"),
        ("langchain:agent", {"agent_name": "researcher"}, "researcher"),
        ("llm", {"inputs": {"ai.model.id": 7}}, None),
        ("llm", {"inputs": [1], "modelName": {}}, None),
        ("custom", {"model_name": "gpt"}, None),
    ],
)
def test_label(name: str, payload: dict[str, Any], label: str | None) -> None:
    assert meaning(name, payload, None).label == label


@pytest.mark.parametrize(
    "result",
    [
        FAILURE,
        {"error": FAILURE},
        {"error": {"errorType": "RateLimitError", "message": "slow down"}},
        {"error": {"type": "openai.RateLimitError", "message": "slow down"}},
    ],
)
def test_a_failure_is_the_error_of_the_span_and_no_mismatch(result: dict[str, Any]) -> None:
    own = make(
        "x:llm", result={"type": "object", "required": ["text"]}, template="LLM{{#_error}}: {{_error}}{{/_error}}"
    )
    found = describe(own, "x:llm", "failed", {}, result, 1.0)
    assert found.summary == "LLM: RateLimitError: slow down"
    assert found.violations == ()
    assert error_text(result) == "RateLimitError: slow down"


def test_error_type_in_the_result_of_a_complete_span_is_data() -> None:
    own = make("x:check", result={"type": "object", "required": ["text"]})
    assert len(describe(own, "x:check", "complete", {}, {"error_type": "none"}, 1.0).violations) == 1


def test_a_type_that_the_run_registered_wins_over_the_built_in_of_its_name(db: Database) -> None:
    types = [
        {
            "name": "livekit:llm",
            "title": "Voice model",
            "params_schema": {"type": "object"},
            "template": "own {{model_name}}",
        },
        {"name": "llm", "title": "Mine", "params_schema": {"required": ["model_name"]}},
    ]
    run = db.agent_instances.register("a", agent_schema_version={"span_type_schemas": types})
    for name, title, summary in (("livekit:llm", "Voice model", "own gpt"), ("llm", "Mine", None)):
        payload = {"model_name": "gpt"}
        result = {"metrics": {"prompt_tokens": 3}}
        span = db.agent_spans.create(run.id, name, status="complete", payload=payload, result_payload=result)
        assert (span.schema_title, span.summary) == (title, summary)
        assert db.agent_spans.violations(span.id) == []
        stored = next(iter(db.storage.ask(SpansOf(run.id)))) if name == "livekit:llm" else None
        assert stored is None or (stored.label, stored.input_tokens) == ("gpt", 3)


def test_every_alias_fills_its_field_and_has_a_source() -> None:
    for alias in ALIASES:
        value: Any = 0.5 if alias.field == "cost_usd" else 7 if "tokens" in alias.field else "text"
        payload: Any = value
        for name in reversed(alias.path):
            payload = {name: payload}
        found = meaning("llm" if alias.field == "model" else "tool", payload, None)
        filled = found.label if alias.field in ("model", "name") else getattr(found, alias.field)
        assert filled == value, alias
        assert alias.source


def test_no_built_in_type_has_an_alias_as_a_field_of_another_meaning() -> None:
    paths = {alias.path[0] for alias in ALIASES if len(alias.path) == 1}
    assert not paths & {field for built_in in BUILT_IN_TYPES.values() for field in built_in.fields}
    assert Registry().resolve("llm") is BUILT_IN_TYPES["llm"]
