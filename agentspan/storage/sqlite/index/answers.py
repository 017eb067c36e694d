"""Answers questions about many runs in SQL, from the index beside the file.

A percentile is found by counting buckets of durations, and then reading a duration in its bucket.
"""

import sqlite3
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from agentspan.errors import StorageError
from agentspan.host import guard
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.questions import (
    BriefsWhere,
    CachedCalls,
    FailureSums,
    Question,
    RunFilter,
    RunSort,
    RunSums,
    RunsWhere,
    Search,
    SpanStats,
    StepUses,
    TimedSums,
    Used,
    contains_text,
    has_meta,
)
from agentspan.storage.sqlite.driver import is_damage, storage_error
from agentspan.storage.sqlite.index import full_text, index_file, span_sums
from agentspan.storage.sqlite.index.full_text import FullText
from agentspan.storage.sqlite.index.span_sums import FIRST_LETTER, MICROS, USED, SpanSums, group_names
from agentspan.storage.sqlite.statements import column_of
from agentspan.storage.sums import (
    BOUNDS_MS,
    CANCELLED,
    Groups,
    Progress,
    RunBrief,
    RunList,
    RunSummary,
    RunTotals,
    SpanGroup,
    Stat,
    groups_of,
)
from agentspan.tuning import Tuning

OPEN_SUMS = f"""
select s.agent_instance_id as id, count(*) as spans, sum(input_tokens) filter (where {USED}) as input_tokens,
       sum(output_tokens) filter (where {USED}) as output_tokens, sum(cost_usd) filter (where {USED}) as cost
from main.open_spans o cross join recorded.agent_spans s where s.rowid = o.row group by 1
"""
RUNS = f"""
from recorded.agent_instances i
left join main.runs r on r.id = i.id
left join ({OPEN_SUMS}) o on o.id = i.id
left join recorded.agents a on a.id = i.agent_id
left join recorded.agent_versions v on v.id = i.agent_version_id
"""


def _both(column: str) -> str:
    """Return the SQL of the sum over a run's finished and open spans; null if neither has a value."""
    return f"case when o.{column} is null then r.{column} else ifnull(r.{column}, 0) + o.{column} end"


SUMS = (
    "ifnull(r.spans, 0) + ifnull(o.spans, 0) as spans, ifnull(r.failed, 0) as failed, ifnull(o.spans, 0) as open, "
    f"{_both('input_tokens')} as input_tokens, {_both('output_tokens')} as output_tokens, {_both('cost')} as cost, "
    "i.duration_ms"
)
COLUMNS = ", ".join(f"i.{column}" for column in AgentInstanceRow._fields)
OWN_TEXTS = (
    "i.id, a.name, v.external_identifier, i.external_identifier, i.metadata, i.result, i.error, i.termination_reason"
)
NAMES = "ifnull(a.name, i.agent_id), ifnull(v.external_identifier, i.agent_version_id)"
AGENTS = "select id, name from recorded.agents where name is not null"
VERSIONS = "select id, external_identifier from recorded.agent_versions where external_identifier is not null"
# Names of agents and versions are joined in Python: SQLite then skips the joins, because no column of them is read.
BRIEFS = f"""
select i.id, i.agent_id, i.agent_version_id, i.status, i.task, coalesce(i.started_at, i.inserted_at), i.error,
       ifnull(r.spans, 0) + ifnull(o.spans, 0), ifnull(r.failed, 0), {_both("input_tokens")}, {_both("output_tokens")}
{RUNS}"""
RESULT = column_of("agent_span", "result_payload", "s", "recorded")
# Only the failed spans of the index are read: there are few.
ERROR = f"""
(contains_text(?, i.error, i.termination_reason) or i.id in (
  select distinct n.id from main.facts f cross join recorded.agent_spans s cross join main.runs n
  where f.failed and s.rowid = f.row and contains_text(?, {RESULT}) and n.run = f.run))
"""
HAS_TAG = "exists (select 1 from recorded.tags t where t.agent_instance_id = i.id and t.tag = ?)"
TOKENS = (
    "case when input_tokens is null and output_tokens is null then null "
    "else ifnull(input_tokens, 0) + ifnull(output_tokens, 0) end"
)
SORTED: dict[RunSort, str] = {
    "started": "",
    "duration": "i.duration_ms desc nulls last, ",
    "cost": "cost desc nulls last, ",
    "tokens": f"{TOKENS} desc nulls last, ",
    "spans": "spans desc, ",
    "failed": "failed desc, ",
}


