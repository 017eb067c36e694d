"""How much of a payload is kept: each limit leaves its mark, the small things survive, and nothing is longer."""

import hashlib
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import agentspan
from agentspan import Limits, Tracer
from agentspan.recording.capture import values
from agentspan.recording.capture import values as limits_module
from agentspan.recording.capture.capture import Capture, head_of_call
from agentspan.recording.capture.redaction import Redaction
from agentspan.recording.capture.repeats import Repeats
from agentspan.recording.capture.values import encode, joined, shrink, text_mark
from agentspan.tuning import STANDARD, Tuning
from tests.recording.stored import spans_of
from tests.strategies import any_text, json_values
from tests.tiers import examples

MARK = 150  # characters that one mark takes at most, without the start of a text


def mark_of(data: str | bytes, **more: Any) -> dict[str, Any]:
    data = data.encode() if isinstance(data, str) else data
    return {"$truncated": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), **more}}


def recorded(value: Any, /, *, tuning: Tuning = STANDARD, **limits: int) -> Any:
    """What is recorded of a value in a member."""
    text = Capture(Limits(**limits), Redaction(), tuning=tuning).object({"value": value})
    shown = json.loads(text)
    return shown["value"]


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Tracer]:
    """A tracer with small limits."""
    limits = Limits(value=1000, payload=4000, depth=5, items=20)
    made = Tracer(tmp_path / "runs.db", limits=limits, raise_errors=True)
    yield made
    made.shutdown()


# --- Each limit


def test_the_limits_are_those_that_the_documentation_names() -> None:
    assert Limits() == (262_144, 1_048_576, 100, 10_000, 8_388_608)


@pytest.mark.parametrize("letter", ["a", "ä", "😀", "\n"])
def test_a_text_over_the_limit_becomes_a_mark(letter: str) -> None:
    assert recorded(letter * 100, value=100) == letter * 100
    text = letter * 101
    assert recorded(text, value=100) == mark_of(text, start=letter * 100)
    long = letter * 300_000
    assert recorded(long) == mark_of(long, start=letter * 200)


def test_a_text_with_lone_surrogates_is_measured_too() -> None:
    text = "\ud800" * 101
    assert recorded(text, value=100) == mark_of(text.encode("utf-8", "surrogatepass"), start="\ud800" * 100)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_over_the_limit_become_a_mark(kind: Any) -> None:
    assert recorded(kind(b"abc" * 25), value=100) == "YWJj" * 25
    assert recorded(kind(b"abc" * 25 + b"d"), value=100) == mark_of(b"abc" * 25 + b"d")
    assert recorded(memoryview(b"abcd" * 100)[::2], value=100) == mark_of(b"ac" * 100)


@pytest.mark.parametrize("wrap", [list, tuple, set, dict.fromkeys])
def test_members_over_the_limit_are_counted(wrap: Any) -> None:
    shown = recorded(wrap(range(13)), items=10)
    if isinstance(shown, dict):
        assert shown == {**{str(number): None for number in range(10)}, "$truncated": {"items": 3}}
    else:
        assert shown == [*range(10), {"$truncated": {"items": 3}}]
    assert "$truncated" not in str(recorded(wrap(range(10)), items=10))


@pytest.mark.parametrize("suspicious", [None, (1, 2)])
@pytest.mark.parametrize("kind", ["list", "dict"])
def test_containers_over_the_limit_of_depth_become_a_mark(kind: str, suspicious: Any) -> None:
    def nested(depth: int) -> Any:
        value: Any = "bottom"
        for _ in range(depth):
            value = [value] if kind == "list" else {"a": value}
        return value

    def text_of(value: Any) -> str:
        return Capture(Limits(depth=5), None).object({"value": value, "other": suspicious})

    assert "$truncated" not in text_of(nested(4))  # the payload is the first container
    assert json.loads(text_of(nested(5)))["value"] == json.loads(
        compact(nested(4)).replace('"bottom"', '{"$truncated":{"depth":5}}')
    )
    assert "$truncated" not in Capture(Limits(), None).object({"value": nested(99), "other": suspicious})
    assert '{"$truncated":{"depth":100}}' in Capture(Limits(), None).object({"value": nested(100)})
    assert '{"$truncated":{"depth":190}}' in Capture(Limits(depth=5000), None).object({"value": nested(300)})


