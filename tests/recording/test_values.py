"""Anything can be recorded: the program is not disturbed, what is stored is JSON, and health() tells the truth."""

import array
import asyncio
import collections
import csv
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import io
import itertools
import json
import math
import pathlib
import re
import sqlite3
import sys
import threading
import tracemalloc
import types
import uuid
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import MagicMock, Mock

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel, SecretStr, computed_field, field_serializer
from pydantic.dataclasses import dataclass as pydantic_dataclass

import agentspan
from agentspan import Tracer
from agentspan.recording.capture import plain
from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.redaction import Redaction
from agentspan.recording.capture.values import Limits
from agentspan.tuning import STANDARD
from tests.strategies import any_text, json_objects
from tests.tiers import every, examples


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Tracer]:
    """A tracer as a program has it: agentspan's own faults are counted, not raised."""
    made = Tracer(tmp_path / "runs.db")
    yield made
    made.shutdown()


def stored(tracer: Tracer) -> list[tuple[Any, Any]]:
    """The payload and result of each span, read as another program would: both are valid JSON for it."""
    assert tracer.flush()
    connection = sqlite3.connect(tracer.storage.path)  # type: ignore[attr-defined]
    rows = connection.execute(
        "select payload, result_payload, json_valid(payload), json_valid(coalesce(result_payload, '{}')), status"
        " from spans order by span"
    ).fetchall()
    connection.close()
    assert [row[2:4] for row in rows] == [(1, 1)] * len(rows)
    return [(json.loads(payload), None if result is None else json.loads(result)) for payload, result, *_ in rows]


def stored_runs(tracer: Tracer) -> list[tuple[Any, ...]]:
    """The metadata, result and error of each run, as JSON that is valid for SQLite."""
    assert tracer.flush()
    connection = sqlite3.connect(tracer.storage.path)  # type: ignore[attr-defined]
    rows = connection.execute("select metadata, result, error from agent_instances order by id").fetchall()
    valid = connection.execute("select min(json_valid(coalesce(metadata, '{}'))) from agent_instances").fetchone()
    connection.close()
    assert valid in [(1,), (None,)]
    return [tuple(None if text is None else json.loads(text) for text in row) for row in rows]


def capture(**limits: int) -> Capture:
    return Capture(Limits(**limits), Redaction())


def recorded(value: Any) -> Any:
    """What is recorded of a value."""
    text = capture().object({"value": value})
    plain = json.loads(text)
    return plain["value"]


# --- Values


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 2


class Flag(enum.Flag):
    A = 1
    B = 2


class Loud(enum.StrEnum):
    YES = "yes"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Node:
    name: str
    next: Any = None


@dataclasses.dataclass(slots=True)
class Slotted:
    a: int
    b: int = dataclasses.field(init=False)  # never set


@pydantic_dataclass
class Checked:
    a: int
    hidden: str = Field(default="x", exclude=True)


@attrs.define
class Attrs:
    a: int
    _b: Any = None


class Tree(BaseModel):
    name: str = "tree"
    children: list[Any] = []


class Account(BaseModel):
    model_config = ConfigDict(extra="allow")
    user_name: str = Field(serialization_alias="userName")
    pin: SecretStr = SecretStr("1234")
    hidden: str = Field(default="hidden", exclude=True)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def shout(self) -> str:
        return self.user_name.upper()

    @field_serializer("user_name")
    def _serialize(self, value: str) -> str:
        return f"<{value}>"


class BadSerializer(BaseModel):
    a: int = 1

    @field_serializer("a")
    def _serialize(self, value: int) -> int:
        raise ZeroDivisionError


class Anything(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    content: Any = None
    hidden: Any = Field(default=None, exclude=True)


Numbers = RootModel[list[int]]


class Opaque:
    def __repr__(self) -> str:
        return "<opaque>"


def raising(error: type[BaseException], *names: str) -> Any:
    """An object of a class whose methods of these names raise."""

    def method(*args: Any, **kwargs: Any) -> Any:
        raise error("look away")

    return type("Raising", (), dict.fromkeys(names, method))()


class AnswersAll:
    def __getattr__(self, name: str) -> Any:
        return AnswersAll()


class RefusesAll:
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class NoClass:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError("classless")


def broken_class() -> Any:
    """A class that says nothing of itself; made here, where no test collector looks at it."""

    class BadMeta(type):
        def __getattribute__(cls, name: str) -> Any:
            raise RuntimeError(name)

        def __instancecheck__(cls, other: Any) -> bool:
            raise RuntimeError("no instance")

        def __hash__(cls) -> int:
            raise RuntimeError("no hash")

        def __eq__(cls, other: object) -> bool:
            raise RuntimeError("not comparable")

    class Bad(metaclass=BadMeta):
        pass

    return Bad


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")


class BadText(str):
    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, key: Any) -> str:
        raise RuntimeError("no part")

    def encode(self, *args: Any) -> bytes:
        raise RuntimeError("no bytes")

    def isascii(self) -> bool:
        raise RuntimeError("ascii?")

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    def __hash__(self) -> int:
        return 1


