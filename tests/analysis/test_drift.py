"""Two groups of runs: what differs is found, what is the same is not, and how blind a comparison is is said."""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import agentspan
from agentspan import clock
from agentspan.analysis.drift import FAMILY_FDR, LEAST, Drift, compare, group_sizes, least_of, task_pairs
from agentspan.analysis.drift_metrics import Gathered, Metric, RunFacts, tool_mix
from agentspan.analysis.drift_text import facts, mark, over_all, sentence
from agentspan.analysis.statistics import MOST_PERMUTED, Ratio, normal_p, permutation_ps
from agentspan.cli.output import columns_of
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.testing import deterministic
from agentspan.text import points
from tests.analysis.simulated_groups import group, metrics_of_tools, simulated
from tests.cli.calling import call, lines
from tests.tiers import longer

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


@pytest.mark.full
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
    missed = f"; of drops of {points(few.detectable)} points of passed runs, so few runs find four in five"
    assert missed in sentence(few, "a", "b")
    blind = compare(made(chance, 3), made(chance, 3))
    assert blind.detectable == 1
    assert sentence(blind, "a", "b").endswith("; with this few runs no drop of passed runs would show")
    hopeless = compare(made(chance, 9, passes=0.0), made(chance, 9, passes=0.0))
    assert sentence(hopeless, "a", "b").endswith("no run of the base passed, so that no drop could show")
    assert compare(Gathered([], 0, 0), made(chance, 3)).verdict == "not_compared"


def shuffled_p(runs: list[list[float]], in_a: int) -> float:
    """Return the share of shuffles of the runs in which their means differ at least as much as observed."""

    def difference(runs: list[list[float]]) -> float:
        sides = runs[:in_a], runs[in_a:]
        a, b = (sum(map(sum, side)) / sum(map(len, side)) for side in sides)
        return abs(a - b)

    chance = random.Random(9)
    shuffles = [difference(chance.sample(runs, len(runs))) >= difference(runs) for _ in range(1000)]
    return (sum(shuffles) + 1) / 1001


def test_ratios_are_tested_as_means_are_and_as_the_normal_approximation_does() -> None:
    chance = random.Random(4)
    runs = [[chance.gauss(0.3 * (place >= 40), 1) for _ in range(chance.randrange(1, 5))] for place in range(80)]
    ratio = Ratio([sum(values) for values in runs], [float(len(values)) for values in runs])
    p = permutation_ps([ratio], 40)[0]
    assert p == pytest.approx(shuffled_p(runs, 40), abs=0.04)
    assert p == pytest.approx(normal_p(ratio, 40), abs=0.04)
    lacking = Ratio([1.0] * 80, [1.0] * 40 + [0.0] * 40)
    assert permutation_ps([lacking], 40) == [1.0]


@pytest.mark.parametrize(
    ("runs", "tasks", "passes"),
    [
        (60, 0, 0.8),
        (60, 60, 0.8),
        (28, 0, 1.0),
        pytest.param(50, 50, 1.0, marks=pytest.mark.nightly),
        pytest.param(80, 20, 0.8, marks=pytest.mark.nightly),
        pytest.param(60, 0, 0.97, marks=pytest.mark.full),
        pytest.param(60, 20, 0.97, marks=pytest.mark.nightly),
        pytest.param(64, 8, 1.0, marks=pytest.mark.full),
        pytest.param(60, 0, 0.3, marks=pytest.mark.nightly),
    ],
)
def test_a_drop_that_would_show_is_found_and_an_equal_outcome_seldom_differs(
    runs: int, tasks: int, passes: float
) -> None:
    sets = longer("AGENTSPAN_TEST_SIMULATED_OUTCOMES", 40, 40, 4000)
    found = [simulated(seed, runs=runs, metrics=None, tasks=tasks, passes=passes) for seed in range(sets)]
    assert sum(each.is_found for each in found) >= 0.75 * sets
    assert sum(each.is_false for each in found) <= 0.05 * sets


