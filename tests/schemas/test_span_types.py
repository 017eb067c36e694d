"""Span types: the built-in ones are as documented and read well, names fall back, registration checks everything."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agentspan.errors import InvalidValue, SchemaError, TemplateError
from agentspan.schemas.builtin import BUILT_IN, is_aggregate, stored_aggregate
from agentspan.schemas.span_types import (
    BUILT_IN_TYPES,
    Registry,
    SpanType,
    check_name,
    check_span_type_schemas,
    describe,
    fallback,
    from_schemas,
    make,
    title_of,
    usable_name,
)
from tests.strategies import any_text, json_values

name_parts = st.lists(st.sampled_from(["agent", "Agent", "llm", "a", "", "agents"]), max_size=4).map(":".join)

# name: payload → result, `*` marks what is required.
DOCUMENTED = """
agent: name*, version, goal, input, conversation_id
    → output, steps, input_tokens, output_tokens, cost_usd, stop_reason
llm: model*, provider, messages, system, tools, temperature, max_tokens, stream
    → text, output_messages, tool_calls, response_model, finish_reason, input_tokens, output_tokens, cached_tokens,
      reasoning_tokens, cost_usd, time_to_first_token_ms, cache_write_tokens, response_id
tool: name*, arguments, call_id, skill → output, is_error, exit_code
chain: name*, input → output
retrieval: query*, source, top_k, filters → documents, count
embedding: model*, input_count → dimensions, input_tokens
rerank: query*, model, input_count → documents, count
guardrail: name*, stage, subject → passed*, action, reason, score
evaluation: name*, target_span_id → score, label, explanation
human: prompt*, kind, assignee → decision, response
mcp: method*, server, target, arguments → result, is_error, error_code
memory: operation*, store, query, key → count, items
handoff: from_agent*, to_agent*, reason → accepted
message: role*, content* →
compaction: trigger, tokens_before → tokens_after, summary
hook: name, event, command, call_id → output, exit_code
event: name, level, content → output
custom: →
"""

LABELS = {
    "llm": "model",
    "embedding": "model",
    "tool": "name",
    "agent": "name",
    "chain": "name",
    "guardrail": "name",
    "evaluation": "name",
    "mcp": "method",
    "hook": "name",
    "event": "name",
}

# name, payload, result, what the finished span reads like, what it reads like while it is active.
READS_LIKE: list[tuple[str, dict[str, Any], dict[str, Any], str | None, str | None]] = [
    (
        "agent",
        {"name": "researcher", "goal": "find the cause"},
        {"output": "It was DNS.", "steps": 12},
        "Agent researcher: find the cause → done in 12 steps",
        "Agent researcher: find the cause",
    ),
    (
        "llm",
        {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Why?"}]},
        {"text": "I will look…", "input_tokens": 812, "output_tokens": 95},
        'LLM gpt-4.1: 812→95 tok "I will look…"',
        "LLM gpt-4.1",
    ),
    (
        "tool",
        {"name": "get_user", "arguments": {"id": "mia_li"}},
        {"output": {"name": "Mia Li", "age": 30}},
        'Tool get_user(id=mia_li) → {"name":"Mia Li","age":30}',
        "Tool get_user(id=mia_li)",
    ),
    (
        "chain",
        {"name": "build_context", "input": "x"},
        {"output": ["a", "b", "c"]},
        "build_context → 3 parts",
        "build_context",
    ),
    (
        "retrieval",
        {"query": "timeout error", "source": "kb", "top_k": 4},
        {"documents": [{}, {}, {}, {}], "count": 4},
        'Search kb "timeout error" → 4 docs',
        'Search kb "timeout error"',
    ),
    (
        "embedding",
        {"model": "m", "input_count": 12},
        {"dimensions": 768, "input_tokens": 99},
        "Embed 12 texts with m (768d)",
        "Embed 12 texts with m",
    ),
    ("rerank", {"query": "q", "input_count": 40}, {"count": 5}, "Rerank 40 → 5", "Rerank 40"),
    (
        "guardrail",
        {"name": "pii", "stage": "output", "subject": "a text"},
        {"passed": False, "action": "block", "reason": "email"},
        "Guard pii on output: block (email)",
        "Guard pii on output",
    ),
    (
        "evaluation",
        {"name": "faithfulness"},
        {"label": "pass", "score": 0.93},
        "Eval faithfulness: pass 0.93",
        "Eval faithfulness",
    ),
    (
        "human",
        {"prompt": "approve?", "assignee": "reviewer"},
        {"decision": "yes"},
        "Ask reviewer: approve? → yes",
        "Ask reviewer: approve?",
    ),
    (
        "mcp",
        {"method": "tools/call", "server": "github", "target": "search"},
        {"result": {"hits": 3}},
        "MCP github tools/call search",
        "MCP github tools/call search",
    ),
    (
        "memory",
        {"operation": "search", "store": "notes", "query": "x"},
        {"count": 3},
        'Memory search notes "x": 3',
        'Memory search notes "x"',
    ),
    (
        "handoff",
        {"from_agent": "triage", "to_agent": "billing", "reason": "refund"},
        {"accepted": True},
        "Handoff triage → billing: refund",
        "Handoff triage → billing: refund",
    ),
    (
        "message",
        {"role": "user", "content": "Hi, I'm looking to book…"},
        {},
        "user: Hi, I'm looking to book…",
        "user: Hi, I'm looking to book…",
    ),
    ("custom", {"any": "thing"}, {"thing": "any"}, None, None),
]

# The parts of a summary that depend on what is there.
VARIATIONS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("agent", {"name": "a"}, {"output": "fine"}, "Agent a → fine"),
    ("agent", {"name": "a", "goal": {"q": 1}}, {"steps": 0}, 'Agent a: {"q":1} → done in 0 steps'),
    ("llm", {"model": "m"}, {"text": "Hi\nthere"}, 'LLM m "Hi there"'),
    ("llm", {"model": "m"}, {"text": "y" * 100}, 'LLM m "' + "y" * 79 + '…"'),
    (
        "llm",
        {"model": "m"},
        {"tool_calls": [{"name": "f", "arguments": {"a": 1}}, {"function": {"name": "g", "arguments": '{"b":2}'}}]},
        'LLM m → f(a=1) → g({"b":2})',
    ),
    (
        "llm",
        {"model": "m"},
        {"text": None, "tool_calls": None, "output_tokens": 0, "input_tokens": 5},
        "LLM m: 5→0 tok",
    ),
    ("tool", {"name": "t"}, {"output": None}, "Tool t()"),
    ("tool", {"name": "t"}, {"output": False}, "Tool t() → false"),
    ("tool", {"name": "t", "arguments": [1, "a"]}, {"output": 0}, 'Tool t([1,"a"]) → 0'),
    ("chain", {"name": "c"}, {"output": "text"}, "c → text"),
    ("chain", {"name": "c"}, {"output": []}, "c → 0 parts"),
    ("retrieval", {"query": "q"}, {"count": 0}, 'Search "q" → 0 docs'),
    ("retrieval", {"query": "q"}, {"documents": [1, 2]}, 'Search "q" → 2 docs'),
    ("retrieval", {"query": "q"}, {"documents": []}, 'Search "q" → 0 docs'),
    ("embedding", {"model": "m"}, {}, "Embed with m"),
    ("rerank", {"query": "q"}, {"documents": [1]}, 'Rerank "q" → 1'),
    ("guardrail", {"name": "g"}, {"passed": True}, "Guard g: passed=true"),
    ("guardrail", {"name": "g"}, {"passed": False}, "Guard g: passed=false"),
    ("evaluation", {"name": "e"}, {"score": 0.0}, "Eval e: 0.0"),
    ("evaluation", {"name": "e"}, {"label": "fail"}, "Eval e: fail"),
    ("human", {"prompt": "ok?"}, {"response": {"a": 1}}, 'Ask: ok? → {"a":1}'),
    ("human", {"prompt": "ok?"}, {"decision": False, "response": "no"}, "Ask: ok? → false"),
    ("mcp", {"method": "ping"}, {"is_error": True, "error_code": -32601}, "MCP ping → error -32601"),
    ("mcp", {"method": "ping"}, {"is_error": False}, "MCP ping"),
    ("memory", {"operation": "get", "key": "k"}, {"items": []}, "Memory get k: 0"),
    ("handoff", {"from_agent": "a", "to_agent": "b"}, {}, "Handoff a → b"),
    ("message", {"role": "user", "content": [{"type": "text"}]}, {}, 'user: [{"type":"text"}]'),
    ("compaction", {"trigger": "auto", "tokens_before": 9}, {"tokens_after": 4}, "Compaction (auto): 9→4 tok"),
    ("compaction", {"tokens_before": 9}, {}, "Compaction: 9 tok"),
    ("hook", {"name": "Stop", "command": "make"}, {"output": "ok"}, "Hook Stop: make → ok"),
    ("event", {"name": "notice", "content": "late"}, {}, "notice: late"),
]


def summary(name: str, status: str, payload: dict[str, Any], result: dict[str, Any] | None = None) -> str | None:
    """The summary of a span of a built-in type."""
    return describe(BUILT_IN_TYPES[name], name, status, payload, result, 1.0).summary


def documented() -> list[tuple[str, str, str]]:
    """The documented types: name, payload fields, result fields."""
    lines = DOCUMENTED.replace("\n    ", " ").strip().splitlines()
    return [(name, *fields.split("→")) for name, _, fields in (line.partition(":") for line in lines)]  # type: ignore[misc]


def fields(text: str) -> tuple[list[str], list[str]]:
    """All names, and the required ones."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return [name.removesuffix("*") for name in names], [name[:-1] for name in names if name.endswith("*")]


