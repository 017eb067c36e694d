"""Finds damage in a file: in its pages and indexes, its references, and its values."""

import sqlite3

from agentspan.model.columns import columns_of
from agentspan.model.rows import ROWS, ResourceType
from agentspan.model.status import INSTANCE_STATUSES, SPAN_STATUSES
from agentspan.storage.sqlite.contents.blobs import damage
from agentspan.storage.sqlite.contents.joining import BIT, missing
from agentspan.storage.sqlite.tables import table_of

MOST = 20
"""The most problems of one kind that are returned."""

UNREADABLE_PARTS = "select count(*) from contents where not (is_text(cast(text as blob)) and json_valid(text))"
_STATUSES = {"agent_instance": INSTANCE_STATUSES, "agent_span": SPAN_STATUSES}
_DIGIT = "[0-9]"
_TIME = "{4}-{2}-{2}T{2}:{2}:{2}.{6}Z".format(*(_DIGIT * number for number in range(7)))


def problems(connection: sqlite3.Connection) -> list[str]:
    """Return the problems found, a sentence each, without stored values.

    SQLite's own check does not see a bit that flipped within a text, so each text is checked, too.
    """
    said = [row[0] for row in connection.execute(f"pragma integrity_check({MOST})")]
    found = [] if said == ["ok"] else said
    for table, _, parent, _ in connection.execute("pragma foreign_key_check").fetchmany(MOST):
        found.append(f"a row of {table} refers to a row of {parent} that is not there")
    connection.create_function("is_text", 1, _is_text, deterministic=True)
    for type_ in ROWS:
        (count,) = connection.execute(_unreadable(type_)).fetchone()
        if count:
            found.append(f"{count} row{'s' * (count != 1)} of {table_of(type_)} cannot be read")
    (count,) = connection.execute(UNREADABLE_PARTS).fetchone()
    if count:
        found.append(f"{count} row{'s' * (count != 1)} of contents cannot be read")
    for column in BIT:
        (count,) = connection.execute(missing(column)).fetchone()
        if count:
            found.append(f"{count} reference{'s' * (count != 1)} of {column} to contents that are not there")
    return found + damage(connection)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unreadable(type_: ResourceType) -> str:
    """Return the SELECT that counts the rows with a value that no program could have written."""
    columns = columns_of(type_)
    whole = " || ',' || ".join(f"ifnull({column.name}, '')" for column in columns)
    conditions = [f"is_text(cast({whole} as blob))"]
    conditions += [f"ifnull(json_valid({column.name}), true)" for column in columns if column.is_json]
    conditions += [f"ifnull({column.name} glob '{_TIME}', true)" for column in columns if column.holds == "time"]
    if type_ in _STATUSES:
        statuses = ", ".join(f"'{status}'" for status in _STATUSES[type_])
        conditions.append(f"status in ({statuses})")
    return f"select count(*) from {table_of(type_)} where not ({' and '.join(conditions)})"
