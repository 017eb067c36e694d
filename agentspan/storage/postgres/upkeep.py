"""Maintenance of a schema: removes runs and keys, stores keys, keeps notes, and finds damage."""

from collections.abc import Mapping

from agentspan.model.changes import INSTANCE_STATUSES, OPEN, SPAN_STATUSES
from agentspan.model.columns import columns_of
from agentspan.model.rows import REFERENCES, ROWS, ResourceType
from agentspan.storage.postgres.connection import Connection, read, rows_of, storable
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.statements import KEY_COLUMNS, NOTE_REWRITTEN, SPAN_TABLES, compared, quoted, table_of
from agentspan.storage.questions import (
    PUT_AGENTS,
    Damage,
    ForgetNotes,
    Mend,
    Notes,
    NotesCount,
    PutKeys,
    PutNote,
    RemoveKeys,
    RemoveRuns,
)

# FOR UPDATE waits for a span that is being put, whose run is locked FOR SHARE; the next statement sees that span.
_LOCK = (
    "select id from agent_instances where id = any(%s) and status not in ('pending', 'active') order by id for update"
)
_WITH_OPEN_SPANS = "select distinct agent_instance_id from open_spans where agent_instance_id = any(%s)"
BELONGS = ("schema_violations", "refused_changes", "otel_traces", "run_names", "tags", "scores")
_PUT_KEYS = (
    f"insert into idempotency_keys ({KEY_COLUMNS}) "
    "select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[]) on conflict do nothing"
)
_IS_OVER = "expires_at <= now()"
_OF_NAMES = f"select name, value from notes where name = any(%s) and (expires_at is null or not {_IS_OVER})"
_STORE = (
    "insert into notes (name, value, expires_at) values (%s, %s, now() + make_interval(secs => %s)) "
    "on conflict (name) do update set value = {0}, expires_at = {1} returning value"
)
_REPLACE = _STORE.format("excluded.value", "excluded.expires_at")
_KEEP = _STORE.format("notes.value", "notes.expires_at")  # an update that changes nothing returns the stored value
_WAIT_S = 5.0
_OTHER_AGENT = "i.id = s.agent_instance_id and s.agent_id <> i.agent_id"


def remove_runs(connections: Connections, asked: RemoveRuns) -> tuple[int, int]:
    """Remove those of the runs that have ended and have no open span; return the numbers of runs and spans."""

    def remove(connection: Connection) -> tuple[int, int]:
        found = [id for (id,) in rows_of(connection, _LOCK, (storable(asked.ids),))]
        stay = {id for (id,) in rows_of(connection, _WITH_OPEN_SPANS, (found,))}
        gone = [id for id in found if id not in stay]
        spans = connection.execute("delete from finished_spans where agent_instance_id = any(%s)", (gone,)).rowcount
        connection.execute(NOTE_REWRITTEN, (gone,))
        for table in BELONGS:
            connection.execute(f"delete from {table} where agent_instance_id = any(%s)", (gone,))
        connection.execute("delete from agent_instances where id = any(%s)", (gone,))
        return len(gone), spans

    return connections.transact(remove, asked.wait_s)


def remove_keys(connections: Connections, asked: RemoveKeys) -> int:
    """Remove old idempotency keys, or only count them; return the number."""
    old, values = f"from idempotency_keys where {compared('inserted_at', '<', asked.before)}", (asked.before,)
    if asked.dry_run:
        return int(read(connections.reading, f"select count(*) {old}", values)[0][0])
    return connections.transact(lambda connection: connection.execute(f"delete {old}", values).rowcount, asked.wait_s)


def mend(connections: Connections, asked: Mend) -> tuple[int, int]:
    """Mend references to agents, and return the numbers of agents and spans (see questions.Mend)."""
    wrong = f"select distinct i.id from agent_spans s join agent_instances i on {_OTHER_AGENT}"
    runs = [id for (id,) in read(connections.reading, wrong)]

    def mended(connection: Connection) -> tuple[int, int]:
        connection.execute(NOTE_REWRITTEN, (runs,))
        spans = sum(
            connection.execute(
                f"update {table} s set agent_id = i.agent_id from agent_instances i where {_OTHER_AGENT} "
                "and i.id = any(%s)",
                (runs,),
            ).rowcount
            for table in SPAN_TABLES
        )
        return connection.execute(PUT_AGENTS).rowcount, spans

    return connections.transact(mended, asked.wait_s)