@pytest.mark.parametrize(
    ("base", "head", "tasks", "missed"), [(28, 21, 0, 25), (50, 50, 50, 16), (60, 60, 20, 37), (5, 5, 5, 100)]
)
def test_where_all_passed_the_drop_that_would_be_missed_is_exact(base: int, head: int, tasks: int, missed: int) -> None:
    chance = random.Random(1)
    groups = (made(chance, number, passes=1.0, tasks=tasks) for number in (base, head))
    found = compare(*groups).detectable
    assert found is not None
    assert points(found) == missed


@pytest.mark.parametrize("tasks", [0, 40])
def test_other_metrics_hide_no_drop_and_equal_groups_seldom_differ(tasks: int) -> None:
    sets = longer("AGENTSPAN_TEST_SIMULATED_SETS", 5, 5, 400)
    found = [simulated(seed, runs=80, metrics=10, tasks=tasks) for seed in range(sets)]
    assert sum(each.is_found for each in found) >= 0.6 * sets  # of so few sets; see benchmarks/bench_verdicts.py
    assert sum(each.is_false for each in found) <= max(1, 0.06 * sets)


def timed(chance: random.Random, number: int, middle: float, *, passes: float = 0.8, cost: float = 0.02) -> Gathered:
    """Runs that take as long as this, with heavy tails, and cost almost the same each."""
    runs = []
    for index in range(number):
        values = {
            PASSED: (float(chance.random() < passes), 1.0),
            Metric("duration_ms"): (middle * chance.lognormvariate(0, 1), 1.0),
            COST: (cost * chance.uniform(0.99, 1.01), 0.0),
        }
        runs.append(RunFacts(str(index), None, values))
    return Gathered(runs, 0, 0)


def test_one_slow_run_decides_nothing_and_slower_runs_do() -> None:
    chance = random.Random(6)
    base, head = timed(chance, 60, 1000), timed(chance, 60, 3000)
    base.runs[0].values[Metric("duration_ms")] = 1e9, 1.0  # its mean is a thousand times that of the head
    found = compare(base, head)
    (row,) = [each for each in found.rows if each.metric.measure == "duration_ms"]
    assert (found.verdict, row.is_significant, row.is_worse) == ("worse", True, True)
    assert row.base is not None
    assert 800 < row.base < 1500


def test_a_difference_that_nobody_would_care_about_changes_no_verdict() -> None:
    chance = random.Random(7)
    base, slower_and_cheaper = timed(chance, 80, 1000, cost=0.02), timed(chance, 80, 4000, cost=0.01995)
    found = [compare(base, slower_and_cheaper, least=least) for least in (LEAST, {}, least_of({"cost_usd": 1}))]
    assert [each.verdict for each in found] == ["worse", "different", "worse"]  # a two-hundredth of a cent
    (row,) = [each for each in found[0].rows if each.metric == COST]
    assert (row.is_small, mark(row)) == (True, "~")
    quick = compare(timed(chance, 80, 0.004), timed(chance, 80, 0.4))  # microseconds, a hundred times as many
    assert quick.verdict == "no_evidence"
    for wrong in ({"cost": 1.0}, {"cost_usd": -1.0}, {"cost_usd": float("nan")}):
        with pytest.raises(InvalidValue, match="least"):
            least_of(wrong)


def test_a_single_metric_of_many_that_differs_clearly_is_found() -> None:
    chance = random.Random(8)
    names = metrics_of_tools(120)
    for shares in ([0.8], [0.8] * 60):
        base, head = (group(chance, 60, names, shares) for _ in range(2))
        for run in head.runs:
            above, below = run.values[COST]
            run.values[COST] = 6 * above, below
        found = compare(base, head)
        assert (found.verdict, [row.metric for row in found.significant]) == ("worse", [COST])
        assert found.family_fdr == FAMILY_FDR


