"""`export` and `import`: the same rows elsewhere, and a report that can be reviewed."""

import gzip
import json
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan.api.context import Context
from agentspan.cli.importing import PIPE_S
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.jsontext import encode
from agentspan.maintenance import jsonl
from agentspan.maintenance.jsonl import Cutter, Joiner, import_lines
from agentspan.model.changes import Move, Unit
from agentspan.model.rows import ResourceType, Row
from agentspan.otel.forwarding import lines as otlp_lines
from agentspan.recording.git_commit import commit_replaced
from agentspan.storage.questions import Query, SpansOf, Violations
from agentspan.testing.contract.base import Rows
from tests.cli.calling import call, lines
from tests.strategies import any_text, json_values
from tests.tiers import examples


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(2):
        try:
            with tracer.run("researcher", version="1", metadata={"n": number}) as run:
                with tracer.span("llm", {"model": 5}):  # breaks its schema
                    pass
                with tracer.span("tool", {"name": "café `x` <b>", "arguments": {"run": run.id}}) as span:
                    span.set_result({"output": "```\nHi\x1b[31m", "span": span.id})
                if number:
                    raise ValueError("out of luck")
        except ValueError:
            pass
    tracer.shutdown()
    return path


def rows(db: agentspan.Database, type_: ResourceType) -> list[Row]:
    return db.storage.ask(Query(type_)).rows


TYPES: tuple[ResourceType, ...] = (
    "agent",
    "agent_version",
    "agent_schema_version",
    "writer",
    "agent_instance",
    "agent_span",
)


def exported(db: Path, *runs: str) -> list[bytes]:
    return call(db, "export", *(runs or ("all",))).output.encode().splitlines(keepends=True)


def test_what_is_imported_is_what_was_exported(source: Path, db: Database) -> None:
    text = exported(source)
    done = import_lines(Context(db.storage), lambda: text)
    assert done == (2, 4, 0, 0, False)
    with agentspan.open(source, read_only=True) as original:
        for type_ in TYPES:
            assert rows(db, type_) == rows(original, type_), type_
        for row in rows(original, "agent_span"):
            assert db.storage.ask(Violations([row.id])) == original.storage.ask(Violations([row.id]))
    again = import_lines(Context(db.storage), lambda: text)
    assert again == (0, 0, 0, len(text) - 2, False)


ODD = (
    '{"a":1.0,"b":1e400,"c":-0.0,"d":"\\u00e9\\ud83d","e":12345678901234567890123,"m":["%s"],"n":null}',
    '{"a": 1, "m": [ "%s" ]}',
    '{"m":[{"role":"user","content":"%s"}],"t":"%s"}',
)
"""Texts that are not as agentspan writes them, or that another encoder would write differently."""


def with_histories(path: Path, runs: int = 2, calls: int = 12, odd: Sequence[str] = ODD) -> None:
    """Record runs in which each call has all messages so far, every second one the same short text."""
    said = [f"message {turn} é " + "x" * 500 if turn % 2 else "continue, please" for turn in range(2 * calls)]
    messages = [{"role": "user", "content": text} for text in said]
    with agentspan.open(path) as db:
        for number in range(runs):
            run = db.agent_instances.register("a").id
            for call_ in range(1, calls + 1):
                payload = {"model": "m", "messages": messages[: 2 * call_], "system": "be kind " * 100}
                result = (None, {"text": f"answer {call_} of {number}"}, [f"answer {call_} of {number}"])[call_ % 3]
                db.agent_spans.create(run, "llm", "complete", payload, result)
            for span, other in zip(list(db.storage.ask(SpansOf(run))), odd, strict=False):
                text = other.replace("%s", "y" * 600)
                values = {"payload": text, "result_payload": text}
                db.storage.apply([Unit((Move("agent_span", span.id, frozenset(), values),))])


