"""`agentspan doctor`: reports damage, closes what dead programs left open; shows tables and span types."""

from collections.abc import Iterator
from typing import Any

import click

from agentspan import jsontext
from agentspan.analysis import time_expressions
from agentspan.api import from_rows
from agentspan.cli.output import argument, document, fit, noun, pad, safe, status_style, style, table, to_copy, width
from agentspan.database import Database
from agentspan.figures import size_text
from agentspan.maintenance.doctor import Report, RunReport
from agentspan.maintenance.partition_upkeep import Upkeep
from agentspan.model.rows import AgentRow, AgentSchemaVersionRow, WriterRow
from agentspan.schemas.span_types import BUILT_IN_TYPES
from agentspan.schemas.unusable import SIDES, TEMPLATES, Unusable, unusable_parts
from agentspan.storage.answers import MOST_LATE, Partition
from agentspan.storage.location import Location
from agentspan.storage.questions import Account, Find, MissingPartitions, Partitions, TablesState
from agentspan.storage.registry import open_direct
from agentspan.storage.scanning import scan


def command(
    database: Database, *, dry_run: bool, dead_hosts: tuple[str, ...], as_json: bool, idle: str | None = None
) -> None:
    """Examine a file and print the report; exit code 1 if the file is damaged."""
    since = None if idle is None else time_expressions.parse(idle, "idle")
    report = database.doctor(dry_run=dry_run, dead_hosts=dead_hosts, idle_since=since)
    if as_json:
        document(_plain(report))
    else:
        for line in _lines(report, dry_run=dry_run):
            click.echo(line)
        location = database.storage.capabilities().location
        if report.problems and location is not None and location.path is not None:
            click.echo(f"the file is damaged; `sqlite3 {argument(location.path)} .recover` can save its rows")
    if report.problems:
        raise SystemExit(1)


def _lines(report: Report, *, dry_run: bool) -> Iterator[str]:
    columns = width()
    yield from (status_style(safe(f"✗ {problem}"), "failed") for problem in report.problems)
    if not report.problems:
        yield status_style("✓", "complete") + " the file is sound"
    for run in report.runs:
        closed = run.closed_run or run.closed_spans > 0
        if closed:
            yield fit(f"{'would close' if dry_run else 'closed'} {_closed(run)}", columns)
            yield "    " + fit(f"left open by {_who(run)}", columns - 4)
        if run.left_open or not closed:
            yield fit(f"left alone {_left(run)}", columns)
            yield from ("    " + safe(line) for line in _why(run))  # not cut: there is a name in it to be used
    if not report.runs:
        yield status_style("✓", "complete") + " nothing is open"
    yield from _partitions(report.partitions)
    yield from _damage(report, columns)
    if report.refused_total:
        yield f"{report.refused_total} {'change' if report.refused_total == 1 else 'changes'} came too late"
    for row in report.refused:
        wanted = jsontext.decode(row.wanted)
        stored = f"is {row.stored_status}" if row.stored_status else "is not in the file"
        what = f"{stored}, was to be {wanted.get('status', 'changed')}: {wanted.get('summary') or ''}"
        yield "    " + fit(f"{row.subject} {what}", columns - 4)
    if report.refused_total:
        yield "    all of each is in the table refused_changes"


def _partitions(kept: Upkeep) -> Iterator[str]:
    if kept.made.names:
        moved = f", and moved {noun(kept.made.moved, 'span')} there" if kept.made.moved else ""
        yield f"made {noun(len(kept.made.names), 'partition')}{moved}"
    if kept.missing:
        yield status_style("!", "failed") + f" {noun(kept.missing, 'partition')} for times to come are missing"
    if kept.problem is not None:
        yield "    " + safe(str(kept.problem))


def _damage(report: Report, columns: int) -> Iterator[str]:
    if report.damage_total:
        places = "1 place" if report.damage_total == 1 else f"{report.damage_total} places"
        yield status_style("!", "failed") + f" {places} in the journals of killed programs could not be read"
    for row in report.damage:
        yield "    " + fit(safe(jsontext.decode(row.wanted)["said"]), columns - 4)


def _closed(run: RunReport) -> str:
    spans = f"{run.closed_spans} {'span' if run.closed_spans == 1 else 'spans'}"
    if not run.closed_run:
        return f"{spans} of run {run.run.id}"
    return f"run {run.run.id}" + (f" and {spans}" if run.closed_spans else "")


def _left(run: RunReport) -> str:
    return (
        f"{run.left_open} open {'span' if run.left_open == 1 else 'spans'} of run {run.run.id}"
        if (run.left_open)
        else f"run {run.run.id}"
    )


def _who(run: RunReport) -> str:
    return "a program that is not known" if run.writer is None else _name(run.writer)


def _name(writer: WriterRow) -> str:
    return f"{writer.program} (pid {writer.pid} on {writer.host})"


def _why(run: RunReport) -> Iterator[str]:
    if run.writer is None:
        yield "it was made by id; its program is not known; to close it if it does not change: --idle 2h"
    elif run.life == "alive":
        yield f"{_name(run.writer)} is alive"
    elif run.life == "dead" and not run.not_judged:
        yield "they are of other programs, which may be alive, or were made by id"
    for writer, why in run.not_judged:
        cannot = f"{_name(writer)} {why}, and cannot be judged from here; to"
        if why == "is in another time namespace":  # of this host, which is not dead
            yield from (f"{cannot} judge it:", f"nsenter --time --target {writer.pid} {to_copy('doctor')}")
        else:
            yield from (f"{cannot} say that it is dead:", f"--dead-host {writer.host}")