def calling(chance: random.Random, number: int, weights: list[float], *, tasks: int = 0) -> Gathered:
    """Runs whose calls go together: each prefers tools of its own."""
    runs = []
    for index in range(number):
        tastes = [weight * chance.gammavariate(2, 0.5) for weight in weights]
        calls = Counter(chance.choices(range(len(weights)), tastes, k=chance.randrange(1, 12)))
        values = {Metric("calls", "tool", f"tool {tool}"): (float(times), 0.0) for tool, times in calls.items()}
        runs.append(RunFacts(str(index), str(index % tasks) if tasks else None, dict(values)))
    return Gathered(runs, 0, 0)


MANY = [10.0, 8, 6, 5, 4, 3, 2, 2, 1, 1, 0.5, 0.5]
OTHER = [weight * (1.7 if place % 2 else 0.6) for place, weight in enumerate(MANY)]


@pytest.mark.full
@pytest.mark.parametrize(("number", "tasks"), [(40, 0), (60, 30), (150, 0)])
def test_another_mix_of_tools_is_found_as_a_whole_and_the_same_mix_is_none(number: int, tasks: int) -> None:
    false = found = 0
    for seed in range(4):
        chance = random.Random(seed)
        base, same, other = (calling(chance, number, weights, tasks=tasks) for weights in (MANY, MANY, OTHER))
        pairs = task_pairs(base.runs, same.runs), task_pairs(base.runs, other.runs)
        mixes = tool_mix(base.runs, same.runs, pairs[0]), tool_mix(base.runs, other.runs, pairs[1])
        assert mixes[0] is not None
        assert mixes[1] is not None
        assert mixes[0].moved < mixes[1].moved
        false, found = false + (mixes[0].p <= 0.05), found + (mixes[1].p <= 0.05)
    assert false <= 1
    assert found >= 3


@pytest.mark.full
def test_many_runs_have_the_p_of_a_mix_that_their_permutations_have() -> None:
    for seed, tasks in ((1, 0), (2, 0), (3, 60), (4, 60)):
        chance = random.Random(seed)
        base, head = (calling(chance, 90, weights, tasks=tasks) for weights in (MANY, [*MANY[:-2], 2.0, 0.1]))
        pairs = task_pairs(base.runs, head.runs)
        ps = []
        for most in (0, 10_000):
            found = tool_mix(base.runs, head.runs, pairs, most_permuted=most)
            assert found is not None
            ps.append(found.p)
        assert ps[0] == pytest.approx(ps[1], abs=0.03)


def test_where_one_tool_is_called_or_none_there_is_no_mix() -> None:
    chance = random.Random(1)
    some = calling(chance, 5, MANY)
    assert tool_mix(calling(chance, 5, [1]).runs, calling(chance, 5, [1]).runs, []) is None
    assert tool_mix(some.runs, [RunFacts("x", None)], []) is None
    assert Metric("tool_mix") not in [row.metric for row in compare(some, Gathered([], 0, 0)).rows]


def record(db: Database) -> None:
    """Two versions, of which the second one fails in 12 of 20 tasks; a call takes as long in both."""
    with deterministic():
        record_version(db, version="1.0", failing=0)
        record_version(db, version="2.0", failing=12)


def record_version(db: Database, *, version: str, failing: int) -> None:
    tracer = agentspan.Tracer(db.storage, raise_errors=True)
    for number in range(20):
        with tracer.run("shop", version=version, task=f"t{number}"):
            for _ in range(3):
                try:
                    with tracer.span("tool", {"name": "lookup_price"}) as span:
                        for _ in range(number % 7):
                            clock.monotonic_ns()  # a step later
                        span.set_result({"cost_usd": 0.01})
                        if number < failing:
                            raise ValueError("no price")
                except ValueError:
                    pass
            if version == "2.0":
                with tracer.span("tool", {"name": "ask_human"}):
                    pass
    tracer.flush()