def test_the_compact_form_is_small_and_gives_the_same_rows_byte_for_byte(tmp_path: Path, db: Database) -> None:
    source = tmp_path / "source.db"
    with_histories(source)
    text = exported(source, "all", "--format", "compact")
    whole = exported(source)
    assert sum(map(len, text)) < 0.42 * sum(map(len, whole))
    assert b"".join(text).isascii()
    for done in ((2, 24, 0, 0, False), (0, 0, 0, 29, False)):
        assert import_lines(Context(db.storage), lambda: text) == done
    with agentspan.open(source, read_only=True) as original:
        for type_ in TYPES:
            assert rows(db, type_) == rows(original, type_)


def test_a_history_in_the_compact_form_is_a_range(tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    with_histories(source, runs=1, odd=())
    data = [json.loads(line) for line in exported(source, "all", "--format", "compact")]
    assert data[0] == {"type": "agentspan_export", "version": 2, "has_end": True}
    last = [line for line in data if line["type"] == "agent_span"][-1]
    assert [piece for piece in last["payload"] if isinstance(piece, list)] != []
    assert len(last["payload"]) == 5
    assert [piece for piece in last["payload"] if isinstance(piece, int)] == [-1]
    texts = [text for line in data if line["type"] == "parts" for text in line["elements"]]
    assert len(set(texts)) >= len(texts) - 12  # the short text, said again


@settings(max_examples=examples(25), deadline=None)
@given(st.lists(st.dictionaries(any_text, st.one_of(json_values, st.lists(json_values)), max_size=4), max_size=6))
def test_any_payloads_are_cut_and_put_together(payloads: list[dict[str, Any]]) -> None:
    cutter, joiner = Cutter(), Joiner()
    for payload in payloads:
        text = encode({**payload, "m": [payload, payload, {"text": "x" * 300}]})[0]
        pieces = json.loads(json.dumps(cutter.pieces(text)))
        joiner.add(json.loads(json.dumps(cutter.line() or {"elements": [], "texts": []})))
        assert joiner.text(pieces) == text


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ("{}", "payload must be a list of pieces"),
        (['{"m":[', 4, "]}"], "payload refers to a part that is in no line before it"),
        (['{"m":[', [2, 1], "]}"], "payload refers to a part"),
        (['{"m":', -2, "}"], "payload refers to a part"),
        (['{"m":', [-1, -1, 1], "}"], "payload refers to a part"),
        (['{"m":[', 0, "]}"], "payload refers to a part"),
        (['{"m":[', True, "]}"], "payload refers to a part"),
        (['{"m":[', [1, 2, 3], "]}"], "payload refers to a part"),
        (['{"m":[', 1.0, "]}"], "payload refers to a part"),
        (["{", [1, 2], "}"], "payload is no JSON"),
        (["[", [1, 2], "]"], "payload must be an object"),
        (['{"m":NaN}'], "payload is no JSON"),
        (['{"m":"\ud800"}'], "payload is no JSON"),
        (["[" * 90_000], "payload is no JSON"),
        (['{"m":[', *[3, ","] * 1000, 3, "]}"], "payload is too large"),
    ],
)
def test_pieces_that_are_wrong_are_named(db: Database, pieces: Any, says: str) -> None:
    span = Rows().span(Rows().family(Rows().agent("a"))[2])
    parts: dict[str, Any] = {"type": "parts", "elements": ["{}", "1", f'"{"x" * 1000}"'], "texts": ['"y"']}
    data = [
        {"type": "agentspan_export", "version": 2},
        parts,
        {"type": "agent_span", **span._asdict(), "payload": pieces},
    ]

    def lines() -> list[bytes]:
        return [json.dumps(line).encode() for line in data]

    with pytest.raises(InvalidValue, match=re.escape(f"line 3: {says}")):
        import_lines(Context(db.storage), lines, most_characters=100_000)
    parts["texts"] = [1]
    with pytest.raises(InvalidValue, match="line 2: parts must have texts, a list of texts"):
        import_lines(Context(db.storage), lines)


def test_the_commit_of_a_run_is_exported_and_imported(tmp_path: Path, db: Database) -> None:
    tracer = agentspan.Tracer(tmp_path / "source.db", raise_errors=True)
    with commit_replaced("ab" * 20), tracer.run("a") as run:
        pass
    tracer.shutdown()
    text = exported(tmp_path / "source.db")
    import_lines(Context(db.storage), lambda: text)
    assert db.agent_instances.get(run.id).git_commit == "ab" * 20


