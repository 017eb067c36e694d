"""Finds pages of an agent's spans, by id or by started_at, without an SQL index over agents.

An index on (agent_id, id) would slow every write. Instead, the extent of each run of an agent is kept in memory: its
first and last id and its number of spans; if a query needs times, also its earliest and latest time. Reading the
extents of 330,000 spans among 1,000,000, in 9,000 runs, took 0.5 s on a busy machine, from the index on
(agent_instance_id, id); with times, which no index has, 1.7 s. Later pages add only the spans with higher rowids, as
the index file does (see index/index_file.py).

A page is then found by counting: whole runs are skipped by their number of spans, and only runs that the page cuts are
read. It takes about as long as a page of one run, for any number of runs; `benchmarks/bench_scale.py` measures it.
"""

import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from operator import attrgetter
from types import MappingProxyType
from typing import NamedTuple

from agentspan.model.rows import AgentSpanRow, Row
from agentspan.storage.answers import Rows, with_rest
from agentspan.storage.questions import Query
from agentspan.storage.sqlite import statements
from agentspan.storage.sqlite.reads import NEVER, Rewrites, rows_within, unseen, up_to

END = "\U0010ffff"
"""A text that sorts after every id and time."""
MAX_AGENTS = 16
"""The largest number of agents whose extents are kept: 10 MB for an agent with 28,000 runs."""
MAX_NEW = 50_000
"""The largest number of new rows that are added to kept extents. After more, all extents are read again."""
AT = "coalesce(started_at, inserted_at)"
STARTED = "ifnull(started_at, '')"
"""The SQL expression to sort by started_at. Spans without one come first."""
TIMES = f"min({AT}), max({AT}), sum(started_at is null)"
OF_AGENT = "agent_instance_id in (select id from agent_instances where agent_id = ?)"


class Extent(NamedTuple):
    """The bounds of the spans of one run.

    Attributes:
        first, last: the lowest and the highest id.
        spans: the number of spans.
        since, until: the earliest and the latest started_at (else inserted_at); None if times were not read.
        pending: the number of spans that have not started. Their time may still change.
    """

    run: str
    first: str
    last: str
    spans: int
    since: str | None = None
    until: str | None = None
    pending: int = 0

    def plus(self, other: "Extent") -> "Extent":
        """Return the bounds of the spans of both extents, which belong to the same run."""
        since = None if self.since is None or other.since is None else min(self.since, other.since)
        until = None if self.until is None or other.until is None else max(self.until, other.until)
        first, last = min(self.first, other.first), max(self.last, other.last)
        return Extent(self.run, first, last, self.spans + other.spans, since, until, self.pending + other.pending)


class Position(NamedTuple):
    """The state of the file that extents include: its last rowid, that row's id, and its last note of a rewrite."""

    row: int = 0
    id: str = ""
    note: int = 0


class Extents:
    """The extents of an agent's runs, sorted by their first keys. Immutable.

    Attributes:
        position: the state of the file that the extents include.
        has_times: whether `since` and `until` were read.
        key: the SQL expression by which spans are sorted; `first` and `last` of the extents are values of it.
        lists: run → ids of its spans that are included, for runs that are included only in part.
        total: the number of spans of all runs.
    """

    def __init__(
        self,
        extents: Iterable[Extent],
        position: Position,
        *,
        has_times: bool,
        key: str = "id",
        lists: Mapping[str, list[str]] = MappingProxyType({}),
    ) -> None:
        self.runs = sorted(extents, key=attrgetter("first"))
        self.position = position
        self.has_times = has_times
        self.key = key
        self.lists = lists
        self.firsts = [extent.first for extent in self.runs]
        self.before = [0, *accumulate(extent.spans for extent in self.runs)]
        self.reach = [*accumulate((extent.last for extent in self.runs), max)]
        self.total = self.before[-1]

    def across(self, id: str) -> list[Extent]:
        """Return the runs that have spans both before an id and at or after it."""
        number = bisect_left(self.firsts, id)
        found = []
        while number and self.reach[number - 1] >= id:
            number -= 1
            if self.runs[number].last >= id:
                found.append(self.runs[number])
        return found


