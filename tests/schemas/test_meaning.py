"""What a span's payloads say: label, tokens, cost, error and duration, taken only where they are what they seem."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentspan.model.rows import AT_END, Meaning
from agentspan.schemas.span_types import BUILT_IN_TYPES, SpanType, describe, error_text, fallback, label_of, make
from tests.strategies import any_text, json_objects, json_values

LLM = BUILT_IN_TYPES["llm"]
CUSTOM = BUILT_IN_TYPES["custom"]
HUGE = 10**5000  # too long for str()


def of_type(value: object) -> str:
    """A test's id; the value itself may have no text."""
    return type(value).__name__


def meaning(
    payload: dict[str, Any],
    result: dict[str, Any] | None = None,
    *,
    of: SpanType = CUSTOM,
    status: str = "complete",
    check: tuple[bool, bool] = (True, True),
) -> Meaning:
    """What a span means."""
    return describe(of, of.name, status, payload, result, 1234.0, check)


OF_RESULT = {
    "input_tokens": 8,
    "output_tokens": 3,
    "cost_usd": 0.5,
    "response_id": "r-1",
    "cache_write_tokens": 2,
    "finish_reason": "length",
}
"""A value for each column that a result may have under the column's name."""


def test_each_column_is_derived_from_the_member_of_its_name() -> None:
    assert ("summary", *OF_RESULT) == AT_END
    assert meaning({}, OF_RESULT).by_column().items() >= OF_RESULT.items()


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"stop_reason": "end_turn"}, "end_turn"),
        ({"stopReason": "max_tokens"}, "max_tokens"),
        ({"finish_reason": None, "stop_reason": "tool_use"}, "tool_use"),
        ({"finish_reason": "stop", "stop_reason": "tool_use"}, "stop"),
        ({"finish_reason": 7}, None),
        ({"finish_reason": "a\nb" + "c" * 500}, f"a b{'c' * 196}…"),
    ],
)
def test_why_a_model_stopped_is_said_under_three_names(result: dict[str, Any], reason: str | None) -> None:
    assert meaning({}, result).finish_reason == reason
    assert meaning({}, {**result, "input_tokens": 1}).finish_reason == reason
    assert meaning(result, {"text": "hi"}).finish_reason is None


def sides(found: Meaning) -> list[tuple[str, str]]:
    return [(violation.side, violation.keyword) for violation in found.violations]


@pytest.mark.parametrize(
    ("name", "payload", "label"),
    [
        ("llm", {"model": "gpt-4.1"}, "gpt-4.1"),
        ("embedding", {"model": "m"}, "m"),
        ("tool", {"name": "get_user"}, "get_user"),
        ("agent", {"name": "researcher"}, "researcher"),
        ("chain", {"name": "build_context"}, "build_context"),
        ("guardrail", {"name": "pii"}, "pii"),
        ("evaluation", {"name": "faithfulness"}, "faithfulness"),
        ("mcp", {"method": "tools/call", "server": "github"}, "tools/call"),
        ("mcp", {"method": "tools/call", "server": "github", "target": "update_issue"}, "update_issue"),
        ("mcp", {"method": "prompts/get", "server": "github", "target": "review"}, "prompts/get"),
        ("retrieval", {"query": "q", "name": "x", "source": "kb"}, None),
        ("rerank", {"query": "q", "model": "m"}, None),
        ("human", {"prompt": "p", "name": "x"}, None),
        ("memory", {"operation": "search"}, None),
        ("handoff", {"from_agent": "a", "to_agent": "b"}, None),
        ("message", {"role": "user", "content": "c"}, None),
        ("custom", {"name": "x", "model": "m", "method": "y"}, None),
    ],
)
def test_the_label_of_each_type(name: str, payload: dict[str, Any], label: str | None) -> None:
    assert meaning(payload, of=BUILT_IN_TYPES[name]).label == label


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (None, None),
        (7, None),
        (True, None),
        (["gpt"], None),
        ({"name": "gpt"}, None),
        ("", ""),
        ("two\nlines", "two lines"),
        ("esc\x1b[2J", "esc\ufffd[2J"),
        ("x" * 300, "x" * 199 + "…"),
    ],
)
def test_a_label_is_text_on_one_line(value: Any, label: str | None) -> None:
    assert label_of(LLM, {"model": value}) == label


def test_a_label_comes_from_a_new_payload_only_and_never_from_the_result() -> None:
    assert meaning({"model": "a"}, {"model": "b"}, of=LLM).label == "a"
    assert meaning({}, {"model": "b"}, of=LLM).label is None
    assert meaning({"model": "a"}, {}, of=LLM, check=(False, True)).label is None


def test_tokens_and_cost_are_taken_from_payload_and_result_and_the_result_wins() -> None:
    found = meaning({"input_tokens": 1, "output_tokens": 2}, {"output_tokens": 3, "cost_usd": 0.5})
    assert (found.input_tokens, found.output_tokens, found.cost_usd) == (1, 3, 0.5)


