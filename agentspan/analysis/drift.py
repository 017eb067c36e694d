"""Tests whether two groups of runs, such as two versions of an agent, differ by more than chance.

The samples are runs, not spans. If both groups have runs of the same tasks, each task is compared with itself, and all
tasks have the same weight, in the values and in the tests. Otherwise a group that ran hard tasks more often would look
worse. The outcome is tested alone, at 5 %. All other metrics are one family, whose false discovery rate is 0.5 %, or
5 % if the outcome differs or is unknown. So among equal versions, one of twenty comparisons finds a difference (see
benchmarks/bench_verdicts.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from math import fsum, inf, sqrt
from statistics import fmean, mean, pvariance, stdev
from typing import Literal

from agentspan.analysis import doubts
from agentspan.analysis.doubts import chosen_by, doubt_of
from agentspan.analysis.drift_metrics import (
    Gathered,
    Measure,
    Metric,
    Pairs,
    RunFacts,
    ToolMix,
    as_measured,
    gather,
    metrics_of,
    tool_mix,
    value_of,
    values_of,
)
from agentspan.analysis.outcomes import Judge, Missed, decided, missed_rule, one, outcomes
from agentspan.analysis.power import ALPHA, GroupSizes
from agentspan.analysis.runs import find_runs, stats
from agentspan.analysis.statistics import (
    CONFIDENCE,
    FEWEST_TASKS,
    MOST_PERMUTED,
    PAIRED_SHARE,
    Interval,
    PairedCase,
    Ratio,
    benjamini_hochberg,
    exact_interval,
    fisher_p,
    normal_p,
    paired_tails,
    permutation_ps,
    sign_ps,
    two_sided,
    variance_of,
    wilson,
)
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter
from agentspan.storage.sums import Progress

FAMILY_FDR = 0.005
"""The false discovery rate of all metrics but the outcome, if the outcome does not differ.

Fisher's exact test of the outcome errs in 3.7 % of the comparisons of 200 equal runs, so that both tests together err
in less than 5 %.
"""
LEAST: Mapping[Measure, float] = {"duration_ms": 10.0, "cost_usd": 0.0001}
"""The smallest difference that counts, by measure, in its unit. Smaller ones are shown, but irrelevant in practice."""
MOST_RUNS = 2000
"""The number of latest runs of a group that are compared. 4,000 take twice as long (2.8 s) and detect little more."""
MOST_EXACT = 300
"""The number of trials up to which an interval is exact (5 ms); Wilson's interval for more is within half a point."""

MEASURES: tuple[Measure, ...] = ("passed", "failure_rate", "duration_ms", "cost_usd", "tokens", "spans", "calls")
"""The measures for which a smallest difference that counts can be set."""

Verdict = Literal["worse", "better", "different", "no_evidence", "inconclusive", "not_compared"]
Method = Literal["permutation", "paired", "normal"]
BAD_WHEN_MORE = frozenset({"failure_rate", "cost_usd", "tokens", "duration_ms"})
PASSED = Metric("passed")


