"""Histories that grow from call to call: only what is new is redacted, and what is recorded is the same."""

import dataclasses
import json
import marshal
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr

import agentspan
from agentspan.journal.records import Parts
from agentspan.recording.capture import capture as capture_module
from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.plain import Plain
from agentspan.recording.capture.repeats import Captured, Repeats
from agentspan.recording.settings import Settings
from agentspan.recording.tracer import recorder_of
from agentspan.storage.questions import Query
from tests.strategies import json_objects
from tests.tiers import examples

SECRET = "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCD"


def message(number: int, size: int = 300) -> dict[str, Any]:
    return {"role": "user", "content": f"{number} " + "x" * size}


def captured(capture: Capture, payload: dict[str, Any], repeats: Repeats) -> str:
    """Return the JSON text of a payload."""
    parts = capture.object(payload, repeats)
    return parts if isinstance(parts, str) else parts.text()


def members(text: str) -> Any:
    """Return what a JSON text says, its members in their order.

    A text with a lone surrogate is written by another encoder, which writes 0.00001 as 1e-05.
    """
    return json.loads(text, object_pairs_hook=list)


MESSAGES = st.sampled_from(
    [
        *map(message, range(6)),
        {"role": "user", "content": f"my key is {SECRET} " + "y" * 300},
        {"role": "tool", "password": "hunter2 " * 40, "content": "z" * 200},
        {"role": "tool", "content": [{"type": "text", "text": "deep " * 60}]},
        {"role": "user", "content": "é" * 300},
        {},
    ]
)
EDITS = st.lists(
    st.tuples(st.integers(0, 8), st.sampled_from(["add", "set", "cut", "slide", "inner", "same"]), MESSAGES), max_size=8
)


def edited(messages: list[Any], at: int, how: str, value: Any) -> None:
    """Change a history in place, as programs do."""
    value = json.loads(json.dumps(value))
    at = min(at, len(messages))
    if how == "add":
        messages.insert(at, value)
    elif how == "set":
        messages[at : at + 1] = [value]
    elif how == "cut":
        del messages[at:]
    elif how == "slide":
        del messages[at // 2 : at + 1]
    elif how == "inner" and at < len(messages) and type(messages[at]) is dict:
        messages[at]["content"] = value.get("content", 1)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(MESSAGES | json_objects, max_size=12), EDITS, st.sampled_from(["messages", "tools", "password", "x y"]))
def test_a_payload_is_the_same_with_and_without_what_was_known(start: list[Any], edits: list[Any], name: str) -> None:
    capture = Settings().new_capture()
    repeats = Repeats()
    messages = [message(number) for number in range(14)] + start
    for at, how, value in [(0, "same", {}), *edits, (0, "same", {})]:
        edited(messages, at, how, value)
        payload = {"model": "m", name: messages, "n": 1.0}
        assert members(captured(capture, payload, repeats)) == members(str(capture.object(payload)))


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(MESSAGES, max_size=8), st.lists(MESSAGES, max_size=8), st.integers(0, 8), st.integers(0, 8))
def test_what_two_lists_have_in_common_is_their_start_and_what_follows_a_gap(
    before: list[Any], new: list[Any], start: int, end: int
) -> None:
    repeats = Repeats()
    captured_now: list[Any] = []

    def fresh(items: Any, name: str) -> list[Captured]:
        captured_now.extend(items)
        return [Captured(json.dumps(item).encode(), 1) for item in items]

    first = repeats.take("messages", before, before, fresh)
    after = before[:start] + before[max(start, end) :] + new
    second = repeats.take("messages", after, after, fresh)
    assert first is not None
    assert second is not None
    assert [json.loads(element.text) for element in second.elements] == after
    texts = [json.dumps(item) for item in captured_now]
    assert len(texts) == len(set(texts))  # nothing is captured twice
    third = repeats.take("messages", after, after, fresh)
    assert third == second._replace(new=0)


def test_of_a_history_that_slides_no_element_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    repeats, sizes = Repeats(), []
    dumps = marshal.dumps

    def watched(value: Any, version: int) -> bytes:
        sizes.append(len(value))
        return dumps(value, version)

    def fresh(items: Any, name: str) -> list[Captured]:
        return [Captured(b"{}", 2) for _ in items]

    system, said = {"role": "system"}, [message(number) for number in range(200)]
    for number in range(50):
        window = [system, *said[number : number + 100]]
        monkeypatch.setattr("agentspan.recording.capture.repeats.marshal.dumps", watched)
        repeats.take("messages", window, window, fresh)
        if number:
            assert sizes == [101, 2, 2]  # the list, the first message after the gap, and the new one
        sizes.clear()
        monkeypatch.undo()