def put_keys(connections: Connections, asked: PutKeys) -> int:
    """Store idempotency keys that are not stored yet; return how many are new."""
    columns = [list(column) for column in zip(*asked.keys, strict=True)]
    return connections.transact(
        lambda connection: connection.execute(_PUT_KEYS, columns).rowcount if columns else 0, asked.wait_s
    )


def notes(connections: Connections, asked: Notes) -> Mapping[str, str]:
    """Return the texts of notes by name, without expired notes."""
    return dict(read(connections.reading, _OF_NAMES, ([*asked.names],)))


def put_note(connections: Connections, asked: PutNote) -> str:
    """Store a note, and return its stored text: the old text, if the note exists and may not be replaced."""

    def store(connection: Connection) -> str:
        connection.execute(f"delete from notes where {_IS_OVER}")
        sql = _REPLACE if asked.replace else _KEEP
        return str(rows_of(connection, sql, (asked.name, asked.text, asked.lasts_s))[0][0])

    return connections.transact(store, _WAIT_S)


def notes_count(connections: Connections, asked: NotesCount) -> int:
    """Count the notes whose names begin with a prefix."""
    sql = "select count(*) from notes where starts_with(name, %s)"
    return int(read(connections.reading, sql, (asked.prefix,))[0][0])


def forget_notes(connections: Connections, asked: ForgetNotes) -> None:
    """Remove the notes whose names begin with a prefix."""
    sql = "delete from notes where starts_with(name, %s)"
    connections.transact(lambda connection: connection.execute(sql, (asked.prefix,)), _WAIT_S)


_IS_OPEN = ", ".join(f"'{status}'" for status in sorted(OPEN))
_PROBLEMS = {
    "select count(*) from finished_spans where id in (select id from open_spans)": (
        "of the spans: each is open and finished at the same time"
    ),
    f"select (select count(*) from finished_spans where status in ({_IS_OPEN})) "
    f"+ (select count(*) from open_spans where status not in ({_IS_OPEN}))": (
        "of the spans: each lies in the table of other statuses"
    ),
    **{
        f"select count(*) from {table_of(type_)} r where not exists "
        f"(select 1 from {table_of(to)} t where t.id = r.{quoted(column)})": (
            f"of {table_of(type_)} refer to a row of {table_of(to)} that is not there"
        )
        for type_, references in REFERENCES.items()
        for column, to in references.items()
    },
    f"select count(*) from agent_spans s join agent_instances i on {_OTHER_AGENT}": "of agent_spans have another agent "
    "than their run",
}
"""SQL that counts rows with a problem, and the sentence for them."""


def damage(connections: Connections, asked: Damage) -> list[str]:
    """Return the problems found, a sentence each, without stored values. (pg_amcheck checks the pages of tables.)"""
    problems = {**_PROBLEMS, **{_unreadable(type_): f"of {table_of(type_)} cannot be read" for type_ in ROWS}}
    with connections.snapshot() as connection:
        counts = [(rows_of(connection, sql)[0][0], what) for sql, what in problems.items()]
    return [f"{count} {what}" for count, what in counts if count]


def _unreadable(type_: ResourceType) -> str:
    """Return the SELECT that counts the rows of a type whose JSON is none, or whose status is unknown."""
    conditions = [
        f"({quoted(column.name)} is null or {quoted(column.name)} is json)"
        for column in columns_of(type_)
        if column.is_json
    ]
    statuses = {"agent_instance": INSTANCE_STATUSES, "agent_span": SPAN_STATUSES}.get(type_)
    if statuses is not None:
        conditions.append(f"status in ({', '.join(repr(status) for status in statuses)})")
    return f"select count(*) from {table_of(type_)} where not ({' and '.join(conditions) or 'true'})"
