"""The metrics by which two groups of runs are compared: outcome, duration, tokens and cost of runs; calls and failures.

Each metric is a ratio of two sums over runs, such as failures per call. For durations it is the mean of logarithms:
durations have such heavy tails that one slow run in twenty would dominate a plain mean.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import exp, fsum, log, sqrt
from operator import mul
from statistics import NormalDist
from typing import Literal, NamedTuple

from agentspan.analysis.costs import is_unpriced
from agentspan.analysis.statistics import CLOSE, MORE_ROUNDS, RELATIVE, ROUNDS
from agentspan.analysis.tree import trial_of
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow
from agentspan.schemas.span_types import fallback
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunSums
from agentspan.storage.row_by_row import tokens_of
from agentspan.storage.sums import RunSum

Measure = Literal["passed", "duration_ms", "spans", "calls", "failure_rate", "tokens", "cost_usd", "tool_mix"]
MAX_LABELS = 2000
"""The largest number of types and labels that are compared: those that occur in the most runs."""
FEWEST_RUNS = 3
"""The least number of runs with a value, in both groups together, for a metric of a type or label to be compared."""


class Metric(NamedTuple):
    """A quantity that can be measured in runs.

    Attributes:
        measure: `passed`: the share of passed runs. `failure_rate`: the share of failed calls. `duration_ms`: the
            duration of a run, or of a call. `spans`, `calls`, `tokens`, `cost_usd`: the number, or cost, per run.
            `tool_mix`: the shares of the tools among all tool calls.
        schema_name: the type of the measured spans; None for the run as a whole.
        label: the label of the measured spans; None for spans without a label, and for the run as a whole.
    """

    measure: Measure
    schema_name: str | None = None
    label: str | None = None


@dataclass(slots=True)
class RunFacts:
    """The measured values of one run.

    Attributes:
        values: the numerator and the denominator of each metric for which the run has a value.
        unpriced: the costs that are not known, because the model has no price.
        status: the run's status.
        is_trial: whether the run is a trial of an evaluation.
    """

    run_id: str
    task: str | None
    values: dict[Metric, tuple[float, float]] = field(default_factory=dict)
    unpriced: frozenset[Metric] = frozenset()
    status: str = ""
    is_trial: bool = False


class Gathered(NamedTuple):
    """The values of a group of runs to compare.

    Attributes:
        runs: the values of the ended runs (see `gather` for open ones).
        open: the number of runs that have not ended and are left out.
        unknown: the number of runs without a known outcome.
    """

    runs: list[RunFacts]
    open: int
    unknown: int


def gather(
    storage: Storage, rows: Sequence[AgentInstanceRow], passed: Mapping[str, bool | None], *, with_open: bool = False
) -> Gathered:
    """Return the values of all metrics in a group of runs.

    Args:
        passed: the outcome of each run by its id (see outcomes.outcomes).
        with_open: include runs that have not ended, with their values so far.
    """
    ended = [row for row in rows if with_open or row.status not in OPEN]
    facts = {row.id: RunFacts(row.id, row.task, status=row.status, is_trial=trial_of(row) is not None) for row in ended}
    for row in ended:
        values = facts[row.id].values
        outcome = passed[row.id]
        if outcome is not None:
            values[Metric("passed")] = float(outcome), 1.0
        if row.duration_ms is not None:
            values[Metric("duration_ms")] = row.duration_ms, 1.0
    names: dict[tuple[str, str | None], tuple[Metric, ...]] = {}
    for each in storage.ask(RunSums(facts)):
        group = each.schema_name, each.label
        own = names.get(group)
        if own is None:
            own = names[group] = tuple(Metric(measure, *group) for measure in OF_LABEL)
        _add(facts[each.run_id].values, each, own)
        if not each.is_aggregate and is_unpriced(each):
            facts[each.run_id].unpriced |= {COST, own[-1]}
    return Gathered([*facts.values()], len(rows) - len(ended), sum(passed[row.id] is None for row in ended))


OF_LABEL: Sequence[Measure] = ("calls", "failure_rate", "duration_ms", "tokens", "cost_usd")
SPANS, TOKENS, COST = Metric("spans"), Metric("tokens"), Metric("cost_usd")


def _add(values: dict[Metric, tuple[float, float]], each: RunSum, own: Sequence[Metric]) -> None:
    """Add the sums of one type and label to the values of a run.

    Args:
        values: the values of the run.
        each: the sums over the run's spans of the type and label.
        own: the metrics of the type and label, in the order of OF_LABEL.
    """
    tokens = tokens_of(each)
    spans = float(each.spans)
    if not each.is_aggregate:
        for metric, value in ((SPANS, spans), (TOKENS, tokens), (COST, each.cost_usd)):
            if value is not None:
                values[metric] = values.get(metric, NOTHING)[0] + value, 0.0
    # Spans with labels are compared per label only: a metric of the whole type would repeat them.
    calls, failure_rate, duration, of_tokens, of_cost = own
    values[calls] = spans, 0.0
    values[failure_rate] = float(each.failed), spans
    values[duration] = each.total_ms, spans
    if tokens is not None:
        values[of_tokens] = float(tokens), 0.0
    if each.cost_usd is not None:
        values[of_cost] = each.cost_usd, 0.0


PER_RUN = frozenset({"spans", "calls", "tokens", "cost_usd"})
"""Measures per run: a run without a value counts as 0, unless it is an unknown cost."""


NOTHING = (0.0, 0.0)


SHORTEST_MS = 0.001
"""The shortest duration; shorter ones count as this one, because 0 has no logarithm and clocks are no more precise."""


def value_of(run: RunFacts, metric: Metric) -> tuple[float, float]:
    """Return the numerator and denominator of a metric in a run; (0, 0) if the run has no value and is ignored.

    For durations the numerator is the logarithm of the mean duration.
    """
    above, below = run.values.get(metric, NOTHING)
    if metric in run.unpriced:
        return NOTHING
    if metric.measure in PER_RUN:
        return above, 1.0
    if metric.measure == "duration_ms" and below:
        return log(max(above / below, SHORTEST_MS)), 1.0
    return above, below


def as_measured(metric: Metric, value: float) -> float:
    """Convert a value of a metric to the unit of its measure: durations from logarithms to ms."""
    return exp(value) if metric.measure == "duration_ms" else value


def values_of(runs: Sequence[RunFacts], metric: Metric) -> tuple[list[float], list[float]]:
    """Return the numerators and the denominators of a metric in runs, in the order of the runs (see value_of)."""
    found = [value_of(run, metric) for run in runs]
    return [value[0] for value in found], [value[1] for value in found]


def metrics_of(runs: Sequence[RunFacts]) -> tuple[list[Metric], int]:
    """Return the metrics that enough runs have, those of whole runs first; and the number of left-out labels."""
    counts = Counter(chain.from_iterable(run.values for run in runs))
    of_runs = [metric for metric in counts if metric.schema_name is None]
    groups: dict[tuple[str | None, str | None], int] = {}
    for metric, number in counts.items():
        if metric.schema_name is not None and number >= FEWEST_RUNS:
            group = metric.schema_name, metric.label
            groups[group] = max(number, groups.get(group, 0))
    kept = sorted(groups, key=lambda group: (-groups[group], group[0] or "", group[1] or ""))[:MAX_LABELS]
    places = {group: place for place, group in enumerate(kept)}
    of_labels = [metric for metric in counts if (metric.schema_name, metric.label) in places]
    order: Sequence[Measure] = ("passed", "cost_usd", "tokens", "duration_ms", "spans", "calls", "failure_rate")
    of_runs.sort(key=lambda metric: order.index(metric.measure))
    of_labels.sort(key=lambda metric: (places[metric.schema_name, metric.label], OF_LABEL.index(metric.measure)))
    return of_runs + of_labels, len(groups) - len(kept)


TOOL_TYPES = frozenset({"tool", "mcp"})
MOST_TOOLS = 30
"""The largest number of tools in a mix: those of the most runs; the last one stands for all other tools."""
MOST_PERMUTED = 200
"""The largest number of runs, or tasks, that are permuted: 5,000 rounds of 30 tools take 1.1 s for so many.