class AgentPages:
    """Answers queries for pages of agents' spans. Safe in any thread, because cached values are immutable."""

    def __init__(self) -> None:
        self._kept: dict[str, Extents] = {}
        self._cut: tuple[Extents, tuple[str, str], Extents] | None = None
        self._timed: tuple[Extents, Extents] | None = None

    def page(self, connection: sqlite3.Connection, query: Query) -> Rows | None:
        """Return the page of a query for which `answers` is True.

        None, if pending spans make a page by time uncertain: the caller then reads the page from the file.

        Args:
            connection: a connection whose statements all read the same state.
        """
        agent = str(query.where["agent_id"])
        in_range, skipped = query.start_time is not None or query.end_time is not None, 0
        extents = self._current(connection, agent, has_times=in_range or query.order != "id")
        total = extents.total
        if query.order != "id":
            extents = self._by_time(extents)
            if in_range:
                if any(extent.pending for extent in extents.runs):
                    return None
                skipped = _rank(connection, extents, query.start_time or "")
                total = max(_rank(connection, extents, query.end_time or END) - skipped, 0)
        elif in_range:
            extents = self._between(connection, query, extents)
            total = extents.total
        assert query.limit is not None
        low, high = query.offset, query.offset + query.limit
        if query.descending:
            low, high = total - high, total - low
        low, high = max(low, 0) + skipped, min(high, total) + skipped
        found = _window(connection, extents, low, high) if low < high else []
        if query.descending:
            found.reverse()
        rows, is_cut = _rows(connection, found, query.most_bytes)
        page = Rows(rows, total if query.with_total else None)
        return with_rest(page, found[len(rows) :]) if is_cut else page

    def _current(self, connection: sqlite3.Connection, agent: str, *, has_times: bool) -> Extents:
        """Return the extents of an agent's runs in the connection's state, from the cache as far as possible."""
        kept = self._kept.get(agent)
        rewrites = unseen(connection, NEVER if kept is None else kept.position.note)
        last = connection.execute("select rowid, id from agent_spans order by rowid desc limit 1").fetchone()
        row, id = last or (0, "")
        position = Position(row, id, rewrites.last)
        found = None
        if kept is not None and (kept.has_times or not has_times):
            found = _added(connection, agent, kept, position, rewrites)
        if found is None:
            found = Extents(_read(connection, OF_AGENT, agent, has_times), position, has_times=has_times)
        self._kept.pop(agent, None)
        self._kept[agent] = found
        for oldest in [*self._kept][:-MAX_AGENTS]:
            self._kept.pop(oldest, None)
        return found

    def _between(self, connection: sqlite3.Connection, query: Query, extents: Extents) -> Extents:
        """Return the extents of the spans in a query's range of times. The last result is cached."""
        since, until = query.start_time or "", query.end_time or END
        last = self._cut
        if last is None or last[:2] != (extents, (since, until)):
            last = self._cut = extents, (since, until), _cut(connection, extents, since, until)
        return last[2]

    def _by_time(self, extents: Extents) -> Extents:
        """Return extents whose bounds are times in place of ids. The last result is cached."""
        last = self._timed
        if last is None or last[0] is not extents:
            bounds = ((e, "" if e.pending else e.since or "", e.until or END) for e in extents.runs)
            timed = [e._replace(first=first, last=until) for e, first, until in bounds]
            last = self._timed = extents, Extents(timed, extents.position, has_times=True, key=STARTED)
        return last[1]


def _cut(connection: sqlite3.Connection, extents: Extents, since: str, until: str) -> Extents:
    whole: list[Extent] = []
    parts: list[str] = []
    for extent in extents.runs:
        assert extent.since is not None
        assert extent.until is not None
        if extent.pending or (extent.since < until and extent.until >= since):
            if extent.pending or extent.since < since or extent.until >= until:
                parts.append(extent.run)
            else:
                whole.append(extent)
    lists: dict[str, list[str]] = {}
    for chunk in statements.chunks(parts):
        for run, id in connection.execute(
            f"select agent_instance_id, id from agent_spans where agent_instance_id in ({_marks(chunk)}) "
            f"and {AT} >= ? and {AT} < ? order by id",
            (*chunk, since, until),
        ):
            lists.setdefault(run, []).append(id)
    cut = [Extent(run, ids[0], ids[-1], len(ids)) for run, ids in lists.items()]
    return Extents([*whole, *cut], extents.position, has_times=True, lists=lists)


def answers(query: Query) -> bool:
    """Return whether AgentPages can answer a query of spans: those of an agent by id or started_at, all of them."""
    return (
        query.where.keys() == {"agent_id"}
        and query.order in ("id", "started_at")
        and query.limit is not None
        and not query.after
        and not query.prefix
    )


def _read(connection: sqlite3.Connection, where: str, value: object, has_times: bool) -> list[Extent]:
    columns = f"agent_instance_id, min(id), max(id), count(*){f', {TIMES}' if has_times else ''}"
    found = connection.execute(f"select {columns} from agent_spans where {where} group by 1", (value,))
    return [Extent._make((*row, None, None, 0)[:7]) for row in found]


