"""Which runs there are, and their sums, on both storages."""

from collections.abc import Callable
from typing import Any

import pytest

from agentspan.analysis.runs import find_runs
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.storage.questions import Find, RunFilter
from agentspan.storage.sums import RunTotals


@pytest.fixture
def runs(db: Database) -> list[str]:
    """Three runs: a failed one of a, one of b with a failed span, and an open one of b."""
    first = db.agent_instances.register(
        "a", agent_version={"external_identifier": "1"}, metadata={"note": "the Moon is away"}
    )
    second = db.agent_instances.register("b", agent_version={"external_identifier": "2"})
    third = db.agent_instances.register("b", agent_version={"external_identifier": "2"})
    for run in (first, second, third):
        db.agent_instances.start(run.id)
    used = {"model": "m", "input_tokens": 3, "output_tokens": 4, "cost_usd": 0.5}
    db.agent_spans.create(first.id, "agent", "complete", {"name": "a", "input_tokens": 100}, {"cost_usd": 9})
    db.agent_spans.create(first.id, "x:agent", "complete", {"name": "a"}, {"output_tokens": 100})
    db.agent_spans.create(first.id, "llm", "complete", used, {})
    db.agent_spans.create(first.id, "llm", "complete", {"model": "m", "input_tokens": 10}, {})
    db.agent_spans.create(second.id, "tool", "failed", {"name": "fetch"}, {"error": {"type": "E", "message": "m"}})
    db.agent_spans.create(third.id, "tool", "active", {"name": "fetch"})
    db.agent_spans.create(third.id, "tool", "pending", {"name": "fetch"})
    db.agent_instances.finish(first.id, "failed")
    db.agent_instances.finish(second.id, "complete")
    return [first.id, second.id, third.id]


def ids(db: Database, **filters: object) -> list[str]:
    return [run.run.id for run in find_runs(db.storage, RunFilter(**filters)).runs]  # type: ignore[arg-type]


def test_sums_leave_out_what_agent_spans_repeat(db: Database, runs: list[str]) -> None:
    found = find_runs(db.storage)
    by_id = {run.run.id: run for run in found.runs}
    first, second, third = (by_id[id] for id in runs)
    assert [run.run.id for run in found.runs] == runs[::-1]
    assert (first.agent, first.version, first.spans, first.failed, first.open) == ("a", "1", 4, 0, 0)
    assert (first.input_tokens, first.output_tokens, first.cost_usd) == (13, 4, 0.5)
    assert (second.spans, second.failed, second.open, second.input_tokens, second.cost_usd) == (1, 1, 0, None, None)
    assert (third.spans, third.failed, third.open, third.duration_ms) == (2, 0, 2, None)
    assert first.duration_ms == first.run.duration_ms is not None


def test_totals_are_of_all_that_match_not_of_the_page(db: Database, runs: list[str]) -> None:
    found = find_runs(db.storage, limit=1, offset=1)
    assert ([run.run.id for run in found.runs], found.total) == ([runs[1]], 3)
    assert found.totals[:6] == (7, 1, 2, 13, 4, 0.5)
    found = find_runs(db.storage, RunFilter(agent="b"), limit=0)
    assert (found.runs, found.total, found.totals[:4]) == ([], 2, (3, 1, 2, None))


def test_filters(db: Database, runs: list[str]) -> None:
    first, second, third = runs
    assert ids(db, agent="b") == [third, second]
    assert ids(db, agent="b", status="active") == [third]
    assert ids(db, failed=True) == [second, first]
    assert ids(db, grep="moon IS") == [first]
    assert ids(db, grep="100%") == []
    assert ids(db, grep=second) == [second]
    assert ids(db, agent="nobody") == []
    agent_id = db.agent_instances.get(third).agent_id
    assert ids(db, agent=agent_id) == [third, second]
    started = db.storage.ask(Find(second)).rows[second][1].started_at  # type: ignore[union-attr]
    assert ids(db, since=started) == [third, second]
    assert ids(db, since="9999-01-01T00:00:00.000000Z") == []


def test_an_empty_storage_has_no_runs(db: Database) -> None:
    found = find_runs(db.storage)
    assert (found.runs, found.total, found.totals) == ([], 0, RunTotals())


@pytest.mark.parametrize("number", [2**70, -1, 1.5, "5"])
def test_a_page_has_a_number_of_rows(db: Database, number: Any) -> None:
    asked: list[Callable[..., Any]] = [db.runs, lambda **page: db.search("x", **page)]
    for ask in asked:
        for name in ("limit", "offset"):
            with pytest.raises(InvalidValue, match=f"{name}: must be a whole number from 0 to"):
                ask(**{name: number})
