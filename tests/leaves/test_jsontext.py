"""JSON text: what goes in comes back, what JSON cannot say is refused without showing it, and hashes do not jump."""

import dataclasses
import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from agentspan import jsontext
from tests.strategies import any_text, json_values

SECRET = "hunter2-do-not-show"


class Point(BaseModel):
    """A model with a default."""

    x: int
    y: int = 2


@dataclasses.dataclass
class Pair:
    """A dataclass."""

    left: str
    right: list[int]


def nested(depth: int) -> list[Any]:
    """A list in a list in a list …"""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def cyclic_list() -> list[Any]:
    value: list[Any] = [SECRET]
    value.append(value)
    return value


def cyclic_dict() -> dict[str, Any]:
    value: dict[str, Any] = {SECRET: SECRET}
    value["again"] = [value]
    return value


@given(json_values)
def test_plain_json_comes_back_as_it_was(value: Any) -> None:
    text, plain = jsontext.encode(value)
    assert plain == value
    assert jsontext.decode(text) == value
    assert json.loads(text) == value


@given(json_values)
def test_types_come_back_as_they_were(value: Any) -> None:
    assert repr(jsontext.decode(jsontext.encode(value)[0])) == repr(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(x=1), {"x": 1, "y": 2}),
        ({"p": [Point(x=3, y=4)]}, {"p": [{"x": 3, "y": 4}]}),
        (Pair("a", [1]), {"left": "a", "right": [1]}),
        ((1, (2, 3)), [1, [2, 3]]),
        (datetime(2026, 11, 24, tzinfo=UTC), "2026-11-24T00:00:00Z"),
        ({1: "a", 1.5: "b", None: "c"}, {"1": "a", "1.5": "b", "None": "c"}),
        (b"\xff\xfe", "__4="),
        (2**100, 2**100),
    ],
    ids=repr,
)
def test_what_pydantic_serialises_becomes_plain_json(value: Any, plain: Any) -> None:
    text, got = jsontext.encode(value)
    assert got == plain
    assert jsontext.decode(text) == plain


def test_lone_surrogates_are_json() -> None:
    text, plain = jsontext.encode({"a\ud800": ["\udfff"]})
    assert plain == {"a\ud800": ["\udfff"]}
    assert text.isascii()
    assert jsontext.decode(text) == plain


def test_depth_beyond_the_fast_encoder_is_json() -> None:
    deep = nested(300)
    text, plain = jsontext.encode(deep)
    assert plain == deep
    assert jsontext.decode(text) == deep


@pytest.mark.parametrize("value", [nested(100_000), cyclic_list(), cyclic_dict()], ids=["deep", "list", "dict"])
def test_what_is_too_deep_or_contains_itself_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="nested too deep, or contains itself") as raised:
        jsontext.encode(value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        {SECRET: [float("inf")]},
        [SECRET, object()],
        {"f": lambda: SECRET},
        10**5000,
        {"k": Exception(SECRET)},
    ],
    ids=["nan", "inf", "object", "function", "5,000 digits", "exception"],
)
def test_what_json_cannot_say_is_refused_without_its_value(value: Any) -> None:
    with pytest.raises(ValueError, match="no JSON") as raised:
        jsontext.encode(value)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


@given(any_text, st.sampled_from([float("nan"), float("-inf"), object()]))
def test_a_refusal_is_the_same_whatever_the_value(text: str, bad: Any) -> None:
    messages = set()
    for value in (bad, [text, bad], {text: {"a": bad}}):
        with pytest.raises(ValueError, match="no JSON") as raised:
            jsontext.encode(value)
        messages.add(str(raised.value))
    assert len(messages) == 1


def shuffled(value: Any, rng: random.Random) -> Any:
    """The same JSON with the members of its objects in another order."""
    if isinstance(value, dict):
        items = [(name, shuffled(item, rng)) for name, item in value.items()]
        rng.shuffle(items)
        return dict(items)
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


@given(json_values, st.randoms(use_true_random=False))
def test_canonical_text_does_not_depend_on_the_order_of_members(value: Any, rng: random.Random) -> None:
    assert jsontext.canonical(shuffled(value, rng)) == jsontext.canonical(value)


@given(json_values)
def test_canonical_text_holds_the_whole_value(value: Any) -> None:
    text = jsontext.canonical(value)
    assert repr(json.loads(text)) == repr(in_order(value))
    assert "\n" not in text


def in_order(value: Any) -> Any:
    """The same JSON with the members of its objects in order."""
    if isinstance(value, dict):
        return {name: in_order(value[name]) for name in sorted(value)}
    return [in_order(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("a", "b"), [(1, True), (0, False), ("1", 1), (None, ""), ([], {}), ([1, 2], [2, 1])])
def test_different_values_have_different_canonical_texts(a: Any, b: Any) -> None:
    assert jsontext.canonical(a) != jsontext.canonical(b)


@pytest.mark.parametrize(("character", "is_escaped"), [("\xe9", False), ("\u201c", True), ("\U0001f600", True)])
def test_a_text_of_megabytes_is_escaped_where_that_saves_memory(character: str, is_escaped: bool) -> None:
    value = {"a": ["b\n" * jsontext.LONG, character], character: 1.5}
    text = jsontext.text_of(value)
    assert text.isascii() is is_escaped
    assert json.loads(text) == value
    beyond = {"a": character * jsontext.LONG}
    assert jsontext.text_of(beyond) == json.dumps(beyond, ensure_ascii=False, separators=(",", ":"))
