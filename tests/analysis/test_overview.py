"""The overview of the latest runs, and the cause of each run of a list, on every storage."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from itertools import pairwise
from typing import Any

import pytest

import agentspan
from agentspan import clock
from agentspan.analysis.causes import RunCause, Scored, page_of, root_causes, short_cause
from agentspan.analysis.overview import MOST_BUCKETS, histogram, overview
from agentspan.analysis.runs import find_runs, run_briefs
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.model.changes import Move, Unit


class Steps:
    """Runs of one agent, whose steps begin one second after another, and whose beginning is chosen."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.second = 0

    def run(
        self,
        *steps: tuple[str, str | None] | tuple[str, str | None, int],
        version: str = "1",
        status: Any = "complete",
        error: tuple[str, str] | None = None,
        at: str | None = None,
        **scores: float,
    ) -> str:
        """Record a run; a step is the name of a tool, the message of its error, and its argument."""
        run = self.db.agent_instances.register("a", agent_version={"external_identifier": version}).id
        self.db.agent_instances.start(run, timestamp=at)
        for name, message, *argument in steps:
            self.second += 1
            time = f"2026-11-26T03:{self.second // 60:02}:{self.second % 60:02}.000000Z"
            result = {"output": 1} if message is None else {"error": {"type": "RateLimited", "message": message}}
            self.db.agent_spans.create(
                run,
                "tool",
                "complete" if message is None else "failed",
                {"name": name, "arguments": {"n": argument[0] if argument else 0}},
                result,
                started_at=time,
                finished_at=time,
            )
        if status == "active":
            return run
        if error is not None:
            text = f'{{"type":"{error[0]}","message":"{error[1]}"}}'
            values = {"status": status, "error": text, "finished_at": clock.now(), "updated_at": clock.now()}
            self.db.storage.apply([Unit((Move("agent_instance", run, frozenset({"active"}), values),), run)])
        else:
            self.db.agent_instances.finish(run, status)
        for name, value in scores.items():
            self.db.scores.record(run, name, value)
        return run


@pytest.fixture
def steps(db: Database) -> Steps:
    return Steps(db)


def judged(db: Database, run: str) -> tuple[str, str | None]:
    page = page_of(db.storage, find_runs(db.storage).runs)
    return str(page.verdicts[run]), page.causes[run].text if run in page.causes else None


