"""What a span says first: the parts of its payloads, and payloads without those of earlier spans."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentspan.jsontext import encode
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.text_search import DECODED, ELEMENT, LONG_TEXT, Matcher, SpanParts, parts_of, search_run, terms
from agentspan.testing.contract.base import Rows
from tests.strategies import any_text, json_objects, json_values

ROWS = Rows()
RUN = ROWS.family(ROWS.agent("a"))[2]
LONG = "so long " * 100


def message(text: str) -> dict[str, str]:
    return {"role": "user", "content": f"a message of {text}"}


def span(payload: Any, result: Any = None, status: str = "complete") -> AgentSpanRow:
    result_payload = None if result is None else encode(result)[0]
    return ROWS.span(RUN, status=status)._replace(payload=encode(payload)[0], result_payload=result_payload)


def texts_of(payload: str) -> list[str]:
    return [payload[part.start : part.end] for part in parts_of(payload)]


def found(spans: list[AgentSpanRow], words: str, most: int = 100) -> list[tuple[int, int]]:
    """The numbers of the spans that say words first, with their repeats."""
    numbers = {each.id: number for number, each in enumerate(spans)}
    hits, total = search_run(spans, Matcher(terms(words)), most)
    assert total >= len(hits)
    return [(numbers[hit.span.id], hit.repeats) for hit in hits]


def test_parts_are_elements_of_lists_and_long_texts_of_direct_members() -> None:
    said = {
        "model": "m",
        "messages": [message("one"), message("two")],
        "system": LONG,
        "numbers": [1.5] * 900,
        "tags": ["a", "b"],
        "deeper": {"messages": [message("three")], "text": LONG},
        "documents": ["x" * ELEMENT],
        "empty": [],
    }
    assert texts_of(encode(said)[0]) == [
        *(encode(message(text))[0] for text in ("one", "two")),
        encode(LONG)[0],
        f'"{"x" * ELEMENT}"',
    ]


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '"x"', '{"a": [{}]}', '{"a":[', '{"a":[1', "no JSON", '{"a":[' + "[" * 5000, '{"a":[{}]} ']
)
def test_what_is_no_object_as_agentspan_writes_it_has_no_parts(text: str) -> None:
    assert parts_of(text) == []


members = st.dictionaries(
    any_text, st.one_of(json_values, st.lists(st.one_of(st.just(message("one")), json_values), max_size=4)), max_size=5
)


@given(members, st.sets(st.integers(0, 20)), st.booleans())
def test_a_payload_without_parts_is_json_without_their_values(
    said: dict[str, Any], chosen: set[int], long: bool
) -> None:
    text = encode(
        {**said, "messages": [message("one"), message("two")], **({"text": "y" * LONG_TEXT} if long else {})}
    )[0]
    row = ROWS.span(RUN)._replace(payload=text, result_payload=text)
    parts = parts_of(text)
    assert SpanParts(row).without(()) == row
    keys = {part.key for number, part in enumerate(parts) if number in chosen}
    less = SpanParts(row).without(keys)
    assert less.payload == less.result_payload
    left, whole = json.loads(less.payload), json.loads(text)
    assert list(left) == list(whole)
    gone = [text[part.start : part.end] for part in parts if part.key in keys]
    assert len(less.payload) <= len(text) - sum(len(each) - 2 for each in gone)
    for name, value in whole.items():
        if isinstance(value, list) and isinstance(left[name], list):
            assert all(any(same(one, other) for other in value) for one in left[name])
        else:
            assert same(left[name], value) or left[name] == ""


def same(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)  # NaN is equal then


def test_a_text_is_found_where_it_was_first_said_with_the_number_of_repeats() -> None:
    said = [message(text) for text in ("one", "two", "three", "four")]
    spans = [span({"model": "m", "messages": said[:length]}, {"text": f"answer {length}"}) for length in range(1, 5)]
    assert found(spans, "one") == [(0, 3)]
    assert found(spans, "two") == [(1, 2)]
    assert found(spans, "four") == [(3, 0)]
    assert found(spans, "message") == [(0, 3), (1, 2), (2, 1), (3, 0)]
    assert found(spans, "message", most=1) == [(3, 0)]
    assert found(spans, "m user") == [(0, 3), (1, 2), (2, 1), (3, 0)]
    assert found(spans, "one two") == []  # no step said both
    assert found(spans, "two answer") == [(1, 2)]
    assert found(spans, "answer") == [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_a_part_may_be_said_in_payloads_and_in_results_under_any_name() -> None:
    spans = [
        span({"a": [message("one")]}, {"b": [message("two")]}),
        span({"c": [message("two")]}, {"d": [message("one")]}),
    ]
    assert found(spans, "one") == [(0, 1)]
    assert found(spans, "two") == [(0, 1)]


def test_a_long_text_is_said_once_and_short_members_each_time() -> None:
    spans = [span({"system": LONG, "name": "short"}) for _ in range(3)]
    assert found(spans, "long") == [(0, 2)]
    assert found(spans, "short") == [(0, 0), (1, 0), (2, 0)]
    assert found(spans, "long short") == [(0, 2)]


def test_open_spans_take_nothing_away_and_do_not_count() -> None:
    spans = [
        span({"messages": [message("one")]}, status=status) for status in ("active", "complete", "pending", "failed")
    ]
    assert found(spans, "one") == [(0, 2), (1, 1)]


def test_the_parts_with_a_word_decide_how_many_repeat_it() -> None:
    first = span({"messages": [message("one"), message("two")]})
    spans = [first, span({"messages": [message("one")]}), span({"messages": [message("one")]}), first]
    spans[3] = ROWS.span(RUN)._replace(payload=first.payload)._replace(status="complete")
    assert found(spans, "one") == [(0, 3)]
    assert found(spans, "two") == [(0, 1)]
    assert found(spans, "one two") == [(0, 3)]


def test_of_a_hit_only_what_it_said_first_is_shown() -> None:
    spans = [span({"messages": [message("one"), message("two")][:length]}) for length in (1, 2)]
    (hit,), _ = search_run(spans, Matcher(["two"]), 5)
    assert json.loads(hit.span.payload) == {"messages": [message("two")]}


@given(json_objects)
def test_a_long_payload_has_the_parts_that_it_has_when_it_is_decoded(value: dict[str, Any]) -> None:
    short, long = (
        parts_of(json.dumps({**value, "many": [value, value], "the end of it": end}, separators=(",", ":")))
        for end in ("x", "x" * DECODED)
    )
    assert long[:-1] == short


def test_a_large_object_is_not_decoded() -> None:
    text = json.dumps({"a": {"list": [{"n": number} for number in range(100_000)]}}, separators=(",", ":"))
    tracemalloc.start()
    try:
        assert parts_of(text) == []
        assert tracemalloc.get_traced_memory()[1] < 2 * len(text)
    finally:
        tracemalloc.stop()
