"""Operations on schema versions: the sets of span types that instances are registered with."""

import logging
from collections.abc import Mapping
from typing import Any

from agentspan import jsontext
from agentspan.errors import InvalidValue, RequiredValue
from agentspan.model import schema_versions
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentRow, AgentSchemaVersionRow
from agentspan.model.schema_versions import SchemaFields
from agentspan.model.texts import check_text
from agentspan.operations import request
from agentspan.operations.as_sent import inside
from agentspan.operations.context import Context, Done
from agentspan.schemas.span_types import REGISTRY, check_name, check_quality_schemas, check_span_type_schemas
from agentspan.schemas.unusable import TEMPLATES, Unusable
from agentspan.storage.answers import Found, Rows
from agentspan.storage.lookup import expect, unique
from agentspan.storage.questions import Query

MAX_TYPES = 500
LISTED = 20
"""Span types named in one line of the log."""
SORTABLE = frozenset({"id", "inserted_at", "external_identifier"})


def fields(ctx: Context, value: Any) -> SchemaFields:
    """Read an `agent_schema_version`: `span_type_schemas`, or the flat maps `span_schemas` and `span_result_schemas`.

    None means the span types of this process: the built-in ones and those of `agentspan.span_type`.
    """
    if value is None:
        return schema_versions.fields_of(REGISTRY.items())
    if not isinstance(value, Mapping):
        raise InvalidValue("agent_schema_version", "must be an object")
    external = request.text("external_identifier", value.get("external_identifier"))
    checked, unusable = check_span_type_schemas(_items(value))
    quality, unusable_quality = check_quality_schemas(_list(value, "quality_schemas"))
    if value.get("quality_schema") is not None:
        unnamed, unusable_unnamed = _unnamed(value["quality_schema"])
        quality, unusable_quality = [*quality, unnamed], [*unusable_quality, *unusable_unnamed]
    external = external and ctx.admit_text(external)
    wanted = schema_versions.fields_of(ctx.admit_types(checked), ctx.admit_types(quality), external)
    _warn(unusable + unusable_quality, wanted.content_hash)
    return wanted


def _warn(unusable: list[Unusable], content_hash: str) -> None:
    """Log once what of a schema version is stored, but cannot be used."""
    if not unusable or content_hash in _warned:
        return
    _warned.add(content_hash)
    logger = logging.getLogger("agentspan")
    parts = [f"{each.name} (its {each.field} {each.reason})" for each in unusable]
    templates = [part for part, each in zip(parts, unusable, strict=True) if each.field in TEMPLATES]
    schemas = [part for part, each in zip(parts, unusable, strict=True) if each.field not in TEMPLATES]
    if templates:
        logger.warning("no summaries, the template is stored as it is, for %s", "; ".join(templates[:LISTED]))
    if schemas:
        logger.warning("payloads are not checked, the schema is stored as it is, for %s", "; ".join(schemas[:LISTED]))


_warned: set[str] = set()


def _unnamed(schema: Any) -> tuple[dict[str, Any], list[Unusable]]:
    """Check the one quality schema without a name; return it with the name that it is stored under."""
    if not isinstance(schema, Mapping):
        raise InvalidValue("quality_schema", "must be an object with a schema")
    named = {**_plain([schema], "quality_schema")[0], "name": "quality_schema"}
    (checked,), unusable = check_quality_schemas([named])
    return {**checked, "name": schema_versions.UNNAMED}, unusable


def _items(value: Mapping[str, Any]) -> list[Any]:
    items = _list(value, "span_type_schemas")
    named = {item.get("name") for item in items if isinstance(item, Mapping)}
    payloads, results = _map(value, "span_schemas"), _map(value, "span_result_schemas")
    for name in {**payloads, **results}:
        if name not in named:
            items.append({"name": name, "params_schema": payloads.get(name), "result_schema": results.get(name)})
    if len(items) > MAX_TYPES:
        raise InvalidValue("span_type_schemas", f"at most {MAX_TYPES} span types are allowed")
    return _plain(items, "span_type_schemas")


def _list(value: Mapping[str, Any], field: str) -> list[Any]:
    found = value.get(field)
    if found is None:
        return []
    if not isinstance(found, (list, tuple)):
        raise InvalidValue(field, "must be a list")
    entries = _plain(list(found), field)
    for number, entry in enumerate(entries):
        if isinstance(entry, Mapping):
            with inside(f"{field}[{number}]"):
                _check_name("name", entry.get("name"))
                title = entry.get("title")
                check_text("title", title if isinstance(title, str) else "")
    return entries


def _check_name(field: str, name: Any) -> None:
    try:
        check_name(name)
    except InvalidValue as error:
        raise InvalidValue(field, str(error).removeprefix(f"{error.field}: ")) from None


def _plain(items: list[Any], field: str) -> list[Any]:
    try:
        encoded: list[Any] = jsontext.encode(items)[1]
    except ValueError as error:
        raise InvalidValue(field, str(error)) from None
    return encoded


def _map(value: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    found = value.get(field) or {}
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise InvalidValue(field, "must be an object of schemas by name")
    for name in found:
        _check_name(field, name)
    return found


def create(ctx: Context, *, agent_id: Any, idempotency_key: Any = None, **agent_schema_version: Any) -> Done:
    """Create a schema version; the same content again is the same version (see AgentSchemaVersions.create)."""
    if agent_id is None:
        raise RequiredValue("agent_id", "is required")
    wanted = fields(ctx, agent_schema_version)
    said = {"agent_id": agent_id, "external_identifier": wanted.external_identifier, "content": wanted.content_hash}
    key = request.idempotency_key("agent_schema_versions/create", idempotency_key, said)
    new_id = ctx.ids.new()

    def decide(found: Found, now: str) -> Unit:
        agent = expect(found, AgentRow, agent_id)
        stored = unique(ctx.storage, AgentSchemaVersionRow, agent_id=agent.id, content_hash=wanted.content_hash)
        if stored is not None:
            return Unit((), stored.id, key)
        row = AgentSchemaVersionRow(new_id, agent.id, *wanted, now, now)
        return Unit((Put(row, minted=True),), new_id, key)

    return ctx.commit((agent_id,), key, decide)


def page(ctx: Context, *, agent_id: Any = None, sorting: Any = None, offset: int = 0, page_size: int = 50) -> Rows:
    """Return a page of schema versions (see AgentSchemaVersions.list)."""
    where = {} if agent_id is None else {"agent_id": ctx.row(AgentRow, agent_id).id}
    query = Query("agent_schema_version", where)
    return ctx.storage.ask(
        request.page(query, sorting, offset, page_size, columns=SORTABLE, most_bytes=ctx.piece_bytes)
    )