CAUSES: dict[str, tuple[Callable[[Steps], str], tuple[str, str | None]]] = {
    "the step whose error the run passes on, and not an earlier one from which it went on": (
        lambda steps: steps.run(
            ("look", "gone"), ("fetch", "slow down"), status="failed", error=("AgentFailed", "gave up: slow down")
        ),
        ("✗ failed", "Tool fetch: RateLimited: slow down"),
    ),
    "the first failed step from which the run did not recover, and not its own later error": (
        lambda steps: steps.run(
            ("look", "gone"), ("look", None), ("fetch", "slow down"), status="failed", error=("KeyError", "rows")
        ),
        ("✗ failed", "Tool fetch: RateLimited: slow down"),
    ),
    "the run's own error where it recovered from its failed steps": (
        lambda steps: steps.run(("look", "gone"), ("look", None), status="failed", error=("KeyError", "rows")),
        ("✗ failed", "KeyError: rows"),
    ),
    "the run's own error where no step failed": (
        lambda steps: steps.run(("look", None), status="failed", error=("KeyError", "rows")),
        ("✗ failed", "KeyError: rows"),
    ),
    "the rule that it missed": (
        lambda steps: steps.run(("look", None), reward=0),
        ("≠ missed reward ≥ 1", "reward 0 < 1"),
    ),
    "the failed step of a run that missed a rule": (
        lambda steps: steps.run(("look", "gone"), reward=0),
        ("≠ missed reward ≥ 1", "Tool look: RateLimited: gone"),
    ),
    "nothing of a run that met the rule, although a step failed": (
        lambda steps: steps.run(("look", "gone"), reward=1),
        ("✓ passed", None),
    ),
    "nothing of a run that recovered": (
        lambda steps: steps.run(("look", "gone"), ("look", None)),
        ("✓ complete", None),
    ),
    "a failed step of a run that completed": (
        lambda steps: steps.run(("look", "gone")),
        ("✓ complete", "Tool look: RateLimited: gone"),
    ),
    "nothing of a run that is under way": (lambda steps: steps.run(status="active"), ("● running", None)),
    "nothing of a run that failed silently": (lambda steps: steps.run(status="failed"), ("✗ failed", None)),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_the_cause_of_a_run_is(cause: str, db: Database, steps: Steps) -> None:
    steps.run(reward=1)
    steps.run(reward=0)
    make, expected = CAUSES[cause]
    assert judged(db, make(steps)) == expected


def test_the_cause_of_a_terminated_run_is_the_reason(db: Database, steps: Steps) -> None:
    run = steps.run(("look", "gone"), status="active")
    db.agent_instances.terminate(run, "too expensive")
    assert judged(db, run) == ("■ terminated", "terminated: too expensive")


def test_a_failed_run_whose_spans_are_too_many_to_read_has_its_last_failure_as_cause(
    db: Database, steps: Steps
) -> None:
    run = steps.run(("look", "gone"), ("fetch", "slow down"), status="failed")
    found = root_causes(db.storage, run_briefs(db.storage), Scored(db.storage, None, ()), most_spans=1)
    assert found[run].text == "Tool fetch: RateLimited: slow down"
    found = root_causes(db.storage, run_briefs(db.storage), Scored(db.storage, None, ()))
    assert found[run].text == "Tool look: RateLimited: gone"


def test_the_overview_counts_verdicts_and_names_frequent_causes(db: Database, steps: Steps) -> None:
    for n in range(3):
        steps.run(("fetch", f"slow down for {n} s"), version="2", status="failed", error=("E", f"slow down for {n} s"))
    steps.run(("look", "gone"), version="1", reward=0)
    steps.run(("look", "gone"), version="2", reward=0)
    steps.run(("look", None), reward=0)
    steps.run(("look", "gone"), ("look", None), reward=1)
    steps.run(status="active")
    found = db.overview()
    assert found.answer == "8 runs in the last day: 3 failed, 3 missed reward ≥ 1, 1 running."
    assert [each.short for each in found.causes or ()] == ["fetch RateLimited", "look RateLimited"]
    assert (found.failed, found.missed, found.open, found.left_open, found.silent) == (3, 3, 1, 0, 1)
    assert found.rule == "reward>=1"
    assert [(each.runs, dict(each.versions), each.only_in) for each in found.causes or ()] == [
        (3, {"2": 3}, None),
        (2, {"1": 1, "2": 1}, None),
    ]
    assert sum(bucket.passed for bucket in found.buckets) == 1
    assert sum(bucket.failed for bucket in found.buckets) == 6
    assert sum(bucket.other for bucket in found.buckets) == 1
    assert str(found).splitlines() == [
        found.answer,
        "  3 × Tool fetch: RateLimited: slow down for <n> s",
        "  2 × Tool look: RateLimited: gone",
        "  1 without a failed step",
        "8 spans",
    ]
    signature = (found.causes or ())[0].signature
    assert db.runs(signature=signature).total == 3
    with pytest.raises(FrozenInstanceError):
        found.runs = 9  # type: ignore[misc]


def test_a_cause_is_only_in_a_version_where_that_is_no_chance_and_no_other_run_has_it(
    db: Database, steps: Steps
) -> None:
    for _ in range(5):
        steps.run(("fetch", "slow down"), version="2", status="failed")
        steps.run(("fetch", None), version="1")
    assert [(each.runs, each.only_in) for each in db.overview().causes or ()] == [(5, "2")]
    steps.run(("fetch", "slow down"), ("fetch", None), version="1")  # which recovered
    assert [(each.runs, each.only_in) for each in db.overview().causes or ()] == [(5, None)]


def test_the_first_part_of_the_overview_reads_no_causes(db: Database, steps: Steps) -> None:
    steps.run(("fetch", "slow down"), status="failed")
    found = overview(db.storage, with_causes=False)
    assert (found.failed, found.causes) == (1, None)


def test_the_overview_is_of_the_last_day_that_has_runs_unless_a_time_is_asked_for(db: Database, steps: Steps) -> None:
    for at in ("2026-11-20T10:00:00.000000Z", "2026-11-21T09:00:00.000000Z", "2026-11-21T20:30:00.000000Z"):
        steps.run(at=at)
    assert db.overview().answer == "2 runs in the day up to 2026-11-21 20:30: all passed."
    assert db.overview(until="2026-11-21").answer == "1 run in the day up to 2026-11-20 10:00: it passed."
    assert db.overview(since="2026-11-20").answer == "3 runs since 2026-11-20 00:00: all passed."
    two = db.overview(since="2026-11-20", until="2026-11-21T12:00:00Z")
    assert two.answer == "2 runs from 2026-11-20 00:00 to 2026-11-21 12:00: all passed."
    assert db.overview(agent="a", since="2026-11-22").answer == "No run."


def test_an_overview_of_nothing_is_short(db: Database) -> None:
    found = db.overview()
    assert (str(found), found.buckets, found.causes) == ("No run.", (), ())


def test_the_rule_can_be_chosen_or_left_out(db: Database, steps: Steps) -> None:
    for reward, style in ((0, 2), (1, 3), (1, 4)):
        steps.run(reward=reward, style=style)
    assert db.overview(outcome="style>=4").counts == "2 missed style ≥ 4"
    assert db.overview(outcome="status").counts == "all passed"
    with pytest.raises(InvalidValue, match="no run has"):
        db.overview(outcome="taste>=1")


def test_a_complete_run_without_the_score_has_not_passed_the_rule(db: Database, steps: Steps) -> None:
    ids = [steps.run(reward=1), steps.run(reward=0), steps.run(), steps.run(status="failed"), steps.run(taste=1)]
    found = overview(db.storage)
    assert (found.rule, found.verdicts) == ("reward>=1", {"passed": 1, "missed": 1, "unscored": 2, "failed": 1})
    assert found.counts == "1 failed, 1 missed reward ≥ 1, 2 without reward"
    assert sum(each.passed for each in found.buckets) == 1
    assert found.pair == (ids[0], ids[3])
    assert judged(db, ids[2]) == ("✓ complete", None)


def test_passed_runs_with_failed_steps_are_named(db: Database, steps: Steps) -> None:
    steps.run(("look", "gone"))
    steps.run(("look", None))
    assert db.overview().answer == "2 runs in the last day: all passed, 1 of them with a failed step."


def test_a_histogram_has_at_most_48_buckets_without_gaps(db: Database, steps: Steps) -> None:
    for at in ("2024-02-28T23:59:59.999999Z", "2025-07-01T00:00:00.000000Z", "2026-11-21T20:30:00.000000Z"):
        steps.run(at=at)
    found = db.overview(since="2020-01-01").buckets
    assert 1 < len(found) <= MOST_BUCKETS
    assert all(one.until == other.since for one, other in pairwise(found))
    assert found[0].since <= "2024-02-28T23:59:59.999999Z" < found[0].until
    assert sum(bucket.passed for bucket in found) == 3
    assert histogram([], {}) == []


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("Tool fetch: RateLimited: slow down", "fetch RateLimited"),
        ("LLM gpt-4.1: openai.APIError: bad", "LLM gpt-4.1 openai.APIError"),
        ("Tool fetch: no answer in <n> s", "fetch: no answer in <n> s"),
        ("Run: KeyError: rows", "KeyError"),
        ("Run: it broke", "it broke"),
    ],
)
def test_a_short_cause_is_the_step_and_the_type_of_its_error(text: str, short: str) -> None:
    assert short_cause(text) == short
    assert RunCause("missed", "reward 0 < 1").short == "reward 0 < 1"


def test_causes_with_the_same_short_name_are_told_apart_by_their_messages(db: Database, steps: Steps) -> None:
    steps.run(("fetch", "slow down"), status="failed")
    steps.run(("fetch", "who are you"), status="failed")
    assert [each.short for each in db.overview().causes or ()] == ["fetch: slow down", "fetch: who are you"]


def test_a_left_open_run_has_a_verdict_of_its_own(tmp_path: Any) -> None:
    path = tmp_path / "runs.db"
    program = f"import os, agentspan\nagentspan.configure({str(path)!r})\nagentspan.run('a').__enter__()\n"
    subprocess.run([sys.executable, "-c", program + "agentspan.flush()\nos._exit(1)"], check=False)
    with agentspan.open(path) as db:
        found = db.overview()
        assert (found.left_open, found.counts) == (1, "1 left open")
        (verdict,) = page_of(db.storage, db.runs().runs).verdicts.values()
        assert str(verdict) == "? left open"
