"""Outcomes of runs: passed, failed or unknown, by a rule over a score such as `reward>=1`, else by the status.

Outcomes are not stored. The newest score with the rule's name decides, whoever judged; scores of spans do not count.
"""

import math
import operator
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from agentspan import jsontext
from agentspan.errors import InvalidValue
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow, ScoreRow
from agentspan.model.scores import SOURCES
from agentspan.storage.access import scan
from agentspan.storage.answers import LatestScore
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, LatestScores, NewestScores, Query
from agentspan.storage.sums import RunBrief
from agentspan.text import one_line

LOOKED_AT = 2000
"""The number of latest runs whose scores are examined to find a rule that runs missed."""
RECENT = 20
"""The number of latest runs that are examined for the names of the scores by which evaluations judge."""
IN_RESULTS = ("reward", "score", "passed", "success", "correct")
"""Members of a run's result that read as its score."""
FEW = 200
"""The number of runs up to which their scores are read one by one: those of 20,000 runs take 0.1 s."""

_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_RULE = re.compile(r"\s*(?P<name>[^<>=!]+?)\s*(?P<op>>=|<=|==|!=|>|<)\s*(?P<wanted>[^<>=!].*?)\s*", re.DOTALL)
_BY_STATUS = {"complete": True, "failed": False}
_TRUTHS = {"true": 1.0, "false": 0.0}
"""The numbers that scores of true and false are stored as."""
MOST_READ = 10_000
"""The number of the latest scores that an error about an unknown score looks at."""
MOST_NAMED = 4
"""The largest number of values of a score that an error names."""
STATUS: Literal["status"] = "status"
"""The text of a rule that lets the status of a run decide."""


EVALUATION = "evaluation"
"""The member of the metadata of a trial that says how it is judged, and against what (see JudgedBy)."""
Run = AgentInstanceRow | RunBrief
"""A run: its full row, or the brief form for many runs."""


class OutcomeRule(NamedTuple):
    """A condition on the newest score of a run: the run passed if the score fulfills it.

    Attributes:
        name: the name of the score.
        source: the only source whose scores count: human, model or code; None for any source.
        op: one of >= <= == != > <.
        wanted: a number to compare the value with, or a text to compare the label with. `true` and `false` also match
            the values 1 and 0 of a score without a label.
    """

    name: str
    source: str | None
    op: str
    wanted: float | str

    def __str__(self) -> str:
        source = "" if self.source is None else f"@{self.source}"
        wanted = self.wanted if isinstance(self.wanted, str) else f"{self.wanted:.15g}"
        return f"{self.name}{source}{self.op}{wanted}"

    def holds(self, score: LatestScore) -> bool | None:
        """Return whether a score fulfills the condition; None if the score lacks the value or label to compare."""
        judged: float | str | None = score.label if isinstance(self.wanted, str) else score.value
        if judged is None and isinstance(self.wanted, str) and score.value in _TRUTHS.values():
            truth = _TRUTHS.get(self.wanted.lower())
            return None if truth is None else _COMPARE[self.op](score.value, truth)
        return None if judged is None else _COMPARE[self.op](judged, self.wanted)


class Rules(NamedTuple):
    """The rules of agents, by the agent's id. A run of another agent is judged by its status."""

    by_agent: Mapping[str, OutcomeRule]

    def __str__(self) -> str:
        return " or ".join([*dict.fromkeys(map(str, self.by_agent.values())), "by status"])


def rule_for(run: Run, rule: OutcomeRule | Rules | None) -> OutcomeRule | None:
    """Return the rule that judges a run; None if its status does."""
    return rule.by_agent.get(run.agent_id) if isinstance(rule, Rules) else rule


def one(rule: OutcomeRule | Rules | None) -> str | None:
    """Return the text of the rule that judges all runs; None if there is none, or agents have rules of their own."""
    return str(rule) if isinstance(rule, OutcomeRule) else None


Judge = OutcomeRule | Literal["status"] | None
"""The judge of whether runs passed: a rule over a score, their status, or (None) the one that `decided` finds."""


