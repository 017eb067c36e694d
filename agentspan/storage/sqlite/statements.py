"""The SQL statements for rows, built once from their fields. Statements that depend on a change are built per shape."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from agentspan.model.changes import OPEN
from agentspan.model.rows import ROWS, UNIQUE, AgentSpanRow, ResourceType, ScoreRow
from agentspan.storage.questions import Query
from agentspan.storage.sqlite.joining import ALL_BITS, BIT, BITS, failed_step, with_blobs
from agentspan.storage.sqlite.migrations import table_of

T = TypeVar("T")
CHUNK = 500
"""The largest number of ids in one statement."""
INSERT = {
    row: f"insert into {table_of(type_)} ({', '.join(row._fields)}) values ({', '.join('?' * len(row._fields))})"
    for type_, row in ROWS.items()
}
STORED = (*AgentSpanRow._fields, "contents")


def chunks(ids: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield a sequence in slices of at most CHUNK elements, each small enough for one statement."""
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))


def _insert_span(columns: tuple[str, ...], source: str, agent: str) -> str:
    """Return an INSERT of a span with the agent of its run, which a file that replaced another has under another id."""
    run, own = (f"?{columns.index(name) + 1}" for name in ("agent_instance_id", "agent_id"))
    values = (agent.format(run=run, own=own) if f"?{n}" == own else f"?{n}" for n in range(1, len(columns) + 1))
    return f"insert into agent_spans ({', '.join(columns)}) select {', '.join(values)}{source.format(run=run)}"


def _unless_terminated(columns: tuple[str, ...]) -> str:
    """Return an INSERT that inserts a span only if its run is stored and not terminated.

    The condition takes 0.8 µs; a separate query would take 4 µs.
    """
    run = " from agent_instances i where i.id = {run} and i.status <> 'terminated'"
    return _insert_span(columns, run, "i.agent_id")


_AGENT = "coalesce((select agent_id from agent_instances where id = {run}), {own})"
INSERT[AgentSpanRow] = _insert_span(AgentSpanRow._fields, "", _AGENT)
INSERT_SPAN = _insert_span(STORED, "", _AGENT)
"""Inserts a span whose payload or result has references to contents or blobs."""
INSERT_UNLESS_TERMINATED = _unless_terminated(AgentSpanRow._fields)
UNUSED = AgentSpanRow._fields.index("summary") + 1
"""The index of the first usage column. Usage is null in nearly all new spans, and binding a None takes 0.2 µs."""
INSERT_UNUSED_UNLESS_TERMINATED = _unless_terminated(AgentSpanRow._fields[:UNUSED])
INSERT_SPAN_UNLESS_TERMINATED = _unless_terminated(STORED)
DELETE = {type_: f"delete from {table_of(type_)} where id = ?" for type_ in ROWS}


def column_of(type_: ResourceType, column: str, table: str = "", schema: str = "") -> str:
    """Return the SQL of a column's value. For a span's payload and result, it joins the stored parts (see contents)."""
    table = table or table_of(type_)
    return with_blobs(column, table, schema) if type_ == "agent_span" and column in BIT else f"{table}.{column}"


_VALUES = {type_: [f"{column_of(type_, field)} as {field}" for field in row._fields] for type_, row in ROWS.items()}
SELECT = {type_: f"select {', '.join(values)} from {table_of(type_)}" for type_, values in _VALUES.items()}
BY_ID = {type_: f"{select} where id = ?" for type_, select in SELECT.items()}
EXISTS = {type_: f"select 1 from {table_of(type_)} where id = ?" for type_ in ROWS}
BY_UNIQUE = {
    type_: f"{SELECT[type_]} where {' and '.join(f'{column} = ?' for column in columns)}"
    for type_, columns in UNIQUE.items()
}

