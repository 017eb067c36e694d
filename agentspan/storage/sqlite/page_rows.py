"""The rows of a page, up to a number of characters: 100 spans of 20 MB each are never in memory together."""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import cast

from agentspan.model.columns import json_columns
from agentspan.model.rows import TYPE_OF, Row


def rows_within(
    connection: sqlite3.Connection, sql: str, values: Sequence[object], row_type: type[Row], most_bytes: int | None
) -> tuple[list[Row], bool]:
    """Return the rows of a SELECT, and whether the one that passes `most_bytes` is the last of them."""
    rows = cast("Iterable[Row]", map(row_type._make, connection.execute(sql, tuple(values))))
    return ([*rows], False) if most_bytes is None else up_to(rows, row_type, most_bytes)


def up_to(rows: Iterable[Row], row_type: type[Row], most_bytes: int) -> tuple[list[Row], bool]:
    """Return rows as far as the one whose JSON passes a number of characters, and whether there was one.

    Other texts are short.
    """
    found: list[Row] = []
    json = [row_type._fields.index(name) for name in json_columns(TYPE_OF[row_type])]
    for row in rows:
        found.append(row)
        for place in json:
            value = row[place]
            if isinstance(value, str):
                most_bytes -= len(value)
        if most_bytes < 0:
            return found, True
    return found, False