@pytest.mark.parametrize("form", ["jsonl", "compact"])
def test_what_a_run_says_of_itself_and_its_scores_are_exported_and_imported(
    tmp_path: Path, db: Database, form: str
) -> None:
    path = tmp_path / "source.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("a", task="book", tags=["b", "a"]) as run, tracer.span("tool", name="x") as span:
        span.score("correct", True)
        run.score("reward", 0.5, by="human", identifier="mia", explanation="slow")
        run.score("reward", 1, by="human", identifier="mia")
    tracer.shutdown()
    call(path, "export", "all", "--format", form, "-o", str(tmp_path / "x"))
    text = (tmp_path / "x").read_bytes().splitlines()
    for _ in range(2):
        import_lines(Context(db.storage), lambda: text)
        with agentspan.open(path, read_only=True) as source:
            assert db.agent_instances.get(run.id).tags == ["a", "b"]
            assert db.agent_instances.get(run.id).task == "book"
            for id in (run.id, span.id):
                assert db.scores.list(id, history=True) == source.scores.list(id, history=True)
    of_run, of_span = (f'"target_id": "{id}"'.encode() for id in (run.id, span.id))
    for right, fault, says in (
        (b'"source": "human"', b'"source": "robot"', "source must be one of human, model, code"),
        (of_run, of_span, "target_id must be agent_instance_id"),
    ):
        wrong = [line.replace(right, fault) for line in text]
        with pytest.raises(InvalidValue, match=says):
            import_lines(Context(db.storage), lambda wrong=wrong: wrong)  # type: ignore[misc]


def test_an_agent_that_is_known_by_another_id_is_found_again(source: Path, db: Database) -> None:
    mine = db.agents.create("researcher", external_identifier="researcher")
    known = list(rows(db, "agent"))
    text = exported(source)
    with agentspan.open(source, read_only=True) as original:
        theirs = original.agents.list()[0]
    text = [line.replace(b'"external_identifier": null', b'"external_identifier": "researcher"', 1)
            if json.loads(line)["type"] == "agent" else line for line in text]  # fmt: skip
    assert import_lines(Context(db.storage), lambda: text).runs == 2
    assert rows(db, "agent") == known
    assert {run.agent_id for run in db.agent_instances.list()} == {mine.id} != {theirs.id}
    assert import_lines(Context(db.storage), lambda: text).runs == 0


def test_what_was_open_is_finished_by_a_later_export(tmp_path: Path, db: Database) -> None:
    with agentspan.open(tmp_path / "source.db") as original:
        run = original.agent_instances.register("a")
        original.agent_instances.start(run.id)
        span = original.agent_spans.create(run.id, "tool", "active", {"name": "x"})
        early = exported(tmp_path / "source.db")
        original.agent_spans.finish(span.id, result_payload={"output": 1})
        original.agent_instances.finish(run.id)
        late = exported(tmp_path / "source.db")
        assert import_lines(Context(db.storage), lambda: early)[:3] == (1, 1, 0)
        assert import_lines(Context(db.storage), lambda: late)[:3] == (0, 0, 2)
        assert import_lines(Context(db.storage), lambda: early)[:3] == (0, 0, 0)
        for type_ in ("agent_instance", "agent_span"):
            assert rows(db, type_) == rows(original, type_)