@pytest.mark.parametrize(("name", "payload", "result"), documented(), ids=[name for name, _, _ in documented()])
def test_a_built_in_has_the_documented_fields(name: str, payload: str, result: str) -> None:
    item = BUILT_IN_TYPES[name].item
    for schema, text in ((item["params_schema"], payload), (item["result_schema"], result)):
        names, required = fields(text)
        assert list(schema.get("properties", {})) == names
        assert schema.get("required", []) == required
        assert schema.get("additionalProperties", True) is True
        assert schema["type"] == "object"


def test_there_are_eighteen_built_ins() -> None:
    assert [built_in.name for built_in in BUILT_IN] == [name for name, _, _ in documented()]
    assert len(BUILT_IN_TYPES) == 18


@pytest.mark.parametrize("name", BUILT_IN_TYPES)
def test_a_built_in_would_pass_the_checks_of_ones_own(name: str) -> None:
    item = BUILT_IN_TYPES[name].item
    own = make(name, payload=item["params_schema"], result=item["result_schema"], template=item["template"])
    assert own.fields == BUILT_IN_TYPES[name].fields
    assert check_span_type_schemas([item]) == ([item], [])


@pytest.mark.parametrize("name", BUILT_IN_TYPES)
def test_a_label_is_taken_from_the_documented_field(name: str) -> None:
    assert BUILT_IN_TYPES[name].label_field == LABELS.get(name)