def runs_where(connection: sqlite3.Connection, asked: RunsWhere) -> RunList:
    """Return a page of the runs that match the filter, and the sums over all runs that match.

    Args:
        connection: a connection to the updated index, with the recorded file attached.
    """
    limit = -1 if asked.limit is None else asked.limit
    where, values = _restricted(connection, asked.filter)
    page = f"select {COLUMNS}, {NAMES}, {SUMS} {RUNS}{where}"
    if asked.sort == "started":
        page += " order by i.id desc"
    else:  # SQLite allows no output columns within an expression of `order by`
        page = f"select * from ({page}) i order by {SORTED[asked.sort]}id desc"
    rows = connection.execute(f"{page} limit ? offset ?", (*values, limit, asked.offset)).fetchall()
    totals = (
        "select count(*), ifnull(sum(spans), 0), ifnull(sum(failed), 0), ifnull(sum(open), 0), "
        f"sum(input_tokens), sum(output_tokens), sum(cost), sum(duration_ms) from (select {SUMS} {RUNS}{where})"
    )
    total, *sums = connection.execute(totals, values).fetchone()
    width = len(AgentInstanceRow._fields)
    runs = [RunSummary(AgentInstanceRow._make(row[:width]), *row[width:]) for row in rows]
    return RunList(runs, total, RunTotals(*sums))


def briefs_where(connection: sqlite3.Connection, asked: BriefsWhere) -> list[RunBrief]:
    """Return all runs that match the filter, the latest first."""
    where, values = _restricted(connection, asked.filter)
    agents, versions = (dict(connection.execute(names).fetchall()) for names in (AGENTS, VERSIONS))
    rows = connection.execute(f"{BRIEFS}{where} order by i.id desc", values)
    return [
        RunBrief(id, agent, agents.get(agent, agent), versions.get(version, version), *rest)
        for id, agent, version, *rest in rows
    ]


def _restricted(connection: sqlite3.Connection, filter: RunFilter) -> tuple[str, list[str]]:
    """Create the SQL functions and the table that a filter needs.

    Return its WHERE clause ("" without conditions), and its parameters.
    """
    if filter.ids is not None:
        index_file.restrict(connection, filter.ids)
    connection.create_function("contains_text", -1, contains_text)
    connection.create_function("has_meta", 1, lambda metadata: has_meta(metadata, filter.meta))
    given = (
        ("? in (a.name, a.id, a.external_identifier)", filter.agent),
        ("ifnull(v.external_identifier, i.agent_version_id) = ?", filter.version),
        ("i.session = ?", filter.session),
        ("i.status = ?", filter.status),
        ("coalesce(i.started_at, i.inserted_at) >= ?", filter.since),
        ("coalesce(i.started_at, i.inserted_at) < ?", filter.until),
        ("instr(i.git_commit, ?) = 1", filter.git_commit and filter.git_commit.lower()),
        (f"contains_text(?, {OWN_TEXTS})", filter.grep),
        ("i.task = ?", filter.task),
        ("i.purpose = ?", filter.purpose),
        *((HAS_TAG, tag) for tag in filter.tags),
    )
    conditions = [condition for condition, text in given if text is not None]
    texts = [text for _, text in given if text is not None]
    if filter.failed:
        conditions.append("(i.status = 'failed' or r.failed > 0)")
    if filter.meta:
        conditions.append("has_meta(i.metadata)")
    if filter.ids is not None:
        conditions.append("i.id in (select id from temp.wanted)")
    if filter.error is not None:
        conditions.append(ERROR)
        texts += [filter.error, filter.error]
    # Invalid bytes from a shell become lone surrogates, which SQLite cannot store.
    values = [text.encode("utf-8", "replace").decode() for text in texts]
    return f" where {' and '.join(conditions)}" if conditions else "", values


CELLS = "select * from cells"
WITHIN = (
    "select grp, bucket, count(*), sum(failed), sum(ms), max(ms), sum(input_tokens), sum(output_tokens), sum(cost) "
    "from facts where true{0} group by grp, bucket"
)
OF_RUNS = """
select u.grp, sum(u.spans), sum(u.cancelled), sum(u.failed), sum(u.ms), sum(u.input_tokens), sum(u.output_tokens),
       sum(u.cost), group_concat(u.histogram, '')
from temp.wanted_numbers w cross join run_groups u where u.run = w.run group by u.grp
"""
"""The sums over some runs by group. It reads no facts: half a million spans take 0.15 s, and from facts 0.7 s."""
NEVER_RAN = f"""
select sum(input_tokens), sum(output_tokens), sum(cost) from facts
where grp = ? and bucket = {CANCELLED} and {index_file.OF_FACT}
"""
OPEN = (
    "select schema_name, ifnull(label, ''), count(*), max(is_aggregate), "
    "sum(input_tokens), sum(output_tokens), sum(cost_usd) from main.open_spans o "
    "cross join recorded.agent_spans s where s.rowid = o.row{0} group by 1, 2"
)
AT_PLACE = "select ms from facts where grp in ({0}) and bucket = ? order by ms limit 1 offset ?"
IN_BUCKET = "select ms from facts where grp = ? and bucket = ?{0} order by ms"


