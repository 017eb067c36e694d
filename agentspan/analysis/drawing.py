"""Draws the runs that are compared, and of those the ones whose payloads are read: both are bounded in number.

Whole tasks are drawn, those with failed and passed runs first: only they can tell a cause from a hard task.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence

from agentspan.storage.answers import RunBrief

COMPARED_RUNS = 2000
"""Runs that are compared, at most."""
READ_SPANS = 5000
"""Spans whose payloads are read: a tenth of a second."""
FEWEST_TASKS = 5
"""Tasks with several runs, at least, for runs to be compared within them. It is the rule of `drift`."""
PAIRED_SHARE = 0.5
"""The share of the runs that must be of these tasks: else most runs would not be looked at."""


def is_stratified(tasks: Iterable[Hashable], runs: int) -> bool:
    """Return whether so many runs are compared within tasks, from the task of each run that has one."""
    repeated = [number for number in Counter(tasks).values() if number > 1]
    return len(repeated) >= FEWEST_TASKS and sum(repeated) >= PAIRED_SHARE * runs


def drawn(
    runs: Sequence[RunBrief], failed: Collection[str], *, compared: int = COMPARED_RUNS, read: int = READ_SPANS
) -> tuple[list[RunBrief], list[RunBrief]]:
    """Return the runs that are compared, and those of them whose spans are read.

    Args:
        runs: the latest first. Without tasks the latest are compared, and read is a random part of both outcomes: with
            failed runs from a longer time than the passed ones, each change in that time would pass for a cause.
        failed: the ids of those that failed.
        compared: how many runs at most.
        read: how many spans at most.
    """
    if is_stratified([(run.agent_id, run.task) for run in runs if run.task is not None], len(runs)):
        groups = _by_task(runs, failed)
        chosen = [run for group in _fitting(groups, compared, len) for run in group]
    else:
        chosen = [*runs[:compared]]
        groups = [[run] for run in _mixed(chosen, failed)]
    kept = {run.id for run in chosen}
    groups = [group for group in groups if group[0].id in kept]
    return chosen, [run for group in _fitting(groups, read, _spans) for run in group]


def _by_task(runs: Sequence[RunBrief], failed: Collection[str]) -> list[list[RunBrief]]:
    """Return the runs by task, those with both outcomes first, then by the latest run of each."""
    tasks: dict[Hashable, list[RunBrief]] = defaultdict(list)
    for run in runs:
        tasks[run.id if run.task is None else (run.agent_id, run.task)].append(run)
    return sorted(tasks.values(), key=lambda group: len({run.id in failed for run in group}), reverse=True)


def _mixed(runs: Sequence[RunBrief], failed: Collection[str]) -> list[RunBrief]:
    """Return runs in a random order in which each beginning has as many of both outcomes, as long as there are some."""
    dice = random.Random(0)
    order = dice.sample(runs, len(runs))
    places: Counter[bool] = Counter()
    ranks = {}
    for run in order:
        ranks[run.id] = places[run.id in failed]
        places[run.id in failed] += 1
    return sorted(order, key=lambda run: ranks[run.id])


def _spans(group: Sequence[RunBrief]) -> int:
    return sum(run.spans for run in group)


def _fitting(
    groups: Iterable[list[RunBrief]], room: int, size: Callable[[list[RunBrief]], int]
) -> Iterator[list[RunBrief]]:
    for group in groups:
        if size(group) <= room:
            room -= size(group)
            yield group
