"""Groups failed runs by what failed in them, or by how they ended, and finds what goes with failure."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Literal

from agentspan.analysis.findings import COMPARED_RUNS, Findings, drawn, find
from agentspan.analysis.outcomes import Missed, OutcomeRule, check_known, missed_rule, outcomes
from agentspan.analysis.own_errors import OwnErrors, ending_of
from agentspan.analysis.run_features import run_features
from agentspan.analysis.runs import run_briefs
from agentspan.analysis.statistics import Interval, wilson
from agentspan.model.status import OPEN
from agentspan.schemas.signatures import Signature, run_signature
from agentspan.storage.answers import FailureSum, Progress, RunBrief, StepUse
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import FailureSums, StepUses, Tags
from agentspan.storage.run_filter import RunFilter

Kind = Literal["step", "run", "ending"]


@dataclass(frozen=True, slots=True)
class Group:
    """Failed runs in which the same went wrong. A run with several failures is in several groups.

    Attributes:
        signature: the group's id, which depends on nothing but what failed.
        kind: `step`: a span failed; `run`: the run has an error of its own, which no failed step raised that it did not
            recover from; `ending`: neither, so these are runs that ended alike.
        text: what it is about, in one line.
        runs: how many there are.
        spans: how many spans failed like that in them; 0 where none did.
        share: `runs` divided by all failed runs.
        passed: how many runs that passed have the same failure, or ended alike; None where none of those was looked at.
        first_at, last_at: when the first and the last of the spans, or of the runs, started, as stored text.
        versions: how many of the runs are of each version; `default` where they have none.
        run_id: the latest of the runs, as an example.
        span_id: the last such span in it; None where none failed.
        recovered: whether each of the runs recovered from all such failures (see failed_step); False where that is not
            known.
        agents: how many of the runs are of each agent.
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


@dataclass(frozen=True, slots=True)
class Why:
    """The reasons for which runs failed.

    Attributes:
        outcome: the rule of what failed means; None where the status decides.
        runs: how many have an outcome.
        failed: how many of them failed.
        interval: of the share of failed runs at 95 %; None where no run has an outcome.
        unknown: how many runs have no outcome. They count nowhere else, but for the groups where no run failed.
        silent: how many failed without a failed step.
        groups: the failed runs grouped: by failures, then by endings, those first that failed and passed runs differ
            in most. If no run failed by its status: the runs with a failed step, those with most runs first.
        findings: what goes with failure.
        compared: how many runs were drawn for that (see drawing).
        read: of how many of those the arguments were read.
        missed: if no run failed by its status: the rule over a score that some of them missed; None if there is none.
        with_step: where no run failed: how many of the runs with an outcome, and of those without one, have a failed
            step.
        open: how many of the runs without an outcome have not ended.
    """

    outcome: str | None
    runs: int
    failed: int
    interval: Interval | None
    unknown: int
    silent: int
    groups: tuple[Group, ...]
    findings: Findings
    compared: int
    read: int
    missed: Missed | None
    with_step: tuple[int, int] = (0, 0)
    open: int = 0


