"""Tests the mix of tools of two groups of runs: all shares of the calls at once, instead of one test for each tool.

Many tools that are each called a little less or more often can be a clear change together. The statistic is that of
the chi-square test over the shares; its distribution is not, because the calls of a run go together: whole runs change
sides, or, paired, the two sides of a task do.
"""

import random
from collections.abc import Callable, Sequence
from math import fsum, sqrt
from operator import mul
from statistics import NormalDist
from typing import NamedTuple

from agentspan.analysis.drift_metrics import FEWEST_RUNS, Metric, RunFacts
from agentspan.analysis.ratio_tests import CLOSE, MORE_ROUNDS, ROUNDS
from agentspan.analysis.statistics import RELATIVE
from agentspan.schemas.span_types import fallback

TOOL_TYPES = frozenset({"tool", "mcp"})
MOST_TOOLS = 30
"""Tools with a share of their own, those of the most runs; the others are one."""
MOST_PERMUTED = 200
"""Runs, or tasks, up to which they are permuted: 5,000 rounds of 30 tools take 1.1 s there. Above, an approximation is
used, which differs from 5,000 permutations by less than they do from each other, already among 120 runs."""

Rows = Sequence[Sequence[float]]
"""The calls of each tool, for each run; or, paired, the mean of a task's runs."""
Pairs = Sequence[tuple[list[RunFacts], list[RunFacts]]]


class ToolMix(NamedTuple):
    """The difference of two mixes.

    Attributes:
        moved: the share of the calls that went to other tools, from 0 to 1: half of the differences of all shares.
        p: the probability of such a difference by chance.
        base_runs, head_runs: the runs that called a tool.
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
    """Return the difference of the mixes of two groups; None if a side calls no tool, or both the same single one.

    Args:
        tasks: the runs of both groups by task, if they are paired.
        most_permuted: runs, or tasks, up to which they are permuted.
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
    """Return a place for each tool, one for all seldom ones together; and the number of places."""
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
    """Return the weighted squares of the differences of the shares; None if a side has no calls."""
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
    """Return in what share of the rounds the statistic is as large as the observed one."""
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
    """Return what each row adds to the errors of the shares (delta method); their squares add up to the variances."""
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
    """Return p from a scaled chi-square distribution with the mean and variance of the statistic.

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
    """Return the probability of a chi-square value as large (E. B. Wilson and M. M. Hilferty, PNAS 17, 1931).

    Args:
        freedom: degrees of freedom, not necessarily whole. From 1 on, a result below 0.1 is within 0.003 of the exact
            one; very small ones are up to twice as large.
    """
    part = 2 / (9 * freedom)
    return NormalDist().cdf(-((value / freedom) ** (1 / 3) - (1 - part)) / sqrt(part))
