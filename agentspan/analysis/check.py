"""A check of runs for CI: budgets and calls of every run, and whether fewer pass than in a baseline.

A budget and a call are facts: a run that breaks one fails the check. A share of passed runs is a sample: the check
fails where it dropped by more than chance, and is inconclusive where so few runs could not have shown the drop that
the configuration wants to be told of.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal, NamedTuple

from agentspan.analysis.blindness import MOST_TIMES
from agentspan.analysis.check_config import BUDGETS, Config
from agentspan.analysis.drift import PASSED, blindness, differences, outcomes_of, task_pairs
from agentspan.analysis.drift_metrics import Gathered, Metric, RunFacts
from agentspan.analysis.statistics import Interval, exact_interval, fisher_p, paired_permutation_p
from agentspan.figures import cost_text, duration_text, p_text, points, share_text

Verdict = Literal["pass", "fail", "inconclusive"]
ALPHA = 0.05
"""The share of checks of unchanged agents that fail nevertheless."""
ROUNDS = 5000


class Finding(NamedTuple):
    """One thing that was checked.

    Attributes:
        name: `budget cost_usd`, `calls forbidden`, `baseline` …
        verdict: of this thing.
        text: what was found, in a sentence.
        run_id: the run that broke it; None where it is about all of them.
    """

    name: str
    verdict: Verdict
    text: str
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check.

    Attributes:
        verdict: `fail` if one finding is; else `inconclusive` if one is; else `pass`.
        runs: how many were checked.
        findings: a line for each thing that was checked; for each run that broke one.
        passed, baseline: the shares of passed runs, from 0 to 1; None if unknown or not asked for.
        interval: of `passed`, 95 %, exact.
        detectable: the smallest drop that so many runs would show, from 0 to 1; None without a baseline.
        missing: how many more runs would show the drop that the configuration names.
    """

    verdict: Verdict
    runs: int
    findings: tuple[Finding, ...]
    passed: float | None = None
    baseline: float | None = None
    interval: Interval | None = None
    detectable: float | None = None
    missing: int = 0


def check(runs: Gathered, config: Config, baseline: Gathered | None = None, *, shared: int = 0) -> Check:
    """Return the verdict on runs.

    Args:
        baseline: the runs that they are compared with; None where the configuration names none.
        shared: runs of the baseline that are not in `baseline`, because they are checked.
    """
    findings = [*_budgets(runs.runs, config.budget), *_calls(runs.runs, config.required, config.forbidden)]
    if not runs.runs:
        findings.append(Finding("runs", "inconclusive", "no run that ended was found"))
    outcomes = outcomes_of(runs.runs)
    share = sum(outcomes) / len(outcomes) if outcomes else None
    interval = exact_interval(round(sum(outcomes)), len(outcomes)) if outcomes else None
    if baseline is None or not runs.runs:
        return Check(_worst(findings), len(runs.runs), tuple(findings), share, interval=interval)
    finding, detectable, missing = _compared(runs, baseline, config.drop, shared)
    before = outcomes_of(baseline.runs)
    return Check(
        _worst([*findings, finding]),
        len(runs.runs),
        (*findings, finding),
        share,
        sum(before) / len(before) if before else None,
        interval,
        detectable,
        missing,
    )


def _worst(findings: Iterable[Finding]) -> Verdict:
    verdicts = {finding.verdict for finding in findings}
    return "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"


def _budgets(runs: Sequence[RunFacts], budget: Mapping[str, float]) -> Iterator[Finding]:
    for name, limit in budget.items():
        over = [(run, value) for run in runs if (value := _used(run, name)) > limit]
        for run, value in over:
            yield Finding(
                f"budget {name}", "fail", f"{_amount(name, value)}, {_amount(name, limit)} at most", run.run_id
            )
        if not over and runs:
            most = max(_used(run, name) for run in runs)
            yield Finding(f"budget {name}", "pass", f"{_amount(name, most)} at most, of {_amount(name, limit)}")


