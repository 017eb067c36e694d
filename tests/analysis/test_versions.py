"""The versions of an agent side by side, and the newest compared with the one before, on all storages."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentspan.analysis.by_name import find_run
from agentspan.analysis.cases import case_of, case_table
from agentspan.analysis.drift_metrics import Metric
from agentspan.analysis.outcomes import parse
from agentspan.analysis.versions import agents, comparison, versions
from agentspan.database import Database
from agentspan.errors import InvalidValue, NotFound
from agentspan.storage.questions import RunFilter

BEGAN = datetime(2026, 11, 20, tzinfo=UTC)


class Recorded:
    """Runs of an agent that start one hour after another."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.number = 0

    def runs(self, version: str | None, failed: int, passed: int, agent: str = "a", **about: Any) -> None:
        for place in range(failed + passed):
            own: Any = {} if version is None else {"agent_version": {"external_identifier": version}}
            run = self.db.agent_instances.register(agent, **own, **about)
            at = BEGAN + timedelta(hours=self.number)
            self.number += 1
            self.db.agent_instances.start(run.id, timestamp=at)
            result = {"text": "yes", "input_tokens": 100, "output_tokens": 20, "cost_usd": 0.25}
            times: Any = {"started_at": at, "finished_at": at + timedelta(seconds=1)}
            self.db.agent_spans.create(run.id, "llm", "complete", {"model": "m"}, result, **times)
            self.db.scores.record(run.id, "reward", place % 2)
            status: Any = "failed" if place < failed else "complete"
            self.db.agent_instances.finish(run.id, status, timestamp=at + timedelta(seconds=2))


@pytest.fixture
def recorded(db: Database) -> Recorded:
    found = Recorded(db)
    found.runs("1.0", 2, 10)
    found.runs("1.1", 1, 11)
    found.runs("1.0", 0, 2)
    found.runs("2.0", 10, 2)
    found.runs(None, 0, 3, agent="b")
    return found


def test_versions_are_listed_by_their_first_run_the_newest_first(db: Database, recorded: Recorded) -> None:
    found = versions(db.storage, "a")
    assert (found.agent, found.outcome, found.left_out, found.missed) == ("a", None, 0, "reward>=1")
    facts = [(each.version, each.runs, each.known, each.failed, each.open) for each in found.versions]
    assert facts == [("2.0", 12, 12, 10, 0), ("1.1", 12, 12, 1, 0), ("1.0", 14, 14, 2, 0)]
    newest = found.versions[0]
    assert (newest.tokens, newest.cost_usd, newest.total_usd, newest.duration_ms, newest.steps) == (
        120,
        0.25,
        3,
        2000,
        1,
    )
    assert newest.interval is not None
    assert newest.interval.low < 10 / 12 < newest.interval.high
    assert newest.first_at < newest.last_at
    (other,) = versions(db.storage, "b").versions
    assert (other.version, other.runs) == ("default", 3)
    assert versions(db.storage, "a", RunFilter(status="failed")).versions[0].runs == 10
    assert versions(db.storage, "a", RunFilter(session="none")).versions == ()
    with pytest.raises(NotFound, match="no agent is named 'nobody'"):
        versions(db.storage, "nobody")


def test_the_table_and_the_comparison_say_the_same_of_cost_and_tokens(db: Database) -> None:
    recorded = Recorded(db)
    recorded.runs("1.0", 0, 2)
    recorded.runs("1.1", 0, 2)
    for answers in ([{"cost_usd": 3.0}], [{"cost_usd": 9.0}, {"input_tokens": 60}], [], []):
        run = db.agent_instances.register("a", agent_version={"external_identifier": "1.1"})
        db.agent_instances.start(run.id)
        for place, answer in enumerate(answers):
            db.agent_spans.create(run.id, "llm", "complete", {"model": f"unknown-{place}"}, answer)
        db.agent_instances.finish(run.id)
    db.agent_spans.create(run.id, "agent", "complete", {"name": "a"}, {"cost_usd": 7.0})
    open_run = db.agent_instances.register("a", agent_version={"external_identifier": "1.1"})
    db.agent_instances.start(open_run.id)
    db.agent_spans.create(open_run.id, "llm", "complete", {"model": "m"}, {"cost_usd": 100.0})
    newest, before = versions(db.storage, "a").versions
    rows = {row.metric: row for row in comparison(db.storage, "a").drift.rows}
    cost, tokens, spans = rows[Metric("cost_usd")], rows[Metric("tokens")], rows[Metric("spans")]
    assert (before.cost_usd, before.tokens, before.steps) == (cost.base, tokens.base, spans.base) == (0.25, 120, 1)
    assert (newest.cost_usd, newest.tokens, newest.steps) == (cost.head, tokens.head, spans.head) == (0.7, 50, 5 / 6)
    assert newest.total_usd == 112.5
    assert newest.duration_ms == pytest.approx(rows[Metric("duration_ms")].head_p50)


