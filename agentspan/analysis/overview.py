"""The overview of the latest runs: how many failed or missed their goal, when, and why most often."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise

from agentspan import clock
from agentspan.analysis.causes import (
    RunCause,
    Scored,
    Verdict,
    VerdictKind,
    left_open,
    root_causes,
    rule_text,
    short_cause,
    short_message,
    verdict,
)
from agentspan.analysis.outcomes import (
    STATUS,
    Judge,
    OutcomeRule,
    Pair,
    Rules,
    check_known,
    missed_rules,
    pair_of,
    parse,
)
from agentspan.analysis.periods import periods_of
from agentspan.analysis.runs import by_ids
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import BriefsWhere, FailureSums, Find, Query, RunFilter, RunsWhere
from agentspan.storage.sums import Progress, RunBrief, RunTotals
from agentspan.text import amounts, dotted, noun

DAY = timedelta(days=1)
LATEST = 50
"""The number of runs created last that are examined to find the run that began last."""
CHANCE = 0.05
"""A cause counts as specific to a version only if random runs would all be of that version with at most this chance."""
MOST_BUCKETS = 48
MOST_OPEN = 500
"""The largest number of open runs whose programs are looked at; the latest ones."""
READ_SPANS = 20_000
"""The largest number of spans that are read to tell which failures runs recovered from: 1 s."""
_COUNTED: tuple[VerdictKind, ...] = (
    "failed", "missed", "unscored", "terminated", "cancelled", "running", "pending", "left"
)  # fmt: skip
"""The verdicts that a sentence counts, in this order."""
_PASSED: Mapping[str, bool] = {"passed": True, "failed": False, "missed": False}


@dataclass(frozen=True, slots=True)
class Bucket:
    """The runs that began in a range of times.

    Attributes:
        since, until: the range as stored text, without `until`.
        passed: the number of runs that passed.
        failed: the number of runs that failed, or missed the rule.
        other: the number of all other runs, such as running and cancelled ones.
    """

    since: str
    until: str
    passed: int
    failed: int
    other: int


@dataclass(frozen=True, slots=True)
class FrequentCause:
    """A cause that several runs may share.

    Attributes:
        signature: the name of the failure, which `agentspan runs --signature` takes.
        text: the failure in one line, without values.
        short: the failed step and the type of its error.
        runs: the number of runs with this cause.
        versions: the number of these runs of each version.
        only_in: the version of all these runs, if no run of another version has the failure, and that would rarely be
            so by chance (5 %); else None.
        run_id: the id of the latest of the runs.
        kind: `step` if a step failed, `run` for an error of the run itself.
    """

    signature: str
    text: str
    short: str
    runs: int
    versions: Mapping[str, int]
    only_in: str | None
    run_id: str
    kind: str


@dataclass(frozen=True, slots=True)
class Overview:
    """The verdicts on the runs of a range of times, and the most frequent causes.

    Attributes:
        since, until: the range, as stored text. Both are None without runs; `until` is None for a range without an end.
        lately: whether the range is the last 24 hours; else it ends with the last run, or the filter set it.
        runs: the number of runs.
        verdicts: the number of runs of each kind of verdict: `passed`, `failed`, `missed`, `running`, `left` …
        rule: the rule over a score that runs missed, such as `reward>=1`; None if there is none, or several.
        goal: the rules of all agents for a sentence: `reward ≥ 1`; "" without one.
        with_failed_step: the number of passed runs in which a step failed.
        totals: the sums over the runs.
        buckets: when the runs began, in up to 48 ranges of the same width, without gaps.
        causes: the causes of failed runs and of runs that missed the rule, the most frequent first; None if they were
            not computed.
        silent: the number of runs that missed the rule without a cause; 0 if causes were not computed.
        pair: the latest run that failed or missed the rule, and one that passed, to compare them; None without such.
    """

    since: str | None
    until: str | None
    lately: bool
    runs: int
    verdicts: Mapping[str, int]
    rule: str | None
    goal: str
    with_failed_step: int
    totals: RunTotals
    buckets: tuple[Bucket, ...]
    causes: tuple[FrequentCause, ...] | None = None
    silent: int = 0
    pair: Pair | None = None

    @property
    def failed(self) -> int:
        """The number of runs that failed by their status."""
        return self.verdicts.get("failed", 0)

    @property
    def missed(self) -> int:
        """The number of runs that missed the rule, without those that failed."""
        return self.verdicts.get("missed", 0)

    @property
    def open(self) -> int:
        """The number of runs that have not ended, without those that their programs left open."""
        return self.verdicts.get("running", 0) + self.verdicts.get("pending", 0)

    @property
    def left_open(self) -> int:
        """The number of runs that are open although their programs have died."""
        return self.verdicts.get("left", 0)

    @property
    def when(self) -> str:
        """The range of times in words: `in the last day`, `in the day up to 2026-11-29 09:43`; in UTC."""
        since, until = _minute(self.since), _minute(self.until)
        if self.lately:
            return "in the last day"
        if self.until is None or self.since is None:
            return f"since {since}" if since else f"until {until}" if until else ""
        if clock.to_datetime(self.until) - clock.to_datetime(self.since) == DAY:
            return f"in the day up to {until}"
        return f"from {since} to {until}"

    @property
    def head(self) -> str:
        """The number of runs, and when: `214 runs in the last day`; `No run` without runs."""
        return " ".join(filter(None, (noun(self.runs, "run"), self.when))) if self.runs else "No run"

    @property
    def parts(self) -> list[tuple[str, str]]:
        """The kinds of verdicts that are no success, each with its number in words: `116 missed reward ≥ 1`."""
        names = {"missed": f"missed {self.goal}", "left": "left open"}
        if self.goal:
            names["unscored"] = f"without {'a score' if self.rule is None else parse(self.rule).name}"
        return [
            (kind, f"{self.verdicts[kind]:,} {names.get(kind, kind)}") for kind in _COUNTED if self.verdicts.get(kind)
        ]

    @property
    def counts(self) -> str:
        """The verdicts in words: `36 failed, 116 missed reward ≥ 1, 2 running`; `all passed`."""
        found = ", ".join(text for _, text in self.parts)
        if found:
            return found
        if self.runs == 1:
            return "it passed, with a failed step" if self.with_failed_step else "it passed"
        steps = f", {self.with_failed_step:,} of them with a failed step" if self.with_failed_step else ""
        return f"all passed{steps}"

    @property
    def answer(self) -> str:
        """One sentence: `214 runs in the last day: 36 failed, 116 missed reward ≥ 1.`; `No run.` without runs."""
        return f"{self.head}: {self.counts}." if self.runs else "No run."

    @property
    def sums(self) -> str:
        """The spans, tokens and cost of all runs: `3,766 spans · 8.1k tok · $0.04`."""
        used = [each for each in (self.totals.input_tokens, self.totals.output_tokens) if each is not None]
        return dotted(noun(self.totals.spans, "span"), *amounts(sum(used) if used else None, self.totals.cost_usd))

    def __str__(self) -> str:
        """Return the answer, up to ten causes and the sums, a line each."""
        causes = [f"  {each.runs:,} × {each.text}{_only(each)}" for each in (self.causes or ())[:10]]
        silent = [f"  {self.silent:,} without a failed step"] if self.silent else []
        return "\n".join([self.answer, *causes, *silent, *([self.sums] if self.runs else [])])


def _only(cause: FrequentCause) -> str:
    return "" if cause.only_in is None else f" (only in {cause.only_in})"


def _minute(text: str | None) -> str:
    return "" if text is None else text[:16].replace("T", " ")


def overview(
    storage: Storage,
    filter: RunFilter | None = None,
    judge: Judge = None,
    *,
    with_causes: bool = True,
    progress: Progress | None = None,
) -> Overview:
    """Return the overview of the runs that match a filter, in the last day that has such runs.

    Args:
        filter: selects the runs; a `since` in it replaces the last day.
        judge: decides whether a run that completed passed; when left out, a rule that runs missed (see
            outcomes.missed_rule).
        with_causes: whether to compute the causes. Without them, 5,000 runs take 0.2 s.
        progress: called with (done, total) while an index is built.

    Raises:
        InvalidValue: the rule is over a score that no run has.
    """
    check_known(storage, judge)
    filter = by_ids(storage, filter or RunFilter())
    filter, lately = _lately(storage, filter, progress)
    found = storage.ask(BriefsWhere(filter, progress))
    rule = missed_rules(storage, found) if judge is None else None if judge == STATUS else judge
    scored = Scored(storage, rule, found)
    verdicts = verdicts_of(storage, found, scored)
    counts: Counter[str] = Counter(each.kind for each in verdicts.values())
    totals = storage.ask(RunsWhere(filter, 1, 0, "started", progress)).totals if found else RunTotals()
    stepped = sum(bool(run.failed) and verdicts[run.id].kind == "passed" for run in found)
    causes: tuple[FrequentCause, ...] | None = None
    silent = 0
    if with_causes:
        bad = [run for run in found if verdicts[run.id].kind in ("failed", "missed")]
        each = root_causes(storage, bad, scored, most_spans=READ_SPANS)
        causes = tuple(_only_in_one(storage, _frequent(bad, each, _versions(found)), found))
        silent = len(bad) - sum(cause.signature is not None for cause in each.values())
    return Overview(
        filter.since, filter.until, lately, len(found), counts, _only_rule(rule),
        "" if rule is None else rule_text(rule), stepped, totals, tuple(histogram(found, verdicts)), causes, silent,
        pair_of(found, {id: _PASSED.get(each.kind) for id, each in verdicts.items()}),
    )  # fmt: skip


def _only_rule(rule: OutcomeRule | Rules | None) -> str | None:
    """Return the text of the only rule; None if agents have different ones."""
    texts = {*map(str, rule.by_agent.values())} if isinstance(rule, Rules) else {str(rule)} if rule else set()
    return texts.pop() if len(texts) == 1 else None


def _lately(storage: Storage, filter: RunFilter, progress: Progress | None) -> tuple[RunFilter, bool]:
    """Return the filter limited to the last day that has matching runs, and whether that day ends now."""
    if filter.since is not None:
        return filter, False
    if filter == RunFilter():
        rows = storage.ask(Query("agent_instance", descending=True, limit=LATEST)).rows
        runs = [row for row in rows if isinstance(row, AgentInstanceRow)]
    else:
        runs = [run.run for run in storage.ask(RunsWhere(filter, LATEST, 0, "started", progress)).runs]
    if not runs:
        return filter, False
    last = clock.to_datetime(max(run.started_at or run.inserted_at for run in runs))
    if filter.until is None and last > (day_ago := clock.to_datetime(clock.now()) - DAY):
        return filter._replace(since=clock.parse(day_ago)), True
    until = last + timedelta(microseconds=1)
    return filter._replace(since=clock.parse(until - DAY), until=clock.parse(until)), False


def verdicts_of(storage: Storage, runs: Sequence[RunBrief], scored: Scored) -> dict[str, Verdict]:
    """Return the verdict on each run."""
    ids = [run.id for run in runs if run.status in OPEN][:MOST_OPEN]
    rows = storage.ask(Find(*ids)).rows.values() if ids else ()
    left = left_open(storage, [row for _, row in rows if isinstance(row, AgentInstanceRow)])
    return {run.id: verdict(run, scored, left) for run in runs}


def _versions(runs: Iterable[RunBrief]) -> Mapping[str, Counter[str]]:
    """Return the number of runs of each version of each agent."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for run in runs:
        found[run.agent_id][run.version] += 1
    return found


