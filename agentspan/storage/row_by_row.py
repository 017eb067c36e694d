"""Answers to questions for a storage that lacks its own: computed in Python from all spans of a run or rows of a type.

These answers define the correct answers: the tests compare storages that have an index with them.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar, cast

from agentspan import clock, jsontext
from agentspan.errors import StorageError
from agentspan.model.changes import OPEN
from agentspan.model.rows import (
    AgentInstanceRow,
    AgentRow,
    AgentSpanRow,
    AgentVersionRow,
    ScoreRow,
    TagRow,
    Value,
)
from agentspan.model.scores import age, counting
from agentspan.schemas import failing
from agentspan.schemas.aliases import count as tokens_in
from agentspan.schemas.file_paths import normal, touches
from agentspan.schemas.signatures import Signature, error_parts, passes_on, signature
from agentspan.storage.access import count, pages, scan
from agentspan.storage.answers import LatestScore, SpanMark, SpanSum
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    BriefsWhere,
    CachedCalls,
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
    SpansWith,
    StepUses,
    Tags,
    TimedSums,
    Touched,
    Used,
    contains_text,
    has_meta,
)
from agentspan.storage.sums import (
    BOUNDS_MS,
    QUARTER,
    CachedCall,
    FailureSum,
    FoundSpan,
    RunBrief,
    RunList,
    RunSum,
    RunSummary,
    RunTotals,
    Stat,
    StepUse,
    TimedSum,
    brief_of,
    bucket_of,
    plus,
    rank,
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
        sums[group] = plus(sums.get(group, (0, None)), (1, None if span.is_aggregate else span.cost_usd))
    return [SpanSum(*group, *values) for group, values in sums.items()]


def summed(run_id: str, spans: Iterable[AgentSpanRow]) -> Iterator[RunSum]:
    """Yield the sums over the complete and failed spans of one run, by type and label."""
    groups: dict[tuple[str, str | None], _Group] = {}
    for span in spans:
        if span.status in RAN:
            groups.setdefault((span.schema_name, span.label or None), _Group()).add(span)
    for (name, label), group in groups.items():
        ran, failed = group.durations, group.counts["failed"]
        yield RunSum(run_id, name, label, len(ran), failed, sum(ran), *group.used, group.is_aggregate)


def timed(run_id: str, spans: Iterable[AgentSpanRow]) -> list[TimedSum]:
    """Return the tokens and costs of one run's spans by type, label and quarter of an hour."""
    groups: dict[tuple[str, str | None, int, bool], tuple[int, int | None, int | None, float | None]] = {}
    for span in spans:
        if not span.is_aggregate:
            group = span.schema_name, span.label or None, quarter_of(span), span.status in RAN
            used = 1, span.input_tokens, span.output_tokens, span.cost_usd
            groups[group] = plus(groups.get(group, (0, None, None, None)), used)
    return [TimedSum(run_id, *group, *used) for group, used in groups.items()]


def quarter_of(span: AgentSpanRow) -> int:
    """Return the quarter of an hour in which a span began (see sums.TimedSum), as SQL divides: towards zero."""
    return int(_micros(span.started_at or span.inserted_at) / QUARTER)


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


def touched(storage: Storage, asked: Touched) -> frozenset[str]:
    """Return the ids of the runs in which a call of a tool names a path."""
    path = normal(asked.path)
    return frozenset(
        run.id
        for run in scan(storage, AgentInstanceRow)
        if any(touches(span.schema_name, span.payload, path) for span in storage.ask(SpansOf(run.id)))
    )


def used(storage: Storage, asked: Used) -> frozenset[str]:
    """Return the ids of the runs with a span of the asked types and label."""
    return frozenset(
        run.id
        for run in scan(storage, AgentInstanceRow)
        if any(asked.includes(span.schema_name, span.label) for span in storage.ask(SpansOf(run.id)))
    )


CACHE_FIELDS = ("cached_tokens", "cache_write_tokens")
"""The members of a result that count tokens of a cache. A call whose result has neither used none."""


