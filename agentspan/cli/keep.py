"""The commands that maintain a storage: `agentspan doctor` with `--init` and `--rederive`, and `prune`."""

import re
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import click

from agentspan import jsontext
from agentspan.analysis import by_name, filter_words
from agentspan.analysis.runs import ids_that_match
from agentspan.api.context import Context
from agentspan.cli.app import changes, command, location_in, opened, opened_existing, options, read_or_not
from agentspan.cli.completion import RUN
from agentspan.cli.filter_options import filter_in, filter_options
from agentspan.cli.output import (
    Failed,
    answer,
    argument,
    document,
    fit,
    pad,
    plain_rows,
    safe,
    status_style,
    style,
    table,
    to_call,
    to_copy,
    width,
    zone,
)
from agentspan.database import Database
from agentspan.errors import AgentspanError, InvalidValue
from agentspan.maintenance import bug_report, rederive
from agentspan.maintenance.doctor import Report, RunReport
from agentspan.maintenance.prune import Upkeep
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSchemaVersionRow, WriterRow
from agentspan.schemas.span_types import BUILT_IN_TYPES, SIDES, TEMPLATES, Unusable, unusable_parts
from agentspan.storage.access import count, scan
from agentspan.storage.location import Location
from agentspan.storage.questions import (
    AHEAD,
    Counts,
    Find,
    MakePartitions,
    MissingPartitions,
    Partitions,
    RunFilter,
    TablesState,
)
from agentspan.storage.registry import open_direct
from agentspan.storage.sums import MOST_LATE, WIDTHS, Partition, Width
from agentspan.text import noun, size_text

WAIT_S = 60.0
"""The seconds to wait, per new partition, for transactions that use the default partition."""


@command("init")
@click.argument("url", required=False)
@click.option("--ahead", metavar="N", type=click.IntRange(0, 1000), default=AHEAD, show_default=True,
              help="Make N partitions for times to come.")  # fmt: skip
@click.option("--since", metavar="TIME", help="Make those of all times since then, too: 90d, or 2026-01-01.")
@click.option("--width", type=click.Choice(WIDTHS), help="Make partitions so wide; as the latest one when left out.")
@click.option("--citus", is_flag=True, help="Distribute the finished spans over the workers of a Citus cluster.")
@click.option("--shards", metavar="N", type=click.IntRange(1, 1024), default=32, show_default=True,
              help="With --citus: distribute each partition in N parts.")  # fmt: skip
@options
@click.pass_context
def init_command(
    ctx: click.Context,
    /,
    url: str | None,
    *,
    ahead: int,
    since: str | None,
    width: Width | None,
    citus: bool,
    shards: int,
    db: str | None,
    as_json: bool,
) -> None:
    """Make or migrate the tables of a database.

    It also makes the partitions that are missing. URL is a file or NAME://…, else that of --db.
    """
    location = location_in(ctx, url or db)
    begin = None if since is None else filter_words.parse_time(since, "since", zone=zone())
    with closing(open_direct(location, wait_s=WAIT_S)) as storage:
        has_partitions = MakePartitions in storage.capabilities().answers
        made = storage.ask(MakePartitions(ahead, begin, width, WAIT_S)) if has_partitions else None
    if citus:
        _distribute(location, shards)
    names, moved = ([], 0) if made is None else ([*made.names], made.moved)
    answer(
        {"made": names, "moved": moved},
        f"{safe(str(location))} is ready",
        "it has no partitions" if made is None else "",
        f"made {noun(len(names), 'partition')}: {', '.join(names)}" if names else "",
        f"moved {noun(moved, 'span')} out of the default partition" if names else "",
        as_json=as_json,
    )


def _distribute(location: Location, shards: int) -> None:
    if location.scheme != "postgresql":
        raise InvalidValue("citus", "needs the URL of a database of PostgreSQL")
    from agentspan.storage.postgres.partitions import distribute

    if distribute(location, shards):
        click.echo(f"the finished spans are distributed in {noun(shards, 'shard')}", err=True)