def test_an_unknown_cost_is_no_cost_of_0() -> None:
    with agentspan.open(":memory:") as db:
        tracer = agentspan.Tracer(db.storage, raise_errors=True)
        for number in range(16):
            model = "gpt-4o" if number < 8 else "unheard-of"
            with tracer.run("shop", version="1" if number < 8 else "2"):
                for asked in (model, "gpt-4o") if number % 8 == 0 else (model,):
                    with tracer.span("llm", {"model": asked}) as span:
                        span.set_result({"input_tokens": 1000, "output_tokens": 10})
        tracer.flush()
        rows = {row.metric: row for row in db.drift("shop@1", "shop@2").rows}
    assert (rows[COST].base_runs, rows[COST].head_runs, rows[COST].head, rows[COST].p) == (8, 0, None, None)


def test_versions_are_compared_on_every_storage(db: Database) -> None:
    record(db)
    found = db.drift("shop@1.0", "shop@2.0")
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
    mix = rows[Metric("tool_mix")]
    assert (mix.moved, mix.is_significant, mix.is_worse) == (0.25, True, None)
    takes = rows[Metric("duration_ms", "tool", "lookup_price")]
    (calls,) = [stat for stat in db.stats(version="2.0") if stat.label == "lookup_price"]
    assert (takes.head_call_p50, takes.head_call_p95) == (calls.p50_ms, calls.p95_ms) == (4, 7)
    assert not takes.is_significant
    assert fails.head_call_p50 is None
    assert db.drift("agent=shop version=1.0", "shop@1.0").base_runs == 0  # they are in the head
    with pytest.raises(InvalidValue, match="is not a rule"):
        db.drift("all", "all", outcome="good")
    with pytest.raises(InvalidValue, match="is over a score that no run has; there are no scores"):
        db.drift("all", "all", outcome="rewrd>=1")


