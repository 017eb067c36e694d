"""`agentspan schemas`: lists the span types that agents were registered with, and what of them cannot be used."""

from typing import Any

import click

from agentspan import jsontext
from agentspan.api import from_rows
from agentspan.cli.output import document, fit, noun, pad, style, width
from agentspan.database import Database
from agentspan.model.rows import AgentRow, AgentSchemaVersionRow
from agentspan.schemas.span_types import BUILT_IN_TYPES
from agentspan.schemas.unusable import SIDES, TEMPLATES, Unusable, unusable_parts
from agentspan.storage.questions import Account, Find
from agentspan.storage.scanning import scan


def command(database: Database, *, as_json: bool, all_types: bool) -> None:
    """List schema versions with their span types."""
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
