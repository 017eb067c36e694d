"""Computes for each run of a list the verdict in a few words, and in one line the cause of its failure.

Reads the spans of at most READ_SPANS steps in one call. A run beyond that limit has the cause of a run that was read
and has the same error and the same failures; without such a run, its cause is its latest failure.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from agentspan.analysis.failures import OwnErrors
from agentspan.analysis.outcomes import Judge, OutcomeRule, Rules, Run, missed_rules, rule_for, scores_of
from agentspan.analysis.tree import run_error, span_error, title_of
from agentspan.journal.writers import Lives
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.signatures import Signature, error_parts, error_without_values, run_signature
from agentspan.storage.answers import LatestScore
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import FailureSums, Find, Query
from agentspan.storage.sums import FailureSum, RunBrief, RunSummary, brief_of
from agentspan.text import cut, one_line

READ_SPANS = 5000
"""The largest number of spans that one call reads to tell which failures a run recovered from: 0.3 s."""
MAX_CAUSE = 300
"""The largest number of characters of a cause."""
MAX_SHORT = 60
SIBLINGS = 50
"""The number of latest runs of an agent whose scores are examined to find the rule that judges one of its runs."""

VerdictKind = Literal["passed", "failed", "missed", "unscored", "running", "pending", "left", "cancelled", "terminated"]
_KINDS: Mapping[str, VerdictKind] = {
    "complete": "passed", "failed": "failed", "active": "running", "pending": "pending", "cancelled": "cancelled",
    "terminated": "terminated",
}  # fmt: skip
_SIGNS = {">=": "≥", "<=": "≤", "==": "=", "!=": "≠", ">": ">", "<": "<"}
_MISSED_SIGNS = {">=": "<", "<=": ">", "==": "≠", "!=": "=", ">": "≤", "<": "≥"}
MARKS: Mapping[VerdictKind, str] = {
    "passed": "✓", "failed": "✗", "missed": "≠", "unscored": "✓", "running": "●", "pending": "◌", "left": "?",
    "cancelled": "○", "terminated": "■",
}  # fmt: skip
"""The shape of each kind of verdict, for people who see no colours."""
_STATUSES: Mapping[VerdictKind, str] = {"passed": "complete", "unscored": "complete", "running": "active"}
STATUS_MARKS: Mapping[str, str] = {status: MARKS[kind] for status, kind in _KINDS.items()}
_TEXTS: Mapping[VerdictKind, str] = {
    "passed": "passed", "failed": "failed", "unscored": "complete", "running": "running", "pending": "pending",
    "left": "left open", "cancelled": "cancelled", "terminated": "terminated",
}  # fmt: skip


class Verdict(NamedTuple):
    """The verdict on a run: whether it passed, by its status and by a rule over a score.

    Attributes:
        kind: `failed` by its status; `missed` the rule, although its status is no failure; `unscored`: complete,
            and without the score of the rule; `left`: open, and its program has died; or the status in other words.
        text: the verdict in words, such as `missed reward ≥ 1`.
    """

    kind: VerdictKind
    text: str

    @property
    def mark(self) -> str:
        """The shape of the kind, one character."""
        return MARKS[self.kind]

    @property
    def status(self) -> str:
        """The name of the kind's mark: a status, or a kind of its own."""
        return _STATUSES.get(self.kind, self.kind)

    def __str__(self) -> str:
        return f"{self.mark} {self.text}"


def verdict_by(status: str, rule: OutcomeRule | Rules | None = None, *, met: bool | None = None) -> Verdict:
    """Return the verdict on a run by its status, and by a rule if it completed; `met` is None without a score."""
    kind = _KINDS[status]
    if kind == "passed" and rule is not None:
        if met is False:
            return Verdict("missed", f"missed {rule_text(rule)}")
        kind = kind if met else "unscored"
    return Verdict(kind, _TEXTS[kind])


def rule_text(rule: OutcomeRule | Rules) -> str:
    """Return a rule as people write it: `reward ≥ 1`; of several agents `reward ≥ 1 or exact ≥ 1`."""
    if isinstance(rule, Rules):
        return " or ".join(dict.fromkeys(map(rule_text, rule.by_agent.values())))
    source = "" if rule.source is None else f"@{rule.source}"
    wanted = rule.wanted if isinstance(rule.wanted, str) else f"{rule.wanted:.6g}"
    return f"{rule.name}{source} {_SIGNS[rule.op]} {wanted}"


def opposite(rule: OutcomeRule) -> str:
    """Return the opposite of a rule, in the form that filters take: runs that missed `reward>=1` fulfil `reward<1`."""
    signs = {">=": "<", "<=": ">", "==": "!=", "!=": "==", ">": "<=", "<": ">="}
    return str(rule._replace(op=signs[rule.op]))


