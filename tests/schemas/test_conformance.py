"""Conformance: jsonschema's verdict, told by path and keyword without a value of the payload, within bounds."""

import json
import re
import threading
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agentspan.errors import SchemaError
from agentspan.model.rows import Violation
from agentspan.schemas.conformance import MAX_PATTERNS, MAX_SCHEMA, MAX_SCHEMA_DEPTH, MAX_VIOLATIONS, Conformance
from tests.strategies import json_of, names, rich_schemas, simple_schemas, with_values
from tests.tiers import examples

DIALECT = "https://json-schema.org/draft/2020-12/schema"
ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "pattern": "^[a-z]+$"},
        "lines": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"n": {"type": "integer", "minimum": 1}},
                "required": ["n", "sku"],
            },
        },
        "kind": {"enum": ["new", "old"]},
    },
    "required": ["id"],
    "additionalProperties": False,
}


def check(schema: Any, payload: Any) -> tuple[Violation, ...]:
    """The violations of a payload."""
    return Conformance(schema, "payload").check(payload)


def found(schema: Any, payload: Any) -> list[tuple[str, str]]:
    """Where and what: path and keyword of each violation."""
    return [(violation.path, violation.keyword) for violation in check(schema, payload)]


def keywords(schema: Any, payload: Any) -> list[str]:
    """The keyword of each violation."""
    return [violation.keyword for violation in check(schema, payload)]


@settings(max_examples=examples(40))
@given(with_values(rich_schemas()))
@example(({"uniqueItems": True}, [1, True, 1.5, "1", [1], [True], {"a": 1}, {"a": True}, 0, False, None]))
@example(({"uniqueItems": True}, [{"a": 1, "b": 2.0}, {"b": 2, "a": 1.0}]))
@example(({"uniqueItems": True}, [0.0, -0.0]))
@example(({"pattern": "^a"}, "a\ud800"))
@example(({"unevaluatedItems": False, "prefixItems": [True], "items": False}, [1, 2]))
def test_valid_is_what_jsonschema_calls_valid(pair: tuple[Any, Any]) -> None:
    schema, value = pair
    try:
        conformance = Conformance(schema, "payload")
    except SchemaError as error:
        assume("unevaluated" not in str(error))
        raise
    assert (conformance.check(value) == ()) == bool(Draft202012Validator(schema).is_valid(value))


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"uniqueItems": True}, [1, "1", True, [1], {"a": 1}], [1, 2, 1]),
        ({"uniqueItems": True}, [1, True, 0, False], [1, 1.0]),
        ({"uniqueItems": True}, [[1], [True]], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]),
        ({"uniqueItems": False}, [1, 1], None),
        ({"pattern": "^[a-c]+$"}, "abc", "abd"),
        ({"pattern": "b"}, "abc", "aac"),
        ({"pattern": r"^\d{3}-\d{2}$"}, "123-45", "123-4"),
        ({"pattern": r"^\w+@\w+\.\w+$"}, "mia@example.org", "mia"),
        ({"pattern": "é"}, "café", "cafe"),
        ({"pattern": "a"}, 5, None),
        ({"patternProperties": {"^n_": {"type": "integer"}}}, {"n_a": 1, "other": "x"}, {"n_a": "x"}),
        ({"patternProperties": {"a": {"minimum": 1}, "b": {"maximum": 3}}}, {"ab": 2}, {"ab": 4}),
        ({"properties": {"a": True}, "additionalProperties": False}, {"a": 1}, {"b": 1}),
        ({"additionalProperties": {"type": "string"}}, {"b": "x"}, {"b": 1}),
        ({"patternProperties": {"^x": True}, "additionalProperties": False}, {"xy": 1}, {"y": 1}),
        ({"propertyNames": {"pattern": "^[a-z]+$"}}, {"abc": 1}, {"ABC": 1}),
        ({"required": ["a", "b"]}, {"a": 1, "b": 1}, {"a": 1}),
        ({"unevaluatedProperties": False, "allOf": [{"properties": {"a": True}}]}, {"a": 1}, {"b": 1}),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "number"}}}, 1, "1"),
        ({"$dynamicRef": "#n", "$defs": {"n": {"$dynamicAnchor": "n", "type": "number"}}}, 1, "1"),
        ({"$schema": DIALECT, "items": {"$ref": "#"}, "maxItems": 1}, [[]], [[1, 2]]),
        ({"$id": "urn:x", "$ref": "#/$defs/n", "$defs": {"n": {"type": "number"}}}, 1, "1"),
    ],
)  # fmt: skip
def test_agrees_with_jsonschema_on_examples(schema: Any, valid: Any, invalid: Any) -> None:
    reference = Draft202012Validator(schema)
    assert reference.is_valid(valid)
    assert check(schema, valid) == ()
    if invalid is not None:
        assert not reference.is_valid(invalid)
        assert len(check(schema, invalid)) == 1