class Call(BaseModel):
    name: str
    arguments: Any = None


class Message(BaseModel):
    model_config = ConfigDict(extra="allow")
    role: str = "assistant"
    content: Any = None
    calls: list[Call] | None = None
    _seen: int = PrivateAttr(default=0)


@dataclasses.dataclass
class Note:
    content: Any


OBJECTS = st.one_of(
    st.builds(
        Message,
        content=st.text(max_size=300) | json_objects,
        calls=st.none() | st.lists(st.builds(Call, name=st.text(max_size=3))),
    ),
    st.builds(
        lambda name, value: Message(**{name: value}),
        st.sampled_from(["api_key", "other", "content"]),
        st.just(SECRET) | json_objects,
    ),
    st.builds(Note, st.text(max_size=300) | json_objects | st.builds(Call, name=st.just("f"))),
    st.builds(
        lambda content: {"role": "assistant", "content": content, "calls": [Call(name="f")]}, st.text(max_size=300)
    ),
    MESSAGES,
)


@pytest.mark.full
@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.tuples(OBJECTS, st.integers(0, 30), st.text(max_size=5)), min_size=2, max_size=10))
def test_messages_that_are_objects_are_the_same_with_and_without_what_was_known(steps: list[Any]) -> None:
    capture, repeats = Settings().new_capture(), Repeats()
    messages: list[Any] = [message(number) for number in range(20)]
    for added, at, text in steps:
        messages.append(added)
        changed = messages[at % len(messages)]
        if isinstance(changed, Message | Note):
            changed.content = text
        payload = {"messages": messages}
        assert members(captured(capture, payload, repeats)) == members(str(capture.object(payload)))


def test_messages_that_are_objects_are_captured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    capture, repeats = Settings().new_capture(), Repeats()
    messages: list[Any] = [
        message(number) if number % 2 else Message(content=f"{number}", calls=[Call(name="f")]) for number in range(40)
    ]
    walks: list[Any] = []
    of = Plain.of
    monkeypatch.setattr(Plain, "of", lambda walk, value, name="": walks.append(value) or of(walk, value, name))
    for _ in range(5):
        walks.clear()
        messages.append(Message(content="another"))
        assert isinstance(capture.object({"messages": messages}, repeats), Parts)
    assert len(walks) < 20
    messages[4]._seen = 7  # of which a serializer may make something
    messages[6].calls[0].arguments = {"a": 1}
    walks.clear()
    capture.object({"messages": messages}, repeats)
    assert sum(isinstance(each, Message) for each in walks) == 2


def test_other_objects_are_asked_each_time() -> None:
    capture, repeats = Settings().new_capture(), Repeats()
    messages = [*(message(number) for number in range(20)), Message(content=datetime(2026, 1, 2, tzinfo=UTC))]
    assert captured(capture, {"messages": messages}, repeats) == capture.object({"messages": messages})
    used = iter("abc")
    capture.object({"messages": [*messages, Note(used)]}, repeats)
    assert list(used) == ["a", "b", "c"]


