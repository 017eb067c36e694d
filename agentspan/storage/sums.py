"""The types of the answers about many runs and spans, and of tasks (see storage.questions): plain values.

They have a module of their own, because a program that only records needs none of them. At the end: how an index that
has counts by bucket of duration adds up the statistics of a span type or label.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, cast, get_args

from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.signatures import Signature


class Answer(NamedTuple):
    """The columns and rows that a user's SELECT returned (see questions.Select)."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


Progress = Callable[[int, int], None]
"""A function that is called with the amount done and the total amount."""


BOUNDS_MS: tuple[float, ...] = tuple(digit * 10.0**power for power in range(-1, 7) for digit in (1, 2, 5))
"""The lower bounds of the buckets of a duration histogram, in milliseconds: 0.1, 0.2, 0.5, 1, 2, 5 … up to 5,000,000.

Shorter durations have a bucket of their own, so there is one bucket more than there are bounds.
"""


def bucket_of(duration_ms: float) -> int:
    """Return the number of a duration's bucket: 0 below the first of BOUNDS_MS."""
    return bisect_right(BOUNDS_MS, duration_ms)


class RunSummary(NamedTuple):
    """A run and the sums over its spans.

    Attributes:
        run: the row of the run in the table `agent_instances`.
        agent: the agent's name.
        version: the external_identifier of the agent's version; `default` for a run recorded without a version.
        spans: the number of spans.
        failed: the number of spans that failed, or are complete and have `is_error` as true in their result.
        open: the number of pending or active spans.
        input_tokens, output_tokens, cost_usd: sums without aggregates (`is_aggregate`); None if no span has a value.
        duration_ms: the duration of the run; None while it is open.
    """

    run: AgentInstanceRow
    agent: str
    version: str
    spans: int
    failed: int
    open: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    duration_ms: float | None


class RunBrief(NamedTuple):
    """The values of a run that comparisons of many runs need. Reading it costs a third of reading a RunSummary.

    Attributes:
        agent, version, spans, failed, input_tokens, output_tokens: as in RunSummary.
        began: the run's started_at, else its inserted_at, as stored text.
        error: the run's error as stored JSON; errors of its spans are not included.
    """

    id: str
    agent_id: str
    agent: str
    version: str
    status: str
    task: str | None
    began: str
    error: str | None
    spans: int
    failed: int
    input_tokens: int | None
    output_tokens: int | None


def brief_of(summary: RunSummary) -> RunBrief:
    """Return the brief form of a summary."""
    run = summary.run
    began = run.started_at or run.inserted_at
    names = run.id, run.agent_id, summary.agent, summary.version
    sums = summary.spans, summary.failed, summary.input_tokens, summary.output_tokens
    return RunBrief(*names, run.status, run.task, began, run.error, *sums)


class RunTotals(NamedTuple):
    """Sums over several runs. The fields mean the same as in RunSummary."""

    spans: int = 0
    failed: int = 0
    open: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    duration_ms: float | None = None


class RunList(NamedTuple):
    """A page of runs, the number of all matching runs, and the sums over all matching runs."""

    runs: list[RunSummary]
    total: int
    totals: RunTotals


@dataclass(frozen=True, slots=True)
class Stat:
    """Statistics of the spans of one type, or of one label of a type.

    Attributes:
        schema_name: the span type.
        label: the model, the tool …; None for the type as a whole.
        count: the number of spans of any status.
        failed, cancelled, open: the numbers of failed, cancelled and open spans. A complete span whose result has
            `is_error` as true counts as failed.
        p50_ms, p95_ms, p99_ms: percentiles of the durations of the complete and failed spans (nearest rank); None if
            there are no such spans.
        max_ms, total_ms: the longest duration, and the sum of the durations, of the complete and failed spans.
        histogram: the number of complete and failed spans by duration: below 0.1 ms, from 0.1, 0.2, 0.5, 1, 2, 5 …;
            the bounds are `agentspan.storage.answers.BOUNDS_MS`.
        input_tokens, output_tokens, cost_usd: sums; None if no span has a value.
        is_aggregate: whether these spans sum up others. Leave such types out when you add up several types.
    """

    schema_name: str
    label: str | None
    count: int
    failed: int
    cancelled: int
    open: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    total_ms: float
    histogram: tuple[int, ...]
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    is_aggregate: bool

    @property
    def ran(self) -> int:
        """The number of complete and failed spans."""
        return self.count - self.cancelled - self.open

    @property
    def error_rate(self) -> float | None:
        """The number of failed spans divided by `ran`, from 0 to 1; None if `ran` is 0."""
        return self.failed / self.ran if self.ran else None


