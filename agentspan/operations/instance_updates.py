"""Changes of an instance by id, in any status: what it says of itself, and the evaluation that has no name."""

from collections.abc import Mapping
from typing import Any, TypedDict

from agentspan.errors import RequiredValue
from agentspan.model.changes import Change, Move, Put, Remove, Unit
from agentspan.model.rows import AgentInstanceRow, TagRow, Value
from agentspan.model.schema_versions import UNNAMED
from agentspan.operations import about_run, quality, request
from agentspan.operations.context import Context, Done
from agentspan.storage.answers import Found
from agentspan.storage.lookup import expect
from agentspan.storage.scanning import scan


class InstanceFields(TypedDict, total=False):
    """The fields of `AgentInstances.update`; see there."""

    quality_payload: dict[str, Any] | None
    metadata: dict[str, Any] | None
    session: str | None
    user: str | None
    task: str | None
    tags: list[str] | None


FIELDS = ("quality_payload", "metadata", *about_run.TEXTS, "tags")


def update(ctx: Context, agent_instance_id: Any, fields: Mapping[str, Any], *, idempotency_key: Any = None) -> Done:
    """Change an instance (see AgentInstances.update).

    Args:
        fields: those of FIELDS that the request has; None removes what is there.

    Raises:
        RequiredValue: it has none of them.
    """
    given = {name: fields[name] for name in FIELDS if name in fields}
    if not given:
        raise RequiredValue("quality_payload", f"or one of {', '.join(FIELDS[1:])} is required; null removes it")
    sent = {name: _object(name, given[name]) for name in ("quality_payload", "metadata") if name in given}
    metadata = sent.get("metadata")
    texts = {name: given.get(name) for name in about_run.TEXTS}
    about = about_run.read(texts, given.get("tags"), metadata and metadata[1])
    removed = [name for name, value in given.items() if value is None]
    said: dict[str, Any] = {"agent_instance_id": agent_instance_id, **about.said}
    said |= {name: text and text[1] for name, text in sent.items()}
    if removed and [*given] != ["quality_payload"]:  # keys of before there were other fields stay what they were
        said["removed"] = removed
    key = request.idempotency_key("agent_instances/update", idempotency_key, said)
    admitted = {name: None if text is None else ctx.admit(*text) for name, text in sent.items()}
    told = about.admitted(ctx)
    tags = () if "tags" in removed else told.pop("tags") if about.tags is not None else None

    def decide(found: Found, now: str) -> Unit:
        instance = expect(found, AgentInstanceRow, agent_instance_id)
        changes: list[Change] = []
        if "quality_payload" in admitted:
            changes += quality.changes(ctx, instance, UNNAMED, admitted["quality_payload"], now)
        values: dict[str, Value] = {name: told.get(name) for name in about_run.TEXTS if name in about.texts}
        values |= {name: None for name in about_run.TEXTS if name in removed}
        if "metadata" in admitted:
            values["metadata"] = None if admitted["metadata"] is None else admitted["metadata"].text
        if values or not changes:
            changes.append(Move("agent_instance", instance.id, frozenset(), {**values, "updated_at": now}))
        if tags is not None:
            changes += _tagged(ctx, instance, tags, now)
        return Unit(tuple(changes), instance.id, key)

    return ctx.commit((agent_instance_id,), key, decide, instance_id=agent_instance_id)


def _object(name: str, value: Any) -> tuple[str, Any] | None:
    return None if value is None else request.json_object(name, value)


def _tagged(ctx: Context, instance: AgentInstanceRow, tags: tuple[str, ...], now: str) -> list[Change]:
    """Return the changes after which an instance has these tags and no others."""
    stored = {row.tag: row.id for row in scan(ctx.storage, TagRow, {"agent_instance_id": instance.id})}
    changes: list[Change] = [Remove("tag", id) for tag, id in stored.items() if tag not in tags]
    new = [TagRow(ctx.ids.new(), instance.id, tag, now) for tag in tags if tag not in stored]
    return [*changes, *(Put(row, minted=True) for row in new)]