HAS_SPANS = "select 1 from agent_spans where agent_instance_id = ? limit 1"
RUN_OF_SPAN = "select agent_instance_id from agent_spans where id = ?"
SET_AGENT_OF_SPANS = "update agent_spans set agent_id = ?1 where agent_instance_id = ?2"
TERMINATED = "select termination_reason from agent_instances where id = ? and status = 'terminated'"
# These are asked of many ids at once: see reads.rows_of_each.
RUNS_OF_SPANS = "select id, agent_id, status = 'terminated' from agent_instances where id in ({})"
COUNTS = "select agent_instance_id, status, count(*) from agent_spans where agent_instance_id in ({}) group by 1, 2"
MARKS = (
    "select agent_instance_id, status, count(*), max(updated_at), count(ended_late) from agent_spans "
    "where agent_instance_id in ({}) group by agent_instance_id, status"
)
VIOLATIONS = (
    "select agent_span_id, side, path, keyword, message from schema_violations where agent_span_id in ({}) order by id"
)
SCORES = f"select {', '.join(ScoreRow._fields)} from scores where agent_instance_id in ({{}})"
TAGS = "select agent_instance_id, tag from tags where agent_instance_id in ({})"
SPANS = f"{SELECT['agent_span']} where agent_instance_id = ? order by id"
# 5,000 spans with 20 kB of payload each take 0.07 s; whole rows take 0.15 to 0.35 s. Small payloads: no difference.
_OUTLINE = {
    "payload": f"case when summary is null then {column_of('agent_span', 'payload')} else '{{}}' end",
    "result_payload": f"case when {failed_step('agent_spans')} then {column_of('agent_span', 'result_payload')} end",
}
_BARE = {"payload": "'{}'", "result_payload": "null"}
OUTLINES, BARE = (
    f"select {', '.join(columns.get(field, field) for field in AgentSpanRow._fields)} from agent_spans "
    "where agent_instance_id = ? and id > ? and updated_at >= ? order by id limit ?"
    for columns in (_OUTLINE, _BARE)
)
# A payload is joined from its parts only for the calls of tools; the last part of a path is in the text or in a part.
TOOL_CALLS = (
    "select agent_instance_id, schema_name, whole from (select agent_instance_id, schema_name, "
    f"{column_of('agent_span', 'payload')} as whole from agent_spans "
    "where schema_name in ('tool', 'mcp') or schema_name like '%:tool%' or schema_name like '%:mcp%') "
    "where instr(whole, ?)"
)
INSERT_VIOLATION = "insert into schema_violations (agent_span_id, side, path, keyword, message) values (?, ?, ?, ?, ?)"
FORGET_VIOLATIONS = "delete from schema_violations where agent_span_id = ? and side = 'payload'"
KEY = "select request_hash, subject from idempotency_keys where operation = ? and key = ?"
# A query before the INSERT would take half its time, and nearly every key is new.
INSERT_KEY = (
    "insert into idempotency_keys (operation, key, request_hash, subject, inserted_at) values (?, ?, ?, ?, ?) "
    "on conflict do nothing"
)
FORGET_KEY = "delete from idempotency_keys where operation = ? and key = ?"


@lru_cache(maxsize=64)
def insert_spans(number: int, columns: tuple[str, ...]) -> str:
    """Return an INSERT of several spans.

    Args:
        number: the number of spans.
        columns: the columns that are set; the others become null or their default.
    """
    row = f"({', '.join('?' * len(columns))})"
    return f"insert into agent_spans ({', '.join(columns)}) values {', '.join([row] * number)}"