@pytest.mark.parametrize(
    ("name", "payload", "result", "finished", "active"), READS_LIKE, ids=[r[0] for r in READS_LIKE]
)
def test_reads_like_the_documented_example(
    name: str, payload: dict[str, Any], result: dict[str, Any], finished: str | None, active: str | None
) -> None:
    assert summary(name, "complete", payload, result) == finished
    assert summary(name, "active", payload) == active
    assert describe(BUILT_IN_TYPES[name], name, "complete", payload, result, 1.0).violations == ()


@pytest.mark.parametrize(("name", "payload", "result", "reads"), VARIATIONS)
def test_reads_well_whatever_is_there(name: str, payload: dict[str, Any], result: dict[str, Any], reads: str) -> None:
    assert summary(name, "complete", payload, result) == reads


@pytest.mark.parametrize(
    ("name", "payload", "result", "finished", "active"), READS_LIKE, ids=[r[0] for r in READS_LIKE]
)
def test_a_failed_span_reads_like_an_active_one_with_its_error(
    name: str, payload: dict[str, Any], result: dict[str, Any], finished: str | None, active: str | None
) -> None:
    error = {"error": {"type": "TimeoutError", "message": "read\ntimed out", "stacktrace": "Traceback …"}}
    expected = None if active is None else f"{active} → TimeoutError: read timed out"
    assert summary(name, "failed", payload, error) == expected
    # What is called error in a span that did not fail is a value like any other: part of the dict that a tool returned.
    shown = summary(name, "complete", payload, error)
    if name in ("tool", "chain"):
        assert shown is not None
        assert shown.startswith(f'{active} → error={{"type":"TimeoutError"')
    else:
        assert shown == active


