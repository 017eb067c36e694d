"""Templates and schemas made to do harm: each is refused when it is registered, or does nothing but its work."""

import builtins
import io
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import chevron
import pytest

from agentspan.errors import SchemaError, TemplateError
from agentspan.schemas.span_types import SpanType, check_span_type_schemas, describe, from_schemas, make
from agentspan.schemas.templates import client_template

SECRET = "hunter2-do-not-show"
SAFE_S = 8.0
EVIL_PATTERN = "^(a+)+$"
EVIL_TEXT = "a" * 5000 + "!"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Refused(NamedTuple):
    """Registration says no, in these words."""

    says: str


class Shows(NamedTuple):
    """The template is harmless: this is the summary."""

    summary: str


class Finds(NamedTuple):
    """The schema is harmless: these are the keywords of its violations."""

    keywords: set[str]


class Case(NamedTuple):
    """What somebody registers, the payload that meets it, and what comes of it."""

    register: dict[str, Any]
    payload: dict[str, Any]
    outcome: Refused | Shows | Finds


def template(source: str, outcome: Refused | Shows, **payload: Any) -> Case:
    return Case({"template": source}, {"secret": SECRET, **payload}, outcome)


def schema(payload_schema: Any, outcome: Refused | Finds, **payload: Any) -> Case:
    return Case({"payload": payload_schema}, {"secret": SECRET, **payload}, outcome)


def nest(depth: int, wrap: Callable[[Any], Any], inner: Any) -> Any:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


def itself() -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object"}
    made["properties"] = {"a": made}
    return made


def laughs(*, levels: int = 10, width: int = 10, last: Any = True, **beside: Any) -> dict[str, Any]:
    """A schema of `width ** levels` subschemas in a few lines: the billion laughs."""
    defs = {f"l{n}": {"allOf": [{"$ref": f"#/$defs/l{n + 1}"}] * width} for n in range(levels)}
    return {**beside, "$defs": {**defs, f"l{levels}": last}, "$ref": "#/$defs/l0"}


NOT_MUSTACHE = Refused("no name; use {{field}}")
UNCHECKED = Finds({"$unchecked"})
ELSEWHERE = Refused("to another document; put it under $defs")
LIQUID = Refused("looks like Liquid")
NO_SCHEMAS = frozenset({"names that are numbers", "a list", "text", "a number"})
UNBOUNDED = Refused("no regular expression, or cannot be matched in bounded time")
TOO_DEEP = Refused("is nested deeper than 64, or refers to itself")
NO_SCHEMA = Refused("must be a JSON object or a boolean")