def cached_call(
    run_id: str,
    schema_name: str,
    label: str | None,
    quarter: int,
    input_tokens: int | None,
    payload: str | None,
    result: str,
) -> CachedCall | None:
    """Return the use of a cache by a call; None if its result has no tokens of one.

    Args:
        payload, result: JSON texts, or their beginnings as they are stored: only plain members at the top are read.
    """
    found = jsontext.decode(result)
    if type(found) is not dict:
        return None
    read, written = (max(0, tokens_in(found.get(name)) or 0) for name in CACHE_FIELDS)
    if not read and not written:
        return None
    sent = jsontext.value_of(payload)
    both = {**sent, **found} if type(sent) is dict else found
    model, provider = (name if type(name := both.get(key)) is str else None for key in ("response_model", "provider"))
    hour = min(written, max(0, tokens_in(found.get("cache_write_1h_tokens")) or 0))
    used = model, provider, input_tokens or 0, read, written, hour
    return CachedCall(run_id, schema_name, label or None, quarter, *used)


def cached_calls(storage: Storage, asked: CachedCalls) -> list[CachedCall]:
    """Return the calls of models that used a cache."""
    runs = [row.id for row in scan(storage, AgentInstanceRow)] if asked.runs is None else dict.fromkeys(asked.runs)
    return [
        found
        for run in runs
        for span in storage.ask(SpansOf(run))
        if span.result_payload is not None and not span.is_aggregate
        if any(f'"{name}"' in span.result_payload for name in CACHE_FIELDS)
        if (
            found := cached_call(
                run,
                span.schema_name,
                span.label,
                quarter_of(span),
                span.input_tokens,
                span.payload,
                span.result_payload,
            )
        )
    ]


def runs_where(storage: Storage, asked: RunsWhere) -> RunList:
    """Return a page of the runs that match the filter, and the sums over all runs that match."""
    end = None if asked.limit is None else asked.offset + asked.limit
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


def tokens_of(sums: RunSummary | RunBrief | RunTotals | RunSum | Stat) -> int | None:
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


def _sums(storage: Storage, run_id: str) -> tuple[Any, Any, Any, Any, Any, Any]:
    sums: tuple[Any, Any, Any, Any, Any, Any] = (0, 0, 0, None, None, None)
    for span in storage.ask(SpansOf(run_id)):
        used = (None,) * 3 if span.is_aggregate else (span.input_tokens, span.output_tokens, span.cost_usd)
        sums = plus(sums, (1, has_failed(span), span.status in OPEN, *used))
    return sums


def totals_of(runs: Iterable[RunSummary]) -> RunTotals:
    """Return the sums over several runs."""
    sums: tuple[Any, ...] = RunTotals()
    for run in runs:
        sums = plus(sums, run[-len(sums) :])  # the last fields of a RunSummary are those of RunTotals
    return RunTotals(*sums)


def matches(storage: Storage, run: RunSummary, filter: RunFilter) -> bool:
    """Return whether a run matches a filter. Its spans are read only for `filter.error`, after all else matches."""
    row = run.run
    texts = row.id, run.agent, run.version, row.external_identifier, row.metadata, row.result, row.error
    return (
        _matches_itself(row, filter)
        and not (filter.failed and run.run.status != "failed" and not run.failed)
        and filter.version in (None, run.version)
        and (filter.agent is None or _is_agent(storage, run, filter.agent))
        and (filter.grep is None or contains_text(filter.grep, *texts, row.termination_reason))
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
        and filter.purpose in (None, row.purpose)
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
        has_failed(span) and contains_text(text, span.result_payload) for span in storage.ask(SpansOf(run.run.id))
    )


def span_stats(storage: Storage, asked: SpanStats) -> list[Stat]:
    """Return statistics of the spans of all runs, or only of `asked.runs`, by type, and by type and label."""
    runs = (row.id for row in scan(storage, AgentInstanceRow)) if asked.runs is None else asked.runs
    spans = chain.from_iterable(storage.ask(SpansOf(run)) for run in runs)
    return of_spans(spans, asked.since, asked.until)


def _within(span: AgentSpanRow, since: str | None, until: str | None) -> bool:
    at = span.started_at or span.inserted_at
    return (since is None or at >= since) and (until is None or at < until)


