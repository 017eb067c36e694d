"""The newest version of a file: its views, its required tables and columns, and the migration of older files.

A file's version is its `user_version`. Only a migration imports sqlite-utils; opening an up-to-date file does not.
Tables change by migrations only. Views hold no data, so they are dropped before the migrations and created again after
them, always in their newest form.
"""

import sqlite3
from collections.abc import Mapping, Sequence

from agentspan.model.columns import SHOWN_OF_SPANS
from agentspan.model.rows import ROWS, AgentSpanRow, ResourceType
from agentspan.storage.sqlite.contents.joining import error_text, whole
from agentspan.storage.sqlite.migrations import BEFORE, MIGRATIONS, Migration, newest

APPLICATION_ID = 0x61677370  # "agsp": identifies the file, also for the command `file`
CURRENT = newest(MIGRATIONS)

# An aggregate repeats the usage of other spans: counting both would double the run's tokens and cost.
_USED = "filter (where not s.is_aggregate)"

RUNS_VIEW = f"""
select i.id as run, a.name as agent, v.external_identifier as version, i.status, i.started_at, i.finished_at,
       i.duration_ms, count(s.id) as spans, count(s.id) filter (where s.status = 'failed') as failed_spans,
       sum(s.input_tokens) {_USED} as input_tokens, sum(s.output_tokens) {_USED} as output_tokens,
       sum(s.cost_usd) {_USED} as cost_usd,
       case when json_valid(i.error) then json_extract(i.error, '$.message') end as error, i.metadata, i.result,
       i.closed_by, i.closed_at, i.session, i.user, i.task,
       (select group_concat(tag, ', ') from tags t where t.agent_instance_id = i.id) as tags
from agent_instances i
join agents a on a.id = i.agent_id
join agent_versions v on v.id = i.agent_version_id
left join agent_spans s on s.agent_instance_id = i.id
group by i.id
"""

SPANS_VIEW = f"""
select a.name as agent, {", ".join(f"s.{column} as {name}" for column, name in SHOWN_OF_SPANS.items())},
       case when json_valid(s.result_payload) then coalesce(
           {error_text("s")},
           json_extract(s.result_payload, '$.error.message'),
           case when json_type(s.result_payload, '$.error') = 'text' then json_extract(s.result_payload, '$.error') end,
           case when s.status = 'failed' and json_type(s.result_payload, '$.error_type') = 'text'
                then json_extract(s.result_payload, '$.message') end
       ) end as error,
       {whole("payload", "s")} as payload, {whole("result_payload", "s")} as result_payload
from agent_spans s join agents a on a.id = s.agent_id
"""

VIEWS = {"runs": RUNS_VIEW, "spans": SPANS_VIEW}


def migrate(
    connection: sqlite3.Connection,
    from_version: int,
    migrations: Sequence[Migration] = MIGRATIONS,
    views: Mapping[str, str] = VIEWS,
) -> None:
    """Migrate the tables from a version (0 for a new file) to the newest one, in the caller's transaction."""
    from sqlite_utils import Database

    db = Database(connection, execute_plugins=False)
    for view in views:  # first: a column that a view names cannot be dropped or renamed
        connection.execute(f"drop view if exists {view}")
    for migration in migrations[max(0, from_version - BEFORE) :]:
        migration(db)
    for view, sql in views.items():
        db.create_view(view, sql)
    connection.execute(f"pragma application_id = {APPLICATION_ID}")
    connection.execute(f"pragma user_version = {newest(migrations)}")


def table_of(type_: ResourceType) -> str:
    """Return the name of the table for a type of rows."""
    return f"{type_}s"


_COLUMNS = {
    **{table_of(type_): row._fields for type_, row in ROWS.items()},
    "agent_spans": (*AgentSpanRow._fields, "contents"),
    "schema_violations": ("id", "agent_span_id", "side", "path", "keyword", "message"),
    "idempotency_keys": ("operation", "key", "request_hash", "subject", "inserted_at"),
    "content_runs": ("id", "agent_instance_id"),
    "contents": ("id", "run", "text"),
    "blobs": ("id", "run", "sha256", "media_type", "data"),
}
_FOUND = f"""
select t.name, c.name from main.sqlite_master t join pragma_table_info(t.name, 'main') c
where t.type = 'table' and t.name in ({", ".join(f"'{table}'" for table in _COLUMNS)})
"""


def missing(connection: sqlite3.Connection) -> str | None:
    """Return the first required table or column that a file lacks; None if it has all of them (0.1 ms)."""
    found: dict[str, set[str]] = {}
    for table, column in connection.execute(_FOUND):
        found.setdefault(table, set()).add(column)
    for table, columns in _COLUMNS.items():
        if table not in found:
            return f"table {table}"
        for column in columns:
            if column not in found[table]:
                return f"column {table}.{column}"
    if connection.execute("select 1 from accounts").fetchone() is None:
        return "row of table accounts"
    return None
