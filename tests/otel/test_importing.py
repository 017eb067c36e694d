"""Imports of OTLP files: one run a trace or process, each span once, whatever the order and however often."""

import gzip
import io
import json
import random
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis.tree import sums
from agentspan.api.context import Context
from agentspan.arriving.stored import BATCH
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.otel.otlp.requests import read_file
from agentspan.otel.receiving import Receiver, Stored, import_spans
from agentspan.otel.span import Log, OtelSpan
from agentspan.otel.traces import Step
from agentspan.recording.capture.plain import SentRedaction
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage, new_account
from agentspan.storage.questions import Query, SpansOf
from agentspan.storage.sqlite.storage import SQLiteStorage
from tests.cli.calling import call
from tests.otel.recorded import FOLDER, NAMES, lines_of, recorded, runs_of, span, steps_of
from tests.otel.requests import body_of, export_request, protobuf_of, requests_of


def _import(storage: Storage, spans: list[OtelSpan], logs: list[Log] | None = None) -> Stored:
    return import_spans(Context(storage, redacts=SentRedaction()), spans, logs or [])


def _runs(storage: Storage) -> list[AgentInstanceRow]:
    rows = storage.ask(Query("agent_instance")).rows
    return [row for row in rows if isinstance(row, AgentInstanceRow)]


def _spans(storage: Storage) -> list[AgentSpanRow]:
    return [row for run in _runs(storage) for row in storage.ask(SpansOf(run.id))]


def _tree(storage: Storage) -> list[tuple[Any, ...]]:
    """All spans by what must not depend on their order: not the times at which they were stored."""
    left_out = {"agent_id", "inserted_at", "updated_at", "closed_at"}
    rows = ({name: value for name, value in row._asdict().items() if name not in left_out} for row in _spans(storage))
    return sorted((tuple(sorted(row.items())) for row in rows), key=lambda row: str(dict(row)["id"]))


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_has_its_tree_and_its_tokens(name: str, storage: Storage) -> None:
    spans, logs = recorded(name)
    done = _import(storage, spans, logs)
    assert (done.spans, done.known) == (len(spans), 0)
    expected = runs_of(steps_of(spans, logs))
    assert done.runs == len(expected)
    rows = {row.id: row for row in _spans(storage)}
    assert len(rows) == len(spans)
    assert {row.status for row in rows.values()} <= {"complete", "failed"}
    tops = [row for row in rows.values() if row.parent_span_id not in rows]
    here = {(each.trace_id, each.span_id) for each in spans}
    assert len(tops) == sum((each.trace_id, each.parent_span_id) not in here for each in spans)
    counted = sum(_tokens(step) for run in expected for step in run.steps if _id(step) not in run.duplicate_of)
    assert (sums(rows.values()).tokens or 0) == counted


def _id(step: Step) -> tuple[str, str]:
    return step.span.trace_id, step.span.span_id


def _tokens(step: Step) -> int:
    result = step.mapped.result_payload or {}
    return 0 if step.mapped.type == "agent" else result.get("input_tokens", 0) + result.get("output_tokens", 0)


def test_twice_and_in_any_order_is_the_same() -> None:
    spans, logs = [], []
    for name in NAMES:
        each = recorded(name)
        spans += each[0]
        logs += each[1]
    account, trees = new_account(), []
    for seed in range(3):
        storage = MemoryStorage(account)
        shuffled = spans.copy()
        random.Random(seed).shuffle(shuffled)
        done = _import(storage, shuffled, logs)
        assert (done.spans, done.known) == (len(spans), 0)
        trees.append(_tree(storage))
        again = _import(storage, spans, logs)
        assert (again.runs, again.spans, again.known) == (0, 0, len(spans))
        assert _tree(storage) == trees[-1]
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize("name", ["openai-genai", "langgraph-openinference"])
def test_a_trace_that_comes_in_several_files(name: str) -> None:
    """Of a run of its own, and of a process: the parts find their run, the root first or last."""
    spans, logs = recorded(name)
    whole = MemoryStorage()
    _import(whole, spans, logs)
    for ordered in (spans, spans[::-1]):
        storage = MemoryStorage()
        for start in range(0, len(ordered), 3):
            _import(storage, ordered[start : start + 3], logs)
        assert len(_spans(storage)) == len(spans)
        assert len({row.id for row in _spans(storage)}) == len(spans)