def broken(line: bytes, **changes: object) -> bytes:
    data = {**json.loads(line), **changes}
    return json.dumps({key: value for key, value in data.items() if value != "REMOVED"}).encode()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"type": "else"}, "type must be one of"),
        ({"id": "short"}, "id must be a PFID"),
        ({"status": "done"}, "status must be one of"),
        ({"payload": "text"}, "payload must be an object"),
        ({"payload": "REMOVED"}, "payload is missing"),
        ({"started_at": "yesterday"}, "started_at is not an RFC 3339 time"),
        ({"closed_at": "yesterday"}, "closed_at is not an RFC 3339 time"),
        ({"duration_ms": "5"}, "duration_ms has the wrong type"),
        ({"parent_span_id": "x"}, "parent_span_id must be a PFID"),
        ({"input_tokens": 1.5}, "input_tokens has the wrong type"),
        ({"input_tokens": 2**70}, "input_tokens has the wrong type"),
        ({"summary": "\ud800"}, "summary holds half a character"),
        ({"summary": "a\x00b"}, "summary: has a NUL character"),
        (
            {"violations": [{"side": "payload", "path": "$.\x00", "keyword": "type", "message": "m"}]},
            "path: has a NUL character",
        ),
        ({"violations": [{"side": "x"}]}, "a violation must have"),
        ({"agent_instance_id": "0" * 32}, "refers to a row that is neither before it nor stored"),
    ],
)
def test_a_line_that_is_wrong_is_named_and_nothing_is_stored(
    source: Path, db: Database, changes: dict[str, object], says: str
) -> None:
    text = exported(source)
    number = next(n for n, line in enumerate(text) if json.loads(line)["type"] == "agent_span")
    text[number] = broken(text[number], **changes)
    with pytest.raises(agentspan.InvalidValue, match=rf"line {number + 1}: .*{re.escape(says)}"):
        import_lines(Context(db.storage), lambda: text)
    assert ("agent_instance_id" in changes) == bool(rows(db, "agent_instance"))  # that one only the storage can tell


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "line 1: is missing: the file is empty"),
        (b"\x00\xff", "line 1: is no JSON: this is no agentspan export"),
        (b'{"type": "else", "a": "secret"}\n', "line 1: is an object with a, type: this is no agentspan export"),
        (b'{"type": "agentspan_export", "version": 99}\n', "line 1: is of a newer agentspan"),
        (b'{"type": "agentspan_export", "version": 1}\n[1]\n', "line 2: is no JSON object"),
        (b'{"type": "agentspan_export", "version": 1}\n\n{"typ', "line 3: is no JSON"),
        (b"{}", "line 1: is an empty object: this is no agentspan export"),
        (b"[" * 100_000, "line 1: is no JSON: this is no agentspan export"),
    ],
)
def test_a_file_that_is_no_export_says_so(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(content)
    result = call(tmp_path / "new.db", "import", str(tmp_path / "x.jsonl"))
    assert (result.exit_code, result.output[: len(says) + 7]) == (1, f"Error: {says}")
    assert ("--from otlp" in result.output) == ("no agentspan export" in says)


def test_the_commands(source: Path, tmp_path: Path) -> None:
    file, copy = tmp_path / "out.jsonl", tmp_path / "copy.db"
    assert re.match(rf"2 runs written to {file}: [\d,]+ bytes", call(source, "export", "all", "-o", str(file)).output)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_bytes() == b"".join(exported(source))
    assert call(copy, "import", str(file)).output == "2 runs and 4 spans imported\n"
    known = len(file.read_text().splitlines()) - 2
    assert call(copy, "import", "-", stdin=file.read_text()).output == (
        f"0 runs and 0 spans imported\n{known} rows known already\n"
    )
    document = json.loads(call(copy, "import", str(file), "--json").output)
    assert document == {"runs": 0, "spans": 0, "finished": 0, "known": known, "is_cut": False}
    assert exported(copy) == exported(source)
    latest = exported(source, "-", "-")
    assert sum(json.loads(line)["type"] == "agent_instance" for line in latest) == 1
    document = json.loads(call(source, "export", "-", "--json").output)
    assert (document["content"].encode(), document["total"]) == (b"".join(latest), 1)
    document = json.loads(call(source, "export", "-", "-o", str(file), "--json").output)
    assert (document["file"], document["bytes"]) == (str(file), len(b"".join(latest)))


@pytest.mark.parametrize("form", ["jsonl", "compact"])
def test_an_export_that_lacks_lines_is_imported_and_says_so(source: Path, db: Database, form: str) -> None:
    text = exported(source, "all", "--format", form)
    of_other = [b'{"type": "agentspan_export", "version": 1}', *text[1:-1]]  # announces no last line
    run = next(line for line in text if b'"agent_instance"' in line)
    unfinished: Sequence[Sequence[bytes]] = [
        text[:-1],
        [line for line in text if b'"agent_span"' not in line],
        [*text[:-1], *text],
        [*text, *text[: text.index(run)]],
    ]
    whole = [text, [*text, *text], [line for line in text if b'"tag"' not in line]]
    if form == "jsonl":
        whole += [of_other, [*of_other, *text], [*exported(source, "all", "--format", "compact"), *text]]
    for some, is_cut in [*((some, True) for some in unfinished), *((some, False) for some in whole)]:
        assert import_lines(Context(db.storage), lambda some=some: some).is_cut is is_cut  # type: ignore[misc]
    assert len(rows(db, "agent_span")) == 4


def test_a_run_that_is_removed_while_others_are_exported_is_left_out(source: Path) -> None:
    with agentspan.open(source, read_only=True) as db:
        runs = [run.id for run in db.agent_instances.list()]
        whole = [*jsonl.lines(db.storage, runs)]
        assert [*jsonl.lines(db.storage, ["0" * 32, *runs])] == whole
        assert [*otlp_lines(db.storage, ["0" * 32, *runs])] == [*otlp_lines(db.storage, runs)]


def test_the_command_fails_where_lines_of_an_export_are_missing(source: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"".join(exported(source)[:-1]))
    done = call(tmp_path / "new.db", "import", str(tmp_path / "x"))
    assert (done.exit_code, done.output.splitlines()[0]) == (1, "2 runs and 4 spans imported")
    assert "cut or filtered" in done.output


def test_a_file_of_gzip_is_imported_and_one_that_is_cut_says_so(source: Path, tmp_path: Path) -> None:
    packed = gzip.compress(b"".join(exported(source)))
    whole, cut = tmp_path / "x.jsonl.gz", tmp_path / "cut.gz"
    whole.write_bytes(packed)
    cut.write_bytes(packed[: len(packed) // 2])
    assert call(tmp_path / "copy.db", "import", str(whole)).output == "2 runs and 4 spans imported\n"
    assert exported(tmp_path / "copy.db") == exported(source)
    done = call(tmp_path / "cut.db", "import", str(cut))
    assert (done.exit_code, done.output) == (1, "Error: the file is no whole file of gzip; compress it again\n")
    assert json.loads(call(tmp_path / "cut.db", "runs", "--json").output)["total"] == 0


def test_a_file_that_cannot_be_written_or_read_says_so(source: Path, tmp_path: Path) -> None:
    assert "is the file that is read" in call(source, "export", "-", "-o", str(source)).output
    assert "No such file" in call(source, "export", "-", "-o", str(tmp_path / "no" / "x")).output
    assert "No such file" in call(tmp_path / "new.db", "import", str(tmp_path / "no.jsonl")).output
    assert not (tmp_path / "new.db").exists()


@pytest.mark.parametrize(("options", "text"), [((), "hello"), ((), ""), ((), "{}"), (("--from", "otlp"), "hello")])
def test_a_file_of_another_kind_makes_no_database(tmp_path: Path, options: tuple[str, ...], text: str) -> None:
    (tmp_path / "notes.txt").write_text(text)
    done = call(tmp_path / "new.db", "import", *options, str(tmp_path / "notes.txt"))
    assert done.exit_code == 1
    assert "line 1" in done.output or "notes.txt" in done.output
    assert not (tmp_path / "new.db").exists()


def test_the_report_is_the_same_wherever_the_run_lies(source: Path, tmp_path: Path) -> None:
    report = call(source, "export", "all", "--format", "markdown").output
    (tmp_path / "x.jsonl").write_bytes(b"".join(exported(source)))
    call(tmp_path / "copy.db", "import", str(tmp_path / "x.jsonl"))
    assert call(tmp_path / "copy.db", "export", "all", "--format", "markdown").output == report
    assert not re.search(r"[0-9a-z]{32}", report)
    assert not re.search(r"20\d\d-\d\d-", report)
    assert '"run": "run 1"' in report
    assert '"span": "span 2"' in report
    assert "# researcher 1 · failed" in report
    assert "stacktrace" not in report
    assert re.search(r"\(\+[\d.]+ (µs|ms|s), [\d.]+ (µs|ms|s)\)", report)


def test_the_report_keeps_payloads_in_their_place(source: Path) -> None:
    shown = lines(source, "export", "-", "--format", "markdown")
    assert "\x1b" not in "".join(shown)
    assert any(line.startswith("### 2. Tool café \\`x\\` \\<b\\>") for line in shown)
    fences = [line for line in shown if line.startswith("`")]
    assert len(fences) % 2 == 0
    assert "````json" in fences  # a payload with ``` in it does not end its fence


def test_the_report_of_a_deep_chain_is_not_wider_than_that_of_a_flat_one(tmp_path: Path) -> None:
    path = tmp_path / "deep.db"
    with agentspan.open(path) as db:
        run = db.agent_instances.register("deep")
        db.agent_instances.start(run.id)
        parent = None
        for number in range(120):
            parent = db.agent_spans.create(
                run.id, "chain", "complete", {"name": f"level {number}"}, {}, parent_span_id=parent
            ).id
        db.agent_instances.finish(run.id)
    report = lines(path, "export", "-", "--format", "markdown")
    steps = [line for line in report if "─✓" in line]
    assert len(steps) == 120
    assert max(map(len, steps)) < 90
    assert steps[20].startswith(" " * 38 + "  └─✓ 21 level 20")
    assert steps[21].startswith("… 21 ")
    assert steps[119].startswith("… 119 ")
    assert "└─✓ 120 level 119" in steps[119]


def test_a_balanced_export_has_the_failed_runs_and_as_many_that_passed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(10):
        with tracer.run("agent", task=f"task {number}", metadata={"input": number}) as run:
            pass
        run.score("reward", int(number not in (2, 5)))
    tracer.shutdown()
    (said,) = (
        line.strip() for line in call(path, "why", "--outcome", "reward>=1").output.splitlines() if "--bal" in line
    )
    assert "export all --balanced 'reward>=1' --format dataset" in said
    for chosen in (["all"], ["--score", "reward<1"], ["--agent", "agent"]):
        written = call(path, "export", *chosen, "--balanced", "reward>=1", "--format", "dataset").output.splitlines()
        tasks = [json.loads(line)["task"] for line in written]
        assert tasks == ["task 2", "task 5", "task 8", "task 9"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs os.mkfifo")
def test_a_pipe_without_a_writer_and_a_device_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "runs.jsonl")
    (tmp_path / "zero.jsonl").symlink_to("/dev/zero")
    for name, why in (("runs", "is a pipe that no program writes to"), ("zero", "is a device, which has no end")):
        result = call(tmp_path / "runs.db", "import", str(tmp_path / f"{name}.jsonl"))
        assert result.exit_code == 1
        assert f"{name}.jsonl {why}" in result.output
    assert not (tmp_path / "runs.db").exists()


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs os.mkfifo")
def test_a_pipe_is_read_however_late_its_writer_writes(source: Path, tmp_path: Path) -> None:
    pipe, exported = tmp_path / "pipe", tmp_path / "runs.jsonl"
    os.mkfifo(pipe)
    assert call(source, "export", "all", "-o", str(exported)).exit_code == 0
    begun = threading.Event()

    def write(writer: int) -> None:
        begun.set()
        time.sleep(2 * PIPE_S)
        with os.fdopen(writer, "wb") as file:
            file.write(exported.read_bytes())

    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # so that the writer need not wait
    thread = threading.Thread(target=write, args=(os.open(pipe, os.O_WRONLY),))
    thread.start()
    os.close(reader)
    assert begun.wait(10)
    assert "imported" in call(tmp_path / "new.db", "import", str(pipe)).output
    thread.join()
