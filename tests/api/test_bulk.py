"""Several operations in one request, in both backends: in order, each whole, up to the first that is refused."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Database
from agentspan.api import bulk
from agentspan.api.agents import ShowAgent
from agentspan.api.context import Context


def item(type_: str, number: int, **fields: Any) -> dict[str, Any]:
    return {"_type": type_, "idempotency_key": f"item-{number:04}", **fields}


def a_run(db: Database) -> list[dict[str, Any]]:
    run, span = db.pfids(2)
    return [
        item("agent_instances/register", 1, agent_id="a", id=run, agent_version={}, agent_schema_version={}),
        item("agent_instances/start", 2, agent_instance_id=run),
        item(
            "agent_spans/create",
            3,
            details={"id": span, "agent_instance_id": run, "schema_name": "llm", "status": "active"},
        ),
        item("agent_spans/finish", 4, agent_span_id=span, result_payload={"text": "x"}),
        item("agent_instances/finish", 5, agent_instance_id=run, status="complete"),
        item("agent_spans/list", 6, agent_instance_id=run, pagination={"page_size": 10}),
    ]


def test_later_items_see_what_earlier_ones_did(db: Database) -> None:
    outputs = db.bulk(a_run(db))
    assert list(outputs) == [f"item-{number:04}" for number in range(1, 7)]
    assert {output["status"] for output in outputs.values()} == {"success"}
    assert outputs["item-0005"]["details"]["span_counts"]["complete"] == 1
    assert outputs["item-0006"]["summaries"][0]["status"] == "complete"
    assert outputs["item-0006"]["pagination"]["item_count"] == 1
    assert "agent_schema_version" in outputs["item-0001"]
    assert db.agent_instances.list()[0].status == "complete"


def test_the_first_refusal_is_the_last_output_and_what_came_before_stays(db: Database) -> None:
    items = a_run(db)
    items.insert(4, item("agent_spans/finish", 9, agent_span_id=items[3]["agent_span_id"]))
    outputs = db.bulk(items)
    assert [output["status"] for output in outputs.values()] == ["success"] * 4 + ["error"]
    assert (outputs["item-0009"]["code"], outputs["item-0009"]["status"]) == ("invalid_action", "error")
    (run,) = db.agent_instances.list()
    assert (run.status, run.span_counts.complete) == ("active", 1)


def test_the_same_request_again_answers_the_same_and_changes_nothing(db: Database) -> None:
    items = a_run(db)
    first = db.bulk(items)
    again = db.bulk(items)
    assert again["item-0004"]["details"]["id"] == first["item-0004"]["details"]["id"]
    assert {output["status"] for output in again.values()} == {"success"}
    assert db.agent_instances.list().pagination.item_count == 1


def test_an_item_that_breaks_costs_no_other(db: Database) -> None:
    class Failing(ShowAgent):
        def __call__(self, ctx: Context) -> Any:
            raise RuntimeError("secret detail")

    items = a_run(db)
    items.insert(1, item("agents/show", 8, agent_id="x"))
    planned = bulk.plan(items)
    planned.items[1] = planned.items[1]._replace(operation=Failing)
    outputs = bulk.run(Context(db.storage), planned)
    assert [output["status"] for output in outputs.values()] == ["success", "error"]
    assert outputs["item-0008"]["code"] == "unexpected"
    assert "secret" not in str(outputs)
    assert len(db.agent_instances.list()) == 1


@pytest.mark.parametrize(
    "items",
    [
        None,
        [],
        {},
        "text",
        [3],
        [{"_type": "agent_spans/create"}],
        [{"_type": "agent_spans/create", "idempotency_key": "short"}],
        [{"_type": "agent_spans/create", "idempotency_key": "x" * 65}],
        [{"_type": "agents/delete", "idempotency_key": "long-enough"}],
        [{"_type": 3, "idempotency_key": "long-enough"}],
        [{"_type": "agents/list", "idempotency_key": "long-enough"}] * 2,
        [{"_type": "agents/list", "idempotency_key": f"number-{n:04}"} for n in range(1001)],
    ],
)
def test_a_request_that_is_none_does_nothing(db: Database, items: Any) -> None:
    with pytest.raises((agentspan.InvalidValue, agentspan.RequiredValue)):
        db.bulk(items)


@pytest.mark.parametrize("wrong", [3, {"offset": -1}, {"page_size": 0}, {"page_size": "x"}])
def test_a_page_that_is_none_is_refused(db: Database, wrong: Any) -> None:
    outputs = db.bulk([item("agents/list", 1, pagination=wrong)])
    assert outputs["item-0001"]["code"] == "invalid_value"


def test_agents_by_bulk(db: Database) -> None:
    outputs = db.bulk(
        [
            item("agents/create", 1, details={"name": "Researcher", "external_identifier": "r"}),
            item("agents/show", 2, external_identifier="r"),
            item("agents/list", 3, sorting="-name"),
        ]
    )
    agent_id = outputs["item-0002"]["details"]["id"]
    assert outputs["item-0003"]["sorting"] == {"field": "name", "direction": "desc"}
    outputs = db.bulk([item("agents/update", 4, agent_id=agent_id, details={"name": "Finder"})])
    assert outputs["item-0004"]["details"]["name"] == "Finder"


def test_the_items_share_one_commit(tmp_path: Path) -> None:
    storage = agentspan.SQLiteStorage(tmp_path / "runs.db")
    db = agentspan.open(storage)
    statements: list[str] = []
    storage.direct._connections.writer().set_trace_callback(statements.append)
    db.bulk(a_run(db))
    assert [statement for statement in statements if statement.lower() in ("begin immediate", "commit")] == [
        "begin immediate",
        "commit",
    ]


def test_a_file_that_is_locked_stores_nothing_of_it(tmp_path: Path) -> None:
    db = agentspan.open(tmp_path / "runs.db")
    db._context.wait_s = 0.01
    other = sqlite3.connect(tmp_path / "runs.db", isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(agentspan.DatabaseBusy):
        db.bulk(a_run(db))
    other.execute("rollback")
    assert len(db.agent_instances.list()) == 0
    other.close()


def test_all_that_belongs_to_a_run_in_one_answer(db: Database) -> None:
    outputs = db.bulk(a_run(db))
    run_id = outputs["item-0001"]["details"]["id"]
    context = db.agent_instances.agent_context(run_id)
    assert context["instance"]["id"] == run_id
    assert context["agent"]["name"] == "a"
    assert [span["schema_name"] for span in context["spans"]] == ["llm"]
    assert context["schema"]["id"] == context["instance"]["agent_schema_version_id"]


def test_a_fault_within_the_storage_leaves_nothing_of_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can know how much of its unit was written, so none of them may stay, though others were whole."""
    from agentspan.storage.sqlite import writes as sqlite_storage

    db = agentspan.open(tmp_path / "runs.db")
    apply_unit, calls = sqlite_storage.apply_unit, []

    def fail_later(connection: Any, unit: Any) -> Any:
        outcome = apply_unit(connection, unit)
        calls.append(unit)
        if len(calls) == 3:
            raise RuntimeError("after half of it was written")
        return outcome

    monkeypatch.setattr(sqlite_storage, "apply_unit", fail_later)
    with pytest.raises(RuntimeError, match="half of it"):
        db.bulk(a_run(db))
    assert len(calls) == 3
    assert len(db.agent_instances.list()) == 0
    monkeypatch.undo()
    assert len(db.bulk(a_run(db))) == 6
