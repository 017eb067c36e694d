"""The answers of storages to questions (see storage.questions): values, without any way back to the storage."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ResourceType, Row
from agentspan.model.status import FINISH_STATUSES
from agentspan.schemas.signatures import Signature


class StoredKey(NamedTuple):
    """An idempotency key that was used, and the id of the resource that its request was about."""

    request_hash: str
    subject: str


class Found(NamedTuple):
    """Rows by id, from one snapshot; ids that name nothing are absent."""

    rows: Mapping[str, tuple[ResourceType, Row]]
    key: StoredKey | None = None
    terminated: Mapping[str, str] = {}


class Rows(NamedTuple):
    """A page of a query; `total`, None unless the query asks for it, is how many rows there are in all."""

    rows: list[Row]
    total: int | None = None

    def counted(self) -> int:
        """Return `total` of a query that requested it."""
        assert self.total is not None
        return self.total


class CutRows(Rows):
    """The first rows of a page (see Query.most_bytes).

    Attributes:
        rest: the ids of the page's other rows, which were not read; none if the last row was the one too many.
    """

    rest: Sequence[str]


def with_rest(page: Rows, rest: Sequence[str]) -> Rows:
    """Return a page as a cut one, with the ids of its rows that were not read."""
    cut = CutRows(*page)
    cut.rest = rest
    return cut


class SpanCounts(NamedTuple):
    """The number of an instance's spans in each status."""

    total: int = 0
    pending: int = 0
    active: int = 0
    complete: int = 0
    failed: int = 0
    cancelled: int = 0
    finished: int = 0


def span_counts(by_status: Mapping[str, int]) -> SpanCounts:
    """Add up the counts of each status; finished are the complete, failed and cancelled ones."""
    finished = sum(by_status.get(status, 0) for status in FINISH_STATUSES)
    return SpanCounts(sum(by_status.values()), finished=finished, **by_status)


class SpanSum(NamedTuple):
    """The spans of a run with the same status, type and label.

    Attributes:
        spans: how many there are.
        cost_usd: what they cost, in US dollars; None if none of them has a cost. Spans that sum up others are left out.
    """

    status: str
    schema_name: str
    label: str | None
    spans: int
    cost_usd: float | None


class Answer(NamedTuple):
    """The rows that a SELECT returned."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


Progress = Callable[[int, int], None]
"""Called with how much is done, and of how much."""


BOUNDS_MS: tuple[float, ...] = tuple(digit * 10.0**power for power in range(-1, 7) for digit in (1, 2, 5))
"""The lower bounds of the buckets of a duration histogram, in milliseconds: 0.1, 0.2, 0.5, 1, 2, 5 … up to 5,000,000.

There is one bucket more than bounds, for shorter durations.
"""


def bucket_of(duration_ms: float) -> int:
    """Return the number of a duration's bucket: 0 below the first of BOUNDS_MS."""
    return bisect_right(BOUNDS_MS, duration_ms)


class RunSummary(NamedTuple):
    """A run, and the sums over its spans; None if no span has a value.

    Attributes:
        agent: the agent's name.
        version: the agent's version, `default` when none was given.
        spans: how many there are.
        failed: how many of them failed.
        open: how many of them are pending or active.
        input_tokens, output_tokens, cost_usd: spans that sum up others (`is_aggregate`) left out.
        duration_ms: of the run; None while it is open.
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
    """A run as far as comparisons of many runs need it: a third of what a summary costs to read.

    Attributes:
        agent, version, spans, failed, input_tokens, output_tokens: as in RunSummary.
        began: started_at, else inserted_at, as stored text.
        error: the run's own, as stored.
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
    """Sums over runs, as in RunSummary."""

    spans: int = 0
    failed: int = 0
    open: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    duration_ms: float | None = None


class RunList(NamedTuple):
    """A page of runs, the latest first unless sorted; how many match in all; and the sums over all of those."""

    runs: list[RunSummary]
    total: int
    totals: RunTotals