def test_values_over_their_number_are_counted() -> None:
    shown = recorded([(1,)] * 5000, tuning=STANDARD._replace(captured_values=1000))
    assert shown[:2] == [[1], [1]]
    assert shown[-1] == {"$truncated": {"items": 5000 - len(shown) + 1}}
    assert 250 < len(shown) < 1000


def test_the_same_long_text_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    monkeypatch.setattr(values, "text_mark", counting(hashed, text_mark))
    text = "a" * 1001
    assert recorded([text] * 500, value=1000) == [mark_of(text, start="a" * 200)] * 500
    assert hashed == [1001]


def test_what_is_hashed_for_one_payload_is_bounded() -> None:
    texts = [letter * 2000 for letter in "abcd"]
    shown = recorded([*texts, b"a" * 2000], tuning=STANDARD._replace(hashed_bytes=5000), value=1000, blob=0)
    assert shown[:2] == [mark_of(text, start=text[:200]) for text in texts[:2]]
    assert shown[2:4] == [{"$truncated": {"characters": 2000, "start": text[:200]}} for text in texts[2:]]
    assert shown[4] == {"$truncated": {"bytes": 2000}}


def counting(sizes: list[int], function: Any) -> Any:
    def counted(text: str, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(text))
        return function(text, *args, **kwargs)

    return counted


def test_a_long_text_is_hashed_in_parts() -> None:
    text = "aä😀\ud800" * 100
    data = text.encode("utf-8", "surrogatepass")
    assert text_mark(text, "a", chunk=7)["$truncated"] == mark_of(data, start="a")["$truncated"]


def test_keys_are_cut_with_a_trace() -> None:
    shown = recorded({"k" * 5000: 1, ("k" * 5000, 1): 2, 3: 4}, value=10_000)
    assert list(shown) == ["k" * 1000 + "…", "('" + "k" * 998 + "…", "3"]


def test_a_long_repr_is_cut_with_a_trace() -> None:
    class Long:
        def __repr__(self) -> str:
            return "r" * 5000

    assert recorded(Long()) == "r" * 999 + "…"


# --- The whole payload


def test_the_biggest_members_become_marks() -> None:
    value = {"small": 1, "big": "b" * 3000, "middle": "m" * 900, "list": list(range(100))}
    text = Capture(Limits(payload=2000), None).object(value)
    shown = json.loads(text)
    assert shown == {**value, "big": mark_of("b" * 3000, start="b" * 200)}
    assert list(shown) == list(value)
    assert len(text) <= 2000


def test_containers_are_kept_as_far_as_there_is_room() -> None:
    messages = [{"role": "user", "content": f"{number}" * 400} for number in range(10)]
    text = Capture(Limits(payload=3400), None).object({"model": "m", "messages": messages})
    shown = json.loads(text)
    assert 3000 < len(text) <= 3400
    assert shown["model"] == "m"
    assert len(shown["messages"]) == 10
    cut = [message["content"] for message in shown["messages"] if isinstance(message["content"], dict)]
    whole = [message for message in shown["messages"] if message in messages]
    assert len(cut) + len(whole) == 10
    assert len(whole) >= 2
    assert cut[0]["$truncated"]["sha256"] == hashlib.sha256(b"0" * 400).hexdigest()


def test_of_a_list_of_many_small_items_the_first_are_kept() -> None:
    text = Capture(Limits(payload=1000), None).object({"list": ["x" * 50] * 100, "after": 1})
    shown = json.loads(text)
    assert 900 < len(text) <= 1000
    kept = len(shown["list"]) - 1
    assert shown == {"list": [*["x" * 50] * kept, {"$truncated": {"items": 100 - kept}}], "after": 1}


def test_members_left_out_twice_are_counted_together() -> None:
    text = Capture(Limits(payload=1000, items=50), None).object({"list": ["x" * 50] * 100})
    shown = json.loads(text)
    assert shown["list"][-1] == {"$truncated": {"items": 100 - len(shown["list"]) + 1}}
    members = {f"{number:050}": 1 for number in range(100)}
    text = Capture(Limits(payload=1000, items=50), None).object(members)
    shown = json.loads(text)
    assert shown["$truncated"] == {"items": 100 - len(shown) + 1}
    assert len(text) <= 1000


