"""Texts about the reasons for which runs failed: the first sentence, the facts of a group, findings, periods."""

from collections.abc import Mapping, Sequence
from math import comb, inf

from agentspan.analysis.associations import DECIDABLE, FDR, Finding, Findings
from agentspan.analysis.periods import Periods
from agentspan.analysis.statistics import Q_MEANS, Interval
from agentspan.analysis.why import FailedShare, Group, Why
from agentspan.text import noun, share_text

MAX_COUNTED = 3
"""The largest number of versions, or agents, of a group that are shown."""
Q_EXPLAINED = f"{Q_MEANS}, adjusted for the things tested"


def overlap(groups: Sequence[Group], found: Why) -> bool:
    """Return whether some run is in several of the groups, so that their numbers add up to more than all runs."""
    endings = sum(group.runs for group in found.groups if group.kind == "ending")
    return sum(group.runs for group in groups) > (found.failed - endings if found.failed else total_of(groups))


def total_of(groups: Sequence[Group]) -> int:
    """Return the number of runs that the shares of the groups refer to; 0 without groups."""
    return round(groups[0].runs / groups[0].share) if groups else 0


def head(found: FailedShare) -> str:
    """Return how many runs failed as one sentence; a Why also has the number of runs without a failed step."""
    by = "" if (rule := found.outcome or found.by_agent) is None else f" {rule}"
    unknown = _unknown(found)
    if not found.runs or found.interval is None:
        return f"no run has an outcome{by}{unknown}"
    if not found.failed:
        status = " by its status" if found.outcome is None else by
        with_step = found.with_step if isinstance(found, Why) else (0, 0)
        steps = with_step[0]
        steps_text = f" · {steps:,} {_have(steps)} a failed step" if steps else ""
        means = "; --outcome NAME>=VALUE says what failed means" if any(with_step) and not found.missed else ""
        return f"none of {noun(found.runs, 'run')} failed{status}{steps_text}{means}{unknown}"
    share = f"{share_text(found.failed, found.runs)}, {interval_text(found.interval)}"
    number = found.silent if isinstance(found, Why) else 0
    silent = f" · {number:,} of them without a failed step" if number else ""
    return f"{found.failed:,} of {noun(found.runs, 'run')} failed{by} ({share}){silent}{unknown}"


def unrecorded(found: FailedShare) -> str:
    """Return, in words, that results hold what reads as a score, and how to record it; "" without such a member."""
    if found.in_result is None or found.missed is not None:
        return ""
    name = found.in_result
    return f'the results of runs hold {name}, which judges nothing: run.score("{name}", …) records it as a score'


def interval_text(interval: Interval) -> str:
    """Return an interval of a share in percent, `6–14%`; with a decimal if both ends were the same: `99.2–99.9%`."""
    low, high = 100 * interval.low, 100 * interval.high
    return f"{low:.0f}–{high:.0f}%" if f"{low:.0f}" != f"{high:.0f}" else f"{low:.1f}–{high:.1f}%"


def _unknown(found: FailedShare) -> str:
    """Return the number of runs without an outcome, in words; "" if all runs have one."""
    if not found.unknown:
        return ""
    more = " more" if found.runs else ""
    number = f"{found.unknown:,}{more}"
    with_step = found.with_step[1] if isinstance(found, Why) else 0
    steps = f", {with_step:,} with a failed step" if with_step else ""
    if found.open == found.unknown:
        return f" · {number} {'is' if found.unknown == 1 else 'are'} still open{steps}"
    return f" · {number} {_have(found.unknown)} no outcome{steps}"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def where(group: Group, found: Why) -> str:
    """Return in how many failed and passed runs a failure is: `in 8 of 8 failed runs, and in 0 of 8 that passed`."""
    if found.failed:
        passed = found.runs - found.failed
        among = "" if group.passed is None else f", and in {group.passed:,} of {passed:,} that passed"
        text = f"in {group.runs:,} of {noun(found.failed, 'failed run')}{among}"
    else:
        text = f"in {group.runs:,} of {noun(total_of([group]), 'run')} with a failed step"
    if group.recovered:
        text += "; recovered in all of them" if group.runs > 1 else "; recovered"
    return text


def steps(group: Group) -> str:
    """Return the number of failed steps of a group in words; "" for a group without failed steps."""
    if not group.spans:
        return ""
    return f"{noun(group.spans, 'failed step')}{'' if group.runs == 1 else ' in all'}"


