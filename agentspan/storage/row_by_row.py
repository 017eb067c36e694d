"""Answers to questions for a storage that lacks its own: computed in Python from all spans of a run or rows of a type.

These answers define the correct answers: the tests compare storages that have an index with them.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import chain
from typing import Any, NamedTuple, TypeVar, cast

from agentspan import clock
from agentspan.errors import StorageError
from agentspan.model.rows import (
    ROWS,
    AgentInstanceRow,
    AgentRow,
    AgentSpanRow,
    AgentVersionRow,
    Row,
    ScoreRow,
    TagRow,
    Value,
)
from agentspan.model.scores import age, counting
from agentspan.model.status import OPEN
from agentspan.schemas.meaning import returned_error
from agentspan.schemas.signatures import Signature, error_parts, passes_on, signature
from agentspan.storage.access import count, pages, scan
from agentspan.storage.answers import (
    BOUNDS_MS,
    FailureSum,
    FoundSpan,
    LatestScore,
    RunBrief,
    RunList,
    RunSum,
    RunSummary,
    RunTotals,
    SpanMark,
    SpanSum,
    Stat,
    StepUse,
    brief_of,
    bucket_of,
)
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    BriefsWhere,
    FailureSums,
    Find,
    LatestScores,
    NewestScores,
    Outlines,
    Question,
    RunFilter,
    RunSort,
    RunSums,
    RunsWhere,
    Search,
    SpanMarks,
    SpansOf,
    SpanStats,
    SpanSums,
    StepUses,
    Tags,
    contains_text,
    has_meta,
)
from agentspan.storage.text_search import Matcher, search_run


class Labels(NamedTuple):
    """The tags of a run, in alphabetical order, and its valid scores (see model.scores.counting)."""

    tags: list[str]
    scores: list[ScoreRow]


def labels_of(storage: Storage, instance_ids: Sequence[str]) -> dict[str, Labels]:
    """Return the tags and the valid scores of each of these runs. Scores of spans are left out."""
    found = {id: Labels(tags, []) for id, tags in storage.ask(Tags(instance_ids)).items()}
    for row in storage.ask(NewestScores(instance_ids)):
        if row.target_type == "agent_instance":
            found[row.target_id].scores.append(row)
    return found


def history(storage: Storage, instance_id: str) -> list[ScoreRow]:
    """Return all scores of a run and its spans, by time and id, including replaced and withdrawn scores."""
    return sorted(scan(storage, ScoreRow, {"agent_instance_id": instance_id}), key=age)


N = TypeVar("N", int, float)
T = TypeVar("T")
RAN = ("complete", "failed")
"""The statuses of spans that ran to an end."""
AT_ONCE = 100
"""Up to this number of runs, scores and tags are read run by run. For more runs, all rows of the storage are read."""


def outlines(storage: Storage, asked: Outlines) -> list[AgentSpanRow]:
    """Answer Outlines with whole spans of a run, which include their payloads."""
    spans = storage.ask(SpansOf(asked.instance_id))
    found = [span for span in spans if span.id > asked.after and span.updated_at >= (asked.since or "")]
    return found[: asked.limit]


def added_up(spans: Iterable[AgentSpanRow]) -> list[SpanSum]:
    """Return the counts and costs of one run's spans by status, type and label."""
    sums: dict[tuple[str, str, str | None], tuple[int, float | None]] = {}
    for span in spans:
        group = span.status, span.schema_name, span.label
        number, cost = sums.get(group, (0, None))
        if span.cost_usd is not None and not span.is_aggregate:
            cost = (cost or 0.0) + span.cost_usd
        sums[group] = number + 1, cost
    return [SpanSum(*group, *values) for group, values in sums.items()]


def summed(run_id: str, spans: Iterable[AgentSpanRow]) -> Iterator[RunSum]:
    """Yield the sums over the complete and failed spans of one run, by type and label."""
    groups: dict[tuple[str, str | None], list[AgentSpanRow]] = {}
    for span in spans:
        if span.status in RAN:
            groups.setdefault((span.schema_name, span.label or None), []).append(span)
    for (name, label), group in groups.items():
        yield RunSum(
            run_id,
            name,
            label,
            len(group),
            sum(span.status == "failed" or returned_error(span) for span in group),
            sum(span.duration_ms or 0.0 for span in group),
            _sum(span.input_tokens for span in group),
            _sum(span.output_tokens for span in group),
            _sum(span.cost_usd for span in group),
            any(span.is_aggregate for span in group),
        )


