"""What was said in a run, out of what its spans hold."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentspan
from agentspan.database import Database
from agentspan.model.status import SpanStatus
from agentspan.viewer import conversation, messages


class Recorded:
    """A run whose spans follow each other, a second each."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.run = db.agent_instances.register("a", agent_version={}, agent_schema_version={}).id
        self.seconds = 0

    def add(
        self, name: str, payload: Any, result: Any = None, *, status: SpanStatus = "complete", parent: str | None = None
    ) -> str:
        self.seconds += 1
        at = f"2026-11-24T10:{self.seconds // 60:02d}:{self.seconds % 60:02d}Z"
        return self.db.agent_spans.create(
            self.run,
            name,
            status,
            payload,
            result,
            parent_span_id=parent,
            started_at=at,
            finished_at=at,
        ).id

    def said(self) -> list[tuple[str, str]]:
        return [(turn["role"], turn["text"]) for turn in self.turns()]

    def turns(self) -> list[conversation.Turn]:
        return conversation.of_run(self.db.storage.iter_spans(self.run))


@pytest.fixture
def recorded(db: Database) -> Recorded:
    return Recorded(db)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def test_a_history_that_is_sent_again_is_shown_once(recorded: Recorded) -> None:
    history = [{"role": "system", "content": "Be kind."}, user("Hi")]
    recorded.add("llm", {"model": "m", "messages": list(history)}, {"text": "Hello!"})
    history += [assistant("Hello!"), user("yes"), assistant("Good."), user("yes")]
    recorded.add("llm", {"model": "m", "messages": history[:4]}, {"text": "Good."})
    recorded.add("llm", {"model": "m", "messages": history}, {"text": "Fine."})
    assert recorded.said() == [
        ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "yes"), ("assistant", "Good."),
        ("user", "yes"), ("assistant", "Fine."),
    ]  # fmt: skip


def test_a_program_that_sends_only_the_latest_message_is_read_too(recorded: Recorded) -> None:
    for text in ("yes", "yes"):
        recorded.add("llm", {"model": "m", "messages": [user(text)]}, {"text": "Go on?"})
    assert recorded.said() == [("user", "yes"), ("assistant", "Go on?")] * 2


def test_a_message_span_and_the_model_that_is_sent_it_are_one_turn(recorded: Recorded) -> None:
    recorded.add("message", user("Hi"))
    recorded.add("llm", {"model": "m", "messages": [user("Hi")]}, {"text": "Hello!"})
    assert recorded.said() == [("user", "Hi"), ("assistant", "Hello!")]


def test_a_call_and_its_answer_are_one_turn(recorded: Recorded) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q":"a"}'}}
    asked = recorded.add("llm", {"model": "m", "messages": [user("Look")]}, {"tool_calls": [call]})
    recorded.add("tool", {"name": "look", "arguments": {"q": "a"}, "call_id": "c1"}, {"output": "found"})
    answer = {"role": "tool", "tool_call_id": "c1", "content": "found, as it was sent"}
    recorded.add(
        "llm",
        {"model": "m", "messages": [user("Look"), {**assistant(""), "tool_calls": [call]}, answer]},
        {"text": "I found it."},
    )
    assert recorded.said() == [("user", "Look"), ("tool", "found"), ("assistant", "I found it.")]
    tool = recorded.turns()[1]
    assert (tool["name"], tool["arguments"], tool["asked_by"]) == ("look", '{"q":"a"}', asked)


