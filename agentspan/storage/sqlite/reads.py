"""Answers questions in SQL, over a connection whose statements all read one state: a snapshot or a transaction."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from agentspan.model.columns import json_columns
from agentspan.model.rows import (
    ROWS,
    TYPE_OF,
    AccountRow,
    AgentInstanceRow,
    AgentSpanRow,
    ResourceType,
    Row,
    ScoreRow,
    Violation,
    instance_of,
)
from agentspan.model.scores import counting
from agentspan.storage.answers import (
    Found,
    KeyRow,
    LatestScore,
    Rows,
    SpanCounts,
    SpanMark,
    SpanSum,
    StoredKey,
    span_counts,
    with_rest,
)
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    Account,
    Counts,
    Find,
    LatestScores,
    NewestScores,
    Outlines,
    Query,
    Question,
    SpanMarks,
    SpansOf,
    SpanSums,
    SpansWith,
    StoredKeys,
    Tags,
    Touched,
    Violations,
)
from agentspan.storage.sqlite import statements
from agentspan.storage.sqlite.migrations import table_of

T = TypeVar("T")


def rows_within(
    connection: sqlite3.Connection, sql: str, values: Sequence[object], row_type: type[Row], most_bytes: int | None
) -> tuple[list[Row], bool]:
    """Return the rows of a SELECT, and whether it stopped at a row that exceeded `most_bytes` of JSON."""
    rows = cast("Iterable[Row]", map(row_type._make, connection.execute(sql, tuple(values))))
    return ([*rows], False) if most_bytes is None else up_to(rows, row_type, most_bytes)


def up_to(rows: Iterable[Row], row_type: type[Row], most_bytes: int) -> tuple[list[Row], bool]:
    """Return rows up to the first one that exceeds `most_bytes` characters of JSON, and whether one exceeded it.

    Only columns with JSON are counted, because other texts are short.
    """
    found: list[Row] = []
    json = [row_type._fields.index(name) for name in json_columns(TYPE_OF[row_type])]
    for row in rows:
        found.append(row)
        for place in json:
            value = row[place]
            if isinstance(value, str):
                most_bytes -= len(value)
        if most_bytes < 0:
            return found, True
    return found, False


Lend = Callable[[], AbstractContextManager[sqlite3.Connection]]
"""Returns a context manager with a connection whose statements all read the same state."""


def rows_of_each(connection: sqlite3.Connection, select: str, ids: Sequence[str]) -> list[Any]:
    """Return the rows of a SELECT for many ids, whose place in it is `{}`."""
    found: list[Any] = []
    for chunk in statements.chunks(ids):
        found += connection.execute(select.format(", ".join("?" * len(chunk))), chunk)
    return found


# An id is searched in the tables of these types, the most frequent type first.
_TYPES: tuple[ResourceType, ...] = (
    "agent_span",
    "agent_instance",
    "agent",
    "agent_schema_version",
    "agent_version",
    "writer",
    "refused_change",
    "account",
    "otel_trace",
    "otel_log",
    "tag",
    "score",
    "session_file",
    "session_entry",
    "session_summary",
)


class Reads:
    """Answers questions over borrowed connections.

    Args:
        reading: lends a connection for each answer.
    """

    def __init__(self, reading: Lend) -> None:
        self.reading = reading

    def ask(self, question: Question[T]) -> T:
        """Answer a question in SQL if it is in ANSWERS, else row by row in Python."""
        kind = type(question)
        if kind is SpansOf:
            return cast(T, self._spans(cast(SpansOf, question)))
        answer = ANSWERS.get(kind)
        if answer is None:
            return self.read_row_by_row(question)
        with self.reading() as connection:
            return cast(T, answer(connection, question))

    def read_row_by_row(self, question: Question[T]) -> T:
        """Answer a question row by row in Python (see storage.row_by_row)."""
        from agentspan.storage import row_by_row

        return row_by_row.answer(cast(Storage, self), question)

    def _spans(self, asked: SpansOf) -> Iterator[AgentSpanRow]:
        with self.reading() as connection:
            yield from map(AgentSpanRow._make, connection.execute(statements.SPANS, (asked.instance_id,)))


def _account(connection: sqlite3.Connection, asked: Account) -> AccountRow:
    return AccountRow(*connection.execute(statements.SELECT["account"]).fetchone())


def _found(connection: sqlite3.Connection, asked: Find) -> Found:
    stored = None
    if asked.key is not None:
        values = connection.execute(statements.KEY, (asked.key.operation, asked.key.key)).fetchone()
        stored = StoredKey(*values) if values is not None else None
    rows: dict[str, tuple[ResourceType, Row]] = {}
    terminated: dict[str, str] = {}
    for id in (*asked.ids, stored.subject) if stored is not None else asked.ids:
        row = locate(connection, id)
        if row is not None:
            rows[id] = TYPE_OF[type(row)], row
            reason = terminated_in(connection, row)
            if reason is not None:
                terminated[instance_of(row)] = reason
    return Found(rows, stored, terminated)


def page_of(connection: sqlite3.Connection, query: Query) -> Rows:
    """Return the page of a query."""
    rows, is_cut = rows_within(connection, *statements.page(query), ROWS[query.type], query.most_bytes)
    rest: list[str] = []
    if is_cut:
        left = None if query.limit is None else query.limit - len(rows)
        others = query.changed(offset=query.offset + len(rows), limit=left)
        only_ids = f"select id from {table_of(query.type)}"
        rest = [id for (id,) in connection.execute(*statements.page(others, only_ids))]
    total = None
    if query.with_total:
        total = len(rows) + len(rest)
        if query.offset or query.after or (query.limit is not None and total >= query.limit):  # there may be more
            (total,) = connection.execute(*statements.total(query)).fetchone()
    return with_rest(Rows(rows, total), rest) if is_cut else Rows(rows, total)


def _outlines(connection: sqlite3.Connection, asked: Outlines) -> list[AgentSpanRow]:
    values = (asked.instance_id, asked.after, asked.since or "", -1 if asked.limit is None else asked.limit)
    return [*map(_span, connection.execute(statements.BARE if asked.bare else statements.OUTLINES, values))]


_span = partial(tuple.__new__, AgentSpanRow)
"""Makes a row of its columns, in a third of the time of `_make`, which is a Python function."""


def _counted(connection: sqlite3.Connection, asked: Counts) -> Mapping[str, SpanCounts]:
    by_instance: dict[str, dict[str, int]] = {id: {} for id in asked.instance_ids}
    for id, status, number in rows_of_each(connection, statements.COUNTS, asked.instance_ids):
        by_instance[id][status] = number
    return {id: span_counts(numbers) for id, numbers in by_instance.items()}


def _sums(connection: sqlite3.Connection, asked: SpanSums) -> list[SpanSum]:
    return [SpanSum._make(row) for row in connection.execute(statements.SUMS, (asked.instance_id,))]


def _violations(connection: sqlite3.Connection, asked: Violations) -> Mapping[str, list[Violation]]:
    found: dict[str, list[Violation]] = {id: [] for id in asked.span_ids}
    for id, *violation in rows_of_each(connection, statements.VIOLATIONS, asked.span_ids):
        found[id].append(Violation._make(violation))
    return found


def _newest_scores(connection: sqlite3.Connection, asked: NewestScores) -> list[ScoreRow]:
    return counting(map(ScoreRow._make, rows_of_each(connection, statements.SCORES, asked.instance_ids)))


def _latest_scores(connection: sqlite3.Connection, asked: LatestScores) -> Mapping[str, LatestScore]:
    statement = statements.LATEST_SCORES.format(source="1" if asked.source is None else "source = ?")
    values = (asked.name,) if asked.source is None else (asked.name, asked.source)
    latest: dict[str, tuple[str, LatestScore]] = {}
    for id, value, label, withdraws, at in connection.execute(statement, values):
        if not withdraws and (id not in latest or latest[id][0] < at):
            latest[id] = at, LatestScore(value, label)
    return {id: score for id, (_, score) in latest.items()}


def _tags(connection: sqlite3.Connection, asked: Tags) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {id: [] for id in asked.instance_ids}
    for id, tag in rows_of_each(connection, statements.TAGS, asked.instance_ids):
        found[id].append(tag)
    return {id: sorted(tags) for id, tags in found.items()}


def _touched(connection: sqlite3.Connection, asked: Touched) -> frozenset[str]:
    from agentspan.schemas.file_paths import needle, normal, touches  # few programs ask

    path = normal(asked.path)
    rows = connection.execute(statements.TOOL_CALLS, (needle(path),))
    return frozenset(id for id, schema_name, payload in rows if touches(schema_name, payload, path))


def _span_marks(connection: sqlite3.Connection, asked: SpanMarks) -> Mapping[str, frozenset[SpanMark]]:
    found: dict[str, set[SpanMark]] = {id: set() for id in asked.instance_ids}
    for id, *mark in rows_of_each(connection, statements.MARKS, asked.instance_ids):
        found[id].add(SpanMark._make(mark))
    return {id: frozenset(marks) for id, marks in found.items()}


def _spans_with(connection: sqlite3.Connection, asked: SpansWith) -> list[str]:
    from agentspan.storage.sqlite.run_search import spans_with  # few programs ask

    return spans_with(connection, asked)


def _stored_keys(connection: sqlite3.Connection, asked: StoredKeys) -> list[KeyRow]:
    values = (*(asked.after or ("", "")), asked.since, asked.limit)
    return [KeyRow._make(row) for row in connection.execute(statements.STORED_KEYS, values)]


ANSWERS: Mapping[type[Question[Any]], Callable[[sqlite3.Connection, Any], Any]] = {
    Account: _account,
    Find: _found,
    Query: page_of,
    Outlines: _outlines,
    Counts: _counted,
    SpanSums: _sums,
    Violations: _violations,
    NewestScores: _newest_scores,
    LatestScores: _latest_scores,
    Tags: _tags,
    Touched: _touched,
    SpanMarks: _span_marks,
    SpansWith: _spans_with,
    StoredKeys: _stored_keys,
}
"""Type of a question → function that answers it over one connection."""


def locate(connection: sqlite3.Connection, id: str) -> Row | None:
    """Return the row of an id, of any type; None if no row has the id."""
    for type_ in _TYPES:
        values = connection.execute(statements.BY_ID[type_], (id,)).fetchone()
        if values is not None:
            return ROWS[type_]._make(values)
    return None


def terminated_in(connection: sqlite3.Connection, row: Row) -> str | None:
    """Return the termination reason of a run, or of a span's run; None if the run was not terminated."""
    if isinstance(row, AgentInstanceRow):
        return row.termination_reason or "" if row.status == "terminated" else None
    if not isinstance(row, AgentSpanRow):
        return None
    values = connection.execute(statements.TERMINATED, (row.agent_instance_id,)).fetchone()
    return values[0] or "" if values is not None else None


