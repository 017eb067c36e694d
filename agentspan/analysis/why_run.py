"""Finds the cause of one run's failure: the step, what led to it, and where a run that passed went another way."""

from collections.abc import Sequence
from dataclasses import dataclass

from agentspan.analysis.diff import Divergence, diff_spans
from agentspan.analysis.failed_step import TITLE, FailedStep, failed_step
from agentspan.analysis.outcomes import Missed, OutcomeRule, check_known, missed_rule, outcomes
from agentspan.analysis.own_errors import ending_of
from agentspan.analysis.runs import find_runs
from agentspan.analysis.tree import build, every, title_of
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.schemas.signatures import Signature, error_parts, passes_on, run_signature, signature
from agentspan.storage.answers import Progress, RunSummary
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import FailureSums, SpansOf
from agentspan.storage.row_by_row import names_of, uses_of
from agentspan.storage.run_filter import RunFilter

CANDIDATES = 20
"""Passing runs that the failed one is compared with, the latest of its task."""
COMPARED_SPANS = 20_000
"""Spans of those runs that are read, at most."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The same failure in other runs of the agent."""

    spans: int
    runs: int
    first_at: str
    last_at: str


@dataclass(frozen=True, slots=True)
class Nearest:
    """The passing run that took the same way for longest.

    Attributes:
        run_id: its id.
        same_task: whether it is of the same task; else it is of the same agent.
        compared: how many passing runs were compared, the latest.
        passing: how many there are.
        divergence: where the two part, the passing run as A; None if they have the same steps.
    """

    run_id: str
    same_task: bool
    compared: int
    divergence: Divergence | None
    passing: int


@dataclass(frozen=True, slots=True)
class StillOpen:
    """The place that a run which has not ended has reached.

    Attributes:
        step: the number of its innermost open step, the latest; of its last step if none is open; 0 without any.
        title: of the open step; None if none is open.
    """

    step: int
    title: str | None


@dataclass(frozen=True, slots=True)
class RunWhy:
    """The reason for which a run failed.

    Attributes:
        run_id, agent, version, status, task: the run's.
        outcome: the rule of what failed means; None where the status decides.
        passed: whether the run passed; None where that is unknown.
        spans, failed: how many steps it has, and how many of them failed.
        signature: of the failure, or of how the run ended (see schemas.signatures).
        step: the step that failed; None if none did.
        error: the run's own error, unless it passes on that of the step.
        elsewhere: the same failure in other runs; None if no step failed.
        nearest: the passing run to compare with; None if there is none, or the run itself passed.
        missed: if the status decides and the run passed: the rule over a score that this run missed, with the numbers
            of all runs of the agent; None if there is none.
        still_open: where the run is; None if it has ended.
    """

    run_id: str
    agent: str
    version: str
    status: str
    task: str | None
    outcome: str | None
    passed: bool | None
    spans: int
    failed: int
    signature: Signature
    step: FailedStep | None
    error: str | None
    elsewhere: Elsewhere | None
    nearest: Nearest | None
    missed: Missed | None
    still_open: StillOpen | None = None


def why_run(
    storage: Storage, run: AgentInstanceRow, rule: OutcomeRule | None = None, *, progress: Progress | None = None
) -> RunWhy:
    """Return why a run failed.

    Args:
        rule: what failed means; the status decides when left out.
        progress: called with how much is done, and of how much, while there is an index to be built.

    Raises:
        InvalidValue: the rule is over a score that no run has.
    """
    check_known(storage, rule)
    spans = [*storage.ask(SpansOf(run.id))]
    step = failed_step(run, spans)
    failed = None if step is None else next(span for span in spans if span.id == step.span_id)
    own = run_signature(run.error) if failed is None else signature(failed)
    found = own or ending_of(run.status, uses_of(run.id, spans))
    others = find_runs(storage, RunFilter(agent=run.agent_id), limit=None, progress=progress).runs
    others = [each for each in others if each.run.id != run.id]
    name = names_of(storage, [run])[run.id]
    passed = outcomes(storage, [run], rule)[run.id]
    return RunWhy(
        run.id,
        name.agent,
        name.version,
        run.status,
        run.task,
        None if rule is None else str(rule),
        passed,
        len(spans),
        sum(span.status == "failed" for span in spans),
        found,
        step,
        _own_error(run, failed),
        None if failed is None else _elsewhere(storage, found, others),
        None if passed else _nearest(storage, run, spans, others, rule),
        _missed(storage, run, others) if passed and rule is None else None,
        _still_open(spans) if run.status in OPEN else None,
    )


def _still_open(spans: Sequence[AgentSpanRow]) -> StillOpen:
    steps = [node.span for node in every(build(spans))]
    numbers = [number for number, span in enumerate(steps, start=1) if span.status in OPEN]
    return StillOpen(numbers[-1], title_of(steps[numbers[-1] - 1], TITLE)) if numbers else StillOpen(len(steps), None)


def _missed(storage: Storage, run: AgentInstanceRow, others: Sequence[RunSummary]) -> Missed | None:
    found = missed_rule(storage, [run, *(each.run for each in others)])
    return found if found is not None and outcomes(storage, [run], found.rule)[run.id] is False else None


def _own_error(run: AgentInstanceRow, failed: AgentSpanRow | None) -> str | None:
    error = error_parts(run.error)
    if not any(error) or (failed is not None and passes_on(error, error_parts(failed.result_payload))):
        return None
    return ": ".join(text for text in (error.type, error.message) if text)


def _elsewhere(storage: Storage, found: Signature, others: Sequence[RunSummary]) -> Elsewhere | None:
    sums = storage.ask(FailureSums([run.run.id for run in others if run.failed]))
    same = [each for each in sums if each.signature.id == found.id]
    if not same:
        return Elsewhere(0, 0, "", "")
    return Elsewhere(
        sum(each.spans for each in same),
        len(same),
        min(each.first_at for each in same),
        max(each.last_at for each in same),
    )


def _nearest(
    storage: Storage,
    run: AgentInstanceRow,
    spans: Sequence[AgentSpanRow],
    others: Sequence[RunSummary],
    rule: OutcomeRule | None,
) -> Nearest | None:
    """Compare with the latest passing runs, and return the one with most same steps before the two part."""
    same_task = [each for each in others if run.task is not None and each.run.task == run.task]
    passed = outcomes(storage, [each.run for each in same_task or others], rule)
    best: tuple[tuple[int, int], str, Divergence | None] | None = None
    room, compared = COMPARED_SPANS, 0
    candidates = [each for each in same_task or others if passed[each.run.id]]
    for other in candidates[:CANDIDATES]:
        room -= other.spans
        if room < 0:
            break
        steps, first, _ = diff_spans([*storage.ask(SpansOf(other.run.id))], spans)
        compared += 1
        rank = (len(spans) + 1 if first is None else first.same, -sum(step.kind != "same" for step in steps))
        if best is None or rank > best[0]:
            best = rank, other.run.id, first
    return None if best is None else Nearest(best[1], bool(same_task), compared, best[2], len(candidates))