def why(
    storage: Storage,
    filter: RunFilter | None = None,
    rule: OutcomeRule | None = None,
    *,
    progress: Progress | None = None,
) -> Why:
    """Return why the runs that match failed.

    Args:
        rule: what failed means; the status decides when left out.
        progress: called with how much is done, and of how much, while there is an index to be built.

    Raises:
        InvalidValue: the rule is over a score that no run has.
    """
    check_known(storage, rule)
    found = run_briefs(storage, filter, progress=progress)
    passed = outcomes(storage, found, rule)
    known = [run for run in found if passed[run.id] is not None]
    failed = [run for run in known if not passed[run.id]]
    others = [run for run in known if passed[run.id]] if failed else []
    looked_at = failed or [run for run in found if run.failed and rule is None]
    sums = storage.ask(FailureSums([run.id for run in (*looked_at, *others)], progress=progress))
    with_steps = {each.run_id for each in sums}
    silent = [run for run in failed if run.id not in with_steps]
    errors = OwnErrors(storage, sums)
    own = [run for run in failed if run.id not in with_steps or errors.is_own(run)]
    without = [run for run in others if run.id not in with_steps or errors.is_own(run)]
    groups = [*_by_step(looked_at, sums, others, errors), *_by_ending(storage, own, without, others, len(failed))]
    compared, read = drawn(known, {run.id for run in failed}) if failed and others else ([], [])
    features = run_features(
        storage, compared, storage.ask(Tags([run.id for run in compared])), sums, read=read, progress=progress
    )
    return Why(
        None if rule is None else str(rule),
        len(known),
        len(failed),
        wilson(len(failed), len(known)) if known else None,
        len(found) - len(known),
        len(silent),
        tuple(
            sorted(
                groups,
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
            {run.id: not passed[run.id] for run in compared},
            {run.id: (run.agent_id, run.task) for run in compared},
        ),
        len(compared),
        len(read),
        missed_rule(storage, found) if rule is None and not failed else None,
        _with_step([] if failed else looked_at, passed),
        sum(passed[run.id] is None and run.status in OPEN for run in found),
    )


def _with_step(runs: Sequence[RunBrief], passed: Mapping[str, bool | None]) -> tuple[int, int]:
    unknown = sum(passed[run.id] is None for run in runs)
    return len(runs) - unknown, unknown


def _contrast(failed_with: int, failed: int, passed_with: int, passed: int) -> float:
    """Return by how many standard errors two shares differ: the score test without correction."""
    if not failed or not passed or not 0 < failed_with + passed_with < failed + passed:
        return 0.0
    share = (failed_with + passed_with) / (failed + passed)
    return (failed_with / failed - passed_with / passed) / sqrt(share * (1 - share) * (1 / failed + 1 / passed))


def _by_step(
    runs: Collection[RunBrief], sums: Iterable[FailureSum], others: Collection[RunBrief], errors: OwnErrors
) -> Iterator[Group]:
    by_id = {run.id: run for run in runs}
    groups: dict[Signature, list[FailureSum]] = defaultdict(list)
    passed: Counter[Signature] = Counter()
    for each in sums:
        if each.run_id in by_id:
            groups[each.signature].append(each)
        else:
            passed[each.signature] += 1
    for signature, own in groups.items():
        last = own[0] if len(own) == 1 else max(own, key=lambda each: each.run_id)
        yield Group(
            signature.id,
            "step",
            signature.text,
            len(own),
            sum(each.spans for each in own),
            len(own) / len(runs),
            passed[signature] if others else None,
            min(each.first_at for each in own),
            max(each.last_at for each in own),
            _counts(by_id[each.run_id].version for each in own),
            last.run_id,
            last.span_id,
            errors.recovered_in_all(signature.id, (by_id[each.run_id] for each in own)),
            _counts(by_id[each.run_id].agent for each in own),
        )


def _by_ending(
    storage: Storage, own: Sequence[RunBrief], quiet: Sequence[RunBrief], others: Collection[RunBrief], failed: int
) -> Iterator[Group]:
    """Group failed runs by their own error, else by how they ended.

    If more than COMPARED_RUNS passed without a failed step, their endings are not read.

    Args:
        own, quiet: the failed and the passed runs without a failed step, or with an error that is their own.
        others: all passed runs.
    """
    groups = _endings(storage, own)
    is_compared = bool(others) and len(quiet) <= COMPARED_RUNS
    passed = _endings(storage, quiet) if groups and is_compared else {}
    for (kind, signature), runs in groups.items():
        times = [run.began for run in runs]
        id = max(run.id for run in runs)
        number = len(passed.get((kind, signature), ())) if is_compared else None
        yield Group(
            signature.id, kind, signature.text, len(runs), 0, len(runs) / failed, number, min(times), max(times),
            _counts(run.version for run in runs), id, None, agents=_counts(run.agent for run in runs),
        )  # fmt: skip


def _endings(storage: Storage, silent: Sequence[RunBrief]) -> dict[tuple[Kind, Signature], list[RunBrief]]:
    groups: dict[tuple[Kind, Signature], list[RunBrief]] = defaultdict(list)
    quiet = []
    for run in silent:
        error = run_signature(run.error)
        if error is None:
            quiet.append(run)
        else:
            groups["run", error].append(run)
    uses: dict[str, list[StepUse]] = defaultdict(list)
    for use in storage.ask(StepUses([run.id for run in quiet])):
        uses[use.run_id].append(use)
    for run in quiet:
        groups["ending", ending_of(run.status, uses[run.id])].append(run)
    return groups


def _counts(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))