def parse(text: str, field: str = "outcome") -> OutcomeRule:
    """Parse a rule such as `reward>=1`, `reward@human<0.5` or `label==good`.

    If the right side is a number, the rule compares the value of a score; else its label (only by == and !=).

    Args:
        field: the name of the value in an error.

    Raises:
        InvalidValue: the text is not a rule.
    """
    found = _RULE.fullmatch(text)
    if found is None:
        problem = "is not a rule: write a score's name, one of >= <= == != > <, and a number or a label"
        raise _invalid(text, problem, field)
    name, op, wanted = found.group("name", "op", "wanted")
    source = None
    if "@" in name:
        name, _, source = (part.strip() for part in name.rpartition("@"))
        if source not in SOURCES:
            raise _invalid(text, f"names no source: after the @ comes one of {', '.join(SOURCES)}", field)
    if not name:
        raise _invalid(text, "has no name of a score before the sign", field)
    number = _number(wanted)
    if number is None and op not in ("==", "!="):
        raise _invalid(text, f"compares with no number: a label can be compared by == and != only, not by {op}", field)
    return OutcomeRule(name, source, op, wanted if number is None else number)


def rule_of(text: str | None) -> Judge:
    """Parse a rule, or `status`; None stays None.

    Raises:
        InvalidValue: the text is not a rule.
    """
    return None if text is None else STATUS if text == STATUS else parse(text)


