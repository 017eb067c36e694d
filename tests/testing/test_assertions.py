"""Assertions on a run: what they let pass, and what they say when they do not."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any
from unittest.mock import ANY

import pytest

import agentspan
from agentspan.testing import CapturedRun, CapturedRuns
from tests.testing.conftest import search

TEXT = """\
✓ researcher 1.2
├─✓ chain · plan → 2 parts
├─✓ agent · Agent scout
│ ├─✓ tool · Tool search(query=flights, limit=3) → ["a page about flights"]
│ └─✗ tool · Tool search(query=broken, limit=1) → TimeoutError
├─✓ llm · LLM gpt-4.1: 40→2 tok "On a Tuesday."
└─○ refund"""


@pytest.fixture
def run(captured_runs: CapturedRuns, agent: Callable[[], Any]) -> CapturedRun:
    """The run of an agent."""
    agent()
    return captured_runs.one()


def message(assertion: Callable[..., None], *args: Any, **kwargs: Any) -> str:
    """What an assertion says, above the run."""
    with pytest.raises(AssertionError) as caught:
        assertion(*args, **kwargs)
    said, _, text = str(caught.value).partition("\n\n")
    assert text == TEXT
    return said


def test_called(run: CapturedRun) -> None:
    run.assert_called("search")
    run.assert_called("search", times=2)
    run.assert_called("search", query="flights")
    run.assert_called("search", 1, query="flights", limit=3)
    run.assert_called("tool", times=2)
    run.assert_called("llm", model="gpt-4.1")
    run.assert_called("hotel", times=0)


def test_what_was_not_called_is_said_with_the_calls_that_were(run: CapturedRun) -> None:
    assert message(run.assert_called, "hotel") == "hotel was never called"
    assert message(run.assert_called, "hotel", stars=5) == "hotel(stars=5) was never called"
    assert message(run.assert_called, "search", times=1) == "expected 1 call of search, found 2"
    assert message(run.assert_called, "search", times=3) == "expected 3 calls of search, found 2"
    assert message(run.assert_called, "search", query="trains") == (
        "search(query='trains') was never called; all calls of search:\n"
        "  search(query='flights', limit=3)\n"
        "  search(query='broken', limit=1)"
    )
    assert message(run.assert_called, "search", times=2, limit=1).startswith(
        "expected 2 calls of search(limit=1), found 1; all calls of search:\n"
    )


def test_a_call_with_an_argument_that_it_did_not_get_is_another_one(run: CapturedRun) -> None:
    assert message(run.assert_called, "search", page=None).startswith("search(page=None) was never called")


def test_what_never_started_was_never_called(run: CapturedRun) -> None:
    run.assert_never_called("refund")
    assert message(run.assert_called, "refund") == "refund was never called"


def test_never_called(run: CapturedRun) -> None:
    run.assert_never_called("hotel")
    run.assert_never_called("search", query="trains")
    assert message(run.assert_never_called, "search") == "search was called"
    assert message(run.assert_never_called, "search", limit=1).startswith(
        "search(limit=1) was called; all calls of search:\n  search(query='flights', limit=3)\n"
    )


@dataclass
class Query:
    words: tuple[str, ...]
    day: date


@agentspan.span
def ask(query: Query, tries: float, name: str = "") -> None:
    pass


def test_arguments_are_compared_as_they_are_and_as_they_are_recorded(captured_runs: CapturedRuns) -> None:
    with agentspan.run("a"):
        ask(Query(("a", "b"), date(2026, 1, 2)), 0.1 + 0.2, name="x")
    run = captured_runs.one()
    run.assert_called("ask", query=Query(("a", "b"), date(2026, 1, 2)))
    run.assert_called("ask", query={"words": ["a", "b"], "day": "2026-01-02"})
    run.assert_called("ask", query={"words": ANY, "day": "2026-01-02"})
    run.assert_called("ask", tries=pytest.approx(0.3), name="x")
    run.assert_never_called("ask", query=Query(("a",), date(2026, 1, 2)))


def test_order(run: CapturedRun) -> None:
    run.assert_order("plan", "search", "gpt-4.1")
    run.assert_order("plan", "llm")
    run.assert_order("search", "search")
    run.assert_order("scout", "tool", "tool", "llm")


def test_what_is_not_in_order_is_named(run: CapturedRun) -> None:
    assert message(run.assert_order, "plan", "gpt-4.1", "search") == (
        "expected plan → gpt-4.1 → search: no search started after plan → gpt-4.1, only before that"
    )
    assert message(run.assert_order, "plan", "hotel") == "expected plan → hotel: no hotel started after plan"
    assert message(run.assert_order, "hotel", "plan") == "expected hotel → plan: no hotel started"
    assert message(run.assert_order, "plan", "refund") == "expected plan → refund: no refund started after plan"
    assert message(run.assert_order, "search", "search", "search").endswith("after search → search, only before that")


@pytest.mark.parametrize("names", [(), ("plan",)])
def test_an_order_that_cannot_be_wrong_is_refused(run: CapturedRun, names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="two names at least"):
        run.assert_order(*names)


def test_open_spans_are_listed(captured_runs: CapturedRuns, run: CapturedRun) -> None:
    run.assert_no_open_spans()
    with agentspan.run("b") as recorded:
        recorded.create_span("tool", {"name": "x"}, status="active")
        recorded.create_span("refund")
    with pytest.raises(AssertionError) as caught:
        captured_runs.last.assert_no_open_spans()
    assert str(caught.value) == (
        "2 spans not finished: tool x (active), refund (pending)\n\n✓ b\n├─● tool · Tool x()\n└─◌ refund"
    )


def test_failures_are_listed_with_their_errors(captured_runs: CapturedRuns, run: CapturedRun) -> None:
    assert message(run.assert_no_failures) == "1 failed:\n  tool search: TimeoutError: read timed out"
    with agentspan.run("b") as recorded:
        recorded.create_span("tool", {"name": "x"}, status="active").finish("failed")
        recorded.record_error(KeyError("k"))
    with pytest.raises(AssertionError) as caught:
        captured_runs.last.assert_no_failures()
    assert str(caught.value) == (
        "2 failed:\n  the run: KeyError: 'k'\n  tool x: it says no error\n\n✗ b → KeyError\n└─✗ tool · Tool x()"
    )
    with agentspan.run("c"):
        search("flights")
    captured_runs.last.assert_no_failures()


TREE = """
    chain plan
    agent scout
      tool search
      tool search (failed)
    llm gpt-4.1
    refund (cancelled)
