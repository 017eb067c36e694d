"""Fixed SQL, made once from the fields of rows. SQL that depends on a change or a query is made once per shape."""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from agentspan.model.changes import OPEN
from agentspan.model.columns import columns_of, json_columns
from agentspan.model.rows import ROWS, UNIQUE, AgentSpanRow, ResourceType
from agentspan.storage.postgres.connection import is_time
from agentspan.storage.questions import Query

FINISHED, OPEN_ONES = SPAN_TABLES = ("finished_spans", "open_spans")
_SQL_TYPES = {str: "text", int: "bigint", float: "double precision"}
TIME = "%s::timestamptz"


def table_of(type_: ResourceType) -> str:
    """Return the table of a resource type; for spans, the view over both tables."""
    return f"{type_[:-1]}ies" if type_.endswith("y") else f"{type_}s"


def quoted(column: str) -> str:
    """Return a column's name in quotes, because `user` is a keyword of SQL."""
    return f'"{column}"'


def listed(columns: Iterable[str]) -> str:
    """Return the quoted names of columns, with commas between them."""
    return ", ".join(map(quoted, columns))


def span_table(status: object) -> str:
    """Return the table that holds the spans with a status."""
    return OPEN_ONES if status in OPEN else FINISHED


def failed_step(table: str = "") -> str:
    """Return the SQL condition for a failed step, as schemas.failing has it, of a table `s.` or of the only one."""
    result = f"{table}result_payload"
    return (
        f"coalesce({table}status = 'failed' or ({table}status = 'complete' "
        f"and (strpos({result}, '\"is_error\"') > 0 or strpos({result}, '\\u') > 0) "
        f"and json_type_at({result}, 'is_error') = 'boolean' and json_text_at({result}, 'is_error') = 'true'), false)"
    )


def compared(time: str, sign: str, text: str) -> str:
    """Return the SQL condition that compares a time with a text. A text that is no time is compared as text."""
    if is_time(text):
        return f"{time} {sign} {TIME}"
    return f"""to_char({time}, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') collate "C" {sign} %s"""


_CASTS: Mapping[ResourceType, Mapping[str, str]] = {
    type_: {
        column.name: TIME if column.holds == "time" else f"%s::{_SQL_TYPES[column.type]}"
        for column in columns_of(type_)
    }
    for type_ in ROWS
}
"""The placeholder of each column, with a cast: in a SELECT, PostgreSQL would treat each value as text."""

SELECT = {type_: f"select {listed(row._fields)} from {table_of(type_)}" for type_, row in ROWS.items()}
BY_ID = {type_: f"{select} where id = %s" for type_, select in SELECT.items()}
BY_IDS = {type_: f"{select} where id = any(%s)" for type_, select in SELECT.items()}
LOCKED = {type_: f"{by_id} for update" for type_, by_id in BY_ID.items()}
LOCKED_SPAN = {
    table: f"select {listed(AgentSpanRow._fields)} from {table} where id = %s and agent_instance_id = %s for update"
    for table in SPAN_TABLES
}
SPANS_APART = tuple(
    f"select {listed(AgentSpanRow._fields)} from {table} where id = any(%s)" for table in reversed(SPAN_TABLES)
)
RUN_OF_SPAN = "select agent_instance_id from agent_spans where id = %s limit 1"
REFERRED = {type_: f"select 1 from {table_of(type_)} where id = %s for key share" for type_ in ROWS}
REFERRED["agent_instance"] = "select 1 from agent_instances where id = %s for share"
REFERRED["agent_span"] = "select 1 from agent_spans where id = %s"  # a view: removing a run locks the run
BY_UNIQUE = {
    type_: f"{SELECT[type_]} where {' and '.join(f'{quoted(column)} = %s' for column in columns)}"
    for type_, columns in UNIQUE.items()
}
BY_UNIQUE["agent_instance"] = (
    f"{SELECT['agent_instance']} where id = (select agent_instance_id from run_names "
    "where agent_id = %s and external_identifier = %s)"
)

FAILED = failed_step()