class BadInt(int):
    def __str__(self) -> str:
        return "not a number"

    __repr__ = __str__

    def __add__(self, other: Any) -> Any:
        raise RuntimeError("no sum")

    def __int__(self) -> int:
        raise RuntimeError("no int")


class BadFloat(float):
    def __repr__(self) -> str:
        return "x"

    def __sub__(self, other: Any) -> Any:
        raise RuntimeError("no difference")

    def __float__(self) -> float:
        raise RuntimeError("no float")


class BadDict(dict[str, Any]):
    def items(self) -> Any:
        raise RuntimeError("no items")

    def __len__(self) -> int:
        raise RuntimeError("no length")

    def __iter__(self) -> Any:
        raise RuntimeError("no keys")

    def __bool__(self) -> bool:
        raise RuntimeError("true?")


class BadList(list[Any]):
    def __len__(self) -> int:
        return -1

    def __iter__(self) -> Any:
        raise RuntimeError("no items")

    def __bool__(self) -> bool:
        raise RuntimeError("true?")


class Endless(Mapping[str, int]):
    """A mapping of as many members as anybody asks for."""

    def __init__(self) -> None:
        self.given = 0

    def __getitem__(self, key: str) -> int:
        return len(key)

    def __iter__(self) -> Iterator[str]:
        for number in itertools.count():
            self.given += 1
            yield str(number)

    def __len__(self) -> int:
        return sys.maxsize


class EndlessTree(Mapping[str, Any]):
    """A mapping whose members are new ones like it."""

    def __getitem__(self, key: str) -> Any:
        return EndlessTree()

    def __iter__(self) -> Iterator[str]:
        return iter("abcdefgh")

    def __len__(self) -> int:
        return 8


class LyingMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def __len__(self) -> int:
        return -5


class Pairless(Mapping[str, int]):
    __getitem__ = __iter__ = __len__ = None  # type: ignore[assignment]

    def items(self) -> Any:
        return [1, (2,), "abc"]


def cycle_of(kind: type) -> Any:
    if kind is dict:
        mapping: dict[str, Any] = {"a": [1]}
        mapping["self"] = mapping
        mapping["a"].append(mapping)
        return mapping
    if kind is list:
        items: list[Any] = [1]
        items.append({"again": (items,)})
        return items
    node = Node("a")
    node.next = Node("b", node)
    return node


def recursive_model() -> Tree:
    tree = Tree()
    tree.children = [Tree(name="child"), tree]
    return tree


def recursive_attrs() -> Attrs:
    made = Attrs(1)
    made._b = [made]
    return made


def dag_of(grow: Callable[[Any], Any], depth: int, value: Any) -> Any:
    """What `grow` makes of a value, of that, and so on."""
    for _ in range(depth):
        value = grow(value)
    return value


def dag(depth: int = 40, leaf: Any = "leaf") -> Any:
    """A small value that takes 2**depth leaves when it is written out."""
    value: Any = [leaf]
    for _ in range(depth):
        value = [value, value]
    return value


def deep(depth: int = 5000, kind: type = dict) -> Any:
    value: Any = {} if kind is dict else []
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


def undeep(value: Any) -> None:
    """Take a deep value apart: the interpreter's own way to free it is deep, too."""
    while value:
        value = value.pop("a") if isinstance(value, dict) else value.pop()


def released() -> memoryview:
    view = memoryview(b"abc")
    view.release()
    return view


def dead_proxy() -> Any:
    return weakref.proxy(Opaque())


def error_with(value: Any) -> Exception:
    try:
        raise ValueError("bad", value)
    except ValueError as error:
        return error