class Rewrites(NamedTuple):
    """The changes of finished spans since a note in `rewritten_runs` (see writes.rewritten).

    Attributes:
        last: the number of the last note; 0 if there never was a note.
        runs: the ids of runs whose finished spans changed, and of runs that were removed.
        removed: whether runs were removed.
        floor: the last rowid that surely belongs to the same span as before. SQLite may have reused higher rowids.
    """

    last: int
    runs: list[str]
    removed: bool
    floor: int


NEVER = 2**63 - 1


def unseen(connection: sqlite3.Connection, seen: int, schema: str = "main") -> Rewrites:
    """Return the changes after the note with the number `seen`. The tables are in the database `schema`."""
    known = f"select 1 from {schema}.sqlite_master where name = 'rewritten_runs'"
    if connection.execute(known).fetchone() is None:
        return Rewrites(0, [], False, NEVER)
    table = f"{schema}.rewritten_runs"
    last = connection.execute(f"select ifnull(max(id), 0) from {table}").fetchone()[0]
    notes = connection.execute(f"select agent_instance_id, last_row from {table} where id > ?", (seen,)).fetchall()
    floors = [floor for _, floor in notes if floor is not None]
    return Rewrites(last, [run for run, _ in notes], bool(floors), min(floors, default=NEVER))
