"""Idempotency keys: the same request again changes nothing and succeeds, another one is refused."""

import contextlib
import inspect
import sqlite3
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import AgentInstance, Database
from agentspan.api.context import Context
from agentspan.api.facade import InstanceFields
from agentspan.api.runs import RegisterInstance
from agentspan.api.spans import CreateSpan
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf


@pytest.fixture
def run(db: Database) -> AgentInstance:
    return db.agent_instances.register("an-agent")


def code_of(call: Any) -> str:
    with pytest.raises(agentspan.AgentspanError) as caught:
        call()
    return caught.value.code


def test_a_create_sent_again_is_the_same_span(db: Database, run: AgentInstance) -> None:
    first = db.agent_spans.create(run.id, "tool", "active", {"a": 1, "b": [2]}, idempotency_key="k")
    again = db.agent_spans.create(run.id, "tool", "active", {"b": [2], "a": 1}, idempotency_key="k")
    assert again == first
    assert len(db.agent_spans.list(run.id)) == 1


def test_a_create_with_its_own_id_sent_again_is_the_replay(db: Database, run: AgentInstance) -> None:
    own = "013xrzp12g3nqk8n4evtrcj59k8dhn3t"
    first = db.agent_spans.create(run.id, "tool", "active", id=own, idempotency_key="k")
    assert db.agent_spans.create(run.id, "tool", "active", id=own, idempotency_key="k") == first


def test_a_finish_sent_again_after_it_succeeded_succeeds(db: Database, run: AgentInstance) -> None:
    span = db.agent_spans.create(run.id, "tool", "active")
    done = db.agent_spans.finish(span.id, result_payload={"output": 1}, idempotency_key="f")
    assert db.agent_spans.finish(span.id, "complete", {"output": 1}, idempotency_key="f") == done
    assert code_of(lambda: db.agent_spans.finish(span.id, result_payload={"output": 1})) == "invalid_action"


def test_a_replay_answers_with_the_resource_as_it_is_now(db: Database, run: AgentInstance) -> None:
    span = db.agent_spans.create(run.id, "tool", "active", idempotency_key="k")
    done = db.agent_spans.finish(span.id)
    assert db.agent_spans.create(run.id, "tool", "active", idempotency_key="k") == done


@pytest.mark.parametrize(
    "change",
    [{"payload": {"a": 2}}, {"status": "pending"}, {"schema_name": "llm"}, {"id": "013xrzp12g3nqk8n4evtrcj59k8dhn3t"}],
)
def test_another_request_under_the_key_is_refused(db: Database, run: AgentInstance, change: Any) -> None:
    request = {"schema_name": "tool", "status": "active", "payload": {"a": 1}}
    db.agent_spans.create(run.id, **request, idempotency_key="k")  # type: ignore[arg-type]
    call = lambda: db.agent_spans.create(run.id, **{**request, **change}, idempotency_key="k")  # noqa: E731
    assert code_of(call) == "idempotency_key_already_used"
    assert len(db.agent_spans.list(run.id)) == 1


def test_the_path_id_and_the_time_belong_to_the_request(db: Database, run: AgentInstance) -> None:
    one, two = (db.agent_spans.create(run.id, "tool", "active") for _ in range(2))
    at = datetime(2099, 1, 1, tzinfo=UTC)
    db.agent_spans.finish(one.id, timestamp=at, idempotency_key="f")
    assert (
        code_of(lambda: db.agent_spans.finish(two.id, timestamp=at, idempotency_key="f"))
        == "idempotency_key_already_used"
    )
    assert code_of(lambda: db.agent_spans.finish(one.id, idempotency_key="f")) == "idempotency_key_already_used"
    db.agent_spans.finish(one.id, timestamp="2099-01-01T01:00:00+01:00", idempotency_key="f")
    assert db.agent_spans.get(two.id).status == "active"