def versions(group: Group) -> str:
    """Return the runs of each version in words; "" if no run has a version."""
    if set(group.versions) <= {"default"}:
        return ""
    return _counted("version", {"none" if name == "default" else name: n for name, n in group.versions.items()})


def agents(group: Group) -> str:
    """Return the runs of each agent in words; "" for a single agent."""
    return _counted("agent", group.agents) if len(group.agents) > 1 else ""


def _counted(word: str, counts: Mapping[str, int]) -> str:
    """Return the runs per version or agent in words, the largest number first: `versions 2.0: 13, 1.0: 8, none: 7`."""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(most) == 1:
        return f"{word} {most[0][0]}"
    shown = most[: MAX_COUNTED if len(most) <= MAX_COUNTED else MAX_COUNTED - 1]
    rest = most[len(shown) :]
    more = f" and {sum(number for _, number in rest):,} of {len(rest):,} others" if rest else ""
    return f"{word}s " + ", ".join(f"{name}: {number:,}" for name, number in shown) + more


def compared(answer: Why) -> str:
    """Return the sentence about the number of tested features, and whether runs were compared within tasks."""
    found = answer.findings
    failure = "failure" if answer.signature is None else "this failure"
    if not found.tested:
        return f"what goes with {failure}: not tested; {_untested(answer)}"
    where = "over all runs, because too few have a task in common"
    if found.stratified:
        where = f"inside the {noun(found.tasks, 'task')} that both passed and failed"
    things = noun(found.tested, "tested thing")
    if not found.findings:
        return f"compared {where}: none of {things} goes with {failure}"
    return f"what goes with {failure}, compared {where}, of {things} (FDR {FDR:.0%})"


def _untested(answer: Why) -> str:
    """Return the reason why no feature could be tested."""
    found = answer.findings
    if found.stratified and not found.tasks:
        return "no task both passed and failed"
    if answer.signature is None and comb(answer.runs, answer.failed) * DECIDABLE < 1:
        return f"{noun(answer.runs, 'run')} are too few"
    return f"these {noun(found.runs, 'run')} are too few, or too much alike"


def missable(found: Findings) -> str:
    """Return the sentence about causes that may exist although they were not found; "" if that is not known."""
    if found.detectable is None:
        return ""
    if found.detectable == inf:
        other = "another cause" if found.findings else "a cause"
        return f"these runs are so few that {other} would be missed more than once in five times, however strong"
    return (
        f"a cause of less than ×{ratio(found.detectable)} would be missed more than once in five times; "
        "most of these things would need a stronger one"
    )


def finding(each: Finding) -> tuple[str, str]:
    """Return the facts of a finding: its counts, and the factor of the odds with its interval and q."""
    q = "<0.001" if each.q < 0.001 else f"{each.q:.2g}"
    effect = f"×{ratio(each.odds_ratio)} ({ratio(each.low)}–{ratio(each.high)}), q {q}"
    counts = f"in {each.failed_with:,} of {each.failed:,} failed, in {each.passed_with:,} of {each.passed:,} passed"
    if not each.stratified:
        return counts, f"odds {effect}"
    turned = ", though all together point the other way" if each.is_turned else ""
    return f"{counts}, of {noun(each.tasks, 'task')}", f"odds within a task {effect}{turned}"


def also(each: Finding) -> str:
    """Return what says no more than a finding, in words; "" without any."""
    return f"says no more: {'; '.join(each.also)}" if each.also else ""


def ratio(value: float) -> str:
    """Return an odds ratio in few digits."""
    return "∞" if value == inf else f"{value:.2g}" if value < 10 else f"{value:,.0f}"


_LEVELS = "▁▂▃▄▅▆▇█"
_UNITS = ((604_800, "week"), (86_400, "day"), (3600, "hour"), (60, "minute"))


def bars(counts: Sequence[int]) -> str:
    """Return counts as a row of bars; a count of 0 is a blank."""
    most = max(counts, default=0)
    return "".join(_LEVELS[-(-len(_LEVELS) * each // most) - 1] if each else " " for each in counts)


def length_text(periods: Periods) -> str:
    """Return the length of a period in words: `day`, `3 hours`."""
    unit, word = next(each for each in _UNITS if periods.seconds % each[0] == 0)
    return word if periods.seconds == unit else noun(periods.seconds // unit, word)