@dataclass(frozen=True, slots=True)
class Stat:
    """Statistics of the spans of one type, or of one label of a type.

    Attributes:
        schema_name: the span type.
        label: the model, the tool …; None for the type as a whole.
        count: all spans, whatever their status.
        failed, cancelled, open: how many of them are. A complete span whose result has `is_error` as true counts as
            failed.
        p50_ms, p95_ms, p99_ms: the shortest duration that so many hundredths of those that ran do not exceed (nearest
            rank). Those that ran are the complete and the failed ones; None when there are none.
        max_ms, total_ms: of those that ran.
        histogram: the number of those that ran in each bucket of BOUNDS_MS.
        input_tokens, output_tokens, cost_usd: sums, None if no span has a value.
        is_aggregate: whether these spans sum up others: add up the other types only.
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
        """Failed spans divided by those that ran, from 0 to 1; None if none ran."""
        return self.failed / self.ran if self.ran else None


class RunSum(NamedTuple):
    """The sums over those spans of a run that have the same type and label, and are complete or failed.

    Attributes:
        label: None where they have none.
        failed: how many of them failed, those included that returned an error.
        total_ms: of their durations.
        input_tokens, output_tokens, cost_usd: None if no span has a value.
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


class FoundSpan(NamedTuple):
    """A span that says all words of a search first (see first_said), without what earlier ones have said.

    Attributes:
        repeats: how many later spans repeat it: of its parts with a word, the number for the part that most spans have.
    """

    span: AgentSpanRow
    repeats: int


class LatestScore(NamedTuple):
    """The newest score of one name that a run has, as far as comparisons need it (see rows.ScoreRow)."""

    value: float | None
    label: str | None


class FailureSum(NamedTuple):
    """The failed spans of a run with the same signature, without those that only pass on a child's error.

    A complete span whose result has `is_error` as true has failed, too.

    Attributes:
        spans: how many there are.
        first_at, last_at: when the first and the last of them started (else inserted_at), as stored text.
        span_id: the greatest of their ids.
    """

    run_id: str
    signature: Signature
    spans: int
    first_at: str
    last_at: str
    span_id: str


class StepUse(NamedTuple):
    """The use that a run made of a type of steps, or of one model or tool: its finished spans of that type and label.

    Attributes:
        label: None for spans without one.
        spans: how many there are.
        failed: how many of them failed, those included that returned an error.
        last_at: when the last of them started, in microseconds since 1970.
        reason: why the model stopped in the last of them that says so (`finish_reason`).
    """

    run_id: str
    schema_name: str
    label: str | None
    spans: int
    failed: int
    last_at: int
    reason: str | None


class KeyRow(NamedTuple):
    """An idempotency key as it is stored, with the hash of its request and the id that the request was about."""

    operation: str
    key: str
    request_hash: str
    subject: str
    inserted_at: str


class SpanMark(NamedTuple):
    """The spans of a run that have one status.

    Attributes:
        spans: how many there are.
        updated_at: the latest of theirs.
        ended_late: how many have it set.
    """

    status: str
    spans: int
    updated_at: str
    ended_late: int


class Changed(NamedTuple):
    """The spans that were committed since a cursor.

    Attributes:
        rows: by id, as outlines returns them.
        cursor: to read on from: all that this answer may lack has been committed after it.
        stalled_s: seconds for which the cursor has stayed the same because a transaction is under way, at least; 0.0
            if it has not. Everything that was committed meanwhile is in each answer until that one ends.
    """

    rows: list[AgentSpanRow]
    cursor: str
    stalled_s: float


Width = Literal["day", "week", "month"]


WIDTHS: tuple[Width, ...] = get_args(Width)


MOST_LATE = 100_000
"""Spans up to which those that the index lacks are counted."""


class Partition(NamedTuple):
    """A partition of the finished spans.

    Attributes:
        name: of its table.
        start, end: the times, as stored text, that the ids of its runs carry: from `start` on, before `end`. None where
            there is no bound; both are None for the default partition.
        is_default: whether it has the spans for which there is no other partition.
        rows: how many spans it has, as the storage estimates, None if it cannot; of the default partition exactly.
        bytes: its size, with its indexes.
    """

    name: str
    start: str | None
    end: str | None
    is_default: bool
    rows: int | None
    bytes: int


class State(NamedTuple):
    """The state of the tables.

    Attributes:
        version: of the tables.
        late: for each part of the index that was filled, how many finished spans it lacks; MOST_LATE for more.
    """

    version: int
    late: Mapping[str, int]


class Made(NamedTuple):
    """The partitions that were made.

    Attributes:
        names: of their tables, by time.
        moved: spans that were moved out of the default partition.
    """

    names: Sequence[str] = ()
    moved: int = 0


class Dropped(NamedTuple):
    """The partitions that were removed.

    Attributes:
        partitions: how many.
        runs, spans: how many those had; of a partition of more than 10,000,000 spans as the storage estimates.
    """

    partitions: int = 0
    runs: int = 0
    spans: int = 0
