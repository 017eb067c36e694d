"""Forwarding: each finished span reaches the target, once, whichever side dies; the copy reads as the original does."""

import json
import random
import signal
import sqlite3
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

import agentspan
from agentspan.errors import InvalidValue
from agentspan.otel import forward
from agentspan.otel.forwarding import ForwardingFailed, Sender, lines
from agentspan.otel.otlp.requests import decode, trace_request
from agentspan.storage.questions import Query, SpansOf
from tests.cli.calling import call, process
from tests.otel.made_runs import record
from tests.otel.requests import protobuf_of
from tests.serve.servers import Server, serving
from tests.tiers import longer
from tests.waiting import until


def shown(path: Path) -> list[str]:
    """How each run is shown."""
    with agentspan.open(path, read_only=True) as db:
        ids = [row.id for row in db.storage.ask(Query("agent_instance")).rows]
    return [call(path, "show", id, "--payloads", "--full", columns=200).output for id in ids]


def counts(path: Path) -> tuple[int, int]:
    with agentspan.open(path, read_only=True) as db:
        rows = db.storage.ask(Query("agent_instance")).rows
        return len(rows), sum(len([*db.storage.ask(SpansOf(row.id))]) for row in rows)


def said(path: Path, url: str) -> tuple[int, ...]:
    """The counts of `copy`: runs, spans, late scores, and those that were left out."""
    document = json.loads(call(path, "copy", url, "--json").output)
    assert [*document] == ["runs", "spans", "late_scores", "left_scores"]
    return tuple(document.values())


def test_a_copy_is_shown_as_the_original_and_nothing_is_sent_twice(tmp_path: Path) -> None:
    path, copy = tmp_path / "runs.db", tmp_path / "copy.db"
    record(path)
    with serving(copy) as server:
        first = call(path, "copy", server.url)
        assert first.output == f"48 spans and 3 runs forwarded to {server.url}\n"
        assert said(path, server.url) == (0, 0, 0, 0)
        record(path, 1)
        assert said(path, server.url) == (1, 16, 0, 0)
    assert shown(copy) == shown(path)
    assert len(shown(copy)) == 4


@pytest.mark.full
def test_the_token_goes_in_a_header(tmp_path: Path) -> None:
    path, copy = tmp_path / "runs.db", tmp_path / "copy.db"
    record(path, 1)
    with serving(copy, AGENTSPAN_TOKEN="s3cret-token-of-mia") as server:
        refused = call(path, "copy", server.url)
        assert (refused.exit_code, "refused it with 401" in refused.output) == (1, True)
        said = "Authorization=Bearer s3cret-token-of-mia"
        assert call(path, "copy", server.url, "--header", said).exit_code == 0
    assert counts(copy) == counts(path)


@pytest.mark.full
def test_what_is_open_is_sent_when_it_has_finished(tmp_path: Path) -> None:
    path, copy = tmp_path / "runs.db", tmp_path / "copy.db"
    with agentspan.open(path) as db, serving(copy) as server:
        run = db.agent_instances.register("a")
        db.agent_instances.start(run.id)
        done = db.agent_spans.create(run.id, "tool", "complete", {"name": "done"})
        late = db.agent_spans.create(run.id, "tool", "active", {"name": "late"}, parent_span_id=done.id)
        cancelled = db.agent_spans.create(run.id, "tool", "cancelled", {"name": "skipped"})
        assert forward(server.url, path)[:2] == (0, 2)
        db.agent_spans.finish(late.id, "complete")
        assert forward(server.url, path)[:2] == (0, 1)
        db.agent_instances.finish(run.id, "failed")
        assert forward(server.url, path)[:2] == (1, 0)
    with agentspan.open(copy) as db:
        assert db.agent_instances.get(run.id).status == "failed"
        assert db.agent_spans.get(late.id).parent_span_id == done.id
        assert db.agent_spans.get(cancelled.id).status == "cancelled"
    assert shown(copy) == shown(path)


@pytest.mark.full
def test_scores_that_are_given_after_their_span_was_sent_follow_it_once(tmp_path: Path) -> None:
    path, copy = tmp_path / "runs.db", tmp_path / "copy.db"
    with agentspan.open(path) as db, serving(copy) as server:
        run = db.agent_instances.register("a")
        db.agent_instances.start(run.id)
        step = db.agent_spans.create(run.id, "tool", "complete", {"name": "done"})
        db.scores.record(step.id, "early", 1)
        db.scores.record(run.id, "of the run", 0.5)
        assert said(path, server.url) == (0, 1, 0, 0)  # `early` goes with its span; the run has no span yet
        db.scores.record(step.id, "late", label="yes", explanation="says who", by="human", identifier="mia")
        assert call(path, "copy", server.url).output == (
            f"0 spans and 0 runs, and 1 late score, forwarded to {server.url}\n"
        )
        db.agent_instances.finish(run.id, "complete")
        assert said(path, server.url) == (1, 0, 0, 0)
        db.scores.record(run.id, "of the run", 1)
        db.scores.record(step.id, "early", 0)
        assert said(path, server.url) == (0, 0, 2, 0)
        assert said(path, server.url) == (0, 0, 0, 0)
    with agentspan.open(path) as db, agentspan.open(copy) as other:
        for id in (run.id, step.id):
            assert other.scores.list(id, history=True) == db.scores.list(id, history=True)
        assert len(other.scores.list(step.id, history=True)) == 3


