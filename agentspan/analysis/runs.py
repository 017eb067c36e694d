"""Lists runs with the sums over their spans, and the sums over all runs that match."""

from collections.abc import Iterable

from agentspan.analysis.score_filters import by_ids
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.answers import Progress, RunBrief, RunList, RunSummary
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import BriefsWhere, Counts, RunsWhere
from agentspan.storage.row_by_row import matches, names_of
from agentspan.storage.run_filter import RunFilter, RunSort

PAGE = 50


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
    return storage.ask(RunsWhere(by_ids(storage, filter or RunFilter()), limit, offset, sort, progress))


def run_briefs(
    storage: Storage, filter: RunFilter | None = None, *, progress: Progress | None = None
) -> list[RunBrief]:
    """Return all runs that match, the latest first, without what only a list of them shows."""
    return storage.ask(BriefsWhere(by_ids(storage, filter or RunFilter()), progress))


def ids_of(storage: Storage, filter: RunFilter, *, progress: Progress | None = None) -> list[str]:
    """Return the ids of all runs that match, the latest first."""
    return [run.id for run in run_briefs(storage, filter, progress=progress)]


def ids_that_match(storage: Storage, rows: Iterable[AgentInstanceRow], filter: RunFilter) -> set[str]:
    """Return the ids of those of these runs that match. Spans are counted by the storage; `error` alone reads some."""
    rows, filter = list(rows), by_ids(storage, filter)
    names = names_of(storage, rows)
    counts = storage.ask(Counts([row.id for row in rows]))
    found = set()
    for row in rows:
        agent, version = names[row.id]
        spans = counts[row.id]
        sums = (spans.total, spans.failed, spans.pending + spans.active, None, None, None, row.duration_ms)
        if matches(storage, RunSummary(row, agent, version, *sums), filter):
            found.add(row.id)
    return found