VALUES: dict[str, Callable[[], Any]] = {
    "cycle of dicts": lambda: cycle_of(dict),
    "cycle of lists": lambda: cycle_of(list),
    "cycle of dataclasses": lambda: cycle_of(Node),
    "cycle of models": recursive_model,
    "cycle of attrs": recursive_attrs,
    "dag of tuples as a key": lambda: {dag_of(lambda value: (value, value), 12, ()): 1},
    "not finite": lambda: [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e308],
    "huge ints": lambda: [10**4000, 10**5000, -(10**100_000), 2**63, 2**64, -(2**63)],
    "bytes": lambda: [b"abc", bytearray(b"\xff"), memoryview(b"abc")[::2], memoryview(array.array("d", [1.0]))],
    "released memoryview": released,
    "surrogates": lambda: {"\ud800": "\udfff", "\ud83d\ude00": "\ud83d\ude00", "😀": ["\ud83d", "\ude00"]},
    "sets": lambda: [{1, "a", None}, frozenset({(1, 2)}), {}.keys(), {"a": 1}.values(), {"a": 1}.items()],
    "colliding keys": lambda: {1: "int", "1": "str", 1.0 + 0.5: 1, None: 2, "null": 3, False: 4, "false": 5, (1, 2): 6},
    "many colliding keys": lambda: {Unreadable(): number for number in range(3000)},
    "odd keys": lambda: {b"bytes": 1, Colour.RED: 2, Point(1, 2): 3, frozenset({1}): 4, Opaque(): 5, math.nan: 6},
    "long key": lambda: {"k" * 100_000: 1, Long(): 2},
    "broken repr": lambda: raising(RuntimeError, "__repr__", "__str__"),
    "repr that is no text": lambda: type("R", (), {"__repr__": lambda self: 7})(),
    "repr that recurses": lambda: type("R", (), {"__repr__": lambda self: repr(self)})(),
    "repr without end of stack": lambda: raising(RecursionError, "__repr__"),
    "repr without memory": lambda: raising(MemoryError, "__repr__"),
    "repr of a subclass": lambda: type("R", (), {"__repr__": lambda self: BadText("text")})(),
    "long repr": lambda: type("R", (), {"__repr__": lambda self: "r" * 10_000_000})(),
    "broken iteration": lambda: raising(RuntimeError, "__iter__", "__len__", "__getitem__", "__contains__", "__next__"),
    "broken attributes": RefusesAll,
    "answers all": AnswersAll,
    "broken class": NoClass,
    "broken metaclass": lambda: broken_class()(),
    "class of a broken metaclass": broken_class,
    "broken comparison": Unhashable,
    "broken comparison inside": lambda: [Unhashable(), {"a": Unhashable()}, (Unhashable(), Unhashable())],
    "mock": Mock,
    "magic mock": MagicMock,
    "mock of a dict": lambda: MagicMock(spec=dict),
    "mock of a model": lambda: Mock(spec=Tree),
    "subclasses of the basic types": lambda: [BadText("text"), BadInt(7), BadFloat(0.5), BadList([1]), True],
    "dict subclass": lambda: BadDict(a=1),
    "list subclass": lambda: BadList([1, 2]),
    "text subclass as a key": lambda: {BadText("key"): 1},
    "other containers": lambda: [
        collections.OrderedDict(a=1),
        collections.Counter("aab"),
        collections.defaultdict(list, a=[1]),
        collections.ChainMap({"a": 1}, {"b": 2}),
        collections.deque([1, 2]),
        collections.UserList([1]),
        collections.UserDict(a=1),
        collections.UserString("x"),
        types.MappingProxyType({"a": 1}),
        array.array("i", [1, 2]),
        range(10**9),
        slice(1),
    ],
    "endless mapping": Endless,
    "mapping that lies": LyingMapping,
    "mapping without pairs": Pairless,
    "endless iterator": itertools.count,
    "dataclasses": lambda: [Node("a", Node("b")), Slotted(1), Checked(a=1)],
    "dataclass with a generator": lambda: Node("a", (number for number in (1, 2))),
    "models": lambda: [
        Account(user_name="ada", more=[1]),  # type: ignore[call-arg]
        Numbers([1]),
        BadSerializer(),
        Tree.model_construct(name=7, children=3),
        Anything(content=iter([1]), hidden=1),
        Anything(content=math.nan),
        Anything(content=Opaque()),
        Anything(content=b"\xff\xfe"),
        Anything(content="\ud800"),
        Anything(content=raising(RuntimeError, "__repr__")),
    ],
    "model of a long list": lambda: Anything(content=list(range(50_000)), hidden="hidden"),
    "attrs": lambda: Attrs(1, 2),
    "enums": lambda: [Colour.RED, Size.BIG, Flag.A | Flag.B, Loud.YES],
    "times": lambda: [
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6, datetime.UTC),
        datetime.date(2026, 1, 2),
        datetime.time(1, 2),
        datetime.timedelta(days=1, microseconds=3),
        datetime.datetime(1, 1, 1, tzinfo=BadZone()),
    ],
    "numbers of other kinds": lambda: [
        decimal.Decimal("1.10"),
        decimal.Decimal("NaN"),
        decimal.Decimal("sNaN"),
        fractions.Fraction(1, 3),
        1 + 2j,
    ],
    "ids and paths": lambda: [uuid.UUID(int=1), Path("a/b"), pathlib.PureWindowsPath("c:\\x"), re.compile("a+")],
    "named tuple": lambda: Point(1, 2),
    "functions": lambda: [len, dag, lambda: 1, functools.partial(dag, 1), Node, int, "".join, Tree.model_dump],
    "modules and locks": lambda: [json, threading.Lock(), threading.local(), types.SimpleNamespace(a=1), object()],
    "constants": lambda: [None, ..., NotImplemented, True],
    "exceptions": lambda: [error_with(1), KeyError("a"), ExceptionGroup("g", [ValueError(1)]), SystemExit(1)],
    "dead proxy": dead_proxy,
    "long text": lambda: "ab" * 5_000_000,
    "long shared texts": lambda: ["ab" * 5_000_000] * 10,
    "long bytes": lambda: [b"ab" * 5_000_000] * 5,
    "deep marks": lambda: deep(400),
}