def test_drift_is_printed_in_80_columns_as_markdown_and_as_a_document(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        record(db)
    shown = lines(path, "diff", "shop@1.0", "shop@2.0")
    assert shown[0].startswith("shop@2.0 is worse than shop@1.0: ")
    assert "lookup_price fails 60% instead of 0%" in " ".join(shown[:2])
    assert max(map(columns_of, shown)) <= 80
    assert lines(path, "diff", "shop@1.0", "shop@2.0") == shown
    assert max(map(columns_of, lines(path, "diff", "shop@1.0", "shop@2.0", columns=130))) <= 130
    document = json.loads(call(path, "diff", "--base", "version=1.0", "--head", "version=2.0", "--json").output)
    assert (document["verdict"], document["base_runs"], document["total"]) == ("worse", 20, len(document["rows"]))
    assert document["rows"][0]["metric"] == {"measure": "passed", "schema_name": None, "label": None}
    markdown = lines(path, "diff", "shop@1.0", "shop@2.0", "--markdown")
    assert markdown[0].startswith("**shop@2.0 is worse than shop@1.0: ")
    assert any(
        line.startswith("| **lookup\\_price: fails** | 0% (0–17%) | 60% (36–81%) | +60.0 points |") for line in markdown
    )
    assert "…" not in markdown[-1]
    assert call(path, "diff", "shop@1.0").exit_code == 2


def unequal(pass_rates: Sequence[tuple[float, float]], *, tokens: float = 1.0) -> list[Gathered]:
    """Two groups with 20 tasks; the base has most runs of the easy half, the head of the hard half.

    Args:
        pass_rates: of an easy task and of a hard one, in each group.
        tokens: how many the head uses of what the base uses for the same task; a hard one needs ten times as many.
    """
    groups = []
    for is_head, rates in enumerate(pass_rates):
        runs = []
        for task in range(20):
            is_hard = task >= 10
            number = 8 if is_hard == bool(is_head) else 2
            used = (1000.0 if is_hard else 100.0) * (tokens if is_head else 1.0)
            for place in range(number):
                values = {PASSED: (float(place < rates[is_hard] * number), 1.0), Metric("tokens"): (used + task, 0.0)}
                runs.append(RunFacts(f"{is_head} {task} {place}", str(task), values))
        groups.append(Gathered(runs, 0, 0))
    return groups


def test_where_runs_are_paired_values_direction_and_verdict_are_of_the_tasks_and_not_of_the_mix_of_runs() -> None:
    base, head = unequal([(0.75, 0.0), (1.0, 0.375)])  # better on both kinds of task
    found = compare(base, head)
    row = found.rows[0]
    assert (found.verdict, row.metric, row.tasks, row.is_worse, row.is_turned) == ("better", PASSED, 20, False, True)
    assert (row.base, row.head) == pytest.approx((0.375, 0.6875))
    assert (row.all_base, row.all_head) == pytest.approx((0.6, 0.5))
    assert sentence(found, "1", "2") == "2 is better than 1, task by task: 69% passed instead of 38%"
    why = "because tasks have unequal numbers of runs"
    assert [*over_all(found)] == [f"over all runs the opposite: 50% passed instead of 60%, {why}"]
    turned = compare(head, base)
    assert (turned.verdict, turned.rows[0].is_worse) == ("worse", True)
    equal = [made(random.Random(1), 40, passes=passes, tasks=20) for passes in (0.1, 0.9)]
    assert [*over_all(compare(*equal))] == []


def test_other_metrics_of_paired_runs_have_the_direction_that_they_have_within_tasks() -> None:
    found = compare(*unequal([(1.0, 1.0), (1.0, 1.0)], tokens=0.6))
    (row,) = [row for row in found.rows if row.metric.measure == "tokens"]
    assert (found.verdict, row.is_significant, row.is_worse, row.tasks) == ("better", True, False, 20)
    assert sentence(found, "1", "2") == "2 is better than 1, task by task: tokens a run ×0.61"
    assert [*over_all(found)] == [
        "over all runs the opposite: tokens a run ×1.8, because tasks have unequal numbers of runs or calls"
    ]


def test_the_drop_that_would_be_missed_is_of_the_runs_that_are_compared() -> None:
    base, head = unequal([(0.75, 0.0), (1.0, 0.375)])
    alone = [RunFacts(f"x {number}", f"x {number}", {PASSED: (1.0, 1.0)}) for number in range(50)]
    sizes = group_sizes([*base.runs, *alone], head.runs)
    assert sizes is not None
    assert (sizes.base, sizes.head, sizes.pairs) == (100, 100, 20)
    assert sizes.share == pytest.approx((0.375 + 0.6875) / 2)  # as the values are: each task counts the same
    assert sizes == group_sizes(base.runs, head.runs)


def test_where_no_task_has_an_outcome_in_both_groups_all_runs_are_compared() -> None:
    base, head = unequal([(1.0, 1.0), (0.0, 0.0)])
    for runs, tasks in ((base.runs, range(10)), (head.runs, range(10, 20))):
        for run in runs:
            if int(run.task or 0) in tasks:
                del run.values[PASSED]
    found = compare(base, head)
    row = found.rows[0]
    assert (found.verdict, found.method, row.tasks, row.base, row.head) == ("worse", "paired", None, 1.0, 0.0)
    assert "20 tasks (none with an outcome) · paired by task" in facts(found, "1", "2")


def test_a_metric_that_no_task_has_in_both_groups_is_not_tested() -> None:
    base, head = unequal([(1.0, 1.0), (1.0, 1.0)])
    for group_, tasks in ((base, range(10)), (head, range(10, 20))):
        for run in group_.runs:
            if int(run.task or 0) in tasks:
                run.values[FAILS] = float(group_ is head), 1.0
    (row,) = [row for row in compare(base, head).rows if row.metric == FAILS]
    assert (row.base, row.head, row.tasks, row.q, row.is_worse) == (0.0, 1.0, 0, None, None)


@pytest.mark.parametrize(
    ("shared", "others", "said"),
    [(4, 0, "4 tasks in both, too few to pair"), (6, 14, "6 tasks in both, with too few of the runs to pair")],
)
def test_why_runs_with_tasks_are_not_paired_is_said(shared: int, others: int, said: str) -> None:
    groups = []
    for side in ("a", "b"):
        tasks = [*map(str, range(shared)), *(f"{side} {number}" for number in range(others))]
        groups.append(Gathered([RunFacts(side + task, task, {PASSED: (1.0, 1.0)}) for task in tasks], 0, 0))
    found = compare(*groups)
    assert (found.method, found.tasks, found.tasks_in_both) == ("permutation", None, shared)
    assert f" · {said} · permutation of runs" in facts(found, "1", "2")


def test_runs_and_tasks_without_an_outcome_are_told() -> None:
    base, head = unequal([(1.0, 1.0), (1.0, 1.0)])
    for run in base.runs[:10]:  # all of the first task, and two of the second one
        del run.values[PASSED]
    said = facts(compare(base, head), "1", "2")
    assert said.startswith("base 1: 100 runs (90 with an outcome) · head 2: 100 runs · 20 tasks (19 with an outcome)")


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    """Eight runs that completed; four of them missed the reward."""
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(8):
        with tracer.run("shop", version=str(1 + number % 2), tags=["even"] if number % 2 else []) as run:
            run.score("reward", number // 4)
            with tracer.span("tool", {"name": "look"}):
                pass
    tracer.shutdown()
    return path


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (
            ("--base", "tag=even", "--head", "all"),
            "4 runs match base tag=even; each also matches head all, so nothing is left",
        ),
        (("shop@3", "shop@1"), "no run matches shop@3; versions: '2', '1'"),
        (("shop@1", "shop@3"), "no run matches shop@3; versions: '2', '1'"),
        (("--base", "tag=odd", "--head", "all"), "no run matches tag=odd; tags: 'even'"),
    ],
)
def test_where_nothing_can_be_compared_the_reason_is_told_with_exit_code_2(
    scored: Path, groups: tuple[str, ...], said: str
) -> None:
    result = call(scored, "diff", *groups)
    assert (result.exit_code, result.output) == (2, f"Error: not compared: {said}\n")


