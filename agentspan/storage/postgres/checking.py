"""Finds damage in a schema: rows without what they refer to, spans that are stored twice, values no program wrote."""

from agentspan.model.columns import columns_of
from agentspan.model.rows import REFERENCES, ROWS
from agentspan.model.status import INSTANCE_STATUSES, OPEN, SPAN_STATUSES
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.lending import rows_of
from agentspan.storage.postgres.statements import quoted, table_of

_TWICE = (
    "select count(*) from finished_spans where id in (select id from open_spans)",
    "is open and finished at the same time",
)
_IS_OPEN = ", ".join(f"'{status}'" for status in sorted(OPEN))
_MISPLACED = (
    f"select (select count(*) from finished_spans where status in ({_IS_OPEN})) "
    f"+ (select count(*) from open_spans where status not in ({_IS_OPEN}))",
    "lies in the table of other statuses",
)


def problems(connection: Connection) -> list[str]:
    """Return the problems found, a sentence each, without stored values. (pg_amcheck checks the pages of tables.)"""
    found = []
    for sql, what in (_TWICE, _MISPLACED):
        count = rows_of(connection, sql)[0][0]
        if count:
            found.append(f"{count} of the spans: each {what}")
    for type_, references in REFERENCES.items():
        for column, to in references.items():
            count = rows_of(
                connection,
                f"select count(*) from {table_of(type_)} r where not exists "
                f"(select 1 from {table_of(to)} t where t.id = r.{quoted(column)})",
            )[0][0]
            if count:
                found.append(f"{count} of {table_of(type_)} refer to a row of {table_of(to)} that is not there")
    for type_ in ROWS:
        conditions = [
            f"({quoted(column.name)} is null or {quoted(column.name)} is json)"
            for column in columns_of(type_)
            if column.is_json
        ]
        statuses = {"agent_instance": INSTANCE_STATUSES, "agent_span": SPAN_STATUSES}.get(type_)
        if statuses is not None:
            conditions.append(f"status in ({', '.join(repr(status) for status in statuses)})")
        if conditions:
            sql = f"select count(*) from {table_of(type_)} where not ({' and '.join(conditions)})"
            count = rows_of(connection, sql)[0][0]
            if count:
                found.append(f"{count} of {table_of(type_)} cannot be read")
    return found