@pytest.mark.parametrize(
    ("name", "built_in"),
    [
        ("llm", "llm"),
        ("langchain:llm", "llm"),
        ("agent:llm", "llm"),
        ("llm:agent", "agent"),
        ("ai-sdk:tool:search", "tool"),
        ("a:tool:b:c", "tool"),
        (":tool", "tool"),
        ("foo:bar", "custom"),
        ("foo:bar:tool", "custom"),
        ("foo", "custom"),
        ("llm:", "custom"),
        ("tool:search", "custom"),
        ("LLM", "custom"),
        ("x: llm", "custom"),
        ("", "custom"),
    ],
)
def test_a_name_that_nobody_registered_falls_back_to_a_built_in(name: str, built_in: str) -> None:
    assert fallback(name) is BUILT_IN_TYPES[built_in]
    assert Registry().resolve(name) is BUILT_IN_TYPES[built_in]


@pytest.mark.parametrize(
    ("name", "title"),
    [("llm", "LLM"), ("langchain:llm", "LLM"), ("custom", "Custom"), ("foo", "foo"), ("foo:bar", "foo:bar")],
)
def test_what_falls_back_to_custom_is_called_by_its_own_name(name: str, title: str) -> None:
    assert title_of(fallback(name), name) == title


SUMS_UP_OTHERS = {
    "agent": True,
    "langchain:agent": True,
    "prefactor:agent:main": True,
    "a:agent:b": True,
    "a:agent:b:c": True,
    ":agent": True,
    "a:agent:": True,
    "x:y:agent": False,
    "my_step": False,
    "llm": False,
    "agent:llm": False,
    "agent:": False,
    "agents": False,
    "a:agents": False,
    "a:b:agent:c": False,
    "a:Agent": False,
    "": False,
}


@pytest.mark.parametrize(("name", "sums_up"), SUMS_UP_OTHERS.items())
def test_a_span_sums_up_others_by_the_second_part_of_its_name(name: str, sums_up: bool) -> None:
    assert is_aggregate(name) is sums_up
    assert describe(Registry().resolve(name), name, "active", {}, None, None).is_aggregate == sums_up
    registered = Registry({name: SpanType({"name": name})}).resolve(name)
    assert describe(registered, name, "active", {"input_tokens": 1}, None, None).is_aggregate == sums_up


@pytest.mark.parametrize(("payload", "sums_up"), [({}, 1), ({"own_tokens": True}, 0), ({"own_tokens": "yes"}, 1)])
def test_an_agent_whose_tokens_are_its_own_sums_up_nothing(payload: dict[str, Any], sums_up: int) -> None:
    payload = {"name": "a", "model": "gpt-4.1", "provider": "openai", **payload}
    told = describe(BUILT_IN_TYPES["agent"], "agent", "complete", payload, {"input_tokens": 1000}, 1.0)
    assert (told.is_aggregate, told.cost_usd is None) == (sums_up, bool(sums_up))
    assert describe(BUILT_IN_TYPES["agent"], "agent", "active", payload, None, None).is_aggregate == sums_up
    assert stored_aggregate("agent", json.dumps(payload)) == sums_up
    assert stored_aggregate("agent", json.dumps({"input": payload})) == 1
    assert stored_aggregate("llm", json.dumps(payload)) == 0


@given(name_parts)
def test_a_type_sums_up_others_as_the_name_says_that_was_resolved_to_it(name: str) -> None:
    for registry in (Registry(), Registry({"agent": SpanType({"name": "agent"}), name: SpanType({"name": name})})):
        assert registry.resolve(name).is_aggregate == is_aggregate(name)


@given(any_text)
def test_any_name_resolves(name: str) -> None:
    assert Registry().resolve(name).name in BUILT_IN_TYPES


class Line(BaseModel):
    """One line of an order."""

    sku: str
    count: int = Field(ge=1)


class Order(BaseModel):
    """A model with a model in it, so that its schema has $defs."""

    customer: str
    lines: list[Line]
    note: str | None = None


class Receipt(BaseModel):
    number: int


def test_a_pydantic_model_is_a_schema() -> None:
    span_type = make("order", payload=Order, result=Receipt, template="Order {{customer}} → {{number}}")
    assert "$defs" in span_type.item["params_schema"]
    assert span_type.fields == {"customer", "lines", "note"}
    good = {"customer": "mia", "lines": [{"sku": "a", "count": 1}], "extra": True}
    meaning = describe(span_type, "order", "complete", good, {"number": 7}, 1.0)
    assert (meaning.summary, meaning.violations) == ("Order mia → 7", ())
    bad = {"customer": "mia", "lines": [{"sku": "a", "count": 0}, {"count": 2}], "note": 1}
    found = describe(span_type, "order", "complete", bad, {}, 1.0).violations
    assert {(v.side, v.path, v.keyword) for v in found} == {
        ("payload", "$.lines[0].count", "minimum"),
        ("payload", "$.lines[1]", "required"),
        ("payload", "$.note", "anyOf"),
        ("result_payload", "$", "required"),
    }