@dataclass(frozen=True, slots=True)
class DriftRow:
    """The comparison of one metric between the two groups.

    Attributes:
        metric: the compared metric.
        base, head: the value in each group; None if the group has none. Shares are from 0 to 1; durations are geometric
            means. If runs are paired, the unweighted mean over the tasks in which both groups have a value.
        base_runs, head_runs: the number of runs with a value, of any task.
        base_interval, head_interval: the 95 % interval of a share, for the number of independent trials that the runs
            are worth; exact up to 300 trials, else Wilson's. None for other measures.
        base_p50, base_p95, head_p50, head_p95: percentiles over the values of single runs; None for shares.
        p: the probability of at least such a difference by chance; None if not tested.
        q: the share of false findings among the metrics that are at least as clear. For the outcome, and for the least
            clear metric, it is the p.
        is_new, is_gone: whether only the head, or only the base, has spans of this type and label.
        moved: for the tool mix, the share of calls that went to other tools, from 0 to 1; else None.
        base_call_p50, base_call_p95, head_call_p50, head_call_p95: percentiles over single calls, for the duration of a
            type or label.
        level: the largest q of a significant difference; 0 for an outcome that is in doubt.
        least: the smallest difference that counts.
        tasks: the number of tasks in which both groups have a value; None if runs are not paired.
        all_base, all_head: if runs are paired, the value over all runs of the group with equal weights.
    """

    metric: Metric
    base: float | None
    head: float | None
    base_runs: int
    head_runs: int
    base_interval: Interval | None
    head_interval: Interval | None
    base_p50: float | None
    base_p95: float | None
    head_p50: float | None
    head_p95: float | None
    p: float | None
    q: float | None
    is_new: bool
    is_gone: bool
    moved: float | None = None
    base_call_p50: float | None = None
    base_call_p95: float | None = None
    head_call_p50: float | None = None
    head_call_p95: float | None = None
    level: float = ALPHA
    least: float = 0.0
    tasks: int | None = None
    all_base: float | None = None
    all_head: float | None = None

    @property
    def is_significant(self) -> bool:
        """True if the difference is more than chance, given all tested metrics, and large enough to count."""
        return self.q is not None and self.q <= self.level and not self.is_small

    @property
    def is_small(self) -> bool:
        """True if the difference is smaller than the smallest one that counts."""
        return self.base is not None and self.head is not None and abs(self.head - self.base) < self.least

    @property
    def is_share(self) -> bool:
        """True if the metric is a share of runs or calls."""
        return self.metric.measure in ("passed", "failure_rate")

    @property
    def is_worse(self) -> bool | None:
        """True if the head is worse, False if it is not; None if a larger value is neither good nor bad.

        Also None if a group has no value, or if runs are paired and no task has values of both groups.
        """
        if self.base is None or self.head is None or self.tasks == 0:
            return None
        if self.metric.measure == "passed":
            return self.head < self.base
        return self.head > self.base if self.metric.measure in BAD_WHEN_MORE else None

    @property
    def is_turned(self) -> bool:
        """True if the difference over all runs has the opposite direction of the difference within tasks."""
        if self.base is None or self.head is None or self.all_base is None or self.all_head is None:
            return False
        return (self.head - self.base) * (self.all_head - self.all_base) < 0


@dataclass(frozen=True, slots=True)
class Drift:
    """The comparison of two groups of runs.

    Attributes:
        verdict: `worse`, `better`, `different` (neutral, or better in one metric and worse in another), `no_evidence`;
            `inconclusive` if the outcome is in doubt; `not_compared` if a group has no run that ended.
        base_runs, head_runs: the number of ended runs of each group.
        open: the number of runs of both groups that have not ended and are left out.
        unknown: the number of ended runs of both groups without a known outcome.
        tasks: the number of tasks by which runs were paired; None if runs were not paired.
        method: the statistical test of the metrics.
        detectable: the smallest drop of the share of passed runs that this number of runs detects (80 % power); 1 if no
            drop is detectable; None if no outcomes are known.
        left_out: the number of labels that are not compared, because there are more than 2,000.
        rows: the outcome first, then the metrics of whole runs, then each type and label.
        earlier: the number of matching runs that are left out, because a group has more than 2,000: the earliest ones.
        matched: the number of runs that match each filter, base and head.
        shared: the number of runs that match both filters and count for the head only.
        missed: if the status decides: a rule over a score that runs missed; None if there is no rule.
        tasks_in_both: the number of tasks of which both groups have runs, paired or not.
        rule: the rule that decides whether a run passed; None if the status decides.
        doubt: why the verdict on the outcome is withheld, as a sentence; None if it stands.
    """

    verdict: Verdict
    base_runs: int
    head_runs: int
    open: int
    unknown: int
    tasks: int | None
    method: Method
    detectable: float | None
    left_out: int
    rows: tuple[DriftRow, ...]
    earlier: int = 0
    matched: tuple[int, int] = (0, 0)
    shared: int = 0
    missed: Missed | None = None
    tasks_in_both: int = 0
    rule: str | None = None
    doubt: str | None = None

    @property
    def outcome(self) -> DriftRow | None:
        """The row of the outcome; None if no run has a known outcome."""
        return next((row for row in self.rows if row.metric == PASSED), None)

    @property
    def family_fdr(self) -> float:
        """The false discovery rate at which all metrics but the outcome are tested."""
        return next((row.level for row in self.rows if row.metric != PASSED), ALPHA)

    @property
    def significant(self) -> list[DriftRow]:
        """The rows that differ significantly: outcome, failures, costs and tokens, durations, others; each by q."""
        found = [row for row in self.rows if row.is_significant]
        order = {"passed": 0, "failure_rate": 1, "cost_usd": 2, "tokens": 2, "duration_ms": 3}
        return sorted(found, key=lambda row: (order.get(row.metric.measure, 4), row.q))