LOCK_ID = "select pg_advisory_xact_lock(hashtextextended(%s, 0))"
VERSION = "select version from storage_version"
SHARE_RUNS = "select 1 from agent_instances where id = any(%s) order by id for share"
LOCK_RUNS = (
    "select id, status, termination_reason, agent_id from agent_instances where id = any(%s) order by id "
    "for no key update"
)
RUNS_OF_SPANS = "select distinct agent_instance_id from agent_spans where id = any(%s)"
TERMINATED = "select termination_reason from agent_instances where id = %s and status = 'terminated'"
SEPARATOR = "\x1f"
# Two texts instead of arrays: psycopg makes an array of 500 texts in Python, in a quarter of the time of their COPY. A
# subquery for each id: if a table is not analyzed yet, `= any` reads all of it. The run limits the search for an id to
# one partition: with 52 partitions, a put takes 0.2 ms instead of 0.5 ms.
_ASKED = f"unnest(string_to_array(%s, '{SEPARATOR}'), string_to_array(%s, '{SEPARATOR}')) asked(run, id)"
SPAN_IDS_USED = f"select 1 from {_ASKED} where " + " or ".join(
    f"(select 1 from {table} s where s.agent_instance_id = asked.run and s.id = asked.id limit 1) is not null"
    for table in SPAN_TABLES
)
"""The SELECT that finds a used span id. Its values: the runs and the ids, each joined by SEPARATOR."""
SPAN_IDS_USED_APART = tuple(
    f"select 1 from {table} where agent_instance_id = any(%s) and id = any(%s) limit 1" for table in SPAN_TABLES
)
"""SPAN_IDS_USED for tables on several servers, a statement per table. Its values: arrays of runs and ids."""
# Checked first: mostly no stored span has an id in the range of a batch. 0.1 ms instead of 1.5 ms for 500 ids.
SPANS_BETWEEN = "select 1 where " + " or ".join(
    f"exists (select 1 from {table} where agent_instance_id = any(%(runs)s) and id >= %(first)s and id <= %(last)s)"
    for table in SPAN_TABLES
)
SPANS = f"{SELECT['agent_span']} where agent_instance_id = %s order by id"
FIRST_SPANS = f"{SPANS} limit %s"
NAME_RUN = "insert into run_names (agent_id, external_identifier, agent_instance_id) values (%s, %s, %s)"
FORGET_NAME = "delete from run_names where agent_id = %s and external_identifier = %s"
VIOLATION_COLUMNS = "agent_instance_id, agent_span_id, side, path, keyword, message"
COPY_VIOLATIONS = f"copy schema_violations ({VIOLATION_COLUMNS}) from stdin"
FORGET_VIOLATIONS = "delete from schema_violations where agent_span_id = %s and side = 'payload'"
NOTE_REWRITTEN = "insert into rewritten_runs (agent_instance_id) select unnest(%s::text[]) on conflict do nothing"
VIOLATIONS = (
    "select agent_span_id, side, path, keyword, message from schema_violations "
    "where agent_span_id = any(%s) order by id"
)
KEY_COLUMNS = "operation, key, request_hash, subject, inserted_at"
KEY = "select request_hash, subject from idempotency_keys where operation = %s and key = %s"
INSERT_KEY = f"insert into idempotency_keys ({KEY_COLUMNS}) values (%s, %s, %s, %s, %s)"
COUNTS = "select agent_instance_id, status, count(*) from agent_spans where agent_instance_id = any(%s) group by 1, 2"
SUMS = (
    "select status, schema_name, label, count(*), sum(cost_usd) filter (where is_aggregate = 0) from agent_spans "
    "where agent_instance_id = %s group by 1, 2, 3"
)
_OUTLINE = {
    "payload": "case when summary is null then payload else '{{}}' end",
    "result_payload": f"case when {FAILED} then result_payload end",
}
OUTLINE = ", ".join(_OUTLINE.get(field, quoted(field)) for field in AgentSpanRow._fields)
"""The columns of a span, without most of its payloads. A template for `str.format`: `{{}}` becomes `{}`."""
_BARE = {"payload": "'{{}}'", "result_payload": "null"}
_BARE_OUTLINE = ", ".join(_BARE.get(field, quoted(field)) for field in AgentSpanRow._fields)
OUTLINES, BARE = (
    f"select {columns} from agent_spans where agent_instance_id = %s and id > %s{{0}} order by id limit %s"
    for columns in (OUTLINE, _BARE_OUTLINE)
)
"""The SELECTs of a page of a run's spans without most or all payloads; `{0}` stands for a further condition."""
_REASON = "(select coalesce(termination_reason, '') from {0} where status = 'terminated'{1})"
SPANS_BY_IDS = (
    f"select {listed(AgentSpanRow._fields)}, {_REASON.format('agent_instances', ' and id = s.agent_instance_id')} "
    "from agent_spans s where s.id = any(%s)"
)
"""The SELECT of spans, each with the reason why its run was terminated."""


def copy(table: str) -> str:
    """Return the COPY statement that fills a table of spans."""
    return f"copy {table} ({listed(AgentSpanRow._fields)}) from stdin"


