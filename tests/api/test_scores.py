"""Scores by id: of runs and spans in any status, with keys, and read with or without their history."""

import math
from typing import Any

import pytest

import agentspan
from agentspan.errors import (
    IdempotencyKeyAlreadyUsed,
    InvalidValue,
    NotFound,
    RequiredValue,
    UnexpectedRefType,
)


@pytest.fixture
def run(db: agentspan.Database) -> str:
    return db.agent_instances.register("planner").id


def test_a_run_and_a_span_are_judged_by_their_id(db: agentspan.Database, run: str) -> None:
    span = db.agent_spans.create(run, "tool", "complete", {"name": "x"}).id
    of_run = db.scores.record(run, "reward", True, explanation="fine", by="human", identifier="mia")
    of_span = db.scores.record(span, "correct", label="no")
    assert (of_run.target_id, of_run.value, of_run.explanation, of_run.source) == (run, 1.0, "fine", "human")
    assert (of_span.target_type, of_span.agent_instance_id, of_span.value) == ("agent_span", run, None)
    assert db.scores.list(run) == [of_run]
    assert db.scores.list(span) == [of_span]
    assert db.agent_instances.get(run).scores == [of_run]


def test_the_newest_counts_and_the_others_are_history(db: agentspan.Database, run: str) -> None:
    scores = [db.scores.record(run, "reward", value) for value in (1, 2, 3)]
    other = db.scores.record(run, "reward", 4, identifier="b")
    assert db.scores.list(run) == [scores[2], other]
    gone = db.scores.record(run, "reward", withdraw=True)
    assert db.scores.list(run) == [other]
    assert db.scores.list(run, history=True) == [*scores, other, gone]


def test_a_key_adds_one_score(db: agentspan.Database, run: str) -> None:
    first = db.scores.record(run, "reward", 1, idempotency_key="key-1")
    assert db.scores.record(run, "reward", 1.0, idempotency_key="key-1") == first
    with pytest.raises(IdempotencyKeyAlreadyUsed):
        db.scores.record(run, "reward", 2, idempotency_key="key-1")
    assert db.scores.list(run, history=True) == [first]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({}, RequiredValue),
        ({"name": "", "value": 1}, RequiredValue),
        ({"value": math.nan}, InvalidValue),
        ({"value": "1"}, InvalidValue),
        ({"value": 1, "by": "robot"}, InvalidValue),
        ({"label": 5}, InvalidValue),
        ({"explanation": "x" * 10_001}, InvalidValue),
        ({"label": "\ud800"}, InvalidValue),
        ({"label": "bad", "withdraw": True}, InvalidValue),
    ],
)
def test_what_is_no_score_is_refused(db: agentspan.Database, run: str, more: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        db.scores.record(run, **{"name": "reward", **more})
    assert db.scores.list(run, history=True) == []


def test_only_runs_and_spans_are_judged(db: agentspan.Database, run: str) -> None:
    agent = db.agent_instances.get(run).agent_id
    for id, error in ((agent, UnexpectedRefType), ("0" * 32, NotFound), ("nothing", NotFound)):
        with pytest.raises(error):
            db.scores.record(id, "reward", 1)
        with pytest.raises(error):
            db.scores.list(id)
