"""The tables of a file, made and migrated with sqlite-utils; an up-to-date file never imports it.

Migrations are numbered, and the number of the last one is the file's `user_version`. Until 1.0 there is one, and it
may be edited. STRICT tables, so that a column holds what its name says; times are text that sorts.
"""

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentspan.model.rows import REFERENCES, ROWS, UNIQUE, ResourceType
from agentspan.storage.account import new_account

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID = 0x61677370  # "agsp": marks the file as ours for `file` and for us

_INTEGERS = frozenset({"partition", "pid", "input_tokens", "output_tokens"})
_FLOATS = frozenset({"duration_ms", "cost_usd"})

# An agent span repeats what the spans in it used: counting both would double the run's tokens and cost.
_USED = "filter (where s.schema_name <> 'agent' and s.schema_name not like '%:agent')"

RUNS_VIEW = f"""
select i.id as run, a.name as agent, v.external_identifier as version, i.status, i.started_at, i.finished_at,
       i.duration_ms, count(s.id) as spans, count(s.id) filter (where s.status = 'failed') as failed_spans,
       sum(s.input_tokens) {_USED} as input_tokens, sum(s.output_tokens) {_USED} as output_tokens,
       sum(s.cost_usd) {_USED} as cost_usd,
       case when json_valid(i.error) then json_extract(i.error, '$.message') end as error, i.metadata, i.result
from agent_instances i
join agents a on a.id = i.agent_id
join agent_versions v on v.id = i.agent_version_id
left join agent_spans s on s.agent_instance_id = i.id
group by i.id
"""

SPANS_VIEW = """
select s.agent_instance_id as run, a.name as agent, s.id as span, s.parent_span_id as parent, s.schema_name as type,
       s.label, s.status, s.summary, s.started_at, s.finished_at, s.duration_ms, s.input_tokens, s.output_tokens,
       s.cost_usd,
       case when json_valid(s.result_payload) then json_extract(s.result_payload, '$.error.message') end as error,
       s.payload, s.result_payload
from agent_spans s join agents a on a.id = s.agent_id
"""


def _create(db: "Database") -> None:
    """Migration 1: everything."""
    for type_, row in ROWS.items():
        optional = {name for name, hint in row.__annotations__.items() if "None" in str(hint)}
        columns: dict[str, Any] = {name: _column_type(name) for name in row._fields}
        db.table(f"{type_}s").create(
            columns,
            pk="id",
            not_null=set(row._fields) - optional - {"id"},
            foreign_keys=[(column, f"{to}s", "id") for column, to in REFERENCES.get(type_, {}).items()],
            strict=True,
        )
        if type_ in UNIQUE:
            db.table(f"{type_}s").create_index(UNIQUE[type_], unique=True)
    # By (instance, id): ids grow, so both this and the primary key append.
    db.table("agent_spans").create_index(["agent_instance_id", "id"])
    db.table("agent_instances").create_index(["agent_id", "id"])
    db.table("schema_violations").create(
        {"id": int, "agent_span_id": str, "side": str, "path": str, "keyword": str, "message": str},
        pk="id",
        not_null={"agent_span_id", "side", "path", "keyword", "message"},
        foreign_keys=[("agent_span_id", "agent_spans", "id")],
        strict=True,
    )
    db.table("schema_violations").create_index(["agent_span_id"])
    db.table("idempotency_keys").create(
        {"operation": str, "key": str, "request_hash": str, "subject": str, "inserted_at": str},
        pk=("operation", "key"),
        not_null={"operation", "key", "request_hash", "subject", "inserted_at"},
        strict=True,
    )
    db.create_view("runs", RUNS_VIEW)
    db.create_view("spans", SPANS_VIEW)
    db.table("accounts").insert(new_account()._asdict())


def _column_type(name: str) -> type:
    return int if name in _INTEGERS else float if name in _FLOATS else str


MIGRATIONS: tuple[Callable[["Database"], None], ...] = (_create,)
CURRENT = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, from_version: int) -> None:
    """Bring the tables from a version to the current one; the caller holds the write transaction."""
    from sqlite_utils import Database

    db = Database(connection, execute_plugins=False)
    for migration in MIGRATIONS[from_version:]:
        migration(db)
    connection.execute(f"pragma application_id = {APPLICATION_ID}")
    connection.execute(f"pragma user_version = {CURRENT}")


def table_of(type_: ResourceType) -> str:
    """Return the table in which rows of a type lie."""
    return f"{type_}s"