class Window(NamedTuple):
    """A range of times, and perhaps some runs, as SQL conditions with their parameters.

    Attributes:
        facts: the condition on a row of `facts` in the index.
        micros: the parameters of `facts`.
        spans: the condition on a recorded span `s`.
        texts: the parameters of `spans`.
    """

    facts: str
    micros: list[str]
    spans: str
    texts: list[str]


def span_stats(connection: sqlite3.Connection, asked: SpanStats) -> list[Stat]:
    """Return the statistics of the spans that began in a range of times, in any order."""
    runs = asked.runs
    window = _window(asked.since, asked.until)
    groups: Groups = {}
    if runs is not None:
        index_file.restrict(connection, runs)
        index_file.number(connection, runs)
        facts, spans = f"{window.facts} and {index_file.OF_FACT}", f"{window.spans} and {index_file.OF_SPAN}"
        window = window._replace(facts=facts, spans=spans)
    if runs is not None and not window.micros:
        _add_finished_of_runs(connection, groups)
    else:
        _add_finished(connection, groups, window)
    _add_open(connection, groups, window)
    durations = Durations(connection, window)
    return [_stat(*key, group, durations) for key, group in groups.items()]


def _window(since: str | None, until: str | None) -> Window:
    bounds = [(sign, bound) for sign, bound in ((">=", since), ("<", until)) if bound is not None]
    return Window(
        "".join(f" and at {sign} {MICROS.format('?')}" for sign, _ in bounds),
        [bound for _, bound in bounds for _ in range(2)],  # MICROS has two placeholders
        "".join(f" and coalesce(s.started_at, s.inserted_at) {sign} ?" for sign, _ in bounds),
        [bound for _, bound in bounds],
    )


def _add_finished(connection: sqlite3.Connection, groups: Groups, window: Window) -> None:
    names = group_names(connection)
    cells = connection.execute(WITHIN.format(window.facts) if window.facts else CELLS, window.micros)
    for id, bucket, spans, failed, ms, longest, *used in cells:
        name, label, is_aggregate = names[id]
        for group in groups_of(groups, name, label):
            group.add_cell(id, bucket, spans, failed, ms, longest)
            group.add_used(used)
            group.is_aggregate = group.is_aggregate or is_aggregate


def _add_finished_of_runs(connection: sqlite3.Connection, groups: Groups) -> None:
    """Add the finished spans of the runs in `wanted_numbers`, from the sums of each run and not from all facts."""
    names = group_names(connection)
    for id, spans, cancelled, failed, ms, *used, letters in connection.execute(OF_RUNS).fetchall():
        name, label, is_aggregate = names[id]
        ran = {bucket: letters.count(chr(FIRST_LETTER + bucket)) for bucket in range(len(BOUNDS_MS) + 1)}
        for group in groups_of(groups, name, label):
            group.add_sums(id, spans, cancelled, failed, ms, ran)
            group.add_used(used)
            if cancelled:
                group.add_used(connection.execute(NEVER_RAN, (id,)).fetchone())
            group.is_aggregate = group.is_aggregate or is_aggregate


def _add_open(connection: sqlite3.Connection, groups: Groups, window: Window) -> None:
    found = connection.execute(OPEN.format(window.spans), window.texts)
    for schema_name, label, spans, is_aggregate, *used in found:
        for group in groups_of(groups, schema_name, label):
            group.add_open(spans)
            group.add_used(used)
            group.is_aggregate = group.is_aggregate or bool(is_aggregate)


