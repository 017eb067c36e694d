"""The migrations of a schema, in order; each leads to the next version (table `storage_version`). And its views.

The first migration makes the tables of the first release. Older schemas have the versions up to BEFORE, and are refused
(see storage.protocol). A released migration is never edited or removed. It lists all columns, as the migrations of
SQLite do; a test compares the tables with model/rows.py. Rules for all tables, so that they can be distributed and
partitioned by run:

- A table with rows of runs has `agent_instance_id` as the first column of each unique key.
- There are no foreign keys. Writers lock the rows that they refer to instead (see statements.put).
- Payloads are text: jsonb refuses `\u0000` and lone surrogates, and changes the order of keys.
- Text compares by code points (`collate "C"`), as in SQLite and in Python.
- A finished span has the number of the transaction that stored it, by which the index (see index) finds it.
- Finished spans lie in partitions by the time that the ids of their runs carry (see partitions).
- Spans that are open are in a small table of their own. A finish moves its span to `finished_spans`, which is only
  appended to, so it has no dead rows to be vacuumed.

A migration is one transaction. Slow work on a large table, such as validating a constraint or building an index
CONCURRENTLY, is a step before it, outside any transaction, while other programs read and write. A step must handle the
remains of an interrupted attempt. One program migrates at a time. It holds a lock of its session throughout, which ends
when the program or its connection dies.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from agentspan.errors import DatabaseBusy, DatabaseUnusable
from agentspan.model.columns import SHOWN_OF_SPANS
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.aliases import ERROR_TYPES
from agentspan.storage import protocol
from agentspan.storage.postgres.connection import Connection, rows_of
from agentspan.storage.postgres.connections import Connections, wait_at_most
from agentspan.storage.postgres.partitions import DEFAULT, make_ahead
from agentspan.storage.postgres.statements import SPAN_TABLES, VERSION, failed_step, listed
from agentspan.storage.protocol import new_account

BEFORE = 5
"""The newest version that a schema had before the first release."""


def _table(name: str, columns: str, rest: str = "") -> str:
    """Return a CREATE TABLE whose texts compare by code points."""
    return f"create table {name} ({columns.replace(' text', _TEXT)}) {rest}"


_TEXT = ' text collate "C"'
_SPAN_COLUMNS = (
    "id text not null, agent_id text not null, agent_instance_id text not null, parent_span_id text, "
    "schema_name text not null, schema_title text not null, status text not null, payload text not null, "
    "result_payload text, summary text, label text, started_at timestamptz, finished_at timestamptz, "
    "duration_ms double precision, input_tokens bigint, output_tokens bigint, cost_usd double precision, "
    "inserted_at timestamptz not null, updated_at timestamptz not null, writer_id text, closed_by text, "
    "closed_at timestamptz, ended_late integer, is_aggregate integer not null default 0, "
    "sensitive_encoding integer not null default 0, response_id text, cache_write_tokens bigint"
)
_KEY = "primary key (agent_instance_id, id)"

_TABLES = (
    _table(
        "accounts",
        "id text primary key, environment_id text not null, agent_deployment_id text not null, "
        "partition bigint not null, inserted_at timestamptz not null",
    ),
    _table(
        "agents",
        "id text primary key, external_identifier text unique, name text not null, description text, "
        "status text not null, inserted_at timestamptz not null, updated_at timestamptz not null, "
        "owner_person_id text, team_id text, risk_profile_id text",
    ),
    _table(
        "agent_versions",
        "id text primary key, agent_id text not null, external_identifier text not null, name text, description text, "
        "runtime_environment text, inserted_at timestamptz not null, updated_at timestamptz not null, "
        "unique (agent_id, external_identifier)",
    ),
    _table(
        "agent_schema_versions",
        "id text primary key, agent_id text not null, external_identifier text, content_hash text not null, "
        "span_type_schemas text not null, quality_schemas text, inserted_at timestamptz not null, "
        "updated_at timestamptz not null, unique (agent_id, content_hash)",
    ),
    _table(
        "agent_instances",
        "id text primary key, agent_id text not null, agent_version_id text not null, "
        "agent_schema_version_id text not null, external_identifier text, status text not null, "
        "purpose text not null, metadata text, result text, error text, quality_payloads text, "
        "quality_summaries text, termination_reason text, started_at timestamptz, finished_at timestamptz, "
        "duration_ms double precision, inserted_at timestamptz not null, updated_at timestamptz not null, "
        "writer_id text, closed_by text, closed_at timestamptz, ended_late integer, git_commit text, session text, "
        '"user" text, task text, git_dirty integer',
    ),
    "create index agent_instances_agent_id_id on agent_instances (agent_id, id)",
    _table(
        "run_names",
        "agent_id text not null, external_identifier text not null, agent_instance_id text not null, "
        "primary key (agent_id, external_identifier)",
    ),
    "create index run_names_agent_instance_id on run_names (agent_instance_id)",
    _table(
        "finished_spans",
        f"{_SPAN_COLUMNS}, xid xid8 not null default pg_current_xact_id(), {_KEY}",
        "partition by range (agent_instance_id)",
    ),
    "create index finished_spans_id_idx on finished_spans (id)",
    "create index finished_spans_xid_idx on finished_spans (xid)",
    f"create table {DEFAULT} partition of finished_spans default",
    make_ahead,
    _table("open_spans", f"{_SPAN_COLUMNS}, {_KEY}", "with (fillfactor = 70)"),
    "create index open_spans_id on open_spans (id)",
    _table(
        "schema_violations",
        "agent_instance_id text not null, id bigint generated always as identity, agent_span_id text not null, "
        "side text not null, path text not null, keyword text not null, message text not null, "
        "primary key (agent_instance_id, id)",
    ),
    "create index schema_violations_agent_span_id on schema_violations (agent_span_id)",
    _table(
        "idempotency_keys",
        "operation text not null, key text not null, request_hash text not null, subject text not null, "
        "inserted_at timestamptz not null, primary key (operation, key)",
    ),
    _table(
        "writers",
        "id text primary key, host text not null, boot_id text not null, pid bigint not null, "
        "process_start text not null, program text not null, inserted_at timestamptz not null",
    ),
    _table(
        "refused_changes",
        "id text primary key, subject text not null, agent_instance_id text, why text not null, stored_status text, "
        "wanted text not null, writer_id text, inserted_at timestamptz not null",
    ),
    "create index refused_changes_agent_instance_id on refused_changes (agent_instance_id)",
    _table(
        "otel_traces",
        "id text primary key, agent_instance_id text not null, inserted_at timestamptz not null",
    ),
    "create index otel_traces_agent_instance_id on otel_traces (agent_instance_id)",
    _table(
        "otel_logs",
        "id text primary key, trace_id text not null, span_id text not null, time_ns bigint not null, "
        "record text not null, inserted_at timestamptz not null",
    ),
    "create index otel_logs_trace_id on otel_logs (trace_id)",
    _table(
        "tags",
        "id text not null, agent_instance_id text not null, tag text not null, inserted_at timestamptz not null, "
        "primary key (agent_instance_id, id), unique (agent_instance_id, tag)",
    ),
    "create index tags_id on tags (id)",
    _table(
        "scores",
        "id text not null, agent_instance_id text not null, target_type text not null, target_id text not null, "
        "name text not null, value double precision, label text, source text not null, identifier text, "
        "inserted_at timestamptz not null, explanation text, primary key (agent_instance_id, id)",
    ),
    "create index scores_id on scores (id)",
)

_INDEX = (
    _table(
        "rewritten_runs",
        "agent_instance_id text not null, xid xid8 not null default pg_current_xact_id(), "
        "primary key (agent_instance_id, xid)",
    ),
    "create index rewritten_runs_xid on rewritten_runs (xid)",
    _table(
        "index_state",
        "part text primary key, version bigint not null, origin text not null, taken xid8 not null, "
        "target xid8 not null, after_run text not null, after_span text not null, noted xid8 not null",
    ),
    _table(
        "index_groups",
        "grp bigint primary key, schema_name text not null, label text not null, is_aggregate integer not null",
    ),
    _table(
        "index_runs",
        "agent_instance_id text primary key, spans bigint not null, failed bigint not null, input_tokens bigint, "
        "output_tokens bigint, cost double precision",
    ),
    # Columns of fixed width come first: PostgreSQL finds them without decoding the columns before.
    _table(
        "index_facts",
        "at timestamptz not null, ms double precision not null, grp bigint not null, bucket smallint not null, "
        "failed boolean not null, cost double precision, input_tokens bigint, output_tokens bigint, "
        "agent_instance_id text not null",
    ),
    "create index index_facts_agent_instance_id on index_facts (agent_instance_id)",
    "create index index_facts_grp_bucket_ms on index_facts (grp, bucket, ms)",
    # Long `words` are stored out of line, so that counting matches reads narrow rows.
    _table(
        "index_texts",
        "agent_instance_id text not null, id text not null, depth smallint not null, words tsvector not null, "
        "primary key (agent_instance_id, id)",
        "with (toast_tuple_target = 128)",
    ),
    "create index index_texts_id on index_texts (id)",
    "create index index_texts_words on index_texts using gin (words)",
    "create index index_texts_depth on index_texts (depth) where depth > 0",
    _table(
        "index_parts",
        "agent_instance_id text not null, part bigint not null, id text not null, spans bigint not null, "
        "primary key (agent_instance_id, part)",
    ),
)

# A role that only reads must not read the secret that signs logins. Its grant on all tables is revoked for this table.
_NOTES = (
    _table(
        "notes",
        "name text primary key, value text not null, expires_at timestamptz",
    ),
    """do $$