TEMPLATES: dict[str, Callable[[], Case]] = {
    "partial": lambda: template("{{> secrets}}", Refused("partial")),
    "partial by absolute path": lambda: template("{{> /etc/passwd}}", Refused("partial")),
    "partial within a section": lambda: template("{{#a}}{{>../a}}{{/a}}", Refused("partial")),
    "method called as a section": lambda: template(
        "{{#x.format}}q{{/x.format}}", Shows(""), x="{1.__globals__[sys].version}"
    ),
    "method of an object": lambda: template("{{#x.keys}}q{{/x.keys}}{{x.items}}", Shows(""), x={"a": 1}),
    "method of a list": lambda: template("{{x.append}}{{#x.clear}}q{{/x.clear}}{{x.1}}", Shows("2"), x=[1, 2]),
    "class": lambda: template("{{x.__class__}}{{x.__class__.__mro__}}", Shows(""), x="text"),
    "globals": lambda: template("{{x.__globals__}}{{x.__init__.__globals__}}", Shows(""), x={}),
    "dunder at the top": lambda: template("{{__class__}}{{__builtins__}}{{__import__}}", Shows("")),
    "names of the generated function": lambda: template("{{c0}}{{out}}{{reserved}}{{k0}}{{shown}}", Shows("")),
    "empty tag": lambda: template("{{}}", Refused("empty tag")),
    "blank tag": lambda: template("{{ }}", NOT_MUSTACHE),
    "only an opening": lambda: template("{{", Refused("never closed")),
    "unclosed tag": lambda: template("a {{b", Refused("never closed")),
    "unclosed tag after a good one": lambda: template("{{a}} {{b} c", Refused("never closed")),
    "three braces, two braces": lambda: template("{{{a}}", Refused("use {{field}}")),
    "four braces": lambda: template("{{{{a}}}}", NOT_MUSTACHE),
    "two words": lambda: template("{{a b}}", NOT_MUSTACHE),
    "dots only": lambda: template("{{..}}", NOT_MUSTACHE),
    "delimiters to nothing": lambda: template("{{= =}}", Refused("changes the delimiters")),
    "other delimiters": lambda: template("{{=<% %>=}}<% a %>", Refused("changes the delimiters")),
    "delimiters unclosed": lambda: template("{{=<% a}}", Refused("unclosed set delimiter")),
    "Liquid tag": lambda: template("{% if x %}y{% endif %}", LIQUID),
    "Liquid filter": lambda: template("{{ y | truncate: 60 }}", LIQUID),
    "section never closed": lambda: template("{{#a}}x", Refused("never closed")),
    "section closed by another": lambda: template("{{#a}}{{#b}}x{{/a}}{{/b}}", Refused("Trying to close")),
    "section never opened": lambda: template("x{{/a}}", Refused("not opened")),
    "sections three deep": lambda: template(nest(3, "{{{{#a}}}}{}{{{{/a}}}}".format, "x"), Refused("deeper than 2")),
    "3,000 nested sections": lambda: template("{{#a}}" * 3000 + "{{/a}}" * 3000, Refused("at most 4096")),
    "240 KB": lambda: template("{{a}} and more text. " * 12_000, Refused("at most 4096")),
    "65 tags": lambda: template("{{a}}" * 65, Refused("more than 64 tags")),
    "no text": lambda: Case({"template": 7}, {}, Refused("must be a string")),
    "statements in a name": lambda: template('{{a");import os;os.system("x}}', NOT_MUSTACHE),
    "calls in a name": lambda: template('{{a");__import__("os").system("x}}{{#k0]}}y{{/k0]}}', Shows("")),
    "a line in a name": lambda: template("{{a\n import os}}", NOT_MUSTACHE),
    "quotes in a name": lambda: template("{{'''}}{{\"\"\"}}{{a'}}{{\\}}", Shows("1"), **{"a'": 1}),
    "quotes in the text": lambda: template(
        '"""\'\'\'"); raise SystemExit #{{a}}', Shows('"""\'\'\'"); raise SystemExit #1'), a=1
    ),
    "backslashes and lines in the text": lambda: template(
        "\\\n' + os + '\\x00{{a}}\\", Shows("\\ ' + os + '\\x001\\"), a=1
    ),
    "terminal commands in the text": lambda: template("\x1b[2J{{a}}", Shows("\ufffd[2J1"), a=1),
    "lists in lists": lambda: template(
        "{{#a}}{{#a}}{{a}}{{x}}{{/a}}{{/a}}", Shows("y" * 199 + "…"), a=[{"x": "y" * 1000}] * 100_000
    ),
    "lists in lists of nothing": lambda: template("{{#a}}{{#a}}{{x}}{{/a}}{{/a}}", Shows(""), a=[{"y": 1}] * 100_000),
    "ten megabytes": lambda: template(
        "{{a}}{{b._inline}}{{b._args}}", Shows("z" * 199 + "…"), a="z" * 10**7, b=["z" * 10**7]
    ),
    "ten megabytes of white space": lambda: template("{{a}}x", Shows("…"), a=" \n" * 5 * 10**6),
    "many members": lambda: template("{{a._count}}", Shows("200000"), a={str(n): n for n in range(200_000)}),
    "deep data": lambda: template("{{a._inline}}", Shows("[[[[[[[[[…]]]]]]]]]"), a=nest(900, lambda a: [a], 1)),
    "a number of 5,000 digits": lambda: template("{{a}}", Shows("(a very large number)"), a=10**5000),
}  # fmt: skip

