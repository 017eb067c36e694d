"""Where two runs part: equal runs are equal, each edit is found at its place, and the alignment turns A into B."""

import json
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentspan.analysis import diff_text
from agentspan.analysis.baseline import Against, Alignment, align, collapse
from agentspan.analysis.diff import Divergence, StepChange, diff, diff_spans
from agentspan.analysis.step_keys import StepKeys
from agentspan.analysis.tree import build
from agentspan.database import Database
from agentspan.errors import InvalidValue, NotFound
from agentspan.model.rows import AgentSpanRow

CALL_NUMBERS = count()
"""Ids of calls differ in each run."""
LATER = 1_000_000
"""Microseconds between the starts of two steps; a step takes half of it."""


@dataclass(frozen=True)
class Made:
    """A step of a run that a test makes."""

    type: str = "tool"
    label: str | None = "search"
    payload: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    status: str = "complete"
    children: tuple["Made", ...] = ()


def tool(name: str, status: str = "complete", result: Any = "found", **arguments: Any) -> Made:
    return Made("tool", name, {"name": name, "arguments": arguments}, {"output": result}, status)


def llm(said: str = "", *calls: str, prompt: str = "go", model: str = "m") -> Made:
    made = [{"id": f"call_{next(CALL_NUMBERS)}", "function": {"name": name, "arguments": "{}"}} for name in calls]
    payload = {"model": model, "messages": [{"role": "user", "content": prompt}]}
    return Made("llm", model, payload, {"text": said, "tool_calls": made})


def user(text: str) -> Made:
    return Made("message", None, {"role": "user", "content": text})


def chain(name: str, *children: Made, output: Any = "x") -> Made:
    return Made("chain", name, {"name": name}, {"output": output}, children=children)


def rows(steps: Iterable[Made], *, run: str, at: int = 0, together: bool = False) -> list[AgentSpanRow]:
    """The spans of a run, with times from `at` on; `together`: all of one level at the same time."""
    return [*_rows(steps, run, [at], "", together)]


def _time(micros: int) -> str:
    minutes, rest = divmod(micros, 60 * 1_000_000)
    hours, minutes = divmod(minutes, 60)
    return f"2026-11-24T{hours:03d}:{minutes:02d}:{rest // 1_000_000:02d}.{rest % 1_000_000:06d}Z"