def test_a_model_with_a_field_that_has_no_json_schema_is_refused() -> None:
    class Callback(BaseModel):
        run: Callable[[], None]

    with pytest.raises(SchemaError, match="Callback has a field without a JSON Schema") as raised:
        make("x", payload=Callback)
    assert raised.value.__cause__ is not None


@pytest.mark.parametrize(
    ("given_to_make", "title"),
    [
        ({}, "charge"),
        ({"payload": {"title": "Charge a card"}}, "Charge a card"),
        ({"payload": {"title": ""}}, "charge"),
        ({"payload": {"title": "Charge a card"}, "title": "Charge"}, "Charge"),
        ({"payload": {"title": "Charge a card"}, "title": ""}, "Charge a card"),
        ({"payload": Order}, "Order"),
        ({"result": {"title": "Of the result"}}, "charge"),
        ({"payload": True}, "charge"),
    ],
)
def test_the_title_is_said_or_the_payload_schemas_or_the_name(given_to_make: dict[str, Any], title: str) -> None:
    span_type = make("charge", **given_to_make)
    assert span_type.title == title
    assert title_of(span_type, "charge") == title


def test_ones_own_type_of_a_built_ins_name_keeps_its_label() -> None:
    own = make("llm", payload={"properties": {"model": {"type": "string"}, "team": {"type": "string"}}})
    assert own.label_field == "model"
    assert own.fields == {"model", "team"}
    assert make("charge").label_field is None


@pytest.mark.parametrize("name", ["", "x" * 201, "two\nlines", "esc\x1b", "\ud800", None, 1, b"llm"])
def test_an_unusable_name_is_refused(name: Any) -> None:
    with pytest.raises(InvalidValue, match="schema_name: must be 1 to 200 printable characters"):
        make(name)


def test_a_name_of_200_printable_characters_is_usable() -> None:
    assert check_name("é" * 200) == "é" * 200
    assert make("my own: type/1").name == "my own: type/1"


@given(any_text | json_values)
def test_any_object_can_be_made_a_short_name(value: Any) -> None:
    name = usable_name(value, "tool")
    assert 0 < len(name) <= 200
    assert len(name.splitlines()) == 1


@pytest.mark.parametrize("title", ["two\nlines", "esc\x1b", 7])
def test_an_unusable_title_is_refused(title: Any) -> None:
    with pytest.raises(InvalidValue, match="title: must be printable text"):
        make("charge", title=title)


def test_a_bad_schema_or_template_is_refused_when_it_is_registered() -> None:
    with pytest.raises(SchemaError):
        make("x", payload={"type": "nonsense"})
    with pytest.raises(SchemaError):
        make("x", result={"$ref": "http://127.0.0.1:9/"})
    with pytest.raises(TemplateError):
        make("x", template="{{#a}}")


def test_registering_again_replaces_and_counts() -> None:
    registry = Registry()
    assert registry.version == 0
    assert registry.resolve("charge").name == "custom"
    first, second = make("charge", title="First"), make("charge", title="Second")
    registry.register(first)
    assert (registry.version, registry.resolve("charge")) == (1, first)
    registry.register(second)
    assert (registry.version, registry.resolve("charge")) == (2, second)
    assert [item["title"] for item in registry.items() if item["name"] == "charge"] == ["Second"]


def test_ones_own_type_comes_before_the_built_in_of_its_name_and_the_fallback() -> None:
    registry = Registry()
    own_llm, own_prefixed = make("llm"), make("langchain:llm")
    registry.register(own_llm)
    registry.register(own_prefixed)
    assert registry.resolve("llm") is own_llm
    assert registry.resolve("langchain:llm") is own_prefixed
    assert registry.resolve("other:llm") is BUILT_IN_TYPES["llm"]
    assert registry.resolve("tool") is BUILT_IN_TYPES["tool"]