class Durations:
    """Finds the duration at a place in a bucket, among the spans of a window.

    Args:
        connection: a connection to the index.
        window: the spans that are included. If it includes all spans, SQL finds a single duration. Else all durations
            of the window in the bucket are read once, and cached for the label, its type and other percentiles.
    """

    def __init__(self, connection: sqlite3.Connection, window: Window) -> None:
        self._connection = connection
        self._window = window
        self._read: dict[tuple[int, int], array[float]] = {}
        self._merged: dict[tuple[frozenset[int], int], Sequence[float]] = {}

    def at(self, ids: Collection[int], bucket: int, place: int) -> float:
        """Return the duration, in ms, at a place from zero among the sorted durations of some groups in a bucket."""
        if self._window.facts:
            return self._within(frozenset(ids), bucket)[place]
        sql = AT_PLACE.format(", ".join(map(str, ids)))
        value: float = self._connection.execute(sql, (bucket, place)).fetchone()[0]
        return value

    def _within(self, ids: frozenset[int], bucket: int) -> Sequence[float]:
        if (ids, bucket) not in self._merged:
            each = [self._in_bucket(id, bucket) for id in sorted(ids)]
            self._merged[ids, bucket] = each[0] if len(each) == 1 else sorted(chain.from_iterable(each))
        return self._merged[ids, bucket]

    def _in_bucket(self, id: int, bucket: int) -> "array[float]":
        if (id, bucket) not in self._read:
            sql = IN_BUCKET.format(self._window.facts)
            rows = self._connection.execute(sql, (id, bucket, *self._window.micros))
            self._read[id, bucket] = array("d", (ms for (ms,) in rows))
        return self._read[id, bucket]


def _stat(schema_name: str, label: str | None, group: SpanGroup, durations: Durations) -> Stat:
    def percentile(percent: int) -> float | None:
        found = group.place(percent)
        return None if found is None else durations.at(group.ids, *found)

    histogram = tuple(group.ran.get(bucket, 0) for bucket in range(len(BOUNDS_MS) + 1))
    return group.stat(schema_name, label, percentile, histogram)


T = TypeVar("T")

# SQLITE_ERROR is included: another program may have dropped a table of the index. After a rebuild, it is a bug.
_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR})
_SURROUNDINGS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    }
)


class IndexParts(NamedTuple):
    """The parts of the index beside a file: the numbers and the texts."""

    sums: SpanSums
    texts: FullText


def parts_of(tuning: Tuning, sqlite_version: tuple[int, ...]) -> IndexParts:
    """Return the parts of the index of a file."""
    texts = FullText(tuning.index_words_batch_spans, sqlite_version)
    return IndexParts(SpanSums(tuning.index_numbers_batch_spans), texts)


class Index:
    """Answers questions about many runs from the index beside a file.

    Args:
        path: the recorded file.
        parts: the parts of its index.
        no_fork: returns a with-block that forks wait for. It is called before a connection is opened, and raises
            StorageError if the storage is closed.
        pause_s: the seconds between two batches of an update, in which other connections can lock the index.
    """

    def __init__(
        self, path: Path, parts: IndexParts, no_fork: Callable[[], AbstractContextManager[object]], *, pause_s: float
    ) -> None:
        self._path = path
        self.parts = parts
        self._pause_s = pause_s
        self._no_fork = no_fork

    def answer(self, question: Question[T]) -> T | None:
        """Return the answer to a question in ANSWERS.

        If the index cannot be written, it is built in memory; for a search, None is returned.
        """
        answer = ANSWERS[type(question)]
        or_in_memory = not isinstance(question, Search)
        part = self.parts.sums if or_in_memory else self.parts.texts
        progress: Progress | None = question.progress  # type: ignore[attr-defined]
        for attempt, in_memory in enumerate((False, False, True) if or_in_memory else (False, False)):
            no_fork = self._no_fork()
            try:
                with (
                    guard(OSError, StorageError),  # it cannot be written, or others kept it locked
                    no_fork,
                    index_file.opened(self._path, in_memory=in_memory) as connection,
                    index_file.current(connection, part, progress, pause_s=self._pause_s),
                ):
                    return cast(T, answer(connection, question))
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in _DAMAGED and attempt == 0:
                    index_file.discard(self._path)
                    continue
                is_text = is_damage(error) and code == 0  # of the recorded file
                if is_text or (code not in _SURROUNDINGS and "no such module: fts5" not in str(error)):
                    raise storage_error(error, self._path) from error
        return None


ANSWERS: Mapping[type[Question[Any]], Callable[[sqlite3.Connection, Any], Any]] = {
    RunsWhere: runs_where,
    BriefsWhere: briefs_where,
    SpanStats: span_stats,
    RunSums: span_sums.run_sums,
    TimedSums: span_sums.timed_sums,
    FailureSums: span_sums.failure_sums,
    StepUses: span_sums.step_uses,
    Used: span_sums.used,
    CachedCalls: span_sums.cached_calls,
    Search: full_text.search,
}
"""Type of a question → function that answers it over a connection to the updated index, with the file attached."""