def test_a_run_of_an_agent_ends_as_its_root(storage: Storage) -> None:
    said = {"openinference.span.kind": "AGENT", "agent.name": "researcher", "session.id": "s1", "user.id": "mia"}
    resource = {"service.name": "program", "service.version": "1.2"}
    root = span(said | {"output.value": "done"}, resource=resource)
    failed = span(said, trace_id="c" * 32, status="ERROR", status_message="ValueError: no", resource=resource)
    _import(storage, [root, failed])
    first, second = sorted(_runs(storage), key=lambda run: run.status)
    assert (first.status, json.loads(first.result or "")) == ("complete", {"output": "done"})
    assert (second.status, json.loads(second.error or "")) == ("failed", {"type": "ValueError", "message": "no"})
    assert first.started_at == "1970-01-01T00:00:01.000000Z"
    assert (first.finished_at, first.duration_ms) == ("1970-01-01T00:00:02.000000Z", 1000)
    assert (first.session, first.user) == ("s1", "mia")
    about = json.loads(first.metadata or "")
    assert about["otel"]["resource"] == resource
    agents = agentspan.open(storage).agents.list()
    assert [agent.name for agent in agents] == ["researcher"]


def test_bare_calls_of_a_process_are_one_run(storage: Storage) -> None:
    said = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    resource = {"service.name": "program", "service.instance.id": "1"}
    calls = [span(said, trace_id=f"{number:032x}", resource=resource) for number in range(1, 21)]
    other = span(said, trace_id="f" * 32, resource={**resource, "service.instance.id": "2"})
    request = span({}, "POST /chat", trace_id="e" * 32, kind="SERVER", resource=resource)
    assert _import(storage, [*calls, other, request]).runs == 3
    assert sorted(len([*storage.ask(SpansOf(run.id))]) for run in _runs(storage)) == [1, 1, 20]


def test_a_span_that_never_ended_is_abandoned(storage: Storage) -> None:
    root = span({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "a"}, end_ns=None)
    child = span({}, "child", span_id="c" * 16, parent_span_id="b" * 16)
    _import(storage, [root, child])
    rows = {row.schema_name: row for row in _spans(storage)}
    assert (rows["agent"].status, rows["agent"].closed_by, rows["child"].status) == ("failed", "abandoned", "complete")
    assert json.loads(rows["agent"].result_payload or "")["error"]["type"] == "Abandoned"
    assert rows["agent"].finished_at == "1970-01-01T00:00:02.000000Z", "no later than its run"
    (run,) = _runs(storage)
    assert (run.status, run.closed_by) == ("failed", "abandoned")


def test_a_span_that_came_before_its_end(storage: Storage) -> None:
    active, ended = span({}, end_ns=None), span({"a": 1})
    for order in ([active, ended], [ended, active]):
        storage = MemoryStorage()
        assert _import(storage, order).spans == 1
        assert [row.status for row in _spans(storage)] == ["complete"]


def test_clocks_that_differ_make_no_negative_duration(storage: Storage) -> None:
    _import(storage, [span({}, start_ns=5_000_000_000, end_ns=4_000_000_000)])
    (row,) = _spans(storage)
    assert (row.started_at, row.duration_ms) == (row.finished_at, 0)


def test_a_handoff_goes_to_the_agent_that_begins_next(storage: Storage) -> None:
    spans, logs = recorded("openai-agents-traceloop")
    _import(storage, spans, logs)
    summaries = [row.summary for row in _spans(storage) if row.schema_name == "handoff"]
    assert summaries == ["Handoff travel_agent → visa_agent"]


def test_credentials_are_not_stored(storage: Storage) -> None:
    secret = "sk-ant-api03-" + "a1B2" * 20
    said = {"openinference.span.kind": "TOOL", "tool.name": f"call {secret}", "input.value": f'{{"key": "{secret}"}}'}
    _import(storage, [span({**said, "OPENAI_API_KEY": secret}, f"step {secret}", resource={"env": secret})])
    _import(storage, [span({"x": secret}, f"plain {secret}", trace_id="d" * 32)])
    assert secret not in repr(_spans(storage)) + repr(_runs(storage))


def test_credentials_of_the_resource_are_not_stored(storage: Storage) -> None:
    secret = "sk-ant-api03-" + "a1B2" * 20
    about = {
        "service.name": f"svc {secret}",
        "service.version": secret,
        "service.instance.id": secret,
        "db.pw": "hunter2",
    }
    for trace_id in ("d" * 32, "e" * 32):
        _import(storage, [span({}, "step", trace_id=trace_id, resource=about)])
    (run,) = _runs(storage)  # the same process
    others = [*storage.ask(Query("agent")).rows, *storage.ask(Query("agent_version")).rows]
    assert "name='svc [redacted]'" in repr(others)
    assert "hunter2" not in repr(run)
    assert secret not in repr([run, *others, *_spans(storage)])


def test_more_spans_than_a_batch(storage: Storage) -> None:
    many = [span({}, span_id=f"{number:016x}") for number in range(1, 2 * BATCH + 2)]
    assert _import(storage, many).spans == 2 * BATCH + 1


def test_texts_that_no_json_writer_makes(storage: Storage) -> None:
    said = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.result": '{"score": NaN, "x": "\\ud800"}'}
    _import(
        storage,
        [span({**said, "a": "\ud800", "b\x00": "\x00"}, "na\x00me\ud800", status="ERROR", status_message="\x00")],
    )
    (row,) = _spans(storage)
    assert json.loads(row.result_payload or "")["output"]["score"] == "NaN"