@command("doctor")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--dead-host", "dead_hosts", metavar="NAME", multiple=True, help="All programs of this host are dead.")
@click.option("--idle", metavar="TIME", help="Close runs made by id that have not changed for so long: 2h, 7d …")
@click.option("--schemas", is_flag=True, help="Only list the span types of agents, and what in them is unusable.")
@click.option("--all", "all_types", is_flag=True, help="With --schemas: list the built-in span types, too.")
@click.option("--tables", is_flag=True, help="Only show the version of the tables, and their partitions.")
@click.option("--report", is_flag=True, help="Only print versions, sizes and counts, for a report of a bug.")
@options
@click.pass_context
def doctor_command(
    ctx: click.Context,
    /,
    db: str | None,
    as_json: bool,
    dry_run: bool,
    schemas: bool,
    all_types: bool,
    tables: bool,
    report: bool,
    **how: Any,
) -> None:
    """Check the file, and close what dead programs left open; with --init make its tables, with --rederive compute
    summaries and costs again.

    --init and --rederive have options of their own: `doctor --init --help` lists them.
    """
    lists = schemas + tables + report
    if lists > 1 or (lists and any(how.values())) or (all_types and not schemas):
        raise click.UsageError("--schemas (with --all), --tables and --report only print; each stands alone")
    if report:
        _report(location_in(ctx, db))
    elif tables:
        _tables(location_in(ctx, db), as_json=as_json)
    elif schemas:
        with opened(ctx, db) as database:
            _schemas(database, as_json=as_json, all_types=all_types)
    else:
        with opened_existing(ctx, db, read_only=dry_run) as database:
            _examine(database, dry_run=dry_run, as_json=as_json, **how)


def _report(location: Location) -> None:
    """Print the facts for a report of a bug. A storage that cannot be read is in it with the kind of its error only."""
    try:
        with closing(open_direct(location, read_only=True)) as storage:
            stored = bug_report.contents(storage)
    except (AgentspanError, OSError) as error:  # its text may have a path, or a password
        stored = {"error": type(error).__name__}
    document({**bug_report.machine(), "storage": stored})


def _examine(
    database: Database, *, dry_run: bool, dead_hosts: tuple[str, ...], as_json: bool, idle: str | None = None
) -> None:
    """Check a storage, close runs and spans that dead programs left open, and print a report.

    Exits with code 1 if the storage is damaged.
    """
    since = None if idle is None else filter_words.parse_time(idle, "idle")
    report = database.doctor(dry_run=dry_run, dead_hosts=dead_hosts, idle_since=since)
    with read_or_not():
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
            who = "a program that is not known" if run.writer is None else _name(run.writer)
            yield "    " + fit(f"left open by {who}", columns - 4)
        if run.left_open or not closed:
            spans = f"{noun(run.left_open, 'open span')} of " if run.left_open else ""
            yield fit(f"left alone {spans}run {run.run.id}", columns)
            yield from ("    " + safe(line) for line in _why(run))  # not cut: it contains a name to copy
    if not report.runs:
        yield status_style("✓", "complete") + " nothing is open"
    if report.mended_spans or report.mended_agents:
        agents, spans = noun(report.mended_agents, "agent"), noun(report.mended_spans, "span")
        yield f"put {agents} again, and gave {spans} the agent of their run"
    if report.waiting_journals:
        from agentspan.journal.adopting import left_over

        sentence = left_over(report.waiting_journals, report.waiting_bytes)
        yield status_style("!", "failed") + f" {to_call(sentence)}"
    if report.waiting_runs:
        yield status_style("!", "failed") + f" {noun(report.waiting_runs, 'open run')} left for the next `doctor`"
    yield from _partitions(report.partitions)
    yield from _damage(report, columns)
    if report.refused_total:
        yield f"{noun(report.refused_total, 'change')} came too late"
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
        yield (
            status_style("!", "failed")
            + f" {noun(report.damage_total, 'place')} in the journals of killed programs could not be read"
        )
    for row in report.damage:
        yield "    " + fit(safe(jsontext.decode(row.wanted)["said"]), columns - 4)


