"""The compiled check never says valid where jsonschema does not, and compiles nothing that it does not fully know."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from jsonschema import Draft202012Validator

from agentspan.schemas.builtin import BUILT_IN
from agentspan.schemas.conformance import Check, Conformance, simple
from tests.strategies import rich_schemas, simple_schemas, with_values
from tests.tiers import examples

DEEP = {"type": "object", "properties": {"a": {"properties": {"a": {"type": "null"}}, "required": ["a"]}}}


def compile_check(schema: Any) -> Check | None:
    """The check of a schema that is simple enough."""
    found = simple(schema)
    return None if found is None else found.compiled()


def is_valid(schema: Any, value: Any) -> bool:
    """What jsonschema says."""
    return bool(Draft202012Validator(schema).is_valid(value))


@given(with_values(simple_schemas()))
@example(({"type": "integer"}, True))
@example(({"type": "number"}, False))
@example(({"type": "integer"}, 1.0))
@example(({"type": "integer"}, 10**400))
@example(({"type": ["integer", "null"]}, 1.5))
@example(({"required": ["a"]}, "no object"))
@example(({"required": ["a"]}, {"a": None}))
@example((DEEP, {"a": {}}))
@example((DEEP, {"a": {"a": 0}}))
@example((DEEP, {"a": 1}))
@example(({"properties": {"a": {"required": ["b"]}}}, {"a": {}}))
def test_simple_schemas_are_compiled_and_agree_with_jsonschema(pair: tuple[Any, Any]) -> None:
    schema, value = pair
    check = compile_check(schema)
    assert check is not None
    if check(value):
        assert is_valid(schema, value)
    assert (Conformance(schema, "payload").check(value) == ()) == is_valid(schema, value)


@settings(max_examples=examples(40))
@given(with_values(simple_schemas() | rich_schemas()))
def test_whatever_is_compiled_never_says_valid_where_jsonschema_does_not(pair: tuple[Any, Any]) -> None:
    schema, value = pair
    check = compile_check(schema)
    if check is not None and check(value):
        assert is_valid(schema, value)


@pytest.mark.parametrize(
    ("schema", "value", "sure"),
    [
        ({}, {"any": [1]}, True),
        (True, None, True),
        ({"type": "object"}, {}, True),
        ({"type": "object"}, [], False),
        ({"type": ["string", "null"]}, None, True),
        ({"type": "number"}, 1, True),
        ({"type": "number"}, True, False),
        ({"type": "boolean"}, 1, False),
        ({"type": "integer"}, 2**100, True),
        ({"required": ["a"]}, {"b": 1}, False),
        ({"required": ["a"]}, {"a": None}, True),
        ({"properties": {"a": {"type": "string"}}}, {"a": 1}, False),
        ({"properties": {"a": {"type": "string"}}}, {"b": 1}, True),
        (DEEP, {"a": {"a": None}}, True),
        (DEEP, {"a": {"a": 1}}, False),
    ],
)
def test_says_so_when_it_is_sure(schema: Any, value: Any, sure: bool) -> None:
    check = compile_check(schema)
    assert check is not None
    assert check(value) is sure


def test_a_float_that_is_whole_is_left_to_jsonschema_which_takes_it() -> None:
    check = compile_check({"type": "integer"})
    assert check is not None
    assert check(1.0) is False
    assert Conformance({"type": "integer"}, "payload").check(1.0) == ()


@pytest.mark.parametrize(
    "schema",
    [
        False,
        None,
        [],
        "object",
        {"enum": [1]},
        {"type": "object", "minProperties": 1},
        {"additionalProperties": False},
        {"additionalProperties": {}},
        {"$ref": "#"},
        {"format": "date"},
        {"unknown": 1},
        {"properties": {"a": False}},
        {"properties": {"a": {"pattern": "a"}}},
        {"properties": {"a": {"properties": {"b": {"minimum": 1}}}}},
        {"properties": []},
        {"properties": None},
        {"required": "a"},
        {"required": ["a", "a"]},
        {"required": [1]},
        {"required": None},
        {"type": None},
        {"type": []},
        {"type": "nonsense"},
        {"type": ["string", "string"]},
        {"type": [["string"]]},
        {"type": 1},
        {"properties": {"a": {"type": None}}},
        {"title": 1},
        {"description": None},
        {"examples": "a"},
    ],
    ids=repr,
)
def test_a_schema_that_is_richer_or_wrong_is_not_compiled(schema: Any) -> None:
    assert compile_check(schema) is None


def test_the_built_in_types_are_all_compiled() -> None:
    checks = [compile_check(schema) for built_in in BUILT_IN for schema in (built_in.payload, built_in.result)]
    assert len(checks) == 36
    assert None not in checks


@pytest.mark.parametrize("name", ["v", "classes", "type", "dict", "name0", 'a") or print("x', "\n", "\\", "\ud800"])
def test_a_name_is_a_name_whatever_it_says(name: str) -> None:
    check = compile_check({"required": [name], "properties": {name: {"type": "string"}, "b": {"type": "null"}}})
    assert check is not None
    assert check({name: "x"})
    assert not check({name: 1})
    assert not check({"b": None})


@pytest.mark.full
def test_as_many_properties_as_a_schema_may_have() -> None:
    names = [f"p{number}" for number in range(1700)]
    schema = {"required": names, "properties": {name: {"type": "string"} for name in names}}
    check = Conformance(schema, "payload").check
    good = dict.fromkeys(names, "x")
    assert check(good) == ()
    assert len(check({**good, "p1699": 1})) == 1