def test_a_payload_that_is_one_mark_keeps_size_and_hash() -> None:
    value = {"a": "x" * 500}
    text = Capture(Limits(payload=200), None).object(value)
    shown = json.loads(text)
    assert shown == mark_of(compact(value))
    assert len(text) <= MARK


def test_names_may_not_take_more_than_the_payload() -> None:
    text = Capture(Limits(), None).object({f"{number:0900}": 1 for number in range(5000)})
    shown = json.loads(text)
    assert len(text) <= 1024 * 1024
    assert shown["$truncated"]["items"] == 5000 - len(shown) + 1


@pytest.mark.parametrize("text", ["\x00" * 900, "ä" * 900, '"' * 900, "\ud800" * 900, "😀\ud800" * 450])
def test_what_json_must_escape_counts_as_it_is_written(text: str) -> None:
    written = Capture(Limits(payload=3000), None).object({"list": [text] * 10, "small": 1})
    shown = json.loads(written)
    assert len(written) <= 3000
    assert shown["small"] == 1


def test_text_beside_a_lone_surrogate_is_not_escaped() -> None:
    text = Capture(Limits(), None).object({"a": "ä" * 10, "b": "\ud800"})
    assert text == '{"a":"' + "ä" * 10 + '","b":"\\ud800"}'


USAGE = {"input_tokens": 812, "output_tokens": 95, "cost_usd": 0.0125}


@pytest.mark.full
@pytest.mark.parametrize(
    "huge",
    [
        {"text": "x" * 5_000_000},
        {"parts": ["x" * 100_000] * 40},
        {"embedding": [[0.123456789] * 3000] * 50, "more": [[{"a": [1]}] * 3000] * 50},
        {"choices": [{"message": {"content": ["y" * 3000] * 1000}}] * 10},
        {"nested": {"a": {"b": {"c": [{"d": "x" * 1000}] * 5000}}}},
        {"bytes": b"x" * 5_000_000, "tuple": (("a", "b" * 200_000),) * 50},
    ],
    ids=lambda value: next(iter(value)),
)
@pytest.mark.parametrize("first", [True, False])
def test_token_counts_survive_beside_anything(tmp_path: Path, huge: dict[str, Any], first: bool) -> None:
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    usage = {**USAGE, "usage": {**USAGE, "details": {"cached_tokens": 7}}}
    result = {**usage, **huge} if first else {**huge, **usage}
    with tracer.span("llm", {"model": "m", "messages": huge}) as span:
        span.set_result(result)
    (stored,) = spans_of(tracer)
    assert (stored.payload["model"], stored.label) == ("m", "m")
    assert {key: stored.result_payload[key] for key in usage} == usage
    connection = sqlite3.connect(tmp_path / "runs.db")
    row = connection.execute("select input_tokens, output_tokens, cost_usd, length(result_payload) from spans")
    *columns, length = row.fetchone()
    connection.close()
    assert dict(zip(USAGE, columns, strict=True)) == USAGE
    assert length <= 1024 * 1024
    assert tracer.health().failed == 0
    tracer.shutdown()


# --- A tracer's own limits


def test_a_tracer_has_limits_of_its_own(limited: Tracer) -> None:
    @limited.span
    def work(text: str) -> list[int]:
        return list(range(30))

    with limited.run("a", metadata={"text": "m" * 1001}) as run:
        work("t" * 1001)
        with limited.span("custom", {"a": {"b": {"c": {"d": {"e": [1]}}}}}) as span:
            span.update_payload({"more": "u" * 1001})
            span.set_result({f"k{number}": "v" * 500 for number in range(15)})
        run.set_result({"text": "r" * 1001})
    called, span = spans_of(limited)
    assert called.payload["arguments"] == {"text": mark_of("t" * 1001, start="t" * 200)}
    assert called.result_payload["output"] == [*range(20), {"$truncated": {"items": 10}}]
    assert span.payload["a"] == {"b": {"c": {"d": {"e": {"$truncated": {"depth": 5}}}}}}
    assert span.payload["more"] == mark_of("u" * 1001, start="u" * 200)
    assert len(compact(span.result_payload)) <= 4000
    assert list(span.result_payload) == [f"k{number}" for number in range(15)]
    (stored,) = agentspan.open(limited.storage).agent_instances.list()
    assert stored.metadata == {"text": mark_of("m" * 1001, start="m" * 200)}
    assert stored.result == {"text": mark_of("r" * 1001, start="r" * 200)}