def _closed(run: RunReport) -> str:
    spans = noun(run.closed_spans, "span")
    if not run.closed_run:
        return f"{spans} of run {run.run.id}"
    return f"run {run.run.id}" + (f" and {spans}" if run.closed_spans else "")


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
        if why == "is in another time namespace":  # the writer is of this host, so --dead-host cannot apply
            yield from (f"{cannot} judge it:", f"nsenter --time --target {writer.pid} {to_copy('doctor')}")
        else:
            yield from (f"{cannot} say that it is dead:", f"--dead-host {writer.host}")


def _plain(report: Report) -> dict[str, Any]:
    refused, damage = (
        [{**row._asdict(), "wanted": jsontext.decode(row.wanted)} for row in rows]
        for rows in (report.refused, report.damage)
    )
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
        "refused_changes": refused,
        "total": report.refused_total,
        "partitions": {"made": [*report.partitions.made.names], "missing": report.partitions.missing},
        "damage": damage,
        "mended": {"agents": report.mended_agents, "spans": report.mended_spans},
        "waiting": {"journals": report.waiting_journals, "bytes": report.waiting_bytes, "runs": report.waiting_runs},
    }


def _tables(location: Location, *, as_json: bool) -> None:
    """Print the version, the partitions, and the progress of the index; exit with code 1 if partitions are missing."""
    with closing(open_direct(location, read_only=True)) as storage:
        backend = storage.capabilities().backend
        if Partitions not in storage.capabilities().answers:
            if as_json:
                document({"backend": backend, "partitions": []})
            else:
                click.echo(f"{safe(str(location))} has no partitions")
            return
        found, missing = storage.ask(Partitions()), storage.ask(MissingPartitions())
        state = storage.ask(TablesState())
    if as_json:
        document(
            {
                "backend": backend,
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
            click.echo(f"{lead}: {to_copy('doctor', '--init')}")
    if missing:
        raise SystemExit(1)


_PARTITIONS = ["partition", "from", "before", "spans", "size"]


def _partition_line(part: Partition) -> list[str]:
    bounds = [(bound or "").partition("T")[0] for bound in (part.start, part.end)]
    rows = "" if part.rows is None else f"{'' if part.is_default else '~'}{part.rows:,}"
    return [part.name, *bounds, rows, size_text(part.bytes)]


def _schemas(database: Database, *, as_json: bool, all_types: bool) -> None:
    """List the span types that agents registered, and their parts that agentspan cannot use."""
    storage = database.storage
    versions = list(scan(storage, AgentSchemaVersionRow))
    if as_json:
        plain = zip(plain_rows(storage, versions), versions, strict=True)
        document({"schemas": [each | {"unusable": _unusable(row)} for each, row in plain], "total": len(versions)})
        return
    for row in versions:
        agent = storage.ask(Find(row.agent_id)).rows[row.agent_id][1]
        name = agent.name if isinstance(agent, AgentRow) else row.agent_id
        click.echo(style(f"{fit(name, width() - 26)}  {row.inserted_at[:10]}  {row.content_hash[:12]}", bold=True))
        items = jsontext.decode(row.span_type_schemas)
        own = [item for item in items if all_types or item.get("name") not in BUILT_IN_TYPES]
        for item in own:
            template = item.get("template") or "(no template)"
            click.echo(f"  {pad(fit(item['name'], 20), 20)}  {fit(template, width() - 24)}")
            for part in unusable_parts(item):
                click.echo(f"    {safe(_note(part))}")  # not cut: it may end with a command
        for part in _unusable_quality(row):
            named = fit(f"quality {part.name}".rstrip(), 40)  # a quality without a name has no suffix
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


_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,3})?) ?([kmgt]?)i?b?\Z", re.IGNORECASE)