def test_zero_is_a_number_of_tokens() -> None:
    found = meaning({}, {"input_tokens": 0, "output_tokens": 0, "cost_usd": 0})
    assert (found.input_tokens, found.output_tokens, found.cost_usd) == (0, 0, 0.0)
    assert type(found.cost_usd) is float


@pytest.mark.parametrize(
    "value",
    [True, False, None, 1.5, math.nan, math.inf, 1e19, "12", [1], {"n": 1}, 10**10 + 1, -1, -(2**62), HUGE],
    ids=of_type,
)
def test_what_is_no_integer_or_too_large_to_be_summed_is_no_number_of_tokens(value: Any) -> None:
    found = meaning({}, {"input_tokens": value, "output_tokens": value})
    assert (found.input_tokens, found.output_tokens) == (None, None)


@pytest.mark.parametrize("value", [True, "0.5", [0.5], math.nan, math.inf, -math.inf, 1e7, -1.0, HUGE], ids=of_type)
def test_what_is_no_number_or_too_large_is_no_cost(value: Any) -> None:
    assert meaning({}, {"cost_usd": value}).cost_usd is None


@pytest.mark.parametrize("value", [10**10, 0, 1])
def test_the_largest_numbers_that_can_be_summed_are_taken(value: int) -> None:
    found = meaning({"input_tokens": value, "output_tokens": value})
    assert (found.input_tokens, found.output_tokens) == (value, value)


@pytest.mark.parametrize(
    ("result", "path"),
    [
        ({"cost_usd": -5}, "$.cost_usd"),
        ({"cost_usd": "NaN"}, "$.cost_usd"),
        ({"usage": {"prompt_tokens": -3, "completion_tokens": 4}}, "$.usage.prompt_tokens"),
        ({"total_cost_usd": 1e9}, "$.total_cost_usd"),
    ],
)
def test_usage_that_is_not_counted_is_a_violation(result: dict[str, Any], path: str) -> None:
    (found,) = meaning({}, result, of=BUILT_IN_TYPES["tool"]).violations[-1:]
    assert (found.side, found.path, found.keyword) == ("result_payload", path, "usage")
    known = meaning({"input_tokens": -1}, {}, of=BUILT_IN_TYPES["tool"], check=(False, True))
    assert known.violations == ()


def test_violations_of_a_span_have_one_order_however_it_is_written() -> None:
    """At once, or its begin before its end: schema and usage of the payload, then of the result."""
    guard, payload, result = BUILT_IN_TYPES["guardrail"], {"input_tokens": -1}, {"passed": 1, "cost_usd": -1}
    at_once = meaning(payload, result, of=guard).violations
    begin = meaning(payload, of=guard, status="active").violations
    assert at_once == (*begin, *meaning(payload, result, of=guard, check=(False, True)).violations)
    assert [each.keyword for each in at_once] == ["required", "usage", "type", "usage"]
    assert meaning(payload, {"passed": True, "input_tokens": 1}, of=guard).violations == begin


def test_one_bad_number_does_not_cost_the_others() -> None:
    found = meaning({"input_tokens": True, "output_tokens": 5, "cost_usd": math.nan})
    assert (found.input_tokens, found.output_tokens, found.cost_usd) == (None, 5, None)


def test_violations_tell_their_side() -> None:
    guard = BUILT_IN_TYPES["guardrail"]
    assert sides(meaning({}, {"passed": 1}, of=guard)) == [("payload", "required"), ("result_payload", "type")]
    assert sides(meaning({"name": "g"}, {"passed": True}, of=guard)) == []
    assert sides(meaning({}, of=guard, status="active")) == [("payload", "required")]


def test_only_what_is_new_is_checked() -> None:
    guard = BUILT_IN_TYPES["guardrail"]
    assert sides(meaning({}, {}, of=guard, check=(False, True))) == [("result_payload", "required")]
    assert sides(meaning({}, {}, of=guard, check=(True, False))) == [("payload", "required")]
    assert sides(meaning({}, {}, of=guard, check=(False, False))) == []


def test_a_result_with_an_error_is_an_exceptions_whatever_the_type() -> None:
    guard = BUILT_IN_TYPES["guardrail"]
    assert sides(meaning({"name": "g"}, {"error": {"type": "E", "message": "m"}}, of=guard, status="failed")) == []


@pytest.mark.parametrize("name", ["langchain:llm", "llm"])
def test_the_schema_name_of_a_summary_is_the_spans_own(name: str) -> None:
    own = make("llm", template="{{_schema}} {{_status}} {{_duration}}")
    assert describe(own, name, "complete", {"_schema": "shadow"}, {}, 1234.0).summary == f"{name} complete 1.2 s"
    assert describe(own, name, "active", {"_duration": "shadow"}, None, None).summary == f"{name} active"