_UNUSED_KEY = " and not exists (select 1 from idempotency_keys where operation = %s and key = %s)"
# The statement of a change also stores its key and violations, from the changed row `put`: without one, it stores none.
_STORE_KEY = f", used as (insert into idempotency_keys ({KEY_COLUMNS}) select %s, %s, %s, %s, %s::timestamptz from put)"
_STORE_VIOLATIONS = (
    f", violated as (insert into schema_violations ({VIOLATION_COLUMNS}) "
    "select put.agent_instance_id, put.id, side, path, keyword, message from put, unnest(%s::text[], %s::text[], "
    "%s::text[], %s::text[]) with ordinality found(side, path, keyword, message, place) order by place)"
)
_STORE_NAME = (
    ", named as (insert into run_names (agent_id, external_identifier, agent_instance_id) "
    "select agent_id, external_identifier, id from put)"
)
# The delete does not see violations that the same statement inserts.
_FORGET_VIOLATIONS = (
    ", forgotten as (delete from schema_violations where agent_span_id = (select id from put) and side = 'payload')"
)


def _beside(*, has_key: bool, has_violations: bool) -> str:
    return (_STORE_KEY if has_key else "") + (_STORE_VIOLATIONS if has_violations else "")


@lru_cache(maxsize=512)
def move(
    type_: ResourceType,
    columns: frozenset[str],
    leaves: frozenset[str],
    unchanged: tuple[tuple[str, bool], ...],
    *,
    is_end: bool = False,
    has_run: bool = False,
    has_key: bool = False,
    has_violations: bool = False,
    wants_row: bool = False,
) -> str:
    """Return the statement that sets columns of an open span, or of another row, and stores its key and violations.

    If it replaces the payload, it removes the payload's old violations. It returns one row, or none if a guard fails:
    null, or with `wants_row` (0.1 ms more) the changed row and the reason why the run of a span was terminated.

    Its values: the values to set, in the order of the table's columns; the guard: the id, the run if `has_run`, the
    values that must not change, the key's operation and text; the five columns of the key; the lists of sides, paths,
    keywords and messages. If the span ends (`is_end`), it moves to `finished_spans`, and the guard comes first.

    Args:
        unchanged: the columns whose stored value the guard compares, and whether it must be null.
    """
    casts, fields = _CASTS[type_], ROWS[type_]._fields
    is_span = type_ == "agent_span"
    table = OPEN_ONES if is_span else table_of(type_)
    guard = "id = %s and agent_instance_id = %s" if has_run else "id = %s"
    statuses = ", ".join(f"'{status}'" for status in sorted(leaves))
    guard += f" and status in ({statuses})" if leaves else ""
    for column, is_null in unchanged:
        guard += f" and {quoted(column)} is null" if is_null else f" and {quoted(column)} = {casts[column]}"
    guard += _UNUSED_KEY if has_key else ""
    beside = _FORGET_VIOLATIONS if is_span and "payload" in columns else ""
    beside += _beside(has_key=has_key, has_violations=has_violations)
    returned = "*" if wants_row or beside else "id"
    if is_end:
        values = ", ".join(casts[field] if field in columns else quoted(field) for field in fields)
        put = (
            f"gone as (delete from {table} where {guard} returning *), put as (insert into {FINISHED} "
            f"({listed(fields)}) select {values} from gone returning {returned})"
        )
    else:
        set_to = ", ".join(f"{quoted(field)} = {casts[field]}" for field in fields if field in columns)
        put = f"put as (update {table} set {set_to} where {guard} returning {returned})"
    reason = _REASON.format("agent_instances", " and agent_instances.id = put.agent_instance_id") if is_span else "null"
    return f"with {put}{beside} select {f'{listed(fields)}, {reason}' if wants_row else 'null'} from put"


@lru_cache(maxsize=512)
def put(
    type_: ResourceType,
    table: str,
    refs: tuple[ResourceType, ...],
    *,
    minted: bool,
    is_unique: bool = False,
    has_key: bool = False,
    has_violations: bool = False,
) -> str:
    """Return the statement that inserts a row, and stores its key and violations, and the name of a run.

    It returns the reason why the run of a span was terminated, else null. If the id or the unique values are used, or
    a row that it refers to is missing, it returns no row. It locks the rows that it refers to: their removal, and a
    batch of the same run, wait.

    Its values: the run of a span; the row; the id, for a span followed by the run, or if not `minted` once for each
    type; the unique values; the ids of `refs`; the key's operation and text; then the key's columns and the lists of
    violations, as for `move`.
    """
    fields, casts = ROWS[type_]._fields, _CASTS[type_]
    is_span = type_ == "agent_span"
    types = (type_,) if minted else tuple(ROWS)
    of_run = " and agent_instance_id = %s" if minted and is_span else ""  # limits the search for the id to a partition
    guards = [f"not exists (select 1 from {table_of(each)} where id = %s{of_run})" for each in types]
    guards += [f"not exists ({BY_UNIQUE[type_]})"] if is_unique else []
    guards += [f"exists ({REFERRED[each]})" for each in refs]
    beside = _STORE_NAME if is_unique and type_ == "agent_instance" else ""
    beside += _beside(has_key=has_key, has_violations=has_violations)
    run, source, reason = "", "", "null"
    if is_span:
        run = "run as materialized (select status, termination_reason, agent_id as agent from agent_instances "
        run += "where id = %s for share), "
        casts = {**casts, "agent_id": f"coalesce(run.agent, {casts['agent_id']})"}
        source, reason = " from run", _REASON.format("run", "")
    return (
        f"with {run}put as (insert into {table} ({listed(fields)}) select {', '.join(casts[each] for each in fields)}"
        f"{source} where {' and '.join(guards)}{_UNUSED_KEY if has_key else ''} returning {'*' if beside else 'id'})"
        f"{beside} select {reason} from put"
    )


