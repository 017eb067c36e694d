"""The commands that only read: runs, show, span, schemas."""

import json
from typing import Any

import click

from agentspan import jsontext
from agentspan.analysis import find
from agentspan.cli.output import COLORS, MARKS, document, fit, pad, safe, status_style, style, width
from agentspan.cli.tree import lines, title
from agentspan.model import resources
from agentspan.model.rows import (
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentVersionRow,
    Row,
)
from agentspan.model.status import OPEN
from agentspan.operations.database import Database
from agentspan.operations.doctor import Lives
from agentspan.schemas.meaning import duration_text
from agentspan.schemas.span_types import BUILT_IN_TYPES
from agentspan.storage.protocol import Query, Storage

LATEST_RUNS = 50
SHORTEST_ID = 10
"""Characters of an id that hold its time: fewer are the same for all runs of a long while."""
ID_COLUMNS = 15
NARROW = 76


def runs(database: Database, *, as_json: bool) -> None:
    """List the latest runs, and say how many there are in all."""
    storage = database.storage
    page = storage.page(Query("agent_instance", descending=True, limit=LATEST_RUNS))
    rows = [row for row in page.rows if isinstance(row, AgentInstanceRow)]
    counts = storage.counts([row.id for row in rows])
    names = _names(storage, rows)
    lives = Lives(storage)
    stale = {row.id for row in rows if row.status in OPEN and lives.of(row.writer_id) == "dead"}
    if as_json:
        account = storage.account()
        found = [
            {
                **resources.plain(resources.instance(row, account, counts[row.id]._asdict())),
                "agent": names[row.id],
                "abandoned": row.id in stale or row.closed_by == "abandoned",
            }
            for row in rows
        ]
        document({"runs": found, "total": page.total})
        return
    ids = _short_ids([row.id for row in rows])
    columns = width()
    dated = columns >= NARROW
    id_columns = max([len(id) for id in ids.values()], default=SHORTEST_ID)
    room = max(8, columns - id_columns - (16 if dated else 0) - 37)
    header = pad("run", id_columns) + (pad("  started (UTC)", 16) if dated else "")
    click.echo(style(f"{header}  {pad('status', 12)}   took  spans failed  agent", bold=True))
    for row in rows:
        took = "" if row.duration_ms is None else duration_text(row.duration_ms)
        started = f"  {(row.started_at or row.inserted_at)[5:19].replace('T', ' ')}" if dated else ""
        failed = counts[row.id].failed
        click.echo(
            f"{pad(ids[row.id], id_columns)}{started}  "
            + status_style(pad(f"{MARKS[row.status]} {row.status}{'?' if row.id in stale else ''}", 12), row.status)
            + f"{pad(took, 7, right=True)}{pad(str(counts[row.id].total), 7, right=True)}"
            + style(pad(str(failed or ""), 7, right=True), fg=COLORS["failed"])
            + f"  {fit(names[row.id], room)}"
        )
    click.echo(f"{len(rows)} of {page.total} {'run' if page.total == 1 else 'runs'}")
    if stale:
        click.echo("? its program died; `agentspan doctor` closes what it left open")


def show(database: Database, what: str, *, as_json: bool) -> None:
    """Show a run as a tree."""
    storage = database.storage
    run = find.run(storage, what)
    name = _names(storage, [run])[run.id]
    spans = list(storage.iter_spans(run.id))
    if as_json:
        account = storage.account()
        counts = storage.counts([run.id])[run.id]
        document(
            {
                "run": {**resources.plain(resources.instance(run, account, counts._asdict())), "agent": name},
                "spans": [resources.plain(resources.span(span, account)) for span in spans],
                "total": len(spans),
            }
        )
        return
    lives = Lives(storage)
    writers = {run.writer_id, *(span.writer_id for span in spans if span.status in OPEN)}
    dead = {id for id in writers if lives.of(id) == "dead"}
    for line in lines(run, name, spans, width(), dead):
        click.echo(line)