SCHEMAS: dict[str, Callable[[], Case]] = {
    "remote reference": lambda: schema({"$ref": "http://127.0.0.1:9/schema.json"}, ELSEWHERE),
    "remote reference, encrypted": lambda: schema({"$ref": "https://127.0.0.1:9/schema.json"}, ELSEWHERE),
    "reference to a file": lambda: schema({"$ref": "file:///etc/passwd"}, ELSEWHERE),
    "relative reference": lambda: schema({"$ref": "other.json#/$defs/a"}, ELSEWHERE),
    "reference to another host": lambda: schema({"$ref": "//127.0.0.1:9/a"}, ELSEWHERE),
    "remote reference, hidden": lambda: schema(
        {"$defs": {"a": {"items": {"oneOf": [{"$ref": "http://127.0.0.1:9/"}]}}}}, ELSEWHERE
    ),
    "remote dynamic reference": lambda: schema({"$dynamicRef": "http://127.0.0.1:9/#node"}, ELSEWHERE),
    "remote base": lambda: schema({"$id": "http://127.0.0.1:9/", "properties": {"a": {"$ref": "b.json"}}}, ELSEWHERE),
    "remote base with a local reference": lambda: schema(
        {"$id": "http://127.0.0.1:9/a", "$ref": "#/$defs/gone"}, UNCHECKED
    ),
    "reference to nowhere": lambda: schema({"$ref": "#/$defs/gone"}, Refused("leads nowhere")),
    "reference to oneself": lambda: schema({"$ref": "#"}, UNCHECKED),
    "references in a ring": lambda: schema(
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, UNCHECKED
    ),
    "recursive schema": lambda: schema(
        {"properties": {"a": {"$ref": "#"}}, "required": ["secret"]}, Finds({"required"}), a={"a": {}}
    ),
    "mutually recursive schema": lambda: schema(
        {
            "$ref": "#/$defs/a",
            "$defs": {
                "a": {"properties": {"a": {"$ref": "#/$defs/b"}}},
                "b": {"properties": {"a": {"$ref": "#/$defs/a"}}, "minProperties": 2},
            },
        },
        Finds({"minProperties"}),
        a={"a": {}},
    ),
    "billion laughs": lambda: schema(laughs(), UNCHECKED),
    "billion laughs that nobody laughs at": lambda: schema(laughs(last=False), Finds({"false"})),
    "billion laughs about what is not evaluated": lambda: schema(
        {"unevaluatedProperties": False, **laughs(levels=12)}, UNCHECKED
    ),
    "billion laughs under not": lambda: schema({"not": laughs()["$defs"]["l0"], "$defs": laughs()["$defs"]}, UNCHECKED),
    "exponential pattern": lambda: schema(
        {"properties": {"a": {"pattern": EVIL_PATTERN}}}, Finds({"pattern"}), a=EVIL_TEXT
    ),
    "exponential pattern, another dialect inside": lambda: schema(
        {"properties": {"a": {"$schema": DIALECT, "pattern": EVIL_PATTERN}}}, Finds({"pattern"}), a=EVIL_TEXT
    ),
    "exponential pattern, an older dialect inside": lambda: schema(
        {"properties": {"a": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": EVIL_PATTERN}}},
        Finds({"pattern"}),
        a=EVIL_TEXT,
    ),
    "exponential pattern, referred to from below": lambda: schema(
        {"$schema": DIALECT, "pattern": EVIL_PATTERN, "properties": {"a": {"$ref": "#"}}},
        Finds({"pattern"}),
        a=EVIL_TEXT,
    ),
    "exponential pattern of names": lambda: schema(
        {"patternProperties": {EVIL_PATTERN: False}}, Finds(set()), **{EVIL_TEXT: 1}
    ),
    "exponential pattern of names, for other names": lambda: schema(
        {"patternProperties": {EVIL_PATTERN: True}, "additionalProperties": False},
        Finds({"additionalProperties"}),
        **{EVIL_TEXT: 1},
    ),
    "exponential pattern of all names": lambda: schema(
        {"propertyNames": {"pattern": EVIL_PATTERN}}, Finds({"pattern"}), **{EVIL_TEXT: 1}
    ),
    "exponential pattern of names that were evaluated": lambda: schema(
        {"patternProperties": {EVIL_PATTERN: True}, "unevaluatedProperties": False},
        Refused("use additionalProperties"),
        **{EVIL_TEXT: 1},
    ),
    "exponential pattern that is data": lambda: schema(
        {"default": {"pattern": EVIL_PATTERN}, "properties": {"a": {"$ref": "#/default"}}},
        Finds({"pattern"}),
        a=EVIL_TEXT,
    ),
    "look-ahead": lambda: schema({"pattern": "(?=a)b"}, UNBOUNDED),
    "look-behind in names": lambda: schema({"patternProperties": {"(?<!a)b": {}}}, UNBOUNDED),
    "back-reference": lambda: schema({"properties": {"a": {"pattern": r"(a*)\1"}}}, UNBOUNDED),
    "pattern that is none": lambda: schema({"pattern": "(["}, UNBOUNDED),
    "pattern that is too large": lambda: schema({"pattern": r"((\w{99}){99}){99}"}, UNBOUNDED),
    "patterns that take long to compile": lambda: schema(
        {"patternProperties": {rf"\w{{99}}{n}": True for n in range(1000)}}, Refused("1000 patterns; at most 64")
    ),
    "equal items among thousands": lambda: schema(
        {"properties": {"a": {"uniqueItems": True}}}, Finds({"uniqueItems"}), a=[{"n": n % 4999} for n in range(5000)]
    ),
    "enumeration of thousands for thousands": lambda: schema(
        {"properties": {"a": {"items": {"enum": list(range(9000))}}}}, UNCHECKED, a=[8999] * 500
    ),
    "unknown keywords for thousands": lambda: schema(
        {"properties": {"a": {"items": {f"x{n}": n for n in range(4000)}}}, "minProperties": 1},
        UNCHECKED,
        a=[1] * 20_000,
    ),
    "each item against each": lambda: schema(
        {"properties": {"a": {"items": True, "unevaluatedItems": False}}}, UNCHECKED, a=[1] * 50_000
    ),
    "alternatives that quote a large payload": lambda: schema(
        {"properties": {"a": {"anyOf": [{"type": "string"}] * 1000}}}, UNCHECKED, a=["z" * 1000] * 200
    ),
    "a million items": lambda: schema(
        {"properties": {"a": {"items": {"x": 1}}}, "not": False}, UNCHECKED, a=[1] * 10**6
    ),
    "deep data": lambda: schema(
        {"additionalProperties": {"$ref": "#"}}, UNCHECKED, a=nest(3000, lambda inner: {"a": inner}, 1)
    ),
    "3,000 deep": lambda: schema(nest(3000, lambda inner: {"not": inner}, {}), TOO_DEEP),
    "3,000 deep in plain properties": lambda: schema(
        nest(3000, lambda inner: {"type": "object", "properties": {"a": inner}}, {}), TOO_DEEP
    ),
    "3,000 lists deep": lambda: schema({"enum": nest(3000, lambda inner: [inner], 1)}, TOO_DEEP),
    "contains itself": lambda: schema(itself(), TOO_DEEP),
    "shares itself exponentially": lambda: schema(
        nest(60, lambda inner: {"allOf": [inner, inner]}, {}), Refused("larger than 65536")
    ),
    "large": lambda: schema({"enum": ["x" * 70_000]}, Refused("at most 65536 are allowed")),
    "large in plain properties": lambda: schema(
        {"properties": {f"p{n}": {"type": "string"} for n in range(10_000)}}, Refused("at most 65536 are allowed")
    ),
    "many parts": lambda: schema({"allOf": [{}] * 16_000}, Refused("too many parts")),
    "type of thousands of objects": lambda: schema(
        {"type": [{"a": n} for n in range(4000)]}, Refused("at schema.type")
    ),
    "required of thousands of numbers": lambda: schema(
        {"required": ["a", *range(9000)]}, Refused("at schema.required[1]")
    ),
    "type that is none": lambda: schema({"type": "nonsense"}, Refused("not valid JSON Schema at schema.type")),
    "type null": lambda: schema({"type": None}, Refused("at schema.type")),
    "type null below": lambda: schema({"properties": {"a": {"type": None}}}, Refused("at schema.properties.a.type")),
    "keyword of a wrong type": lambda: schema({"minLength": "3"}, Refused("at schema.minLength")),
    "properties as a list": lambda: schema({"properties": ["a"]}, Refused("at schema.properties")),
    "not a number": lambda: schema({"minimum": float("nan")}, Refused("no JSON")),
    "an object of Python": lambda: schema({"type": "object", "default": object()}, Refused("no JSON")),
    "names that are numbers": lambda: schema({"properties": {1: {}}}, Refused("a key that is no text")),
    "a list": lambda: schema([{"type": "object"}], NO_SCHEMA),
    "text": lambda: schema('{"type": "object"}', NO_SCHEMA),
    "a number": lambda: schema(1, NO_SCHEMA),
    "any object": lambda: schema(object(), NO_SCHEMA),
    "a class that is no model": lambda: schema(dict, Refused("dict is no pydantic model")),
}  # fmt: skip

NOT_IN_A_FILE = {
    "an object of Python",
    "any object",
    "a class that is no model",
    "contains itself",
    "shares itself exponentially",
}

CASES = {**{f"template: {n}": c for n, c in TEMPLATES.items()}, **{f"schema: {n}": c for n, c in SCHEMAS.items()}}


@contextmanager
def fenced() -> Iterator[list[str]]:
    """Note, and refuse, what this thread does that reads a file, runs a program or reaches for the network."""
    touched: list[str] = []
    own = threading.get_ident()

    def guard(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != own:  # one of a test before, which drains a journal
                return call(*args, **kwargs)
            touched.append(name)
            raise AssertionError(f"{name} was called")

        return refuse

    with pytest.MonkeyPatch.context() as patch:
        for module, names in {
            builtins: ["open", "input"],
            io: ["open"],
            os: ["open", "system", "listdir"],
            socket: ["socket", "create_connection", "getaddrinfo"],
        }.items():
            for name in names:
                patch.setattr(module, name, guard(f"{module.__name__}.{name}", getattr(module, name)))
        yield touched


@pytest.fixture(scope="module", autouse=True)
def _imports_are_warm() -> None:
    """Everything that is imported on first need reads its files before the fence is up."""
    warm = make("warm", payload={"properties": {"a": {"pattern": "a", "$ref": "#"}}}, template="{{#a}}{{b}}{{/a}}")
    describe(warm, "warm", "complete", {"a": "b"}, None, 1.0)
    client_template("{{ a | upcase }}").render({})
    with pytest.raises(SchemaError):
        make("warm", payload={"$ref": "#/gone"})


def used(span_type: SpanType, payload: dict[str, Any]) -> Shows | Finds:
    """What comes of it when a span of the type is written."""
    meaning = describe(span_type, span_type.name, "complete", payload, None, 1.0)
    assert SECRET not in json.dumps(meaning.violations)
    if meaning.summary is not None:
        return Shows(meaning.summary)
    return Finds({violation.keyword for violation in meaning.violations})


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_is_refused_or_harmless(name: str) -> None:
    case = CASES[name]()
    start = time.process_time()
    with fenced() as touched:
        if isinstance(case.outcome, Refused):
            with pytest.raises((SchemaError, TemplateError)) as raised:
                make("hostile", **case.register)
            message = str(raised.value)
            assert case.outcome.says in message
            assert message.partition(": ")[0] in ("schema", "template")
            assert len(message) < 300
            assert "\n" not in message
        else:
            assert used(make("hostile", **case.register), case.payload) == case.outcome
        assert touched == []
    assert time.process_time() - start < SAFE_S


@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - {"no text"}))
def test_a_clients_bad_template_is_kept_and_gives_no_summary(name: str) -> None:
    case = TEMPLATES[name]()
    item = {"name": "hostile", **case.register}
    with fenced() as touched:
        checked, unusable = check_span_type_schemas([item])
        assert checked == [item]
        is_refused = isinstance(case.outcome, Refused) and case.outcome != LIQUID  # which clients may send
        assert [part.field for part in unusable] == (["template"] if is_refused else [])
        meaning = describe(SpanType(item, trusted=True), "hostile", "complete", case.payload, None, 1.0)
        assert touched == []
    shown = "" if case.outcome == LIQUID else None
    assert meaning.summary == (case.outcome.summary if isinstance(case.outcome, Shows) else shown)


def stored(schema: Any) -> str:
    """What a file holds of a schema that came into it on some other way."""
    try:
        return json.dumps([{"name": "hostile", "params_schema": schema}])
    except RecursionError:  # where Python's depth is less
        return "[" * 3000 + "]" * 3000


def refused_schemas() -> list[str]:
    """The names of those that registration refuses, but for what no file can hold."""
    return [n for n, case in SCHEMAS.items() if n not in NOT_IN_A_FILE and isinstance(case().outcome, Refused)]


@pytest.mark.full
@pytest.mark.parametrize("name", refused_schemas())
def test_a_clients_bad_schema_is_kept_and_its_payloads_are_unchecked(name: str) -> None:
    case = SCHEMAS[name]()
    assert isinstance(case.outcome, Refused)
    text = stored(case.register["payload"])
    start = time.process_time()
    with fenced() as touched:
        if name not in NO_SCHEMAS:
            _, (part,) = check_span_type_schemas([{"name": "hostile", "params_schema": case.register["payload"]}])
            assert case.outcome.says in part.reason
        outcome = used(from_schemas(text).resolve("hostile"), case.payload)
        assert touched == []
    # The compiled check of plain properties needs no jsonschema, names are text in a file, and what is too deep to be
    # read registers nothing.
    usable = name in ("large in plain properties", "names that are numbers") or len(text) == 6000
    assert outcome == (Finds(set()) if usable else UNCHECKED)
    assert time.process_time() - start < 2 * SAFE_S


def test_the_fence_notices_what_the_renderer_of_chevron_does() -> None:
    with fenced() as touched, pytest.raises(AssertionError):
        chevron.render("{{> secrets}}", {})
    assert touched == ["io.open"]