_OF_ONE = "returning id) select null from put"


@lru_cache(maxsize=64)
def of_many(sql: str) -> str | None:
    """Return the statement of one change as one of many changes; None if it stores, or returns, more than a row.

    Its values are arrays of texts, one for each value of `sql`. It returns the ids of the changed rows.
    """
    if not (sql.startswith("with put as (") and sql.endswith(_OF_ONE)):
        return None
    names = [f"value_{number}" for number in range(sql.count("%s"))]
    given = f" from unnest({', '.join(['%s::text[]'] * len(names))}) given({', '.join(names)}) where "
    head, _, guard = sql.replace("%s", "{}").format(*names).partition(" where ")
    return f"{head}{given}{guard.replace(_OF_ONE, 'returning id) select id from put')}"


def page(query: Query) -> tuple[str, list[object]]:
    """Return the SELECT of a page, and its values."""
    conditions, values = _conditions(query)
    if query.after:
        conditions.append(f"id {'<' if query.descending else '>'} %s")
        values.append(query.after)
    limit = "" if query.limit is None else f" limit {int(query.limit)}"
    offset = f" offset {int(query.offset)}" if query.offset else ""
    return f"{SELECT[query.type]}{_where(conditions)} order by {_order(query)}{limit}{offset}", values


def page_within(query: Query, most_bytes: int) -> tuple[str, list[object]]:
    """Return the SELECT of a page with bounded JSON, and its values.

    Two columns are added: the bytes of JSON in the rows before, and in the row. The JSON of a row is null if the rows
    before have more than `most_bytes`. PostgreSQL knows the length of a long text without reading the text.
    """
    select, values = page(query)
    json = json_columns(query.type)
    size = " + ".join(f"coalesce(octet_length({quoted(column)}), 0)" for column in json) or "0"
    fields = [
        f"case when up_to - size <= {int(most_bytes)} then {quoted(name)} end" if name in json else quoted(name)
        for name in ROWS[query.type]._fields
    ]
    order = f"order by {_order(query)}"
    sized = f"select *, {size} as size from ({select}) as page"
    summed = f"select *, sum(size) over ({order} rows unbounded preceding) as up_to from ({sized}) as sized"
    return f"select {', '.join(fields)}, (up_to - size)::bigint, size from ({summed}) as summed {order}", values


def _order(query: Query) -> str:
    direction = " desc" if query.descending else ""
    nulls = " nulls last" if query.descending else " nulls first"
    first = "" if query.order == "id" else f"{quoted(query.order)}{direction}{nulls}, "
    return f"{first}id{direction}"


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
    conditions: list[str] = []
    values: list[object] = []
    for column, value in query.where.items():
        is_time = _CASTS[query.type][column] == TIME and value is not None
        equal = compared(quoted(column), "=", str(value)) if is_time else f"{quoted(column)} = %s"
        conditions.append(f"{quoted(column)} is null" if value is None else equal)
        if column == "agent_id" and query.type == "agent_span" and "agent_instance_id" not in query.where:
            # Spans have no index by agent, only runs have one.
            conditions[-1] = "agent_instance_id in (select id from agent_instances where agent_id = %s)"
        if value is not None:
            values.append(value)
    if query.type == "agent_span":
        for bound, sign in ((query.start_time, ">="), (query.end_time, "<")):
            if bound is not None:
                conditions.append(compared("coalesce(started_at, inserted_at)", sign, bound))
                values.append(bound)
    if query.prefix:  # a range, which the primary key answers
        conditions.append("id >= %s and id < %s")
        values.extend((query.prefix, query.prefix + "\U0010ffff"))
    return conditions, values


def _where(conditions: list[str]) -> str:
    return f" where {' and '.join(conditions)}" if conditions else ""