def _sum(values: Iterable[N | None]) -> N | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def marks_of(spans: Iterable[AgentSpanRow]) -> frozenset[SpanMark]:
    """Return a SpanMark for each status that spans of a run have."""
    found: dict[str, SpanMark] = {}
    for span in spans:
        _, number, latest, late = found.get(span.status, ("", 0, "", 0))
        late += span.ended_late is not None
        found[span.status] = SpanMark(span.status, number + 1, max(latest, span.updated_at), late)
    return frozenset(found.values())


def newest_scores(storage: Storage, asked: NewestScores) -> list[ScoreRow]:
    """Return the valid scores of runs and of their spans, by time and id."""
    return counting(cast(Iterable[ScoreRow], _rows_of(storage, ScoreRow, asked.instance_ids)))


def latest_scores(storage: Storage, asked: LatestScores) -> Mapping[str, LatestScore]:
    """Return the newest score of a name for each run that has one, by the run's id."""
    where: dict[str, Value] = {"name": asked.name, "target_type": "agent_instance"}
    where |= {} if asked.source is None else {"source": asked.source}
    return {row.target_id: LatestScore(row.value, row.label) for row in counting(scan(storage, ScoreRow, where))}


def tags(storage: Storage, asked: Tags) -> Mapping[str, list[str]]:
    """Return the tags of each run, in alphabetical order."""
    found: dict[str, list[str]] = {id: [] for id in asked.instance_ids}
    for row in cast(Iterable[TagRow], _rows_of(storage, TagRow, asked.instance_ids)):
        found[row.agent_instance_id].append(row.tag)
    return {id: sorted(tags) for id, tags in found.items()}


def _rows_of(
    storage: Storage, row_type: type[ScoreRow] | type[TagRow], instance_ids: Sequence[str]
) -> Iterable[ScoreRow | TagRow]:
    wanted = set(instance_ids)
    if len(wanted) > AT_ONCE:
        return (row for row in scan(storage, row_type) if row.agent_instance_id in wanted)
    return (row for id in wanted for row in scan(storage, row_type, {"agent_instance_id": id}))


def runs_where(storage: Storage, asked: RunsWhere) -> RunList:
    """Return a page of the runs that match the filter, and the sums over all runs that match."""
    end = None if asked.limit is None else asked.offset + asked.limit
    if asked.sort == "started":
        page: list[RunSummary] = []
        total, totals = 0, RunTotals()
        for run in _all_that_match(storage, asked.filter):
            if total >= asked.offset and (end is None or total < end):
                page.append(run)
            total, totals = total + 1, _plus(totals, run)
        return RunList(page, total, totals)
    found = sorted(_all_that_match(storage, asked.filter), key=_SORTED[asked.sort], reverse=True)
    return RunList(found[asked.offset : end], len(found), totals_of(found))


def briefs_where(storage: Storage, asked: BriefsWhere) -> list[RunBrief]:
    """Return all runs that match the filter, the latest first."""
    return [*map(brief_of, _all_that_match(storage, asked.filter))]


def _all_that_match(storage: Storage, filter: RunFilter) -> Iterator[RunSummary]:
    """Yield the runs that match the filter, the latest first. It reads every run of the storage with the status."""
    where: dict[str, Value] = {} if filter.status is None else {"status": filter.status}
    for rows in pages(storage, AgentInstanceRow, where, descending=True):
        for run in summaries_of(storage, rows):
            if matches(storage, run, filter):
                yield run


def _sortable(value: float | None) -> tuple[bool, float]:
    return value is not None, value or 0


def tokens_of(sums: RunSummary | RunTotals) -> int | None:
    """Return the sum of input and output tokens; None if both are None."""
    if sums.input_tokens is None and sums.output_tokens is None:
        return None
    return (sums.input_tokens or 0) + (sums.output_tokens or 0)