HUGE: dict[str, Callable[[], Any]] = {
    "dag of lists": dag,
    "dag of odd leaves": lambda: dag(leaf=Opaque()),
    "dag of empty leaves": lambda: dag_of(lambda value: [value, value], 60, []),
    "dag of dicts": lambda: dag_of(lambda value: {"a": value, "b": value}, 60, {}),
    "dag of wide lists": lambda: [[["x"] * 10_000] * 99] * 10_000,
    "dag beside every level": lambda: dag_of(lambda value: [["x"] * 9000, value], 90, []),
    "dag of models": lambda: functools.reduce(lambda value, _: Tree(children=[value, value]), range(30), Tree()),
    "numbers without end": lambda: [[1] * 10_000] * 10_000,
    "endless tree": EndlessTree,
    "many shared texts": lambda: ["ab" * 100_000] * 10_000,
    "texts without end": lambda: [["ab" * 100_000] * 10_000] * 10_000,
}
"""Values of which much is kept, or that take long to write out: some of them longer than the universe is old."""


class Unreadable:
    def __str__(self) -> str:
        raise RuntimeError("no name")


class Long:
    def __str__(self) -> str:
        return "l" * 100_000


class BadZone(datetime.tzinfo):
    def utcoffset(self, when: Any) -> Any:
        raise RuntimeError("where?")

    tzname = dst = utcoffset


@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES.keys())
def test_any_value_is_recorded_and_reaches_the_program_unchanged(quiet: Tracer, make: Callable[[], Any]) -> None:
    value = make()

    @quiet.span
    def through(value: Any) -> Any:
        return [value]

    with quiet.run("a", metadata={"value": value}) as run:
        assert through(value)[0] is value
        with quiet.span("custom", {"value": value}) as span:
            span.set_result({"value": value})
        with quiet.span("custom", value):
            pass
        run.set_result({"value": value})
    (call, output), (payload, result), _ = stored(quiet)
    assert call["name"] == "through"
    ((metadata, run_result, error),) = stored_runs(quiet)
    assert error is None
    same = [payload, result, metadata, run_result]
    if "$truncated" not in json.dumps(payload):  # how much is kept depends on what is around it
        same += [call["arguments"], {"value": output["output"][0]}]
    assert [index for index, other in enumerate(same) if other != payload] == []
    assert quiet.health()[:3] == (8, 0, 0)