declare
    role regrole;
begin
    for role in
        select grantee::regrole from pg_class, aclexplode(relacl)
        where oid = 'notes'::regclass and grantee <> relowner and grantee <> 0
        group by grantee having not bool_or(privilege_type = 'INSERT')
    loop
        execute format('revoke all on notes from %s', role);
    end loop;
end $$""",
    "revoke all on notes from public",
)

Statement = str | Callable[[Connection], None]


class Migration(NamedTuple):
    """The statements that lead from one version to the next, in one transaction (see migrate).

    Attributes:
        before: slow steps before the transaction, while other programs write. A new schema does not need them.
    """

    statements: tuple[Statement, ...]
    before: tuple[Callable[[Connection], None], ...] = ()


_ONLY_VIEWS: tuple[Statement, ...] = ()
"""No statements: each migration makes the views anew, and one of them changed."""

_FINISH_REASON = (
    'alter table finished_spans add column finish_reason text collate "C"',
    'alter table open_spans add column finish_reason text collate "C"',
)

_SESSION_TABLES = (
    _table(
        "session_files",
        "id text primary key, format text not null, path text not null, session text, first text, "
        "agent_instance_id text, size bigint not null, changed_ns bigint not null, read_to bigint not null, "
        "head text not null, "
        "state text not null, inserted_at timestamptz not null, updated_at timestamptz not null, "
        "unique (format, path)",
    ),
    "create index session_files_session on session_files (session)",
    "create index session_files_first on session_files (first)",
    _table(
        "session_entries",
        "id text primary key, project_key text not null, session text not null, subpath text not null, uuid text, "
        "entry text not null, inserted_at timestamptz not null, unique (project_key, session, subpath, uuid)",
    ),
    "create index session_entries_key on session_entries (project_key, session, subpath, id)",
    _table(
        "session_summaries",
        "id text primary key, project_key text not null, session text not null, subpath text not null, "
        "last_entry text not null, summary text not null, inserted_at timestamptz not null, "
        "updated_at timestamptz not null, unique (project_key, session, subpath)",
    ),
)

MIGRATIONS: tuple[Migration, ...] = (
    Migration((*_TABLES, *_INDEX, *_NOTES)),
    Migration(_ONLY_VIEWS),
    Migration(_FINISH_REASON),
    Migration(_SESSION_TABLES),
    Migration(_ONLY_VIEWS),
)


def newest(migrations: Sequence[Migration]) -> int:
    """Return the version of a schema after these migrations."""
    return BEFORE + len(migrations)


LONGEST_S = 86_400
"""The most seconds that a statement of a migration may take."""
PAUSE_S = 0.05
# Polled: a program that waits in a statement holds a snapshot, and building an index CONCURRENTLY waits for it.
_LOCK = "select pg_try_advisory_lock(hashtextextended('agentspan:' || %s, 0))"
_VIEWS = "select viewname, definition from pg_views where schemaname = current_schema() and viewname = any(%s)"
_IS_VALID = "select indisvalid from pg_index where indexrelid = to_regclass(%s)"


def built(name: str, on: str) -> Callable[[Connection], None]:
    """Return a step that builds an index CONCURRENTLY: others write to its table meanwhile.

    An invalid index, which a killed build has left, is dropped and built again.

    Args:
        on: the table and its columns, as in `on runs (id)`.
    """

    def build(connection: Connection) -> None:
        found = rows_of(connection, _IS_VALID, (name,))
        if found and not found[0][0]:
            connection.execute(f"drop index concurrently {name}")
        if not found or not found[0][0]:
            connection.execute(f"create index concurrently {name} {on}")

    return build


def migrate(connections: Connections, wait_s: float, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Create the schema, or migrate it to the version of the last migration.

    Raises:
        DatabaseBusy: another program migrates the schema for longer than `wait_s` seconds.
        DatabaseUnusable: the tables are of a newer agentspan or older than the first release, or the user lacks a
            privilege.
    """
    with connections.reading(wait_s) as connection:
        wait_at_most(connection, wait_s)
        connection.execute("set statement_timeout = 0")
        connection.answer_s = LONGEST_S
        try:
            _lock(connection, connections, wait_s)
            _migrate(connection, connections, migrations)
        finally:
            connection.close()  # no other work may have its settings


