"""Simulated groups of runs, whose differences are known: how often a comparison finds them, and how often it errs.

The runs are as those of agents: some tasks are hard, the calls of a run go together, times and costs have heavy tails.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

from agentspan.analysis.drift import (
    PASSED,
    compare,
    detectable_drop,
    differences,
    outcome_p,
    outcomes_of,
    task_pairs,
    task_values,
)
from agentspan.analysis.drift_metrics import Gathered, Measure, Metric, RunFacts
from agentspan.analysis.power import ALPHA
from agentspan.text import points

PASSES = 0.8
"""The share of the runs that pass, where nothing dropped."""


class Found(NamedTuple):
    """The results of one set: a comparison of equal groups, and one of groups that differ by the drop it named.

    Attributes:
        drop: the drop that the comparison of equal groups says would show, from 0 to 1.
        is_false: whether it found a difference.
        is_found: whether the other one found that the head is worse.
    """

    drop: float
    is_false: bool
    is_found: bool


def metrics_of_tools(number: int) -> list[Metric]:
    """Return so many metrics of tools: calls, failures, times and costs of each."""
    measures: tuple[Measure, ...] = ("calls", "failure_rate", "duration_ms", "cost_usd")
    return [Metric(measures[place % 4], "tool", f"tool {place // 4}") for place in range(number)]


def group(chance: random.Random, number: int, metrics: Sequence[Metric], shares: Sequence[float]) -> Gathered:
    """Return runs of which each passes with the share of its place; of several shares, each is a task."""
    runs = []
    for index in range(number):
        place = index % len(shares)
        values = {PASSED: (float(chance.random() < shares[place]), 1.0)}
        values[Metric("duration_ms")] = chance.lognormvariate(8, 1.5), 1.0
        values[Metric("cost_usd")] = chance.lognormvariate(-4, 1), 0.0
        calls = chance.randrange(1, 6)
        for metric in metrics:
            if metric.measure == "calls":
                calls = chance.randrange(1, 6)
                values[metric] = float(calls), 0.0
            elif metric.measure == "failure_rate":
                values[metric] = float(sum(chance.random() < 0.1 for _ in range(calls))), float(calls)
            elif metric.measure == "duration_ms":
                values[metric] = sum(chance.lognormvariate(5, 1.5) for _ in range(calls)), float(calls)
            else:
                values[metric] = calls * chance.lognormvariate(-5, 0.5), 0.0
        runs.append(RunFacts(str(index), str(place) if len(shares) > 1 else None, values))
    return Gathered(runs, 0, 0)


def simulated(seed: int, *, runs: int, metrics: int | None, tasks: int = 0, passes: float = PASSES) -> Found:
    """Return what comparisons of simulated groups find.

    Args:
        runs: of each group.
        metrics: of tools, beside outcome, time, cost and mix of tools; None to test the outcome only, which is fast.
        tasks: by which the runs are paired; none when 0. A task's share of passed runs is between all and the drop.
        passes: the share of the runs that pass, where nothing dropped.
    """
    chance = random.Random(seed)
    names = metrics_of_tools(metrics or 0)
    varied = (chance.betavariate(6 * passes, 6 * (1 - passes)) if passes < 1 else passes for _ in range(tasks))
    shares = [*varied] or [passes]
    base, head = (group(chance, runs, names, shares) for _ in range(2))
    drop = detectable_drop(base.runs, head.runs)
    assert drop is not None
    drop = points(drop) / 100
    is_false = _verdict(base, head, seed, metrics) != "no_evidence"
    before = [max(share, drop) for share in shares]
    base, head = (group(chance, runs, names, each) for each in (before, [share - drop for share in before]))
    return Found(drop, is_false, _verdict(base, head, seed, metrics) == "worse")


def _verdict(base: Gathered, head: Gathered, seed: int, metrics: int | None) -> str:
    if metrics is not None:
        return compare(base, head, seed=seed).verdict
    tasks = task_pairs(base.runs, head.runs)
    within = sum(differences(task_values(PASSED, tasks)))
    is_worse = within < 0 if tasks else sum(outcomes_of(head.runs)) < sum(outcomes_of(base.runs))
    p = outcome_p(base.runs, head.runs, tasks, seed=seed)
    return "no_evidence" if p > ALPHA else "worse" if is_worse else "better"