_SORTED: dict[RunSort, Callable[[RunSummary], tuple[object, ...]]] = {
    "started": lambda run: (run.run.id,),
    "duration": lambda run: (*_sortable(run.duration_ms), run.run.id),
    "cost": lambda run: (*_sortable(run.cost_usd), run.run.id),
    "tokens": lambda run: (*_sortable(tokens_of(run)), run.run.id),
    "spans": lambda run: (run.spans, run.run.id),
    "failed": lambda run: (run.failed, run.run.id),
}


class Name(NamedTuple):
    """The name of a run's agent, and the external_identifier of its agent version."""

    agent: str
    version: str


def names_of(storage: Storage, rows: Iterable[AgentInstanceRow]) -> dict[str, Name]:
    """Return the names of the agent and version of each run, by run id. A missing agent or version gives its id."""
    rows = list(rows)
    found = storage.ask(Find(*{id for row in rows for id in (row.agent_id, row.agent_version_id)})).rows
    names = {}
    for row in rows:
        agent, version = (found.get(id, ("", None))[1] for id in (row.agent_id, row.agent_version_id))
        names[row.id] = Name(
            agent.name if isinstance(agent, AgentRow) else row.agent_id,
            version.external_identifier if isinstance(version, AgentVersionRow) else row.agent_version_id,
        )
    return names


def summaries_of(storage: Storage, rows: Iterable[AgentInstanceRow]) -> Iterator[RunSummary]:
    """Yield a RunSummary for each of these runs, with sums over its spans. Spans are read one by one."""
    rows = list(rows)
    names = names_of(storage, rows)
    for run in rows:
        agent, version = names[run.id]
        yield RunSummary(run, agent, version, *_sums(storage, run.id), run.duration_ms)


def _sums(storage: Storage, run_id: str) -> tuple[int, int, int, int | None, int | None, float | None]:
    spans = failed = open_ = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    for span in storage.ask(SpansOf(run_id)):
        spans += 1
        failed += span.status == "failed"
        open_ += span.status in OPEN
        if not span.is_aggregate:
            input_tokens, output_tokens = _add(input_tokens, span.input_tokens), _add(output_tokens, span.output_tokens)
            cost = _add(cost, span.cost_usd)
    return spans, failed, open_, input_tokens, output_tokens, cost


def _add(sum_: N | None, value: N | None) -> N | None:
    return sum_ if value is None else value if sum_ is None else sum_ + value


def totals_of(runs: Iterable[RunSummary]) -> RunTotals:
    """Return the sums over several runs."""
    return reduce(_plus, runs, RunTotals())


def _plus(totals: RunTotals, run: RunSummary) -> RunTotals:
    return RunTotals(
        totals.spans + run.spans,
        totals.failed + run.failed,
        totals.open + run.open,
        _add(totals.input_tokens, run.input_tokens),
        _add(totals.output_tokens, run.output_tokens),
        _add(totals.cost_usd, run.cost_usd),
        _add(totals.duration_ms, run.duration_ms),
    )


def matches(storage: Storage, run: RunSummary, filter: RunFilter) -> bool:
    """Return whether a run matches a filter. Its spans are read only for `filter.error`, after all else matches."""
    return (
        _matches_itself(run.run, filter)
        and not (filter.failed and run.run.status != "failed" and not run.failed)
        and filter.version in (None, run.version)
        and (filter.agent is None or _is_agent(storage, run, filter.agent))
        and (filter.grep is None or contains_text(filter.grep, *_own_texts(run)))
        and (not filter.tags or {*filter.tags} <= {*storage.ask(Tags([run.run.id]))[run.run.id]})
        and (filter.error is None or _failed_of(storage, run, filter.error))
    )


def _matches_itself(row: AgentInstanceRow, filter: RunFilter) -> bool:
    """Return whether a run's row matches the conditions of a filter that need no other rows."""
    began = row.started_at or row.inserted_at
    commit = filter.git_commit
    return (
        filter.status in (None, row.status)
        and filter.session in (None, row.session)
        and filter.task in (None, row.task)
        and (filter.ids is None or row.id in filter.ids)
        and (filter.since is None or began >= filter.since)
        and (filter.until is None or began < filter.until)
        and (commit is None or (row.git_commit is not None and row.git_commit.startswith(commit.lower())))
        and (not filter.meta or has_meta(row.metadata, filter.meta))
    )


