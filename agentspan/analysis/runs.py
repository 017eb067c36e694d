"""Lists the runs that match a filter, with the sums over their spans, and the sums over all matching runs.

Conditions on scores, marks and signatures are evaluated first: they are replaced by the ids of the matching runs.
"""

from collections.abc import Iterable, Iterator, Mapping

from agentspan import jsontext
from agentspan.analysis.agent_names import resolved
from agentspan.analysis.filter_words import NAMES, filter_of
from agentspan.analysis.id_prefixes import find_run
from agentspan.analysis.outcomes import parse
from agentspan.analysis.own_errors import with_signature
from agentspan.analysis.tree import title_of
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.scores import MARK
from agentspan.schemas.span_types import error_text
from agentspan.storage.answers import Progress, RunBrief, RunList, RunSummary
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import BriefsWhere, Counts, LatestScores, Query, RunFilter, RunSort, RunsWhere
from agentspan.storage.row_by_row import matches, names_of
from agentspan.text import one_line


def late_text(row: AgentSpanRow | AgentInstanceRow) -> str | None:
    """Return a sentence about a run or span that ended after it had been closed; None if it did not end late."""
    if not row.ended_late:
        return None
    what = "the termination" if row.closed_by == "terminated" else "doctor closed it"
    return f"its own end came after {what}"


def closed_text(row: AgentSpanRow | AgentInstanceRow) -> str | None:
    """Return how a run or span was closed from outside, and whether it ended later; None if it was not closed."""
    if row.closed_by is None:
        return None
    late = late_text(row)
    return row.closed_by if late is None else f"{row.closed_by}; {late}"


ANY_MARK = "*"


def by_ids(storage: Storage, filter: RunFilter) -> RunFilter:
    """Return a filter in which `ids` replaces the conditions `scores`, `mark` and `signature`.

    Raises:
        InvalidValue: a condition on a score is not a rule, or the signature is not one.
    """
    ids = filter.ids
    for each in _sets(storage, filter):
        ids = each if ids is None else ids & each
    return filter._replace(ids=ids, scores=(), mark=None, signature=None)


def _sets(storage: Storage, filter: RunFilter) -> Iterator[frozenset[str]]:
    rules = [*filter.scores]
    if filter.mark is not None and filter.mark != ANY_MARK:
        rules.append(f"{MARK}=={filter.mark}")
    for rule in map(parse, rules):
        scores = storage.ask(LatestScores(rule.name, rule.source))
        yield frozenset(id for id, score in scores.items() if rule.holds(score))
    if filter.mark == ANY_MARK:
        yield frozenset(storage.ask(LatestScores(MARK)))
    if filter.signature is not None:
        yield with_signature(storage, filter.signature)


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
    """Return a page of the runs that match a filter, the latest first, and the sums over all matching runs.

    Args:
        filter: selects the runs; all runs when left out.
        limit: the largest number of runs on the page; None for all.
        offset: the number of runs to skip.
        sort: the order, if not by creation: the longest first, the most expensive first …
        progress: called with (done, total) while an index is built.
    """
    return storage.ask(RunsWhere(by_ids(storage, filter or RunFilter()), limit, offset, sort, progress))


def run_briefs(
    storage: Storage, filter: RunFilter | None = None, *, progress: Progress | None = None
) -> list[RunBrief]:
    """Return all runs that match a filter in brief form, without metadata and results, the latest first."""
    return storage.ask(BriefsWhere(by_ids(storage, filter or RunFilter()), progress))


def ids_of(storage: Storage, filter: RunFilter, *, progress: Progress | None = None) -> list[str]:
    """Return the ids of all runs that match a filter, the latest first."""
    return [run.id for run in run_briefs(storage, filter, progress=progress)]


def selected(storage: Storage, keywords: Mapping[str, object]) -> RunFilter:
    """Return the filter that keywords of a Database are.

    Raises:
        TypeError: a keyword is no name of the grammar.
    """
    unknown = [name for name in keywords if name not in NAMES]
    if unknown:
        raise TypeError(f"runs are not selected by {unknown[0]!r}; there are {', '.join(NAMES)}")
    return resolved(storage, filter_of(keywords))


def selected_ids(storage: Storage, run: str | None, keywords: Mapping[str, object]) -> list[str] | None:
    """Return the ids of one run, or of those that match; None for all.

    Raises:
        InvalidValue: both are given.
    """
    filter = selected(storage, keywords)
    if run is None:
        return None if filter == RunFilter() else ids_of(storage, filter)
    if filter != RunFilter():
        raise InvalidValue("run", "and filters of runs exclude each other")
    return [find_run(storage, run).id]


def ids_that_match(storage: Storage, rows: Iterable[AgentInstanceRow], filter: RunFilter) -> set[str]:
    """Return the ids of the given runs that match a filter. Only the condition `error` reads spans."""
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


MAX_REASON = 300
"""The largest number of characters of a failure reason."""


def failure_reason(storage: Storage, run: RunSummary) -> str | None:
    """Return the reason of a termination, else the run's error, else its latest failed step; None without a failure."""
    row = run.run
    if row.termination_reason:
        return one_line(f"terminated: {row.termination_reason}", MAX_REASON)
    if row.error is not None and (text := error_text({"error": jsontext.decode(row.error)})):
        return one_line(text, MAX_REASON)
    if not run.failed:
        return None
    query = Query("agent_span", {"agent_instance_id": row.id, "status": "failed"}, descending=True, limit=1)
    found = storage.ask(query).rows
    return one_line(_of_step(found[0]), MAX_REASON) if found and isinstance(found[0], AgentSpanRow) else None


def _of_step(span: AgentSpanRow) -> str:
    """Return a failed step and its error, without the step's input, which could leave no room for the error."""
    error = error_text(None if span.result_payload is None else jsontext.decode(span.result_payload))
    name = " ".join(text for text in (span.schema_title, span.label) if text)
    return title_of(span, MAX_REASON) if error is None else f"{name}: {error}"