class RunSum(NamedTuple):
    """The sums over the complete and failed spans of a run with the same type and label.

    Attributes:
        label: the label; None for spans without one.
        failed: the number of spans that failed or returned an error.
        total_ms: the sum of their durations.
        input_tokens, output_tokens, cost_usd: sums; None if no span has a value.
        is_aggregate: whether spans of the type sum up others.
    """

    run_id: str
    schema_name: str
    label: str | None
    spans: int
    failed: int
    total_ms: float
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    is_aggregate: bool


QUARTER = 900_000_000
"""The microseconds of a quarter of an hour: days of all zones begin with one."""


class TimedSum(NamedTuple):
    """The sums over the spans of a run with the same type and label that began in the same quarter of an hour.

    Attributes:
        quarter: the number of the quarter of an hour, from that with which 1970 began.
        ran: whether the spans are complete or failed; else cancelled or open.
        spans: the number of spans.
        input_tokens, output_tokens, cost_usd: sums; None if no span has a value.
    """

    run_id: str
    schema_name: str
    label: str | None
    quarter: int
    ran: bool
    spans: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None


class FoundSpan(NamedTuple):
    """A span that a search found, without the parts that earlier spans of the run contain (see text_search).

    Attributes:
        repeats: how many other spans repeat the part that was found; for several parts, the largest number.
    """

    span: AgentSpanRow
    repeats: int


class FailureSum(NamedTuple):
    """The sums over the failed spans of a run that share a signature, the stable name of a group of equal failures.

    A span that failed only because a child of it failed is not counted. A complete span whose result has `is_error`
    as true counts as failed.

    Attributes:
        spans: the number of spans.
        first_at, last_at: the earliest and the latest started_at (else inserted_at), as stored text.
        span_id: the greatest id of these spans.
    """

    run_id: str
    signature: Signature
    spans: int
    first_at: str
    last_at: str
    span_id: str


class StepUse(NamedTuple):
    """A run's use of a span type with a label (such as one model or tool): the counts of its finished spans.

    Attributes:
        label: the label; None for spans without one.
        spans: the number of spans.
        failed: the number of spans that failed or returned an error.
        last_at: the latest started_at (else inserted_at), in microseconds since 1970.
        reason: the `finish_reason` of the latest span that has one: why the model stopped.
    """

    run_id: str
    schema_name: str
    label: str | None
    spans: int
    failed: int
    last_at: int
    reason: str | None


class CachedCall(NamedTuple):
    """The tokens of a model call whose price the cache of its provider has changed.

    Attributes:
        label: the label of the span: the model that was asked.
        quarter: the quarter of an hour in which it began, as in TimedSum.
        model: the model that answered (`response_model`), if it is known.
        provider: the provider in the payload, if it is known.
        input_tokens: as recorded: with or without those of the cache.
        read, written, written_1h: the tokens that were read from the cache, and written to it; of those written, how
            many for an hour.
    """

    run_id: str
    schema_name: str
    label: str | None
    quarter: int
    model: str | None
    provider: str | None
    input_tokens: int
    read: int
    written: int
    written_1h: int


class Changed(NamedTuple):
    """The spans that were committed since a cursor.

    Attributes:
        rows: the spans by id, without most of their payloads (see questions.Outlines).
        cursor: the cursor for the next read. Every span that this answer lacks will be committed after it.
        stalled_s: for at least how many seconds an open transaction has kept the cursor from advancing; 0.0 if it
            advanced. Until that transaction ends, each answer repeats everything that was committed meanwhile.
    """

    rows: list[AgentSpanRow]
    cursor: str
    stalled_s: float


