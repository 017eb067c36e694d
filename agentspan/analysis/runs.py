"""Lists runs with the sums over their spans, and the sums over all runs that match."""

from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from typing import NamedTuple, TypeVar

from agentspan.analysis.run_matching import matches
from agentspan.analysis.score_filters import by_ids
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentVersionRow, Value
from agentspan.model.status import OPEN
from agentspan.storage.analytics import Progress, RunBrief, RunList, RunSummary, RunTotals, brief_of
from agentspan.storage.protocol import Storage
from agentspan.storage.run_filter import RunFilter, RunSort
from agentspan.storage.scanning import pages

__all__ = ["RunFilter", "RunList", "RunSummary", "RunTotals", "find_runs", "ids_that_match", "names_of", "summaries_of"]

PAGE = 50
N = TypeVar("N", int, float)


def find_runs(
    storage: Storage,
    filter: RunFilter | None = None,
    *,
    limit: int | None = PAGE,
    offset: int = 0,
    sort: RunSort = "started",
    progress: Progress | None = None,
) -> RunList:
    """Return a page of the runs that match, the latest first, and the sums over all of them.

    Args:
        filter: see RunFilter; all runs when left out.
        limit: how many at most; None for all.
        offset: how many to pass over.
        sort: the order, where it is not by creation: the longest first, the most expensive …
        progress: called with how much is done, and of how much, while there is an index to be built.
    """
    filter = by_ids(storage, filter or RunFilter())
    analytics = storage.capabilities().analytics
    if analytics is not None:
        answer = analytics.find_runs(filter, limit=limit, offset=offset, sort=sort, progress=progress)
        if answer is not None:
            return answer
    page: list[RunSummary] = []
    totals = RunTotals()
    if sort == "started":
        total = 0
        for run in _all_that_match(storage, filter):
            if total >= offset and (limit is None or len(page) < limit):
                page.append(run)
            total, totals = total + 1, _plus(totals, run)
        return RunList(page, total, totals)
    found = sorted(_all_that_match(storage, filter), key=_SORTED[sort], reverse=True)
    page = found[offset:] if limit is None else found[offset : offset + limit]
    return RunList(page, len(found), totals_of(found))


def run_briefs(
    storage: Storage, filter: RunFilter | None = None, *, progress: Progress | None = None
) -> list[RunBrief]:
    """Return all runs that match, the latest first, without what only a list of them shows."""
    filter = by_ids(storage, filter or RunFilter())
    analytics = storage.capabilities().analytics
    found = None if analytics is None else analytics.run_briefs(filter, progress=progress)
    return [*map(brief_of, _all_that_match(storage, filter))] if found is None else found


def ids_of(storage: Storage, filter: RunFilter, *, progress: Progress | None = None) -> list[str]:
    """Return the ids of all runs that match, the latest first."""
    return [run.id for run in run_briefs(storage, filter, progress=progress)]


def _all_that_match(storage: Storage, filter: RunFilter) -> Iterator[RunSummary]:
    """Yield the runs that match, the latest first. Each run is read."""
    where: dict[str, Value] = {} if filter.status is None else {"status": filter.status}
    for rows in pages(storage, AgentInstanceRow, where, descending=True):
        for run in summaries_of(storage, rows):
            if matches(storage, run, filter):
                yield run


def _sortable(value: float | None) -> tuple[bool, float]:
    return value is not None, value or 0


def tokens_of(sums: RunSummary | RunTotals) -> int | None:
    """Return input and output tokens together; None if no span has any."""
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
    """The names of a run's agent and version."""

    agent: str
    version: str


def names_of(storage: Storage, rows: Iterable[AgentInstanceRow]) -> dict[str, Name]:
    """Return the names of the agent and version of runs, by run id. One that is not stored has its id as name."""
    rows = list(rows)
    found = storage.find(*{id for row in rows for id in (row.agent_id, row.agent_version_id)}).rows
    names = {}
    for row in rows:
        agent, version = (found.get(id, ("", None))[1] for id in (row.agent_id, row.agent_version_id))
        names[row.id] = Name(
            agent.name if isinstance(agent, AgentRow) else row.agent_id,
            version.external_identifier if isinstance(version, AgentVersionRow) else row.agent_version_id,
        )
    return names


def summaries_of(storage: Storage, rows: Iterable[AgentInstanceRow]) -> Iterator[RunSummary]:
    """Yield the sums over the spans of these runs. Spans are read one by one."""
    rows = list(rows)
    names = names_of(storage, rows)
    for run in rows:
        agent, version = names[run.id]
        yield RunSummary(run, agent, version, *_sums(storage, run.id), run.duration_ms)


def ids_that_match(storage: Storage, rows: Iterable[AgentInstanceRow], filter: RunFilter) -> set[str]:
    """Return the ids of those of these runs that match. Spans are counted by the storage; `error` alone reads some."""
    rows, filter = list(rows), by_ids(storage, filter)
    names = names_of(storage, rows)
    counts = storage.counts([row.id for row in rows])
    found = set()
    for row in rows:
        agent, version = names[row.id]
        spans = counts[row.id]
        sums = (spans.total, spans.failed, spans.pending + spans.active, None, None, None, row.duration_ms)
        if matches(storage, RunSummary(row, agent, version, *sums), filter):
            found.add(row.id)
    return found


def _sums(storage: Storage, run_id: str) -> tuple[int, int, int, int | None, int | None, float | None]:
    spans = failed = open_ = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: float | None = None
    for span in storage.iter_spans(run_id):
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
    """Add up runs."""
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
