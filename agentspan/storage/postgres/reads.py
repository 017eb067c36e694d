"""Answers questions about the rows of a schema, from a snapshot or within a transaction.

Changes since a cursor are found by transaction numbers, not by times. Each row has the number of its transaction
(`xmin`). A snapshot knows the lowest number of a transaction that is still under way: all transactions below it have
ended. So a reader of the snapshot misses only rows from that number on, in whatever order transactions commit. With a
sequence, or a time, it could miss the rows of a slow transaction. Numbers have 32 bits and wrap around: a row that is 2
billion transactions old may be read again, but none is missed. (On Citus each node has its own numbers, so a storage
whose spans are distributed does not answer ChangedSpans.)
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import psycopg

from agentspan.errors import StorageError
from agentspan.model.changes import Key
from agentspan.model.rows import (
    ROWS,
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
from agentspan.schemas.file_paths import needle, normal, touches
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
from agentspan.storage.postgres import statements
from agentspan.storage.postgres.connection import (
    Connection,
    Lend,
    Statement,
    is_storable,
    read,
    rows_of,
    rows_of_each,
    storable,
)
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.statements import OUTLINE, SPAN_TABLES
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    Account,
    CachedCalls,
    ChangedSpans,
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
    StoredKeys,
    Tags,
    Touched,
    Violations,
)
from agentspan.storage.row_by_row import cached_call
from agentspan.storage.sums import QUARTER, CachedCall, Changed

T = TypeVar("T")
Answers = Mapping[type[Question[Any]], Callable[[Any, Any], Any]]

FETCHED = 1000
"""The number of spans that a server cursor fetches at a time."""
_LIKELY: tuple[ResourceType, ...] = ("agent_span", "agent_instance")
_OTHERS: tuple[ResourceType, ...] = tuple(type_ for type_ in ROWS if type_ not in _LIKELY)


_SCORES = f"{statements.SELECT['score']} where agent_instance_id = any(%s)"
_TOOL_CALLS = (
    "select agent_instance_id, schema_name, payload from agent_spans where position(%s in payload) > 0 and "
    "(schema_name in ('tool', 'mcp') or strpos(schema_name, ':tool') > 0 or strpos(schema_name, ':mcp') > 0)"
)
QUARTERS = f"(extract(epoch from coalesce(started_at, inserted_at)) * 1000000)::bigint / {QUARTER}"
"""The SQL expression of the quarter of an hour in which a span began (see sums.TimedSum)."""
_CACHED_CALLS = f"""
select agent_instance_id, schema_name, label, {QUARTERS}, input_tokens,
       case when strpos(payload, '"provider"') > 0 or strpos(payload, '"response_model"') > 0 then payload end,
       result_payload