@pytest.mark.full
@pytest.mark.parametrize("make", HUGE.values(), ids=HUGE.keys())
def test_a_huge_value_is_recorded_up_to_a_number_of_values(
    tmp_path: Path, make: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet = Tracer(tmp_path / "runs.db", tuning=STANDARD._replace(captured_values=5000))
    asked = 0

    class Counting(plain.Plain):
        def of(self, value: Any, name: str = "") -> Any:
            nonlocal asked
            asked += 1
            return super().of(value, name)

    monkeypatch.setattr("agentspan.recording.capture.capture.Plain", Counting)
    with quiet.span("custom", {"input_tokens": 1, "value": make(), "usage": {"output_tokens": 2}}):
        pass
    ((payload, _),) = stored(quiet)
    assert 1000 < asked < 2 * 5000 + 100
    assert len(json.dumps(payload, separators=(",", ":"))) <= 1024 * 1024
    assert "$truncated" in json.dumps(payload)
    assert (payload["input_tokens"], payload["usage"]) == (1, {"output_tokens": 2})
    assert quiet.health()[:3] == (4, 0, 0)
    quiet.shutdown()


@pytest.mark.full
def test_texts_that_are_too_long_are_not_copied() -> None:
    text = "ab" * 5_000_000
    tracemalloc.start()
    try:
        capture().object({"one": [text] * 10_000, "bytes": [text.encode()] * 10})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * len(text)


@pytest.mark.parametrize("kind", [dict, list])
def test_a_value_of_any_depth_is_recorded(quiet: Tracer, kind: type) -> None:
    value = deep(5000, kind)
    with quiet.span("custom", {"value": value, "after": 1}):
        pass
    ((payload, _),) = stored(quiet)
    assert payload["after"] == 1
    assert json.dumps(payload["value"]).count("$truncated") == 1
    assert quiet.health().failed == 0
    undeep(value)


def test_a_value_that_is_changed_afterwards_is_recorded_as_it_was(quiet: Tracer) -> None:
    value: dict[str, Any] = {"list": [1], "node": Node("a", [1])}
    with quiet.span("custom", value) as span:
        span.set_result({"done": True})
        value["list"].append(2)
        value["node"].next.append(2)
        value["more"] = 3
    ((payload, _),) = stored(quiet)
    assert payload == {"list": [1], "node": {"name": "a", "next": [1]}}


@settings(max_examples=examples(80), deadline=None, derandomize=True)
@given(json_objects)
def test_plain_json_is_recorded_as_it_is(value: dict[str, Any]) -> None:
    text = Capture(Limits(), None).object(value)
    plain = json.loads(text)
    expected = json.loads(json.dumps(value))  # as JSON has it: two halves of a character are one there
    assert repr(json.loads(text)) == repr(expected)
    assert repr(plain) == repr(expected)


@pytest.mark.parametrize("other", [(), {1}, Node("a"), "\ud800", {"password": "x"}])
def test_plain_json_is_stored_as_it_is_beside_what_is_none(quiet: Tracer, other: Any) -> None:
    value = {
        "texts": ["", "a", "ä\n\t\u2028\x00\x7f😀", '"\\'],
        "numbers": [0, -1, 0.1, 1e300, 5e-324, 2**70, -(2**63), 1.0],
        "rest": [None, True, False, {}, [], {"": {"$ref": []}}],
        "k" * 1000: {"a" * 64: 1, "ö": 2},
    }
    with quiet.span("custom", {**value, "other": other}):
        pass
    ((payload, _),) = stored(quiet)
    del payload["other"]
    assert repr(payload) == repr(value)


# --- Nothing is used up, asked twice, or awaited


def use_once() -> dict[str, tuple[Any, Callable[[Any], bool]]]:
    async def steps() -> AsyncIterator[int]:
        yield 1

    async def answer() -> int:
        return 1

    async def first(stream: AsyncIterator[int]) -> int:
        return await anext(stream)

    return {
        "generator": ((number for number in (1, 2)), lambda value: list(value) == [1, 2]),
        "iterator": (iter({"a": 1}), lambda value: list(value) == ["a"]),
        "map": (map(int, "12"), lambda value: list(value) == [1, 2]),
        "file": (io.StringIO("one\ntwo"), lambda value: value.tell() == 0),
        "binary file": (io.BytesIO(b"one"), lambda value: value.tell() == 0),
        "async generator": (steps(), lambda value: asyncio.run(first(value)) == 1),
        "coroutine": (answer(), lambda value: asyncio.run(value) == 1),
        "scandir": (Path(__file__).parent.iterdir(), lambda value: len(list(value)) > 3),
        "csv": (csv.reader(["a,b"]), lambda value: list(value) == [["a", "b"]]),
    }


WRAPS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda value: value,
    "list": lambda value: [value],
    "tuple": lambda value: (value, 1),
    "values": lambda value: {"a": value}.values(),
    "dataclass": lambda value: Node("a", value),
    "attrs": lambda value: Attrs(1, value),
    "model": lambda value: Anything(content=[{"deep": value}]),
    "model in a dataclass": lambda value: Node("a", Anything(content=Node("b", value))),
    "exception": lambda value: error_with(value),
}


@pytest.mark.parametrize("wrap", every(3, WRAPS.values()), ids=WRAPS.keys())
@pytest.mark.parametrize("name", use_once())
def test_what_can_be_used_once_is_left_for_the_program(quiet: Tracer, name: str, wrap: Callable[[Any], Any]) -> None:
    made = use_once()
    value, is_whole = made.pop(name)
    for other, _ in made.values():
        if hasattr(other, "close"):
            other.close()  # a coroutine that nobody awaits warns
    with quiet.span("custom", {"value": wrap(value)}) as span:
        span.set_result({"value": wrap(value)})
    assert is_whole(value)
    assert quiet.health()[:3] == (4, 0, 0)


def test_what_an_object_says_of_itself_is_asked_once() -> None:
    asked: collections.Counter[str] = collections.Counter()

    class Said:
        def __repr__(self) -> str:
            asked["repr"] += 1
            return "said"

        __str__ = __iter__ = __len__ = None  # type: ignore[assignment]

    class Items(Mapping[str, int]):
        def __getitem__(self, key: str) -> int:
            raise KeyError(key)

        def __iter__(self) -> Iterator[str]:
            raise RuntimeError

        def __len__(self) -> int:
            return 1

        def items(self) -> Any:
            asked["items"] += 1
            return [("a", 1)]

    class Property:
        def __get__(self, owner: Any, cls: Any) -> int:
            if owner is not None:
                asked["property"] += 1
            return 7

        def __set__(self, owner: Any, value: int) -> None:
            pass

    @dataclasses.dataclass
    class Computed:
        field: int = Property()  # type: ignore[assignment]

    assert recorded([Said(), Items(), Computed()]) == ["said", {"a": 1}, {"field": 7}]
    assert asked == {"repr": 1, "items": 1, "property": 1}