def test_a_violation_tells_where_what_and_why() -> None:
    payload = {"id": "A1", "kind": "odd", "lines": [{"n": 1, "sku": "a"}, {"n": 0}, {"n": "two", "sku": 1}], "x": 1}
    assert set(check(ORDER, payload)) == {
        Violation("payload", "$.id", "pattern", 'does not satisfy pattern: "^[a-z]+$"'),
        Violation("payload", "$.kind", "enum", 'does not satisfy enum: ["new", "old"]'),
        Violation("payload", "$.lines[1].n", "minimum", "does not satisfy minimum: 1"),
        Violation("payload", "$.lines[1]", "required", "lacks sku"),
        Violation("payload", "$.lines[2].n", "type", "is not of type integer"),
        Violation("payload", "$", "additionalProperties", "has properties that the schema does not allow"),
    }


@pytest.mark.parametrize(
    ("schema", "payload", "keyword", "message"),
    [
        ({"type": ["string", "null"]}, 1, "type", "is not of type string or null"),
        ({"required": ["a", "b", "c"]}, {"b": 1}, "required", "lacks a, c"),
        ({"required": ["model"]}, {"modle": 1}, "required", "lacks model (modle: is model meant?)"),
        ({"required": ["model"]}, {"prompt": 1}, "required", "lacks model"),
        ({"not": {"type": "object"}}, {}, "not", 'does not satisfy not: {"type": "object"}'),
        ({"const": 1}, 2, "const", "does not satisfy const: 1"),
        (False, {}, "false", "nothing is allowed here"),
    ],
)
def test_the_message_is_written_from_the_schemas_side(schema: Any, payload: Any, keyword: str, message: str) -> None:
    assert check(schema, payload) == (Violation("payload", "$", keyword, message),)


def test_a_false_schema_below_the_top_is_a_violation_of_false_too() -> None:
    assert keywords({"properties": {"a": False}}, {"a": 1}) == ["false"]


def test_several_missing_properties_are_one_violation() -> None:
    assert check({"required": ["a", "b"], "minProperties": 0}, {}) == (
        Violation("payload", "$", "required", "lacks a, b"),
    )


def test_the_side_is_the_one_that_was_asked_about() -> None:
    (violation,) = Conformance({"required": ["a"]}, "result_payload").check({})
    assert violation.side == "result_payload"


def test_no_schema_allows_everything() -> None:
    conformance = Conformance(None, "payload")
    assert conformance.quick({"any": ["thing"]})
    assert conformance.check({"any": ["thing"]}) == ()


def test_at_most_20_violations_are_listed() -> None:
    payload = {"a": ["x"] * 1000}
    violations = check({"properties": {"a": {"items": {"type": "integer"}}}, "minProperties": 1}, payload)
    assert len(violations) == MAX_VIOLATIONS == 20
    assert violations[19].path == "$.a[19]"


def test_paths_and_messages_are_short() -> None:
    (violation,) = check({"additionalProperties": {"enum": ["e" * 500]}}, {"p" * 500: 1})
    assert len(violation.path) == len(violation.message) == 200