def drift(
    storage: Storage,
    base: RunFilter,
    head: RunFilter,
    *,
    judge: Judge = None,
    least: Mapping[Measure, float] = LEAST,
    with_calls: bool = True,
    progress: Progress | None = None,
) -> Drift:
    """Return the comparison of the runs that match two filters.

    Args:
        base, head: the filters of the two groups; a run that matches both counts for the head only.
        judge: decides whether a run passed; when left out, as outcomes.decided finds.
        least: the smallest differences that count, by measure (see LEAST).
        with_calls: compute the percentiles over single calls, which take a third of the time for a million spans.
        progress: called with (done, total) while an index is built.

    Raises:
        InvalidValue: the rule is over a score that no run has.
    """
    of_head, of_base = (find_runs(storage, each, limit=MOST_RUNS, progress=progress) for each in (head, base))
    ids = {run.run.id for run in of_head.runs}
    rows = [run.run for run in of_head.runs], [run.run for run in of_base.runs if run.run.id not in ids]
    rule = decided(storage, [*rows[0], *rows[1]], judge)
    passed = [outcomes(storage, each, rule) for each in rows]
    heads, bases = (gather(storage, *each) for each in zip(rows, passed, strict=True))
    found = replace(
        compare(bases, heads, least=least),
        earlier=sum(found.total - len(found.runs) for found in (of_head, of_base)),
        matched=(of_base.total, of_head.total),
        shared=len(of_base.runs) - len(rows[1]),
        missed=missed_rule(storage, [*rows[0], *rows[1]]) if rule is None else None,
        rule=one(rule),
    )
    if not with_calls:
        return found
    compared = ([run.run_id for run in each.runs] for each in (bases, heads))
    return replace(found, rows=_with_calls(storage, found.rows, *compared))


def missed_by_status(
    storage: Storage, rows: Sequence[AgentInstanceRow], passed: Sequence[Mapping[str, bool | None]]
) -> Missed | None:
    """Return a rule that runs missed if no run failed by its status; None if a run failed, or no rule was missed."""
    return None if any(False in each.values() for each in passed) else missed_rule(storage, rows)


def least_of(wanted: Mapping[str, float]) -> dict[Measure, float]:
    """Return the smallest differences that count, by measure: LEAST, overridden by `wanted`.

    Raises:
        InvalidValue: a measure is unknown, or a difference is not a number from 0 on.
    """
    found = dict(LEAST)
    for name, value in wanted.items():
        measure = next((each for each in MEASURES if each == name), None)
        if measure is None:
            raise InvalidValue("least", f"{name!r} is not a measure; there are {', '.join(MEASURES)}")
        if not 0 <= value < inf:
            raise InvalidValue("least", f"{name} must be a number from 0 on")
        found[measure] = value
    return found


