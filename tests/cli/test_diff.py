"""`agentspan diff`: where two runs part, as text of 80 columns, as JSON and as Markdown."""

import json
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import agentspan
from tests.cli.calling import call, lines


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Two runs that part at their third step."""
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    book(tracer, "hi", "economy", "Your seat in economy is booked at 120 dollars.", "complete")
    book(tracer, "hello there", "business", "Your seat in business is booked at 900 dollars.", "failed")
    tracer.shutdown()
    return path


def book(tracer: agentspan.Tracer, greeting: str, cabin: str, said: str, end: str) -> None:
    with tracer.run("booking", version="2"):
        with tracer.span("message", {"role": "user", "content": greeting}):
            pass
        with tracer.span("llm", {"model": "m", "messages": [{"role": "user", "content": greeting}]}) as span:
            span.set_result({"tool_calls": [{"function": {"name": "search", "arguments": "{}"}}], "input_tokens": 10})
        with tracer.span("tool", {"name": "book", "arguments": {"cabin": cabin, "seats": 1}}) as span:
            span.set_result({"output": said})
        if end == "failed":
            with tracer.span("tool", {"name": "pay"}):
                pass


def ids(db: Path) -> list[str]:
    with agentspan.open(db) as reading:
        return [run.run.id for run in reading.runs().runs][::-1]


def test_the_first_divergence_is_open_and_what_is_the_same_is_folded(db: Path) -> None:
    a, b = ids(db)
    shown = lines(db, "diff", a, b)
    assert shown[0] == f"A {a}  booking 2"
    assert shown[1].startswith("  ✓ passed · 3 spans")
    assert shown[4].startswith("B − A: +1 span · ±0 tok")
    start = shown.index("  2 steps that differ only in words")
    assert shown[start + 1 :] == [
        "≠ here they part: other arguments",
        "A 3 ✓ Tool book(cabin=economy, seats=1) → Your seat in economy is booked at 120…",
        "B 3 ✓ Tool book(cabin=business, seats=1) → Your seat in business is booked at 9…",
        "    payload.arguments.cabin  [-economy-] {+business+}",
        "    result.output",
        "      Your seat in [-economy-]{+business+} is booked at [-120-]{+900+} dollars.",
        "",
        "+ only B 4: Tool pay()",
    ]
    assert all(len(line) <= 80 for line in shown)


def test_three_runs_are_side_by_side(db: Path) -> None:
    a, b = ids(db)
    head, *rows = lines(db, "diff", a, b, b[:20], columns=120)
    assert head.split() == [a[: len(head.split()[0])], b[: len(head.split()[1])]]
    shown = {row.split()[0]: row for row in rows}
    assert shown["verdict"].split() == ["verdict", "✓", "passed", "✓", "passed"]
    assert shown["steps"].split() == ["steps", "3", "4"]
    assert shown["parts"].endswith("at step 3: other arguments")
    found = json.loads(call(db, "diff", a, a, b, "--json").output)["runs"]
    assert [(each["run_id"], each["is_same"]) for each in found] == [(a, None), (b, False)]
    assert found[1]["divergence"]["kind"] == "arguments"
    for more in (("--markdown",), ("--against", "all"), ("--context",)):
        assert "only --full and --json" in call(db, "diff", a, b, a, *more).output


def test_a_run_is_the_same_as_itself(db: Path) -> None:
    assert lines(db, "diff", "-", "-")[-1] == "the same steps in both: 4"
    found = json.loads(call(db, "diff", "-", "-", "--json").output)
    assert (found["first_divergence"], [step["kind"] for step in found["steps"]]) == (None, ["same"])


def test_the_document_has_the_same_figures(db: Path) -> None:
    a, b = ids(db)
    found: dict[str, Any] = json.loads(call(db, "diff", a, b, "--json").output)
    first = found["first_divergence"]
    assert (first["kind"], first["place"], first["same"], first["other_words"]) == ("arguments", 2, 2, 2)
    assert (first["a"]["number"], first["b"]["title"][:19]) == (3, "Tool book(cabin=bus")
    assert first["fields"][0]["words"] == [{"op": "removed", "text": "economy"}, {"op": "added", "text": "business"}]
    assert [step["kind"] for step in found["steps"]] == ["words", "words", "arguments", "added"]
    assert (found["a"]["run_id"], found["b"]["spans"], found["is_shortest"]) == (a, 4, True)


def test_markdown_for_a_pull_request(db: Path) -> None:
    a, b = ids(db)
    shown = lines(db, "diff", a, b, "--markdown")
    assert shown[0] == "# booking 2 → booking 2"
    assert "2 steps that differ only in words, then: **other arguments**" in shown
    at = shown.index("payload.arguments.cabin:")
    assert shown[at : at + 6] == ["payload.arguments.cabin:", "", "```diff", "- economy", "+ business", "```"]
    assert shown[-1] == "- only B 4: Tool pay()"


def test_a_long_text_is_shortened_around_its_changes(tmp_path: Path) -> None:
    path = tmp_path / "long.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for word in ("first", "second"):
        with tracer.run("a"), tracer.span("tool", {"name": "f", "text": f"{'one and ' * 99}{word}{' or two' * 99}"}):
            pass
    tracer.shutdown()
    shown = lines(path, "diff", *ids(path))
    assert [line for line in shown if "and [-first-]" in line]
    assert len(shown) < 16
    for columns in (40, 60, 80):
        for more in ((), ("--full",)):
            assert all(len(line) <= columns for line in lines(path, "diff", *ids(path), *more, columns=columns))


def test_a_run_that_is_not_there(db: Path) -> None:
    result = call(db, "diff", "-", "nothing")
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: no run's id begins with 'nothing'; the latest: \S+, \S+\n", result.output)


def test_a_baseline_is_counted(db: Path) -> None:
    a, b = ids(db)
    tracer = agentspan.Tracer(db, raise_errors=True)
    for _ in range(2):
        book(tracer, "good day", "economy", "Your seat in economy is booked at 90 dollars.", "complete")
    tracer.shutdown()
    said = (
        "2 of 2 other runs (all) did the same 2 steps before (same calls, words not compared); "
        "next, 2 made A's call, 0 made B's call."
    )
    assert said in " ".join(line.strip() for line in lines(db, "diff", a, b, "--against", "all"))
    assert any("2 of 2 other runs" in line for line in lines(db, "diff", a, b, "--against", "all", "--markdown"))
    found = json.loads(call(db, "diff", a, b, "--against", "all", "--json").output)
    assert found["against"] == {"filter": "all", "runs": 2, "reached": 2, "a": 2, "b": 0, "a_tool": 0, "b_tool": 0} | {
        "by": "step", "a_does": "call", "b_does": "call", "a_failed": 0, "b_failed": 0, "calls_before": 1,
    }  # fmt: skip
    assert call(db, "diff", a, b, "--against", "nothing").exit_code == 2


def test_runs_that_call_the_same_tool_with_other_arguments_are_counted(tmp_path: Path) -> None:
    """Whether a tool's step parts the runs, or a model's step that calls it."""
    for is_model in (False, True):
        path = tmp_path / f"runs-{is_model}.db"
        tracer = agentspan.Tracer(path, raise_errors=True)
        for name, city in (("find", 1), ("book", 1), *(("find", number) for number in (2, 3)), ("book", 2), ("pay", 1)):
            made = {"name": name, "arguments": {"city": city}}
            type_, payload = ("llm", {"model": "m"}) if is_model else ("tool", made)
            with tracer.run("guide"), tracer.span(type_, payload) as span:
                span.set_result({"tool_calls": [made]} if is_model else {"output": "x"})
        tracer.shutdown()
        a, b, *_ = ids(path)
        said = " ".join(line.strip() for line in lines(path, "diff", a, b, "--against", "all"))
        assert (
            "next, 0 made A's call and 2 called its tool with other arguments, "
            "0 made B's call and 1 called its tool with other arguments, 1 did something else."
        ) in said


def test_a_baseline_says_what_it_compared_and_how_many_of_the_same_calls_failed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number, does in enumerate(("look", "answer", "answer", "answer", "look", "look", "look")):
        with tracer.run("guide"):
            with tracer.span("message", {"role": "user", "content": f"hello {number}"}):
                pass
            if does == "answer":
                with tracer.span("llm", {"model": "m"}) as span:
                    span.set_result({"text": f"answer {number}"})
            else:
                with suppress(ValueError), tracer.span("tool", {"name": "look"}):
                    if number > 4:
                        raise ValueError("nothing")
    tracer.shutdown()
    a, b, *_ = ids(path)
    said = " ".join(line.strip() for line in lines(path, "diff", a, b, "--against", "all"))
    before = "5 of 5 other runs (all) did the same step before (none calls a tool, words not compared); "
    assert f"{before}next, 3 made A's call (2 failed), 2 answered without a call, like B (words not compared)." in said
    turned = " ".join(line.strip() for line in lines(path, "diff", b, a, "--against", "all"))
    assert "next, 2 answered without a call, like A (words not compared), 3 made B's call (2 failed)." in turned


def test_what_the_user_said_just_before_is_to_be_read_first(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for said, role, tool in (("yes", "user", "pay"), ("no", "user", "stop"), ("no", "system", "wait")):
        with tracer.run("shop"):
            with tracer.span("message", {"role": role, "content": said}):
                pass
            with tracer.span("tool", {"name": tool}):
                pass
    tracer.shutdown()
    a, b, other = ids(path)
    assert "  step 1, what the user said, differs: read it first" in lines(path, "diff", a, b)
    assert "step 1, what the user said, differs: read it first" in lines(path, "diff", a, b, "--markdown")
    assert "read it first" not in " ".join(lines(path, "diff", b, other))


def test_steps_that_differ_only_in_figures_are_not_other_words(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number, tool in enumerate(("look", "pay", "look", "look")):
        with tracer.run("shop"):
            with tracer.span("llm", {"model": "m"}) as span:
                span.set_result({"text": "ok" if number < 3 else "well", "input_tokens": 700 + number})
            with tracer.span("tool", {"name": tool}):
                pass
    tracer.shutdown()
    a, b, figures, words = ids(path)
    assert "  1 step that differs only in figures such as tokens" in lines(path, "diff", a, b)
    assert "≠ here they part: only figures such as tokens differ, these first" in lines(path, "diff", a, figures)
    assert "≠ here they part: only words differ, these first" in lines(path, "diff", a, words)
    first = json.loads(call(path, "diff", a, b, "--json").output)["first_divergence"]
    assert (first["same"], first["other_words"], first["other_figures"], first["user_said"]) == (1, 0, 1, None)


def test_a_change_of_another_title_says_that_it_shows_the_step_of_b(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for city, answer in (("Rome", "sunny"), ("Oslo", "rainy")):
        with tracer.run("guide"):
            with tracer.span("tool", {"name": "weather", "arguments": {"city": city}}):
                pass
            with tracer.span("llm", {"model": "m"}) as span:
                span.set_result({"text": answer})
    tracer.shutdown()
    shown = lines(path, "diff", *ids(path))
    assert '≠ 2 another answer, B: LLM m "rainy"' in shown


def test_a_baseline_of_the_same_task_is_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for cabin, task in (("economy", "a 1"), ("business", "a 1"), ("first", "b")):
        with tracer.run("booking", task=task), tracer.span("tool", {"name": "book", "arguments": {"cabin": cabin}}):
            pass
    tracer.shutdown()
    a, b, other = ids(path)
    hints = [line for line in lines(path, "diff", a, b, "--against", "all") if "of this task alone: " in line]
    (option,) = [shlex.split(line.partition(": ")[2]) for line in hints]
    again = lines(path, "diff", a, b, *option)
    assert any("No other run matches task='a 1'." in line for line in again)
    assert not any("of this task" in line for line in again)
    assert not any("of this task" in line for line in lines(path, "diff", a, other, "--against", "all"))


def test_two_runs_that_differ_in_words_alone(tmp_path: Path) -> None:
    path = tmp_path / "words.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for said in ("hi", "hello there"):
        with tracer.run("a"), tracer.span("message", {"role": "user", "content": said}):
            pass
    tracer.shutdown()
    shown = lines(path, "diff", *ids(path))
    assert "≠ here they part: only words differ, these first" in shown
    assert "    payload.content  [-hi-] {+hello there+}" in shown


def test_where_only_some_members_are_compared_it_says_so(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    for more in (0, 30):
        with tracer.run("a"), tracer.span("tool", {"name": "list"}) as span:
            span.set_result({"names": [f"n{number}" for number in range(1 + more)]})
    tracer.shutdown()
    shown = lines(tmp_path / "runs.db", "diff", *ids(tmp_path / "runs.db"), "--full")
    assert "    20 members are compared at most; there may be more" in shown
