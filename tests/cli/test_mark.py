"""`agentspan mark`: marks and notes of runs and spans, which show in `show`, `span` and `runs --json`."""

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
    assert call(db, "mark", "-", "good").output.startswith("marked as good: run ")
    call(db, "mark", "-", "bad", "--note", "it paid twice")
    assert scores(db) == [("reward", "half", None, "judge-2"), ("mark", "bad", "it paid twice", None)]
    shown = call(db, "show", "-").output.splitlines()
    assert shown[2:4] == ["    reward 0.5 half (model judge-2)", "    mark bad: it paid twice (human)"]
    document = json.loads(call(db, "mark", "-", "--note", "ask Mia", "--json").output)
    assert [(score["name"], score["source"]) for score in document["scores"]] == [
        ("reward", "model"),
        ("mark", "human"),
        ("note", "human"),
    ]
    assert document["total"] == 3
    assert call(db, "mark", "-", "--remove").output.startswith("mark and note removed from run ")
    assert scores(db) == [("reward", "half", None, "judge-2")]
    assert call(db, "mark", "-", "--remove").output.startswith("there was no mark on run ")


def test_a_span_is_marked_by_its_id(db: Path, span: str) -> None:
    assert call(db, "mark", span, "wrong", "--as", "mia").output == f"marked as wrong: span {span}\n"
    assert "score    mark wrong (human mia)" in call(db, "span", span).output
    assert [each["label"] for each in json.loads(call(db, "span", span, "--json").output)["scores"]] == ["wrong"]
    document = json.loads(call(db, "show", "-", "--json").output)
    assert [(each["target_id"], each["label"]) for each in document["span_scores"]] == [(span, "wrong")]
    assert scores(db) == [("reward", "half", None, "judge-2")]


@pytest.mark.parametrize("arguments", [[], ["--remove", "--note", "x"], ["bad", "--remove"]])
def test_a_mark_needs_a_word_or_a_note(db: Path, span: str, arguments: list[str]) -> None:
    done = call(db, "mark", "-", *arguments)
    assert done.exit_code == 1
    assert "mark" in done.output
    assert len(scores(db)) == 1


def test_what_is_not_there_is_not_marked(db: Path, span: str) -> None:
    done = call(db, "mark", "nothing", "bad")
    assert done.exit_code == 1
    assert "no run or span has an id like 'nothing'" in done.output