# Files


def _content(data: bytes) -> tuple[int, int]:
    found = [decoded for _, decoded in read_file(io.BytesIO(data))]
    return sum(len(each.spans) for each in found), sum(len(each.logs) for each in found)


@pytest.mark.parametrize("name", ["openai-genai-2024", "mcp-client"])
def test_forms_of_files(name: str) -> None:
    spans, logs = recorded(name)
    lines = b"\n".join(lines_of(name))
    for data in (lines, lines + b"\n\n", gzip.compress(lines), gzip.compress(lines[:99]) + gzip.compress(lines[99:])):
        assert _content(data) == (len(spans), len(logs))
    requests = requests_of(name)
    assert sum(_content(json.dumps(request, indent=1).encode())[0] for _, request in requests) == len(spans)
    bodies = [protobuf_of(request, signal) for signal, request in requests]
    counts = [_content(gzip.compress(body) if number % 2 else body) for number, body in enumerate(bodies)]
    assert (sum(each[0] for each in counts), sum(each[1] for each in counts)) == (len(spans), len(logs))
    assert _content(b"") == (0, 0)
    assert _content(b'{"resourceMetrics": []}\n' + lines) == (len(spans), len(logs))


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b'{"resourceSpans": []}\n{', "line 2"),
        (b'{"a": 1}', "line 1"),
        (b"{\n 1", "body"),
        (b"hello, world", "body"),
        (gzip.compress(b"{}", mtime=0)[:9] + b"xxxx", "body"),
    ],
)
def test_files_that_are_none(data: bytes, where: str) -> None:
    with pytest.raises(InvalidValue, match=where):
        list(read_file(io.BytesIO(data)))


def test_the_command(tmp_path: Path) -> None:
    database, files = tmp_path / "runs.db", [str(FOLDER / f"{name}.jsonl.gz") for name in ("mcp-client", "mcp-server")]
    said = call(database, "import", "--from", "otlp", *files)
    assert said.output == "1 run and 18 spans imported\n"
    again = json.loads(call(database, "import", "--from", "otlp", *files, "--json").output)
    assert again == {"runs": 0, "spans": 0, "duplicates": 0, "known": 18, "skipped": 0, "unusable": 0, "why": ""}
    assert "MCP tools/call get_weather" in call(database, "show", "-").output


def test_a_duplicate_is_shown_as_one(tmp_path: Path) -> None:
    call(tmp_path / "runs.db", "import", "--from", "otlp", str(FOLDER / "anthropic-traceloop.jsonl.gz"))
    assert call(tmp_path / "runs.db", "show", "-").output.count("anthropic.messages.create (duplicate)") == 4


def test_the_command_reads_stdin_and_says_what_it_cannot_use(tmp_path: Path) -> None:
    request = body_of(export_request({}, {"spanId": ""})).decode()
    result = call(tmp_path / "runs.db", "import", "--from", "otlp", "-", stdin=request)
    assert result.exit_code == 0
    assert "1 run and 1 span imported" in result.output
    assert "1 span could not be used: spanId is not of 16 hexadecimal digits" in result.output


def test_the_command_names_the_file_and_the_line(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"resourceSpans": []}\n{')
    result = call(tmp_path / "runs.db", "import", "--from", "otlp", str(tmp_path / "x.jsonl"))
    assert result.exit_code == 1
    assert "x.jsonl: line 2: is no JSON" in result.output
    several = call(tmp_path / "runs.db", "import", "a.jsonl", "b.jsonl")
    assert several.exit_code == 2
    assert "--from otlp" in several.output


def test_a_trace_takes_few_statements(tmp_path: Path) -> None:
    seen: list[str] = []
    with closing(SQLiteStorage(tmp_path / "runs.db")) as storage:
        receiver = Receiver(Context(storage, redacts=SentRedaction()))
        receiver.store(_trace(1))  # its agent and its version are new
        storage.direct._connections.writer().set_trace_callback(seen.append)
        receiver.store([*_trace(2), *_trace(3)])
        assert len(seen) <= 6 + 2 * 8, seen
        seen.clear()
        receiver.store(_trace(3))
        assert [statement for statement in seen if statement.startswith("insert")] == []


def _trace(number: int) -> list[OtelSpan]:
    """A trace of an agent with nine calls of tools, its root last."""
    trace_id = f"{number:032x}"
    tool, agent = {"openinference.span.kind": "TOOL"}, {"openinference.span.kind": "AGENT", "agent.name": "helper"}
    steps = [
        span(tool, trace_id=trace_id, span_id=f"{each:016x}", parent_span_id=f"{1:016x}", resource={})
        for each in range(2, 11)
    ]
    return [*steps, span(agent, trace_id=trace_id, span_id=f"{1:016x}", resource={})]