from agent_spans where is_aggregate = 0
and (strpos(result_payload, '"cached_tokens"') > 0 or strpos(result_payload, '"cache_write_tokens"') > 0)"""
_TAGS = "select agent_instance_id, tag from tags where agent_instance_id = any(%s)"
# The newest score of each judge (`identifier`) counts. If it is empty, the judge has withdrawn it. Of the scores of a
# run's judges, the newest one is the result.
_LATEST = """
select distinct on (target_id) target_id, value, label from (
    select distinct on (target_id, identifier) target_id, value, label, explanation, inserted_at, id
    from scores where name = %s and target_type = 'agent_instance'{0}
    order by target_id, identifier, inserted_at desc, id desc
) newest where value is not null or label is not null or explanation is not null
order by target_id, inserted_at desc, id desc
"""
# A subquery for each run: with `= any` of 500 ids, PostgreSQL may read the whole table.
_MARKS = (
    "select asked.id, mark.* from unnest(%s::text[]) asked(id) cross join lateral ("
    "select status, count(*), max(updated_at), count(ended_late) from agent_spans "
    "where agent_instance_id = asked.id group by status) mark"
)
# _MARKS for tables on several servers: a statement per table. No status occurs in both tables.
_MARKS_APART = tuple(
    f"select agent_instance_id, status, count(*), max(updated_at), count(ended_late) from {table} "
    "where agent_instance_id = any(%s) group by 1, 2"
    for table in statements.SPAN_TABLES
)
_KEYS = (
    f"select {statements.KEY_COLUMNS} from idempotency_keys "
    f"where (operation, key) > (%s, %s) and inserted_at >= coalesce({statements.TIME}, '-infinity') "
    "order by operation, key limit %s"
)


class Lends(NamedTuple):
    """The functions that lend connections to reads.

    Attributes:
        reading: for a read of one statement.
        snapshot: for a read of several statements, which all see the same state.
        glance: like `snapshot`, for statements that return few rows each. Its BEGIN takes no round trip.
    """

    reading: Lend
    snapshot: Lend
    glance: Lend


class Reads:
    """Answers questions by SQL, over connections that are lent for each question.

    Args:
        lends: the connections of a storage, or the one of a transaction.
        answers: the function for each type of question. Its first argument is `lends`. It may return NotImplemented.
    """

    def __init__(self, lends: "Lends | Connections", answers: Answers) -> None:
        self._lends = lends
        self._answers = answers

    def ask(self, question: Question[T]) -> T:
        """Answer a question by SQL, or in Python from single rows if there is no SQL for it."""
        answer = self._answers.get(type(question))
        found = NotImplemented if answer is None else answer(self._lends, question)
        if found is not NotImplemented:
            return cast(T, found)
        from agentspan.storage import row_by_row

        return row_by_row.answer(cast(Storage, self), question)


def _account(lends: Lends, asked: Account) -> AccountRow:
    return AccountRow(*read(lends.reading, statements.SELECT["account"])[0])


def _find(lends: Lends, asked: Find) -> Found:
    """Find rows. Spans, and a run that `instance_id` names, are found by one statement."""
    ids, found = asked.ids, _Read({}, {})
    if asked.key is None and ids:
        type_: ResourceType = "agent_instance" if ids == (asked.instance_id,) else "agent_span"
        with lends.reading() as connection:
            if not connection.is_distributed or type_ == "agent_instance":
                _add(connection, found, type_, rows_of(connection, _sql_of(connection, type_)[0], (storable(ids),)))
        if len(found.rows) == len({*ids}):
            return Found({id: found.rows[id] for id in ids}, None, found.terminated)
    with lends.glance() as connection:
        return find(connection, ids, asked.key)


def _page(lends: Lends, query: Query) -> Rows:
    most = query.most_bytes
    sql, values = statements.page(query) if most is None else statements.page_within(query, most)
    if not all(is_storable(value) for value in values if isinstance(value, str)):
        return Rows([], 0 if query.with_total else None)
    make = ROWS[query.type]._make
    with lends.glance() if query.with_total else lends.reading() as connection:
        found = rows_of(connection, sql, values)
        number = len(found)
        is_all = not query.offset and not query.after and (query.limit is None or number < query.limit)
        total = number if is_all or not query.with_total else rows_of(connection, *statements.total(query))[0][0]
    page = Rows([], total if query.with_total else None)
    if most is None:
        page.rows.extend(map(make, found))
        return page
    page.rows.extend(make(row[:-2]) for row in found if row[-2] <= most)
    is_cut = any(before + size > most for *_, before, size in found)
    return with_rest(page, [row[0] for row in found[len(page.rows) :]]) if is_cut else page


def _spans(lends: Lends, asked: SpansOf) -> Iterator[AgentSpanRow]:
    few = read(lends.reading, statements.FIRST_SPANS, (asked.instance_id, FETCHED + 1))
    if len(few) <= FETCHED:  # nearly all runs: one round trip instead of six
        yield from map(AgentSpanRow._make, few)
        return
    process = os.getpid()
    with lends.snapshot() as connection, psycopg.ServerCursor(connection, "spans") as cursor:
        cursor.execute(statements.SPANS, (asked.instance_id,), binary=True)
        while rows := cursor.fetchmany(FETCHED):
            for row in rows:
                yield AgentSpanRow._make(row)
            if os.getpid() != process:
                raise StorageError("this process was forked while it read the spans of a run; read them again")


def _outlines(lends: Lends, asked: Outlines) -> list[AgentSpanRow]:
    since = asked.since
    changed = "" if since is None else f" and {statements.compared('updated_at', '>=', since)}"
    values = (asked.instance_id, asked.after, *(() if since is None else (since,)), asked.limit)
    if len(storable([value for value in values if isinstance(value, str)])) < len(values) - 1:
        return []
    sql = statements.BARE if asked.bare else statements.OUTLINES
    return [AgentSpanRow._make(row) for row in read(lends.reading, sql.format(changed), values)]


def _by_id(lends: Lends, sql: str, ids: Sequence[str]) -> dict[str, list[Any]]:
    """Return the rows of a SELECT by their first column, one of these ids, without that column."""
    found: dict[str, list[Any]] = {id: [] for id in ids}
    for id, *values in read(lends.reading, sql, (storable(ids),)):
        found[id].append(values)
    return found


def _counts(lends: Lends, asked: Counts) -> Mapping[str, SpanCounts]:
    counted = _by_id(lends, statements.COUNTS, asked.instance_ids)
    return {id: span_counts(dict(numbers)) for id, numbers in counted.items()}


def _sums(lends: Lends, asked: SpanSums) -> list[SpanSum]:
    return [SpanSum._make(row) for row in read(lends.reading, statements.SUMS, (asked.instance_id,))]


def _violations(lends: Lends, asked: Violations) -> Mapping[str, list[Violation]]:
    found = _by_id(lends, statements.VIOLATIONS, asked.span_ids)
    return {id: [*map(Violation._make, violations)] for id, violations in found.items()}


def _newest_scores(lends: Lends, asked: NewestScores) -> list[ScoreRow]:
    return counting(map(ScoreRow._make, read(lends.reading, _SCORES, (storable(asked.instance_ids),))))


def _latest_scores(lends: Lends, asked: LatestScores) -> Mapping[str, LatestScore]:
    values = (asked.name,) if asked.source is None else (asked.name, asked.source)
    if len(storable(values)) < len(values):
        return {}
    sql = _LATEST.format("" if asked.source is None else " and source = %s")
    return {id: LatestScore(value, label) for id, value, label in read(lends.reading, sql, values)}


def _tags(lends: Lends, asked: Tags) -> Mapping[str, list[str]]:
    return {id: sorted(tag for (tag,) in tags) for id, tags in _by_id(lends, _TAGS, asked.instance_ids).items()}


def _touched(lends: Lends, asked: Touched) -> frozenset[str]:
    path = normal(asked.path)
    values = (needle(path),)
    if len(storable(values)) < len(values):
        return frozenset()
    rows = read(lends.reading, _TOOL_CALLS, values)
    return frozenset(id for id, schema_name, payload in rows if touches(schema_name, payload, path))


def _cached_calls(lends: Lends, asked: CachedCalls) -> list[CachedCall]:
    of_runs = "" if asked.runs is None else " and agent_instance_id = any(%s)"
    values = () if asked.runs is None else (storable(list(asked.runs)),)
    rows = read(lends.reading, _CACHED_CALLS + of_runs, values)
    return [found for row in rows if (found := cached_call(*row)) is not None]


def _span_marks(lends: Lends, asked: SpanMarks) -> Mapping[str, frozenset[SpanMark]]:
    found: dict[str, set[SpanMark]] = {id: set() for id in asked.instance_ids}
    with lends.reading() as connection:
        for sql in _MARKS_APART if connection.is_distributed else (_MARKS,):
            for id, *mark in rows_of(connection, sql, (storable(asked.instance_ids),)):
                found[id].add(SpanMark._make(mark))
    return {id: frozenset(marks) for id, marks in found.items()}


def _stored_keys(lends: Lends, asked: StoredKeys) -> list[KeyRow]:
    values = (*(asked.after or ("", "")), asked.since or None, asked.limit)
    return [KeyRow._make(row) for row in read(lends.reading, _KEYS, values)]


ANSWERS: Answers = {
    Account: _account,
    Find: _find,
    Query: _page,
    SpansOf: _spans,
    Outlines: _outlines,
    Counts: _counts,
    SpanSums: _sums,
    Violations: _violations,
    NewestScores: _newest_scores,
    LatestScores: _latest_scores,
    Tags: _tags,
    Touched: _touched,
    CachedCalls: _cached_calls,
    SpanMarks: _span_marks,
    StoredKeys: _stored_keys,
}
"""The function for each type of question that needs a lent connection only."""


class _Read(NamedTuple):
    """Rows by id, and the reasons of terminated runs by run."""

    rows: dict[str, tuple[ResourceType, Row]]
    terminated: dict[str, str]


def _sql_of(connection: Connection, type_: ResourceType) -> tuple[str, ...]:
    """Return the SELECTs that find rows of a type by id. Those of spans in one view end with a termination reason."""
    if type_ != "agent_span":
        return (statements.BY_IDS[type_],)
    # With distributed tables, one statement takes 200 ms instead of 15.
    return statements.SPANS_APART if connection.is_distributed else (statements.SPANS_BY_IDS,)


def _add(connection: Connection, to: _Read, type_: ResourceType, values: Sequence[Sequence[Any]]) -> None:
    """Add the rows that `_sql_of` found, and the reasons for which their runs were terminated."""
    width = len(ROWS[type_]._fields)
    for each in values:
        row = ROWS[type_]._make(each[:width])
        to.rows[row.id] = type_, row
        reason = each[-1] if len(each) > width else terminated_of(connection, row)
        if reason is not None:
            to.terminated[instance_of(row)] = reason


def find(connection: Connection, ids: Sequence[str], key: Key | None) -> Found:
    """Return the rows with these ids, of any type, and the stored idempotency key with the row of its subject."""
    found, stored = _Read({}, {}), None
    keys = [] if key is None else [Statement(statements.KEY, (key.operation, key.key))]
    # Distributed spans come last: a span's id alone does not tell its worker.
    for types in (("agent_instance", *_OTHERS), ("agent_span",)) if connection.is_distributed else (_LIKELY, _OTHERS):
        rest = storable([id for id in ids if id not in found.rows])
        asked = [(type_, sql) for type_ in types for sql in _sql_of(connection, type_)] if rest else []
        if not asked and not keys:
            continue
        answers = rows_of_each(connection, [*(Statement(sql, (rest,)) for _, sql in asked), *keys])
        if keys and answers[-1]:
            stored = StoredKey(*answers[-1][0])
        keys = []
        for (type_, _), values in zip(asked, answers, strict=False):
            _add(connection, found, type_, values)
    if stored is not None and stored.subject not in ids:
        subject = find(connection, (stored.subject,), None)
        found = _Read({**found.rows, **subject.rows}, {**found.terminated, **subject.terminated})
    asked_for = dict.fromkeys((*ids, *found.rows))
    return Found({id: found.rows[id] for id in asked_for if id in found.rows}, stored, found.terminated)


def locate(connection: Connection, id: str) -> tuple[ResourceType, Row] | None:
    """Return the type and the row of an id; None if no row has it."""
    return find(connection, (id,), None).rows.get(id)


def terminated_in(connection: Connection, instance_id: str) -> str | None:
    """Return the reason why an instance was terminated; None if it was not."""
    found = rows_of(connection, statements.TERMINATED, (instance_id,))
    return cast(str, found[0][0] or "") if found else None


def terminated_of(connection: Connection, row: Row) -> str | None:
    """Return the reason why a row's instance, or the row itself, was terminated; None if it was not."""
    if isinstance(row, AgentInstanceRow):
        return row.termination_reason or "" if row.status == "terminated" else None
    return terminated_in(connection, row.agent_instance_id) if isinstance(row, AgentSpanRow) else None


