"""The tables and views of a file, and its migrations, in order; each leads to the next file version (`user_version`).

The first migration creates the tables of the first release. Files from before the first release have the versions up to
BEFORE, and are refused (see protocol.refused). A migration is never edited or removed: files of every version are in
use, and each version must mean the same tables everywhere. So a migration contains its column names in full, and uses
nothing from model/rows.py, which describes the newest version only. New files run all migrations, too.

To change the tables, add a function to the end of MIGRATIONS and change model/rows.py. A new column must be nullable
or have a default, because a program with an older agentspan that has the file open inserts rows without it.

Views hold no data, so they are dropped before the migrations and created again after them, always in their newest form.
A changed view also needs a new version, with a migration that does nothing.

Only a migration imports sqlite-utils; opening an up-to-date file does not.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from agentspan.model.columns import SHOWN_OF_SPANS
from agentspan.model.rows import ROWS, AgentSpanRow, ResourceType
from agentspan.schemas.aliases import ERROR_TYPES
from agentspan.storage.protocol import new_account
from agentspan.storage.sqlite.joining import error_text, failed_step, whole

if TYPE_CHECKING:
    from sqlite_utils import Database

Migration = Callable[["Database"], None]
BEFORE = 9
"""The last version of files from before the first release."""


def _table(name: str, columns: str) -> str:
    """Return a CREATE TABLE with one column in a line, as `.schema` of sqlite3 shows it."""
    quoted = ",\n".join(f'   "{column}" {rest}' for column, _, rest in (c.partition(" ") for c in columns.split(", ")))
    return f'CREATE TABLE "{name}" (\n{quoted}\n) STRICT'


def _index(table: str, *columns: str, is_unique: bool = False) -> str:
    quoted = ", ".join(f'"{column}"' for column in columns)
    name = f"idx_{table}_{'_'.join(columns)}"
    return f'CREATE {"UNIQUE " * is_unique}INDEX "{name}"\n    ON "{table}" ({quoted})'


_TABLES = (
    _table(
        "accounts",
        "id TEXT PRIMARY KEY, environment_id TEXT NOT NULL, agent_deployment_id TEXT NOT NULL, "
        "partition INTEGER NOT NULL, inserted_at TEXT NOT NULL",
    ),
    _table(
        "agents",
        "id TEXT PRIMARY KEY, external_identifier TEXT, name TEXT NOT NULL, description TEXT, "
        "status TEXT NOT NULL, inserted_at TEXT NOT NULL, updated_at TEXT NOT NULL, owner_person_id TEXT, "
        "team_id TEXT, risk_profile_id TEXT",
    ),
    _index("agents", "external_identifier", is_unique=True),
    _table(
        "agent_versions",
        'id TEXT PRIMARY KEY, agent_id TEXT NOT NULL REFERENCES "agents"("id"), '
        "external_identifier TEXT NOT NULL, name TEXT, description TEXT, runtime_environment TEXT, "
        "inserted_at TEXT NOT NULL, updated_at TEXT NOT NULL",
    ),
    _index("agent_versions", "agent_id", "external_identifier", is_unique=True),
    _table(
        "agent_schema_versions",
        'id TEXT PRIMARY KEY, agent_id TEXT NOT NULL REFERENCES "agents"("id"), external_identifier TEXT, '
        "content_hash TEXT NOT NULL, span_type_schemas TEXT NOT NULL, quality_schemas TEXT, "
        "inserted_at TEXT NOT NULL, updated_at TEXT NOT NULL",
    ),
    _index("agent_schema_versions", "agent_id", "content_hash", is_unique=True),
    _table(
        "agent_instances",
        'id TEXT PRIMARY KEY, agent_id TEXT NOT NULL REFERENCES "agents"("id"), '
        'agent_version_id TEXT NOT NULL REFERENCES "agent_versions"("id"), '
        'agent_schema_version_id TEXT NOT NULL REFERENCES "agent_schema_versions"("id"), '
        "external_identifier TEXT, status TEXT NOT NULL, purpose TEXT NOT NULL, metadata TEXT, result TEXT, "
        "error TEXT, quality_payloads TEXT, quality_summaries TEXT, termination_reason TEXT, started_at TEXT, "
        "finished_at TEXT, duration_ms REAL, inserted_at TEXT NOT NULL, updated_at TEXT NOT NULL, writer_id TEXT, "
        "closed_by TEXT, closed_at TEXT, ended_late INTEGER, git_commit TEXT, session TEXT, user TEXT, task TEXT, "
        "git_dirty INTEGER",
    ),
    _index("agent_instances", "agent_id", "external_identifier", is_unique=True),
    _table(
        "agent_spans",
        "id TEXT PRIMARY KEY, agent_id TEXT NOT NULL, "
        'agent_instance_id TEXT NOT NULL REFERENCES "agent_instances"("id"), parent_span_id TEXT, '
        "schema_name TEXT NOT NULL, schema_title TEXT NOT NULL, status TEXT NOT NULL, payload TEXT NOT NULL, "
        "result_payload TEXT, summary TEXT, label TEXT, started_at TEXT, finished_at TEXT, duration_ms REAL, "
        "input_tokens INTEGER, output_tokens INTEGER, cost_usd REAL, inserted_at TEXT NOT NULL, "
        "updated_at TEXT NOT NULL, writer_id TEXT, closed_by TEXT, closed_at TEXT, ended_late INTEGER, "
        "is_aggregate INTEGER NOT NULL DEFAULT 0, sensitive_encoding INTEGER NOT NULL DEFAULT 0, "
        "contents INTEGER NOT NULL DEFAULT 0, response_id TEXT, cache_write_tokens INTEGER",
    ),
    _table(
        "writers",
        "id TEXT PRIMARY KEY, host TEXT NOT NULL, boot_id TEXT NOT NULL, pid INTEGER NOT NULL, "
        "process_start TEXT NOT NULL, program TEXT NOT NULL, inserted_at TEXT NOT NULL",
    ),
    _table(
        "refused_changes",
        "id TEXT PRIMARY KEY, subject TEXT NOT NULL, agent_instance_id TEXT, why TEXT NOT NULL, "
        "stored_status TEXT, wanted TEXT NOT NULL, writer_id TEXT, inserted_at TEXT NOT NULL",
    ),
    _index("agent_spans", "agent_instance_id", "id"),
    _index("agent_instances", "agent_id", "id"),
    _table(
        "schema_violations",
        'id INTEGER PRIMARY KEY, agent_span_id TEXT NOT NULL REFERENCES "agent_spans"("id"), side TEXT NOT NULL, '
        "path TEXT NOT NULL, keyword TEXT NOT NULL, message TEXT NOT NULL",
    ),
    _index("schema_violations", "agent_span_id"),
    """CREATE TABLE "idempotency_keys" (
   "operation" TEXT NOT NULL,
   "key" TEXT NOT NULL,
   "request_hash" TEXT NOT NULL,
   "subject" TEXT NOT NULL,
   "inserted_at" TEXT NOT NULL,
   PRIMARY KEY ("operation", "key")
) STRICT""",
    _table(
        "content_runs",
        "id INTEGER PRIMARY KEY AUTOINCREMENT, "
        'agent_instance_id TEXT NOT NULL UNIQUE REFERENCES "agent_instances"("id")',
    ),
    _table(
        "contents",
        'id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES "content_runs"("id"), text TEXT NOT NULL',
    ),
    _table(
        "blobs",
        'id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES "content_runs"("id"), sha256 TEXT NOT NULL, '
        "media_type TEXT NOT NULL, data BLOB NOT NULL",
    ),
    _index("blobs", "run", "sha256", is_unique=True),
    _table(
        "otel_traces",
        'id TEXT PRIMARY KEY, agent_instance_id TEXT NOT NULL REFERENCES "agent_instances"("id"), '
        "inserted_at TEXT NOT NULL",
    ),
    _index("otel_traces", "agent_instance_id"),
    _table(
        "otel_logs",
        "id TEXT PRIMARY KEY, trace_id TEXT NOT NULL, span_id TEXT NOT NULL, time_ns INTEGER NOT NULL, "
        "record TEXT NOT NULL, inserted_at TEXT NOT NULL",
    ),
    _index("otel_logs", "trace_id"),
    _table(
        "tags",
        'id TEXT PRIMARY KEY, agent_instance_id TEXT NOT NULL REFERENCES "agent_instances"("id"), '
        "tag TEXT NOT NULL, inserted_at TEXT NOT NULL",
    ),
    _index("tags", "agent_instance_id", "tag", is_unique=True),
    _table(
        "scores",
        'id TEXT PRIMARY KEY, agent_instance_id TEXT NOT NULL REFERENCES "agent_instances"("id"), '
        "target_type TEXT NOT NULL, target_id TEXT NOT NULL, name TEXT NOT NULL, value REAL, label TEXT, "
        "source TEXT NOT NULL, identifier TEXT, inserted_at TEXT NOT NULL, explanation TEXT",
    ),
    _index("scores", "agent_instance_id"),
)
"""The tables are STRICT, so that SQLite enforces column types. Ids grow, so indexes on `(…, id)` only append."""


def _first(db: "Database") -> None:
    for statement in _TABLES:
        db.execute(statement)
    db.table("accounts").insert(new_account()._asdict())


def _only_views(db: "Database") -> None:
    """Do nothing: the new version makes `migrate` create the views again, because one of them changed."""


def _finish_reason(db: "Database") -> None:
    db.execute("ALTER TABLE agent_spans ADD COLUMN finish_reason TEXT")


def _session_files(db: "Database") -> None:
    for statement in _SESSION_TABLES:
        db.execute(statement)


_SESSION_TABLES = (
    _table(
        "session_files",
        "id TEXT PRIMARY KEY, format TEXT NOT NULL, path TEXT NOT NULL, session TEXT, first TEXT, "
        "agent_instance_id TEXT, size INTEGER NOT NULL, changed_ns INTEGER NOT NULL, read_to INTEGER NOT NULL, "
        "head TEXT NOT NULL, "
        "state TEXT NOT NULL, inserted_at TEXT NOT NULL, updated_at TEXT NOT NULL",
    ),
    _index("session_files", "format", "path", is_unique=True),
    _index("session_files", "session"),
    _index("session_files", "first"),
    _table(
        "session_entries",
        "id TEXT PRIMARY KEY, project_key TEXT NOT NULL, session TEXT NOT NULL, subpath TEXT NOT NULL, uuid TEXT, "
        "entry TEXT NOT NULL, inserted_at TEXT NOT NULL",
    ),
    _index("session_entries", "project_key", "session", "subpath", "uuid", is_unique=True),
    _index("session_entries", "project_key", "session", "subpath", "id"),
    _table(
        "session_summaries",
        "id TEXT PRIMARY KEY, project_key TEXT NOT NULL, session TEXT NOT NULL, subpath TEXT NOT NULL, "
        "last_entry TEXT NOT NULL, summary TEXT NOT NULL, inserted_at TEXT NOT NULL, updated_at TEXT NOT NULL",
    ),
    _index("session_summaries", "project_key", "session", "subpath", is_unique=True),
)


MIGRATIONS: tuple[Migration, ...] = (_first, _only_views, _finish_reason, _session_files, _only_views)
"""All migrations, in order. Each receives the file as an sqlite-utils Database; all run in the same transaction."""


def newest(migrations: Sequence[Migration]) -> int:
    """Return the version of a file after these migrations."""
    return BEFORE + len(migrations)


APPLICATION_ID = 0x61677370  # "agsp": identifies the file, also for the command `file`
CURRENT = newest(MIGRATIONS)

# An aggregate repeats the usage of other spans: counting both would double the run's tokens and cost.
_USED = "filter (where not s.is_aggregate)"


def _error_at(json: str, at: str) -> str:
    """Return the SQL of an error as `Type: message`, the type without its module, as `span_types.error_text` does."""
    types = (
        f"case json_type({json}, '{at}.{name}') when 'text' then {json} ->> '{at}.{name}' end" for name in ERROR_TYPES
    )
    return f"""(select coalesce(type || ': ' || message, message, type) from (
           select nullif(replace(name, rtrim(name, replace(name, '.', '')), ''), '') as type, message from (
           select coalesce({", ".join(types)}) as name, nullif({json} ->> '{at}.message', '') as message)))"""


RUNS_VIEW = f"""
select i.id as run, a.name as agent, v.external_identifier as version, i.status, i.started_at, i.finished_at,
       i.duration_ms, count(s.id) as spans, count(s.id) filter (where {failed_step("s")}) as failed_spans,
       sum(s.input_tokens) {_USED} as input_tokens, sum(s.output_tokens) {_USED} as output_tokens,
       sum(s.cost_usd) {_USED} as cost_usd,
       case when json_valid(i.error) then {_error_at("i.error", "$")} end as error, i.metadata, i.result,
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
           {_error_at("s.result_payload", "$.error")},
           case when json_type(s.result_payload, '$.error') = 'text' then json_extract(s.result_payload, '$.error') end,
           case when s.status = 'failed' and json_type(s.result_payload, '$.error_type') = 'text'
                then {_error_at("s.result_payload", "$")} end
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
    return f"{type_[:-1]}ies" if type_.endswith("y") else f"{type_}s"


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