OF_A_SERVICE = {"owner_person_id": "p", "team_id": "t", "risk_profile_id": "r"}
OWN = "013xrzp12g3nqk8n4evtrcj59k8dhn3t"
AT = "2099-01-01T00:00:00Z"
SCHEMAS = {"llm": {"type": "object"}}
REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "agent_instances.register": (
        {"agent_id": "an-agent"},
        {
            "agent_id": "another",
            "agent_version": {"name": "2"},
            "agent_schema_version": {"span_schemas": SCHEMAS},
            "id": OWN,
            "update_current_version": True,
            "purpose": "eval",
            "metadata": {"a": 1},
            "external_identifier": "x",
            "session": "s",
            "user": "u",
            "task": "t",
            "tags": ["a"],
        },
    ),
    "agent_instances.start": ({"agent_instance_id": "run"}, {"agent_instance_id": "other run", "timestamp": AT}),
    "agent_instances.finish": (
        {"agent_instance_id": "run"},
        {"agent_instance_id": "other run", "status": "failed", "timestamp": AT},
    ),
    "agent_instances.terminate": (
        {"agent_instance_id": "run", "reason": "a"},
        {"agent_instance_id": "other run", "reason": "b"},
    ),
    "agent_instances.update": (
        {"agent_instance_id": "run", "session": "s"},
        {
            "agent_instance_id": "other run",
            "quality_payload": {"a": 1},
            "metadata": {"a": 1},
            "session": "other",
            "user": "u",
            "task": "t",
            "tags": ["a"],
        },
    ),
    "agent_instances.record_quality": (
        {"agent_instance_id": "run", "name": "a", "payload": {}},
        {"agent_instance_id": "other run", "name": "b", "payload": {"a": 1}},
    ),
    "agent_spans.create": (
        {"agent_instance_id": "run", "schema_name": "tool", "status": "complete"},
        {
            "agent_instance_id": "other run",
            "schema_name": "llm",
            "status": "failed",
            "payload": {"a": 1},
            "result_payload": {"a": 1},
            "id": OWN,
            "parent_span_id": "span",
            "started_at": AT,
            "finished_at": AT,
            "sensitive_encoding": True,
        },
    ),
    "agent_spans.start": ({"agent_span_id": "pending"}, {"agent_span_id": "span", "timestamp": AT}),
    "agent_spans.finish": (
        {"agent_span_id": "span"},
        {
            "agent_span_id": "pending",
            "status": "failed",
            "result_payload": 1,
            "timestamp": AT,
            "sensitive_encoding": True,
        },
    ),
    "agents.create": (
        {"name": "a"},
        {"name": "b", "description": "d", "external_identifier": "x", "id": OWN, **OF_A_SERVICE},
    ),
    "agents.update": (
        {"agent_id": "agent", "name": "a"},
        {"agent_id": "other", "name": "b", "description": "d", **OF_A_SERVICE},
    ),
    "agents.retire": ({"agent_id": "agent"}, {"agent_id": "other"}),
    "agents.reinstate": ({"agent_id": "agent"}, {"agent_id": "other"}),
    "agent_schema_versions.create": (
        {"agent_id": "agent"},
        {
            "agent_id": "other",
            "external_identifier": "x",
            "span_type_schemas": [{"name": "llm"}],
            "span_schemas": SCHEMAS,
            "span_result_schemas": SCHEMAS,
            "quality_schemas": [{"name": "q", "schema": {"type": "object"}}],
            "quality_schema": {"type": "object"},
        },
    ),
    "scores.record": (
        {"target_id": "span", "name": "reward", "value": 1.0},
        {
            "target_id": "run",
            "name": "other",
            "value": 2.0,
            "label": "l",
            "explanation": "e",
            "by": "human",
            "identifier": "i",
            "withdraw": True,
        },
    ),
}
"""For each operation with a key a request, and for each of its parameters another value. Ids by what they name."""