def compare(base: Gathered, head: Gathered, *, least: Mapping[Measure, float] = LEAST, seed: int = 0) -> Drift:
    """Return the comparison of the facts of two groups of runs.

    Args:
        least: the smallest differences that count, by measure.
        seed: the seed of the permutations; the same seed gives the same result.
    """
    runs = [*base.runs, *head.runs]
    metrics, left_out = metrics_of(runs)
    tasks = task_pairs(base.runs, head.runs)
    method: Method = "paired" if tasks else "normal" if len(runs) > MOST_PERMUTED else "permutation"
    in_base = len(base.runs)
    ratios = [Ratio(*values_of(runs, metric)) for metric in metrics]
    pairs = [task_values(metric, tasks) for metric in metrics]
    if not base.runs or not head.runs:
        ps = [1.0] * len(metrics)
    elif tasks:
        ps = _paired_ps(pairs, seed)
    elif method == "normal":
        ps = [normal_p(ratio, in_base) for ratio in ratios]
    else:
        ps = permutation_ps(ratios, in_base, seed=seed)
    tested = [
        place
        for place, ratio in enumerate(ratios)
        if _is_tested(ratio, in_base) and (not tasks or pairs[place] or metrics[place] == PASSED)
    ]
    mix = tool_mix(base.runs, head.runs, tasks, seed=seed) if base.runs and head.runs else None
    outcome = [place for place in tested if metrics[place] == PASSED]
    for place in outcome:
        ps[place] = outcome_p(base.runs, head.runs, tasks, seed=seed)
    doubt = None
    if base.runs and head.runs:
        judged = partial(_outcome_verdict, seed=seed)
        found = judged(base.runs, head.runs, p=ps[outcome[0]] if outcome else None)
        doubt = outcome_doubt(base.runs, head.runs, found, judged)
    smallest = [least.get(metric.measure, 0.0) for metric in metrics]
    rows = [_row(metric, ratio, in_base) for metric, ratio in zip(metrics, ratios, strict=True)]
    if tasks:
        rows = [_within_tasks(row, found) for row, found in zip(rows, pairs, strict=True)]
    # If both values are below the least difference, their difference is, too: leave such metrics out of the family.
    family = [
        place
        for place in tested
        if place not in outcome and max(rows[place].base or 0.0, rows[place].head or 0.0) >= smallest[place]
    ]
    adjusted = benjamini_hochberg([ps[place] for place in family] + ([] if mix is None else [mix.p]))
    qs = dict(zip(family, adjusted, strict=False)) | {place: ps[place] for place in outcome}
    fdr = FAMILY_FDR if doubt or any(ps[place] > ALPHA for place in outcome) else ALPHA
    for place, row in enumerate(rows):
        p = ps[place] if place in qs else None
        level = fdr if row.metric != PASSED else ALPHA if doubt is None else 0.0
        rows[place] = replace(row, p=p, q=qs.get(place), level=level, least=smallest[place])
    if mix is not None:
        of_runs = sum(metric.schema_name is None for metric in metrics)
        rows.insert(of_runs, replace(_mix_row(mix, adjusted[-1]), level=fdr))
    return Drift(
        "inconclusive" if doubt else _verdict(rows) if base.runs and head.runs else "not_compared",
        len(base.runs),
        len(head.runs),
        base.open + head.open,
        base.unknown + head.unknown,
        len(tasks) or None,
        method,
        detectable_drop(base.runs, head.runs),
        left_out,
        tuple(rows),
        tasks_in_both=len(_by_task(base.runs).keys() & _by_task(head.runs).keys()),
        doubt=doubt,
    )


_Runs = Sequence[RunFacts]


def outcome_doubt(
    base: _Runs, head: _Runs, verdict: doubts.Verdict, judged: Callable[[_Runs, _Runs], doubts.Verdict]
) -> str | None:
    """Return why the verdict on the outcomes of two groups of runs is withheld (see doubt_of); None if it stands.

    An outcome is missing where a run completed or failed without one. If less than half of all runs have an outcome,
    the runs that have one are a sample that somebody judged, and only those of trials are missing.

    Args:
        verdict: the verdict on these outcomes.
        judged: returns the verdict on other outcomes, of the base and of the head.
    """
    runs = [*base, *head]
    lacking = [run for run in runs if PASSED not in run.values and run.status in ("complete", "failed")]
    is_sample = 2 * len(lacking) > len(runs)
    missing = {id(run) for run in lacking if run.is_trial or not is_sample}
    if len(lacking) == len(runs):
        return None

    def with_all(side: _Runs, passed: bool) -> _Runs:
        return [
            replace(run, values=run.values | {PASSED: (float(passed and run.status != "failed"), 1.0)})
            if id(run) in missing
            else run
            for run in side
        ]

    tasks = [
        {
            task: [each[0] > 0 if (each := run.values.get(PASSED)) else None for run in own]
            for task, own in found.items()
        }
        for found in map(_by_task, (base, head))
    ]
    return doubt_of(
        verdict,
        lambda passed: judged(with_all(base, not passed), with_all(head, passed)),
        missing=len(missing),
        could_fall=any(outcomes_of(base)) or not any(outcomes_of(head)),
        chosen=chosen_by(
            *([own for task, own in tasks[0].items() if (task in tasks[1]) is is_in] for is_in in (True, False))
        ),
        is_paired=bool(task_pairs(base, head)),
        what="run",
    )


