"""Several runs side by side, and two runs that are worth comparing."""

import pytest

import agentspan
from agentspan.analysis.diff import diff
from agentspan.analysis.outcomes import parse
from agentspan.analysis.side_by_side import MOST_RUNS, sides, suggestion, with_divergences
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.storage.questions import RunFilter


def recorded(db: Database, *tools: str, task: str = "t", reward: float | None = None, error: str = "") -> str:
    """Record a run that calls these tools, and return its id."""
    tracer = agentspan.Tracer(db.storage, raise_errors=True)
    try:
        with tracer.run("shop", version="1", task=task) as run:
            for tool in tools:
                with tracer.span("tool", {"name": tool}) as span:
                    span.set_result({"output": "found"})
            if error:
                raise RuntimeError(error)
    except RuntimeError:
        pass
    assert tracer.flush()
    if reward is not None:
        db.scores.record(run.id, "reward", reward)
    return run.id


def test_runs_have_facts_verdicts_and_scores_in_the_given_order(db: Database) -> None:
    one, other = recorded(db, "search", reward=1.0), recorded(db, "search", "book", reward=0.0)
    found = sides(db.storage, [other, one, other])
    assert [side.run.run.id for side in found] == [other, one]
    assert [side.verdict.kind for side in found] == ["missed", "passed"]
    assert [[(score.name, score.value) for score in side.scores] for side in found] == [
        [("reward", 0.0)],
        [("reward", 1.0)],
    ]
    assert [side.run.spans for side in found] == [2, 1]
    assert all(side.is_same is None for side in found)
    with pytest.raises(InvalidValue, match=f"at most {MOST_RUNS}"):
        sides(db.storage, [str(number) for number in range(MOST_RUNS + 1)])
    assert sides(db.storage, []) == with_divergences(db.storage, []) == []


def test_each_run_parts_from_the_first_where_their_difference_does(db: Database) -> None:
    ids = [recorded(db, "search", "book"), recorded(db, "search", "book"), recorded(db, "search", "pay")]
    first, same, other = with_divergences(db.storage, sides(db.storage, ids))
    assert (first.is_same, first.divergence) == (None, None)
    assert (same.is_same, same.divergence) == (True, None)
    assert other.is_same is False
    assert other.divergence == diff(db.storage, ids[0], ids[2]).first_divergence
    assert other.divergence is not None


def test_the_newest_failed_run_and_its_nearest_passing_one_are_suggested(db: Database) -> None:
    assert suggestion(db.storage) is None
    near = recorded(db, "search", "book")
    assert suggestion(db.storage) is None
    recorded(db, "search", error="old")
    failed = recorded(db, "search", "book", error="no seat")
    recorded(db, "pay")
    found = suggestion(db.storage)
    assert found is not None
    assert found.failed.run.id == failed
    assert found.nearest is not None
    assert found.nearest.run_id == near
    assert suggestion(db.storage, RunFilter(task="none")) is None


def test_without_a_failed_run_one_that_missed_a_rule_is_suggested(db: Database) -> None:
    recorded(db, "search", reward=1.0)
    missed = recorded(db, "book", reward=0.0)
    for rule in (None, parse("reward>=1")):
        found = suggestion(db.storage, judge=rule)
        assert found is not None
        assert found.failed.run.id == missed