@command("prune")
@click.option("--older-than", metavar="TIME", help="Remove runs that finished before: 30d or 12h ago, 2026-11-24 …")
@click.option("--max-size", metavar="SIZE", help="Remove the oldest runs until no more is in use: 500MB, 2GB …")
@click.option("--keep-failed", is_flag=True, help="Keep runs that failed, or in which a span did.")
@click.option("--whole-partitions", is_flag=True, help="On PostgreSQL, only drop partitions that are old as a whole.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@filter_options
@changes
def prune_command(
    database: Database,
    *,
    older_than: str | None,
    max_size: str | None,
    keep_failed: bool,
    whole_partitions: bool,
    dry_run: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Remove old runs that have finished, and make the file smaller.

    Idempotency keys older than 7 days are removed, too. With filters, only runs that match are removed: all of these,
    if neither --older-than nor --max-size is given.
    """
    storage = database.storage
    filter = filter_in(storage, filters)
    done = database.prune(
        older_than=None if older_than is None else filter_words.parse_time(older_than, "older_than", zone=zone()),
        max_bytes=None if max_size is None else _size(max_size),
        keep_failed=keep_failed,
        dry_run=dry_run,
        whole_partitions=whole_partitions,
        only=None if filter == RunFilter() else lambda rows: ids_that_match(storage, rows, filter),
    )
    about = "about " if dry_run and max_size is not None else ""
    what = f"{about}{noun(done.runs, 'run')} with {noun(done.spans, 'span')}, and {noun(done.keys, 'idempotency key')}"
    answer(
        {**done._asdict(), "dry_run": dry_run},
        f"{'would remove' if dry_run else 'removed'} {what}",
        f"{noun(done.partitions, 'partition')} dropped" if done.partitions else "",
        "" if done.freed_bytes is None else f"{noun(done.freed_bytes, 'byte')} freed",
        as_json=as_json,
    )


def _size(text: str) -> int:
    """Parse a size such as `500MB`, `2 GiB` or `1048576`; return bytes. k, M, G and T are powers of 1024.

    Raises:
        InvalidValue: the text is not a size.
    """
    match = _SIZE.match(text.strip())
    if match is None:
        raise InvalidValue("max_size", "must be such as 500MB, 2GB or 1048576")
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


@command("rederive")
@click.argument("run", required=False, type=RUN)
@click.option("--summaries", is_flag=True, help="Compute only summaries, by the newest templates of each agent.")
@click.option("--prices", is_flag=True, help="Compute only costs, by today's prices. Costs that clients gave stay.")
@changes
def rederive_command(database: Database, *, run: str | None, summaries: bool, prices: bool, as_json: bool) -> None:
    """Compute summaries and costs again, after a template or prices have changed.

    Of RUN, or of all runs.
    """
    storage = database.storage
    only = None if run is None else by_name.find_run(storage, run)
    total = count(storage, "agent_span") if only is None else storage.ask(Counts([only.id]))[only.id].total
    works = {"summaries": rederive.summaries, "costs": rederive.costs}
    if summaries != prices:
        del works["costs" if summaries else "summaries"]
    seen, changed = 0, {}
    for name, work in works.items():
        instances = scan(storage, AgentInstanceRow) if only is None else iter((only,))
        seen = changed[name] = 0
        try:
            with click.progressbar(length=total, label=name, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
                for progress in work(Context(storage), instances):
                    seen += progress.seen
                    changed[name] += progress.changed
                    bar.update(progress.seen)
        except InvalidValue as error:  # the user's own file of prices is invalid
            raise Failed(str(error)) from None
    lines = (f"{name} of {number:,} of {noun(seen, 'span')} changed" for name, number in changed.items())
    answer({"spans": seen, "changed": changed}, *lines, as_json=as_json)