def _outcome_verdict(base: _Runs, head: _Runs, *, seed: int, p: float | None = None) -> doubts.Verdict:
    """Return the verdict on two groups' outcomes; `p` is what `outcome_p` returns for them, if it is known."""
    tasks = task_pairs(base, head)
    if not outcomes_of(base) or not outcomes_of(head):
        return "inconclusive"
    if (outcome_p(base, head, tasks, seed=seed) if p is None else p) > ALPHA:
        return "no difference"
    cases = outcome_cases(tasks)
    change = fsum(each.difference for each in cases) if cases else mean(outcomes_of(head)) - mean(outcomes_of(base))
    return "worse" if change < 0 else "better"


def task_pairs(base: Sequence[RunFacts], head: Sequence[RunFacts]) -> Pairs:
    """Return the runs of both groups by shared task; empty if pairing would leave out too many runs or tasks."""
    sides = [_by_task(runs) for runs in (base, head)]
    shared = sorted(sides[0].keys() & sides[1].keys())
    covered = [
        sum(len(side[task]) for task in shared) >= PAIRED_SHARE * len(runs)
        for side, runs in zip(sides, (base, head), strict=True)
    ]
    return [(sides[0][task], sides[1][task]) for task in shared] if len(shared) >= FEWEST_TASKS and all(covered) else []


def _by_task(runs: Sequence[RunFacts]) -> dict[str, list[RunFacts]]:
    found: dict[str, list[RunFacts]] = {}
    for run in runs:
        if run.task is not None:
            found.setdefault(run.task, []).append(run)
    return found


TaskValues = Sequence[tuple[float, float]]
"""The values of the base and of the head for each task in which both groups have a value."""


def task_values(metric: Metric, tasks: Pairs) -> TaskValues:
    """Return the values of a metric in both groups for each task in which both have a value."""
    pairs = ((_ratio(a, metric), _ratio(b, metric)) for a, b in tasks)
    return [(a, b) for a, b in pairs if a is not None and b is not None]


def differences(values: TaskValues) -> list[float]:
    """Return the value of the head minus that of the base for each task."""
    return [b - a for a, b in values]


def _ratio(runs: Sequence[RunFacts], metric: Metric) -> float | None:
    values = [value_of(run, metric) for run in runs]
    below = sum(value[1] for value in values)
    return sum(value[0] for value in values) / below if below else None


def outcome_p(base: Sequence[RunFacts], head: Sequence[RunFacts], tasks: Pairs, *, seed: int = 0) -> float:
    """Return the two-sided p that the share of passed runs is the same: paired by task, else by Fisher's exact test.

    Fisher's test is also used if no task has an outcome in both groups.
    """
    cases = outcome_cases(tasks)
    if cases:
        return min(1.0, 2 * min(paired_tails(cases, seed=seed)))
    known = outcomes_of(base), outcomes_of(head)
    return fisher_p(round(sum(known[0])), len(known[0]), round(sum(known[1])), len(known[1]))


def outcome_cases(tasks: Pairs) -> list[PairedCase]:
    """Return the outcomes of each task in which both groups have one."""
    known = ((outcomes_of(before), outcomes_of(after)) for before, after in tasks)
    return [PairedCase(round(sum(a)), len(a), round(sum(b)), len(b)) for a, b in known if a and b]


def outcomes_of(runs: Sequence[RunFacts]) -> list[float]:
    """Return 1 for each passed run and 0 for each failed run; runs without an outcome are left out."""
    return [run.values[PASSED][0] for run in runs if PASSED in run.values]