def _plain(report: Report) -> dict[str, Any]:
    return {
        "problems": report.problems,
        "runs": [
            {
                "run": run.run.id,
                "writer": None if run.writer is None else run.writer._asdict(),
                "life": run.life,
                "closed_run": run.closed_run,
                "closed_spans": run.closed_spans,
                "left_open": run.left_open,
                "not_judged": [{"writer": writer._asdict(), "why": why} for writer, why in run.not_judged],
            }
            for run in report.runs
        ],
        "refused_changes": [{**row._asdict(), "wanted": jsontext.decode(row.wanted)} for row in report.refused],
        "total": report.refused_total,
        "partitions": {"made": [*report.partitions.made.names], "missing": report.partitions.missing},
        "damage": [{**row._asdict(), "wanted": jsontext.decode(row.wanted)} for row in report.damage],
    }


def tables(location: Location, *, as_json: bool) -> None:
    """Print the version, the partitions, and how far the index is. Exit code 1 if partitions are missing."""
    storage = open_direct(location, read_only=True)
    try:
        if Partitions not in storage.capabilities().answers:
            if as_json:
                document({"backend": storage.capabilities().backend, "partitions": []})
            else:
                click.echo(f"{safe(str(location))} has no partitions")
            return
        found, missing = storage.ask(Partitions()), storage.ask(MissingPartitions())
        state = storage.ask(TablesState())
    finally:
        storage.close()
    if as_json:
        document(
            {
                "backend": storage.capabilities().backend,
                "version": state.version,
                "partitions": [each._asdict() for each in found],
                "missing": missing,
                "index": {part: {"late_spans": late} for part, late in state.late.items()},
            }
        )
    else:
        click.echo(f"{safe(str(location))} has tables of version {state.version}")
        table(_PARTITIONS, [*map(_partition_line, found)], right=(3, 4))
        for part, late in state.late.items():
            click.echo(f"the index of {part} lacks {'more than ' if late >= MOST_LATE else ''}{noun(late, 'span')}")
        if missing:
            lead = f"{noun(missing, 'partition')} for now and times to come are missing"
            click.echo(f"{lead}: {to_copy('init')}")
    if missing:
        raise SystemExit(1)


_PARTITIONS = ["partition", "from", "before", "spans", "size"]


def _partition_line(part: Partition) -> list[str]:
    bounds = [(bound or "").partition("T")[0] for bound in (part.start, part.end)]
    rows = "" if part.rows is None else f"{'' if part.is_default else '~'}{part.rows:,}"
    return [part.name, *bounds, rows, size_text(part.bytes)]


def schemas(database: Database, *, as_json: bool, all_types: bool) -> None:
    """List the span types that agents were registered with, and the parts of them that cannot be used."""
    storage = database.storage
    versions = list(scan(storage, AgentSchemaVersionRow))
    if as_json:
        account = storage.ask(Account())
        document(
            {
                "schemas": [
                    from_rows.plain(from_rows.schema_version(row, account)) | {"unusable": _unusable(row)}
                    for row in versions
                ],
                "total": len(versions),
            }
        )
        return
    for row in versions:
        agent = storage.ask(Find(row.agent_id)).rows[row.agent_id][1]
        name = agent.name if isinstance(agent, AgentRow) else row.agent_id
        click.echo(style(f"{fit(name, width() - 26)}  {row.inserted_at[:10]}  {row.content_hash[:12]}", bold=True))
        items = jsontext.decode(row.span_type_schemas)
        own = [item for item in items if all_types or not _is_built_in(item)]
        for item in own:
            template = item.get("template") or "(no template)"
            click.echo(f"  {pad(fit(item['name'], 20), 20)}  {fit(template, width() - 24)}")
            for part in unusable_parts(item):
                click.echo(f"    {fit(_note(part), width() - 4)}")
        for part in _unusable_quality(row):
            named = fit(f"quality {part.name}".rstrip(), 40)  # the one without a name has none
            click.echo(f"  {named}: {fit(_note(part), max(20, width() - len(named) - 4))}")
        if len(own) < len(items):
            click.echo(f"  and {len(items) - len(own)} built-in span types (--all shows them)")
    click.echo(f"{len(versions)} of {noun(len(versions), 'schema version')}")


def _unusable(row: AgentSchemaVersionRow) -> list[dict[str, str]]:
    parts = [part for item in jsontext.decode(row.span_type_schemas) for part in unusable_parts(item)]
    return [part._asdict() for part in parts + _unusable_quality(row)]


def _unusable_quality(row: AgentSchemaVersionRow) -> list[Unusable]:
    return [part for item in jsontext.decode(row.quality_schemas or "[]") for part in unusable_parts(item)]


def _note(part: Unusable) -> str:
    if part.field in TEMPLATES:
        missing = "summary" if part.field == "template" else "outcome in the summary"
        return f"no {missing}: the {part.field} {part.reason}"
    return f"unchecked {SIDES[part.field]}: the schema {part.reason}"


def _is_built_in(item: dict[str, Any]) -> bool:
    return item.get("name") in BUILT_IN_TYPES