def test_the_error_shows_only_when_the_span_failed() -> None:
    own = make("x", template="{{a}}{{#_error}} → {{.}}{{/_error}}")
    result = {"error": {"type": "builtins.KeyError", "message": "k"}}
    assert meaning({"a": 1}, result, of=own, status="failed").summary == "1 → KeyError: k"
    assert meaning({"a": 1}, result, of=own, status="cancelled").summary == "1"
    both = make("x", template="{{_status}}{{#_error}} → {{.}}{{/_error}}")
    assert meaning({}, result, of=both, status="failed").summary == "failed → KeyError: k"
    assert meaning({}, result, of=both, status="complete").summary == "complete"
    assert meaning({"a": 1}, {"error": "short"}, of=own, status="failed").summary == "1 → short"
    assert meaning({"a": 1}, {}, of=own, status="failed").summary == "1"
    assert meaning({"a": 1, "_error": "shadow"}, {}, of=own, status="failed").summary == "1"


def test_a_null_in_the_result_wins_too() -> None:
    own = make("x", template="<{{a}}>")
    assert meaning({"a": 1}, {"a": 2}, of=own).summary == "<2>"
    assert meaning({"a": 1}, {"a": None}, of=own).summary == "<>"
    assert meaning({"a": 1}, {}, of=own).summary == "<1>"


def test_without_a_template_there_is_no_summary() -> None:
    assert meaning({"a": 1}, {"b": 2}, of=make("x")).summary is None
    assert meaning({"a": 1}, {"b": 2}).summary is None


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (None, None),
        ({}, None),
        ({"error": None}, None),
        ({"error": {}}, None),
        ({"error": ""}, None),
        ({"error": 7}, None),
        ({"error": ["a"]}, None),
        ({"error": "plain"}, "plain"),
        ({"error": {"type": "TimeoutError", "message": "read timed out"}}, "TimeoutError: read timed out"),
        ({"error": {"type": "httpx.ReadTimeout", "message": "slow"}}, "ReadTimeout: slow"),
        ({"error": {"type": "TimeoutError", "message": ""}}, "TimeoutError"),
        ({"error": {"type": "TimeoutError"}}, "TimeoutError"),
        ({"error": {"message": "only this"}}, "only this"),
        ({"error": {"type": 7, "message": ["x"]}}, None),
        ({"error": {"type": "", "message": "m"}}, "m"),
    ],
)
def test_an_error_is_its_type_and_message(result: dict[str, Any] | None, text: str | None) -> None:
    assert error_text(result) == text


@given(
    st.sampled_from(list(BUILT_IN_TYPES.values())),
    st.sampled_from(["pending", "active", "complete", "failed", "cancelled"]),
    json_objects,
    st.none() | json_objects,
    st.none() | st.floats(0, 1e9),
    any_text,
    json_values,
)
def test_any_payload_means_something_and_the_same_every_time(
    span_type: SpanType,
    status: str,
    payload: dict[str, Any],
    result: dict[str, Any] | None,
    duration_ms: float | None,
    text: str,
    value: Any,
) -> None:
    payload = {**payload, **dict.fromkeys(span_type.fields, value), "name": text, "model": text}
    first = describe(span_type, span_type.name, status, payload, result, duration_ms)
    assert first == describe(span_type, span_type.name, status, payload, result, duration_ms)
    assert first.summary is None or len(first.summary) <= 200
    assert first.label is None or len(first.label) <= 200
    assert type(first.input_tokens) in (int, type(None))
    assert type(first.cost_usd) in (float, type(None))


@pytest.mark.parametrize(
    ("name", "status", "result", "summary"),
    [
        ("tool", "complete", {"sky": "clear", "wind": {"kmh": 3}}, 'Tool w(city=Rome) → sky=clear, wind={"kmh":3}'),
        ("shop:tool", "complete", {"sky": "clear"}, "Tool w(city=Rome) → sky=clear"),
        ("chain", "complete", {"sky": "clear"}, "w → sky=clear"),
        ("tool", "complete", {"output": "clear", "exit_code": 0}, "Tool w(city=Rome) → clear"),
        ("tool", "complete", {"output": None}, "Tool w(city=Rome)"),
        ("tool", "complete", {}, "Tool w(city=Rome)"),
        ("tool", "failed", {"error": {"type": "E", "message": "no"}}, "Tool w(city=Rome) → E: no"),
        ("agent", "complete", {"steps": 3}, "Agent w → done in 3 steps"),
    ],
)
def test_a_dict_that_a_tool_returned_is_its_outcome(
    name: str, status: str, result: dict[str, Any], summary: str
) -> None:
    payload = {"name": "w", "arguments": {"city": "Rome"}}
    assert describe(fallback(name), name, status, payload, result, 1.0).summary == summary


def test_a_type_of_ones_own_says_itself_what_its_outcome_is() -> None:
    own = SpanType({"name": "tool", "template": "{{name}}"})
    assert describe(own, "tool", "complete", {"name": "w"}, {"sky": "clear"}, 1.0).summary == "w"