def _paired_ps(pairs: Sequence[TaskValues], seed: int) -> list[float]:
    groups = [differences(values) for values in pairs]
    ps = [
        two_sided(mean(found), stdev(found) / sqrt(len(found))) if len(found) > 1 and any(found) else 1.0
        for found in groups
    ]
    permuted = [place for place, p in enumerate(ps) if p < 1 and len(groups[place]) <= MOST_PERMUTED]
    for place, p in zip(permuted, sign_ps([groups[place] for place in permuted], seed=seed), strict=True):
        ps[place] = p
    return ps


def _is_tested(ratio: Ratio, in_base: int) -> bool:
    """Return whether a ratio can be tested: both groups have values, and not all runs have the same value."""
    has_both = any(ratio.below[:in_base]) and any(ratio.below[in_base:])
    shares = (up / down for up, down in zip(ratio.above, ratio.below, strict=True) if down)
    return has_both and any(share != first for first in islice(shares, 1) for share in shares)


def _row(metric: Metric, ratio: Ratio, in_base: int) -> DriftRow:
    """Return the row of a metric with its values, before it is tested."""
    sides = [_side(metric, ratio.above[part], ratio.below[part]) for part in (slice(in_base), slice(in_base, None))]
    (base, base_runs, base_interval, base_p50, base_p95), (head, head_runs, head_interval, head_p50, head_p95) = sides
    of_label = metric.measure == "calls"
    return DriftRow(
        metric, base, head, base_runs, head_runs, base_interval, head_interval, base_p50, base_p95, head_p50, head_p95,
        None, None, of_label and not base and bool(head), of_label and not head and bool(base),
    )  # fmt: skip


def _within_tasks(row: DriftRow, values: TaskValues) -> DriftRow:
    """Return a row with means over tasks instead of values over runs.

    Without a task with values of both groups, the values stay; `tasks` is then 0, except for the outcome.
    """
    if not values:
        return row if row.metric == PASSED else replace(row, tasks=0)
    sides = [*zip(*values, strict=True)]
    means = [mean(side) for side in sides]
    intervals = [
        share_interval(value, variance_of(side, [1.0] * len(side)), least=len(side), most=runs)
        if row.is_share
        else None
        for value, side, runs in zip(means, sides, (row.base_runs, row.head_runs), strict=True)
    ]
    base, head = (as_measured(row.metric, value) for value in means)
    return replace(
        row,
        base=base,
        head=head,
        base_interval=intervals[0],
        head_interval=intervals[1],
        tasks=len(values),
        all_base=row.base,
        all_head=row.head,
    )


def _mix_row(mix: ToolMix, q: float) -> DriftRow:
    runs = mix.base_runs, mix.head_runs
    nothing = (None,) * 6
    return DriftRow(Metric("tool_mix"), None, None, *runs, *nothing, mix.p, q, False, False, moved=mix.moved)


def _with_calls(
    storage: Storage, rows: Sequence[DriftRow], base: Sequence[str], head: Sequence[str]
) -> tuple[DriftRow, ...]:
    """Return all rows; fill in the percentiles over single calls for the duration of each type and label."""
    sides = []
    for runs in (base, head):
        found = {(stat.schema_name, stat.label): (stat.p50_ms, stat.p95_ms) for stat in stats(storage, runs=runs)}
        # A row without a label covers only spans without a label; a statistic without a label covers the whole type.
        labelled = {name for name, label in found if label is not None}
        sides.append({key: each for key, each in found.items() if key[1] is not None or key[0] not in labelled})
    nothing = None, None
    return tuple(
        replace(row, base_call_p50=a[0], base_call_p95=a[1], head_call_p50=b[0], head_call_p95=b[1])
        if row.metric.measure == "duration_ms" and row.metric.schema_name is not None
        else row
        for row in rows
        for key in ((row.metric.schema_name or "", row.metric.label),)
        for a, b in ((sides[0].get(key, nothing), sides[1].get(key, nothing)),)
    )


