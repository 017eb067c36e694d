"""Threads of a conversation: agents at the same time are not mixed."""

from typing import Any

from agentspan.storage.questions import SpansOf
from agentspan.viewer.conversation import Conversation
from tests.viewer.recorded import CALL, Recorded, assistant, system, user


def heard(recorded: Recorded) -> list[tuple[str | None, str]]:
    return [(turn["agent"], turn["text"]) for turn in recorded.turns()]


def test_agents_at_the_same_time_have_a_thread_each_with_its_own_system_prompt(recorded: Recorded) -> None:
    agents = [recorded.add("agent", {"name": "worker"}, seconds=0, lasts=30) for _ in range(2)]
    histories = [[system("Be kind."), user(f"Task {name}")] for name in "AB"]
    for turn in range(2):
        for number, name in enumerate("AB"):
            payload = {"model": "m", "messages": list(histories[number])}
            done = f"{name}{turn}"
            recorded.add("llm", payload, {"text": done}, parent=agents[number], seconds=4 * turn + number, lasts=3)
            histories[number] += [assistant(done), user(f"On, {name}")]
    assert heard(recorded) == [
        *(("worker", text) for text in ("Be kind.", "Task A", "A0", "On, A", "A1")),
        *(("worker (2)", text) for text in ("Be kind.", "Task B", "B0", "On, B", "B1")),
    ]
    assert {turn["thread"] for turn in recorded.turns()} == set(agents)
    assert recorded.turns()[-1]["again"] == [(6, 8)]


def test_an_agent_that_another_calls_stands_where_it_began(recorded: Recorded) -> None:
    outer = recorded.add("agent", {"name": "outer"}, seconds=0, lasts=20)
    recorded.add(
        "llm", {"model": "m", "messages": [system("S"), user("Do")]}, {"text": "I ask."}, parent=outer, seconds=1
    )
    inners = [recorded.add("agent", {"name": name}, parent=outer, seconds=3, lasts=6) for name in ("left", "right")]
    for second in (3, 5):
        for inner in inners:
            recorded.add(
                "llm", {"model": "m", "system": "S"}, {"text": f"at {second}"}, parent=inner, seconds=second, lasts=1
            )
    recorded.add("llm", {"model": "m", "messages": [system("S")]}, {"text": "Both did."}, parent=outer, seconds=15)
    assert heard(recorded) == [
        ("outer", "S"), ("outer", "Do"), ("outer", "I ask."), ("left", "S"), ("left", "at 3"), ("left", "at 5"),
        ("right", "S"), ("right", "at 3"), ("right", "at 5"), ("outer", "Both did."),
    ]  # fmt: skip


def test_a_system_prompt_is_shown_again_when_it_changes(recorded: Recorded) -> None:
    for prompt in ("A", "A", "B", "A"):
        recorded.add("llm", {"model": "m", "messages": [system(prompt)]}, {"text": "."})
    assert [turn["text"] for turn in recorded.turns() if turn["role"] == "system"] == ["A", "B", "A"]


def test_branches_at_the_same_time_are_threads_without_an_agent_too(recorded: Recorded) -> None:
    branches = [recorded.add("chain", {"name": name}, seconds=0, lasts=9) for name in ("left", "right")]
    for second in (1, 3):
        for branch in branches:
            recorded.add(
                "llm", {"model": "m", "system": "S"}, {"text": f"at {second}"}, parent=branch, seconds=second, lasts=2
            )
    recorded.add("message", user("Thanks"), seconds=12)
    assert heard(recorded) == [
        *((name, text) for name in ("left", "right") for text in ("S", "at 1", "at 3")), (None, "Thanks"),
    ]  # fmt: skip


def test_calls_beside_each_other_are_not_mixed_and_a_long_conversation_stays_one(recorded: Recorded) -> None:
    agent = recorded.add("agent", {"name": "a"}, seconds=0, lasts=30)
    history = [system("S"), user("Hi")]
    for turn in range(3):
        recorded.add(
            "llm",
            {"model": "m", "messages": list(history)},
            {"text": f"{turn}"},
            parent=agent,
            seconds=4 * turn,
            lasts=3,
        )
        history += [assistant(f"{turn}"), user("On")]
    recorded.add(
        "llm",
        {"model": "guard", "messages": [system("G"), user("Hi")]},
        {"text": "safe"},
        parent=agent,
        seconds=1,
        lasts=1,
    )
    found = heard(recorded)
    assert [text for name, text in found if name == "a"] == ["S", "Hi", "0", "On", "1", "On", "2"]
    assert [text for name, text in found if name == "guard"] == ["G", "Hi", "safe"]