class Scored:
    """The newest score of each of some runs that a rule judges. Without a rule, no run has such a score."""

    def __init__(self, storage: Storage, rule: OutcomeRule | Rules | None, runs: Collection[Run]) -> None:
        self._rules = {run.id: own for run in runs if (own := rule_for(run, rule)) is not None}
        of: dict[OutcomeRule, list[str]] = {}
        for id, own in self._rules.items():
            of.setdefault(own, []).append(id)
        self._scores: dict[str, LatestScore] = {}
        for own, ids in of.items():
            found = scores_of(storage, own, ids)
            self._scores |= {id: found[id] for id in ids if id in found}

    def rule(self, run_id: str) -> OutcomeRule | None:
        """Return the rule that judges a run; None if its status does."""
        return self._rules.get(run_id)

    def met(self, run_id: str) -> bool | None:
        """Return whether a run met its rule; None without a score, or without a rule."""
        score = self._scores.get(run_id)
        return None if score is None else self._rules[run_id].holds(score)

    def missed_text(self, run_id: str) -> str:
        """Return how a run missed its rule: `reward 0 < 1`; "" if it did not."""
        if self.met(run_id) is not False:
            return ""
        score, rule = self._scores[run_id], self._rules[run_id]
        value = score.label if score.value is None or isinstance(rule.wanted, str) else f"{score.value:.6g}"
        wanted = rule.wanted if isinstance(rule.wanted, str) else f"{rule.wanted:.6g}"
        return one_line(f"{rule.name} {value} {_MISSED_SIGNS[rule.op]} {wanted}", MAX_CAUSE)


def verdict(run: Run, scored: Scored, left: Collection[str]) -> Verdict:
    """Return the verdict on a run.

    Args:
        left: the ids of the runs that are open although their programs have died (see left_open).
    """
    if run.id in left:
        return Verdict("left", _TEXTS["left"])
    return verdict_by(run.status, scored.rule(run.id), met=scored.met(run.id))


def verdicts_on(storage: Storage, runs: Sequence[AgentInstanceRow], judge: Judge = None) -> dict[str, Verdict]:
    """Return the verdict on each of some runs, by its id.

    Args:
        judge: decides whether a run that completed passed; when left out, a rule that it, or one of the latest
            runs of its agent, missed (see outcomes.missed_rule).
    """
    left = left_open(storage, runs)
    scored = Scored(storage, _rule(storage, runs, judge), runs)
    return {run.id: verdict(run, scored, left) for run in runs}


def _rule(storage: Storage, runs: Sequence[AgentInstanceRow], judge: Judge) -> OutcomeRule | Rules | None:
    """Return the rule that judges each agent's runs: also the latest other runs of the agent may have missed it."""
    if judge is not None:
        return judge if isinstance(judge, OutcomeRule) else None
    every = {run.id: run for run in runs}
    for agent_id in {run.agent_id for run in runs}:
        latest = storage.ask(Query("agent_instance", {"agent_id": agent_id}, descending=True, limit=SIBLINGS)).rows
        every = {row.id: row for row in latest if isinstance(row, AgentInstanceRow)} | every
    return missed_rules(storage, [*every.values()])


def left_open(storage: Storage, runs: Iterable[AgentInstanceRow]) -> set[str]:
    """Return the ids of the runs that are still open although their programs have died."""
    lives = Lives(storage)
    return {run.id for run in runs if run.status in OPEN and lives.of(run.writer_id) == "dead"}


@dataclass(frozen=True, slots=True)
class RunCause:
    """The cause of one run's failure.

    Attributes:
        kind: `step`: a failed step from which the run did not recover; `run`: an error of the run itself; `missed`: it
            only missed the rule; `terminated`: it was terminated.
        text: the cause in one line of at most 300 characters: `Tool fetch: TimeoutError: no answer in 30 s`.
        signature: the name of the failure, the same for equal failures; None for `missed` and `terminated`.
        span_id: the id of a failed step with this failure; None if no step failed.
    """

    kind: Literal["step", "run", "missed", "terminated"]
    text: str
    signature: Signature | None = None
    span_id: str | None = None

    @property
    def short(self) -> str:
        """The failed step and the type of its error: `fetch RateLimited`; else the whole text."""
        return self.text if self.signature is None else short_cause(self.signature.text)


_TYPE = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")


def short_cause(text: str) -> str:
    """Return the text of a signature without the message of its error; an error without a type keeps its message."""
    step, _, error = text.partition(": ")
    type_, _, message = error.partition(": ")
    step = step.removeprefix("Tool ")
    if _TYPE.fullmatch(type_):
        return cut(f"{step} {type_}" if step != "Run" else type_, MAX_SHORT)
    return cut(f"{step}: {error}" if step != "Run" else error or message, MAX_SHORT)


def short_message(text: str) -> str:
    """Return the text of a signature with its message, but without the type of its error: `fetch: no answer`."""
    step, _, error = text.partition(": ")
    type_, _, message = error.partition(": ")
    shown = message if message and _TYPE.fullmatch(type_) else error
    return cut(f"{step.removeprefix('Tool ')}: {shown}" if step != "Run" else shown, MAX_SHORT)