def test_a_rule_judges_the_runs(db: Database, recorded: Recorded) -> None:
    found = versions(db.storage, "a", judge=parse("reward>=1"))
    assert [each.failed for each in found.versions] == [6, 6, 7]
    assert (versions(db.storage, "b").outcome, versions(db.storage, "b").missed) == ("reward>=1", None)
    assert versions(db.storage, "b", judge="status").missed == "reward>=1"
    with pytest.raises(InvalidValue, match="a score that no run has"):
        versions(db.storage, "a", judge=parse("taste>=1"))


def test_agents_with_the_most_versions_come_first(db: Database, recorded: Recorded) -> None:
    one, other = agents(db.storage)
    assert (one.agent, one.versions, one.newest, one.runs) == ("a", 3, "2.0", 38)
    assert (other.agent, other.versions, other.newest, other.runs) == ("b", 1, "default", 3)
    assert [each.agent for each in agents(db.storage, RunFilter(version="1.0"))] == ["a"]


def test_the_newest_version_is_compared_with_the_one_before(db: Database, recorded: Recorded) -> None:
    found = comparison(db.storage, "a")
    assert (found.base, found.head, found.drift.verdict) == ("1.1", "2.0", "worse")
    assert (found.drift.base_runs, found.drift.head_runs) == (12, 12)
    assert (found.base_filter.version, found.head_filter.version) == ("1.1", "2.0")
    assert comparison(db.storage, "a", head="1.1").base == "1.0"
    assert comparison(db.storage, "a", base="1.0").head == "2.0"
    assert comparison(db.storage, "a", base="2.0").head == "1.1"
    equal = comparison(db.storage, "a", base="1.0", head="1.1")
    assert equal.drift.verdict == "no_evidence"
    assert equal.drift.detectable is not None
    both = comparison(db.storage, "a", base="version=1.0", head="a@2.0")
    assert (both.drift.base_runs, both.drift.head_runs) == (14, 12)


def test_without_another_version_there_is_nothing_to_compare(db: Database, recorded: Recorded) -> None:
    with pytest.raises(InvalidValue, match="'b' has no version before 'default'"):
        comparison(db.storage, "b")
    with pytest.raises(InvalidValue, match="'b' has no other version"):
        comparison(db.storage, "b", base="default")
    with pytest.raises(InvalidValue, match="base and head do not go with it"):
        comparison(db.storage, "a", by="model", base="1.0")
    assert comparison(db.storage, "a", base="1.0", head="9").drift.verdict == "not_compared"


def test_a_part_of_the_fingerprint_makes_the_groups(db: Database) -> None:
    found = Recorded(db)
    for name, failed in (("old", 1), ("new", 9)):
        found.runs(None, failed, 10 - failed, metadata={"fingerprint": {"parts": {"model": name}}})
    compared = comparison(db.storage, "a", by="model")
    assert (compared.base, compared.head, compared.drift.verdict) == ("model=old", "model=new", "worse")
    assert compared.change is not None
    assert compared.change.part == "model"
    with pytest.raises(InvalidValue, match="skills"):
        comparison(db.storage, "a", by="skills")


