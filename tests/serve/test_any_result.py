"""Results that are no JSON object are stored, by id and over HTTP, and everything that reads runs shows them."""

import json
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Database
from agentspan.serve.app import create_app
from agentspan.storage.questions import SpansOf
from agentspan.testing import load
from agentspan.viewer import conversation, data
from tests.cli.calling import call
from tests.serve.asgi import Client
from tests.serve.servers import details, refusal

API = "/api/v1"
RESULTS: list[Any] = [
    "findme text", "", "error", "\ud800", 5, 0, 2.5, 10**30, True, False, [],
    [1, "two", None, {"error": {"message": "x"}}], [[["deep"]]],
]  # fmt: skip


def span_in(db: Database, schema_name: str = "llm") -> str:
    run = db.agent_instances.register("a", agent_schema_version={"span_type_schemas": [TYPE]}).id
    db.agent_instances.start(run)
    return db.agent_spans.create(run, schema_name, "active", {"model": "m", "findme": 1}).id


TYPE = {"name": "counted", "result_schema": {"type": "object"}, "template": "{{findme}} {{_status}} {{_error}}"}


@pytest.mark.parametrize("status", ["complete", "failed"])
@pytest.mark.parametrize("result", RESULTS)
def test_a_result_of_any_json_is_stored_by_id(db: Database, result: Any, status: Any) -> None:
    span = span_in(db)
    done = db.agent_spans.finish(span, status, result)
    assert (done.status, done.result_payload) == (status, result)
    assert type(db.agent_spans.get(span).result_payload) is type(result)
    whole = db.agent_spans.create(done.agent_instance_id, "llm", status, {}, result)
    assert db.agent_spans.get(whole.id).result_payload == result
    (*_, last) = db.agent_instances.agent_context(done.agent_instance_id)["spans"]
    assert last["result_payload"] == result


@pytest.mark.full
@pytest.mark.parametrize("result", RESULTS)
def test_a_result_of_any_json_is_stored_over_http_and_in_bulk(tmp_path: Path, result: Any) -> None:
    with agentspan.open(tmp_path / "runs.db") as db, Client(create_app(db)) as client:

        def post(path: str, body: Any) -> Any:
            headers = {"Content-Type": "application/json"}
            return client.post(API + path, content=json.dumps(body).encode(), headers=headers)

        span = span_in(db)
        body = {"result_payload": result, "idempotency_key": "key-1"}
        done = details(post(f"/agent_spans/{span}/finish", body))
        assert done["result_payload"] == result
        assert details(post(f"/agent_spans/{span}/finish", body)) == done
        assert details(client.get(f"{API}/agent_spans/{span}"))["result_payload"] == result
        run = done["agent_instance_id"]
        fields = {"agent_instance_id": run, "schema_name": "llm", "status": "failed", "result_payload": result}
        assert details(post("/agent_spans", {"details": fields}))["result_payload"] == result
        item = {"_type": "agent_spans/create", "idempotency_key": "a-bulk-key", **fields}
        output = post("/bulk", {"items": [item]}).json()["outputs"]["a-bulk-key"]
        assert output["details"]["result_payload"] == result
        listed = client.get(f"{API}/agent_spans?agent_instance_id={run}").json()["summaries"]
        assert [each["result_payload"] for each in listed] == [result] * 3
        body = client.get(f"{API}/agent_instance/{run}/agent_context").json()["agent_context"]["body"]
        assert [each["result_payload"] for each in body["spans"]] == [result] * 3
        # The viewer
        for path in ("facts", "spans", "conversation", "stats", "search?text=findme", "export", f"spans/{span}"):
            assert client.get(f"/runs/{run}/{path}").status_code == 200, path
        shown = client.get(f"/runs/{run}/spans/{span}").json()["result_payload"]
        assert json.loads(shown) == result


def test_null_is_no_result(db: Database) -> None:
    span = span_in(db)
    assert db.agent_spans.finish(span, "complete", None).result_payload is None


def test_a_result_that_is_no_object_is_checked_and_summed_up(db: Database) -> None:
    for result in RESULTS:
        done = db.agent_spans.finish(span_in(db, "counted"), "failed", result)
        assert done.summary == "1 failed"
        (violation,) = db.agent_spans.violations(done.id)
        assert (violation.side, violation.path, violation.keyword) == ("result_payload", "$", "type")


@pytest.mark.parametrize("result", ["x" * 3, ["a"] * 3])
def test_a_result_that_is_nested_too_deep_is_refused(db: Database, result: Any) -> None:
    for _ in range(501):
        result = [result]
    with pytest.raises(agentspan.InvalidValue):
        db.agent_spans.finish(span_in(db), "complete", result)