For more, an approximation is used. Already among 120 runs it differs from 5,000 permutations by less than two such
permutations differ from each other.
"""

Rows = Sequence[Sequence[float]]
"""A row of calls per tool for each run; if runs are paired, for each task, as the mean over its runs."""
Pairs = Sequence[tuple[list[RunFacts], list[RunFacts]]]


class ToolMix(NamedTuple):
    """The difference of the tool mixes of two groups: of the shares of each tool among all calls.

    Attributes:
        moved: the share of calls that went to other tools, from 0 to 1: half the sum of the differences of all shares.
        p: the probability of at least such a difference by chance.
        base_runs, head_runs: the number of runs of each group that called a tool.
    """

    moved: float
    p: float
    base_runs: int
    head_runs: int


def tool_mix(
    base: Sequence[RunFacts],
    head: Sequence[RunFacts],
    tasks: Pairs,
    *,
    seed: int = 0,
    most_permuted: int = MOST_PERMUTED,
) -> ToolMix | None:
    """Return the difference of the tool mixes of two groups; None if a group calls no tool, or there is only one tool.

    Args:
        tasks: the runs of both groups by task; empty if runs are not paired.
        seed: the seed of the permutations; the same seed gives the same p.
        most_permuted: the largest number of runs, or tasks, that are permuted.
    """
    places, number = _places([*base, *head])
    rows = [_calls(run, places, number) for run in (*base, *head)]
    a, b = rows[: len(base)], rows[len(base) :]
    if number < 2 or not any(map(any, a)) or not any(map(any, b)):
        return None
    runs = sum(map(any, a)), sum(map(any, b))
    if tasks:
        sides = [[_mean([_calls(run, places, number) for run in pair[side]]) for pair in tasks] for side in (0, 1)]
        if not all(any(map(any, side)) for side in sides):
            return None
        return ToolMix(_moved(*sides), _paired_p(sides[0], sides[1], seed, most_permuted), *runs)
    return ToolMix(_moved(a, b), _unpaired_p(a, b, seed, most_permuted), *runs)


def _places(runs: Sequence[RunFacts]) -> tuple[dict[Metric, int], int]:
    """Return the column of each tool in a row of calls, one column for all rare tools; and the number of columns."""
    counts: dict[Metric, int] = {}
    for run in runs:
        for metric in run.values:
            if metric.measure == "calls" and metric.label and fallback(metric.schema_name or "").name in TOOL_TYPES:
                counts[metric] = counts.get(metric, 0) + 1
    ordered = sorted(counts, key=lambda metric: (-counts[metric], metric.schema_name or "", metric.label or ""))
    own = [metric for metric in ordered if counts[metric] >= FEWEST_RUNS][: MOST_TOOLS - 1]
    places = {metric: place for place, metric in enumerate(own)}
    rest = {metric: len(own) for metric in ordered if metric not in places}
    return places | rest, len(own) + bool(rest)


def _calls(run: RunFacts, places: dict[Metric, int], number: int) -> list[float]:
    found = [0.0] * number
    for metric, (calls, _) in run.values.items():
        if metric in places:
            found[places[metric]] += calls
    return found


def _mean(rows: Rows) -> list[float]:
    return [fsum(column) / len(rows) for column in zip(*rows, strict=True)]


def _columns(rows: Rows) -> list[tuple[float, ...]]:
    return [*zip(*rows, strict=True)]


def _shares(sums: Sequence[float]) -> list[float]:
    total = fsum(sums)
    return [each / total for each in sums]


def _moved(a: Rows, b: Rows) -> float:
    shares = [_shares([fsum(column) for column in _columns(side)]) for side in (a, b)]
    return fsum(abs(x - y) for x, y in zip(*shares, strict=True)) / 2


def _statistic(a: Sequence[float], b: Sequence[float], weights: Sequence[float]) -> float | None:
    """Return the weighted sum of squared differences of two groups' shares of tools; None if a group has no calls."""
    in_a, in_b = fsum(a), fsum(b)
    if in_a <= 0 or in_b <= 0:
        return None
    return fsum(weight * (x / in_a - y / in_b) ** 2 for x, y, weight in zip(a, b, weights, strict=True))