def _is_agent(storage: Storage, run: RunSummary, name: str) -> bool:
    if name in (run.agent, run.run.agent_id):
        return True
    agent = storage.ask(Find(run.run.agent_id)).rows.get(run.run.agent_id)
    return agent is not None and isinstance(agent[1], AgentRow) and agent[1].external_identifier == name


def _failed_of(storage: Storage, run: RunSummary, text: str) -> bool:
    """Return whether an error of the run, or of one of its failed spans, contains a text."""
    if contains_text(text, run.run.error, run.run.termination_reason):
        return True
    return bool(run.failed) and any(
        span.status == "failed" and contains_text(text, span.result_payload)
        for span in storage.ask(SpansOf(run.run.id))
    )


def _own_texts(run: RunSummary) -> Iterator[str | None]:
    row = run.run
    yield from (row.id, run.agent, run.version, row.external_identifier, row.metadata, row.result, row.error)
    yield row.termination_reason


def span_stats(storage: Storage, asked: SpanStats) -> list[Stat]:
    """Return statistics of the spans of all runs, or only of `asked.runs`, by type, and by type and label."""
    runs = (row.id for row in scan(storage, AgentInstanceRow)) if asked.runs is None else asked.runs
    spans = chain.from_iterable(storage.ask(SpansOf(run)) for run in runs)
    return of_spans(span for span in spans if _within(span, asked.since, asked.until))


def _within(span: AgentSpanRow, since: str | None, until: str | None) -> bool:
    at = span.started_at or span.inserted_at
    return (since is None or at >= since) and (until is None or at < until)


@dataclass(slots=True)
class _Group:
    counts: dict[str, int] = field(default_factory=dict)
    durations: list[float] = field(default_factory=list)
    given: int | None = None
    made: int | None = None
    cost: float | None = None
    is_aggregate: bool = False

    def add(self, span: AgentSpanRow) -> None:
        status = "failed" if span.status == "complete" and returned_error(span) else span.status
        self.counts[status] = self.counts.get(status, 0) + 1
        if span.status in ("complete", "failed"):
            self.durations.append(span.duration_ms or 0.0)
        if span.input_tokens is not None:
            self.given = (self.given or 0) + span.input_tokens
        if span.output_tokens is not None:
            self.made = (self.made or 0) + span.output_tokens
        if span.cost_usd is not None:
            self.cost = (self.cost or 0.0) + span.cost_usd
        if span.is_aggregate:
            self.is_aggregate = True


def of_spans(spans: Iterable[AgentSpanRow]) -> list[Stat]:
    """Return the statistics of these spans by type, and by type and label, in any order."""
    groups: dict[tuple[str, str | None], _Group] = {}
    for span in spans:
        groups.setdefault((span.schema_name, None), _Group()).add(span)
        if span.label:
            groups.setdefault((span.schema_name, span.label), _Group()).add(span)
    return [_stat(name, label, group) for (name, label), group in groups.items()]


def _stat(schema_name: str, label: str | None, group: _Group) -> Stat:
    durations = sorted(group.durations)
    histogram = [0] * (len(BOUNDS_MS) + 1)
    for duration in durations:
        histogram[bucket_of(duration)] += 1
    p50, p95, p99 = (durations[rank(len(durations), part)] if durations else None for part in (50, 95, 99))
    return Stat(
        schema_name,
        label,
        sum(group.counts.values()),
        group.counts.get("failed", 0),
        group.counts.get("cancelled", 0),
        sum(group.counts.get(status, 0) for status in OPEN),
        p50,
        p95,
        p99,
        durations[-1] if durations else None,
        sum(durations),
        tuple(histogram),
        group.given,
        group.made,
        group.cost,
        group.is_aggregate,
    )


