"""`export --format dataset` and `--format parquet`: runs with their scores, for evaluations and for tables."""

import json
from pathlib import Path
from typing import Any

import pytest

import agentspan
from tests.cli.calling import call


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Three runs: one whose metadata and result say all, one that is told by its steps, one that failed."""
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    metadata = {"task": "t-1", "expected": "Paris", "question": "Which city?"}
    with tracer.run("guide", version="2", metadata=metadata, task="t-1", tags=["b", "a"]) as run:
        run.set_result({"output": "Lyon"})
        run.score("reward", 1)
        run.score("reward", 0, by="human", explanation="wrong city")
    with tracer.run("guide"):
        with tracer.span("llm", {"messages": "hello"}) as span:
            span.set_result({"text": "hi"})
            span.score("correct", True)
        with tracer.span("tool", name="last") as span:
            span.set_result({"output": [1, 2]})
    with pytest.raises(ValueError, match="no"), tracer.run("guide", metadata={"input": [1]}):
        raise ValueError("no")
    tracer.shutdown()
    return path


def test_a_dataset_has_input_expected_and_observed_output_error_and_scores(db: Path) -> None:
    told, steps, failed = map(json.loads, call(db, "export", "all", "--format", "dataset").output.splitlines())
    assert {name: told[name] for name in ("agent", "version", "task", "tags", "status", "error")} == {
        "agent": "guide",
        "version": "2",
        "task": "t-1",
        "tags": ["a", "b"],
        "status": "complete",
        "error": None,
    }
    assert (told["input"], told["expected_output"], told["output"]) == ({"question": "Which city?"}, "Paris", "Lyon")
    assert told["scores"] == {
        "reward": {"value": 0, "label": None, "source": "human", "identifier": None, "explanation": "wrong city"}
    }
    assert (steps["input"], steps["output"], steps["scores"]) == ({"messages": "hello"}, [1, 2], {})
    assert (failed["input"], failed["output"], failed["status"]) == ([1], None, "failed")
    assert failed["error"]["message"] == "no"


def test_tables_have_the_columns_of_the_file(db: Path, tmp_path: Path) -> None:
    parquet: Any = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    folder = tmp_path / "tables"
    document = json.loads(call(db, "export", "all", "--format", "parquet", "-o", str(folder), "--json").output)
    assert document["rows"] == {"runs": 3, "spans": 2, "scores": 3}
    runs, spans, scores = (
        parquet.read_table(folder / f"{name}.parquet").to_pylist() for name in ("runs", "spans", "scores")
    )
    assert [(run["agent"], run["version"], run["task"], run["tags"]) for run in runs] == [
        ("guide", "2", "t-1", ["a", "b"]),
        ("guide", "default", None, []),
        ("guide", "default", None, []),
    ]
    assert runs[0]["started_at"].tzinfo is not None
    assert json.loads(runs[0]["metadata"])["task"] == "t-1"
    assert [(span["schema_name"], span["is_aggregate"]) for span in spans] == [("llm", False), ("tool", False)]
    assert [(score["name"], score["value"], score["target_type"]) for score in scores] == [
        ("reward", 1.0, "agent_instance"),
        ("reward", 0.0, "agent_instance"),
        ("correct", 1.0, "agent_span"),
    ]
    said = call(db, "export", "-", "--format", "parquet", "-o", str(folder)).output
    assert said.startswith("1 run, 0 spans, 0 scores written to")
    assert sorted(path.name for path in folder.iterdir()) == ["runs.parquet", "scores.parquet", "spans.parquet"]


def test_tables_need_a_folder_and_pyarrow(db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "name their folder with -o" in call(db, "export", "all", "--format", "parquet").output
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    done = call(db, "export", "all", "--format", "parquet", "-o", str(tmp_path / "tables"))
    assert (done.exit_code, "agentspan-sqlite[parquet]" in done.output) == (1, True)
    assert not (tmp_path / "tables").exists()
