"""`export --format dataset` and `--format parquet`: runs with their scores, for evaluations and for tables."""

import csv
import gzip
import json
from contextlib import suppress
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


def rows(db: Path, *what: str) -> list[dict[str, Any]]:
    return [*map(json.loads, call(db, "export", *(what or ("all",)), "--format", "dataset").output.splitlines())]


def test_a_dataset_has_input_expected_and_observed_output_error_and_scores(db: Path) -> None:
    told, steps, failed = rows(db)
    assert {name: told[name] for name in ("agent", "version", "task", "tags", "status", "error")} == {
        "agent": "guide",
        "version": "2",
        "task": "t-1",
        "tags": ["a", "b"],
        "status": "complete",
        "error": "",
    }
    assert (told["input"], told["expected"], told["output"], told["messages"]) == ("Which city?", "Paris", "Lyon", [])
    assert told["scores"] == [
        {
            "name": "reward",
            "value": 0.0,
            "label": "",
            "explanation": "wrong city",
            "source": "human",
            "identifier": "",
            "span_id": "",
        }
    ]
    assert (steps["input"], steps["output"]) == ("hello", "hi")
    assert [message["content"] for message in steps["messages"]] == ["hello", "hi", "[1,2]"]
    (correct,) = steps["scores"]
    assert (correct["name"], correct["value"], len(correct["span_id"])) == ("correct", 1.0, 32)
    assert (failed["input"], failed["output"], failed["status"]) == ("[1]", "", "failed")
    assert (failed["error"], failed["failed_step"], len(failed["signature"])) == ("ValueError: no", "", 12)


class NoSeats(Exception):
    pass


def book(tracer: agentspan.Tracer) -> None:
    """A tool that asks a model of its own."""
    with tracer.span("tool", {"name": "book", "arguments": {}}):
        with tracer.span("llm", {"model": "m", "messages": "which seat?"}) as span:
            span.set_result({"text": "12A"})
        raise NoSeats("no seats on HAT290")


@pytest.fixture
def booking(tmp_path: Path) -> Path:
    """A run as agents record it: each call of the model has the whole history, and one tool fails."""
    path = tmp_path / "booking.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "book", "arguments": "{}"}} for n in (1, 2)]
    told: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
    with tracer.run("shop", task="t-2") as run, tracer.span("agent", {"name": "shop"}):
        for text in ("Book it.", "Thanks."):
            told.append({"role": "user", "content": text})
            with tracer.span("message", {"role": "user", "content": text}):
                pass
            for call in calls if text == "Book it." else []:
                with tracer.span("llm", {"model": "m", "messages": [*told]}) as span:
                    span.set_result({"text": "", "tool_calls": [{"name": "book", "arguments": {}}]})
                told.append({"role": "assistant", "content": None, "tool_calls": [call]})
                with pytest.raises(NoSeats):
                    book(tracer)
                told.append({"role": "tool", "tool_call_id": call["id"], "content": "Error: no seats"})
            with tracer.span("llm", {"model": "m", "messages": [*told]}) as span:
                span.set_result({"text": f"Sorry, {text}"})
            told.append({"role": "assistant", "content": f"Sorry, {text}"})
        with tracer.span("message", {"role": "user", "content": "Bye."}):
            pass
        run.score("expected", explanation="two seats", by="human")
    tracer.shutdown()
    return path


def test_the_failed_step_is_the_one_that_why_names(tmp_path: Path) -> None:
    """It is the first one that nothing recovered from, not the last one."""
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with suppress(ValueError), tracer.run("guide"):
        for name, fails in (("book", True), ("pay", True), ("pay", False)):
            with suppress(ValueError), tracer.span("tool", {"name": name, "arguments": {"seat": 1}}):
                if fails:
                    raise ValueError(f"no {name}")
        raise ValueError("no seats")
    tracer.shutdown()
    (row,) = rows(tmp_path / "runs.db")
    assert row["failed_step"] == "Tool book"
    assert "book" in call(tmp_path / "runs.db", "why", row["id"]).output


def test_a_conversation_has_each_message_once_with_the_ids_of_calls(booking: Path) -> None:
    (row,) = rows(booking)
    assert [(message["role"], message["content"]) for message in row["messages"]] == [
        ("system", "Be brief."),
        ("user", "Book it."),
        ("assistant", ""),
        ("tool", "Error: no seats"),
        ("assistant", ""),
        ("tool", "Error: no seats"),
        ("assistant", "Sorry, Book it."),
        ("user", "Thanks."),
        ("assistant", "Sorry, Thanks."),
        ("user", "Bye."),
    ]
    asked = [call["id"] for message in row["messages"] for call in message["tool_calls"] or []]
    answered = [message["tool_call_id"] for message in row["messages"] if message["role"] == "tool"]
    assert asked == answered == ["c1", "c2"]
    assert (row["system"], row["input"], row["output"]) == ("Be brief.", "Book it.", "Sorry, Thanks.")
    assert (row["expected"], row["failed_step"]) == ("two seats", "Tool book")
    assert row["error"] == "NoSeats: no seats on HAT290"
    (found,) = json.loads(call(booking, "runs", "--signature", row["signature"], "--json").output)["runs"]
    assert found["id"] == row["id"]


