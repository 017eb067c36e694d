"""Groups failed runs by the failure of a step, their own error, or how they ended; explains why one run failed."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Literal

from agentspan.analysis.associations import COMPARED_RUNS, Findings, drawn, find
from agentspan.analysis.causes import verdict_by
from agentspan.analysis.diff import Divergence, diff_spans
from agentspan.analysis.failures import TITLE, FailedStep, OwnErrors, ending_of, endings, failed_step
from agentspan.analysis.features import run_features
from agentspan.analysis.outcomes import (
    STATUS,
    Judge,
    Missed,
    OutcomeRule,
    Pair,
    Rules,
    check_known,
    decided,
    in_result,
    missed_rule,
    one,
    outcomes,
    pair_of,
    parse,
)
from agentspan.analysis.periods import Periods, periods_of
from agentspan.analysis.runs import find_runs, run_briefs
from agentspan.analysis.statistics import Interval, wilson
from agentspan.analysis.tree import build, every, run_error, span_error, title_of
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.signatures import Signature, error_parts, passes_on, run_signature, signature
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import FailureSums, Find, RunFilter, SpansOf, Tags
from agentspan.storage.row_by_row import has_failed, names_of, uses_of
from agentspan.storage.sums import FailureSum, Progress, RunBrief, RunSummary
from agentspan.text import noun, one_line

Kind = Literal["step", "run", "ending"]
MOST_EXAMPLES, MAX_EXAMPLE = 100, 300
"""The number of groups with an example, and the most characters of one."""


@dataclass(frozen=True, slots=True)
class Group:
    """Failed runs with the same failure. A run with several different failures is in several groups.

    Attributes:
        signature: the id of the group. The same failure has the same id in every file.
        kind: `step`: a span failed; `run`: the run has an error of its own, which no unrecovered step raised;
            `ending`: no failed step and no error of its own, so the runs are grouped by how they ended.
        text: the failure in one line.
        runs: the number of failed runs in the group.
        spans: the number of spans in these runs with this failure; 0 for the kinds `run` and `ending`.
        share: `runs` divided by all failed runs.
        passed: the number of passed runs with the same failure or ending; None if passed runs were not examined.
        first_at, last_at: when the first and the last of these spans, or else of these runs, started, as stored text.
        versions: the number of the runs of each version; `default` for runs without a version.
        run_id: the id of the latest of the runs, as an example.
        span_id: the id of the last span with this failure in that run; None if no span failed.
        recovered: whether every run recovered from every such failure; False if unknown.
        agents: the number of the runs of each agent.
        histogram: the number of the runs that started in each of the `periods` of `Why`.
        example: the latest of these errors as it was recorded, in one line; None if `text` leaves out no value.
    """

    signature: str
    kind: Kind
    text: str
    runs: int
    spans: int
    share: float
    passed: int | None
    first_at: str
    last_at: str
    versions: Mapping[str, int]
    run_id: str
    span_id: str | None
    recovered: bool = False
    agents: Mapping[str, int] = field(default_factory=dict)
    histogram: tuple[int, ...] = ()
    example: str | None = None


@dataclass(frozen=True, slots=True)
class FailedShare:
    """The share of runs that failed.

    Attributes:
        outcome: the rule that decides whether a run failed; None if the status decides.
        runs: the number of runs with an outcome.
        failed: the number of failed runs.
        interval: the 95 % interval of the share of failed runs; None if no run has an outcome.
        unknown: the number of runs without an outcome. They count only here, and in the groups if no run failed.
        open: the number of runs without an outcome that have not ended.
        missed: if the status decides: a rule over a score that some runs missed; None if there is no rule.
        by_agent: the rules of the agents, `reward>=1 or by status`, if they differ; None if one judges all runs.
        in_result: if the status decides: the name of a number in the results of runs that reads as a score, such as
            `reward`, and is none; None without one.
    """

    outcome: str | None
    runs: int
    failed: int
    interval: Interval | None
    unknown: int
    open: int
    missed: Missed | None
    by_agent: str | None
    in_result: str | None


@dataclass(frozen=True, slots=True)
class Why(FailedShare):
    """The reasons for which runs failed.

    Attributes:
        silent: the number of runs that failed without a failed step.
        groups: the failed runs in groups: failures first, then endings; in each, the groups in which failed and
            passed runs differ most come first. If no run failed by its status: the runs with a failed step, the
            largest group first.
        findings: the features that are associated with failure; of a single signature: with the failures in `groups`.
        comparable: the number of runs that could be compared for `findings`: all with an outcome; of a single
            signature: the failed runs in `groups`, and those that passed.
        compared: the number of these runs that were sampled.
        read: the number of sampled runs whose arguments were read.
        with_step: if no run failed: the number of runs with a failed step, with an outcome and without one.
        periods: the periods of time that the histograms count in; None without runs.
        histogram: the number of runs with an outcome that started in each period.
        signature: the signature that selected the groups; None for all groups.
        pair: the latest failed run, of a single signature the latest with it, and one that passed, to compare them;
            None if no run failed, or none passed.
    """

    silent: int
    groups: tuple[Group, ...]
    findings: Findings
    comparable: int
    compared: int
    read: int
    with_step: tuple[int, int]
    periods: Periods | None
    histogram: tuple[int, ...]
    signature: str | None
    pair: Pair | None


def failed_share(
    storage: Storage, filter: RunFilter | None = None, judge: Judge = None, *, progress: Progress | None = None
) -> FailedShare:
    """Return the share of failed runs of those that match a filter; its signature is ignored, as by `why`.

    Args:
        judge: decides whether a run failed; when left out, as outcomes.decided finds.
        progress: called with (done, total) while an index is built.

    Raises:
        InvalidValue: the rule is over a score that no run has.
    """
    found = run_briefs(storage, (filter or RunFilter())._replace(signature=None), progress=progress)
    rule = decided(storage, found, judge)
    return FailedShare(*_share(storage, found, outcomes(storage, found, rule), rule))


def _share(
    storage: Storage, found: Sequence[RunBrief], passed: Mapping[str, bool | None], rule: OutcomeRule | Rules | None
) -> tuple[str | None, int, int, Interval | None, int, int, Missed | None, str | None, str | None]:
    counts = Counter(passed[run.id] for run in found)
    known, failed = counts[True] + counts[False], counts[False]
    return (
        one(rule),
        known,
        failed,
        wilson(failed, known) if known else None,
        counts[None],
        sum(passed[run.id] is None and run.status in OPEN for run in found),
        missed_rule(storage, found) if rule is None else None,
        str(rule) if isinstance(rule, Rules) else None,
        in_result(storage, found) if rule is None else None,
    )


def why(
    storage: Storage, filter: RunFilter | None = None, judge: Judge = None, *, progress: Progress | None = None
) -> Why:
    """Return why the runs that match a filter failed.

    Args:
        filter: selects the runs. Its signature selects the groups instead: all runs that match the rest of the filter
            are counted, and the failed runs of the groups are compared with those that passed.
        judge: decides whether a run failed; when left out, as outcomes.decided finds.
        progress: called with (done, total) while an index is built.

    Raises:
        InvalidValue: the rule is over a score that no run has.
    """
    filter = filter or RunFilter()
    wanted = (filter.signature or "").lower()
    found = run_briefs(storage, filter._replace(signature=None), progress=progress)
    rule = decided(storage, found, judge)
    passed = outcomes(storage, found, rule)
    known = [run for run in found if passed[run.id] is not None]
    failed = [run for run in known if not passed[run.id]]
    others = [run for run in known if passed[run.id]] if failed else []
    looked_at = failed or [run for run in found if run.failed and rule is None]
    sums = storage.ask(FailureSums([run.id for run in (*looked_at, *others)], progress=progress))
    with_steps = {each.run_id for each in sums}
    unknown = sum(passed[run.id] is None for run in looked_at)
    silent = [run for run in failed if run.id not in with_steps]
    errors = OwnErrors(storage, sums)
    own = [run for run in failed if run.id not in with_steps or errors.is_own(run)]
    without = [run for run in others if run.id not in with_steps or errors.is_own(run)]
    periods = periods_of([run.began for run in (*known, *looked_at)])
    groups = [
        *_by_step(looked_at, sums, others, errors, periods),
        *_by_ending(storage, own, without, others, len(failed), periods),
    ]
    groups = with_examples(storage, [each for each in groups if each[0].signature.startswith(wanted)])
    explained, implied = failed, frozenset[str]()
    if wanted:
        inside = {run.id for _, runs in groups for run in runs}
        explained = [run for run in failed if run.id in inside]
        implied = frozenset(name for group, _ in groups for name in _implied(group))
    ids = {run.id for run in explained}
    candidates = known if explained is failed else [run for run in known if passed[run.id] or run.id in ids]
    compared, read = drawn(candidates, ids) if explained and others else ([], [])
    features = run_features(
        storage,
        compared,
        storage.ask(Tags([run.id for run in compared])),
        sums,
        read=read,
        without=implied,
        progress=progress,
    )
    return Why(
        *_share(storage, found, passed, rule),
        len(silent),
        tuple(
            sorted(
                (group for group, _ in groups),
                key=lambda group: (
                    group.kind == "ending",
                    -_contrast(group.runs, len(failed), group.passed or 0, len(others)),
                    -group.runs,
                    -group.spans,
                    group.signature,
                ),
            )
        ),
        find(
            features,
            {run.id: run.id in ids for run in compared},
            {run.id: (run.agent_id, run.task) for run in compared},
        ),
        len(candidates),
        len(compared),
        len(read),
        (0, 0) if failed else (len(looked_at) - unknown, unknown),
        periods,
        periods.counted(run.began for run in known) if periods else (),
        filter.signature,
        pair_of(candidates, passed),
    )


def with_examples(
    storage: Storage, groups: Sequence[tuple[Group, list[RunBrief]]]
) -> list[tuple[Group, list[RunBrief]]]:
    """Add the latest error of each group whose text leaves out values, of at most MOST_EXAMPLES groups."""
    largest = sorted((group for group, _ in groups if "<" in group.text), key=lambda group: -group.runs)[:MOST_EXAMPLES]
    ids = {group.span_id or group.run_id for group in largest if group.kind != "ending"}
    rows = storage.ask(Find(*ids)).rows if ids else {}
    found = []
    for group, runs in groups:
        _, row = rows.get(group.span_id or group.run_id, (None, None))
        error = span_error(row) if isinstance(row, AgentSpanRow) else None
        error = run_error(row) if isinstance(row, AgentInstanceRow) and group.kind == "run" else error
        found.append((replace(group, example=None if error is None else one_line(error, MAX_EXAMPLE)), runs))
    return found


def _implied(group: Group) -> Iterator[str]:
    """Yield the names of the features that every run of a group has by the definition of the group."""
    step = group.text.partition(": ")[0]
    yield from (f"error {group.text}", f"error {group.signature[:4]} {group.text}", f"{step} failed", f"{step} used")


def _contrast(failed_with: int, failed: int, passed_with: int, passed: int) -> float:
    """Return the difference of two shares in standard errors: the score test without continuity correction."""
    if not failed or not passed or not 0 < failed_with + passed_with < failed + passed:
        return 0.0
    share = (failed_with + passed_with) / (failed + passed)
    return (failed_with / failed - passed_with / passed) / sqrt(share * (1 - share) * (1 / failed + 1 / passed))


def _by_step(
    runs: Collection[RunBrief],
    sums: Iterable[FailureSum],
    others: Collection[RunBrief],
    errors: OwnErrors,
    periods: Periods | None,
) -> Iterator[tuple[Group, list[RunBrief]]]:
    by_id = {run.id: run for run in runs}
    groups: dict[Signature, list[FailureSum]] = defaultdict(list)
    passed: Counter[Signature] = Counter()
    for each in sums:
        if each.run_id in by_id:
            groups[each.signature].append(each)
        else:
            passed[each.signature] += 1
    for group, own in groups.items():
        last = own[0] if len(own) == 1 else max(own, key=lambda each: each.run_id)
        having = [by_id[each.run_id] for each in own]
        found = Group(
            group.id,
            "step",
            group.text,
            len(own),
            sum(each.spans for each in own),
            len(own) / len(runs),
            passed[group] if others else None,
            min(each.first_at for each in own),
            max(each.last_at for each in own),
            _counts(run.version for run in having),
            last.run_id,
            last.span_id,
            errors.recovered_in_all(group.id, having),
            _counts(run.agent for run in having),
            periods.counted(run.began for run in having) if periods else (),
        )
        yield found, having


def _by_ending(
    storage: Storage,
    own: Sequence[RunBrief],
    quiet: Sequence[RunBrief],
    others: Collection[RunBrief],
    failed: int,
    periods: Periods | None,
) -> Iterator[tuple[Group, list[RunBrief]]]:
    """Group failed runs by their own error, else by how they ended.

    If more than COMPARED_RUNS runs passed without a failed step, the endings of passed runs are not read.

    Args:
        own: the failed runs without a failed step, or with an error that no step raised.
        quiet: the passed runs without a failed step, or with an error that no step raised.
        others: all passed runs.
        failed: the number of all failed runs.
    """
    groups = _endings(storage, own)
    is_compared = bool(others) and len(quiet) <= COMPARED_RUNS
    passed = _endings(storage, quiet) if groups and is_compared else {}
    for (kind, group), runs in groups.items():
        times = [run.began for run in runs]
        id = max(run.id for run in runs)
        number = len(passed.get((kind, group), ())) if is_compared else None
        found = Group(
            group.id, kind, group.text, len(runs), 0, len(runs) / failed, number, min(times), max(times),
            _counts(run.version for run in runs), id, None, agents=_counts(run.agent for run in runs),
            histogram=periods.counted(times) if periods else (),
        )  # fmt: skip
        yield found, runs


def _endings(storage: Storage, silent: Sequence[RunBrief]) -> dict[tuple[Kind, Signature], list[RunBrief]]:
    groups: dict[tuple[Kind, Signature], list[RunBrief]] = defaultdict(list)
    errors = {run.id: run_signature(run.error) for run in silent}
    ended = endings(storage, [run for run in silent if errors[run.id] is None])
    for run in silent:
        error = errors[run.id]
        groups[("ending", ended[run.id]) if error is None else ("run", error)].append(run)
    return groups


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


CANDIDATES = 20
"""The largest number of passing runs that a failed run is compared with: the latest ones of its task."""
COMPARED_SPANS = 20_000
"""The largest number of spans of passing runs that are read for the comparison with a failed run."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Counts and times of one failure in the other runs of the agent."""

    spans: int
    runs: int
    first_at: str
    last_at: str


