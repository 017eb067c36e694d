"""Differences of texts and values: the parts give both texts, and each member that differs is named."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentspan.analysis.differences import field_changes, words

texts = st.lists(st.sampled_from(["one", "two", "three", " ", " ", ", ", "\n", "é", "."]), max_size=14).map("".join)


@given(texts, texts)
def test_the_parts_are_both_texts(a: str, b: str) -> None:
    parts = [*words(a, b)]
    assert "".join(part.text for part in parts if part.op != "added") == a
    assert "".join(part.text for part in parts if part.op != "removed") == b
    assert all(part.text for part in parts)


def test_phrases_stay_together() -> None:
    parts = [(part.op, part.text) for part in words("the old red fox ran", "the quick brown fox ran")]
    assert parts == [("same", "the "), ("removed", "old red"), ("added", "quick brown"), ("same", " fox ran")]


@pytest.mark.parametrize(
    ("a", "b", "found"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, []),
        ({"a": 1}, {"a": True}, [("x.a", "1", "true")]),
        ({"a": 1}, {"b": None}, [("x.a", "1", None), ("x.b", None, "null")]),
        ({"a": [1, 2, 3]}, {"a": [1, 3]}, [("x.a.1", "2", None)]),
        ([{"n": 1}, {"n": 2}], [{"n": 0}, {"n": 1}, {"n": 3}], [("x.0", None, '{"n": 0}'), ("x.2.n", "2", "3")]),
        ({"a": {}}, {"a": []}, [("x.a", "{}", "[]")]),
        ("text", {"text": "text"}, [("x", "text", '{"text": "text"}')]),
    ],
)
def test_each_member_that_differs_is_named(a: Any, b: Any, found: list[tuple[str, str | None, str | None]]) -> None:
    assert [(change.path, change.a, change.b) for change in field_changes("x", a, b)] == found


def test_a_value_nested_deep_is_compared_as_a_whole() -> None:
    a, b = "one", "two"
    for _ in range(150):
        a, b = {"in": a}, {"in": b}  # type: ignore[assignment]
    (change,) = field_changes("x", a, b)
    assert change.path.count(".") == 40
    assert change.a != change.b
