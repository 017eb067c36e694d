"""`agentspan search`: lists the spans that contain words, each with a snippet."""

from typing import Any

import click

from agentspan.analysis import id_prefixes
from agentspan.analysis.runs import ids_of
from agentspan.analysis.search import Hit, located, search
from agentspan.cli.filter_options import asked_for, filter_in, no_run
from agentspan.cli.output import (
    MARKS,
    bar,
    document,
    echo_lines,
    fit,
    hint,
    local,
    noun,
    safe,
    status_style,
    style,
    to_copy,
    width,
)
from agentspan.cli.runs import name_of
from agentspan.database import Database
from agentspan.storage.row_by_row import Name
from agentspan.storage.run_filter import RunFilter

ZONED = 72
"""From so many columns on, times have the name of their zone."""


def command(
    database: Database,
    words: tuple[str, ...],
    *,
    run: str | None,
    limit: int,
    offset: int,
    as_json: bool,
    **given: Any,
) -> None:
    """Search; on a terminal, a progress bar shows while the index is built."""
    storage = database.storage
    run_id = None if run is None else id_prefixes.find_run(storage, run).id
    asked = asked_for(given)
    filter = filter_in(storage, given)
    if run_id is not None and filter != RunFilter():
        raise click.UsageError("--run and filters of runs exclude each other")
    with bar("indexing") as progress:
        ids = None if filter == RunFilter() else ids_of(storage, filter, progress=progress)
        found = search(storage, words, run=run_id, limit=limit, offset=offset, runs=ids, progress=progress)
    found = located(storage, found)
    if as_json:
        document({"hits": [hit._asdict() for hit in found.hits], "total": found.total})
        return
    if not found.total:
        nothing = "nothing found; words must be whole, or end in *: book* finds booking"
        click.echo(no_run(asked) if ids is not None and not ids else fit(nothing, width()))
        return
    for hit in found.hits:
        columns = width()
        form = "%m-%d %H:%M:%S %Z" if columns >= ZONED else "%m-%d %H:%M:%S"
        at = local(hit.started_at).strftime(form) if hit.started_at else ""
        click.echo(
            status_style(MARKS[hit.status], hit.status)
            + f" {style(hit.span_id, bold=True)}  {at}  "
            + fit(hit.schema_name, max(8, columns - 40 - len(at)))
        )
        click.echo("  " + style(fit(_place(hit), columns - 2), fg="bright_black"))
        click.echo("  " + _snippet(hit, columns - 2))
        if hit.repeats:
            click.echo("  " + style(f"and in {noun(hit.repeats, 'later step')}", fg="bright_black"))
    from_ = f", from number {offset + 1} on" if offset and found.hits else ""
    click.echo(f"{len(found.hits)} of {noun(found.total, 'span')}{from_}")
    if found.hits:
        echo_lines(hint("show the top hit in its run", to_copy("show", found.hits[0].span_id, "--around"), width()))


def _place(hit: Hit) -> str:
    """Return where a hit is: its run, the number of its step, and the agent."""
    step = "" if hit.step is None else f"step {hit.step:,}"
    return " · ".join(part for part in (f"run {hit.run_id}", step, name_of(Name(hit.agent, hit.version))) if part)


def _snippet(hit: Hit, columns: int) -> str:
    """Put a snippet on one line, the matches in it marked by colour where there are colours."""
    begin = 0
    first = hit.matches[0][0] if hit.matches else 0
    if first > columns // 2:
        begin = first - columns // 4
    room = columns - (1 if begin else 0)
    shown = fit(hit.snippet[begin:], room)
    out, done = "…" if begin else "", 0
    for start, stop in hit.matches:
        if start >= begin + done and stop - begin <= len(shown.removesuffix("…")):
            out += safe(shown[done : start - begin]) + style(
                safe(shown[start - begin : stop - begin]), fg="yellow", bold=True
            )
            done = stop - begin
    return out + safe(shown[done:])