class JudgedBy(NamedTuple):
    """The rules of an evaluation, from the metadata of a trial. All are None in a run without them.

    Attributes:
        outcome: the rule by which a trial passes; `status` if its status decides.
        against: the base as it was named: a version, AGENT@VERSION, or a filter in one text; None without one.
        base_outcome: the rule by which a run of the base passed, if that is another one.
        call: the name of the session of tests that ran it, of one of these tests; None for agentspan.evaluate.
    """

    outcome: str | None = None
    against: str | None = None
    base_outcome: str | None = None
    call: str | None = None

    def plain(self) -> dict[str, str]:
        """Return the known values in the form of the metadata."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def judged_by(run: AgentInstanceRow) -> JudgedBy:
    """Return how the evaluation of a trial judges it; a JudgedBy without values for other runs."""
    text = run.metadata if run.purpose == "eval" else None
    found = jsontext.decode(text) if text is not None and f'"{EVALUATION}"' in text else None
    facts = found.get(EVALUATION) if type(found) is dict else None
    known = facts if type(facts) is dict else {}
    return JudgedBy(*(value if type(value := known.get(name)) is str else None for name in JudgedBy._fields))


def decided(storage: Storage, runs: Sequence[Run], judge: Judge) -> OutcomeRule | Rules | None:
    """Return the rule that decides whether these runs passed; None if their status decides.

    If `judge` is None, each agent has its own: a rule over a score that some of its runs missed (see missed_rule),
    unless one of them failed by its status: then the status decides.

    Raises:
        InvalidValue: the rule is over a score that no run has.
    """
    if judge is not None:
        check_known(storage, judge)
        return judge if isinstance(judge, OutcomeRule) else None
    failed = {run.agent_id for run in runs if run.status == "failed"}
    return missed_rules(storage, runs, without=failed)


def missed_rules(storage: Storage, runs: Sequence[Run], *, without: Collection[str] = ()) -> OutcomeRule | Rules | None:
    """Return the rules over scores that runs missed, of each agent but some; a single one if there is one agent."""
    groups = _by_agent(runs)
    found = {
        id: missed.rule
        for id, own in groups.items()
        if id not in without and (missed := missed_rule(storage, own)) is not None
    }
    return next(iter(found.values())) if len(groups) == len(found) == 1 else Rules(found) if found else None


def _by_agent(runs: Sequence[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.agent_id].append(run)
    return groups


def check_known(storage: Storage, rule: Judge, *, of: str = "") -> None:
    """Refuse a rule over a score that no run has, or that lacks the value or label to compare in every run.

    Args:
        of: the name of the storage in the error, for a command that reads several storages.

    Raises:
        InvalidValue: no run of the storage has the score (the error names the existing scores); or the rule compares
            a label and all scores are numbers, or a number and all scores are labels.
    """
    if not isinstance(rule, OutcomeRule):
        return
    found = storage.ask(LatestScores(rule.name, rule.source))
    if found:
        check_kind(rule, found, of=of)
        return
    rows = scan(storage, ScoreRow, {"target_type": "agent_instance"}, descending=True, limit=MOST_READ)
    names = sorted({row.name if rule.source is None else f"{row.name}@{row.source}" for row in rows})
    if of:
        score = str(rule).partition(rule.op)[0]
        there = f"it has: {', '.join(names)}" if names else "it has no scores"
        raise InvalidValue("outcome", f"no run of {of} has the score {one_line(score, 60)}; {there}")
    there = f"the scores are: {', '.join(names)}" if names else "there are no scores"
    raise _invalid(str(rule), f"is over a score that no run has; {there}")


def check_kind(rule: OutcomeRule, scores: Mapping[str, LatestScore], *, of: str = "") -> None:
    """Refuse a rule that compares a label if all scores are numbers, or a number if all scores are labels.

    Raises:
        InvalidValue: the rule fits no score; the error names values of the score, and a rule that fits.
    """
    if any(rule.holds(score) is not None for score in scores.values()):
        return
    numbers = sorted({score.value for score in scores.values() if score.value is not None})
    labels = sorted({score.label for score in scores.values() if score.label is not None})
    kind, texts = ("a number", [f"{each:.15g}" for each in numbers]) if numbers else ("a label", labels)
    if not texts:
        return  # scores with only an explanation: no rule can fit
    wanted = texts[-1]
    shown = ", ".join([*texts[:MOST_NAMED], "…"] if len(texts) > MOST_NAMED else texts)
    score = str(rule._replace(op="==", wanted=wanted))
    where = f" in {of}" if of else ""
    raise _invalid(
        str(rule), f"cannot be answered: {rule.name} is {kind}{where} ({one_line(shown, 60)}): write {score}"
    )


def scores_of(storage: Storage, rule: OutcomeRule, runs: Collection[str]) -> Mapping[str, LatestScore]:
    """Return the newest score that a rule judges by, for each of these runs that has one, by the run's id.

    For many runs, the answer also contains scores of other runs.
    """
    if len(runs) > FEW:
        return storage.ask(LatestScores(rule.name, rule.source))
    return {
        row.agent_instance_id: LatestScore(row.value, row.label)
        for row in storage.ask(NewestScores([*runs]))
        if row.target_type == "agent_instance" and row.name == rule.name and rule.source in (None, row.source)
    }


def outcomes(storage: Storage, runs: Sequence[Run], rule: OutcomeRule | Rules | None = None) -> dict[str, bool | None]:
    """Return the outcome of each run by its id: True if it passed, False if it failed, None if unknown.

    Args:
        rule: decides by the newest score; the outcome of an open run, and of one without the score, is unknown.
            Without a rule the status decides: complete runs passed, failed runs failed, and all others are unknown.
    """
    if isinstance(rule, Rules):
        groups = _by_agent(runs).items()
        return {
            id: each for agent, own in groups for id, each in outcomes(storage, own, rule.by_agent.get(agent)).items()
        }
    if rule is None:
        return {run.id: _BY_STATUS.get(run.status) for run in runs}
    scores = scores_of(storage, rule, [run.id for run in runs])
    return {
        run.id: None if run.status in OPEN or (score := scores.get(run.id)) is None else rule.holds(score)
        for run in runs
    }


class Pair(NamedTuple):
    """The ids of two runs to compare: one that passed, and one that failed."""

    passed: str
    failed: str


def pair_of(runs: Sequence[RunBrief], passed: Mapping[str, bool | None]) -> Pair | None:
    """Return two runs of one task to compare, one that passed and one that failed; None if there are none.

    The failed run is the latest one of whose task a run passed; the passed run is the latest one of that task. If no
    task has both, the runs are of one agent, found likewise. Unlike `why RUN`, this function reads no steps, so the
    passed run need not be the nearest one.

    Args:
        runs: the latest first.
        passed: the outcome of each run by its id.
    """
    latest: dict[tuple[str, str | None], str] = {}
    for run in runs:
        if passed.get(run.id):
            latest.setdefault((run.agent_id, run.task), run.id)
            latest.setdefault((run.agent_id, None), run.id)
    failed = [run for run in runs if passed.get(run.id) is False]
    for of_task in (True, False):
        for run in failed:
            if (run.task is not None or not of_task) and (
                found := latest.get((run.agent_id, run.task if of_task else None))
            ):
                return Pair(found, run.id)
    return None


def unmet(storage: Storage, rule: OutcomeRule | None, runs: Sequence[Run]) -> str:
    """Return the rule that no run fulfilled, for a sentence: `passed reward>1 (the highest reward is 1)`."""
    if rule is None:
        return "passed by its status"
    scores = storage.ask(LatestScores(rule.name, rule.source))
    values = [score.value for run in runs if (score := scores.get(run.id)) and score.value is not None]
    if isinstance(rule.wanted, str) or rule.op in ("==", "!=") or not values:
        return f"passed {rule}"
    end, value = ("highest", max(values)) if rule.op in (">", ">=") else ("lowest", min(values))
    return f"passed {rule} (the {end} {rule.name} is {value:.15g})"


class Missed(NamedTuple):
    """A rule over a score that some runs missed, where the status decides.

    Attributes:
        rule: the rule that the runs missed.
        missed: the number of runs that missed the rule.
        runs: the number of runs that have the score.
    """

    rule: OutcomeRule
    missed: int
    runs: int

    def plain(self) -> dict[str, Any]:
        """Return the rule as text, and the numbers, for a JSON document."""
        return {**self._asdict(), "rule": str(self.rule)}

    def __str__(self) -> str:
        rule = str(self.rule)
        return f"by status; {self.missed:,} of {self.runs:,} missed {rule}: --outcome {shlex.quote(rule)}"


def missed_rule(storage: Storage, runs: Sequence[Run]) -> Missed | None:
    """Return a rule that runs missed, from a score with exactly two values, such as 0 and 1; None if there is none.

    Runs with the lower value missed the rule. Of several such scores, the one that most of the latest runs have wins;
    of those, the one by which an evaluation judges its trials.
    If all these runs have the same value, as runs that match a filter may, the other value may be of any of the latest
    runs of their agent. Of runs of several agents it is the rule of the agent with the most runs that missed one.
    """
    groups = _by_agent(runs)
    if len(groups) > 1:
        each = [found for own in groups.values() if (found := missed_rule(storage, own)) is not None]
        return max(each, key=lambda found: found.missed, default=None)
    values: dict[str, set[float]] = defaultdict(set)
    counts: Counter[str] = Counter()
    for row in storage.ask(NewestScores([run.id for run in runs[:LOOKED_AT]])):
        if row.target_type == "agent_instance" and row.value is not None:
            values[row.name].add(row.value)
            counts[row.name] += 1
    decides = _judging(storage, runs) if len(counts) > 1 else set()
    for name in sorted(counts, key=lambda name: (-counts[name], name not in decides, name)):
        own = known = values[name]
        if len(own) == 1:
            known = _values_of(storage, name, runs[0].agent_id)
            known = own if max(known) in own else known  # all runs have the highest value
        if len(known) == 1 and name in decides:
            return None
        rule = OutcomeRule(name, None, ">=", max(known))
        if len(known) == 2 and _is_written(rule):
            passed = [found for found in outcomes(storage, runs, rule).values() if found is not None]
            return Missed(rule, passed.count(False), len(passed)) if False in passed else None
    return None


def in_result(storage: Storage, runs: Sequence[Run]) -> str | None:
    """Return the name of a number in the results of the latest of these runs that reads as a score; None without one.

    It judges nothing: only what `run.score` records is a score.
    """
    rows = storage.ask(Find(*(run.id for run in runs[:RECENT]))).rows.values()
    texts = [row.result for _, row in rows if isinstance(row, AgentInstanceRow) and row.result is not None]
    results = [jsontext.decode(text) for text in texts if any(f'"{name}"' in text for name in IN_RESULTS)]
    members = [result for result in results if type(result) is dict]
    found = (name for name in IN_RESULTS if any(type(each.get(name)) in (int, float, bool) for each in members))
    return next(found, None)


def _values_of(storage: Storage, name: str, agent_id: str) -> set[float]:
    """Return the values of a score of the latest runs of an agent."""
    latest = storage.ask(Query("agent_instance", {"agent_id": agent_id}, descending=True, limit=LOOKED_AT)).rows
    scores = storage.ask(NewestScores([row.id for row in latest]))
    of_runs = [row for row in scores if row.target_type == "agent_instance" and row.name == name]
    return {row.value for row in of_runs if row.value is not None}


def _judging(storage: Storage, runs: Sequence[Run]) -> set[str]:
    """Return the names of the scores by which evaluations judge the latest of these runs."""
    rows = storage.ask(Find(*(run.id for run in runs[:RECENT]))).rows.values()
    texts = {judged_by(row).outcome or "" for _, row in rows if isinstance(row, AgentInstanceRow)}
    rules = (_RULE.fullmatch(text) for text in texts)
    return {rule["name"].partition("@")[0].strip() for rule in rules if rule is not None}


def _is_written(rule: OutcomeRule) -> bool:
    """Return whether the text of a rule parses back to the rule. A score's name with special characters may not."""
    try:
        return parse(str(rule)) == rule
    except InvalidValue:
        return False


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _invalid(text: str, problem: str, field: str = "outcome") -> InvalidValue:
    return InvalidValue(field, f"{one_line(text, 60)!r} {problem}")