def _weights(totals: Sequence[float]) -> list[float]:
    return [1 / share if share > 0 else 0.0 for share in _shares(totals)]


def _unpaired_p(a: Rows, b: Rows, seed: int, most_permuted: int) -> float:
    columns = _columns([*a, *b])
    totals = [fsum(column) for column in columns]
    weights = _weights(totals)
    if len(a) + len(b) > most_permuted:
        return _approximate_p(a, b, weights, [*_errors(a), *_errors(b)])
    smaller, number = min(len(a), len(b)), len(a) + len(b)
    reads = [column.__getitem__ for column in columns]

    def once(dice: random.Random | None) -> float | None:
        chosen = dice.sample(range(number), smaller) if dice else range(len(a))
        one = [sum(map(read, chosen)) for read in reads]
        return _statistic(one, [all_ - up for all_, up in zip(totals, one, strict=True)], weights)

    return _permuted_p(once, seed)


def _paired_p(a: Rows, b: Rows, seed: int, most_permuted: int) -> float:
    both = [fsum(column) for column in _columns([*a, *b])]
    weights = _weights(both)
    if len(a) > most_permuted:
        pairs = [[x - y for x, y in zip(*each, strict=True)] for each in zip(_errors(a), _errors(b), strict=True)]
        return _approximate_p(a, b, weights, pairs)
    differences = _columns([[x - y for x, y in zip(*each, strict=True)] for each in zip(a, b, strict=True)])

    def once(dice: random.Random | None) -> float | None:
        signs = dice.choices((1.0, -1.0), k=len(a)) if dice else [1.0] * len(a)
        turned = [sum(map(mul, signs, column)) for column in differences]
        sides = zip(both, turned, strict=True)
        one, other = zip(*(((all_ + turn) / 2, (all_ - turn) / 2) for all_, turn in sides), strict=True)
        return _statistic(one, other, weights)

    return _permuted_p(once, seed)


