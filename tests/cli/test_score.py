"""`agentspan score`: scores, marks and notes of runs and spans, which show in `show` and `runs --json`."""

import json
from pathlib import Path
from typing import Any

import pytest

import agentspan
from tests.cli.calling import call


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def span(db: Path) -> str:
    """A run with one span, which is returned."""
    tracer = agentspan.Tracer(db, raise_errors=True)
    with tracer.run("a") as run, tracer.span("tool", name="book") as made:
        run.score("reward", 0.5, label="half", by="model", identifier="judge-2")
    tracer.shutdown()
    return made.id


def scores(db: Path) -> list[tuple[Any, ...]]:
    (run,) = json.loads(call(db, "runs", "--json").output)["runs"]
    return [(score["name"], score["label"], score["explanation"], score["identifier"]) for score in run["scores"]]


def test_a_run_is_marked_and_the_newest_mark_counts(db: Path, span: str) -> None:
    assert call(db, "score", "-", "--mark", "good").output.startswith("marked as good: run ")
    call(db, "score", "-", "--mark", "bad", "--note", "it paid twice")
    assert scores(db) == [("reward", "half", None, "judge-2"), ("mark", "bad", "it paid twice", None)]
    shown = call(db, "show", "-").output.splitlines()
    assert shown[2:4] == ["    reward 0.5 half (by model judge-2)", "    mark bad: it paid twice (by human)"]
    document = json.loads(call(db, "score", "-", "--note", "ask Mia", "--json").output)
    assert [(score["name"], score["source"]) for score in document["scores"]] == [
        ("reward", "model"),
        ("mark", "human"),
        ("note", "human"),
    ]
    assert document["total"] == 3
    assert call(db, "score", "-", "--remove").output.startswith("mark and note removed from run ")
    assert scores(db) == [("reward", "half", None, "judge-2")]
    assert call(db, "score", "-", "--remove").output.startswith("there was no mark on run ")


def test_a_span_is_marked_by_its_id(db: Path, span: str) -> None:
    assert call(db, "score", span, "--mark", "wrong", "--as", "mia").output == f"marked as wrong: span {span}\n"
    assert "score    mark wrong (by human mia)" in call(db, "show", span).output
    assert [each["label"] for each in json.loads(call(db, "show", span, "--json").output)["scores"]] == ["wrong"]
    document = json.loads(call(db, "show", "-", "--json").output)
    assert [(each["target_id"], each["label"]) for each in document["span_scores"]] == [(span, "wrong")]
    assert scores(db) == [("reward", "half", None, "judge-2")]


@pytest.mark.parametrize("arguments", [[], ["--remove", "--note", "x"], ["--mark", "bad", "--remove"]])
def test_a_mark_needs_a_word_or_a_note(db: Path, span: str, arguments: list[str]) -> None:
    done = call(db, "score", "-", *arguments)
    assert done.exit_code == 2
    assert "mark" in done.output
    assert len(scores(db)) == 1


def test_what_is_not_there_is_not_marked(db: Path, span: str) -> None:
    done = call(db, "score", "nothing", "--mark", "bad")
    assert done.exit_code == 1
    assert "no run or span has an id like 'nothing'" in done.output


@pytest.mark.parametrize(
    ("typed", "value", "label"),
    [
        ("0.5", 0.5, None), ("-1", -1.0, None), ("-2.5e-3", -0.0025, None), ("true", 1.0, None), ("FALSE", 0.0, None),
        ("half done", None, "half done"), ("yes", None, "yes"),
    ],
)  # fmt: skip
def test_a_run_is_scored_by_a_number_a_truth_or_a_word(
    db: Path, span: str, typed: str, value: float | None, label: str | None
) -> None:
    (run,) = json.loads(call(db, "runs", "--json").output)["runs"]
    done = call(db, "score", run["id"][:-4], "quality", typed, "--note", "why", "--by", "human", "--as", "mia")
    assert (done.exit_code, done.output) == (0, f"quality {typed}: run {run['id']}\n")
    (run,) = json.loads(call(db, "runs", "--json").output)["runs"]
    made = run["scores"][-1]
    assert [made[name] for name in ("name", "value", "label", "explanation", "source", "identifier")] == [
        "quality", value, label, "why", "human", "mia",
    ]  # fmt: skip


def test_a_score_is_given_to_a_span_selects_its_run_and_is_taken_back(db: Path, span: str) -> None:
    assert call(db, "score", "-", "passed", "true").exit_code == 0
    assert json.loads(call(db, "runs", "--score", "passed>=1", "--json").output)["total"] == 1
    document = json.loads(call(db, "score", span, "correct", "1", "--json").output)
    assert [(score["name"], score["value"], score["source"]) for score in document["scores"]] == [
        ("correct", 1, "code")
    ]
    assert call(db, "score", span, "correct", "--remove").output == f"correct removed from span {span}\n"
    assert call(db, "score", span, "correct", "--remove").output == f"there was no correct on span {span}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["reward"], 2, "a score has a VALUE"),
        (["reward", "1", "--remove"], 2, "--remove stands alone"),
        (["reward", "--mark", "bad"], 2, "--mark has no NAME"),
        (["reward", "nan"], 1, "value: must be a finite number"),
        (["reward", "--remvoe"], 2, "No such option"),
        (["--nme", "1"], 2, "No such option"),
        (["reward", "1", "--by", "robot"], 2, "'robot' is not one of 'human', 'model', 'code'"),
        (["n" * 201, "1"], 1, "name: must be text of at most 200 characters"),
    ],
)
def test_what_is_no_score_is_an_error(db: Path, span: str, arguments: list[str], code: int, said: str) -> None:
    done = call(db, "score", "-", *arguments)
    assert (done.exit_code, said in done.output) == (code, True), done.output
    assert len(scores(db)) == 1