def _side(
    metric: Metric, above: Sequence[float], below: Sequence[float]
) -> tuple[float | None, int, Interval | None, float | None, float | None]:
    """Return a group's value, the number of runs with one, its interval, and the p50 and p95 of single runs."""
    total = sum(below)
    own = sorted(up / down for up, down in zip(above, below, strict=True) if down)
    if not total:
        return None, 0, None, None, None
    value = sum(above) / total
    if metric.measure not in ("passed", "failure_rate"):
        value, middle, high = (
            as_measured(metric, each) for each in (value, _percentile(own, 50), _percentile(own, 95))
        )
        return value, len(own), None, middle, high
    variance = variance_of(above, below) if metric.measure == "failure_rate" else None
    return value, len(own), share_interval(value, variance, least=len(own), most=total), None, None


def share_interval(
    share: float, variance: float | None, *, least: int, most: float, confidence: float = CONFIDENCE
) -> Interval:
    """Return the interval of a share, for the number of independent trials that its variance implies.

    Args:
        least, most: the bounds of that number: runs and calls, or tasks and runs. The calls of a run, and the runs of
            a task, depend on each other, so they are worth fewer trials; if all are alike, one per run or task.
    """
    trials = min(most, max(least, share * (1 - share) / variance)) if variance else least
    rounded = max(1, round(trials))
    interval = exact_interval if rounded <= MOST_EXACT else wilson
    return interval(round(share * rounded), rounded, confidence=confidence)


def _percentile(values: Sequence[float], percent: int) -> float:
    return values[-(-len(values) * percent // 100) - 1]


def _verdict(rows: Sequence[DriftRow]) -> Verdict:
    found = [row for row in rows if row.is_significant]
    outcome = next((row for row in found if row.metric.measure == "passed"), None)
    if not found:
        return "no_evidence"
    if outcome is not None:
        return "worse" if outcome.is_worse else "better"
    judged = {row.is_worse for row in found} - {None}
    return "different" if len(judged) != 1 else "worse" if judged == {True} else "better"


def detectable_drop(base: Sequence[RunFacts], head: Sequence[RunFacts]) -> float | None:
    """Return the smallest drop of the share of passed runs that is detected in 80 of 100 cases; None if unknown."""
    found = group_sizes(base, head)
    return None if found is None else found.drop()


def group_sizes(base: Sequence[RunFacts], head: Sequence[RunFacts]) -> GroupSizes | None:
    """Return the sizes and variances of two groups that determine the detectable drop; None without outcomes."""
    cases = outcome_cases(task_pairs(base, head))
    if not cases:
        before, after = outcomes_of(base), outcomes_of(head)
        share = fsum(before + after) / max(1, len(before + after))
        return GroupSizes(share, len(before), len(after), 0, 0.0, 0.0) if before and after else None
    found = [float(each.difference) for each in cases]
    share = mean((each.base_passed / each.base + each.head_passed / each.head) / 2 for each in cases)
    size = fsum(each * each for each in found) / (fsum(map(abs, found)) or 1.0)
    within = fmean(_within(each.base_passed, each.base) + _within(each.head_passed, each.head) for each in cases)
    is_one = within == 0 or any(1 in (each.base, each.head) for each in cases)
    in_base, in_head = (sum(each[place] for each in cases) for place in (1, 3))
    varies, runs = pvariance(found), 1 / in_base + 1 / in_head
    # More than runs that are independent would differ: they repeat each other.
    noise = 1.0 if is_one else min(1.0, max(1.0, 2 * varies / (within * runs * len(cases))) * len(cases) / in_head)
    at_most = share * (1 - share) * (2 * noise if is_one else runs * len(cases))
    return GroupSizes(
        share, in_base, in_head, len(cases), varies, size,
        1.0 if is_one else 1 / max(max(each.base, each.head) for each in cases),
        all(each.base == each.head for each in cases), noise, min(1.0, varies / at_most) if at_most else 1.0,
    )  # fmt: skip


def _within(passed: int, runs: int) -> float:
    """Return the variance of the outcomes of one task; 0 for one run."""
    return passed * (runs - passed) / (runs * (runs - 1)) if runs > 1 else 0.0
