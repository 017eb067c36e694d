"""Queries over many runs that a storage may answer by itself. For other storages, `analysis` reads row by row."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ScoreRow
from agentspan.schemas.signatures import Signature
from agentspan.storage.run_filter import RunFilter as RunFilter
from agentspan.storage.run_filter import RunSort

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


class Hit(NamedTuple):
    """A span that says all words of a search first in its run.

    Attributes:
        summary: the span's, else its type's title.
        field: where the snippet is from: `summary`, `payload` or `result_payload`.
        snippet: text around the first match, on one line, without control characters.
        matches: (start, end) of each matched word in `snippet`, in code points.
        repeats: how many later spans of the run repeat it.
        agent, version: the names of the run's agent; "" until analysis.search.located adds them, as the step.
        step: the number of the span among its run's steps, as `show` lists them; None in a run of very many.
    """

    span_id: str
    run_id: str
    summary: str
    status: str
    schema_name: str
    started_at: str | None
    field: str
    snippet: str
    matches: tuple[tuple[int, int], ...]
    repeats: int = 0
    agent: str = ""
    version: str = ""
    step: int | None = None


class Hits(NamedTuple):
    """A page of the hits of a search, the latest first, and the number of all hits."""

    hits: list[Hit]
    total: int


class LatestScore(NamedTuple):
    """The newest score of one name that a run has, as far as comparisons need it (see rows.ScoreRow)."""

    value: float | None
    label: str | None


class Scores(Protocol):
    """A storage that returns the scores that count without reading the older ones, and the tags of many runs at once.

    storage.scores has the same answers for other storages, and says which scores count.
    """

    def newest_scores(self, instance_ids: Sequence[str]) -> list[ScoreRow]:
        """Return the scores that count, of these runs and their spans, by time and id."""
        ...

    def latest_scores(self, name: str, source: str | None = None) -> Mapping[str, LatestScore]:
        """Return the newest score of this name for each run that has one, by the run's id. Spans do not count.

        Args:
            source: only scores from this source.
        """
        ...

    def tags(self, instance_ids: Sequence[str]) -> Mapping[str, list[str]]:
        """Return the tags of these runs, in the order of the alphabet; one without tags, or unknown, has none."""
        ...


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
        reason: why the model stopped in the last of them that says so (see signatures.stop_reason).
    """

    run_id: str
    schema_name: str
    label: str | None
    spans: int
    failed: int
    last_at: int
    reason: str | None


class Analytics(Protocol):
    """A storage that answers these queries by itself, exactly as `agentspan.analysis` would; None if it cannot now."""

    def find_runs(
        self,
        filter: RunFilter,
        *,
        limit: int | None,
        offset: int,
        sort: RunSort = "started",
        progress: Progress | None = None,
    ) -> RunList | None:
        """Return a page of the runs that match. Ties of `sort` go by id, the latest first."""
        ...

    def run_briefs(self, filter: RunFilter, *, progress: Progress | None = None) -> list[RunBrief] | None:
        """Return all runs that match, the latest first."""
        ...

    def span_stats(
        self,
        *,
        since: str | None,
        until: str | None,
        runs: Collection[str] | None = None,
        progress: Progress | None = None,
    ) -> list[Stat] | None:
        """Return statistics of the spans of all runs, or of those with these ids, in any order."""
        ...

    def run_sums(self, runs: Collection[str], progress: Progress | None = None) -> list[RunSum] | None:
        """Return the sums of these runs by span type and label (see RunSum), in any order."""
        ...

    def search_spans(
        self,
        words: Sequence[str],
        *,
        limit: int,
        offset: int,
        runs: Collection[str] | None = None,
        progress: Progress | None,
    ) -> tuple[list[FoundSpan], int] | None:
        """Return a page of the spans that say all these words first in their run, the latest first; and the total.

        Args:
            runs: ids of the only runs that are searched; all when left out.
            words: each the tokens that must stand side by side, separated by blanks; the last one of those may end
                in `*`, for any ending.
        """
        ...

    def failure_sums(self, run_ids: Collection[str], *, progress: Progress | None = None) -> list[FailureSum] | None:
        """Return the failures of these runs by run and signature, in any order."""
        ...

    def step_uses(self, run_ids: Collection[str], *, progress: Progress | None = None) -> list[StepUse] | None:
        """Return which types and labels these runs used, in any order."""
        ...
