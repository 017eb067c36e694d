"""Groups failed runs by what failed in them, or by how they ended, and finds what goes with failure."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agentspan.analysis.failures import ending_of, failure_sums, step_uses
from agentspan.analysis.findings import Findings, find
from agentspan.analysis.outcomes import Missed, OutcomeRule, missed_rule, outcomes
from agentspan.analysis.run_features import run_features
from agentspan.analysis.runs import RunFilter, run_briefs
from agentspan.analysis.statistics import Interval, wilson
from agentspan.schemas.signatures import Signature, run_signature
from agentspan.storage.analytics import FailureSum, Progress, RunBrief, StepUse
from agentspan.storage.protocol import Storage
from agentspan.storage.scores import tags_of

Kind = Literal["step", "run", "ending"]
COMPARED_RUNS = 2000
"""Runs that are compared for what goes with failure, the latest ones."""


@dataclass(frozen=True, slots=True)
class Group:
    """Failed runs in which the same went wrong. A run with several failures is in several groups.

    Attributes:
        signature: the group's id, which depends on nothing but what failed.
        kind: `step`: a span failed; `run`: none did, the run has an error of its own; `ending`: neither, so these are
            runs that ended alike.
        text: what it is about, in one line.
        runs: how many there are.
        spans: how many spans failed like that in them; 0 where none did.
        share: `runs` divided by all failed runs.
        first_at, last_at: when the first and the last of the spans, or of the runs, started, as stored text.
        versions: how many of the runs are of each version.
        run_id: the latest of the runs, as an example.
        span_id: the last such span in it; None where none failed.
    """

    signature: str
    kind: Kind
    text: str
    runs: int
    spans: int
    share: float
    first_at: str
    last_at: str
    versions: Mapping[str, int]
    run_id: str
    span_id: str | None


@dataclass(frozen=True, slots=True)
class Why:
    """The reasons for which runs failed.

    Attributes:
        outcome: the rule of what failed means; None where the status decides.
        runs: how many have an outcome.
        failed: how many of them failed.
        interval: of the share of failed runs at 95 %; None where no run has an outcome.
        unknown: how many runs have no outcome; they count nowhere else.
        silent: how many failed without a failed step.
        groups: the failed runs grouped: by failures, then by endings, those with most runs first. If no run failed by
            its status: the runs with a failed step.
        findings: what goes with failure.
        missed: if no run failed by its status: the rule over a score that some of them missed; None if there is none.
    """

    outcome: str | None
    runs: int
    failed: int
    interval: Interval | None
    unknown: int
    silent: int
    groups: tuple[Group, ...]
    findings: Findings
    missed: Missed | None


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
    """
    found = run_briefs(storage, filter, progress=progress)
    passed = outcomes(storage, found, rule)
    known = [run for run in found if passed[run.id] is not None]
    failed = [run for run in known if not passed[run.id]]
    looked_at = failed or [run for run in found if run.failed and rule is None]
    sums = failure_sums(storage, [run.id for run in looked_at], progress=progress)
    with_steps = {each.run_id for each in sums}
    silent = [run for run in failed if run.id not in with_steps]
    groups = [*_by_step(looked_at, sums), *_by_ending(storage, silent, len(failed))]
    compared = known[:COMPARED_RUNS] if failed and len(failed) < len(known) else []
    features = run_features(storage, compared, tags_of(storage, [run.id for run in compared]), progress=progress)
    return Why(
        None if rule is None else str(rule),
        len(known),
        len(failed),
        wilson(len(failed), len(known)) if known else None,
        len(found) - len(known),
        len(silent),
        tuple(sorted(groups, key=lambda group: (group.kind == "ending", -group.runs, -group.spans, group.signature))),
        find(
            features,
            {run.id: not passed[run.id] for run in compared},
            {run.id: (run.agent_id, run.task) for run in compared},
        ),
        missed_rule(storage, found) if rule is None and not failed else None,
    )


def _by_step(runs: Collection[RunBrief], sums: Iterable[FailureSum]) -> Iterator[Group]:
    by_id = {run.id: run for run in runs}
    groups: dict[Signature, list[FailureSum]] = defaultdict(list)
    for each in sums:
        groups[each.signature].append(each)
    for signature, own in groups.items():
        last = own[0] if len(own) == 1 else max(own, key=lambda each: each.run_id)
        yield Group(
            signature.id,
            "step",
            signature.text,
            len(own),
            sum(each.spans for each in own),
            len(own) / len(runs),
            min(each.first_at for each in own),
            max(each.last_at for each in own),
            _versions(by_id[each.run_id] for each in own),
            last.run_id,
            last.span_id,
        )


def _by_ending(storage: Storage, silent: Sequence[RunBrief], failed: int) -> Iterator[Group]:
    """Group runs without a failed step: by their own error, else by how they ended."""
    groups: dict[tuple[Kind, Signature], list[RunBrief]] = defaultdict(list)
    quiet = []
    for run in silent:
        error = run_signature(run.error)
        if error is None:
            quiet.append(run)
        else:
            groups["run", error].append(run)
    uses: dict[str, list[StepUse]] = defaultdict(list)
    for use in step_uses(storage, [run.id for run in quiet]):
        uses[use.run_id].append(use)
    for run in quiet:
        groups["ending", ending_of(run.status, uses[run.id])].append(run)
    for (kind, signature), runs in groups.items():
        times = [run.began for run in runs]
        id = max(run.id for run in runs)
        yield Group(
            signature.id, kind, signature.text, len(runs), 0, len(runs) / failed, min(times), max(times),
            _versions(runs), id, None,
        )  # fmt: skip


def _versions(runs: Iterable[RunBrief]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for run in runs:
        counts[run.version] += 1
    return dict(sorted(counts.items()))
