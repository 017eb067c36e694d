"""What was said in a run, out of what its spans hold."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentspan
from agentspan.analysis import messages
from agentspan.storage.questions import Find, SpansOf
from agentspan.viewer import conversation, turns
from tests.viewer.recorded import CALL, Recorded, answer, assistant, user


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
    answer = {"role": "tool", "tool_call_id": "c1", "content": "found"}
    recorded.add(
        "llm",
        {"model": "m", "messages": [user("Look"), {**assistant(""), "tool_calls": [call]}, answer]},
        {"text": "I found it."},
    )
    assert recorded.said() == [("user", "Look"), ("tool", "found"), ("assistant", "I found it.")]
    tool = recorded.turns()[1]
    assert (tool["name"], tool["arguments"], tool["asked_by"]) == ("look", '{"q":"a"}', asked)
    assert recorded.turns()[2]["again"] == [(1, 2)]


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


def part_names(turn: turns.Turn) -> list[tuple[str, str]]:
    return [(part["name"], part["text"]) for part in turn["others"]]


def test_nothing_that_a_span_of_the_conversation_holds_is_left_out(recorded: Recorded) -> None:
    content = [{"type": "text", "text": "Hi", "note": 1}, {"type": "image_url", "image_url": {"url": "data:x"}}]
    said = {"role": "user", "name": "bob", "content": content, "mood": "bad", "refusal": None}
    payload = {"model": "m", "instructions": "Be kind.", "messages": [said], "prompt": "More", "temperature": 0.5}
    call = {"id": "c9", "type": "function", "function": {"name": "look", "arguments": "{}", "hidden": 1}, "extra": 2}
    result = {
        "text": "Hello", "tool_calls": [call], "output": [assistant("Psst")], "input_tokens": 3,
        "finish_reason": "length",
    }  # fmt: skip
    recorded.add("llm", payload, result)
    payload = {"name": "look", "arguments": {"q": 1}, "tenant": "t"}
    recorded.add("tool", payload, {"output": "found", "seen": [1]})
    recorded.add("tool", {"name": "look"}, {"error": {"type": "a.B", "message": "m", "code": 7}}, status="failed")
    recorded.add("tool", {"name": "look"}, {"error": {"code": 7}, "left": 1})
    recorded.add("tool", {"name": "look"}, {"error": False})
    recorded.add("message", {**user("Bye"), "tone": "dry"}, {"read": True})
    system, hi, more, hello, psst, tool, failed, odd, calm, bye = recorded.turns()
    assert (system["role"], system["text"], more["text"], psst["text"]) == ("system", "Be kind.", "More", "Psst")
    assert (hi["text"], hi["name"]) == ("Hi", "bob")
    assert part_names(hi) == [("note", "1"), ("image_url", '{"image_url":{"url":"data:x"}}'), ("mood", '"bad"')]
    assert part_names(hello) == [("temperature", "0.5"), ("finish_reason", '"length"')]
    (asked,) = hello["calls"]
    assert [(part["name"], part["text"]) for part in asked["others"]] == [("extra", "2"), ("hidden", "1")]
    assert (tool["text"], part_names(tool)) == ("found", [("tenant", '"t"'), ("seen", "[1]")])
    assert (failed["error"], part_names(failed)) == ("B: m", [("error", '{"type":"a.B","message":"m","code":7}')])
    assert (odd["error"], part_names(odd)) == ('{"code":7}', [("left", "1"), ("error", '{"code":7}')])
    assert (calm["error"], part_names(calm)) == (None, [("error", "false")])
    assert part_names(bye) == [("tone", '"dry"'), ("read", "true")]


def test_settings_of_a_model_are_shown_when_they_change(recorded: Recorded) -> None:
    for temperature in (0, 0, 1):
        recorded.add("llm", {"model": "m", "messages": [user("Hi")], "temperature": temperature}, {"text": "Hello"})
    shown = [part_names(turn) for turn in recorded.turns() if turn["role"] == "assistant"]
    assert shown == [[("temperature", "0")], [], [("temperature", "1")]]


def test_a_role_of_any_name_or_type_is_shown(recorded: Recorded) -> None:
    sent = [{"role": role, "content": "x"} for role in ("critic unseen", "", 7, ["a"], None)]
    recorded.add("llm", {"model": "m", "messages": sent})
    assert [turn["role"] for turn in recorded.turns()] == ["critic unseen", "", "7", '["a"]', "user"]


def test_what_failed_says_so(recorded: Recorded) -> None:
    error = {"error": {"type": "TimeoutError", "message": "too slow"}}
    recorded.add("tool", {"name": "look"}, error, status="failed")
    recorded.add("llm", {"model": "m"}, error, status="failed")
    assert [(turn["role"], turn["error"]) for turn in recorded.turns()] == [
        ("tool", "TimeoutError: too slow"),
        ("assistant", "TimeoutError: too slow"),
    ]


def test_a_tool_that_returned_an_error_looks_failed(recorded: Recorded) -> None:
    for is_error in (True, False, "true"):
        recorded.add("tool", {"name": "look"}, {"output": "no seat", "is_error": is_error})
    found = [(turn["status"], turn["text"], turn["error"]) for turn in recorded.turns()]
    assert found == [("failed", "no seat", None), *[("complete", "no seat", None)] * 2]


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
    assert (len(turn["text"]), turn["length"]) == (turns.MAX_TEXT, 50_000)


def test_long_arguments_are_cut_and_say_so(recorded: Recorded) -> None:
    call = {"id": "c", "function": {"name": "look", "arguments": json.dumps({"text": "x" * 300_000})}}
    recorded.add("llm", {"model": "m"}, {"text": "I look.", "tool_calls": [call]})
    recorded.add("tool", {"name": "look", "arguments": {"text": "x" * 299_999}})
    asked, tool = recorded.turns()
    for shown, left in ((asked["calls"][0]["arguments"], "280,012"), (tool["arguments"], "280,010")):
        assert shown
        assert len(shown) < 21_000
        assert shown.endswith(f"… ({left} more characters in the span)")


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
    (image,) = message["others"]
    assert (message["text"], image["name"], image["text"]) == ("", "image_url", '{"image_url":{"url":"data:"}}')


def test_a_list_that_a_tool_returned_stays_json() -> None:
    assert messages.text_of([{"a": 1}, {"a": 2}]) == ('[{"a":1},{"a":2}]', [])
    assert messages.text_of([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]) == ("a\nb", [])


def test_an_llm_span_has_what_went_in_and_what_came_out(recorded: Recorded) -> None:
    span = recorded.add("llm", {"model": "m", "system": "Be kind.", "messages": [user("Hi")]}, {"text": "Hello!"})
    row = recorded.db.storage.ask(Find(span)).rows[span][1]
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
        for span in db.storage.ask(SpansOf(recorded.run)):
            json.dumps(conversation.of_span(span))


def test_spans_that_are_their_own_ancestors_end(recorded: Recorded) -> None:
    first = recorded.add("message", user("a"))
    spans = list(recorded.db.storage.ask(SpansOf(recorded.run)))
    assert conversation.of_run([spans[0]._replace(parent_span_id=first)]).turns[0]["agent"] is None


def test_a_conversation_that_is_too_large_says_what_it_does_not_show(recorded: Recorded) -> None:
    for number in range(6):
        recorded.add("llm", {"model": "m", "messages": [user(f"{number} {'x' * 1000}")]}, {"text": f"answer {number}"})
        recorded.add("tool", {"name": "look", "arguments": {"q": number}}, {"output": f"found {number}"})
    spans = [*recorded.db.storage.ask(SpansOf(recorded.run))]
    whole = conversation.of_run(spans).turns
    assert len(whole) == 18
    for cut, missing in (
        (conversation.of_run(spans, most_bytes=3500).turns, 5),
        (conversation.of_run(spans, most_turns=7).turns, 7),
        (conversation.of_run(iter(spans), lambda: 12, most_steps=4).turns, 8),
    ):
        assert [(turn["span"], turn["text"]) for turn in cut[:-1]] == [
            (turn["span"], turn["text"]) for turn in whole[: len(cut) - 1]
        ]
        assert cut[-1]["role"] == "agentspan"
        assert cut[-1]["text"].endswith(f" {missing} more steps are in the tree.")


def test_a_call_whose_tool_is_beyond_the_last_turn_is_shown_without_it(recorded: Recorded) -> None:
    recorded.add("llm", {"model": "m", "messages": [user("pay")]}, {"text": "I pay.", "tool_calls": [CALL]})
    recorded.add("llm", {"model": "m", "messages": [user("pay"), answer("paid")]}, {"text": "Done."})
    recorded.add("tool", {"name": "pay", "arguments": {"to": "bob", "sum": 1}, "call_id": "c1"}, {"output": "paid"})
    spans = [*recorded.db.storage.ask(SpansOf(recorded.run))]
    assert conversation.of_run(spans).turns[1]["calls"][0]["same"] is not None
    cut = conversation.of_run(spans, most_turns=2).turns
    assert [turn["text"] for turn in cut[:-1]] == ["pay", "I pay."]
    assert cut[1]["calls"][0]["same"] is None