def _added(
    connection: sqlite3.Connection, agent: str, kept: Extents, now: Position, rewrites: Rewrites
) -> Extents | None:
    """Return kept extents plus the spans that were added since; None if all extents must be read again."""
    was = kept.position
    if now == was and not any(extent.pending for extent in kept.runs if kept.has_times):
        return kept
    if now.row < was.row or now.row - was.row > MAX_NEW or now.note < was.note or rewrites.removed:
        return None
    same = connection.execute("select 1 from agent_spans where rowid = ? and id = ?", was[:2]).fetchone()
    if was.row and same is None:
        return None
    again = [*(extent.run for extent in kept.runs if extent.pending), *rewrites.runs]
    extents = {extent.run: extent for extent in kept.runs}
    new = connection.execute(
        f"select agent_instance_id, min(id), max(id), count(*), {TIMES} from agent_spans "
        "where rowid > ? and agent_id = ? group by 1",
        (was.row, agent),
    )
    for each in map(Extent._make, new):
        known = extents.get(each.run)
        extents[each.run] = each if known is None else known.plus(each)
    for run in again if kept.has_times else ():
        if run in extents:
            (extents[run],) = _read(connection, "agent_instance_id = ?", run, True)
    return Extents(extents.values(), now, has_times=kept.has_times)


def _window(connection: sqlite3.Connection, extents: Extents, low: int, high: int) -> list[str]:
    """Return the ids of the spans with the ranks from `low` up to, but without, `high`."""

    def rank(number: int) -> int:
        return _rank(connection, extents, extents.firsts[number])

    # The sums in `before` equal the ranks unless runs overlap; for overlapping runs, ranks are lower.
    start, step = bisect_right(extents.before, low) - 1, 1
    while step:
        is_before = start + step < len(extents.runs) and rank(start + step) <= low
        start, step = (start + step, step * 2) if is_before else (start, step // 2)
    end = min(max(bisect_left(extents.before, high), start + 1), len(extents.runs))
    step = 1
    while end < len(extents.runs) and rank(end) < high:
        end, step = min(end + step, len(extents.runs)), step * 2
    first = extents.firsts[start]
    last = extents.firsts[end] if end < len(extents.runs) else END
    start = bisect_left(extents.firsts, first)  # several runs may have the same first key
    skip = low - rank(start)
    runs = [*extents.across(first), *extents.runs[start:end]]
    listed = [(id, id) for run in runs for id in extents.lists.get(run.run, ()) if first <= id < last]
    read = [run.run for run in runs if run.run not in extents.lists]
    wanted = skip + high - low
    if listed or len(read) > statements.CHUNK:
        for chunk in statements.chunks(read):
            listed += _found(connection, chunk, first, last, extents.key, limit=wanted, offset=0)
        return [id for _, id in sorted(listed)[skip:wanted]]
    return [id for _, id in _found(connection, read, first, last, extents.key, limit=high - low, offset=skip)]


def _rank(connection: sqlite3.Connection, extents: Extents, bound: str) -> int:
    """Return how many spans have a lower key than `bound`."""
    lower = extents.before[bisect_left(extents.firsts, bound)]
    for extent in extents.across(bound):
        ids = extents.lists.get(extent.run)
        if ids is None:
            select = f"select count(*) from agent_spans where agent_instance_id = ? and {extents.key} >= ?"
            lower -= connection.execute(select, (extent.run, bound)).fetchone()[0]
        else:
            lower -= len(ids) - bisect_left(ids, bound)
    return lower


def _found(
    connection: sqlite3.Connection, runs: Sequence[str], first: str, last: str, key: str, *, limit: int, offset: int
) -> list[tuple[str, str]]:
    """Return (key, id) of the spans of these runs with first <= key < last, sorted. Ids are read from the SQL index."""
    order = "1" if key == "id" else "1, 2"
    return connection.execute(
        f"select {key}, id from agent_spans where agent_instance_id in ({_marks(runs)}) and {key} >= ? and {key} < ? "
        f"order by {order} limit ? offset ?",
        (*runs, first, last, limit, offset),
    ).fetchall()


def _rows(connection: sqlite3.Connection, ids: Sequence[str], most_bytes: int | None) -> tuple[list[Row], bool]:
    """Return the spans in the order of `ids`, and whether they stop at a span that exceeded `most_bytes`."""
    select = f"{statements.SELECT['agent_span']} where id in ({_marks(ids)})"
    found, is_cut = rows_within(connection, select, ids, AgentSpanRow, most_bytes)
    if most_bytes is None or not is_cut:
        by_id = {row.id: row for row in found}
        return [by_id[id] for id in ids], False
    in_order = chain.from_iterable(connection.execute(statements.BY_ID["agent_span"], (id,)) for id in ids)
    return up_to(map(AgentSpanRow._make, in_order), AgentSpanRow, most_bytes)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