def looked_at(capture: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the bytes that are searched for credentials from now on."""
    searched: list[int] = []
    suspicious = capture._suspicious

    def counting(text: str | bytes, data: bytes | None = None) -> bool:
        searched.append(len(text))
        return bool(suspicious(text, data))

    monkeypatch.setattr(capture, "_suspicious", counting)
    return searched


def test_only_what_is_new_is_searched_for_credentials(
    tracer: agentspan.Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = recorder_of(tracer).capture
    searched = looked_at(capture, monkeypatch)
    messages = [message(number, 1000) for number in range(100)]
    with tracer.run("agent"):
        for number in range(100, 120):
            searched.clear()
            messages.append(message(number, 1000))
            with tracer.span("llm", {"model": "m", "messages": messages}):
                pass
            if number > 100:
                assert 1000 < sum(searched) < 2000
        searched.clear()
        messages[3]["content"] = "another " * 200
        with tracer.span("llm", {"model": "m", "messages": messages}):
            pass
        assert 1600 < sum(searched) < 2600
        searched.clear()
        with tracer.span("llm", {"model": "m", "messages": messages[50:]}):
            pass
        assert sum(searched) < 500
    with tracer.run("another"), tracer.span("llm", {"model": "m", "messages": messages}):
        pass
    assert sum(searched) > 100_000  # what one run knows is nothing for another


def test_a_long_history_is_no_reason_to_cut(tracer: agentspan.Tracer) -> None:
    messages: list[Any] = []
    with tracer.run("agent"):
        for number in range(30):
            messages.append(message(number, 60_000))
            with tracer.span("llm", {"model": "m", "messages": messages}):
                pass
        with tracer.span("llm", {"model": "m", "messages": [*messages, *(message(n, 60_000) for n in range(99, 120))]}):
            pass
    tracer.flush()
    payloads = [json.loads(row.payload) for row in recorder_of(tracer).store.ask(Query("agent_span")).rows]  # type: ignore[union-attr]
    assert payloads[29]["messages"] == messages
    assert "$truncated" in json.dumps(payloads[30])


def test_what_is_remembered_has_a_limit() -> None:
    capture, repeats = Settings().new_capture(), Repeats(most=10_000)
    for number in range(50):
        payload = {"messages": [message(number), *(message(each, 500) for each in range(number, number + 10))]}
        assert captured(capture, payload, repeats) == capture.object(payload)
        assert repeats._size <= 10_000


def test_threads_that_share_a_history_record_it(tracer: agentspan.Tracer) -> None:
    messages = [message(number) for number in range(40)]

    def call(run: agentspan.Run, number: int) -> None:
        for _ in range(30):
            messages.append(message(number))
            run.create_span("llm", {"model": "m", "messages": list(messages)}, status="active").finish()

    with tracer.run("agent") as run:
        threads = [threading.Thread(target=call, args=(run, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    tracer.flush()
    rows = recorder_of(tracer).store.ask(Query("agent_span")).rows
    assert len(rows) == 120
    for row in rows:
        found = json.loads(row.payload)["messages"]  # type: ignore[union-attr]
        assert found == messages[: len(found)]


def test_a_rule_of_the_program_is_asked_once_for_what_is_repeated() -> None:
    asked: list[str] = []

    def rule(name: str, text: Any) -> Any:
        asked.append(name)
        return "…" if text == "secret" else text

    capture = Settings(redact=rule).new_capture()
    repeats = Repeats()
    messages = [*(message(number) for number in range(20)), {"role": "user", "content": "secret"}]
    first = captured(capture, {"messages": messages, "n": 1}, repeats)
    assert json.loads(first)["messages"][-1]["content"] == "…"
    asked.clear()
    assert captured(capture, {"messages": [*messages, message(21)], "n": 1}, repeats) == first.replace(
        '"}],"n":1}', f'"}},{json.dumps(message(21), separators=(",", ":"))}],"n":1}}'
    )
    assert asked == ["role", "content", "messages", "n"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_records_what_its_parent_has_said(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    messages = [message(number) for number in range(40)]
    with tracer.run("agent"):
        with tracer.span("llm", {"messages": messages}):
            pass
        child = os.fork()
        if not child:
            status = 1
            try:
                messages.append(message(99))
                with tracer.span("llm", {"messages": messages}):
                    pass
                tracer.flush()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        messages.append(message(98))
        with tracer.span("llm", {"messages": messages}):
            pass
    tracer.shutdown()
    with agentspan.open(tmp_path / "runs.db") as db:
        said = [json.loads(row.payload)["messages"] for row in db.storage.ask(Query("agent_span")).rows]  # type: ignore[union-attr]
    assert sorted(map(len, said)) == [40, 41, 41]
    assert sorted(each[-1]["content"][:2] for each in said) == ["39", "98", "99"]


def test_a_list_that_shares_its_values_is_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    room = capture_module._room

    def counting(value: Any, *limits: Any) -> int:
        looks.append(len(value))
        return room(value, *limits)

    monkeypatch.setattr(capture_module, "_room", counting)
    row = {"numbers": [1] * 10_000}
    Settings().new_capture().object({"rows": [row] * 10_000}, Repeats())
    assert sum(looks) < 200_000  # all of it would be 100 million