@pytest.mark.parametrize("operation", REQUESTS)
def test_each_parameter_belongs_to_the_request(db: Database, operation: str) -> None:
    table, method = operation.split(".")
    call = getattr(getattr(db, table), method)
    run, other_run = (db.agent_instances.register(name) for name in ("one", "two"))
    ids = {"run": run.id, "other run": other_run.id, "agent": run.agent_id, "other": other_run.agent_id}
    for name, status in (("span", "active"), ("pending", "pending")):
        ids[name] = db.agent_spans.create(run.id, "tool", status).id  # type: ignore[arg-type]
    asked, others = ({name: ids.get(str(value), value) for name, value in each.items()} for each in REQUESTS[operation])
    if method in ("finish", "terminate", "record_quality") and table == "agent_instances":
        db.agent_instances.start(run.id)
    if method == "reinstate":
        db.agents.retire(run.agent_id)
    call(**asked, idempotency_key="k")
    assert call(**asked, idempotency_key="k")
    for name, value in others.items():
        changed = {**asked, name: value, **({"value": None} if name == "withdraw" else {})}
        assert code_of(partial(call, **changed, idempotency_key="k")) == "idempotency_key_already_used", name


def test_each_operation_with_a_key_has_a_request_above(db: Database) -> None:
    with_key = {}
    for table in ("agent_instances", "agent_spans", "agents", "agent_schema_versions", "scores"):
        for method, function in inspect.getmembers(getattr(db, table), inspect.ismethod):
            parameters = {*inspect.signature(function).parameters}
            if "idempotency_key" in parameters:
                parameters |= {*InstanceFields.__annotations__} if "fields" in parameters else set()
                # There is one environment in a file: another is refused before the key is looked at.
                with_key[f"{table}.{method}"] = parameters - {"idempotency_key", "environment_id", "fields"}
    assert with_key == {operation: {*others} for operation, (_, others) in REQUESTS.items()}


def test_a_key_is_scoped_by_its_operation(db: Database, run: AgentInstance) -> None:
    span = db.agent_spans.create(run.id, "tool", "pending", idempotency_key="k")
    db.agent_spans.start(span.id, idempotency_key="k")
    db.agent_spans.finish(span.id, idempotency_key="k")
    db.agent_instances.start(run.id, idempotency_key="k")
    db.agent_instances.finish(run.id, idempotency_key="k")
    other = db.agent_instances.register("an-agent", idempotency_key="k")
    agent = db.agents.create("a", idempotency_key="k")
    version = db.agent_schema_versions.create(run.agent_id, span_schemas={"x": True}, idempotency_key="k")
    assert db.agent_spans.get(span.id).status == "complete"
    assert db.agent_instances.get(run.id).status == "complete"
    assert len({span.id, run.id, other.id, agent.id, version.id}) == 5


def test_a_refused_request_stores_no_key(db: Database, run: AgentInstance) -> None:
    span = db.agent_spans.create(run.id, "tool", "pending")
    assert code_of(lambda: db.agent_spans.finish(span.id, idempotency_key="f")) == "invalid_action"
    db.agent_spans.start(span.id)
    assert db.agent_spans.finish(span.id, idempotency_key="f").status == "complete"


@pytest.mark.parametrize("key", ["", "x" * 65, 5, "a\nb"])
def test_a_key_has_a_form(db: Database, run: AgentInstance, key: Any) -> None:
    assert code_of(lambda: db.agent_spans.create(run.id, "tool", "active", idempotency_key=key)) == "invalid_value"
    assert db.agent_spans.create(run.id, "tool", "active", idempotency_key="x" * 64)


def test_instances_and_their_transitions_replay(db: Database) -> None:
    first = db.agent_instances.register("a", agent_version={"name": "1"}, idempotency_key="r")
    assert db.agent_instances.register("a", agent_version={"name": "1"}, idempotency_key="r") == first
    assert code_of(lambda: db.agent_instances.register("b", idempotency_key="r")) == "idempotency_key_already_used"
    started = db.agent_instances.start(first.id, idempotency_key="s")
    assert db.agent_instances.start(first.id, idempotency_key="s") == started
    done = db.agent_instances.finish(first.id, "failed", idempotency_key="f")
    assert db.agent_instances.finish(first.id, "failed", idempotency_key="f") == done
    assert len(db.agent_instances.list()) == 1