def test_runs_of_both_groups_are_counted_and_a_missed_score_is_named(scored: Path) -> None:
    shown = " ".join(lines(scored, "diff", "--base", "all", "--head", "tag=even"))
    assert "base all: 4 runs · head tag=even: 4 runs · permutation of runs · 4 in both count for head" in shown
    assert "judged by reward>=1 · no run failed by its status; --outcome chooses another rule" in shown
    assert "by status" not in " ".join(lines(scored, "diff", "shop@1", "shop@2", "--outcome", "reward>=1"))
    by_status = ("diff", "shop@1", "shop@2", "--outcome", "status")
    assert "by status; 4 of 8 missed reward>=1: --outcome 'reward>=1'" in " ".join(lines(scored, *by_status))
    assert json.loads(call(scored, *by_status, "--json").output)["missed"]["missed"] == 4
    assert json.loads(call(scored, "diff", "shop@1", "shop@2", "--json").output)["rule"] == "reward>=1"


def test_the_table_explains_its_marks_its_q_and_its_intervals(scored: Path) -> None:
    shown = lines(scored, "diff", "shop@1", "shop@2", "--outcome", "reward>=1", columns=140)
    assert any("95% interval 7–93%" in line for line in shown if "passed" in line)
    (duration,) = [line for line in shown if "duration of a run" in line]
    assert "  < 10 ms  " in duration
    text = " ".join(shown)
    assert "! = unlikely to be chance: q is at most 0.05 for passed, 0.005 for other rows; q = the share of" in text
    assert "the rows tested; of passed: how often chance alone makes such a difference; < 10 ms: too small" in text
    assert "; < 10 ms: too small to count" in text