def test_a_call_without_a_tool_span_stays_with_the_model_and_its_answer_is_a_turn(recorded: Recorded) -> None:
    call = {"id": "c1", "function": {"name": "look", "arguments": "{}"}}
    recorded.add("llm", {"model": "m", "messages": [user("Look")]}, {"tool_calls": [call]})
    history = [
        user("Look"),
        {**assistant(""), "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "found"},
    ]
    recorded.add("llm", {"model": "m", "messages": history}, {"text": "Done."})
    assert recorded.said() == [("user", "Look"), ("assistant", ""), ("tool", "found"), ("assistant", "Done.")]
    assert [call["name"] for call in recorded.turns()[1]["calls"]] == ["look"]
    assert recorded.turns()[2]["name"] == "look"


def test_what_failed_says_so(recorded: Recorded) -> None:
    error = {"error": {"type": "TimeoutError", "message": "too slow"}}
    recorded.add("tool", {"name": "look"}, error, status="failed")
    recorded.add("llm", {"model": "m"}, error, status="failed")
    assert [(turn["role"], turn["error"]) for turn in recorded.turns()] == [
        ("tool", "TimeoutError: too slow"),
        ("assistant", "TimeoutError: too slow"),
    ]


def test_a_turn_says_in_which_agent_it_was_said(recorded: Recorded) -> None:
    outer = recorded.add("agent", {"name": "outer"})
    inner = recorded.add("agent", {"name": "inner"}, parent=outer)
    recorded.add("llm", {"model": "m"}, {"text": "in"}, parent=inner)
    recorded.add("llm", {"model": "m"}, {"text": "out"}, parent=outer)
    recorded.add("llm", {"model": "m"}, {"text": "top"})
    assert [turn["agent"] for turn in recorded.turns()] == ["inner", "outer", None]


def test_a_long_text_is_cut_and_says_how_long_it_is(recorded: Recorded) -> None:
    recorded.add("message", user("x" * 50_000))
    (turn,) = recorded.turns()
    assert (len(turn["text"]), turn["length"]) == (conversation.MAX_TEXT, 50_000)


THOUGHT = {"type": "thinking", "thinking": "hm"}
USE = {"type": "tool_use", "id": "t", "name": "look", "input": {"q": 1}}
ANSWER = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "found"}]}
FUNCTION = {"name": "look", "arguments": "{}"}
PARTS = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}]
Said = list[tuple[str, str, list[str]]]
FORMS: dict[str, tuple[Any, Said]] = {
    "a text": ("Hi", [("user", "Hi", [])]),
    "parts": ([{"role": "user", "content": PARTS}], [("user", "a", [])]),
    "anthropic": (
        [{"role": "assistant", "content": [THOUGHT, USE]}, {"role": "user", "content": [ANSWER]}],
        [("assistant", "hm", ["look"]), ("tool", "found", [])],
    ),
    "google": ([{"role": "model", "parts": [{"text": "Hello"}]}], [("assistant", "Hello", [])]),
    "responses": (
        [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look"}]},
            {"type": "function_call", "call_id": "c", **FUNCTION},
            {"type": "function_call_output", "call_id": "c", "output": "found"},
        ],
        [("assistant", "I look", []), ("assistant", "", ["look"]), ("tool", "found", [])],
    ),
    "old calls": (
        [{"role": "assistant", "content": None, "function_call": FUNCTION}],
        [("assistant", "", ["look"])],
    ),
    "anything else": (
        [{"kind": "odd"}, 7, None],
        [("user", '{"kind":"odd"}', []), ("user", "7", []), ("user", "null", [])],
    ),
    "nothing": (None, []),
}


@pytest.mark.parametrize(("value", "expected"), FORMS.values(), ids=FORMS)
def test_messages_are_read_in_the_forms_of_model_clients(value: Any, expected: Said) -> None:
    found = messages.read(value)
    said = [(one["role"], one["text"], [call["name"] for call in one["calls"]]) for one in found]
    assert said == expected


def test_parts_that_are_no_text_are_named() -> None:
    (message,) = messages.read([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}])
    assert (message["text"], message["others"]) == ("", ["image_url"])


def test_a_list_that_a_tool_returned_stays_json() -> None:
    assert messages.text_of([{"a": 1}, {"a": 2}]) == '[{"a":1},{"a":2}]'
    assert messages.text_of([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]) == "a\nb"


def test_an_llm_span_has_what_went_in_and_what_came_out(recorded: Recorded) -> None:
    span = recorded.add("llm", {"model": "m", "system": "Be kind.", "messages": [user("Hi")]}, {"text": "Hello!"})
    row = recorded.db.storage.find(span).rows[span][1]
    found = conversation.of_span(row)  # type: ignore[arg-type]
    assert [(one["side"], one["role"], one["text"]) for one in found] == [
        ("in", "system", "Be kind."),
        ("in", "user", "Hi"),
        ("out", "assistant", "Hello!"),
    ]


WORDS = ("role", "content", "type", "text", "tool_calls", "function", "name", "arguments", "id", "call_id", "parts",
         "tool_call_id", "tool_use_id", "thinking", "tool_result", "tool_use", "function_call", "messages", "system",
         "function_call_output", "output", "input", "user", "assistant", "output_messages", "error")  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS) | st.text(max_size=3),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inside, max_size=4),
    max_leaves=12,
)


@given(JSON, JSON)
def test_whatever_was_recorded_can_be_read(payload: Any, result: Any) -> None:
    messages.read(payload)
    with agentspan.open(":memory:") as db:
        recorded = Recorded(db)
        for name in ("llm", "tool", "message"):
            sent = (
                payload if isinstance(payload, dict) else {"messages": payload, "content": payload, "call_id": payload}
            )
            made = result if isinstance(result, dict) else {"text": result, "tool_calls": result, "output": result}
            recorded.add(name, sent, made)
        for turn in recorded.turns():
            assert isinstance(turn["text"], str)
            assert all(isinstance(call["arguments"], str) for call in turn["calls"])
        for span in db.storage.iter_spans(recorded.run):
            json.dumps(conversation.of_span(span))


def test_spans_that_are_their_own_ancestors_end(recorded: Recorded) -> None:
    first = recorded.add("message", user("a"))
    spans = list(recorded.db.storage.iter_spans(recorded.run))
    assert conversation.of_run([spans[0]._replace(parent_span_id=first)])[0]["agent"] is None
