"""The tables and views of a schema: their names, the version that this code needs, and the migration to it."""

from agentspan.errors import DatabaseUnusable
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.new_account import new_account
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.migrations import MIGRATIONS
from agentspan.storage.postgres.statements import SPAN_TABLES, listed

CURRENT = len(MIGRATIONS)

LONGEST_S = 86_400
"""Seconds that a statement of a migration may take."""
VERSION = "select version from storage_version"
_LOCK = "select pg_advisory_xact_lock(hashtextextended('agentspan:' || %s, 0))"

# One relation for a reader: conditions and orders reach the indexes of both tables.
_ALL_SPANS = " union all ".join(f"select {listed(AgentSpanRow._fields)} from {table}" for table in SPAN_TABLES)

# No PostgreSQL text has a NUL or half of a surrogate pair, whose escapes are JSON all the same: U+FFFD stands for them.
# What is no JSON has no message. Neither must fail a whole SELECT.
_TEXT_AT = r"""
create or replace function json_text_at(text text, variadic path text[]) returns text language plpgsql immutable as $$
begin
    return text::json #>> path;
exception when others then
    begin
        return regexp_replace(text, '\\u(0000|d[89a-f]..)', '\ufffd', 'gi')::json #>> path;
    exception when others then
        return null;
    end;
end $$
"""
_TYPE_AT = """
create or replace function json_type_at(text text, variadic path text[]) returns text language plpgsql immutable as $$
begin
    return json_typeof(text::json #> path);
exception when others then
    return null;
end $$
"""

# A span that sums up others repeats what they used: counting both would double the run's tokens and cost.
_USED = "filter (where s.is_aggregate = 0)"
_RUNS = f"""
select i.id as run, a.name as agent, v.external_identifier as version, i.status, i.started_at, i.finished_at,
       i.duration_ms, count(s.id) as spans, count(s.id) filter (where s.status = 'failed') as failed_spans,
       sum(s.input_tokens) {_USED} as input_tokens, sum(s.output_tokens) {_USED} as output_tokens,
       sum(s.cost_usd) {_USED} as cost_usd, json_text_at(i.error, 'message') as error, i.metadata, i.result,
       i.closed_by, i.closed_at, i.session, i."user", i.task,
       (select string_agg(tag, ', ' order by tag) from tags t where t.agent_instance_id = i.id) as tags
from agent_instances i
join agents a on a.id = i.agent_id
join agent_versions v on v.id = i.agent_version_id
left join agent_spans s on s.agent_instance_id = i.id
group by i.id, a.id, v.id
"""
_SPANS = """
select s.agent_instance_id as run, a.name as agent, s.id as span, s.parent_span_id as parent, s.schema_name as type,
       s.label, s.status, s.summary, s.started_at, s.finished_at, s.duration_ms, s.input_tokens, s.output_tokens,
       s.cost_usd,
       case when s.status = 'failed' or s.result_payload like '%"error"%' then coalesce(
           json_text_at(s.result_payload, 'error', 'message'),
           case when json_type_at(s.result_payload, 'error') = 'string'
                then json_text_at(s.result_payload, 'error') end,
           case when s.status = 'failed' and json_type_at(s.result_payload, 'error_type') = 'string'
                then json_text_at(s.result_payload, 'message') end
       ) end as error,
       s.payload, s.result_payload, s.closed_by, s.closed_at, s.is_aggregate, s.ended_late, s.response_id,
       s.cache_write_tokens
from agent_spans s join agents a on a.id = s.agent_id
"""
VIEWS = {"agent_spans": _ALL_SPANS, "runs": _RUNS, "spans": _SPANS}


def migrate(connection: Connection, schema: str) -> None:
    """Create the schema, or migrate it to the current version, in the transaction that is under way.

    Raises:
        DatabaseUnusable: a newer agentspan has migrated it.
    """
    connection.execute("set local statement_timeout = 0")  # an index over many rows takes long
    connection.answer_s = LONGEST_S
    connection.execute(_LOCK, (schema,))  # programs that start together: one migrates
    connection.execute(f'create schema if not exists "{schema}"')
    connection.execute("create table if not exists storage_version (version integer not null)")
    found = connection.execute(VERSION).fetchone()
    version = 0 if found is None else found[0]
    if version > CURRENT:
        raise newer(version)
    if version == CURRENT:
        return
    for view in reversed(VIEWS):
        connection.execute(f"drop view if exists {view}")
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            connection.execute(statement)
    for statement in (_TEXT_AT, _TYPE_AT):
        connection.execute(statement)
    for view, sql in VIEWS.items():
        connection.execute(f"create view {view} as {sql}")
    if connection.execute("select 1 from accounts").fetchone() is None:
        connection.execute("insert into accounts values (%s, %s, %s, %s, %s)", new_account())
    connection.execute("delete from storage_version")
    connection.execute("insert into storage_version values (%s)", (CURRENT,))


def newer(version: int) -> DatabaseUnusable:
    """Return the error for a schema of a version that this code does not know."""
    return DatabaseUnusable(
        f"the tables have version {version}, this agentspan knows {CURRENT}; install a newer agentspan"
    )