def test_looking_at_a_value_does_not_warn(quiet: Tracer) -> None:
    class Old:
        @property
        def old(self) -> int:
            warnings.warn("old", DeprecationWarning, stacklevel=2)
            return 1

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for value in (Old(), Tree.model_construct(name=7), Anything(content=Tree.model_construct(name=b"x"))):
            recorded(value)
    assert caught == []


# --- Kinds of objects


def test_models_are_recorded_as_they_serialize_themselves() -> None:
    account = Account(user_name="ada", more=[1])  # type: ignore[call-arg]
    assert recorded(account) == {"userName": "<ada>", "pin": "**********", "more": [1], "shout": "ADA"}
    assert recorded(Numbers([1, 2])) == [1, 2]
    assert recorded(Checked(a=1)) == {"a": 1}
    assert recorded(BadSerializer()) == {"a": 1}


@pytest.mark.parametrize("content", [list(range(20_000)), iter(()), "x" * 2_000_000])
def test_models_that_are_not_serialized_by_themselves_keep_secret_what_is_secret(content: Any) -> None:
    account = Account(user_name="ada", more=content)  # type: ignore[call-arg]
    shown = recorded([account, Anything(content=content, hidden="hidden")])
    assert shown[0]["pin"] in ("**********", "SecretStr('**********')")  # the latter with pydantic before 2.11
    assert "hidden" not in json.dumps(shown)
    assert list(shown[0]) == ["user_name", "pin", "more"]


def test_fields_that_cannot_be_read_do_not_cost_the_others() -> None:
    class Broken:
        def __get__(self, owner: Any, cls: Any) -> int:
            if owner is None:
                return 0
            raise RuntimeError("not now")

        def __set__(self, owner: Any, value: int) -> None:
            pass

    @dataclasses.dataclass
    class Half:
        a: int = 1
        b: int = Broken()  # type: ignore[assignment]

    assert recorded(Half()) == {
        "a": 1,
        "b": {"$not_json": {"type": mark_type(Half), "reason": "a field cannot be read"}},
    }
    assert recorded(Slotted(1)) == {"a": 1}


def mark_type(cls: type) -> str:
    return cls.__qualname__


def test_objects_become_json_that_a_reader_expects() -> None:
    assert recorded(Node("a", Attrs(1, Point(1, 2)))) == {"name": "a", "next": {"a": 1, "_b": [1, 2]}}
    assert recorded([Colour.RED, Size.BIG, Flag.A | Flag.B, Loud.YES]) == ["red", 2, 3, "yes"]
    assert recorded([math.nan, math.inf, -math.inf]) == ["NaN", "Infinity", "-Infinity"]
    assert recorded([b"abc", bytearray(b"abc"), memoryview(b"abc")]) == ["YWJj"] * 3
    assert recorded([uuid.UUID(int=1), Path("a/b"), decimal.Decimal("1.10")]) == [str(uuid.UUID(int=1)), "a/b", "1.10"]
    assert recorded(datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)) == "2026-01-02T00:00:00Z"
    assert recorded([Opaque(), BadText("x"), BadInt(7), BadDict(a=1), BadList([1])]) == [
        "<opaque>",
        "x",
        7,
        {"a": 1},
        [1],
    ]
    assert recorded({1: "a", "1": "b", None: "c", b"d": "d", Colour.RED: "e"}) == {
        "1": "a",
        "1'2": "b",
        "null": "c",
        "d": "d",
        "red": "e",
    }
    assert recorded({"\ud83d\ude00": 1, "😀": 2}) == {"😀": 1, "😀'2": 2}
    assert recorded(10**5000) == {"$not_json": {"type": "int", "reason": "too many digits"}}
    assert recorded(cycle_of(list))[1]["again"] == [{"$not_json": {"type": "list", "reason": "contains itself"}}]
    assert recorded(raising(ValueError, "__repr__")) == {"$not_json": {"type": "Raising"}}


def test_what_is_no_mapping_becomes_the_input(quiet: Tracer) -> None:
    for value in ([1], "text", 7, None, Opaque(), Node("a")):
        with quiet.span("custom", value):  # type: ignore[arg-type]
            pass
    payloads = [payload for payload, _ in stored(quiet)]
    assert payloads == [
        {"input": [1]},
        {"input": "text"},
        {"input": 7},
        {},
        {"input": "<opaque>"},
        {"name": "a", "next": None},
    ]


