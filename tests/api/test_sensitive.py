"""Values that are marked as sensitive: never stored, whichever way they come, and still checked and summed up."""

import json
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Database
from agentspan.journal.journal_folder import is_possible

MAIL = "mia@example.com"
WRAPPER = {"$sensitive": "string", "labels": ["email"], "value": MAIL}
HIDDEN = {**WRAPPER, "value": "[redacted]"}
TYPES = [
    {
        "name": "mail",
        "params_schema": {
            "type": "object",
            "properties": {"to": {"type": "string", "format": "email", "maxLength": 40}, "age": {"type": "number"}},
            "required": ["to"],
            "additionalProperties": False,
        },
        "result_schema": {"type": "object", "anyOf": [{"properties": {"n": {"const": 1}}}, {"required": ["m"]}]},
        "template": "to {{to}}",
    }
]


def everything_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def registered(db: Database) -> str:
    run = db.agent_instances.register("a", agent_schema_version={"span_type_schemas": TYPES})
    db.agent_instances.start(run.id)
    return run.id


def test_a_value_is_replaced_and_its_type_and_labels_stay(db: Database) -> None:
    run = registered(db)
    span = db.agent_spans.create(run, "mail", "active", {"to": WRAPPER})
    assert (span.payload, span.sensitive_encoding, span.summary) == ({"to": HIDDEN}, True, "to [redacted]")
    deep = {"list": [1, {"of": [WRAPPER, "x"]}], "n": 1.0}
    span = db.agent_spans.finish(span.id, result_payload=deep)
    assert span.result_payload == {"list": [1, {"of": [HIDDEN, "x"]}], "n": 1.0}
    assert db.agent_spans.get(span.id).sensitive_encoding


@pytest.mark.parametrize("payload", [{}, {"to": "$sensitive"}, {"to": {"$sensitive": 1}}, {"$sensitive": "string"}])
def test_without_a_wrapper_the_payload_stays_and_the_flag_is_what_was_sent(db: Database, payload: Any) -> None:
    run = registered(db)
    assert not db.agent_spans.create(run, "x", "active", payload).sensitive_encoding
    sent = db.agent_spans.create(run, "x", "active", payload, sensitive_encoding=True)
    assert (sent.payload, sent.sensitive_encoding) == (payload, True)
    span = db.agent_spans.create(run, "x", "active", payload)
    assert db.agent_spans.finish(span.id, sensitive_encoding=True).sensitive_encoding


def test_a_flag_that_is_no_boolean_is_refused(db: Database) -> None:
    with pytest.raises(agentspan.AgentspanError) as caught:
        db.agent_spans.create(registered(db), "x", "active", sensitive_encoding="yes")  # type: ignore[arg-type]
    assert caught.value.code == "invalid_value"


def test_what_is_not_there_conforms_and_the_rest_is_checked(db: Database) -> None:
    run = registered(db)
    number = {"$sensitive": "number", "labels": [], "value": 41}
    span = db.agent_spans.create(run, "mail", "active", {"to": WRAPPER, "age": number})
    db.agent_spans.finish(span.id, result_payload={"n": number})  # `anyOf` may hold or not
    assert db.agent_spans.violations(span.id) == []
    span = db.agent_spans.create(run, "mail", "active", {"age": number, "more": 1})
    assert [each.keyword for each in db.agent_spans.violations(span.id)] == ["additionalProperties", "required"]
    span = db.agent_spans.finish(span.id, result_payload={"n": 2})
    assert [each.keyword for each in db.agent_spans.violations(span.id)][2:] == ["anyOf"]


def test_a_request_is_compared_as_it_was_sent(db: Database) -> None:
    run = registered(db)
    first = db.agent_spans.create(run, "mail", "active", {"to": WRAPPER}, idempotency_key="k-1")
    again = db.agent_spans.create(run, "mail", "active", {"to": WRAPPER}, idempotency_key="k-1")
    assert again.id == first.id
    other = {**WRAPPER, "value": "tom@example.com"}
    with pytest.raises(agentspan.AgentspanError) as caught:
        db.agent_spans.create(run, "mail", "active", {"to": other}, idempotency_key="k-1")
    assert caught.value.code == "idempotency_key_already_used"