"""


def test_a_tree_is_compared_line_by_line(run: CapturedRun) -> None:
    run.assert_tree(TREE)
    run.assert_tree(run.tree())
    run.assert_tree(TREE.replace("      ", "\t\t\t"))  # however it is indented
    assert message(run.assert_tree, TREE.replace("      tool search (failed)", "    tool fetch")) == (
        "the tree is another one (- expected, + recorded):\n"
        " chain plan\n"
        " agent scout\n"
        "   tool search\n"
        "-tool fetch\n"
        "+  tool search (failed)\n"
        " llm gpt-4.1\n"
        " refund (cancelled)"
    )


@pytest.mark.parametrize("line", TREE.split("\n")[1:-1], ids=str.strip)
def test_a_tree_that_lacks_a_line_is_another_one(run: CapturedRun, line: str) -> None:
    lines = TREE.split("\n")
    lines.remove(line)
    assert f"\n+{line[4:]}" in message(run.assert_tree, "\n".join(lines))
    assert f"\n-{line[4:]}" in message(run.assert_tree, TREE.rstrip() + f"\n{line}\n")


def test_nesting_is_part_of_a_tree(captured_runs: CapturedRuns) -> None:
    with agentspan.run("deep"):
        for name in ("a", "b"):
            with agentspan.span("chain", {"name": name}), agentspan.span("chain", {"name": name}):
                search("x")
        search("y")
    run = captured_runs.one()
    run.assert_tree(
        """
        chain a
            chain a
             tool search
        chain b
          chain b
                tool search
        tool search
        """
    )
    flat = "\n".join(line.strip() for line in run.tree().splitlines())
    with pytest.raises(AssertionError):
        run.assert_tree(flat)


def test_the_tree_of_no_spans_is_empty(captured_runs: CapturedRuns) -> None:
    with agentspan.run("idle"):
        pass
    run = captured_runs.one()
    run.assert_tree("")
    with pytest.raises(AssertionError, match=r"recorded\):\n-tool x\n\n✓ idle\Z"):
        run.assert_tree("tool x")


@pytest.mark.parametrize("expected", ["a\n    b\n  c", "  a\n b"])
def test_an_expected_tree_with_odd_indentation_is_refused(run: CapturedRun, expected: str) -> None:
    with pytest.raises(ValueError, match=r"line \d of the expected tree, '[bc]', is indented like none above it"):
        run.assert_tree(expected)


def test_messages_about_huge_runs_are_cut(captured_runs: CapturedRuns) -> None:
    with agentspan.run("busy"):
        for number in range(300):
            search(f"x{number}")
    assertions: tuple[Callable[[CapturedRun], object], ...] = (
        lambda run: run.assert_called("search", times=2, limit=3),
        lambda run: run.assert_tree(""),
    )
    for assertion in assertions:
        with pytest.raises(AssertionError) as caught:
            assertion(captured_runs.one())
        lines = str(caught.value).splitlines()
        assert len(lines) < 210
        assert lines[-1] == "… and 201 more"
