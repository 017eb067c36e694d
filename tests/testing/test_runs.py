"""What was captured: runs and their spans as objects."""

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import pytest

import agentspan
from agentspan.testing import CapturedRuns

Agent = Callable[[], dict[str, str]]


def test_a_run_has_what_was_recorded_of_it(captured_runs: CapturedRuns, agent: Agent) -> None:
    agent()
    run = captured_runs.one()
    assert (run.name, run.version, run.status, run.purpose) == ("researcher", "1.2", "complete", "live")
    assert (run.metadata, run.result, run.error) == ({"goal": "fly"}, {"answer": "On a Tuesday."}, None)
    assert (run.tokens, run.cost_usd) == (42, 0.25)
    assert repr(run) == "<CapturedRun researcher complete>"


def test_a_run_that_raises_has_its_error(captured_runs: CapturedRuns) -> None:
    with pytest.raises(ValueError, match="no luck"), agentspan.run("unlucky"):
        raise ValueError("no luck")
    run = captured_runs.one()
    assert (run.status, run.version, run.metadata, run.result) == ("failed", None, None, None)
    assert (run.tokens, run.cost_usd, run.spans) == (None, None, [])
    assert run.error is not None
    assert (run.error["type"], run.error["message"]) == ("ValueError", "no luck")


def test_spans_come_in_the_order_in_which_they_began(captured_runs: CapturedRuns, agent: Agent) -> None:
    agent()
    run = captured_runs.one()
    assert [span.name for span in run.spans] == ["plan", "scout", "search", "search", "gpt-4.1", "refund"]
    assert [span.name for span in run.roots] == ["plan", "scout", "gpt-4.1", "refund"]


def test_a_span_that_was_planned_early_comes_when_it_starts(captured_runs: CapturedRuns) -> None:
    with agentspan.run("planner") as run:
        planned = run.create_span("tool", {"name": "planned"})
        with agentspan.span("tool", {"name": "first"}):
            pass
        with planned:
            pass
    assert [span.name for span in captured_runs.one().spans] == ["first", "planned"]
    captured_runs.one().assert_order("first", "planned")


def test_a_span_has_what_was_recorded_of_it(captured_runs: CapturedRuns, agent: Agent) -> None:
    agent()
    run = captured_runs.one()
    good, bad = run.find("search")
    assert (good.schema_name, good.status) == ("tool", "complete")
    assert good.summary == 'Tool search(query=flights, limit=3) → ["a page about flights"]'
    assert good.payload == {"name": "search", "arguments": {"query": "flights", "limit": 3}}
    assert (good.result, good.error) == ({"output": ["a page about flights"]}, None)
    assert good.parent is not None
    assert (good.parent.name, good.parent.parent, good.parent.children) == ("scout", None, [good, bad])
    assert bad.status == "failed"
    assert (bad.error["type"], bad.error["message"]) == ("TimeoutError", "read timed out")
    (model,) = run.find("llm")
    assert (model.input_tokens, model.output_tokens, model.cost_usd) == (40, 2, 0.25)
    assert [repr(span) for span in run.roots[-2:]] == ["<llm gpt-4.1 complete>", "<refund cancelled>"]


@pytest.mark.parametrize(
    ("schema_name", "payload", "name"),
    [
        ("llm", {"model": "gpt-4.1", "name": "x"}, "gpt-4.1"),
        ("tool", {"name": "search"}, "search"),
        ("retrieval", {"query": "x"}, "retrieval"),
        ("retrieval", {"query": "x", "name": "kb"}, "kb"),
        ("refund", {"name": "express"}, "express"),
        ("refund", {"name": 7}, "refund"),
        ("refund", {"name": ""}, "refund"),
    ],
)
def test_a_span_has_the_name_that_a_person_gives_it(
    captured_runs: CapturedRuns, schema_name: str, payload: dict[str, Any], name: str
) -> None:
    with agentspan.run("a"), agentspan.span(schema_name, payload):
        pass
    (span,) = captured_runs.one().spans
    assert span.name == name