def test_bulk_metadata_and_evaluations(db: Database) -> None:
    schemas = {"quality_schemas": [{"name": "tone", "schema": True, "template": "by {{by}}"}]}
    run = db.agent_instances.register("a", agent_schema_version=schemas, metadata={"user": WRAPPER})
    assert run.metadata == {"user": HIDDEN}
    scored = db.agent_instances.record_quality(run.id, "tone", {"by": WRAPPER})
    assert scored.quality_payloads == {"tone": {"by": HIDDEN}}
    assert scored.quality_summaries == {"tone": "by [redacted]"}
    details = {
        "agent_instance_id": run.id,
        "schema_name": "x",
        "status": "active",
        "payload": {"to": WRAPPER},
        "sensitive_encoding": True,
    }
    answer = db.bulk([{"_type": "agent_spans/create", "idempotency_key": "create-1", "details": details}])
    made = answer["create-1"]["details"]
    assert (made["payload"], made["sensitive_encoding"]) == ({"to": HIDDEN}, True)
    finish = {"_type": "agent_spans/finish", "idempotency_key": "finish-1", "agent_span_id": made["id"]}
    answer = db.bulk([{**finish, "result_payload": {"from": WRAPPER}}])
    assert answer["finish-1"]["details"]["result_payload"] == {"from": HIDDEN}


def test_who_wants_to_keep_the_values_can(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db", sensitive="keep") as db:
        span = db.agent_spans.create(registered(db), "mail", "active", {"to": WRAPPER})
        assert (span.payload, span.sensitive_encoding, span.summary) == ({"to": WRAPPER}, True, f"to {MAIL}")
    with pytest.raises(agentspan.errors.InvalidValue, match="sensitive"):
        agentspan.open(tmp_path / "runs.db", sensitive="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("redact", ["credentials", None])
@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_recording_stores_no_value_anywhere(tmp_path: Path, durability: Any, redact: Any) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", durability=durability, redact=redact, raise_errors=True)

    @tracer.span("mail")
    def send(to: dict[str, Any]) -> dict[str, Any]:
        return {"sent": [to]}

    with tracer.run("a", metadata={"user": WRAPPER}) as run:
        send(WRAPPER)
        with tracer.span("tool", {"name": "x"}) as span:
            span.update_payload({"name": "y", "to": WRAPPER})
            span.set_result({"sent": True})
        with tracer.span("tool", {"name": "plain"}):
            assert MAIL.encode() not in everything_of(tmp_path)
    tracer.shutdown()
    assert MAIL.encode() not in everything_of(tmp_path)
    with agentspan.open(tmp_path / "runs.db", read_only=True) as db:
        called, block, plain = db.agent_spans.list(run.id)
        assert called.payload == {"to": HIDDEN}
        assert called.result_payload == {"sent": [HIDDEN]}
        assert block.payload == {"name": "y", "to": HIDDEN}
        assert db.agent_instances.get(run.id).metadata == {"user": HIDDEN}
        assert [span.sensitive_encoding for span in (called, block, plain)] == [True, True, False]


@pytest.mark.skipif(not is_possible(), reason="needs a journal")
def test_recording_keeps_the_values_where_that_was_asked_for(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", sensitive="keep", raise_errors=True)
    with tracer.run("a") as run, tracer.span("tool", {"name": "x", "to": WRAPPER}):
        pass
    tracer.shutdown()
    with agentspan.open(tmp_path / "runs.db", read_only=True) as db:
        (span,) = db.agent_spans.list(run.id)
        assert (span.payload, span.sensitive_encoding) == ({"name": "x", "to": WRAPPER}, True)
    with pytest.raises(agentspan.errors.InvalidValue, match="sensitive"):
        agentspan.Tracer(tmp_path / "runs.db", sensitive="no")  # type: ignore[arg-type]


def test_a_wrapper_at_each_depth_is_found(db: Database) -> None:
    run = registered(db)
    for depth in (1, 100, 250, 495):
        payload: Any = WRAPPER
        for number in range(depth):
            payload = [payload] if number % 2 else {"a": payload}
        span = db.agent_spans.create(run, "x", "active", {"a": payload})
        assert MAIL not in json.dumps(span.payload)
        assert span.sensitive_encoding