def _lock(connection: Connection, connections: Connections, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while not rows_of(connection, _LOCK, (connections.schema,))[0][0]:
        if time.monotonic() > until:
            raise DatabaseBusy(f"another program migrates the tables of {connections.location}; try again")
        time.sleep(PAUSE_S)


def _migrate(connection: Connection, connections: Connections, migrations: Sequence[Migration]) -> None:
    connection.execute(f'create schema if not exists "{connections.schema}"')
    connection.execute("create table if not exists storage_version (version integer not null)")
    found = connection.execute(VERSION).fetchone()
    version = 0 if found is None else found[0]
    check_version(connections, version, migrations)
    is_new = version == 0
    rest = list(migrations[0 if is_new else version - BEFORE :])
    while rest:
        for step in () if is_new else rest[0].before:
            step(connection)
        # One transaction leads through all versions up to the next one that has steps before it.
        count = next((number for number in range(1, len(rest)) if not is_new and rest[number].before), len(rest))
        with connection.transaction():
            _lead_to(connection, rest[:count], newest(migrations) - len(rest) + count, is_last=count == len(rest))
        rest = rest[count:]


def check_version(connections: Connections, version: int, migrations: Sequence[Migration]) -> None:
    """Raise if the tables have a version that this code cannot use or migrate.

    Args:
        version: the version of the tables; 0 if there are none.

    Raises:
        DatabaseUnusable: the tables are of a newer agentspan, or older than the first release.
    """
    if version > newest(migrations):
        raise DatabaseUnusable(
            f"the tables have version {version}, this agentspan knows {newest(migrations)}; install a newer agentspan"
        )
    if 0 < version <= BEFORE:
        raise protocol.refused(str(connections.location), "schema", version)


def _lead_to(connection: Connection, migrations: Sequence[Migration], version: int, *, is_last: bool) -> None:
    """Apply migrations, and store the version that they lead to, within the caller's transaction."""
    views = dict(VIEWS)
    if not is_last:  # programs of an older agentspan may still use the stored views
        stored = dict(rows_of(connection, _VIEWS, (list(VIEWS),)))
        views = {name: stored[name] for name in VIEWS if name in stored}
    for view in reversed(VIEWS):
        connection.execute(f"drop view if exists {view}")
    for migration in migrations:
        for statement in migration.statements:
            if callable(statement):
                statement(connection)
            else:
                connection.execute(statement)
    for statement in FUNCTIONS:
        connection.execute(statement)
    for view, sql in views.items():
        connection.execute(f"create view {view} as {sql}")
    if connection.execute("select 1 from accounts").fetchone() is None:
        connection.execute("insert into accounts values (%s, %s, %s, %s, %s)", new_account())
    connection.execute("delete from storage_version")
    connection.execute("insert into storage_version values (%s)", (version,))


# One view over open and finished spans: conditions and orders still use the indexes of both tables.
_ALL_SPANS = " union all ".join(f"select {listed(AgentSpanRow._fields)} from {table}" for table in SPAN_TABLES)

# JSON may have an escaped NUL, or half of a surrogate pair, which no text of PostgreSQL can hold: U+FFFD replaces them.
# A text that is no JSON gives null. Neither may fail a whole SELECT.
_AT = r"""
create or replace function {0}(text text, variadic path text[]) returns text language plpgsql immutable as $$
begin
    return {1};
exception when others then
    begin
        text := regexp_replace(text, '\\u(0000|d[89a-f]..)', '\ufffd', 'gi');
        return {1};
    exception when others then
        return null;
    end;
end $$
"""

# A span that sums up others repeats what they used: counting both would double the run's tokens and cost.
_USED = "filter (where s.is_aggregate = 0)"


def _error_at(json: str, *path: str) -> str:
    """Return the SQL of an error as `Type: message`, the type without its module, as `span_types.error_text` does."""
    *types, message = (", ".join(f"'{member}'" for member in (*path, name)) for name in (*ERROR_TYPES, "message"))
    names = (f"case json_type_at({json}, {at}) when 'string' then json_text_at({json}, {at}) end" for at in types)
    return f"""(select coalesce(type || ': ' || message, message, type) from (
           select nullif(regexp_replace(coalesce({", ".join(names)}), '.*\\.', ''), '') as type,
                  nullif(json_text_at({json}, {message}), '') as message) parts)"""


_RUNS = f"""
select i.id as run, a.name as agent, v.external_identifier as version, i.status, i.started_at, i.finished_at,
       i.duration_ms, count(s.id) as spans, count(s.id) filter (where {failed_step("s.")}) as failed_spans,
       sum(s.input_tokens) {_USED} as input_tokens, sum(s.output_tokens) {_USED} as output_tokens,
       sum(s.cost_usd) {_USED} as cost_usd, {_error_at("i.error")} as error, i.metadata, i.result,
       i.closed_by, i.closed_at, i.session, i."user", i.task,
       (select string_agg(tag, ', ' order by tag) from tags t where t.agent_instance_id = i.id) as tags
from agent_instances i
join agents a on a.id = i.agent_id
join agent_versions v on v.id = i.agent_version_id
left join agent_spans s on s.agent_instance_id = i.id
group by i.id, a.id, v.id
"""
_SPANS = f"""
select a.name as agent, {", ".join(f"s.{column} as {name}" for column, name in SHOWN_OF_SPANS.items())},
       case when s.status = 'failed' or s.result_payload like '%"error"%' then coalesce(
           {_error_at("s.result_payload", "error")},
           case when json_type_at(s.result_payload, 'error') = 'string'
                then json_text_at(s.result_payload, 'error') end,
           case when s.status = 'failed' and json_type_at(s.result_payload, 'error_type') = 'string'
                then {_error_at("s.result_payload")} end
       ) end as error,
       s.payload, s.result_payload
from agent_spans s join agents a on a.id = s.agent_id
"""
FUNCTIONS = (
    _AT.format("json_text_at", "text::json #>> path"),
    _AT.format("json_type_at", "json_typeof(text::json #> path)"),
)
VIEWS = {"agent_spans": _ALL_SPANS, "runs": _RUNS, "spans": _SPANS}