def _only_in_one(storage: Storage, causes: list[FrequentCause], runs: Sequence[RunBrief]) -> list[FrequentCause]:
    """Return causes without `only_in` where a run of another version has the same failure, also if it recovered."""
    if all(cause.only_in is None for cause in causes):
        return causes
    by_run = {run.id: run.version for run in runs}
    versions: dict[str, set[str]] = defaultdict(set)
    for each in storage.ask(FailureSums([run.id for run in runs if run.failed])):
        versions[each.signature.id].add(by_run[each.run_id])
    return [replace(cause, only_in=None) if len(versions[cause.signature]) > 1 else cause for cause in causes]


def _frequent(
    runs: Iterable[RunBrief], causes: Mapping[str, RunCause], versions: Mapping[str, Counter[str]]
) -> list[FrequentCause]:
    groups: dict[tuple[str, str], list[RunBrief]] = defaultdict(list)
    texts: dict[tuple[str, str], str] = {}
    for run in runs:
        cause = causes.get(run.id)
        if cause is not None and cause.signature is not None:
            key = cause.kind, cause.signature.id
            groups[key].append(run)
            texts[key] = cause.text
    found = []
    shorts = Counter(short_cause(text) for text in texts.values())
    for (kind, signature), own in groups.items():
        of = Counter(run.version for run in own)
        every = sum((versions[id] for id in {run.agent_id for run in own}), Counter[str]())
        is_telling = len(of) == 1 and (every[own[0].version] / every.total()) ** len(own) <= CHANCE
        text = texts[kind, signature]
        short = short_cause(text)
        found.append(
            FrequentCause(
                signature, text, short if shorts[short] == 1 else short_message(text), len(own),
                dict(sorted(of.items())), own[0].version if is_telling else None,
                max(run.id for run in own), kind,
            )
        )  # fmt: skip
    return sorted(found, key=lambda each: (-each.runs, each.text))


def histogram(runs: Sequence[RunBrief], verdicts: Mapping[str, Verdict]) -> list[Bucket]:
    """Return when runs began, in at most MOST_BUCKETS ranges of the same width, from the first run to the last."""
    periods = periods_of([run.began for run in runs], most=MOST_BUCKETS, shortest_s=1)
    if periods is None:
        return []
    times: dict[str, list[str]] = {"passed": [], "failed": [], "other": []}
    for run in runs:
        kind = verdicts[run.id].kind
        times["failed" if kind == "missed" else kind if kind in times else "other"].append(run.began)
    counts = zip(*map(periods.counted, times.values()), strict=True)
    return [Bucket(*edge, *count) for edge, count in zip(pairwise(periods.edges()), counts, strict=True)]
