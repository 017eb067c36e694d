"""Several runs side by side: their facts and scores, their outcomes, and where each parts from the first one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentspan.analysis.causes import RunCause, Verdict, page_of
from agentspan.analysis.diff import Divergence, diff_spans
from agentspan.analysis.outcomes import STATUS, Judge, decided, outcomes, rule_for
from agentspan.analysis.runs import find_runs
from agentspan.analysis.why import Nearest, why_run
from agentspan.errors import InvalidValue
from agentspan.model.rows import ScoreRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter, SpansOf
from agentspan.storage.row_by_row import labels_of, tokens_of
from agentspan.storage.sums import RunSummary

MOST_RUNS = 8
"""The largest number of runs that are shown side by side."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of several runs.

    Attributes:
        verdict: whether it passed.
        cause: the cause of its failure; None without one.
        tokens: the sum of input and output tokens; None if no span has a value.
        scores: the newest score of each name and judge.
        is_same: whether its steps are those of the first run; None if they were not compared.
        divergence: the step at which it parts from the first run; None for the first one.
    """

    run: RunSummary
    verdict: Verdict
    cause: RunCause | None
    tokens: int | None
    scores: tuple[ScoreRow, ...]
    is_same: bool | None = None
    divergence: Divergence | None = None


def sides(storage: Storage, run_ids: Sequence[str], judge: Judge = None) -> list[Side]:
    """Return runs with their facts, scores and outcomes, in the given order.

    Args:
        run_ids: the ids of existing runs; one that occurs again is left out.
        judge: decides whether a run passed; when left out, the status and a rule that some of the runs missed (see
            causes).

    Raises:
        InvalidValue: there are more than MOST_RUNS.
    """
    ids = [*dict.fromkeys(run_ids)]
    if len(ids) > MOST_RUNS:
        raise InvalidValue("runs", f"must be at most {MOST_RUNS}")
    found = {run.run.id: run for run in find_runs(storage, RunFilter(ids=frozenset(ids)), limit=None).runs}
    runs = [found[id] for id in ids if id in found]
    judged = page_of(storage, runs, judge)
    labels = labels_of(storage, [run.run.id for run in runs])
    return [
        Side(run, judged.verdicts[id], judged.causes.get(id), tokens_of(run), tuple(labels[id].scores))
        for run in runs
        for id in (run.run.id,)
    ]


def with_divergences(storage: Storage, found: Sequence[Side]) -> list[Side]:
    """Return the same runs, each with the step at which it parts from the first one. It reads all their spans."""
    if not found:
        return []
    first, *others = found
    spans = [*storage.ask(SpansOf(first.run.run.id))]
    compared = [first]
    for other in others:
        _, divergence, _ = diff_spans(spans, [*storage.ask(SpansOf(other.run.run.id))])
        compared.append(replace(other, is_same=divergence is None, divergence=divergence))
    return compared


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Two runs to compare: the newest failed one, and the passing run that is nearest to it, if there is one."""

    failed: RunSummary
    nearest: Nearest | None


def suggestion(storage: Storage, filter: RunFilter | None = None, judge: Judge = None) -> Suggestion | None:
    """Return two runs to compare, of those that match a filter; None if no run failed.

    Args:
        judge: decides whether a run passed; when left out, as outcomes.decided finds.
    """
    runs = find_runs(storage, filter or RunFilter(), limit=None).runs
    rule = decided(storage, [run.run for run in runs], judge)
    passed = outcomes(storage, [run.run for run in runs], rule)
    failed = next((run for run in runs if passed[run.run.id] is False), None)
    return (
        None
        if failed is None
        else Suggestion(failed, why_run(storage, failed.run, rule_for(failed.run, rule) or STATUS).nearest)
    )
