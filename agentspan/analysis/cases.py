"""Counts the passed runs of each case (the task of the runs) in each version of an agent, the versions side by side.

It counts only: a single case may differ by chance, and drift tests whether a version differs. For one trial, this
module also finds the other trials of its case, and the runs of the same case that it was compared with.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from agentspan.analysis.by_name import AT, resolved
from agentspan.analysis.causes import Verdict, verdicts_on
from agentspan.analysis.outcomes import Judge, decided, judged_by, outcomes, rule_of
from agentspan.analysis.runs import find_runs, run_briefs
from agentspan.analysis.tree import run_name, trial_of
from agentspan.analysis.versions import group_of
from agentspan.errors import AgentspanError
from agentspan.host import guard
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, Query, RunFilter
from agentspan.storage.row_by_row import names_of
from agentspan.storage.sums import Progress, RunBrief
from agentspan.text import noun, one_line

MOST_COLUMNS = 6
"""The largest number of versions side by side: the base, the head, and the newest of the others."""
MOST_RUNS = 200
"""The number of latest runs of a case among which the trials beside one are looked for."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The runs of a case in a version.

    Attributes:
        runs: the number of runs.
        known: the number of runs with an outcome.
        passed: the number of runs that passed.
        run_id: the id of the only run if it has no task, and was paired by its id; else None.
    """

    runs: int
    known: int
    passed: int
    run_id: str | None = None

    def __str__(self) -> str:
        return f"{self.passed:,}/{self.known:,}" if self.known else "?"


@dataclass(frozen=True, slots=True)
class CaseRow:
    """A case, and its runs in each version.

    Attributes:
        case: the task of the runs.
        tallies: one for each version, in their order; None where the version has no run of the case.
        change: the share of passed runs of the head minus that of the base, from -1 to 1; None if either is unknown.
    """

    case: str
    tallies: tuple[Tally | None, ...]
    change: float | None

    @property
    def word(self) -> str:
        """`worse` or `better`; "" for a case that is equal, or not known on both sides."""
        return "" if not self.change else "worse" if self.change < 0 else "better"

    def __str__(self) -> str:
        base, head = (each or "–" for each in self.tallies[-2:])
        return f"{one_line(self.case, 40)} ({base} → {head})"


@dataclass(frozen=True, slots=True)
class CaseTable:
    """The cases of an agent beside its versions.

    Attributes:
        versions: the versions, the earliest first; the last two are the base and the head. Empty if no two versions
            have a case in common.
        cases: the cases of the base and the head: first those that became worse, the most first; then those that became
            better, those that are equal, and those with an outcome in only one of the two.
        worse, better, equal: the number of cases of each kind.
        always, never: the number of equal cases that passed in all runs of both, and in none.
        alone: the number of cases with an outcome in only one of the two.
    """

    versions: tuple[str, ...]
    cases: tuple[CaseRow, ...]
    worse: int
    better: int
    equal: int
    always: int
    never: int
    alone: int

    @property
    def is_compared(self) -> bool:
        """True if the base and the head have outcomes of at least one case in common."""
        return bool(self.worse or self.better or self.equal)

    def counts(self) -> str:
        """Return the counts as text: `2 cases worse, 7 better, 21 equal: 20 always passed, 1 never`."""
        ends = ((self.always, "always passed"), (self.never, "never"))
        equal = ", ".join(f"{number:,} {what}" for number, what in ends if number)
        text = f"{noun(self.worse, 'case')} worse, {self.better:,} better, {self.equal:,} equal"
        alone = f"; {self.alone:,} with an outcome in one of the two only" if self.alone else ""
        return f"{text}{f' ({equal})' if equal else ''}{alone}"


def case_table(
    storage: Storage,
    agent: str,
    filter: RunFilter | None = None,
    judge: Judge = None,
    *,
    base: str | None = None,
    head: str | None = None,
    progress: Progress | None = None,
) -> CaseTable:
    """Return the cases of an agent beside its versions.

    A case is the task of its runs. A run without a task counts for the case that has the run's id, as in evaluations.

    Args:
        agent: the name of the agent.
        filter: further conditions of the runs.
        judge: decides whether a run passed; when left out, as outcomes.decided finds.
        base, head: a version of the agent, or a filter in one text. Without `head`, the newest version that has runs
            with a task; without `base`, the latest version before it that has a case of the head.
        progress: called with (done, total) while an index is built.

    Raises:
        NotFound: no agent has the name.
        InvalidValue: the rule is over a score that no run has.
    """
    wanted = resolved(storage, (filter or RunFilter())._replace(agent=agent))
    runs = run_briefs(storage, wanted, progress=progress)
    groups: dict[str, list[RunBrief]] = {}
    for run in runs:
        groups.setdefault(run.version, []).append(run)
    for name in (base, head):
        if name is not None and name not in groups:
            groups[name] = run_briefs(storage, group_of(storage, wanted, name))
    found = _counted(storage, groups, judge)
    order = sorted((each for each in found if found[each]), key=lambda each: min(run.began for run in groups[each]))
    head = head or next((each for each in reversed(order) if each != base), None)
    if head is None:
        return _table({}, "", "")
    before = order[: order.index(head)] if head in order else order
    own = found[head].keys()
    base = base or next((each for each in reversed(before) if not own.isdisjoint(found[each])), None)
    if base is None:
        return _table({}, "", "")
    others = [each for each in order if each not in (base, head)][-(MOST_COLUMNS - 2) :]
    return _table({name: found[name] for name in (*others, base, head)}, base, head)


def cases_of_groups(
    storage: Storage, names: tuple[str, str], filters: Sequence[RunFilter], judge: Judge = None
) -> CaseTable:
    """Return the cases of two groups of runs, the base and the head. A run in both counts for the head.

    Args:
        names, filters: of the base and of the head.
        judge: as for case_table.

    Raises:
        InvalidValue: the rule is over a score that no run has.
    """
    base, head = (run_briefs(storage, each) for each in filters)
    own = {run.id for run in head}
    groups = {names[0]: [run for run in base if run.id not in own], names[1]: head}
    return _table(_counted(storage, groups, judge), *names)


def table_of(base: Mapping[str, Sequence[bool | None]], head: Mapping[str, Sequence[bool | None]]) -> CaseTable:
    """Return the cases of two groups, from the outcomes of the runs of each case; None where one is unknown."""
    found = {}
    for name, of_case in (("base", base), ("head", head)):
        known = {case: [each for each in own if each is not None] for case, own in of_case.items()}
        found[name] = {case: Tally(len(of_case[case]), len(own), sum(own)) for case, own in known.items()}
    return _table(found, "base", "head")


def _counted(storage: Storage, groups: Mapping[str, Sequence[RunBrief]], judge: Judge) -> dict[str, dict[str, Tally]]:
    """Return the runs of each case of each group."""
    every = [run for group in groups.values() for run in group]
    passed = outcomes(storage, every, decided(storage, every, judge))
    tasks = {run.task for run in every if run.task}
    return {name: _tallies(group, tasks, passed) for name, group in groups.items()}


def _tallies(runs: Sequence[RunBrief], tasks: set[str], passed: Mapping[str, bool | None]) -> dict[str, Tally]:
    of_case: dict[str, list[RunBrief]] = {}
    for run in runs:
        case = run.task or (run.id if run.id in tasks else None)
        if case is not None:
            of_case.setdefault(case, []).append(run)
    found = {}
    for case, own in of_case.items():
        known = [outcome for run in own if (outcome := passed[run.id]) is not None]
        only = own[0].id if len(own) == 1 and own[0].task is None else None
        found[case] = Tally(len(own), len(known), sum(known), only)
    return found


def _table(found: Mapping[str, Mapping[str, Tally]], base: str, head: str) -> CaseTable:
    rows = []
    for case in {**found.get(base, {}), **found.get(head, {})}:
        shares = [
            Fraction(own.passed, own.known) if (own := found[each].get(case)) and own.known else None
            for each in (base, head)
        ]
        change = None if shares[0] is None or shares[1] is None else float(shares[1] - shares[0])
        rows.append(CaseRow(case, tuple(each.get(case) for each in found.values()), change))
    changes = [row.change for row in rows if row.change is not None]
    equal = [row.tallies[-1] for row in rows if row.change == 0]
    return CaseTable(
        tuple(found),
        tuple(sorted(rows, key=_place)),
        worse=sum(each < 0 for each in changes),
        better=sum(each > 0 for each in changes),
        equal=len(equal),
        always=sum(each is not None and each.passed == each.known for each in equal),
        never=sum(each is not None and each.passed == 0 for each in equal),
        alone=len(rows) - len(changes),
    )


def _place(row: CaseRow) -> tuple[int, float, str]:
    if row.change is None:
        return 3, 0.0, row.case
    return (0 if row.change < 0 else 1 if row.change > 0 else 2), -abs(row.change), row.case


@dataclass(frozen=True, slots=True)
class CaseRun:
    """A run of a case.

    Attributes:
        run_id: its id.
        number: the number of the trial, from 1; of a run that is no trial, its place among the runs, from 1.
        verdict: the verdict on it, by the rule of the evaluation.
    """

    run_id: str
    number: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class CaseOfTrial:
    """The case of a trial: its trials, and the runs of the same case that they were compared with.

    Attributes:
        case: the id of the case, the task of its runs.
        number: the number of the trial, from 1.
        agent, version: the agent and its version, `default` for none.
        trials: the trials of the case in this version, in the order of their numbers; of each number the latest. Of
            tests only those of the same session.
        base: the version, or the filter, that the trial was compared with. If its metadata does not say that, the
            latest version before it with runs of the case; None without one.
        base_runs: the runs of the base, in the order of their numbers.
    """

    case: str
    number: int
    agent: str
    version: str
    trials: tuple[CaseRun, ...]
    base: str | None
    base_runs: tuple[CaseRun, ...]

    @property
    def evaluation(self) -> str:
        """The name of the evaluation: the agent with its version."""
        return run_name(self.agent, self.version)

    @property
    def text(self) -> str:
        """A sentence such as `trial 2 of case late refund in evaluation booking 2.1`."""
        return f"trial {self.number} of case {self.case} in evaluation {self.evaluation}"

    def plain(self) -> dict[str, Any]:
        """Return the case as JSON values."""
        return {
            "case": self.case,
            "number": self.number,
            "evaluation": self.evaluation,
            "trials": [_plain(each) for each in self.trials],
            "base": self.base,
            "base_runs": [_plain(each) for each in self.base_runs],
        }


def _plain(run: CaseRun) -> dict[str, Any]:
    return {"run_id": run.run_id, "number": run.number, **run.verdict._asdict()}


def case_of(storage: Storage, run: AgentInstanceRow) -> CaseOfTrial | None:
    """Return the case of a trial; None for a run that is no trial."""
    number, case = trial_of(run), run.task
    if number is None or case is None:
        return None
    by = judged_by(run)
    where = {"agent_id": run.agent_id, "task": case}
    found = storage.ask(Query("agent_instance", where, descending=True, limit=MOST_RUNS)).rows
    rows = [run, *(row for row in found if isinstance(row, AgentInstanceRow) and row.id != run.id)]
    names = names_of(storage, rows)
    agent, version = names[run.id]
    own = [row for row in rows if names[row.id].version == version and judged_by(row).call == by.call]
    others = [row for row in rows if names[row.id].version != version]
    base, base_rows = _base(storage, run, agent, by.against, others, {row.id: names[row.id].version for row in others})
    taken = {row.id for row in own}
    return CaseOfTrial(
        case, number, agent, version,
        _runs(storage, own, by.outcome),
        base,
        _runs(storage, [row for row in base_rows if row.id not in taken], by.base_outcome or by.outcome),
    )  # fmt: skip


def _base(
    storage: Storage,
    run: AgentInstanceRow,
    agent: str,
    against: str | None,
    others: Sequence[AgentInstanceRow],
    versions: Mapping[str, str],
) -> tuple[str | None, Sequence[AgentInstanceRow]]:
    """Return the base of a trial, and its runs of the case.

    Args:
        others: the runs of the case in other versions, the latest first.
        versions: the version of each of them, by id.
    """
    case = run.task or ""
    named = against and against.removeprefix(f"{agent}{AT}")
    if named is None:
        named = next((versions[row.id] for row in others if row.id < run.id), None)
    own = [row for row in others if versions[row.id] == named]
    if own or against is None:
        return named, own
    with guard(AgentspanError):  # the base of then may be gone
        filter = group_of(storage, RunFilter(agent=agent), against)
        own = [each.run for each in find_runs(storage, filter._replace(task=case), limit=MOST_RUNS).runs]
    if not own:  # a run without a task is paired with the case of its own id
        row = storage.ask(Find(case)).rows.get(case)
        own = [row[1]] if row is not None and isinstance(row[1], AgentInstanceRow) and row[1].task is None else []
    return named, own


def _runs(storage: Storage, rows: Iterable[AgentInstanceRow], outcome: str | None) -> tuple[CaseRun, ...]:
    """Return runs of a case, given the latest first. If some are trials, only these: of each number the latest."""
    rows = [*rows]
    first: dict[int, AgentInstanceRow] = {}
    for row in rows:
        if (number := trial_of(row)) is not None:
            first.setdefault(number, row)
    numbered = sorted(first.items()) if first else [*enumerate(reversed(rows), start=1)]
    judge = None
    with guard(AgentspanError):
        judge = rule_of(outcome)
    verdicts = verdicts_on(storage, [row for _, row in numbered], judge)
    return tuple(CaseRun(row.id, number, verdicts[row.id]) for number, row in numbered)