def test_a_registration_during_a_look_up_is_not_overlooked_afterwards() -> None:
    registry, own = Registry(), make("charge")

    class Name(str):
        def split(self, *args: Any) -> list[str]:
            registry.register(own)
            return super().split(*args)

    assert registry.resolve(Name("charge")).name == "custom"
    assert registry.resolve("charge") is own


def test_registries_do_not_share_their_types() -> None:
    one, other = Registry(), Registry()
    one.register(make("charge"))
    assert other.resolve("charge").name == "custom"


def test_the_items_of_a_registry_are_its_types_as_json_and_come_back_as_they_were() -> None:
    registry = Registry()
    registry.register(make("order", payload=Order, title="An order", template="{{customer}}"))
    items = registry.items()
    assert [item["name"] for item in items] == [*BUILT_IN_TYPES, "order"]
    again = from_schemas(json.dumps(items))
    assert again.items() == items
    assert again.resolve("llm") is BUILT_IN_TYPES["llm"]
    order = again.resolve("order")
    assert (order.title, order.template) == ("An order", "{{customer}}")
    assert order.fields == {"customer", "lines", "note"}
    assert describe(order, "order", "active", {"customer": "mia"}, None, None).summary == "mia"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "null",
        "{}",
        "7",
        "[" * 100_000,
        json.dumps([None, 7, "llm", [], {}, {"name": None}, {"name": []}, {"nam": "x"}]),
        json.dumps([{"name": "x", "params_schema": [1], "result_schema": 7, "template": 7}]),
        json.dumps([{"name": "x", "params_schema": {"properties": 7, "required": "a"}, "template": "{{#"}]),
        json.dumps([{"name": "x", "params_schema": {"type": "nonsense"}}]),
    ],
    ids=lambda text: text[:20],
)
def test_what_cannot_be_used_in_a_stored_version_is_passed_over(text: str) -> None:
    registry = from_schemas(text)
    meaning = describe(registry.resolve("x"), "x", "complete", {"a": 1}, {}, 1.0)
    assert meaning.summary is None
    assert {v.keyword for v in meaning.violations} <= {"$unchecked"}
    assert registry.resolve("llm") is BUILT_IN_TYPES["llm"]


def test_one_bad_entry_of_a_stored_version_does_not_cost_the_others() -> None:
    registry = from_schemas(json.dumps([7, {"name": "good", "title": "Good"}, None]))
    assert registry.resolve("good").title == "Good"


def test_what_clients_send_is_kept_as_it_is_with_what_cannot_be_read_named() -> None:
    items = [
        {"name": "a", "template": "{{x}}", "params_schema": {"type": "object"}},
        {"name": "b", "template": "{% include 'x' %}", "result_template": "{{ y | upcase }}"},
        {"name": "c", "template": "{{ y z }}", "result_template": "{{ y | system }}", "title": "C"},
        {"name": "d", "template": None, "description": None},
    ]
    checked, unusable = check_span_type_schemas(items)
    assert checked == items
    found = [(each.name, each.field) for each in unusable]
    assert found == [("b", "template"), ("c", "template"), ("c", "result_template")]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (7, "each entry must be an object with a name"),
        ({}, "schema_name: must be 1 to 200 printable characters"),
        ({"name": "x", "title": 7}, "title of 'x' must be text"),
        ({"name": "x", "template": {"a": 1}}, "template of 'x' must be text"),
        ({"name": "x", "params_schema": "text"}, "params_schema of 'x' must be a JSON object or a boolean"),
        ({"name": "x", "result_schema": []}, "result_schema of 'x' must be a JSON object or a boolean"),
    ],
)
def test_a_bad_entry_of_a_client_is_refused_by_its_name(item: Any, message: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        check_span_type_schemas([{"name": "good"}, item])
    assert message in str(raised.value)


def test_two_entries_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidValue, match="two entries have the same name"):
        check_span_type_schemas([{"name": "x"}, {"name": "x"}])


def test_a_span_type_keeps_the_item_that_it_was_made_of() -> None:
    item: Any = {"name": "x", "title": "X", "description": "kept", "vendor": 1}
    assert SpanType(item).item is item


def test_a_name_that_is_nearly_that_of_a_type_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    registry = Registry(warns=True)
    for name in ("llms", "llms", "embeding", "my own", "custom", "llm", "x:tol"):
        registry.resolve(name)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "there is no span type 'llms': is 'llm' meant?",
        "there is no span type 'embeding': is 'embedding' meant?",
    ]