def test_late_scores_wait_for_a_target_that_takes_log_records(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db, Target() as target:
        run = db.agent_instances.register("a")
        db.agent_instances.start(run.id)
        step = db.agent_spans.create(run.id, "tool", "complete", {"name": "done"})
        assert forward(target.url, path).spans == 1
        db.scores.record(step.id, "late", 1)
        target.answers = [404]
        done = call(path, "copy", target.url)
        assert done.output.splitlines()[1] == "1 late score left out: the target has no /v1/logs"
        assert forward(target.url, path)[2:] == (1, 0)
        sent = [(path, headers, body) for path, headers, body in target.bodies if path == "/v1/logs"]
    ((_, headers, body),) = sent
    (log,) = decode("logs", body, headers["Content-Type"], headers["Content-Encoding"]).logs
    assert log.event.name == "gen_ai.evaluation.result"
    assert log.event.attributes["gen_ai.evaluation.name"] == "late"


@pytest.mark.full
def test_a_late_score_of_a_run_that_is_not_there_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db, serving(tmp_path / "copy.db") as server:
        run = db.agent_instances.register("a")
        db.agent_instances.start(run.id)
        step = db.agent_spans.create(run.id, "tool", "complete", {"name": "done"})
        assert forward(server.url, path).spans == 1
        with agentspan.open(tmp_path / "copy.db") as other:
            assert other.prune(older_than="2100-01-01T00:00:00Z").runs == 0  # it is open
            other.agent_instances.terminate(run.id, "gone")
            other.prune(older_than="2100-01-01T00:00:00Z")
        db.scores.record(step.id, "late", 1)
        assert forward(server.url, path).late_scores == 1


class Target:
    """A backend that answers with these, then with 200."""

    def __init__(self, *answers: int) -> None:
        self.answers, self.bodies = [*answers], []  # type: ignore[var-annotated]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = outer.answers.pop(0) if outer.answers else 200
                if status == 200:
                    outer.bodies.append((self.path, dict(self.headers), body))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                if status == 503:
                    self.send_header("Retry-After", "7")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_retries_wait_longer_each_time_and_as_long_as_the_target_asks() -> None:
    waits: list[float] = []
    with Target(502, 429, 503, 504) as target:
        Sender(target.url, {}, pause=waits.append).send(b"x")
        assert waits == [0.5, 1.0, 7.0, 4.0]
        assert [path for path, _, _ in target.bodies] == ["/v1/traces"]
    with Target(400) as target, pytest.raises(ForwardingFailed, match="refused it with 400"):
        Sender(target.url, {}).send(b"x")
    with Target(302, 307) as target, pytest.raises(ForwardingFailed, match="refused it with 30"):
        Sender(target.url, {"Authorization": "Bearer x"}).send(b"x")
    waits.clear()
    with pytest.raises(ForwardingFailed, match=r"could not be reached.*tried 8 times"):
        Sender(target.url, {}, pause=waits.append).send(b"x")
    assert len(waits) == 7


@pytest.mark.parametrize(
    "to",
    [
        "ftp://x",
        "127.0.0.1:1",
        "http://",
        "http://x/?a=1",
        "http://x:abc",
        "http://x:99999",
        "http://u:p@x",
        "http://x y",
        "http://x/ü",
    ],
)
def test_no_address(to: str) -> None:
    with pytest.raises(InvalidValue, match="address"):
        Sender(to, {})


@pytest.mark.parametrize(("name", "value"), [("A", "s3cret\nB: c"), ("A", "日"), ("Ä", "b"), ("A b", "c"), ("A:", "b")])
def test_a_header_that_http_does_not_allow_is_refused_without_its_value(name: str, value: str) -> None:
    with pytest.raises(InvalidValue, match="headers: have a character that HTTP does not allow"):
        Sender("http://x", {name: value})


def test_a_state_that_is_no_file_of_the_kind_is_named(tmp_path: Path) -> None:
    record(tmp_path / "runs.db", 1)
    (tmp_path / "text").write_text("no database, but a text that is long enough to be read as one" * 99)
    for state in (tmp_path, tmp_path / "text", tmp_path / "none" / "state"):
        with pytest.raises(InvalidValue, match=f"state: {state} cannot be used"):
            forward("http://127.0.0.1:9", tmp_path / "runs.db", state=state)


def test_a_follower_of_a_target_that_is_away_can_be_stopped(tmp_path: Path) -> None:
    record(tmp_path / "runs.db", 1)
    with Target(*[503] * 9) as target:
        assert forward(target.url, tmp_path / "runs.db", follow=True, stop=lambda: len(target.answers) < 9) == (0,) * 4


def test_attributes_that_other_backends_read(tmp_path: Path) -> None:
    record(tmp_path / "runs.db", 1, 1)
    with Target() as target:
        forward(target.url, tmp_path / "runs.db")
        spans = [
            span
            for _, headers, body in target.bodies
            for span in decode("traces", body, headers["Content-Type"], headers["Content-Encoding"]).spans
        ]
    by_name = {span.name: span for span in spans}
    llm, root = by_name["chat gpt-4.1"], by_name["invoke_agent agent 0"]
    assert llm.attributes["gen_ai.request.model"] == "gpt-4.1"
    assert llm.attributes["gen_ai.usage.input_tokens"] == 9
    assert json.loads(llm.attributes["gen_ai.input.messages"])[0]["parts"] == [{"type": "text", "content": "hi ☃"}]
    assert {span.attributes["openinference.span.kind"] for span in spans} == {"AGENT", "LLM", "TOOL", "UNKNOWN"}
    assert root.parent_span_id is None
    assert {span.trace_id for span in spans} == {root.trace_id}
    assert llm.attributes["session.id"] == root.attributes["gen_ai.conversation.id"] == "s1"
    assert root.resource["service.name"] == "agent 0"


def test_the_export_is_the_collectors_file_format_and_makes_the_same_runs(tmp_path: Path) -> None:
    path, copy, file = tmp_path / "runs.db", tmp_path / "copy.db", tmp_path / "spans.jsonl"
    record(path)
    assert call(path, "export", "all", "--format", "otlp", "-o", str(file)).exit_code == 0
    requests = [json.loads(line) for line in file.read_text().splitlines()]
    assert all([*request] == ["resourceSpans"] for request in requests)
    assert all(trace_request(request) and protobuf_of(request) for request in requests)
    assert call(copy, "import", "--from", "otlp", str(file)).output == "3 runs and 48 spans imported\n"
    assert shown(copy) == shown(path)


def test_times_that_otlp_cannot_hold_are_the_nearest_ones(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        run = db.agent_instances.register("a").id
        span = db.agent_spans.create(run, "tool", "complete", {}, started_at="0001-01-01T00:00:00Z")
        db.agent_instances.start(run)
        db.agent_instances.finish(run, timestamp="9999-12-31T23:59:59Z")
        requests = [*lines(db.storage, [run])]
    call(tmp_path / "copy.db", "import", "--from", "otlp", "-", stdin="\n".join(requests))
    with agentspan.open(tmp_path / "copy.db", read_only=True) as db:
        assert str(db.agent_spans.get(span.id).started_at) == "1970-01-01 00:00:00+00:00"
        assert db.agent_instances.get(run).status == "complete"
    assert all(trace_request(json.loads(request)) for request in requests)


def stored_spans(path: Path) -> int:
    """The number of spans in a file that a server writes into."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as connection:
        return int(connection.execute("select count(*) from agent_spans").fetchone()[0])


def wait_for_more(copy: Path, spans: int) -> None:
    """Wait until more spans have come, or all of them."""
    before = stored_spans(copy)
    until(lambda: before == spans or stored_spans(copy) > before)


@pytest.mark.full
def test_either_side_may_be_killed(tmp_path: Path) -> None:
    """`AGENTSPAN_TEST_KILLS=5` kills each of them five times while it forwards 10,000 spans."""
    path, copy = tmp_path / "runs.db", tmp_path / "copy.db"
    rounds = longer("AGENTSPAN_TEST_KILLS", 1, 1, 5)
    runs = 12 if rounds == 1 else 50 * rounds
    record(path, runs, 10)
    chance = random.Random(5)
    server = Server(copy)
    port = server.port
    for _ in range(rounds):
        sender = process(path, "copy", f"http://127.0.0.1:{port}", "--follow")
        for side in ("server", "sender"):
            wait_for_more(copy, runs * 40)
            time.sleep(chance.uniform(0.0, 0.02))
            if side == "server":
                server.kill()
                server = Server(copy, "--port", str(port))
        sender.send_signal(signal.SIGKILL)
        sender.communicate()
    said = json.loads(call(path, "copy", server.url, "--json").output)
    assert server.end() == 0
    assert said["spans"] > 0 or rounds == 1, "the last kill came before all was sent"
    assert counts(copy) == counts(path) == (runs, runs * 40)
    assert shown(copy) == shown(path)