def _permuted_p(once: Callable[[random.Random | None], float | None], seed: int) -> float:
    """Return the share of permutation rounds in which the statistic is at least as large as the observed one."""
    observed = once(None) or 0.0
    as_large = rounds = 0
    for number, more_seed in ((ROUNDS, seed), (MORE_ROUNDS, seed + 1)):
        dice = random.Random(more_seed)
        for _ in range(number):
            found = once(dice)
            as_large += found is None or found * RELATIVE + 1e-12 >= observed
        rounds += number
        if (as_large + 1) / (rounds + 1) >= CLOSE:
            break
    return (as_large + 1) / (rounds + 1)


def _errors(rows: Rows) -> list[list[float]]:
    """Return the contribution of each row to the errors of the shares (delta method); its squares sum to variances."""
    sums = [fsum(column) for column in _columns(rows)]
    total, number = fsum(sums), len(rows)
    shares = [each / total for each in sums]
    scale = sqrt(number / (number - 1)) / total if number > 1 else 0.0
    return [
        [scale * (calls - share * own) for calls, share in zip(row, shares, strict=True)]
        for row in rows
        for own in (fsum(row),)
    ]


def _approximate_p(a: Rows, b: Rows, weights: Sequence[float], errors: Rows) -> float:
    """Return the p of the statistic from a scaled chi-square distribution with the same mean and variance.

    J. N. K. Rao and A. J. Scott, Annals of Statistics 12, 1984: the second-order correction for clusters.
    """
    sums = [[fsum(column) for column in _columns(side)] for side in (a, b)]
    observed = _statistic(sums[0], sums[1], weights)
    columns = [
        [sqrt(weight) * value for value in column] for column, weight in zip(_columns(errors), weights, strict=True)
    ]
    covariances = [[sum(map(mul, one, other)) for other in columns] for one in columns]
    mean = fsum(covariances[place][place] for place in range(len(columns)))
    squares = fsum(value * value for row in covariances for value in row)
    if observed is None or mean <= 0:
        return 1.0
    return chi_square_p(observed * mean / squares, mean * mean / squares)


def chi_square_p(value: float, freedom: float) -> float:
    """Return the p of a chi-square value (approximation of E. B. Wilson and M. M. Hilferty, PNAS 17, 1931).

    Args:
        freedom: the degrees of freedom, not necessarily whole. From 1 on, a result below 0.1 is within 0.003 of the
            exact one; very small results are up to twice as large.
    """
    part = 2 / (9 * freedom)
    return NormalDist().cdf(-((value / freedom) ** (1 / 3) - (1 - part)) / sqrt(part))