def _used(run: RunFacts, name: str) -> float:
    """Return what a run used of a budget."""
    if name == "error_rate":
        failed = ran = 0.0
        for metric, (above, below) in run.values.items():
            if metric.measure == "failure_rate":
                failed, ran = failed + above, ran + below
        return failed / ran if ran else 0.0
    value = run.values.get(Metric(BUDGETS[name]), (0.0, 0.0))[0]
    return value / 1000 if name == "duration_s" else value


def _amount(name: str, value: float) -> str:
    if name == "cost_usd":
        return cost_text(value)
    if name == "duration_s":
        return duration_text(1000 * value)
    return share_text(value, 1) or "0%" if name == "error_rate" else f"{value:,.0f}"


def _calls(runs: Sequence[RunFacts], required: Sequence[str], forbidden: Sequence[str]) -> Iterator[Finding]:
    called = {run.run_id: {metric.label or metric.schema_name for metric in run.values} for run in runs}
    for kind, names, is_wanted in (("required", required, True), ("forbidden", forbidden, False)):
        for name in names:
            wrong = [run.run_id for run in runs if (name in called[run.run_id]) is not is_wanted]
            text = f"{name} is not called" if is_wanted else f"{name} is called"
            yield from (Finding(f"calls {kind}", "fail", text, run_id) for run_id in wrong)
            if not wrong and runs:
                yield Finding(
                    f"calls {kind}", "pass", f"{name} is {'called in each run' if is_wanted else 'not called'}"
                )


def _compared(runs: Gathered, baseline: Gathered, drop: float, shared: int) -> tuple[Finding, float | None, int]:
    """Return what the comparison found, the drop that it could find, and how many runs are missing."""
    after, before = outcomes_of(runs.runs), outcomes_of(baseline.runs)
    if not after or not before:
        if shared and not baseline.runs:
            text = f"all {shared:,} runs of the baseline are checked ones: nothing is left to compare with"
        elif not baseline.runs:
            text = "no run of the baseline has ended"
        else:
            text = f"no {'run of the baseline' if after else 'checked run'} has a known outcome"
        return Finding("baseline", "inconclusive", text), None, 0
    sizes = blindness(baseline.runs, runs.runs)
    assert sizes is not None  # both sides have outcomes
    detectable = sizes.drop(one_sided=True)
    shares = (
        f"{share_text(sum(after) / len(after), 1) or '0%'} passed ({share_text(sum(before) / len(before), 1) or '0%'})"
    )
    number = runs.unknown + baseline.unknown
    unknown = f"; {number:,} {'run has' if number == 1 else 'runs have'} no outcome" if number else ""
    p = drop_p(runs.runs, baseline.runs)
    chance = f"chance, p {p_text(p).replace('<', '< ')}{unknown}"
    if p <= ALPHA:
        return Finding("baseline", "fail", f"{shares}: more than {chance}"), detectable, 0
    if detectable <= drop:
        return Finding("baseline", "pass", f"{shares}: no more than {chance}"), detectable, 0
    shown = "no drop" if detectable >= 1 else f"only a drop of more than {points(detectable)} points"
    wanted = f"would show one of {100 * drop:.3g}{unknown}"
    times = sizes.times_for(drop)
    if times is None:
        text = f"{shares}: {shown} would show; not even {MOST_TIMES:,} times the runs {wanted}"
        return Finding("baseline", "inconclusive", text), detectable, 0
    missing, more = (max(1, ceil(len(each) * (times - 1))) for each in (after, before))
    text = f"{shares}: {shown} would show; {missing:,} more runs, and {more:,} more of the baseline, {wanted}"
    return Finding("baseline", "inconclusive", text), detectable, missing


def drop_p(runs: Sequence[RunFacts], baseline: Sequence[RunFacts], *, seed: int = 0) -> float:
    """Return the one-sided p of as many or fewer runs passing by chance: paired by task where both have the tasks."""
    found = differences(PASSED, task_pairs(baseline, runs))
    if found:
        return paired_permutation_p(found, rounds=ROUNDS, seed=seed) / 2 if sum(found) < 0 else 1.0
    after, before = outcomes_of(runs), outcomes_of(baseline)
    return fisher_p(round(sum(after)), len(after), round(sum(before)), len(before), one_sided=True)