# --- Errors


def group_dag() -> ExceptionGroup[Any]:
    group: ExceptionGroup[Any] = ExceptionGroup("leaf", [ValueError("v")])
    for _ in range(40):
        group = ExceptionGroup("node", [group, group])
    return group


def long_chain() -> Exception:
    error: Exception = ValueError("first")
    for number in range(5000):
        later = KeyError(number)
        later.__context__ = error
        error = later
    return error


def circle_of_causes() -> Exception:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    return one


class Liar(ExceptionGroup[Any]):
    @property
    def exceptions(self) -> Any:
        raise RuntimeError("none of your business")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("mute")

    __repr__ = __str__


ERRORS: dict[str, Callable[[], BaseException]] = {
    "no text": Mute,
    "text that is none": lambda: type("Odd", (Exception,), {"__str__": lambda self: BadText("odd")})(),
    "long text": lambda: ValueError("e" * 10_000_000),
    "surrogates": lambda: ValueError("\ud800"),
    "nul": lambda: ValueError("a\x00b"),
    "dag of groups": group_dag,
    "wide group": lambda: ExceptionGroup("g", [ValueError(number) for number in range(5000)]),
    "long chain": long_chain,
    "circle": circle_of_causes,
    "lying group": lambda: Liar("g", [ValueError("v")]),
    "base exception": lambda: GeneratorExit("end"),
    "nothing": lambda: KeyError(),
    "notes": lambda: noted(),
}


def noted() -> Exception:
    error = ValueError("v")
    error.add_note("a note")
    error.__notes__.append(7)  # type: ignore[arg-type]
    return error


@pytest.mark.parametrize("make", ERRORS.values(), ids=ERRORS.keys())
def test_any_error_is_recorded_and_raised_on(quiet: Tracer, make: Callable[[], BaseException]) -> None:
    error = make()
    with pytest.raises(type(error)) as caught, quiet.run("a"), quiet.span("custom"):
        raise error
    assert caught.value is error
    ((_, result),) = stored(quiet)
    ((_, _, run_error),) = stored_runs(quiet)
    for described in (result["error"], run_error):
        assert set(described) >= {"type", "message", "stacktrace"}
        assert len(described["message"]) <= 16_385
        assert len(described["stacktrace"]) <= 16_384
        assert len(json.dumps(described)) < 200_000
    assert "raise error" in result["error"]["stacktrace"] or isinstance(error, Mute | Liar)
    assert quiet.health()[:3] == (4, 0, 0)


def test_the_members_of_a_group_are_listed_up_to_a_number(quiet: Tracer) -> None:
    made = capture()
    wide = made.error(ExceptionGroup("g", [ValueError(number) for number in range(50)]))
    assert [member["message"] for member in wide["exceptions"]] == [str(number) for number in range(20)]
    assert wide["more_exceptions"] == 30
    lying = made.error(Liar("g", [ValueError("v")]))
    assert lying["exceptions"] == [{"type": "ValueError", "message": "v"}]
    assert json.dumps(made.error(group_dag())).count('"type"') <= 101


# --- Interrupts, threads, and the end of the stack


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_an_interrupt_while_a_value_is_looked_at_is_the_programs(quiet: Tracer, interrupt: type[BaseException]) -> None:
    block = quiet.span("custom", {"value": [raising(interrupt, "__repr__")]})
    with pytest.raises(interrupt, match="look away"), quiet.run("a"), block:
        raise AssertionError("never entered")
    assert quiet.current_span() is None
    assert quiet.current_run() is None
    with quiet.run("b"), quiet.span("custom", {"after": 1}):
        pass
    assert [payload for payload, _ in stored(quiet)] == [{"after": 1}]
    assert [run.status for run in agentspan.open(quiet.storage).agent_instances.list()] == ["failed", "complete"]


@pytest.mark.parametrize("kind", [dict, list, set, collections.deque])
def test_containers_that_another_thread_changes_meanwhile_are_recorded(quiet: Tracer, kind: type) -> None:
    shared: Any = kind()
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 1) % 50
            if kind is dict:
                shared[str(number)] = shared.pop(str(number - 1), math.nan)
            elif kind is set:
                shared.add(number)
                shared.discard(number - 7)
            else:
                shared.append(math.inf)
                if len(shared) > 20:
                    shared.pop()

    interval = sys.getswitchinterval()
    thread = threading.Thread(target=change)
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        made = capture()
        for _ in range(300):
            text = made.object({"value": shared, "odd": ()})
            assert "$not_json" not in text
            assert json.loads(text, parse_constant=lambda name: pytest.fail(name))
            assert json.loads(made.object({"value": shared}), parse_constant=lambda name: pytest.fail(name))
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