@dataclass(frozen=True, slots=True)
class Nearest:
    """The passing run that has the longest sequence of same steps as the failed run, from the start on.

    Attributes:
        run_id: the id of the passing run.
        same_task: True if the passing run is of the same task; False if it is only of the same agent.
        compared: the number of passing runs that were compared: the latest ones.
        passing: the number of all passing runs of the task, or of the agent.
        divergence: where the two runs part, the passing run as A; None if both have the same steps.
    """

    run_id: str
    same_task: bool
    compared: int
    divergence: Divergence | None
    passing: int


@dataclass(frozen=True, slots=True)
class StillOpen:
    """The current step of a run that has not ended.

    Attributes:
        step: the number of the latest, innermost open step; of the last step if no step is open; 0 without steps.
        title: the title of the open step; None if no step is open.
    """

    step: int
    title: str | None


@dataclass(frozen=True, slots=True)
class RunWhy:
    """The reason for which a run failed.

    Attributes:
        run_id, agent, version, status, task: the id, agent, version, status and task of the run.
        outcome: the rule that decides whether a run failed; None if the status decides.
        passed: whether the run passed; None if unknown.
        spans, failed: the number of steps, and of failed steps.
        signature: the signature of the failure, or of how the run ended.
        step: the step that made the run fail; None if no step failed.
        error: the error of the run; None if the run only passes on the error of the step.
        elsewhere: the same failure in other runs; None if no step failed.
        nearest: the passing run to compare with; None if no run passed, or this run itself passed.
        missed: if the status was asked to decide and the run passed: a rule over a score that this run missed, with
            the numbers of all runs of the agent; None if there is no rule.
        still_open: the current step of the run; None if the run has ended.
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

    @property
    def verdict(self) -> str:
        """The mark and the word of the verdict on the run."""
        return str(verdict_by(self.status, None if self.outcome is None else parse(self.outcome), met=self.passed))

    @property
    def head(self) -> Iterator[str]:
        """Further facts for the line of the verdict: the outcome by the rule if the verdict lacks it, task, steps."""
        is_complete = self.status == "complete"
        says = {True: "by" if is_complete else "passed", False: "failed", None: "has no outcome"}[self.passed]
        if self.passed is None or (self.outcome is not None and (self.passed or not is_complete)):
            yield f"{says} {self.outcome or ''}".rstrip()
        if self.task is not None:
            yield f"task {self.task}"
        yield f"{noun(self.spans, 'step')}, {self.failed:,} failed"


def why_run(
    storage: Storage, run: AgentInstanceRow, judge: Judge = None, *, progress: Progress | None = None
) -> RunWhy:
    """Return why a run failed.

    Args:
        judge: decides whether a run failed; when left out, a rule over a score that this run missed, else its
            status.
        progress: called with (done, total) while an index is built.

    Raises:
        InvalidValue: the rule is over a score that no run has.
    """
    check_known(storage, judge)
    spans = [*storage.ask(SpansOf(run.id))]
    step = failed_step(run, spans)
    failed = None if step is None else next(span for span in spans if span.id == step.span_id)
    own = run_signature(run.error) if failed is None else signature(failed)
    found = own or ending_of(run.status, uses_of(run.id, spans))
    others = find_runs(storage, RunFilter(agent=run.agent_id), limit=None, progress=progress).runs
    others = [each for each in others if each.run.id != run.id]
    name = names_of(storage, [run])[run.id]
    missed = _missed(storage, run, others) if judge in (None, STATUS) and run.status == "complete" else None
    rule = judge if isinstance(judge, OutcomeRule) else None
    if judge is None and missed is not None:
        rule, missed = missed.rule, None
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
        sum(map(has_failed, spans)),
        found,
        step,
        _own_error(run, failed),
        None if failed is None else _elsewhere(storage, found, others),
        None if passed else _nearest(storage, run, spans, others, rule),
        missed,
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
    """Return the latest passing run that shares the most steps with a failed run before the two part."""
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
