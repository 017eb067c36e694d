"""Quality payloads of an instance: evaluations under a name, and one without a name. Each adds scores, too."""

from collections.abc import Mapping
from typing import Any

from agentspan import jsontext
from agentspan.errors import InvalidValue
from agentspan.model import instances, quality_scores
from agentspan.model.changes import Change, Put, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow
from agentspan.model.scores import scored
from agentspan.operations import request
from agentspan.operations.context import Admitted, Context, Done
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import SpanType
from agentspan.storage.answers import Found
from agentspan.storage.lookup import expect
from agentspan.text import one_line


def record(
    ctx: Context,
    agent_instance_id: Any,
    name: Any,
    payload: Any,
    *,
    must_be_declared: bool = False,
    idempotency_key: Any = None,
) -> Done:
    """Set, or with None remove, a named quality payload of an instance (see AgentInstances.record_quality).

    Args:
        must_be_declared: refuse a name without a quality schema, as the API does.
    """
    name = request.required_text("name", name)
    sent = None if payload is None else request.json_object("payload", payload)
    said = {"agent_instance_id": agent_instance_id, "name": name, "payload": sent and sent[1]}
    key = request.idempotency_key("agent_instances/record_quality", idempotency_key, said)
    admitted = None if sent is None else ctx.admit(*sent)

    def decide(found: Found, now: str) -> Unit:
        instance = expect(found, AgentInstanceRow, agent_instance_id)
        if must_be_declared and quality_type(ctx, instance, name) is None:
            shown = one_line(name, 60)
            raise InvalidValue("name", f"the instance was registered without a quality schema called {shown!r}")
        return Unit(changes(ctx, instance, name, admitted, now), instance.id, key)

    return ctx.commit((agent_instance_id,), key, decide, instance_id=agent_instance_id)


def changes(
    ctx: Context, instance: AgentInstanceRow, name: str, admitted: Admitted | None, now: str
) -> tuple[Change, ...]:
    """Return the changes that set, or with None remove, a quality payload, and add the scores that it holds.

    Raises:
        ValidationErrors: schemas are strict, and the payload does not match its own.
    """
    payloads = jsontext.decode(instance.quality_payloads or "{}")
    summaries = jsontext.decode(instance.quality_summaries or "{}")
    before = _judgements(name, payloads.pop(name, None))
    summaries.pop(name, None)
    if admitted is not None:
        quality = quality_type(ctx, instance, name)
        payloads[name] = jsontext.decode(admitted.text)
        if quality is not None:
            shown = name or "quality_schema"
            meaning = describe(quality, shown, instance.status, admitted.plain, None, None)
            ctx.check_strict(meaning.violations, shown)
            if meaning.summary is not None:
                summaries[name] = meaning.summary
    after = _judgements(name, payloads.get(name))
    gone = [quality_scores.withdrawn(score) for score in before if score not in after]
    rows = [scored(ctx.ids.new(), instance, judged, now) for judged in (*after.values(), *gone)]
    texts = (jsontext.encode(payloads)[0], jsontext.encode(summaries)[0])
    return (instances.quality_recorded(instance, *texts, now), *(Put(row, minted=True) for row in rows))


def _judgements(name: str, payload: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if payload is None else quality_scores.judgements(name, payload)


def quality_type(ctx: Context, instance: AgentInstanceRow, name: str) -> SpanType | None:
    """Return the quality schema of a name that an instance was registered with; None if there is none."""
    version = ctx.row(AgentSchemaVersionRow, instance.agent_schema_version_id)
    for item in jsontext.decode(version.quality_schemas or "[]"):
        if item["name"] == name:
            shape = {"name": name, "params_schema": item.get("schema"), "template": item.get("template")}
            return SpanType(shape, trusted=True)
    return None