class _Group:
    """The spans of a type, or of one label. It is no SpanGroup, because tests compare a SpanGroup with it."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.durations: list[float] = []
        self.used: tuple[Any, Any, Any] = (None, None, None)
        self.is_aggregate = False

    def add(self, span: AgentSpanRow) -> None:
        self.counts["failed" if has_failed(span) else span.status] += 1
        if span.status in RAN:
            self.durations.append(span.duration_ms or 0.0)
        self.used = plus(self.used, (span.input_tokens, span.output_tokens, span.cost_usd))
        self.is_aggregate = self.is_aggregate or bool(span.is_aggregate)


def of_spans(spans: Iterable[AgentSpanRow], since: str | None = None, until: str | None = None) -> list[Stat]:
    """Return the statistics of those of these spans that began in a range of times, in any order (see SpanStats)."""
    groups: defaultdict[tuple[str, str | None], _Group] = defaultdict(_Group)
    for span in spans:
        if _within(span, since, until):
            groups[span.schema_name, None].add(span)
            if span.label:
                groups[span.schema_name, span.label].add(span)
    return [_stat(name, label, group) for (name, label), group in groups.items()]


def _stat(schema_name: str, label: str | None, group: _Group) -> Stat:
    durations, counts = sorted(group.durations), group.counts
    numbers = counts.total(), counts["failed"], counts["cancelled"], sum(counts[status] for status in OPEN)
    places = (rank(len(durations), percent) for percent in (50, 95, 99, 100))
    p50, p95, p99, longest = (durations[place] if durations else None for place in places)
    total = sum(durations)
    in_bucket = Counter(map(bucket_of, durations))
    histogram = tuple(in_bucket[bucket] for bucket in range(len(BOUNDS_MS) + 1))
    return Stat(schema_name, label, *numbers, p50, p95, p99, longest, total, histogram, *group.used, group.is_aggregate)


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
    groups: dict[tuple[str, str | None], list[tuple[int, str | None, bool]]] = {}
    for span in spans:
        if span.status not in OPEN:
            facts = _micros(span.started_at or span.inserted_at), span.finish_reason, has_failed(span)
            groups.setdefault((span.schema_name, span.label or None), []).append(facts)
    found = []
    for group, uses in groups.items():
        _, reason = max(((at, reason) for at, reason, _ in uses if reason is not None), default=(0, None))
        last_at, failed = max(at for at, _, _ in uses), sum(failed for _, _, failed in uses)
        found.append(StepUse(run_id, *group, len(uses), failed, last_at, reason))
    return found


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
    return failing.failed(span.status, span.result_payload)


def _micros(text: str) -> int:
    at = clock.to_datetime(text)
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def search(storage: Storage, asked: Search) -> tuple[list[FoundSpan], int]:
    """Return a page of the spans whose new parts contain all terms, the latest first, and the number of all such spans.

    Only the spans up to the end of the page, and those of one more run, are in memory.
    """
    matcher, ids, progress, most = Matcher(asked.words), asked.runs, asked.progress, asked.offset + asked.limit
    runs = len(ids) if ids is not None else 1 if progress is None else count(storage, "agent_instance")
    every = ids if ids is not None else (row.id for row in scan(storage, AgentInstanceRow))
    latest: list[FoundSpan] = []
    total = 0
    for done, run_id in enumerate(every, start=1):
        found, number = search_run(storage.ask(SpansOf(run_id)), matcher, most)
        total += number
        if found:
            latest = heapq.nlargest(most, chain(latest, found), key=lambda one: one.span.id)
        if progress is not None:
            progress(done, max(done, runs))
    return latest[asked.offset :], total


def spans_with(storage: Storage, asked: SpansWith) -> list[str]:
    """Return the ids of the spans of a run that contain all terms."""
    matcher = Matcher(asked.words)
    return [span.id for span in storage.ask(SpansOf(asked.instance_id)) if matcher.matches(span)]


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
    Touched: touched,
    Used: used,
    CachedCalls: cached_calls,
    RunsWhere: runs_where,
    BriefsWhere: briefs_where,
    SpanStats: span_stats,
    RunSums: lambda storage, asked: _of_each(summed, storage, dict.fromkeys(asked.runs)),
    TimedSums: lambda storage, asked: _of_each(timed, storage, dict.fromkeys(asked.runs)),
    Search: search,
    SpansWith: spans_with,
    FailureSums: lambda storage, asked: _of_each(failures_of, storage, asked.run_ids),
    StepUses: lambda storage, asked: _of_each(uses_of, storage, asked.run_ids),
    SpanMarks: lambda storage, asked: {run: marks_of(storage.ask(SpansOf(run))) for run in asked.instance_ids},
}
"""Type of a question → function that computes its answer."""