def test_what_did_not_get_worse_stands_apart_in_the_sentence(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for version, tokens in (("1", 900), ("2", 600)):
        for number in range(40):
            with tracer.run("shop", version=version) as run:
                run.score("reward", number % 8 > 0 if version == "1" else number % 4 == 0)
                with tracer.span("llm", {"model": "m1"}) as span:
                    span.set_result({"input_tokens": tokens + number % 5, "output_tokens": 1})
    tracer.shutdown()
    worse = lines(path, "diff", "shop@1", "shop@2", "--outcome", "reward==true", columns=300)[0]
    rest = "also different: tokens a run ×0.67; m1 tokens ×0.67"
    assert worse == f"shop@2 is worse than shop@1: 25% passed instead of 88%; {rest}"
    better = lines(path, "diff", "shop@2", "shop@1", "--outcome", "reward==true", columns=300)[0]
    assert better == "shop@1 is better than shop@2: 88% passed instead of 25%; " + rest.replace("0.67", "1.5")


def test_differences_that_are_neither_are_counted_apart_from_those_that_are_worse() -> None:
    chance = random.Random(3)
    names = [Metric("tokens", "llm", f"m{number}") for number in range(4)]
    calls = [Metric("calls", "tool", f"t{number}") for number in range(3)]
    base, head = (Gathered([RunFacts(str(n), None) for n in range(40)], 0, 0) for _ in range(2))
    for before, after in zip(base.runs, head.runs, strict=True):
        before.values |= {metric: (chance.uniform(9, 11), 0.0) for metric in (*names, *calls)}
        after.values |= {metric: (9 * above, below) for metric, (above, below) in before.values.items()}
    found = compare(base, head)
    assert sentence(found, "1", "2").endswith("; m3 tokens ×9; also different: 3 more")
    few = replace(found, rows=tuple(row for row in found.rows if row.metric not in names[1:]))
    assert sentence(few, "1", "2").endswith(": m0 tokens ×9; also different: t0 calls ×9; t1 calls ×9; t2 calls ×9")
    own = replace(found, rows=tuple(row for row in found.rows if row.metric not in calls) * 2)
    assert sentence(own, "1", "2").endswith("; and 4 more")


def test_rare_calls_messages_and_moved_calls_are_named_as_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for version in (1, 2):
        for number in range(50):
            with tracer.run("shop", version=str(version)) as run:
                run.score("reward", number % 2 * (version == 1))
                tools = ["look", *(["refund"] if number < 3 * (2 - version) else ()), *["pay"] * 2 * (version == 2)]
                for tool in tools:
                    with tracer.span("tool", {"name": tool}):
                        pass
                for _ in range(2 * version):
                    with tracer.span("message", {"role": "user", "content": "hello"}):
                        pass
    tracer.shutdown()
    shown = lines(path, "diff", "shop@1", "shop@2", "--outcome", "reward>=1", "--full", columns=100)
    cells = [" ".join(line.strip("! ").split()) for line in shown]
    assert any(line.startswith("refund: calls 0.06 0 gone") for line in cells), cells
    assert any(line.startswith("messages 2.0 4.0 ×2 ") for line in cells), cells
    assert any(re.match(r"mix of tools 6\d% of calls moved ", line) for line in cells), cells
    assert "q is at most 0.05; q = the share of false findings among those at least as clear" in " ".join(shown)
    found = agentspan.open(path).drift("shop@1", "shop@2")
    mix = [row for row in found.rows if row.metric.measure == "tool_mix"]
    said = sentence(replace(found, verdict="different", rows=tuple(mix)), "1", "2")
    assert re.fullmatch(r"2 is different from 1: another mix of tools: 6\d% of calls moved to other tools", said), said


def test_a_group_that_is_neither_worse_nor_better_is_different_from_the_other() -> None:
    chance = random.Random(7)
    found = compare(timed(chance, 80, 1000, cost=0.02), timed(chance, 80, 4000, cost=0.01))
    assert sentence(found, "1", "2").startswith("2 is different from 1: ")