def span(database: Database, what: str, *, as_json: bool) -> None:
    """Show all of one span."""
    storage = database.storage
    row = find.span(storage, what)
    violations = storage.violations(row.id)
    if as_json:
        found = resources.plain(resources.span(row, storage.account()))
        document({"span": found, "violations": [violation._asdict() for violation in violations]})
        return
    click.echo(status_style(MARKS[row.status], row.status) + " " + style(fit(title(row), width() - 2), bold=True))
    facts = {
        "id": row.id,
        "run": row.agent_instance_id,
        "parent": row.parent_span_id,
        "type": row.schema_name,
        "status": row.status if row.closed_by is None else f"{row.status} (closed by {row.closed_by})",
        "started": row.started_at,
        "finished": row.finished_at,
        "took": None if row.duration_ms is None else duration_text(row.duration_ms),
        "tokens": _tokens(row.input_tokens, row.output_tokens),
        "cost": None if row.cost_usd is None else f"${row.cost_usd:.6f}",
    }
    for name, value in facts.items():
        if value is not None:
            click.echo(f"  {name:<9}{safe(value)}")
    _show_json("payload", jsontext.decode(row.payload))
    if row.result_payload is not None:
        result = jsontext.decode(row.result_payload)
        error = result.get("error")
        trace = error.get("stacktrace") if isinstance(error, dict) else None
        if isinstance(trace, str):
            result = {**result, "error": {key: value for key, value in error.items() if key != "stacktrace"}}
        _show_json("result_payload", result)
        if isinstance(trace, str):
            click.echo(style("stacktrace", bold=True))
            click.echo(safe("".join(f"  {line}" for line in trace.splitlines(keepends=True))))
    if violations:
        click.echo(style("does not match its schema", bold=True))
        for violation in violations:
            click.echo(safe(f"  {violation.side} {violation.path}: {violation.message}"))


def schemas(database: Database, *, as_json: bool, all_types: bool) -> None:
    """List schema versions with their span types."""
    storage = database.storage
    page = storage.page(Query("agent_schema_version"))
    versions = [row for row in page.rows if isinstance(row, AgentSchemaVersionRow)]
    if as_json:
        account = storage.account()
        document(
            {
                "schemas": [resources.plain(resources.schema_version(row, account)) for row in versions],
                "total": page.total,
            }
        )
        return
    for row in versions:
        agent = storage.find(row.agent_id).rows[row.agent_id][1]
        name = agent.name if isinstance(agent, AgentRow) else row.agent_id
        click.echo(style(f"{fit(name, width() - 26)}  {row.inserted_at[:10]}  {row.content_hash[:12]}", bold=True))
        items = jsontext.decode(row.span_type_schemas)
        own = [item for item in items if all_types or not _is_built_in(item)]
        for item in own:
            template = item.get("template") or "(no template)"
            click.echo(f"  {pad(fit(item['name'], 20), 20)}  {fit(template, width() - 24)}")
        if len(own) < len(items):
            click.echo(f"  and {len(items) - len(own)} built-in span types (--all shows them)")
    click.echo(f"{len(versions)} of {page.total} schema {'version' if page.total == 1 else 'versions'}")


def _is_built_in(item: dict[str, Any]) -> bool:
    return item.get("name") in BUILT_IN_TYPES


def _show_json(name: str, value: Any) -> None:
    click.echo(style(name, bold=True))
    text = json.dumps(value, indent=2, ensure_ascii=False)
    click.echo(safe("".join(f"  {line}" for line in text.splitlines(keepends=True))))


def _tokens(given: int | None, made: int | None) -> str | None:
    if given is None and made is None:
        return None
    return f"{'?' if given is None else given} in, {'?' if made is None else made} out"


def _names(storage: Storage, rows: list[AgentInstanceRow]) -> dict[str, str]:
    """Return `agent version` for each run."""
    ids = {id for row in rows for id in (row.agent_id, row.agent_version_id)}
    found: dict[str, Row] = {id: row for id, (_, row) in storage.find(*ids).rows.items()}
    names = {}
    for row in rows:
        agent, version = found.get(row.agent_id), found.get(row.agent_version_id)
        name = agent.name if isinstance(agent, AgentRow) else row.agent_id
        if isinstance(version, AgentVersionRow) and version.external_identifier != "default":
            name += f" {version.external_identifier}"
        names[row.id] = safe(name)
    return names


def _short_ids(ids: list[str]) -> dict[str, str]:
    """Return beginnings that tell these ids apart, or `beginning…end` where those would be long; `show` takes both."""
    for length in range(SHORTEST_ID, ID_COLUMNS + 1):
        if len({id[:length] for id in ids}) == len(ids):
            return {id: id[:length] for id in ids}
    return {id: f"{id[:SHORTEST_ID]}{find.BETWEEN}{id[-4:]}" for id in ids}