secrets = st.text("qwertzuiop0123456789", min_size=12, max_size=20)


def hide(value: Any, secret: str) -> Any:
    """The same JSON with a secret in every text and an odd number in every number."""
    if isinstance(value, dict):
        return {name: hide(item, secret) for name, item in value.items()}
    if isinstance(value, list):
        return [hide(item, secret) for item in value]
    if isinstance(value, str):
        return value + secret
    return value


@settings(max_examples=examples(40))
@given(rich_schemas(), json_of(names), secrets)
@example({"type": "integer"}, "", "secret-in-a-text")
@example({"unevaluatedItems": False}, [""], "secret-in-a-list")
@example({"propertyNames": {"maxLength": 0}}, {"a": ""}, "secret-in-an-object")
@example({"anyOf": [{"type": "integer"}, {"enum": [1]}]}, {"a": [""]}, "secret-in-an-array")
@example({"dependentRequired": {"a": ["b"]}, "additionalProperties": False}, {"a": ""}, "secret-in-a-member")
def test_no_message_holds_a_value_of_the_payload(schema: Any, value: Any, secret: str) -> None:
    assume(secret not in json.dumps(schema))
    try:
        violations = check(schema, hide(value, secret))
    except SchemaError:
        return
    assert secret not in json.dumps(violations)


@given(secrets)
def test_no_message_holds_the_name_of_a_member_that_is_not_allowed(secret: str) -> None:
    for schema in (
        {"additionalProperties": False},
        {"unevaluatedProperties": False},
        {"propertyNames": {"maxLength": 3}},
        {"maxProperties": 0},
    ):
        (violation,) = check(schema, {secret: 1})
        assert secret not in json.dumps(violation)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(["x"] * 100_000, id="large"),
        pytest.param([[]], id="fine"),
        pytest.param([10**5000, 1], id="5,000 digits"),
    ],
)
def test_a_check_that_was_given_up_says_so(payload: list[Any]) -> None:
    violations = check({"items": {"minLength": 0, "maxLength": 5, "multipleOf": 0.01}}, payload)
    if payload == [[]]:
        assert violations == ()
        return
    ((side, path, keyword, message),) = violations
    assert (side, path, keyword) == ("payload", "$", "$unchecked")
    assert message.startswith("the check ")


def test_a_check_that_was_given_up_does_not_shorten_the_next_one() -> None:
    conformance = Conformance({"items": {"minLength": 1}}, "payload")
    assert conformance.check(["x"] * 100_000)[0].keyword == "$unchecked"
    assert conformance.check(["x"] * 1000) == ()
    assert [v.keyword for v in conformance.check(["x", ""])] == ["minLength"]


def test_a_long_list_of_plain_numbers_is_checked_to_its_end() -> None:
    vector = [0.5] * 10_000
    schema = {"properties": {"vector": {"type": "array", "items": {"type": "number"}}}}
    assert check(schema, {"vector": vector}) == ()
    assert found(schema, {"vector": [*vector, "x"]}) == [("$.vector[10000]", "type")]