def test_an_agent_span_for_each_question_of_one_chat_is_one_thread(recorded: Recorded) -> None:
    history: list[dict[str, Any]] = [system("S")]
    for turn in range(3):
        agent = recorded.add("agent", {"name": "chat"}, seconds=10 * turn, lasts=5)
        history.append(user(f"Question {turn}"))
        recorded.add(
            "llm", {"model": "m", "messages": list(history)}, {"text": f"{turn}"}, parent=agent, seconds=10 * turn + 1
        )
        history.append(assistant(f"{turn}"))
    assert heard(recorded) == [
        ("chat", text) for text in ("S", "Question 0", "0", "Question 1", "1", "Question 2", "2")
    ]  # fmt: skip


def test_agents_one_after_the_other_with_tasks_of_their_own_are_threads(recorded: Recorded) -> None:
    for task in ("x", "y"):
        agent = recorded.add("agent", {"name": "worker"})
        recorded.add("llm", {"model": "m", "messages": [system("S"), user(task)]}, {"text": "."}, parent=agent)
    assert heard(recorded) == [
        ("worker", "S"),
        ("worker", "x"),
        ("worker", "."),
        ("worker (2)", "S"),
        ("worker (2)", "y"),
        ("worker (2)", "."),
    ]


def test_a_message_of_a_run_that_its_agent_is_sent_is_one_turn(recorded: Recorded) -> None:
    recorded.add("message", user("Hi"))
    agent = recorded.add("agent", {"name": "a"})
    recorded.add("llm", {"model": "m", "messages": [system("S"), user("Hi")]}, {"text": "Hello"}, parent=agent)
    assert heard(recorded) == [(None, "Hi"), ("a", "S"), ("a", "Hello")]
    assert recorded.turns()[-1]["again"] == [(1, 1)]


def test_agents_within_agents_of_any_depth_are_read(recorded: Recorded) -> None:
    parent = None
    for number in range(100):
        parent = recorded.add("agent", {"name": f"{number}"}, parent=parent)
        recorded.add("llm", {"model": "m", "messages": [user("Pay")]}, {"tool_calls": [CALL]}, parent=parent)
        recorded.add("tool", {"name": "pay", "call_id": "c1"}, {"output": "ok"}, parent=parent)
    assert [turn["agent"] for turn in recorded.turns()] == [f"{number}" for number in range(100) for _ in range(3)]


def test_a_section_has_the_figures_of_its_agent_and_of_the_agents_in_it(recorded: Recorded) -> None:
    outer = recorded.add("agent", {"name": "outer"}, {"usage": {"input_tokens": 999}}, seconds=0, lasts=20)
    asked = {"model": "m", "messages": [user("Do")]}
    recorded.add("llm", asked, {"text": "I ask.", "input_tokens": 10, "output_tokens": 2}, parent=outer, seconds=1)
    inner = recorded.add("agent", {"name": "inner"}, parent=outer, seconds=3, lasts=6)
    answer = {"text": "Found.", "input_tokens": 5, "output_tokens": 1, "cost_usd": 0.25}
    recorded.add("llm", {"model": "m", "messages": [user("Find")]}, answer, parent=inner, seconds=4, lasts=3)
    recorded.add(
        "llm", {"model": "m", "messages": [user("Do"), assistant("x")]}, {"text": "Done."}, parent=outer, seconds=15
    )
    turns, sections, _, _ = recorded.conversation()
    names = ("parent", "name", "turns", "tokens", "cost_usd")
    assert {id: tuple(each[name] for name in names) for id, each in sections.items()} == {  # type: ignore[literal-required]
        "": (None, None, 6, 18, 0.25),
        outer: ("", "outer", 6, 18, 0.25),
        inner: (outer, "inner", 2, 6, 0.25),
    }  # fmt: skip
    assert [sections[id]["duration_ms"] for id in (outer, inner)] == [14_000, 3_000]
    assert {turn["thread"] for turn in turns} == {outer, inner}


def test_each_step_leads_to_a_turn(recorded: Recorded) -> None:
    agent = recorded.add("agent", {"name": "a"}, seconds=0, lasts=30)
    asking = recorded.add(
        "llm", {"model": "m", "messages": [user("Pay")]}, {"tool_calls": [CALL]}, parent=agent, seconds=1
    )
    paying = {"name": "pay", "arguments": {"to": "bob", "sum": 1}, "call_id": "c1"}
    tool = recorded.add("tool", paying, {"output": "paid"}, parent=agent, seconds=2)
    chain = recorded.add("chain", {"name": "c"}, parent=agent, seconds=3)
    last = recorded.add("llm", {"model": "m", "messages": [user("And?")]}, {"text": "Done."}, parent=agent, seconds=4)
    late = recorded.add("chain", {"name": "d"}, parent=agent, seconds=5)
    found = recorded.conversation()
    assert [(turn["span"], turn["text"]) for turn in found.turns] == [
        (asking, "Pay"), (tool, "paid"), (last, "And?"), (last, "Done."),
    ]  # fmt: skip
    spans = {span.id: span for span in recorded.db.storage.ask(SpansOf(recorded.run))}
    assert [found.place_of(spans[id]) for id in (agent, asking, tool, chain, last, late)] == [0, 0, 1, 2, 3, 3]
    assert Conversation([], {}).place_of(spans[agent]) is None