def test_calls_without_an_id_get_one_which_their_answers_have(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run("a"):
        with tracer.span("llm", {"model": "m", "messages": "go"}) as span:
            span.set_result({"tool_calls": [{"name": name, "arguments": {}} for name in ("f", "g")]})
        for name in ("g", "f"):
            with tracer.span("tool", {"name": name}) as span:
                span.set_result({"output": name})
        with tracer.span("llm", {"model": "m", "messages": "go on"}) as span:
            span.set_result({"text": "done"})
        for _ in range(2):  # only the latest message is sent, and it is the same again
            with tracer.span("llm", {"model": "m", "messages": "yes"}) as span:
                span.set_result({"text": "ok"})
    tracer.shutdown()
    (row,) = rows(tmp_path / "runs.db")
    (_, asked, *answers) = row["messages"][:4]
    assert {call["function"]["name"]: call["id"] for call in asked["tool_calls"]} == {
        answer["name"]: answer["tool_call_id"] for answer in answers
    }
    assert [message["content"] for message in row["messages"][4:]] == ["go on", "done", "yes", "ok", "yes", "ok"]


def test_a_note_says_what_was_expected_and_without_messages_the_first_step_what_was_given(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run("a") as run, tracer.span("agent", {"name": "a", "goal": "find it"}) as span:
        span.set_result({"output": "found"})
    tracer.shutdown()
    call(tmp_path / "runs.db", "score", run.id, "--note", "expected: lost")
    (row,) = rows(tmp_path / "runs.db")
    assert (row["input"], row["output"], row["expected"]) == ("find it", "found", "lost")


def test_a_dataset_has_one_type_a_column_in_each_form(db: Path, booking: Path, tmp_path: Path) -> None:
    for number, line in enumerate(rows(db) + rows(booking)):
        kinds = {name: type(value) for name, value in line.items()}
        lists = {name for name, kind in kinds.items() if kind is list}
        assert lists == {"tags", "messages", "scores"}, number
        assert {name for name, kind in kinds.items() if kind is not str} == lists | {"duration_ms"}, number
    with (tmp_path / "runs.csv").open("w") as file:
        file.write("replaced")
    assert "3 runs written" in call(db, "export", "all", "--format", "dataset", "-o", str(tmp_path / "runs.csv")).output
    with (tmp_path / "runs.csv").open(newline="") as file:
        found = [*csv.DictReader(file)]
    assert [row["input"] for row in found] == ["Which city?", "hello", "[1]"]
    assert json.loads(found[0]["tags"]) == ["a", "b"]
    parquet: Any = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    done = call(db, "export", "all", "--format", "dataset", "-o", str(tmp_path / "runs.parquet"), "--json")
    assert json.loads(done.output)["total"] == 3
    table = parquet.read_table(tmp_path / "runs.parquet")
    assert str(table.schema.field("started_at").type) == "timestamp[us, tz=UTC]"
    assert [row["input"] for row in table.to_pylist()] == ["Which city?", "hello", "[1]"]


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_a_dataset_is_imported_and_exported_as_it_was(booking: Path, tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="needs pyarrow")
    file, copy = tmp_path / f"set.{form}", tmp_path / "copy.db"
    call(booking, "export", "all", "--format", "dataset", "-o", str(file))
    if form.endswith("gz"):
        file.write_bytes(gzip.compress(file.read_bytes()))
    assert call(copy, "import", str(file)).output == "1 run and 10 spans imported\n"
    assert call(copy, "import", str(file)).output.startswith("0 runs and 0 spans imported\n")
    (before,), (after,) = rows(booking), rows(copy)
    of_frames = {"signature"}  # stack traces are not in a dataset
    assert {name: after[name] for name in after if name not in of_frames} == {
        name: before[name] for name in before if name not in of_frames
    }
    (shown,) = json.loads(call(copy, "runs", "--json").output)["runs"]
    assert (shown["span_counts"]["failed"], shown["task"]) == (1, "t-2")
    unchanged = call(booking, "export", "all").output
    assert call(booking, "import", str(file)).output == "0 runs and 0 spans imported\n"  # it has its own steps
    assert call(booking, "export", "all").output == unchanged


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-5", "-a", "@x", "\t=1", "\r=1", "'=1", "''-x", "'", "plain"])
def test_a_text_of_a_dataset_in_csv_is_no_formula_and_is_imported_as_it_was(text: str, tmp_path: Path) -> None:
    file, copy, db = tmp_path / "set.csv", tmp_path / "copy.db", tmp_path / "runs.db"
    tracer = agentspan.Tracer(db, raise_errors=True)
    with tracer.run("a", metadata={"input": text}) as run:
        run.set_result({"output": text})
    tracer.shutdown()
    call(db, "export", "all", "--format", "dataset", "-o", str(file))
    with file.open(newline="") as lines:
        (row,) = csv.DictReader(lines)
    assert row["input"] == text if text in ("-5", "plain", "'") else row["input"] == f"'{text}"
    call(copy, "import", str(file))
    ((before,), (after,)) = rows(db), rows(copy)
    assert (after["input"], after["output"]) == (before["input"], before["output"]) == (text, text)


def test_a_row_that_is_no_run_is_named_and_nothing_is_stored(booking: Path, tmp_path: Path) -> None:
    (row,) = rows(booking)
    wrong: list[Any] = [{**row, "id": "x"}, {**row, "messages": [{}]}, {**row, "started_at": "noon"}, [], 7]
    for broken in wrong:
        (tmp_path / "set.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(broken)}\n")
        done = call(tmp_path / "copy.db", "import", str(tmp_path / "set.jsonl"))
        assert (done.exit_code, "row 2: is no run of a dataset" in done.output) == (1, True), broken
    for form in ("csv", "parquet"):
        if form == "parquet":
            pytest.importorskip("pyarrow", reason="needs pyarrow")
        file = tmp_path / f"set.{form}"
        call(booking, "export", "all", "--format", "dataset", "-o", str(file))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        done = call(tmp_path / "copy.db", "import", str(file))
        assert (done.exit_code, "row 1: is no run of a dataset" in done.output) == (1, True), form
    assert json.loads(call(tmp_path / "copy.db", "runs", "--json").output)["total"] == 0


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