def test_a_check_that_another_thread_gives_up_meanwhile_does_not_end_this_one() -> None:
    conformance = Conformance({"items": {"minLength": 1}}, "payload")
    others: list[tuple[Violation, ...]] = []

    class Interrupted(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            if index == 1:
                thread = threading.Thread(target=lambda: others.append(conformance.check(["x"] * 100_000)))
                thread.start()
                thread.join()
            return super().__getitem__(index)

    assert conformance.check(Interrupted(["x"] * 10)) == ()
    assert [violation.keyword for (violation,) in others] == ["$unchecked"]


def test_a_trusted_schema_that_is_no_schema_gives_unchecked() -> None:
    conformance = Conformance({"minimum": "x"}, "payload", trusted=True)
    assert [v.keyword for v in conformance.check({})] == ["$unchecked"]


def test_a_trusted_schema_needs_no_jsonschema_before_its_first_mismatch() -> None:
    conformance = Conformance({"minProperties": 1}, "payload", trusted=True)
    assert [v.keyword for v in conformance.check({})] == ["minProperties"]
    assert conformance.check({"a": 1}) == ()


@pytest.mark.parametrize("keyword", ["const", "default", "examples", "enum"])
def test_what_looks_like_a_keyword_among_data_or_names_does_no_harm(keyword: str) -> None:
    data: Any = {"type": "nonsense", "minimum": "x"}
    schema = {keyword: [data] if keyword in ("examples", "enum") else data, "maxProperties": 9}
    Conformance(schema, "payload")
    names_of_keywords = {"properties": {"pattern": {"type": "string"}, "$ref": {"maxLength": 3}, "type": True}}
    assert keywords(names_of_keywords, {"$ref": "long", "pattern": "(", "type": 1}) == ["maxLength"]


def test_the_bounds_of_a_schema() -> None:
    def nested(depth: int) -> Any:
        inner: Any = {}
        for _ in range(depth):
            inner = {"not": inner}
        return inner

    Conformance(nested(MAX_SCHEMA_DEPTH), "payload")
    with pytest.raises(SchemaError, match="nested deeper than 64"):
        Conformance(nested(MAX_SCHEMA_DEPTH + 1), "payload")
    room = MAX_SCHEMA - len(json.dumps({"$comment": ""}))
    Conformance({"$comment": "x" * room}, "payload")
    with pytest.raises(SchemaError, match="has 65537 bytes of JSON; at most 65536"):
        Conformance({"$comment": "x" * (room + 1)}, "payload")
    patterns = {f"^x{n}": True for n in range(MAX_PATTERNS)}
    Conformance({"patternProperties": patterns}, "payload")
    with pytest.raises(SchemaError, match="has 65 patterns; at most 64"):
        Conformance({"patternProperties": patterns, "pattern": "y"}, "payload")


@pytest.mark.full
def test_a_schema_of_two_thousand_properties_is_allowed() -> None:
    schema = {"properties": {f"p{n}": {"type": "string"} for n in range(2000)}, "minProperties": 1}
    assert found(schema, {"p7": "x", "p1999": 1}) == [("$.p1999", "type")]


@pytest.mark.full
@settings(max_examples=examples(40))
@given(simple_schemas() | rich_schemas(), json_of(names))
def test_registration_raises_nothing_but_schema_errors_and_a_check_nothing(schema: Any, value: Any) -> None:
    for trusted in (True, False):
        try:
            conformance = Conformance(schema, "payload", trusted=trusted)
        except SchemaError:
            assert not trusted
            continue
        violations = conformance.check(value)
        assert len(violations) <= MAX_VIOLATIONS
        assert all(re.match(r"\$", violation.path) for violation in violations)


@given(
    json_of(names | st.sampled_from(["type", "properties", "items", "$ref", "pattern", "required", "enum", "allOf"]))
)
@example({"$ref": "#/0"})
@example({"pattern": "(?=a)", "patternProperties": {"(": 1}})
def test_any_json_as_a_schema_is_used_or_refused(schema: Any) -> None:
    try:
        conformance = Conformance(schema, "payload")
    except SchemaError:
        return
    assert len(conformance.check({"a": 1, "type": "x"})) <= MAX_VIOLATIONS


def test_a_schema_that_two_threads_compile_at_the_same_moment_checks_for_both() -> None:
    class Overtaken(Conformance):
        """After this thread has looked whether the validator is made, another thread has made it."""

        __slots__ = ("reads", "set_by_first")

        def _look(self) -> Any:
            self.reads += 1
            return self.set_by_first if self.reads == 1 else Draft202012Validator({"type": "integer"})

        def _set(self, value: Any) -> None:
            self.set_by_first, self.reads = value, 0

        _validator = property(_look, _set)

    checked = Overtaken({"type": "integer"}, "payload", trusted=True).check("text")
    assert [violation.keyword for violation in checked] == ["type"]
