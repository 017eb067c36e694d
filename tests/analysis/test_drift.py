"""Two groups of runs: what differs is found, what is the same is not, and how blind a comparison is is said."""

import json
import random
from pathlib import Path

import pytest

import agentspan
from agentspan.analysis.drift import Drift, compare
from agentspan.analysis.drift_metrics import Gathered, Metric, RunFacts
from agentspan.analysis.drift_text import sentence
from agentspan.analysis.ratio_tests import MOST_PERMUTED, Ratio, normal_p, permutation_ps
from agentspan.analysis.statistics import permutation_p
from agentspan.cli.output import columns_of
from agentspan.database import Database
from agentspan.errors import InvalidValue
from tests.cli.calling import call, lines

FAILS, CALLS, PASSED, COST = (
    Metric("failure_rate", "tool", "lookup"), Metric("calls", "tool", "lookup"), Metric("passed"), Metric("cost_usd")
)  # fmt: skip


def made(chance: random.Random, number: int, *, fails: float = 0.1, passes: float = 0.6, tasks: int = 0) -> Gathered:
    """Runs of 1 to 9 calls, whose failures go together, as they do where one task is harder than another."""
    runs = []
    for index in range(number):
        calls = chance.randrange(1, 10)
        hard = chance.choice((0.3, 1.7)) * fails
        failed = sum(chance.random() < hard for _ in range(calls))
        values = {
            PASSED: (float(chance.random() < passes), 1.0),
            FAILS: (float(failed), float(calls)),
            CALLS: (float(calls), 0.0),
            COST: (chance.lognormvariate(0, 1), 0.0),
        }
        runs.append(RunFacts(str(index), str(index % tasks) if tasks else None, values))
    return Gathered(runs, 0, 0)


def test_what_is_planted_is_found_and_told_in_one_sentence() -> None:
    chance = random.Random(1)
    found = compare(made(chance, 60, fails=0.06), made(chance, 60, fails=0.3))
    assert (found.verdict, found.method) == ("worse", "permutation")
    assert [row.metric for row in found.significant] == [FAILS]
    row = found.significant[0]
    assert row.base_interval is not None
    assert row.base is not None
    assert row.base_interval.low <= row.base <= row.base_interval.high
    assert sentence(found, "1.0", "2.0").startswith("2.0 is worse than 1.0: lookup fails ")
    better = compare(made(chance, 60, passes=0.3), made(chance, 60, passes=0.9))
    assert (better.verdict, better.rows[0].metric) == ("better", PASSED)


@pytest.mark.parametrize(("tasks", "method"), [(0, "permutation"), (30, "paired")])
def test_the_same_version_raises_few_alarms(tasks: int, method: str) -> None:
    alarms = 0
    for seed in range(12):
        chance = random.Random(seed)
        found = compare(made(chance, 30, tasks=tasks), made(chance, 30, tasks=tasks), seed=seed)
        alarms += found.verdict != "no_evidence"
        assert found.method == method
    assert alarms <= 3


def test_many_runs_are_compared_by_the_normal_approximation_clustered_by_run() -> None:
    chance = random.Random(2)
    number = MOST_PERMUTED
    same = compare(made(chance, number), made(chance, number))
    assert (same.verdict, same.method) == ("no_evidence", "normal")
    assert compare(made(chance, number), made(chance, number, fails=0.15)).verdict == "worse"


def test_it_says_what_so_few_runs_could_not_show() -> None:
    chance = random.Random(3)
    few, many = (compare(made(chance, number), made(chance, number)) for number in (12, 150))
    assert isinstance(few, Drift)
    assert few.detectable is not None
    assert many.detectable is not None
    assert few.detectable > 2 * many.detectable
    assert f"only a drop of more than {100 * few.detectable:.0f} points" in sentence(few, "a", "b")
    assert "a side has no run" in sentence(compare(Gathered([], 0, 0), made(chance, 3)), "a", "b")


def test_ratios_are_tested_as_means_are_and_as_the_normal_approximation_does() -> None:
    chance = random.Random(4)
    runs = [[chance.gauss(0.3 * (place >= 40), 1) for _ in range(chance.randrange(1, 5))] for place in range(80)]
    ratio = Ratio([sum(values) for values in runs], [float(len(values)) for values in runs])
    p = permutation_ps([ratio], 40)[0]
    assert p == pytest.approx(permutation_p(runs[:40], runs[40:], seed=9), abs=0.04)
    assert p == pytest.approx(normal_p(ratio, 40), abs=0.04)
    lacking = Ratio([1.0] * 80, [1.0] * 40 + [0.0] * 40)
    assert permutation_ps([lacking], 40) == [1.0]


def record(db: Database, *, version: str, failing: int) -> None:
    tracer = agentspan.Tracer(db.storage, raise_errors=True)
    for number in range(20):
        with tracer.run("shop", version=version, task=f"t{number}"):
            for _ in range(3):
                try:
                    with tracer.span("tool", {"name": "lookup_price"}) as span:
                        span.set_result({"cost_usd": 0.01})
                        if number < failing:
                            raise ValueError("no price")
                except ValueError:
                    pass
            if version == "2.0":
                with tracer.span("tool", {"name": "ask_human"}):
                    pass
    tracer.flush()


def test_versions_are_compared_on_every_storage(db: Database) -> None:
    record(db, version="1.0", failing=0)
    record(db, version="2.0", failing=12)
    reading = agentspan.read(db.storage)
    found = reading.drift("shop@1.0", "shop@2.0")
    assert (found.verdict, found.method, found.tasks, found.base_runs, found.head_runs) == (
        "worse",
        "paired",
        20,
        20,
        20,
    )
    rows = {row.metric: row for row in found.rows}
    fails = rows[Metric("failure_rate", "tool", "lookup_price")]
    assert (fails.base, fails.head, fails.is_significant) == (0.0, 0.6, True)
    assert rows[Metric("calls", "tool", "ask_human")].is_new
    assert reading.drift("agent=shop version=1.0", "shop@1.0").base_runs == 0  # they are in the head
    with pytest.raises(InvalidValue, match="is no rule"):
        reading.drift("all", "all", outcome="good")


def test_drift_is_printed_in_80_columns_as_markdown_and_as_a_document(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        record(db, version="1.0", failing=0)
        record(db, version="2.0", failing=12)
    shown = lines(path, "drift", "shop@1.0", "shop@2.0")
    assert shown[0].startswith("shop@2.0 is worse than shop@1.0: ")
    assert "lookup_price fails 60% (0%)" in " ".join(shown[:2])
    assert max(map(columns_of, shown)) <= 80
    assert lines(path, "diff", "shop@1.0", "shop@2.0") == shown
    assert max(map(columns_of, lines(path, "drift", "shop@1.0", "shop@2.0", columns=130))) <= 130
    document = json.loads(call(path, "drift", "--base", "version=1.0", "--head", "version=2.0", "--json").output)
    assert (document["verdict"], document["base_runs"], document["total"]) == ("worse", 20, len(document["rows"]))
    assert document["rows"][0]["metric"] == {"measure": "passed", "schema_name": None, "label": None}
    markdown = lines(path, "drift", "shop@1.0", "shop@2.0", "--markdown")
    assert markdown[0].startswith("**shop@2.0 is worse than shop@1.0: ")
    assert any(
        line.startswith("| **lookup\\_price: fails** | 0% (0–17%) | 60% (36–81%) | +60.0 points |") for line in markdown
    )
    assert call(path, "drift", "shop@1.0").exit_code == 2