@pytest.mark.parametrize("wrong", [float("nan"), [float("inf")], object()])
def test_a_result_that_is_no_json_is_refused(db: Database, wrong: Any) -> None:
    with pytest.raises(agentspan.InvalidValue):
        db.agent_spans.finish(span_in(db), "complete", wrong)


@pytest.mark.full
@pytest.mark.parametrize("value", ["mia@example.com", ["mia@example.com"], 5, None])
def test_a_payload_or_result_that_is_sensitive_as_a_whole_is_stored(tmp_path: Path, value: Any) -> None:
    whole = {"$sensitive": "string", "labels": ["email"], "value": value}
    kept = {**whole, "value": "[redacted]"}
    with agentspan.open(tmp_path / "runs.db") as db, Client(create_app(db)) as client:
        run = db.agent_instances.register("a").id
        fields = {"agent_instance_id": run, "schema_name": "llm", "status": "active", "payload": whole}
        made = details(client.post(f"{API}/agent_spans", json={"details": fields}))
        assert (made["payload"], made["sensitive_encoding"]) == (kept, True)
        done = details(client.post(f"{API}/agent_spans/{made['id']}/finish", json={"result_payload": whole}))
        assert (done["payload"], done["result_payload"]) == (kept, kept)
        listed = {"agent_instance_id": run, "schema_name": "llm", "status": "failed", "result_payload": [whole, 1]}
        assert details(client.post(f"{API}/agent_spans", json={"details": listed}))["result_payload"] == [kept, 1]
    assert call(tmp_path / "runs.db", "rederive").exit_code == 0


def test_a_text_as_result_is_redacted_over_http(tmp_path: Path) -> None:
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    with agentspan.open(tmp_path / "runs.db") as db, Client(create_app(db)) as client:
        run = db.agent_instances.register("a").id
        for result in (f"aws_secret_access_key={secret}", [f"aws_secret_access_key={secret}"]):
            fields = {"agent_instance_id": run, "schema_name": "llm", "status": "failed", "result_payload": result}
            assert secret not in client.post(f"{API}/agent_spans", json={"details": fields}).text


def test_a_payload_must_still_be_an_object(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db, Client(create_app(db)) as client:
        run = db.agent_instances.register("a").id
        fields = {"agent_instance_id": run, "schema_name": "llm", "status": "active", "payload": ["x"]}
        assert refusal(client.post(f"{API}/agent_spans", json={"details": fields})) == (422, "validation_errors")
        with pytest.raises(agentspan.InvalidValue):
            db.agent_spans.create(run, "llm", "active", ["x"])  # type: ignore[arg-type]


@pytest.mark.full
@pytest.mark.parametrize("status", ["complete", "failed"])
def test_every_command_shows_a_result_of_any_json(tmp_path: Path, status: Any) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a").id
        db.agent_instances.start(run)
        for result in RESULTS:
            for schema_name in ("llm", "tool", "agent", "own"):
                db.agent_spans.create(run, schema_name, status, {"name": "n"}, result)
        db.agent_instances.finish(run)
        for row in db.storage.ask(SpansOf(run)):
            conversation.of_span(row)
            data.detail(db.storage, row)
        conversation.of_run(db.storage.ask(SpansOf(run)))
        last = row.id
    commands = [
        ["runs"], ["show", run], ["show", run, "--payloads", "--full"], ["show", run, "--json"], ["tail", run, "--one"],
        ["show", last], ["show", last, "--json"], ["stats"], ["search", "findme"], ["sql", "select * from spans"],
        ["rederive"], ["doctor"], ["export", run, "--format", "jsonl", "--output", str(tmp_path / "run.jsonl")],
        ["export", run, "--format", "markdown", "--output", str(tmp_path / "run.md")],
        ["export", run, "--format", "html", "--output", str(tmp_path / "run.html")],
    ]  # fmt: skip
    for command in commands:
        result = call(path, *command)
        assert result.exit_code == 0, (command, result.output)
    assert '"deep"' in call(path, "show", last).output
    with load(path) as runs:
        assert [span.result for span in runs.one().spans][::4] == RESULTS
        assert all(span.error is None for span in runs.one().spans)
        assert str(runs.one())
    other = tmp_path / "other.db"
    assert call(other, "import", str(tmp_path / "run.jsonl")).exit_code == 0
    with agentspan.open(other) as copied, agentspan.open(path) as db:
        assert list(copied.storage.ask(SpansOf(run))) == list(db.storage.ask(SpansOf(run)))
        assert [json.loads(row.result_payload or "") for row in copied.storage.ask(SpansOf(run))][::4] == RESULTS