def test_errors_are_within_the_limits(limited: Tracer) -> None:
    @limited.span("custom")
    def fail() -> None:
        span = limited.current_span()
        assert span is not None
        span.set_result({"text": ["t" * 900] * 10, "input_tokens": 3})
        raise ValueError("e" * 100_000)

    with pytest.raises(ValueError, match="e"):
        fail()
    (stored,) = spans_of(limited)
    error = stored.result_payload["error"]
    assert error["type"] == "ValueError"
    assert error["message"]["$truncated"]["start"] == "e" * 200
    assert stored.result_payload["input_tokens"] == 3
    assert len(compact(stored.result_payload)) <= 4000


def test_a_long_message_does_not_drown_the_stack_trace() -> None:
    def fail() -> None:
        raise ValueError("e" * 100_000)

    try:
        fail()
    except ValueError as error:
        described = Capture(Limits(), Redaction()).error(error)
    assert described["message"] == "e" * 16_384 + "…"
    assert 'raise ValueError("e" * 100_000)' in described["stacktrace"]
    assert len(described["stacktrace"]) < 6000


def test_of_a_long_stack_trace_the_end_is_kept() -> None:
    def fail(depth: int) -> None:
        if depth == 0:
            raise ValueError("bottom")
        try:
            fail(depth - 1)
        except ValueError as error:
            raise ValueError("on the way " * 20 + str(depth)) from error

    try:
        fail(60)
    except ValueError as error:
        stacktrace = Capture(Limits(), Redaction()).error(error)["stacktrace"]
    assert 15_000 < len(stacktrace) <= 16_384
    assert stacktrace.rstrip().endswith("on the way 60")


def test_a_payload_grows_by_updates_up_to_the_limit(limited: Tracer) -> None:
    with limited.span("custom", {"first": 1}) as span:
        for number in range(30):
            span.update_payload({f"k{number}": "v" * 900})
    (stored,) = spans_of(limited)
    assert stored.payload["first"] == 1
    assert len(compact(stored.payload)) <= 4000


# --- Any value

trees = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text | st.text(max_size=400),
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(any_text, inner, max_size=12),
    max_leaves=20,
)


@pytest.mark.full
@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(st.dictionaries(st.text(max_size=300) | any_text, trees, max_size=12), st.integers(1, 4000))
def test_what_is_shrunk_fits(value: dict[str, Any], room: int) -> None:
    shown = shrink(value, room)
    text = encode(shown)
    assert len(text) <= max(room, MARK)
    assert type(shown) is dict
    if len(encode(value)) <= room:
        assert shown is value
    json.loads(text)


@pytest.mark.full
@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(st.dictionaries(st.text(max_size=30), trees, max_size=6), st.integers(600, 4000))
def test_what_is_small_survives_what_is_shrunk(value: dict[str, Any], room: int) -> None:
    shown = shrink({**value, **USAGE}, room)
    assert {key: shown[key] for key in USAGE} == USAGE


@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(trees)
def test_sizes_are_measured_as_they_are_written(value: Any) -> None:
    assert limits_module._Shrinking(())._size(value) == len(encode(value))


@given(
    st.builds(
        Limits,
        st.sampled_from([5, 100, 300, 10_000]),
        st.sampled_from([50, 300, 100_000]),
        st.integers(0, 4),
        st.integers(0, 4),
    ),
    st.sampled_from(["f", "password", "AKIAABCDEFGHIJKLMNOP", "é", "a" * 101, "<lambda>"]),
    json_values | st.sampled_from(["x" * 200, "password=hunter2!x", "AKIAABCDEFGHIJKLMNOP", "\ud800", 1 << 15_000]),
    st.sampled_from([None, Redaction(), Redaction(lambda name, value: "r" if name in ("a", "output") else value)]),
)
@example(Limits(), "AKIAABCDEFGHIJKLMNOP", {"é": 1}, Redaction())
def test_the_short_ways_give_what_the_long_one_does(
    limits: Limits, name: str, value: Any, redaction: Redaction | None
) -> None:
    taking = Capture(limits, redaction)
    called = taking.call(name, head_of_call(name), {"a": value, "b": [value]})
    assert called == taking.object({"name": name, "arguments": {"a": value, "b": [value]}})
    assert taking.output(value) == taking.object(value if type(value) is dict else {"output": value})


