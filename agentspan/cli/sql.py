"""`agentspan sql`: runs a SELECT of the user. SQLite itself refuses writes."""

import csv
import io
import sys
from typing import Any

import click

from agentspan.cli.output import Failed, columns_of, document, fit, noun, pad, safe, style, table, width
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.storage.answers import Answer
from agentspan.storage.questions import Select

MAX_CELL = 800
"""Characters of a value that are looked at to show it in a table."""
LEAST_CELL = 16
"""Columns that the widest of the columns needs, or rows are printed in lines."""


def command(database: Database, query: str, *, form: str) -> None:
    """Run one SELECT and print its rows as a table, CSV or JSON."""
    can = database.storage.capabilities()
    if Select not in can.answers:
        raise Failed(f"the storage {can.backend!r} answers no SQL")
    text = (sys.stdin.read() if query == "-" else query).encode("utf-8", "replace").decode()
    try:
        answer = database.storage.ask(Select(text))
    except InvalidValue as error:
        raise Failed(safe(str(error).removeprefix(f"{error.field}: "))) from None
    if form == "json":
        rows = [[_json(value) for value in row] for row in answer.rows]
        document({"columns": answer.columns, "rows": rows, "total": len(rows)})
    elif form == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows([answer.columns, *answer.rows])
        click.echo(safe(out.getvalue()), nl=False)
    else:
        _print(answer)


def _print(answer: Answer) -> None:
    rows = [[_cell(value) for value in row] for row in answer.rows]
    numbers = [
        n
        for n in range(len(answer.columns))
        if answer.rows and all(isinstance(row[n], (int, float, type(None))) for row in answer.rows)
    ]
    widths = [max(map(len, column)) for column in zip(answer.columns, *rows, strict=True)]
    widest = max(range(len(widths)), key=widths.__getitem__, default=0)
    if sum(widths) - max(widths, default=0) + 2 * len(widths) + LEAST_CELL > width():
        _print_in_lines(answer.columns, rows)
    elif widths:
        table(answer.columns, rows, right=numbers, shrink=widest)
    click.echo(noun(len(rows), "row"))


def _print_in_lines(columns: list[str], rows: list[list[str]]) -> None:
    """Print each row as lines of `column  value`, where there are too many for a table."""
    names = max(columns_of(fit(column, 40)) for column in columns)
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            name = pad(fit(column, 40), names)
            click.echo(f"{style(name, bold=True)}  {fit(value, max(8, width() - names - 2))}".rstrip())
        click.echo()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return f"{value:.10g}" if isinstance(value, float) else str(value)[:MAX_CELL]


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, float) and value - value != 0 else value  # infinity is no JSON
