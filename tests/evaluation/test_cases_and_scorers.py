"""Cases come from datasets and dicts; the shipped scorers judge outputs and runs."""

from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis import dataset
from agentspan.errors import InvalidValue
from agentspan.evaluation import Case, calls, cases, contains, exact, json_schema, under
from agentspan.evaluation.scorers import judged
from agentspan.testing import capture


def test_a_dataset_is_read_back_as_cases(tmp_path: Path) -> None:
    file = tmp_path / "failures.jsonl"
    with capture() as runs:
        for given, task in (({"q": 1}, "a"), ("what?", None), ("second run of a", "a")):
            with agentspan.run("agent", task=task, metadata={"input": given, "expected": "yes"}):
                pass
        ids = [run.id for run in runs]
        file.write_text("".join(f"{line}\n" for line in dataset.lines(runs.storage, ids)))
    assert cases(file) == [Case("a", {"q": 1}, "yes"), Case(ids[1], "what?", "yes")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"input": 1}\n{"input": 2\n', "line 2, column 12 is not JSON: write one object per line"),
        ('{"input": 1}\n[1]\n', "line 2 is no object with an input"),
        ('{"id": "a"}\n', "line 1 has no input: write one of input, inputs, question, query, prompt"),
        ('{"id": "a", "input": 1}\n\n{"id": "a", "input": 2}\n', "line 3: 'a' is another case at"),
        ('{"id": [], "input": 1}\n', "line 1: the id must be text"),
        ('{"id": "a", "input": NaN}\n', "line 1 holds a value that is no JSON"),
        ("\n", "has no case"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_of_cases_that_is_broken_is_named_with_the_line(text: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidValue, match=r"cases\.jsonl") as caught:
        cases(file)
    assert message in str(caught.value)


def test_a_case_without_an_id_gets_one_from_its_input() -> None:
    first, again, other = cases([{"input": "a"}, {"input": "b"}, {"question": "c", "reference": 1}])
    assert len({first.id, again.id, other.id}) == 3
    assert other.expected == 1
    assert cases([{"input": "a"}, {"input": "a"}]) == [first]


def test_a_case_is_read_as_its_runs_record_it(tmp_path: Path) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text('{"input": "say nothing", "id": "a", "expected": ""}\n', encoding="utf-8-sig")
    assert cases(file) == [Case("a", "say nothing", "")]
    assert cases([Case("two\nlines", 1)]) == [Case("two lines", 1)]


@pytest.mark.parametrize(
    ("scorer", "given", "value"),
    [
        (exact, {"output": " yes\n", "expected": "yes"}, True),
        (exact, {"output": {"a": 1}, "expected": {"a": 1}}, True),
        (exact, {"output": 3, "expected": "3"}, True),
        (exact, {"output": None, "expected": "None"}, False),
        (contains, {"output": "The Answer is 42.", "expected": "answer"}, True),
        (contains, {"output": "41", "expected": ["4", "2"]}, False),
        (json_schema({"required": ["a"]}), {"output": '{"a": 1}'}, (True, None, None)),
        (json_schema({"required": ["a"]}), {"output": {"b": 1}}, (False, None, "$: required")),
        (json_schema({"type": "object"}), {"output": "{"}, (False, None, "the output is not JSON")),
    ],
)
def test_the_scorers_of_outputs(scorer: Any, given: dict[str, Any], value: Any) -> None:
    assert scorer(**given) == value


def test_the_scorers_of_runs_judge_as_check_does() -> None:
    with capture() as runs:
        with agentspan.run("agent") as recorded, agentspan.span("tool", name="search"):
            pass
        with agentspan.open(runs.storage) as db:
            found = db.run(recorded.id)
        assert calls(required=["search"])(found)[0] is True
        assert calls(forbidden=["search"])(found)[:1] == (False,)
        assert under(steps=1, seconds=100)(found)[0] is True
        assert under(steps=0)(found) == (False, None, "1, limit 0")
        with pytest.raises(ValueError, match="recorded a cost"):
            under(cost_usd=1)(found)


def test_what_a_scorer_returns_is_a_score() -> None:
    assert judged("a", True, "code")[:4] == ("a", 1.0, None, None)
    assert judged("a", "good", "code")[:4] == ("a", None, "good", None)
    assert judged("a", (None, "good", "why"), "model")[:5] == ("a", None, "good", "why", "model")
    for wrong in (None, (1, 2), float("nan"), [1]):
        with pytest.raises((InvalidValue, agentspan.RequiredValue)):
            judged("a", wrong, "code")