# --- Limits count what is looked at, not only what is kept


@dataclass
class Pair:
    left: Any
    right: Any


def shared(width: int, depth: int, leaf: Any = 1) -> Any:
    """A list that holds the same list in each place, and so on: `width ** depth` values if it were written out."""
    value = [leaf] * width
    for _ in range(depth - 1):
        value = [value] * width
    return value


def pairs(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = Pair(value, value)
    return value


SHARED: dict[str, Callable[[], Any]] = {
    "lists": lambda: shared(10, 13),
    "long lists": lambda: shared(10_000, 3),
    "lists of two": lambda: shared(2, 43),
    "empty lists": lambda: shared(5000, 2, []),
    "lists of texts": lambda: shared(10, 13, "some text"),
    "objects": lambda: pairs(43),
    "messages": lambda: [{"role": "user", "content": shared(10, 13)} for _ in range(3)],
    "messages that are objects": lambda: [{"role": "user", "content": pairs(43)} for _ in range(3)],
}


@pytest.mark.parametrize("kind", SHARED)
def test_lists_that_share_lists_are_looked_at_once(kind: str) -> None:
    value = {"messages": SHARED[kind]()}
    capture, repeats = Capture(Limits(), Redaction()), Repeats()
    calls = 0

    def called(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        captured = capture.object(value, repeats)
    finally:
        sys.setprofile(None)
    assert isinstance(captured, str)
    assert len(captured) <= Limits().payload + MARK
    assert calls < (1_500_000 if "objects" in kind else 400_000)  # 4.6 to 5.0 million, and 1.0 to 4.3


def test_values_that_are_in_several_places_are_in_all_of_them() -> None:
    leaf = {"password": "hunter2hunter2", "n": (1, None), "text": "a" * 300}
    many = [[leaf, (leaf, [leaf])] for _ in range(300)] + [leaf] * 300
    redaction = Redaction()
    text = Capture(Limits(), redaction).object({"many": many, "last": leaf})
    shown = {"password": "[redacted]", "n": [1, None], "text": "a" * 300}
    assert json.loads(text) == {"many": [[shown, [shown, [shown]]]] * 300 + [shown] * 300, "last": shown}
    assert redaction.count == 1201
    deep: Any = [leaf]
    for _ in range(6):
        deep = [deep, deep, deep, deep]
    near = Capture(Limits(depth=9), None).object({"v": [(1,)] * 1500 + [deep, [deep], [[deep]]]})
    *_, first, second, third = json.loads(near)["v"]
    assert "$truncated" in compact(second)
    assert compact(first) != compact(second[0]) != compact(third[0][0])


SURROGATES: dict[str, Callable[[str], Any]] = {
    "one text": lambda sign: sign * 1_000_000,
    "texts that are kept": lambda sign: [sign * 250_000 + str(number) for number in range(4)],
    "the same text": lambda sign: [sign * 1_000_000] * 30,
}


@pytest.mark.parametrize("kind", SURROGATES)
def test_lone_surrogates_take_about_as_long_as_other_characters(kind: str) -> None:
    capture = Capture(Limits(), Redaction())

    def took(sign: str) -> float:
        value = {"text": SURROGATES[kind](sign)}
        best = float("inf")
        for _ in range(3):
            began = time.thread_time()
            capture.object(value)
            best = min(best, time.thread_time() - began)
        return best

    assert took("\ud800") < 20 * took("é") + 0.02  # 40 to 300 times before, some of a second


@given(any_text)
@example("\ud83d\ude00 \ude00\ud83d \ud83d")
def test_surrogates_are_joined_and_escaped_as_json_has_them(text: str) -> None:
    whole = joined(text)
    assert whole == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    assert json.loads(encode({text: whole})) == {whole: whole}
    assert encode(whole).encode()  # no lone surrogate is left
