"""`agentspan search` lists the spans that contain words, each with a snippet; `agentspan sql` answers a SELECT.

`sql` needs no parser of its own to refuse writes: SQLite refuses them.
"""

import csv
import io
import re
import sys
from typing import Any

import click

from agentspan.analysis import by_name
from agentspan.analysis.by_name import STEP
from agentspan.analysis.causes import verdicts_on
from agentspan.analysis.runs import ids_of
from agentspan.analysis.search import located, search, search_by_run
from agentspan.answers import search as answers
from agentspan.cli.app import command, reads
from agentspan.cli.completion import RUN
from agentspan.cli.filter_options import asked_for, filter_in, filter_options, no_run, outcome_rule, page_options
from agentspan.cli.output import (
    Failed,
    bar,
    columns_of,
    document,
    echo,
    echo_lines,
    fit,
    hint,
    is_collected,
    local,
    pad,
    safe,
    style,
    table,
    to_copy,
    width,
    wrap,
)
from agentspan.cli.rendering import show
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.storage.questions import RunFilter, Select
from agentspan.storage.sums import Answer
from agentspan.text import no_formula, noun

FOUND_SPANS = 20
ZONED = 72
"""The terminal width from which times show the name of their zone."""


@command("search")
@click.argument("words", nargs=-1, required=True)
@click.option("--run", metavar="RUN", type=RUN, help="Search only in this run.")
@click.option("--by-run", is_flag=True, help="Group the steps by run, three of each; -n and --offset then count runs.")
@filter_options
@page_options(FOUND_SPANS)
@reads
def search_command(
    database: Database,
    words: tuple[str, ...],
    *,
    run: str | None,
    by_run: bool,
    limit: int,
    offset: int,
    as_json: bool,
    **filters: Any,
) -> None:
    """Find the steps that have all WORDS.

    They are in its summary, payload or result. 'Two words' in quotes are a phrase; book* finds booking.
    """
    storage = database.storage
    run_id = None if run is None else by_name.find_run(storage, run).id
    asked = asked_for(filters)
    filter = filter_in(storage, filters)
    if run_id is not None and filter != RunFilter():
        raise click.UsageError("--run and filters of runs exclude each other")
    with bar("indexing") as progress:
        ids = None if filter == RunFilter() else ids_of(storage, filter, progress=progress)
        if by_run:
            grouped = search_by_run(storage, words, run=run_id, runs=ids, limit=limit, offset=offset, progress=progress)
            if as_json:
                document(answers.plain_by_run(grouped))
            elif grouped.total or grouped.named is not None:
                verdicts = verdicts_on(storage, [each.run for each in grouped.runs], outcome_rule(None))
                short = by_name.short_ids(storage, verdicts).__getitem__
                blocks = [*answers.named(grouped, words[0]), *answers.by_run(grouped, verdicts, _at, words, short)]
                show([[*blocks, *([answers.counted(grouped)] if grouped.total else [])]], storage)
            else:
                text = no_run(storage, filter, asked) if asked else answers.NOTHING
                echo_lines(wrap(text, width(), 4))
            return
        found = search(storage, words, run=run_id, limit=limit, offset=offset, runs=ids, progress=progress)
    found = located(storage, found)
    if as_json:
        document({"hits": [hit._asdict() for hit in found.hits], "total": found.total})
        return
    if not found.total and ids is not None and not ids:
        echo_lines(wrap(no_run(storage, filter, asked), width(), 4))
        return
    show([answers.hits(found, _at, offset)], storage)
    if found.hits:
        top = found.hits[0]
        named = top.span_id if top.step is None else f"{by_name.short_id(storage, top.run_id)}{STEP}{top.step}"
        echo_lines(hint("show the top hit in its run", to_copy("show", named, "--around"), width()))


def _at(text: str) -> str:
    """Return a stored time in the zone of the terminal; "" for none."""
    return f"{local(text):{'%m-%d %H:%M:%S %Z' if width() >= ZONED else '%m-%d %H:%M:%S'}}" if text else ""


MAX_CELL = 800
"""The number of characters of a value that a table uses."""
LEAST_CELL = 16
"""The least width of the widest column of a table; with less room, rows are printed as lines."""


@command("sql")
@click.argument("query")
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), help="Write the rows like this.")
@click.option("-n", "--limit", metavar="N", type=click.IntRange(1, 10**9), help="Read N rows at most.")
@click.option("--seconds", metavar="N", type=click.FloatRange(0.01, 3600), help="End the query after N seconds.")
@reads
def sql_command(
    database: Database, query: str, *, form: str | None, limit: int | None, seconds: float | None, as_json: bool
) -> None:
    """Answer a QUERY in SQL over the tables and views.

    It cannot write. With - as QUERY it is read from stdin.
    """
    can = database.storage.capabilities()
    if Select not in can.answers:
        raise Failed(f"the storage {can.backend!r} answers no SQL")
    text = sys.stdin.read() if query == "-" and not is_collected() else query
    asked = Select(text.encode("utf-8", "replace").decode(), limit_s=seconds, most_rows=limit)
    try:
        answer = database.storage.ask(asked)
    except InvalidValue as error:
        text = str(error).removeprefix(f"{error.field}: ")
        reads = "sql only reads; " if re.search("authoriz|cannot modify|read-?only", text) else ""
        raise Failed(safe(reads + text)) from None
    if as_json or form == "json":
        rows = [[_json(value) for value in row] for row in answer.rows]
        document({"columns": answer.columns, "rows": rows, "total": len(rows)})
    elif form == "csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(map(no_formula, row) for row in [answer.columns, *answer.rows])
        echo(safe(out.getvalue()), nl=False)
    else:
        _print_rows(answer, "" if limit is None or len(answer.rows) < limit else ", the most that --limit allows")


def _print_rows(answer: Answer, more: str) -> None:
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
    echo(noun(len(rows), "row") + more)


def _print_in_lines(columns: list[str], rows: list[list[str]]) -> None:
    """Print each row as lines of `column  value`, for results with too many columns for a table."""
    names = max(columns_of(fit(column, 40)) for column in columns)
    for row in rows:
        for column, value in zip(columns, row, strict=True):
            name = pad(fit(column, 40), names)
            echo(f"{style(name, bold=True)}  {fit(value, max(8, width() - names - 2))}".rstrip())
        echo()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    return f"{value:.10g}" if isinstance(value, float) else str(value)[:MAX_CELL]


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, float) and value - value != 0 else value  # JSON has no infinity or NaN