def rank(count: int, percent: int) -> int:
    """Return the index, from zero, of a percentile in a sorted list of `count` values (nearest rank)."""
    return -(-count * percent // 100) - 1


def leaves(spans: Iterable[AgentSpanRow]) -> list[AgentSpanRow]:
    """Return the failed spans of a run, by id, without spans that only pass on a child's error.

    A complete span that returned an error as its result counts as failed.
    """
    failed = {span.id: span for span in spans if has_failed(span)}
    errors = {id: error_parts(span.result_payload) for id, span in failed.items()}
    passing = {
        span.parent_span_id
        for span in failed.values()
        if span.parent_span_id in failed and passes_on(errors[span.parent_span_id], errors[span.id])
    }
    return [failed[id] for id in sorted(failed) if id not in passing]


def uses_of(run_id: str, spans: Iterable[AgentSpanRow]) -> list[StepUse]:
    """Return the counts of a run's finished spans by type and label. Open spans are left out."""
    found: dict[tuple[str, str], StepUse] = {}
    reasons: dict[tuple[str, str], tuple[int, str]] = {}
    for span in spans:
        if span.status in OPEN:
            continue
        key = (span.schema_name, span.label or "")
        use = found.get(key) or StepUse(run_id, span.schema_name, span.label or None, 0, 0, 0, None)
        at = _micros(span.started_at or span.inserted_at)
        if span.finish_reason is not None:
            reasons[key] = max(reasons.get(key, (0, "")), (at, span.finish_reason))
        found[key] = use._replace(
            spans=use.spans + 1,
            failed=use.failed + has_failed(span),
            last_at=max(use.last_at, at),
            reason=reasons[key][1] if key in reasons else None,
        )
    return list(found.values())


def failures_of(run_id: str, spans: Iterable[AgentSpanRow]) -> Iterator[FailureSum]:
    """Yield the sums over the failed spans of a run, grouped by signature."""
    groups: dict[Signature, list[AgentSpanRow]] = {}
    for span in leaves(spans):
        groups.setdefault(signature(span), []).append(span)
    for found, failed in groups.items():
        times = [span.started_at or span.inserted_at for span in failed]
        yield FailureSum(run_id, found, len(failed), min(times), max(times), max(span.id for span in failed))


def has_failed(span: AgentSpanRow) -> bool:
    """Return whether a span failed, or is complete and returned an error as its result."""
    return span.status == "failed" or (span.status == "complete" and returned_error(span))


def _micros(text: str) -> int:
    at = clock.to_datetime(text)
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def search(storage: Storage, asked: Search) -> tuple[list[FoundSpan], int]:
    """Return a page of the spans whose new parts contain all terms, the latest first, and the number of all such spans.

    Only the spans up to the end of the page, and those of one more run, are in memory.
    """
    latest: list[FoundSpan] = []
    total, most = 0, asked.offset + asked.limit
    for found, number in _found_by_run(storage, asked, most):
        total += number
        if found:
            latest = heapq.nlargest(most, chain(latest, found), key=lambda one: one.span.id)
    return latest[asked.offset :], total


def _found_by_run(storage: Storage, asked: Search, most: int) -> Iterator[tuple[list[FoundSpan], int]]:
    """Read every span; yield for each run its latest matching spans, and the number of all its matching spans."""
    matcher, ids, progress = Matcher(asked.words), asked.runs, asked.progress
    runs = len(ids) if ids is not None else 1 if progress is None else count(storage, "agent_instance")
    every = ids if ids is not None else (row.id for row in scan(storage, AgentInstanceRow))
    for done, run_id in enumerate(every, start=1):
        yield search_run(storage.ask(SpansOf(run_id)), matcher, most)
        if progress is not None:
            progress(done, max(done, runs))


def _of_each(
    read: Callable[[str, Iterable[AgentSpanRow]], Iterable[T]], storage: Storage, run_ids: Iterable[str]
) -> list[T]:
    return [each for run_id in run_ids for each in read(run_id, storage.ask(SpansOf(run_id)))]


def answer(storage: Storage, question: Question[T]) -> T:
    """Compute the answer to a question from the answers to BASIC questions, for a storage that lacks its own answer.

    Raises:
        StorageError: the question cannot be answered from BASIC questions.
    """
    read = ANSWERS.get(type(question))
    if read is None:
        backend = storage.capabilities().backend
        raise StorageError(f"the storage {backend!r} has no answer to {type(question).__name__}")
    return cast(T, read(storage, question))


ANSWERS: Mapping[type[Question[Any]], Callable[[Storage, Any], Any]] = {
    Outlines: outlines,
    SpanSums: lambda storage, asked: added_up(storage.ask(SpansOf(asked.instance_id))),
    NewestScores: newest_scores,
    LatestScores: latest_scores,
    Tags: tags,
    RunsWhere: runs_where,
    BriefsWhere: briefs_where,
    SpanStats: span_stats,
    RunSums: lambda storage, asked: _of_each(summed, storage, dict.fromkeys(asked.runs)),
    Search: search,
    FailureSums: lambda storage, asked: _of_each(failures_of, storage, asked.run_ids),
    StepUses: lambda storage, asked: _of_each(uses_of, storage, asked.run_ids),
    SpanMarks: lambda storage, asked: {run: marks_of(storage.ask(SpansOf(run))) for run in asked.instance_ids},
}
"""Type of a question → function that computes its answer."""


R = TypeVar("R", bound=Row)


_NOUNS: dict[type, str] = {row: type_.replace("_", " ") for type_, row in ROWS.items()}


CANCELLED = -1
"""The number of the bucket for cancelled spans, which have no duration."""


class SpanGroup:
    """The sums over the spans of one type, or of one label of a type: finished spans by bucket, and open spans.

    Attributes:
        ids: the ids of the groups of the index that were added.
        ran: bucket → number of complete and failed spans in it. A higher number means longer durations.
    """

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.ran: dict[int, int] = {}
        self.count = self.failed = self.cancelled = self.open = 0
        self.total = 0.0
        self.longest: float | None = None
        self.used: list[Any] = [None, None, None]
        self.is_aggregate = False

    def add_cell(self, id: int, bucket: int, spans: int, failed: int, ms: float, longest: float) -> None:
        """Add the finished spans of one bucket of a group of the index."""
        self.ids.add(id)
        self.count += spans
        if bucket == CANCELLED:
            self.cancelled += spans
            return
        self.ran[bucket] = self.ran.get(bucket, 0) + spans
        self.failed += failed
        self.total += ms
        self.longest = longest if self.longest is None else max(self.longest, longest)

    def add_sums(self, id: int, spans: int, cancelled: int, failed: int, ms: float, ran: dict[int, int]) -> None:
        """Add the finished spans of a group of the index. `longest` stays unknown: `percentile(100)` determines it."""
        self.ids.add(id)
        self.count += spans + cancelled
        self.cancelled += cancelled
        self.failed += failed
        self.total += ms
        for bucket, number in ran.items():
            if number:
                self.ran[bucket] = self.ran.get(bucket, 0) + number

    def add_open(self, spans: int) -> None:
        """Add a number of open spans."""
        self.count += spans
        self.open += spans

    def add_used(self, used: Sequence[Any]) -> None:
        """Add input tokens, output tokens and cost. None means that no span has a value."""
        self.used = [b if a is None else a if b is None else a + b for a, b in zip(self.used, used, strict=True)]

    def place(self, percent: int) -> tuple[int, int] | None:
        """Return the bucket that contains a percentile, and its place in the bucket from zero; None without spans.

        The percentile is of the kind "nearest rank".
        """
        place = -(-sum(self.ran.values()) * percent // 100) - 1
        for bucket in sorted(self.ran):
            if place < self.ran[bucket]:
                return bucket, place
            place -= self.ran[bucket]
        return None

    def stat(
        self, schema_name: str, label: str | None, percentile: Callable[[int], float | None], histogram: tuple[int, ...]
    ) -> Stat:
        """Return the statistics of the group.

        Args:
            percentile: returns the duration at a percentile, in ms; None if no span ran.
            histogram: the number of spans in each bucket of BOUNDS_MS.
        """
        input_tokens, output_tokens, cost_usd = self.used
        return Stat(
            schema_name,
            label,
            self.count,
            self.failed,
            self.cancelled,
            self.open,
            percentile(50),
            percentile(95),
            percentile(99),
            self.longest if self.longest is not None else percentile(100),
            self.total,
            histogram,
            input_tokens,
            output_tokens,
            cost_usd,
            self.is_aggregate,
        )


Groups = dict[tuple[str, str | None], SpanGroup]
"""Groups by (name of the type, label). The label None means the type as a whole."""


def groups_of(groups: Groups, schema_name: str, label: str | None) -> list[SpanGroup]:
    """Return the group of a type and, if the label is not empty, the group of the label. Missing groups are added."""
    keys = [(schema_name, None), (schema_name, label)] if label else [(schema_name, None)]
    return [groups.setdefault(key, SpanGroup()) for key in keys]
