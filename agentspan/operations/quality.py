"""The quality payload of an instance that has no name, and is replaced as a whole (named ones: record_quality)."""

from typing import Any

from agentspan import jsontext
from agentspan.errors import RequiredValue
from agentspan.model import instances
from agentspan.model.changes import Unit
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow
from agentspan.model.schema_versions import UNNAMED
from agentspan.operations import request
from agentspan.operations.context import Context, Done
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import SpanType
from agentspan.storage.lookup import expect
from agentspan.storage.protocol import Found

MISSING: Any = object()
"""Stands for a quality_payload that the request does not have. Null is another thing: it removes the stored one."""


def replace(
    ctx: Context, agent_instance_id: Any, *, quality_payload: Any = MISSING, idempotency_key: Any = None
) -> Done:
    """Replace, or with None remove, the unnamed quality payload of an instance (see AgentInstances.update)."""
    if quality_payload is MISSING:
        raise RequiredValue("quality_payload", "is required; null removes it")
    sent = None if quality_payload is None else request.json_object("quality_payload", quality_payload)
    said = {"agent_instance_id": agent_instance_id, "quality_payload": sent and sent[1]}
    key = request.idempotency_key("agent_instances/update", idempotency_key, said)
    admitted = None if sent is None else ctx.admit(*sent)

    def decide(found: Found, now: str) -> Unit:
        instance = expect(found, AgentInstanceRow, agent_instance_id)
        payloads = jsontext.decode(instance.quality_payloads or "{}")
        summaries = jsontext.decode(instance.quality_summaries or "{}")
        payloads.pop(UNNAMED, None)
        summaries.pop(UNNAMED, None)
        if admitted is not None:
            quality = quality_type(ctx, instance, UNNAMED)
            payloads[UNNAMED] = jsontext.decode(admitted.text)
            if quality is not None:
                meaning = describe(quality, "quality_schema", instance.status, admitted.plain, None, None)
                ctx.check_strict(meaning.violations, "quality_schema")
                if meaning.summary is not None:
                    summaries[UNNAMED] = meaning.summary
        texts = (jsontext.encode(payloads)[0], jsontext.encode(summaries)[0])
        return Unit((instances.quality_recorded(instance, *texts, now),), instance.id, key)

    return ctx.commit((agent_instance_id,), key, decide, instance_id=agent_instance_id)


def quality_type(ctx: Context, instance: AgentInstanceRow, name: str) -> SpanType | None:
    """Return the quality schema of a name that an instance was registered with; None if there is none."""
    version = ctx.row(AgentSchemaVersionRow, instance.agent_schema_version_id)
    for item in jsontext.decode(version.quality_schemas or "[]"):
        if item["name"] == name:
            shape = {"name": name, "params_schema": item.get("schema"), "template": item.get("template")}
            return SpanType(shape, trusted=True)
    return None