@lru_cache(maxsize=512)
def update(
    type_: ResourceType,
    columns: tuple[str, ...],
    leaves: frozenset[str],
    unchanged: tuple[str, ...] = (),
    *,
    has_contents: bool = False,
) -> str:
    """Return the UPDATE of a Move. Its parameters: the values of the columns, the id, the values of `unchanged`.

    Args:
        has_contents: whether the new payload or result of a span has references. Then the first parameter is the new
            bits of the column `contents`.
    """
    values = ", ".join(f"{column} = ?" for column in columns)
    replaced = sum(bits for column, bits in BITS.items() if column in columns) if type_ == "agent_span" else 0
    if has_contents:
        values = f"contents = contents & {ALL_BITS - replaced} | ?, {values}"
    elif replaced and not (leaves and leaves <= OPEN and "payload" not in columns):  # an open span has no result
        values = f"contents = contents & ~{replaced}, {values}"
    statuses = ", ".join(f"'{status}'" for status in sorted(leaves))
    guard = f" and status in ({statuses})" if leaves else ""
    guard += "".join(f" and {column_of(type_, column)} is ?" for column in unchanged)
    return f"update {table_of(type_)} set {values} where id = ?{guard}"


SUMS = (
    "select status, schema_name, label, count(*), sum(cost_usd) filter (where not is_aggregate) from agent_spans "
    "where agent_instance_id = ? group by 1, 2, 3"
)


# In SQLite, a bare column beside max() is from the row with the maximum. Long explanations are not returned.
# 100,000 scores of 10,000 runs: 0.11 s of CPU without an SQL index by name, 0.08 s with one, which slows every write.
LATEST_SCORES = """
select target_id, value, label, value is null and label is null and explanation is null, max(inserted_at || id)
from scores where name = ? and target_type = 'agent_instance' and {source} group by target_id, identifier
"""


STORED_KEYS = (
    "select operation, key, request_hash, subject, inserted_at from idempotency_keys "
    "where (operation, key) > (?, ?) and inserted_at >= ? order by operation, key limit ?"
)


def page(query: Query, select: str = "") -> tuple[str, list[object]]:
    """Return the SELECT of a query's page, and its parameters.

    Args:
        select: the beginning of the statement, `select … from …`; "" selects all columns.
    """
    conditions, values = _conditions(query)
    if query.after:
        conditions.append(f"id {'<' if query.descending else '>'} ?")
        values.append(query.after)
    direction = " desc" if query.descending else ""
    order = f"{query.order}{direction}, id{direction}" if query.order != "id" else f"id{direction}"
    limit = f" limit {-1 if query.limit is None else int(query.limit)} offset {int(query.offset)}"
    return f"{select or SELECT[query.type]}{_where(conditions)} order by {order}{limit}", values


def total(query: Query) -> tuple[str, list[object]]:
    """Return the SELECT that counts all rows that match a query, and its parameters."""
    conditions, values = _conditions(query)
    return f"select count(*) from {table_of(query.type)}{_where(conditions)}", values


def _conditions(query: Query) -> tuple[list[str], list[object]]:
    """Return the SQL conditions of a query, and their parameters.

    Raises:
        ValueError: the query names a column that its type does not have.
    """
    fields = ROWS[query.type]._fields
    unknown = [column for column in (*query.where, query.order) if column not in fields]
    if unknown:
        raise ValueError(f"{query.type} has no column {', '.join(unknown)}")
    conditions = [f"{column_of(query.type, column)} is ?" for column in query.where]
    if query.type == "agent_span" and "agent_id" in query.where and "agent_instance_id" not in query.where:
        by_agent = "agent_instance_id in (select id from agent_instances where agent_id is ?)"  # indexed
        conditions[[*query.where].index("agent_id")] = by_agent
    values: list[object] = list(query.where.values())
    if query.type == "agent_span":
        for bound, sign in ((query.start_time, ">="), (query.end_time, "<")):
            if bound is not None:
                conditions.append(f"coalesce(started_at, inserted_at) {sign} ?")
                values.append(bound)
    if query.prefix:  # a range, because LIKE ignores case and so cannot use the primary key
        conditions.append("id >= ? and id < ?")
        values.extend((query.prefix, query.prefix + "\U0010ffff"))
    return conditions, values


def _where(conditions: list[str]) -> str:
    return f" where {' and '.join(conditions)}" if conditions else ""