Width = Literal["day", "week", "month"]


WIDTHS: tuple[Width, ...] = get_args(Width)


MOST_LATE = 100_000
"""The limit up to which the spans that the index lacks are counted."""


class Partition(NamedTuple):
    """A partition of the finished spans.

    Attributes:
        name: the name of its table.
        start, end: the range of the times in the ids of its runs, as stored text: from `start` on, before `end`. None
            means no bound; both are None for the default partition.
        is_default: whether it is the default partition, with the spans that belong to no other partition.
        rows: the number of spans, estimated by the storage; exact for the default partition; None without an estimate.
        bytes: the size of its table and indexes.
    """

    name: str
    start: str | None
    end: str | None
    is_default: bool
    rows: int | None
    bytes: int


class State(NamedTuple):
    """The state of a storage's tables and index.

    Attributes:
        version: the version of the tables.
        late: name of a part of the index that was filled → number of finished spans that it lacks, MOST_LATE at most.
    """

    version: int
    late: Mapping[str, int]


class Made(NamedTuple):
    """The partitions that were created.

    Attributes:
        names: the names of their tables, by time.
        moved: the number of spans that were moved out of the default partition.
    """

    names: Sequence[str] = ()
    moved: int = 0


class Dropped(NamedTuple):
    """The numbers of removed partitions, runs and spans.

    Attributes:
        partitions: the number of partitions.
        runs, spans: the numbers of their runs and spans. For a partition of more than 10,000,000 spans, both are
            estimates of the storage.
    """

    partitions: int = 0
    runs: int = 0
    spans: int = 0


def rank(count: int, percent: int) -> int:
    """Return the index, from zero, of a percentile in a sorted list of `count` values (nearest rank)."""
    return -(-count * percent // 100) - 1


Sums = TypeVar("Sums", bound=tuple[Any, ...])


def plus(sums: Sums, values: Iterable[Any]) -> Sums:
    """Return sums to which values are added, one by one. None means that no span has a value."""
    both = zip(sums, values, strict=True)
    return cast(Sums, tuple([b if a is None else a if b is None else a + b for a, b in both]))


CANCELLED = -1
"""The number of the bucket for cancelled spans, which have no duration."""


class SpanGroup:
    """The sums over the spans of one type, or of one label of a type: finished spans by bucket, and open spans.

    Attributes:
        ids: the ids of the groups of the index that were added.
        ran: bucket → number of complete and failed spans in it. Spans of a higher bucket took longer.
    """

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.ran: dict[int, int] = {}
        self.count = self.failed = self.cancelled = self.open = 0
        self.total = 0.0
        self.longest: float | None = None
        self.used: tuple[Any, Any, Any] = (None, None, None)
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
        self.used = plus(self.used, used)

    def place(self, percent: int) -> tuple[int, int] | None:
        """Return the bucket that contains a percentile, and its place in the bucket from zero; None without spans.

        The percentile is of the kind "nearest rank".
        """
        place = rank(sum(self.ran.values()), percent)
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
        numbers = self.count, self.failed, self.cancelled, self.open
        p50, p95, p99 = (percentile(percent) for percent in (50, 95, 99))
        longest = self.longest if self.longest is not None else percentile(100)
        return Stat(
            schema_name, label, *numbers, p50, p95, p99, longest, self.total, histogram, *self.used, self.is_aggregate
        )


Groups = dict[tuple[str, str | None], SpanGroup]
"""Groups by (name of the type, label). The label None means the type as a whole."""


def groups_of(groups: Groups, schema_name: str, label: str | None) -> list[SpanGroup]:
    """Return the group of a type and, if the label is not empty, the group of the label. Missing groups are added."""
    keys = [(schema_name, None), (schema_name, label)] if label else [(schema_name, None)]
    return [groups.setdefault(key, SpanGroup()) for key in keys]
