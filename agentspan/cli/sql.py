"""`agentspan sql`: a person's own questions, which SQLite itself keeps from writing."""

import csv
import io
import sqlite3
import sys
from typing import Any

import click

from agentspan.cli.output import document, noun, safe, table
from agentspan.operations.database import Database
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.storage.sqlite.questions import Answer, ask

MAX_CELL = 200
"""Characters of a value that a table shows."""


def command(database: Database, query: str, *, form: str) -> None:
    """Answer one SELECT, as a table, CSV or JSON."""
    storage = database.storage
    if not isinstance(storage, SQLiteStorage):
        raise click.ClickException("only an SQLite file can be asked in SQL")
    text = sys.stdin.read() if query == "-" else query
    try:
        answer = ask(storage.path, text)
    except sqlite3.Error as error:
        raise click.ClickException(safe(f"SQLite says: {error}")) from None
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
    if answer.columns:
        widest = max(range(len(answer.columns)), key=lambda n: max((len(row[n]) for row in rows), default=0))
        table(answer.columns, rows, right=numbers, shrink=widest)
    click.echo(noun(len(rows), "row"))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return f"{value:.10g}" if isinstance(value, float) else str(value)[: 4 * MAX_CELL]


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, float) and value - value != 0 else value  # infinity is no JSON