def test_find_takes_names_types_and_members_of_the_payload(captured_runs: CapturedRuns, agent: Agent) -> None:
    agent()
    run = captured_runs.one()
    assert len(run.find("tool")) == len(run.find("search")) == 2
    assert run.find("search", arguments={"query": "flights", "limit": 3}) == run.find("search")[:1]
    assert [span.name for span in run.find("llm", temperature=0)] == ["gpt-4.1"]
    assert run.find("llm", temperature=1) == run.find("llm", seed=None) == run.find("sea") == []
    assert len(run.find("refund")) == 1


def test_calls_are_spans_that_ever_started(captured_runs: CapturedRuns, agent: Agent) -> None:
    agent()
    run = captured_runs.one()
    assert run.calls("refund") == []
    assert run.calls("search") == run.find("search")
    assert [call.arguments for call in run.calls("search", limit=1)] == [{"query": "broken", "limit": 1}]
    assert [call.arguments for call in run.calls("plan", goal=ANY)] == [{"goal": "find flights"}]
    assert [call.arguments for call in run.calls("gpt-4.1", model="gpt-4.1")] == [
        {"model": "gpt-4.1", "temperature": 0}
    ]


def test_spans_are_equal_when_they_say_the_same(captured_runs: CapturedRuns) -> None:
    with agentspan.run("a"):
        with agentspan.span("tool", {"name": "x"}):
            (during,) = captured_runs.one().spans
            assert during == captured_runs.one().spans[0]
        (after,) = captured_runs.one().spans
    assert during.id == after.id
    assert during != after
    assert len({during, after, captured_runs.one().spans[0]}) == 2
    assert captured_runs.one() == captured_runs.last
    assert len({captured_runs.one(), captured_runs.last}) == 1


def test_runs_are_a_sequence_in_order_of_creation(captured_runs: CapturedRuns) -> None:
    assert (len(captured_runs), list(captured_runs), repr(captured_runs)) == (0, [], "<CapturedRuns (none)>")
    for name in "abc":
        with agentspan.run(name):
            pass
    assert [run.name for run in captured_runs] == ["a", "b", "c"]
    assert (len(captured_runs), captured_runs.last.name) == (3, "c")
    assert (captured_runs[0].name, captured_runs[-1].name) == ("a", "c")
    assert [run.name for run in captured_runs[1:]] == ["b", "c"]
    assert captured_runs[1] in captured_runs
    with pytest.raises(IndexError):
        captured_runs[3]


def test_one_lists_what_there_is_instead(captured_runs: CapturedRuns) -> None:
    with pytest.raises(AssertionError, match=r"^no run was recorded$"):
        captured_runs.one()
    with pytest.raises(AssertionError, match=r"^no run was recorded$"):
        captured_runs.last  # noqa: B018
    with agentspan.run("a"), agentspan.span("tool", {"name": "x"}):
        pass
    with agentspan.run("b"), pytest.raises(AssertionError) as caught:
        captured_runs.one()
    assert str(caught.value) == "2 runs were recorded, not one:\n  a: complete, 1 span\n  b: active, 0 spans"


def test_one_does_not_list_hundreds(captured_runs: CapturedRuns) -> None:
    for number in range(25):
        with agentspan.run(f"a{number}"):
            pass
    with pytest.raises(AssertionError, match=r"25 runs(.|\n)*  a24: complete, 0 spans\n  and 5 before them\Z"):
        captured_runs.one()


def test_a_run_is_read_while_it_goes_on(captured_runs: CapturedRuns) -> None:
    with agentspan.run("a") as run:
        captured = captured_runs.one()
        assert (captured.status, captured.duration_ms, captured.spans) == ("active", None, [])
        with agentspan.span("tool", {"name": "x"}):
            (span,) = captured.spans
            assert (span.status, span.result, span.duration_ms) == ("active", None, None)
        assert captured.spans[0].status == "complete"
        assert span.status == "active"  # a span stays as it was read
        run.set_result({"a": 1})
    assert (captured.status, captured.result) == ("complete", {"a": 1})


def test_a_tracer_of_ones_own_is_read_too() -> None:
    tracer = agentspan.Tracer(":memory:", raise_errors=True)
    with tracer.run("own"):
        pass
    assert CapturedRuns(tracer.storage).one().name == "own"
