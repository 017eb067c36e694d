"""The metrics of two groups of runs that are compared: outcome, time, tokens, cost of a run; calls and failures.

Each is a ratio of two sums over runs, such as failures per call. Of durations it is the mean of the logarithms of the
runs' own values: their tails are so heavy that one slow run in twenty would decide over a mean.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import exp, log
from typing import Literal, NamedTuple

from agentspan.model.rows import AgentInstanceRow
from agentspan.model.status import OPEN
from agentspan.storage.answers import RunSum
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunSums

Measure = Literal["passed", "duration_ms", "spans", "calls", "failure_rate", "tokens", "cost_usd", "tool_mix"]
MAX_LABELS = 2000
"""Types and labels that are compared, those of the most runs; of more, the rest is left out and counted."""
FEWEST_RUNS = 3
"""Runs with a value that the two sides need together, so that a ratio is compared."""


class Metric(NamedTuple):
    """Something that can be measured of runs.

    Attributes:
        measure: `passed`: the share of runs that passed. `failure_rate`: the share of calls that failed. `duration_ms`:
            of a run, or of a call. `spans`, `calls`, `tokens`, `cost_usd`: in a run. `tool_mix`: see tool_mix.
        schema_name, label: of the spans it is about; None for the run as a whole, and for all labels of a type.
    """

    measure: Measure
    schema_name: str | None = None
    label: str | None = None


@dataclass(slots=True)
class RunFacts:
    """The facts of a run that are compared.

    Attributes:
        values: the numerator and denominator of each metric that the run has something for.
    """

    run_id: str
    task: str | None
    values: dict[Metric, tuple[float, float]] = field(default_factory=dict)


class Gathered(NamedTuple):
    """Runs to compare.

    Attributes:
        runs: those that ended.
        open: how many have not ended, and are left out.
        unknown: how many have no known outcome.
    """

    runs: list[RunFacts]
    open: int
    unknown: int


def gather(
    storage: Storage,
    rows: Sequence[AgentInstanceRow],
    passed: Mapping[str, bool | None],
    *,
    with_open: bool = False,
) -> Gathered:
    """Return what is known of these runs.

    Args:
        passed: their outcomes (see outcomes.outcomes).
        with_open: count runs that have not ended, too, with what they have so far.
    """
    ended = [row for row in rows if with_open or row.status not in OPEN]
    facts = {row.id: RunFacts(row.id, row.task) for row in ended}
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
    return Gathered([*facts.values()], len(rows) - len(ended), sum(passed[row.id] is None for row in ended))


OF_LABEL: Sequence[Measure] = ("calls", "failure_rate", "duration_ms", "tokens", "cost_usd")
SPANS, TOKENS, COST = Metric("spans"), Metric("tokens"), Metric("cost_usd")


def _add(values: dict[Metric, tuple[float, float]], each: RunSum, own: Sequence[Metric]) -> None:
    """Add the sums of a type and label, whose metrics are `own`, to the values of their run."""
    tokens = None if each.input_tokens is None and each.output_tokens is None else 0.0
    if tokens is not None:
        tokens += (each.input_tokens or 0) + (each.output_tokens or 0)
    spans = float(each.spans)
    if not each.is_aggregate:
        for metric, value in ((SPANS, spans), (TOKENS, tokens), (COST, each.cost_usd)):
            if value is not None:
                values[metric] = values.get(metric, NOTHING)[0] + value, 0.0
    # A type whose spans have labels is compared by those; the type itself would repeat them.
    calls, failure_rate, duration, of_tokens, of_cost = own
    values[calls] = spans, 0.0
    values[failure_rate] = float(each.failed), spans
    values[duration] = each.total_ms, spans
    if tokens is not None:
        values[of_tokens] = tokens, 0.0
    if each.cost_usd is not None:
        values[of_cost] = each.cost_usd, 0.0


PER_RUN = frozenset({"spans", "calls", "tokens", "cost_usd"})
"""Measures whose denominator is the run: one that has nothing counts with 0."""


def is_per_run(metric: Metric) -> bool:
    """Return whether every run counts for a metric, also one that has nothing of it."""
    return metric.measure in PER_RUN


NOTHING = (0.0, 0.0)


SHORTEST_MS = 0.001
"""Shorter durations count as this one: 0 has no logarithm, and clocks tell no less."""


def value_of(run: RunFacts, metric: Metric) -> tuple[float, float]:
    """Return the numerator and denominator of a metric in a run; (0, 0) where the run says nothing about it."""
    above, below = run.values.get(metric, NOTHING)
    if is_per_run(metric):
        return above, 1.0
    if metric.measure == "duration_ms" and below:
        return log(max(above / below, SHORTEST_MS)), 1.0
    return above, below


def as_measured(metric: Metric, value: float) -> float:
    """Return a value of a metric in the unit of its measure: of durations, whose values are logarithms, in ms."""
    return exp(value) if metric.measure == "duration_ms" else value


def values_of(runs: Sequence[RunFacts], metric: Metric) -> tuple[list[float], list[float]]:
    """Return the numerators and the denominators of a metric in these runs, in their order (see value_of)."""
    found = [value_of(run, metric) for run in runs]
    return [value[0] for value in found], [value[1] for value in found]


def metrics_of(runs: Sequence[RunFacts]) -> tuple[list[Metric], int]:
    """Return the metrics that enough of these runs have, of whole runs first; and how many labels are left out."""
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