_NOW = """
select pg_snapshot_xmin(now.it)::text::bigint, pg_snapshot_xmax(now.it)::text::bigint,
       (extract(epoch from clock_timestamp()) * 1000)::bigint,
       extract(epoch from pg_postmaster_start_time())::bigint
from (select pg_current_snapshot() as it) now
"""
_SINCE = " and ((xmin::text::bigint - %(xmin)s) & 4294967295) < 2147483648"
_WHERE = "agent_instance_id = %(run)s and id > %(after)s{0} order by id limit %(limit)s"
_SPANS = " union all ".join(f"(select {OUTLINE} from {table} where {_WHERE})" for table in SPAN_TABLES)
_CURSOR = re.compile(r"(\d{1,20})\.(\d{1,10})\.(\d{1,15})\Z", re.ASCII)


def changed_spans(connections: Connections, asked: ChangedSpans) -> Changed:
    """Return the spans that were committed since a cursor.

    A cursor has the lowest transaction number under way, the start of the server, and the time since which the number
    has been the lowest. After a restart all spans are read once more: the server may be a copy, which counts anew.
    """
    if not is_storable(asked.instance_id) or not is_storable(asked.after):
        return Changed([], "", 0.0)
    with connections.glance() as connection:
        xmin, xmax, now_ms, started = rows_of(connection, _NOW)[0]
        known = _CURSOR.match(asked.cursor)
        before, since_ms = None, now_ms
        if known is not None and int(known[2]) == started and int(known[1]) <= xmin:
            before = int(known[1])
            if before == xmin < xmax:
                since_ms = int(known[3])
        condition = "" if before is None else _SINCE
        low = 0 if before is None else before & 0xFFFFFFFF
        values = {"run": asked.instance_id, "after": asked.after, "limit": asked.limit, "xmin": low}
        sql = f"select * from ({_SPANS.format(condition)}) spans order by id limit %(limit)s"
        rows = [AgentSpanRow._make(row) for row in rows_of(connection, sql, values)]
    return Changed(rows, f"{xmin}.{started}.{since_ms}", max(0.0, (now_ms - since_ms) / 1000))