def test_near_the_end_of_the_stack_there_is_json_or_a_mark() -> None:
    made = capture()
    value = {"value": [Node("a", deep(50)), {"password": "hunter2"}]}
    limit = sys.getrecursionlimit()
    texts: list[str] = []

    def one() -> int:
        return two()

    def two() -> int:
        return 2

    def at(depth: int) -> None:
        if depth:
            return at(depth - 1)
        one()  # where this raises, the stack ends in the program
        texts.append(made.object(value))

    for depth in range(limit - 300, limit):
        try:
            at(depth)
        except RecursionError:
            break
    assert len(texts) > 200
    assert all("hunter2" not in text for text in texts)
    assert {type(json.loads(text)) for text in texts} == {dict}
    assert texts[-1] == '{"$not_json":{}}'


def test_what_could_not_be_merged_is_counted_and_the_rest_is_recorded(
    quiet: Tracer, caplog: pytest.LogCaptureFixture
) -> None:
    with quiet.span("custom", {"a": 1}) as span:
        for value in (Pairless(), 7, NoClass(), raising(RuntimeError, "keys", "__iter__")):
            span.set_result(value)  # type: ignore[arg-type]
            span.update_payload(value)  # type: ignore[arg-type]
        span.set_result({"done": True})
    assert stored(quiet) == [({"a": 1}, {"done": True})]
    assert quiet.health()[:3] == (4, 8, 0)
    assert len(caplog.records) < 8


# --- Any value


def hostile(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = any_text | st.integers() | st.none() | st.booleans() | st.binary(max_size=3) | st.sampled_from(list(Colour))
    return st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(keys, inner, max_size=5),
        st.tuples(inner, inner),
        st.lists(inner, max_size=3).map(tuple),
        st.builds(Node, any_text, inner),
        st.builds(Attrs, inner, inner),
        st.builds(lambda content: Anything(content=content), inner),
        st.builds(lambda name, children: Tree.model_construct(name=name, children=children), inner, inner),
        st.builds(lambda item: collections.deque([item, item]), inner),
        st.builds(lambda item: collections.OrderedDict(a=item).values(), inner),
        st.builds(lambda item: BadDict(a=item), inner),
    )


leaves = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    st.integers().map(lambda number: number * 10**4250),
    st.text(min_size=50, max_size=400),
    st.binary(max_size=300),
    st.datetimes(timezones=st.none() | st.just(datetime.UTC)),
    st.decimals() | st.uuids() | st.timedeltas() | st.fractions(),
    st.sampled_from([*Colour, *Size, Opaque(), BadInt(3), len, MagicMock]),
    st.integers(0, 3).map(lambda number: (NoClass, RefusesAll, AnswersAll, Unhashable)[number]()),
    st.sampled_from(["sk-abcdefghijklmnop1234567890", "password='hunter2'", "postgres://u:hunter2@h/"]),
    st.builds(lambda: raising(RuntimeError, "__repr__")),
    st.builds(lambda: iter([1])),
)
values = st.recursive(leaves, hostile, max_leaves=25)


@settings(max_examples=examples(150), deadline=None, derandomize=True)
@given(
    values,
    st.sampled_from([100, 300, 1000, 100_000]),
    st.integers(10, 300),
    st.integers(1, 8),
    st.integers(1, 6),
    st.booleans(),
)
def test_text_and_plain_json_are_equal_and_within_the_limits(
    value: Any, payload: int, longest: int, depth: int, items: int, redacted: bool
) -> None:
    limits = Limits(value=longest, payload=payload, depth=depth, items=items)
    text = Capture(limits, Redaction() if redacted else None).object({"value": value, "input_tokens": 3})
    plain = json.loads(text)
    assert sqlite3.connect(":memory:").execute("select json_valid(?)", (text,)).fetchone() == (1,)
    assert len(text) <= max(payload, 150)
    assert "hunter2" not in text or not redacted
    check_limits(plain, limits, 0)


def check_limits(plain: Any, limits: Limits, depth: int) -> None:
    if isinstance(plain, str):
        assert len(plain) <= limits.value or plain == "[redacted]"
    elif isinstance(plain, dict | list):
        marks = [item for key, item in plain.items() if key in MARKS] if isinstance(plain, dict) else []
        if marks and len(plain) == 1:
            return
        assert depth < limits.depth
        assert len(plain) - len(marks) <= limits.items + isinstance(plain, list)  # in a list the mark is an item
        for item in plain.values() if isinstance(plain, dict) else plain:
            if not any(item is mark for mark in marks):
                check_limits(item, limits, depth + 1)


MARKS = ("$truncated", "$not_json")
