"""The fields that an instance has by itself and not in a list, and those of its spans that come from elsewhere."""

import pytest

import agentspan
from agentspan.api.resources import AgentInstance
from agentspan.database import Database
from agentspan.model.changes import Purpose
from agentspan.storage.questions import SpanSums


@pytest.fixture
def run(db: Database) -> AgentInstance:
    made = db.agent_instances.register("an-agent")
    return db.agent_instances.start(made.id)


def finished(db: Database, run: AgentInstance, schema_name: str, payload: dict[str, str], **result: float) -> None:
    span = db.agent_spans.create(run.id, schema_name, "active", payload)
    db.agent_spans.finish(span.id, result_payload=result)


def test_an_instance_has_the_cost_of_its_spans_by_model_and_their_number_by_type(
    db: Database, run: AgentInstance
) -> None:
    finished(db, run, "llm", {"model": "small"}, cost_usd=0.25)
    finished(db, run, "llm", {"model": "small"}, cost_usd=0.5)
    finished(db, run, "llm", {"model": "large"}, cost_usd=2.0)
    finished(db, run, "llm", {}, cost_usd=1.0)
    finished(db, run, "agent", {"name": "outer"}, cost_usd=3.75)
    db.agent_spans.create(run.id, "tool", "pending", {"name": "fetch"})
    found = db.agent_instances.get(run.id)
    assert found.cost_breakdown is not None
    assert found.cost_breakdown.model_dump() == {
        "total_cost": 3.75,
        "by_model": {"large": 2.0, "small": 0.75, "unknown": 1.0},
    }
    assert found.span_schema_counts == {"agent": 1, "llm": 4, "tool": 1}
    assert found.span_counts.model_dump() == {
        "total": 6, "pending": 1, "active": 0, "complete": 5, "failed": 0, "cancelled": 0, "finished": 5,
    }  # fmt: skip
    assert found.risk_score is None
    assert db.agent_instances.finish(run.id).cost_breakdown == found.cost_breakdown


def test_an_instance_without_costs_has_no_total(db: Database, run: AgentInstance) -> None:
    found = db.agent_instances.get(run.id)
    assert found.cost_breakdown is not None
    assert (found.cost_breakdown.total_cost, found.cost_breakdown.by_model) == (None, {})
    assert found.span_schema_counts == {}


def test_lists_of_instances_leave_out_what_needs_all_their_spans(db: Database, run: AgentInstance) -> None:
    (listed,) = db.agent_instances.list()
    assert (listed.cost_breakdown, listed.span_schema_counts) == (None, None)
    assert (listed.purpose, listed.termination_reason, listed.risk_score) == ("live", None, None)


@pytest.mark.parametrize("purpose", ["live", "smoke_test", "eval"])
def test_a_span_has_the_purpose_of_its_instance_and_its_size(db: Database, purpose: Purpose) -> None:
    run = db.agent_instances.register("a", purpose=purpose)
    span = db.agent_spans.create(run.id, "tool", "active", {"name": "é"})
    ended = db.agent_spans.finish(span.id, result_payload={"output": 1})
    assert span.payload_byte_size_estimate == len('{"name":"é"}'.encode())
    assert ended.payload_byte_size_estimate == span.payload_byte_size_estimate + len('{"output":1}')
    again = agentspan.open(db.storage)  # which has nothing in its cache
    for found in (span, ended, again.agent_spans.get(span.id), *again.agent_spans.list(run.id)):
        assert (found.purpose, found.risk_level, found.risk_score) == (purpose, None, None)


def test_a_backend_without_sums_reads_the_spans() -> None:
    with agentspan.open(agentspan.MemoryStorage()) as db:
        run = db.agent_instances.register("a")
        finished(db, run, "llm", {"model": "small"}, cost_usd=0.25)
        assert SpanSums not in db.storage.capabilities().answers
        found = db.agent_instances.get(run.id)
        assert found.cost_breakdown is not None
        assert (found.cost_breakdown.total_cost, found.span_schema_counts) == (0.25, {"llm": 1})