def test_cases_that_differ_come_first_and_a_run_without_a_task_is_paired_by_its_id(db: Database) -> None:
    recorded = Recorded(db)
    recorded.runs("0.9", 0, 1, task="lost")
    recorded.runs("1.0", 0, 1)
    (single,) = (each for each in db.agent_instances.list() if each.task is None)
    for task, base, head in (
        ("better", (2, 1), (0, 3)), ("worse", (0, 3), (2, 1)), ("worst", (0, 3), (3, 0)), ("equal", (0, 1), (0, 2)),
        ("never", (1, 0), (1, 0)), (single.id, (0, 0), (1, 0)), ("lost", (0, 1), (0, 0)),
    ):  # fmt: skip
        recorded.runs("1.0", *base, task=task)
        recorded.runs("1.1", *head, task=task)
    recorded.runs("2.0", 0, 2)  # without tasks: no head
    found = case_table(db.storage, "a", judge="status")
    assert found.versions == ("0.9", "1.0", "1.1")
    cells = [(row.case, [each and str(each) for each in row.tallies]) for row in found.cases]
    assert cells == [
        (single.id, [None, "1/1", "0/1"]), ("worst", [None, "3/3", "0/3"]), ("worse", [None, "3/3", "1/3"]),
        ("better", [None, "1/3", "3/3"]), ("equal", [None, "1/1", "2/2"]), ("never", [None, "0/1", "0/1"]),
        ("lost", ["1/1", "1/1", None]),
    ]  # fmt: skip
    assert found.cases[0].tallies[1].run_id == single.id  # type: ignore[union-attr]
    assert found.counts() == (
        "3 cases worse, 1 better, 2 equal (1 always passed, 1 never); 1 with an outcome in one of the two only"
    )
    chosen = case_table(db.storage, "a", base="0.9", head="status=complete version=1.0", judge="status")
    assert chosen.versions == ("1.0", "1.1", "0.9", "status=complete version=1.0")
    assert [row.case for row in chosen.cases if row.change is not None] == ["lost"]
    assert not case_table(db.storage, "a", RunFilter(version="2.0")).is_compared


def test_a_trial_is_shown_with_the_other_trials_of_its_case_and_with_the_runs_it_was_compared_with(
    db: Database,
) -> None:
    def trial(version: str, number: int, status: Any, **evaluation: str) -> str:
        metadata = {"trial": number, "evaluation": evaluation}
        own: Any = {"agent_version": {"external_identifier": version}, "purpose": "eval", "task": "late"}
        run = db.agent_instances.register("a", **own, metadata=metadata).id
        db.agent_instances.start(run)
        db.agent_instances.finish(run, status)
        db.scores.record(run, "exact", number % 2)
        db.scores.record(run, "calls", 1 - number % 2)
        return run

    def marks(runs: Any) -> list[tuple[int, str, str]]:
        return [(each.number, each.verdict.mark, each.run_id) for each in runs]

    live = db.agent_instances.register("b", agent_version={}, tags=["nightly"], task="late").id
    old = [trial("1.0", number, "complete") for number in (1, 2)]
    again = trial("1.0", 2, "failed")
    lone = find_run(db.storage, old[0])
    trial("1.1", 1, "complete")
    new = [trial("2.0", number, "complete", outcome="exact>=1", against="a@1.0") for number in (2, 1)]
    found = case_of(db.storage, find_run(db.storage, new[0]))
    assert found is not None
    assert (found.text, found.base) == ("trial 2 of case late in evaluation a 2.0", "1.0")
    assert marks(found.trials) == [(1, "✓", new[1]), (2, "≠", new[0])]
    assert marks(found.base_runs) == [(1, "✓", old[0]), (2, "✗", again)]
    assert (other := case_of(db.storage, lone)) is not None
    assert (other.base, other.base_runs) == (None, ())
    unsaid = case_of(db.storage, find_run(db.storage, trial("2.1", 1, "complete")))
    assert unsaid is not None
    assert (unsaid.base, [each.run_id for each in unsaid.base_runs]) == ("2.0", [new[1], new[0]])
    by_filter = case_of(db.storage, find_run(db.storage, trial("2.2", 1, "complete", against="tag=nightly")))
    assert by_filter is not None
    assert (by_filter.base, marks(by_filter.base_runs)) == ("tag=nightly", [(1, "◌", live)])
    assert case_of(db.storage, find_run(db.storage, live)) is None