def root_causes(
    storage: Storage, runs: Sequence[RunBrief], scored: Scored, *, most_spans: int = READ_SPANS
) -> dict[str, RunCause]:
    """Return the cause of each run that has one, with the text of its signature: for groups of runs.

    A run that met the rule has none, nor has one that recovered from all its failures and ended well.

    Args:
        most_spans: the largest number of spans that are read to tell which failures a run recovered from.
    """
    bad = [run for run in runs if run.status == "failed" or not scored.met(run.id)]
    sums: dict[str, list[FailureSum]] = {}
    for each in storage.ask(FailureSums([run.id for run in bad])) if bad else []:
        sums.setdefault(each.run_id, []).append(each)
    errors = OwnErrors(storage, (each for own in sums.values() for each in own), most_spans=most_spans)
    found = {}
    for run in sorted(bad, key=lambda run: run.spans):  # so that the limit leaves out few runs
        cause = _cause(run, sums.get(run.id, []), errors, scored)
        if cause is not None:
            found[run.id] = cause
    return found


def _cause(run: RunBrief, sums: Sequence[FailureSum], errors: OwnErrors, scored: Scored) -> RunCause | None:
    own = run_signature(run.error)
    step = _root(run, sums, errors, own)
    if step is not None:
        return RunCause("step", step.signature.text, step.signature, step.span_id)
    if own is not None:
        return RunCause("run", own.text.removeprefix("Run: "), own)
    text = scored.missed_text(run.id)
    return RunCause("missed", text) if text else None


def _root(run: RunBrief, sums: Sequence[FailureSum], errors: OwnErrors, own: Signature | None) -> FailureSum | None:
    """Return the failure that made a run fail; None if it recovered from all."""
    if not sums:
        return None
    passed_on = [each for each in sums if own is not None and _is_passed_on(run.error, each.signature)]
    if passed_on:
        return min(passed_on, key=lambda each: each.first_at)
    lasting = errors.lasting(run)
    if lasting is not None:
        own_steps = [each for each in sums if each.signature.id in lasting]
        return min(own_steps, key=lambda each: each.first_at, default=None)
    return max(sums, key=lambda each: each.last_at) if own is None else None


def _is_passed_on(error: str | None, child: Signature) -> bool:
    """Return whether a run's error quotes the failure of a step; both without values, so that no step is read."""
    type_, _, message = child.text.partition(": ")[2].partition(": ")
    return (message or type_) in error_without_values(error_parts(error))


def causes(storage: Storage, runs: Sequence[RunSummary], scored: Scored) -> dict[str, RunCause]:
    """Return the cause of each run that has one, as it was recorded, with its values: for a page of runs.

    The reason of a termination comes first, then the failed step from which the run did not recover, then the run's own
    error, then the rule that it missed.
    """
    reasons = {run.run.id: reason for run in runs if (reason := run.run.termination_reason)}
    found = root_causes(storage, [brief_of(run) for run in runs if run.run.id not in reasons], scored)
    ids = [cause.span_id for cause in found.values() if cause.span_id is not None]
    spans = storage.ask(Find(*ids)).rows if ids else {}
    of = {run.run.id: run.run for run in runs}
    return {
        **{id: RunCause("terminated", one_line(f"terminated: {text}", MAX_CAUSE)) for id, text in reasons.items()},
        **{id: replace(cause, text=_as_recorded(cause, of[id], spans)) for id, cause in found.items()},
    }


def _as_recorded(cause: RunCause, run: AgentInstanceRow, spans: Mapping[str, tuple[object, object]]) -> str:
    text = None
    if cause.kind == "run":
        text = run_error(run)
    elif cause.span_id is not None and cause.span_id in spans:
        span = spans[cause.span_id][1]
        assert isinstance(span, AgentSpanRow)
        text = _step_text(span)
    return one_line(text or cause.text, MAX_CAUSE)


def _step_text(span: AgentSpanRow) -> str:
    """Return the name of a step and its error, without its input, which could leave no room for the error."""
    error = span_error(span)
    if error is None:
        return title_of(span, MAX_CAUSE)
    return f"{' '.join(text for text in (span.schema_title, span.label) if text)}: {error}"


class Judged(NamedTuple):
    """The verdicts on the runs of a page, and the causes of those that have one, by the ids of the runs."""

    verdicts: Mapping[str, Verdict]
    causes: Mapping[str, RunCause]
    rule: OutcomeRule | Rules | None


def page_of(storage: Storage, runs: Sequence[RunSummary], judge: Judge = None) -> Judged:
    """Return the verdicts and causes of a page of runs.

    Args:
        judge: decides whether a run that completed passed; when left out, as for verdicts_on.
    """
    rows = [run.run for run in runs]
    rule = _rule(storage, rows, judge)
    scored, left = Scored(storage, rule, rows), left_open(storage, rows)
    return Judged({run.id: verdict(run, scored, left) for run in rows}, causes(storage, runs, scored), rule)
