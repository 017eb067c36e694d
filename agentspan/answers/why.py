"""The answer why runs failed: in how many, the groups of what failed, and what goes with failure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import comb, inf

from agentspan.analysis.associations import DECIDABLE, FDR, Finding, Findings
from agentspan.analysis.causes import opposite
from agentspan.analysis.outcomes import parse
from agentspan.analysis.periods import Periods
from agentspan.analysis.statistics import Q_MEANS, interval_text
from agentspan.analysis.why import FailedShare, Group, Why
from agentspan.answers.blocks import At, Block, Cell, Column, Command, Heading, Part, Runs, Sentence, Table
from agentspan.answers.groups import decided, judging, version_text
from agentspan.text import noun, share_text

SHORTEST, LONGEST = 4, 12
"""The least and the most characters of a signature."""
MAX_COUNTED = 3
"""The largest number of versions, or agents, of a group that are shown."""
MAX_POOLED = 3
"""The number of findings over all runs together that are shown if nothing was found within tasks."""
Q_EXPLAINED = f"{Q_MEANS}, adjusted for the things tested"
_UNITS = ((604_800, "week"), (86_400, "day"), (3600, "hour"), (60, "minute"))
Seen = Callable[[str, str], str]
"""Returns the period between two stored times as text, in the zone of the surface."""


def seen_utc(first_at: str, last_at: str) -> str:
    """Return a period to the minute, in UTC; a single time if both ends are equal."""
    first, last = (text[:16].replace("T", " ") for text in (first_at, last_at))
    return last if first == last else f"{first} – {last}"


def why(found: Why, most: int, seen: Seen = seen_utc, *, shortest: int = SHORTEST) -> Sequence[Part]:
    """Return the parts of the answer: how many runs failed, the groups, and what goes with failure.

    Args:
        most: the largest number of groups of each kind.
        shortest: the least number of characters of a signature.
    """
    return first(found), *groups(found, most, seen, shortest=shortest), findings(found)


def first(found: FailedShare, chosen: str = "", words: Sequence[str] = ()) -> Iterator[Block]:
    """Yield how many runs failed, and how they are, or could be, judged; nothing without runs.

    Args:
        chosen: the rule that judges the runs, if nobody named it.
        words: the options of the filter, for commands.
    """
    if found.runs or found.unknown:
        yield Sentence(head(found), "answer")
    if chosen:
        yield judging(decided(chosen), ("why", *words), "failures", "status")
    if found.missed is not None:
        missed, rule = found.missed, str(found.missed.rule)
        yield judging(f"{missed.missed:,} of {missed.runs:,} missed {rule}", ("why", *words), "failures", rule)
    elif found.in_result is not None:
        name = found.in_result
        how = f'run.score("{name}", …) records it as a score'
        yield Sentence(f"the results of runs hold {name}, which judges nothing: {how}")


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


def groups(
    found: Why, most: int, seen: Seen = seen_utc, *, outcome: str = "", shortest: int = SHORTEST
) -> Iterator[Part]:
    """Yield the groups of what failed, then those of how runs without a failed step ended, each as a part.

    Args:
        outcome: the rule that links to other pages keep.
    """
    if found.signature is not None and not found.groups:
        of_all = {"signature": "", "outcome": outcome}
        yield [Command("no failure and no ending has this signature", ("why",), "failures", of_all, "all failures")]
    ids = [group.signature for group in found.groups]
    is_unique = (length for length in range(shortest, LONGEST) if len({id[:length] for id in ids}) == len(set(ids)))
    length = next(is_unique, LONGEST)
    failures = [group for group in found.groups if group.kind != "ending"]
    of = f"{'Failed runs' if found.failed else 'Runs with a failed step'}, by what failed"
    several = " (a run can be in several)" if _overlap(failures, found) else ""
    endings = [group for group in found.groups if group.kind == "ending"]
    note = [Sentence("first what failed runs have more often than passed ones", "note")]
    for title, every in ((f"{of}{several}", failures), ("Without a failed step, by how they ended", endings)):
        if every:
            rows = [_group(group, group.signature[:length], found, seen, outcome) for group in every[:most]]
            table = Table(_columns(found), rows, len(every), "group", rows_as="entry")
            is_noted = found.failed and len(rows) > 1
            yield [Heading(title), *(note if is_noted else []), table.filled()]
            note = [] if is_noted else note


def _overlap(failures: Sequence[Group], found: Why) -> bool:
    """Return whether some run is in several of the groups, so that their numbers add up to more than all runs."""
    endings = sum(group.runs for group in found.groups if group.kind == "ending")
    return sum(group.runs for group in failures) > (found.failed - endings if found.failed else _total(failures))


def _total(groups: Sequence[Group]) -> int:
    """Return the number of runs that the shares of the groups refer to; 0 without groups."""
    return round(groups[0].runs / groups[0].share) if groups else 0


def _columns(found: Why) -> Sequence[Column]:
    runs = ("failed", "in {} failed") if found.failed else ("runs", "in {} runs with a failed step")
    length = "" if found.periods is None else length_text(found.periods)
    edges = [] if found.periods is None else [edge[:16].replace("T", " ") for edge in found.periods.edges()]
    return [
        Column("what failed", is_number=False),
        Column("latest error", is_number=False, is_hint=True, phrase="latest: {}"),
        Column(runs[0], phrase=runs[1]),
        Column("passed", phrase="in {} passed"),
        Column("recovered", is_number=False, phrase="recovered {}"),
        Column("failed steps", phrase="failed steps: {}"),
        Column("agents", is_number=False, detail=1, phrase="by agent {}"),
        Column("versions", is_number=False, detail=1, phrase="by version {}"),
        Column("seen", "seen (UTC)", is_number=False, detail=1),
        Column(f"runs per {length}", series=[(edge, edge[5:]) for edge in edges[:-1]]),
        Column("signature", is_number=False, is_code=True),
        Column("latest run", is_number=False, is_code=True, phrase="latest run {}"),
    ]


def _group(group: Group, signature: str, found: Why, seen: Seen, outcome: str) -> Sequence[Cell]:
    of, passed = found.failed or _total([group]), found.runs - found.failed
    failed = {"status": "failed"} if found.outcome is None else {"score": opposite(parse(found.outcome))}
    runs = {"signature": signature, **(failed if found.failed and found.by_agent is None else {})}
    alone = {"outcome": outcome, "signature": signature}
    way = Command("what goes with it", ("why", "--signature", signature), "failures", alone)
    of_passed = "" if group.passed is None or not passed else f"{group.passed:,} of {passed:,}"
    versions = {} if set(group.versions) <= {"default"} else group.versions
    return [
        Cell(
            group.text,
            runs,
            "" if group.example is None else f"latest: {group.example}",
            way=way if found.failed and found.signature is None else None,
        ),
        Cell(group.example or ""),
        Cell(f"{group.runs:,} of {of:,}", hint=share_text(group.runs, of)),
        Cell(of_passed, hint=share_text(group.passed or 0, passed) if group.passed and passed else ""),
        Cell("in all" if group.recovered else ""),
        Cell(f"{group.spans:,}" if group.spans else ""),
        _counted("agent", group.agents if len(group.agents) > 1 else {}, runs),
        _counted("version", versions, runs, version_text),
        Cell(seen(group.first_at, group.last_at)),
        Cell(series=[(n, f"{n:,}") for n in group.histogram] if len(group.histogram) > 1 else (), is_bad=True),
        Cell(signature),
        Cell(at=At(group.run_id, group.span_id, is_run=True)),
    ]


def _counted(word: str, counts: Mapping[str, int], runs: Runs, named: Callable[[str], str] = str) -> Cell:
    """Return the runs per version or agent, the largest number first: `2.0: 13, 1.0: 8 and 7 of 3 others`."""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = most[: MAX_COUNTED if len(most) <= MAX_COUNTED else MAX_COUNTED - 1]
    parts = [Cell(f"{named(name)}: {number:,}", {**runs, word: name}) for name, number in shown]
    rest = [number for _, number in most[len(shown) :]]
    more = f"and {sum(rest):,} of {len(rest):,} others" if rest else ""
    text = f"{', '.join(part.text for part in parts)} {more}".rstrip()
    return Cell(text, parts=[*parts, *([Cell(more)] if more else [])])


def length_text(periods: Periods) -> str:
    """Return the length of a period in words: `day`, `3 hours`."""
    unit, word = next(each for each in _UNITS if periods.seconds % each[0] == 0)
    return word if periods.seconds == unit else noun(periods.seconds // unit, word)


def findings(found: Why) -> Iterator[Block]:
    """Yield what goes with failure; nothing if all runs failed, or none did."""
    of = found.findings
    if not found.failed or found.failed == found.runs or not found.groups:
        return
    yield Heading(f"What goes with {'' if found.signature is None else 'this '}failure")
    yield Sentence(_compared(found))
    parts = [("", found.compared), ("arguments of ", found.read)]
    partly = [f"{what}{number:,} of {found.comparable:,} runs" for what, number in parts if number < found.comparable]
    if partly:
        yield Sentence(f"looked at: {', '.join(partly)}", "note")
    pooled = of.findings if not of.stratified else () if of.findings else of.pooled[:MAX_POOLED]
    if pooled:
        tested = f" ({of.tested_pooled:,} things tested)" if of.stratified else ""
        yield Sentence(f"pooled only, so that it may be the tasks{tested}:")
    if rows := [_finding(each) for each in pooled or of.findings]:
        columns = [
            Column("runs with", is_number=False),
            Column("failed", phrase="in {} failed"),
            Column("passed", phrase="in {} passed"),
            Column("tasks", is_number=False, phrase="of {}"),
            Column("odds", phrase=f"odds {'' if pooled else 'within a task '}{{}}"),
            Column("q", is_name=True, phrase="q {}"),
            Column("all together", is_number=False, phrase="all together point {}"),
            Column("says no more", is_hint=True, phrase="says no more: {}"),
        ]
        yield Table(columns, rows, rows_as="entry").filled()
        yield Sentence(Q_EXPLAINED, "note", starts_with_name=True)
    if text := missable(of):
        yield Sentence(text)


def _finding(each: Finding) -> Sequence[Cell]:
    odds, low, high = map(_ratio, (each.odds_ratio, each.low, each.high))
    also = "; ".join(each.also)
    return [
        Cell(each.feature, hint=also and f"says no more: {also}"),
        Cell(f"{each.failed_with:,} of {each.failed:,}"),
        Cell(f"{each.passed_with:,} of {each.passed:,}"),
        Cell(noun(each.tasks, "task") if each.stratified else ""),
        Cell(f"×{odds} ({low}–{high})"),
        Cell("<0.001" if each.q < 0.001 else f"{each.q:.2g}"),
        Cell("the other way" if each.stratified and each.is_turned else ""),
        Cell(also),
    ]


def _compared(answer: Why) -> str:
    """Return the sentence about the number of tested features, and whether runs were compared within tasks."""
    found = answer.findings
    if not found.tested:
        return f"not tested; {_untested(answer)}"
    where = "over all runs, because too few have a task in common"
    if found.stratified:
        where = f"inside the {noun(found.tasks, 'task')} that both passed and failed"
    things = noun(found.tested, "tested thing")
    if not found.findings:
        return f"compared {where}: none of {things} goes with {'' if answer.signature is None else 'this '}failure"
    return f"compared {where}, of {things} (FDR {FDR:.0%})"


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
        return f"these runs are too few to find {other} reliably, however strong it is"
    return f"of causes of ×{_ratio(found.detectable)}, these runs find at best four in five"


def _ratio(value: float) -> str:
    """Return an odds ratio in few digits."""
    return "∞" if value == inf else f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def ways(found: Why, words: Sequence[str], pair: Sequence[str]) -> Iterator[Block]:
    """Yield the commands that go on: where a failed run parts from one that passed, and cases for an evaluation.

    Args:
        words: the options of the filter.
        pair: names of a run that failed and of one that passed; empty without such.
    """
    if pair:
        yield Command("where the latest parts from one that passed", ("diff", *pair))
    if found.failed and found.by_agent is None:  # else no one rule selects them
        how = ("--balanced", found.outcome or "status", "--format", "dataset")
        yield Command("cases: the failed runs, and as many that passed", ("export", *(words or ("all",)), *how))
