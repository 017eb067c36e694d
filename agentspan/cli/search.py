"""`agentspan search` lists the spans that contain words, each with a snippet; `agentspan sql` answers a SELECT.

`sql` needs no parser of its own to refuse writes: SQLite refuses them.
"""

import csv
import io
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

from agentspan.analysis import by_name
from agentspan.analysis.by_name import STEP
from agentspan.analysis.causes import verdicts_on
from agentspan.analysis.runs import ids_of
from agentspan.analysis.search import Hit, HitsByRun, located, search, search_by_run
from agentspan.analysis.tree import run_name
from agentspan.cli.app import command, reads
from agentspan.cli.completion import RUN
from agentspan.cli.filter_options import asked_for, filter_in, filter_options, no_run, outcome_rule, page_options
from agentspan.cli.output import (
    MARKS,
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
    status_style,
    style,
    table,
    to_copy,
    verdict_style,
    width,
    wrap,
)
from agentspan.database import Database
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter, Select
from agentspan.storage.sums import Answer
from agentspan.text import dotted, no_formula, noun

FOUND_SPANS = 20
NOTHING_FOUND = "nothing found; words must be whole, or end in *: book* finds booking"
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
            no_runs = no_run(storage, filter, asked) if asked and not grouped.total else ""
            _print_by_run(storage, grouped, no_runs, words=words, as_json=as_json)
            return
        found = search(storage, words, run=run_id, limit=limit, offset=offset, runs=ids, progress=progress)
    found = located(storage, found)
    if as_json:
        document({"hits": [hit._asdict() for hit in found.hits], "total": found.total})
        return
    if not found.total:
        is_empty = ids is not None and not ids
        echo_lines(wrap(no_run(storage, filter, asked) if is_empty else NOTHING_FOUND, width(), 4))
        return
    for hit in found.hits:
        columns = width()
        form = "%m-%d %H:%M:%S %Z" if columns >= ZONED else "%m-%d %H:%M:%S"
        at = local(hit.started_at).strftime(form) if hit.started_at else ""
        echo(
            status_style(MARKS[hit.status], hit.status)
            + f" {style(hit.span_id, bold=True)}  {at}  "
            + fit(hit.schema_name, max(8, columns - 40 - len(at)))
        )
        echo("  " + style(fit(_place(hit), columns - 2), fg="bright_black"))
        echo("  " + _snippet(hit, columns - 2))
        if hit.repeats:
            echo("  " + style(f"and in {noun(hit.repeats, 'later step')}", fg="bright_black"))
    from_ = f", from number {offset + 1} on" if offset and found.hits else ""
    echo(f"{len(found.hits)} of {noun(found.total, 'span')}{from_}")
    if found.hits:
        top = found.hits[0]
        named = top.span_id if top.step is None else f"{by_name.short_id(storage, top.run_id)}{STEP}{top.step}"
        echo_lines(hint("show the top hit in its run", to_copy("show", named, "--around"), width()))


def _print_by_run(storage: Storage, found: HitsByRun, no_runs: str, *, words: Sequence[str], as_json: bool) -> None:
    """Print hits by run."""
    named = found.named
    if as_json:
        document(
            {
                "runs": [
                    {
                        "run_id": each.run.id,
                        "agent": each.agent,
                        "version": each.version,
                        "status": each.run.status,
                        "steps": each.steps,
                        "hits": [hit._asdict() for hit in each.hits],
                    }
                    for each in found.runs
                ],
                "total": found.total,
                "examined": found.examined,
                "found": found.found,
                "named": None if named is None else named.id,
            }
        )
        return
    columns = width()
    if named is not None:
        kind = "run" if isinstance(named, AgentInstanceRow) else "step"
        echo_lines(hint(f"{words[0]} names a {kind}", to_copy("show", named.id), columns))
    if not found.total:
        if named is None:
            echo_lines(wrap(no_runs or NOTHING_FOUND, columns, 4))
        return
    short = by_name.short_ids(storage, [each.run.id for each in found.runs])
    verdicts = verdicts_on(storage, [each.run for each in found.runs], outcome_rule(None))
    for each in found.runs:
        at = local(each.run.started_at or each.run.inserted_at).strftime("%m-%d %H:%M:%S")
        verdict, status = verdicts[each.run.id], each.run.status
        mark, word = verdict.beside(status)
        said = word if verdict.kind == "missed" else ""
        facts = dotted(run_name(each.agent, each.version), said, at, noun(each.steps, "step"))
        echo(
            verdict_style(mark, verdict, status)
            + " "
            + style(fit(f"run {short[each.run.id]}  {facts}", columns - 2), bold=True)
        )
        for hit in each.hits:
            step = "" if hit.step is None else f"step {STEP}{hit.step}"
            head = f"{MARKS[hit.status]} {dotted(step, hit.schema_name)}"
            echo("  " + style(fit(head, columns - 2), fg="bright_black"))
            echo("    " + _snippet(hit, columns - 4))
        if len(each.hits) < each.steps:
            more = to_copy("search", *words, "--run", short[each.run.id])
            echo_lines("  " + line for line in hint(f"{each.steps - len(each.hits):,} more", more, columns - 2))
    rest = f"; {len(found.runs):,} of them are listed" if len(found.runs) < found.found else ""
    echo(f"{found}{rest}")


def _place(hit: Hit) -> str:
    """Return the place of a hit in words: its run, the number of its step, and the agent."""
    step = "" if hit.step is None else f"step {STEP}{hit.step}"
    return dotted(f"run {hit.run_id}", step, run_name(hit.agent, hit.version))


def _snippet(hit: Hit, columns: int) -> str:
    """Return a snippet of at most `columns` columns, with the matches coloured if the output uses colours."""
    begin = 0
    first = hit.matches[0][0] if hit.matches else 0
    if first > columns // 2:
        begin = first - columns // 4
    room = columns - (columns_of("…") if begin else 0)
    shown = fit(hit.snippet[begin:], room)
    out, done = "…" if begin else "", 0
    for start, stop in hit.matches:
        if start >= begin + done and stop - begin <= len(shown.removesuffix("…")):
            out += safe(shown[done : start - begin]) + style(
                safe(shown[start - begin : stop - begin]), fg="yellow", bold=True
            )
            done = stop - begin
    return out + safe(shown[done:])


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