def test_a_replay_is_one_although_the_parent_and_the_instance_are_known_by_now(
    db: Database, run: AgentInstance
) -> None:
    parent = db.agent_spans.create(run.id, "agent", "active")
    first = db.agent_spans.create(run.id, "tool", "active", parent_span_id=parent.id, idempotency_key="k")
    assert db.agent_spans.create(run.id, "tool", "active", parent_span_id=parent.id, idempotency_key="k") == first
    another = lambda: db.agent_spans.create(run.id, "tool", "active", idempotency_key="k")  # noqa: E731
    assert code_of(another) == "idempotency_key_already_used"
    assert len(db.agent_spans.list(run.id)) == 2


@pytest.mark.parametrize("parent", ["013xrzp12g3nqk8n4evtrcj59k8dhn3t", "no id", 5, {"a": 1}])
def test_a_parent_that_is_none_is_not_found_although_the_instance_is_known(
    db: Database, run: AgentInstance, parent: Any
) -> None:
    db.agent_spans.create(run.id, "tool", "active")
    call = lambda: db.agent_spans.create(run.id, "tool", "active", parent_span_id=parent, idempotency_key="k")  # noqa: E731
    assert code_of(call) == "not_found"
    assert code_of(lambda: db.agent_spans.create(run.id, "tool", "active", parent_span_id=run.id)) == (
        "unexpected_ref_type"
    )
    assert len(db.agent_spans.list(run.id)) == 1
    db.agent_spans.create(run.id, "tool", "active", idempotency_key="k")  # what was refused has not used it


def test_an_instance_that_is_gone_is_not_found_although_it_was_known(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        run = db.agent_instances.register("an-agent")
        span = db.agent_spans.create(run.id, "tool", "active")
        with sqlite3.connect(tmp_path / "runs.db") as other:
            other.execute("delete from agent_spans where id = ?", (span.id,))
            other.execute("delete from agent_instances where id = ?", (run.id,))
        other.close()
        assert code_of(lambda: db.agent_spans.create(run.id, "tool", "active")) == "not_found"


def test_what_was_rolled_back_is_not_taken_for_known(storage: Storage) -> None:
    if not isinstance(storage, agentspan.SQLiteStorage):
        return
    ctx = Context(storage)
    own = "013xrzp12g3nqk8n4evtrcj59k8dhn3t"

    def record(context: Context) -> Any:
        RegisterInstance({"agent_id": "an-agent", "id": own}).run(context)
        for _ in range(2):  # the second one knows the instance
            done = CreateSpan({"agent_instance_id": own, "schema_name": "step", "status": "active"}).run(context)
        return done.row

    lost: list[Any] = []

    def work(group: Storage) -> None:
        lost.append(record(ctx.within(group)))
        raise ZeroDivisionError

    with contextlib.suppress(ZeroDivisionError):
        storage.group(work, 1.0)
    row = record(ctx)
    assert row.agent_id != lost[0].agent_id
    assert row.agent_id == ctx.row(AgentInstanceRow, own).agent_id
    assert {span.agent_id for span in storage.ask(SpansOf(own))} == {row.agent_id}


def test_a_keyed_create_under_a_known_parent_is_four_statements(tmp_path: Path) -> None:
    storage = agentspan.SQLiteStorage(tmp_path / "runs.db")
    with agentspan.open(storage) as db:
        run = db.agent_instances.register("an-agent")
        parent = db.agent_spans.create(run.id, "agent", "active")
        statements: list[str] = []
        storage.direct._connections.writer().set_trace_callback(statements.append)
        storage.direct._connections._readers[0].set_trace_callback(statements.append)
        db.agent_spans.create(run.id, "step", "active", parent_span_id=parent.id, idempotency_key="k")
        words = [statement.split()[:3] for statement in statements]
        assert words == [
            ["begin", "immediate"],
            ["insert", "into", "idempotency_keys"],
            ["select", "1", "from"],  # the agent,
            ["select", "1", "from"],  # and the parent
            ["insert", "into", "agent_spans"],
            ["commit"],
        ]