def _rows(steps: Iterable[Made], run: str, clock: list[int], parent: str, together: bool) -> Iterator[AgentSpanRow]:
    for number, step in enumerate(steps):
        clock[0] += 1 if together else LATER
        id = f"{run}{parent[len(run) :]}.{number:06d}"
        nothing = dict.fromkeys(AgentSpanRow._fields)
        said = {
            "id": id,
            "agent_instance_id": run,
            "parent_span_id": parent or None,
            "schema_name": step.type,
            "schema_title": step.type.title(),
            "label": step.label,
            "status": step.status,
            "payload": json.dumps(step.payload),
            "result_payload": json.dumps(step.result),
            "started_at": _time(clock[0]),
            "finished_at": _time(clock[0] + LATER // 2),
            "inserted_at": _time(clock[0]),
            "is_aggregate": 0,
        }
        yield AgentSpanRow(**{**nothing, **said})  # type: ignore[arg-type]
        yield from _rows(step.children, run, clock, id, together)


def compared(a: Iterable[Made], b: Iterable[Made]) -> tuple[tuple[StepChange, ...], Divergence | None]:
    steps, first, _ = diff_spans(rows(a, run="a"), rows(b, run="b", at=77))
    return steps, first


def parted(a: Iterable[Made], b: Iterable[Made]) -> Divergence:
    found = compared(a, b)[1]
    assert found is not None
    return found


def kinds(steps: Iterable[StepChange]) -> list[tuple[str, int]]:
    return [(step.kind, step.count) for step in steps]


def test_texts_are_shown_from_shortly_before_the_place_where_they_differ() -> None:
    a, b = 'LLM gpt "I need your reservation, please: A1"', 'LLM gpt "I need your reservation, please: B2 or B3"'
    assert diff_text.apart(a, b, 30) == ('LLM gpt "…please: A1"', 'LLM gpt "…please: B2 or B3"')
    assert diff_text.apart(a, b, 80) == (a, b)
    assert diff_text.apart(a, a, 10) == (a, a)
    assert diff_text.apart("x" * 90 + "a", "x" * 90, 30) == ("…" + "x" * 10 + "a", "…" + "x" * 10)
    assert diff_text.apart("an other beginning" * 9, "a text", 30) == ("an other beginning" * 9, "a text")


def test_a_run_is_the_same_as_itself_and_as_its_repetition_at_other_times() -> None:
    run = [user("hi"), llm("", "f"), tool("f"), chain("c", tool("g"), chain("d", tool("h"))), llm("bye")]
    steps, first = compared(run, run)
    assert (kinds(steps), first) == ([("same", 8)], None)


def test_same_steps_are_folded_around_a_change() -> None:
    same = [tool("f", n=n) for n in range(14)]
    steps, first = compared([*same, tool("g", city="Rome"), tool("h")], [*same, tool("g", city="Oslo"), tool("h")])
    assert kinds(steps) == [("same", 14), ("arguments", 1), ("same", 1)]
    assert first is not None
    assert (first.kind, first.same, first.place) == ("arguments", 14, 1)
    assert [(change.path, change.a, change.b) for change in first.fields] == [
        ("payload.arguments.city", "Rome", "Oslo")
    ]


def test_both_runs_next_steps_are_named_where_one_has_another_step() -> None:
    found = parted([tool("f"), tool("g"), tool("h")], [tool("f"), tool("x"), tool("g"), tool("h")])
    assert found.a is not None
    assert found.b is not None
    assert (found.kind, found.a.label, found.b.label, found.a.number) == ("added", "g", "x", 2)
    found = parted([tool("f"), tool("g")], [tool("f")])
    assert (found.kind, found.a and found.a.label, found.b) == ("removed", "g", None)


def test_results_and_failures_are_differences() -> None:
    assert parted([tool("f", result="1")], [tool("f", result="2")]).kind == "result"
    assert parted([tool("f")], [tool("f", "failed", None)]).kind == "status"


def test_other_words_count_only_if_nothing_else_differs() -> None:
    a = [user("hello"), llm("I look", "f"), tool("f"), tool("g", n=1)]
    b = [user("hi there"), llm("Let me see", "f"), tool("f"), tool("g", n=2)]
    found = parted(a, b)
    assert (found.kind, found.same, found.other_words) == ("arguments", 3, 2)
    found = parted(a[:3], b[:3])
    assert (found.kind, found.same) == ("words", 0)


def test_a_prompt_counts_unless_it_repeats_what_differs_already() -> None:
    assert parted([llm(prompt="a"), tool("f", n=1)], [llm(prompt="b"), tool("f", n=2)]).kind == "arguments"
    found = parted([user("a"), llm(prompt="a"), tool("f", n=1)], [user("b"), llm(prompt="b"), tool("f", n=2)])
    assert found.same == 2


def test_an_instruction_of_the_program_counts() -> None:
    def run(instruction: str, said: str) -> list[Made]:
        made = llm(prompt=said)
        messages = [{"role": "system", "content": instruction}, *made.payload["messages"]]
        return [user(said), replace(made, payload={"model": "m", "messages": messages})]

    assert parted(run("Be kind.", "a"), run("Be brief.", "b")).kind == "arguments"


def test_a_model_that_calls_another_tool_parts_the_runs() -> None:
    found = parted([user("a"), llm("", "f"), tool("f")], [user("b"), llm("Which one?"), user("c")])
    assert found.a is not None
    assert found.b is not None
    assert (found.same, found.a.type, found.b.type) == (1, "llm", "llm")


def test_ids_of_calls_stack_traces_and_addresses_are_no_difference() -> None:
    def run(id: str) -> list[Made]:
        error = {"error": {"type": "E", "message": f"<X object at 0x7f{id}>", "stacktrace": f"line {id}"}}
        return [
            Made("tool", "f", {"name": "f", "call_id": f"call_{id}"}, error, "failed"),
            Made("llm", "m", {"model": "m"}, {"tool_calls": [{"id": f"call_{id}", "name": "f", "arguments": {}}]}),
        ]

    assert compared(run("12"), run("34"))[1] is None
    assert parted([tool("f", run_id="12")], [tool("f", run_id="34")]).kind == "arguments"  # chosen by the agent


def test_attempts_are_one_step() -> None:
    failed, ended = tool("f", "failed", None, n=1), tool("f", n=1)
    steps, first = compared([tool("a"), failed, ended, tool("b")], [tool("a"), *[failed] * 3, ended, tool("b")])
    assert kinds(steps) == [("same", 1), ("retries", 1), ("same", 1)]
    assert first is not None
    assert first.a is not None
    assert first.b is not None
    assert (first.a.attempts, first.b.attempts) == (2, 4)
    assert kinds(compared([ended, ended], [ended])[0]) == [("same", 1), ("removed", 1)]


def test_steps_that_ran_together_are_in_no_order() -> None:
    steps = [tool("f", n=n) for n in range(6)]
    a = rows(steps, run="a", together=True)
    for number in range(20):
        shuffled = random.Random(number).sample(steps, 6)
        assert diff_spans(a, rows(shuffled, run="b", together=True))[1] is None
        assert diff_spans(a, rows(shuffled, run="b"))[1] is None  # the other run had no time to overlap
    two = rows([*steps[:5], steps[0]], run="b", together=True)
    assert diff_spans(a, two)[1] is not None  # a multiset: one is there twice


def test_a_step_at_another_place_is_moved() -> None:
    run = [tool("f", n=n) for n in range(9)]
    steps, first = compared(run, [*run[:2], *run[3:7], run[2], *run[7:]])
    assert kinds(steps) == [("same", 2), ("moved", 1), ("same", 6)]
    assert first is not None
    assert first.a is not None
    assert (first.same, first.a.number) == (2, 3)


def test_the_cause_is_named_not_the_step_around_it() -> None:
    a = [chain("outer", tool("f"), tool("g", n=1), output="one")]
    b = [chain("outer", tool("f"), tool("g", n=2), output="two")]
    steps, first = compared(a, b)
    assert [(step.kind, step.depth, step.follows) for step in steps] == [
        ("result", 0, True),
        ("same", 1, False),
        ("arguments", 1, False),
    ]
    assert first is not None
    assert (first.kind, first.depth) == ("arguments", 1)


def test_a_step_that_only_one_run_has_counts_with_all_in_it() -> None:
    steps, _ = compared([tool("f")], [tool("f"), chain("c", tool("g"), tool("h"))])
    assert kinds(steps) == [("same", 1), ("added", 3)]


def test_a_deep_chain_is_compared() -> None:
    def deep(end: Made) -> list[Made]:
        for number in range(300):
            end = chain(f"c{number}", end)
        return [end]

    assert parted(deep(tool("f", n=1)), deep(tool("f", n=2))).depth == 300


letters = st.lists(
    st.builds(tool, st.sampled_from("fgh"), st.sampled_from(["complete", "failed"]), n=st.integers(0, 2)), max_size=12
)


def steps_of(made: list[Made], run: str) -> list[Any]:
    keys = StepKeys()
    return [keys.step(node) for node in build(rows(made, run=run))]


def applied(found: Alignment) -> list[Any]:
    """B, made of A: steps of A that stay or move, their changes, and the steps that B adds."""
    made = {}
    for pair in found.pairs:
        if pair.b is not None:
            kept = found.a[pair.a] if pair.a is not None else found.b[pair.b]
            change = found.b[pair.b].key.exact
            assert kept.key.sort == found.b[pair.b].key.sort  # a change is one of arguments, not of type and label
            made[pair.b] = kept._replace(key=kept.key._replace(exact=change)) if kept.key.exact != change else kept
    return [made[place] for place in sorted(made)]


@given(letters, letters)
def test_applying_the_alignment_to_a_gives_b(a: list[Made], b: list[Made]) -> None:
    found = align(steps_of(a, "a"), steps_of(b, "b"))
    wanted = collapse(steps_of(b, "b"))
    assert [step.key.exact for step in applied(found)] == [step.key.exact for step in wanted]
    assert sorted(pair.a for pair in found.pairs if pair.a is not None) == [*range(len(collapse(steps_of(a, "a"))))]
    in_order = [
        (pair.a, pair.b) for pair in found.pairs if pair.a is not None and pair.b is not None and not pair.moved
    ]
    assert all(a < next_a and b < next_b for (a, b), (next_a, next_b) in pairwise(in_order))
    assert all(found.a[pair.a].key.exact == found.b[pair.b].key.exact for pair in found.pairs
               if pair.moved and pair.a is not None and pair.b is not None)  # fmt: skip


@given(letters, letters)
def test_two_runs_are_the_same_exactly_if_their_steps_are(a: list[Made], b: list[Made]) -> None:
    def shown(made: list[Made]) -> list[Any]:
        return [(s.key.exact, s.result, s.attempts, s.span.status) for s in collapse(steps_of(made, "x"))]

    assert (compared(a, b)[1] is None) == (shown(a) == shown(b))


TURNS = st.builds(
    lambda said, calls, n: [user(f"{said} {n}"), llm(said, *calls, prompt=f"{said} {n}"), *(tool(c) for c in calls)],
    st.sampled_from(("yes", "no", "which one?")),
    st.sampled_from(((), ("f",), ("g",))),
    st.integers(0, 3),
)
TALKS = st.lists(TURNS, max_size=4).map(lambda turns: [step for turn in turns for step in turn])


def numbers_of(steps: Iterable[StepChange], side: str) -> list[int]:
    """The numbers of the steps of one run, each time that it stands in a difference."""
    found: list[int] = []
    for step in steps:
        at = step.a if side == "a" else step.b
        if at is not None:
            found += range(at.number, at.number + step.count)
    return sorted(found)


@given(TALKS, TALKS, TALKS)
def test_a_fork_of_a_model_is_one_change_whichever_run_comes_first(
    before: list[Made], a: list[Made], b: list[Made]
) -> None:
    """One run's model answers, the other's calls a tool. Neither step stands in another pair, too."""
    run_a = [user("hello"), *before, llm("I need the reservation's id", prompt="alone"), *a]
    run_b = [user("hi"), *before, llm("", "look_up", prompt="also alone"), tool("look_up"), *b]
    for one, other in ((run_a, run_b), (run_b, run_a)):
        steps, first = compared(one, other)
        assert first is not None
        assert first.a is not None
        assert first.b is not None
        assert (first.kind, diff_text.parting(first), first.same) == ("result", "another answer", len(before) + 1)
        assert numbers_of(steps, "a") == [*range(1, len(one) + 1)]
        assert numbers_of(steps, "b") == [*range(1, len(other) + 1)]
        assert "words" not in {step.kind for step in steps[first.place :] if step.a and step.a.type == "message"}


@given(TALKS, TALKS)
def test_each_step_stands_in_a_difference_once(a: list[Made], b: list[Made]) -> None:
    steps, _ = compared(a, b)
    assert numbers_of(steps, "a") == [*range(1, len(a) + 1)]
    assert numbers_of(steps, "b") == [*range(1, len(b) + 1)]


def test_what_was_said_after_the_runs_parted_is_another_answer() -> None:
    a = [user("book"), llm("", "f"), tool("f"), llm("It is booked."), user("Great.")]
    b = [user("book"), llm("", "g"), tool("g"), llm("It cannot be booked."), user("A pity.")]
    assert [step.kind for step in compared(a, b)[0]][-2:] == ["answer", "answer"]
    assert [step.kind for step in compared(a[-2:], b[-2:])[0]] == ["words", "words"]


Edit = Callable[[list[Made], int, random.Random], tuple[list[Made], int]]


def inserted(run: list[Made], at: int, dice: random.Random) -> tuple[list[Made], int]:
    return [*run[:at], tool("extra", n=dice.random()), *run[at:]], at


def deleted(run: list[Made], at: int, dice: random.Random) -> tuple[list[Made], int]:
    end = at
    while end + 1 < len(run) and run[end + 1] == run[at]:
        end += 1  # of equal steps in a row nothing tells which one is gone: the last one
    return [*run[:at], *run[at + 1 :]], end


def changed(run: list[Made], at: int, dice: random.Random) -> tuple[list[Made], int]:
    payload = {**run[at].payload, "extra": dice.random()}
    return [*run[:at], replace(run[at], payload=payload), *run[at + 1 :]], at


def moved(run: list[Made], at: int, dice: random.Random) -> tuple[list[Made], int]:
    rest = [*run[:at], *run[at + 1 :]]
    to = dice.randrange(len(rest) + 1)
    edited = [*rest[:to], run[at], *rest[to:]]
    return edited, next((n for n, (x, y) in enumerate(zip(run, edited, strict=True)) if x != y), -1)


def retried(run: list[Made], at: int, dice: random.Random) -> tuple[list[Made], int]:
    failed = replace(run[at], status="failed", result={"error": {"type": "Timeout", "message": "too late"}})
    return [*run[:at], *[failed] * dice.randrange(1, 4), *run[at:]], at


def some_run(dice: random.Random) -> list[Made]:
    """A run of 20 to 60 steps, some of which repeat."""
    made: list[Made] = []
    for number in range(dice.randrange(10, 30)):
        name = dice.choice(["search", "fetch", "read"])
        made += [llm(f"turn {number}", name, prompt=f"prompt {number}"), tool(name, n=dice.randrange(6))]
    return made


def test_the_first_divergence_is_at_the_edit() -> None:
    dice = random.Random(1)
    edits: list[Edit] = [inserted, deleted, changed, moved, retried]
    right, wrong = 0, []
    for number in range(500):
        run = some_run(dice)
        edited, at = edits[number % 5](run, dice.randrange(len(run)), dice)
        first = compared(run, edited)[1]
        if (first is None and at == -1) or (first is not None and first.same == at):
            right += 1
        else:
            wrong.append((edits[number % 5].__name__, at, first and first.same))
    assert right >= 475, wrong


@pytest.mark.full
def test_ten_thousand_steps_with_a_thousand_edits_are_aligned_as_a_whole() -> None:
    dice = random.Random(3)
    run = [tool(dice.choice("fgh"), n=dice.randrange(500)) for _ in range(10_000)]
    edited = list(run)
    for number in range(1000):
        place = dice.randrange(len(edited) - 1)
        edited[place : place + 1] = [[], [tool("x", n=number)], [edited[place], tool("y", n=number)]][number % 3]
    steps, first, is_shortest = diff_spans(rows(run, run="a"), rows(edited, run="b"))
    assert is_shortest
    assert first is not None
    assert sum(step.count for step in steps if step.kind == "same") > 9200
    assert sum(step.kind != "same" for step in steps) <= 1400  # a replaced step is two


def recorded(db: Database, *cities: str, **run: Any) -> str:
    """A run with a tool for each city, in a chain."""
    agent = db.agent_instances.register("guide", agent_version={"external_identifier": "1"}, metadata=run or None)
    db.agent_instances.start(agent.id)
    outer = db.agent_spans.create(agent.id, "chain", "active", {"name": "tour"})
    for city in cities:
        used = {"name": "weather", "arguments": {"city": city}}
        db.agent_spans.create(agent.id, "tool", "complete", used, {"output": city}, parent_span_id=outer.id)
    db.agent_spans.finish(outer.id, "complete", {"output": len(cities)})
    db.agent_instances.finish(agent.id, "complete")
    return agent.id


def test_stored_runs_are_compared(db: Database) -> None:
    a, b = recorded(db, "Rome", "Oslo", task=1), recorded(db, "Rome", "Bonn", task=2)
    assert diff(db.storage, a, a).is_empty
    found = diff(db.storage, a, b)
    assert not found.is_empty
    assert (found.a.run_id, found.b.run_id, found.a.agent, found.a.spans) == (a, b, "guide", 3)
    assert [(change.path, change.a, change.b) for change in found.fields] == [("metadata.task", "1", "2")]
    assert found.first_divergence is not None
    assert [change.path for change in found.first_divergence.fields] == ["payload.arguments.city", "result.output"]
    assert kinds(found.steps) == [("same", 2), ("arguments", 1)]


def test_reading_compares_runs_by_the_beginning_of_their_ids(db: Database) -> None:
    a, b = recorded(db, "Rome"), recorded(db, "Rome")
    assert db.diff(a, "-").b.run_id == b
    assert db.diff(a, b).is_empty
    with pytest.raises(NotFound):
        db.diff(a, "nothing")
    with pytest.raises(NotFound):
        diff(db.storage, a, "nothing")


def test_a_baseline_tells_noise_from_what_is_seldom(db: Database) -> None:
    a, b = recorded(db, "Rome", "Oslo"), recorded(db, "Rome", "Bonn")
    for _ in range(3):
        recorded(db, "Rome", "Bonn", "Kyiv")
    recorded(db, "Rome")  # ends here
    recorded(db, "Lima", "Oslo")  # does not come here
    late = db.agent_instances.register("guide", agent_version={"external_identifier": "1"})
    other = db.agent_instances.register("other", agent_version={"external_identifier": "1"})
    counted = diff(db.storage, a, b, baseline="status=complete").against
    assert counted == Against(
        "status=complete", runs=5, reached=4, a=0, b=3, a_does="call", b_does="call", calls_before=1
    )
    counted = diff(db.storage, a, b, baseline="all").against
    assert counted is not None
    assert counted.runs == 6, late
    counted = diff(db.storage, a, b, baseline="agent=other").against
    assert counted is not None
    assert (counted.runs, counted.reached, counted.a, counted.b) == (1, 0, 0, 0), other
    assert diff(db.storage, a, a, baseline="all").against is None


def test_a_baseline_counts_results_and_ends(db: Database) -> None:
    short, long = recorded(db, "Rome"), recorded(db, "Rome", "Oslo")
    recorded(db, "Rome")
    recorded(db, "Rome", "Oslo")
    recorded(db, "Rome", "Oslo")
    found = db.diff(short, long, against="all").against
    assert found == Against("all", runs=3, reached=3, a=1, b=2, a_does="end", b_does="call", calls_before=1)


@pytest.mark.parametrize("text", ["", "status=odd", "failed=1", "agent=", "since=never", "n=1", '"'])
def test_a_wrong_baseline_is_an_error(db: Database, text: str) -> None:
    run = recorded(db, "Rome")
    with pytest.raises(InvalidValue):
        diff(db.storage, run, run, baseline=text)
