"""The API's operations over JSON: each takes a request's fields and returns the API's envelope. For HTTP and bulk."""

from collections.abc import Callable, Mapping
from typing import Any

from agentspan.errors import InvalidValue, RequiredValue
from agentspan.model import resources
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow, AgentSpanRow, AgentVersionRow
from agentspan.operations import (
    agent_instances,
    agent_schema_versions,
    agent_spans,
    agents,
    envelopes,
    instance_updates,
    quality,
    request,
)
from agentspan.operations.context import Context, Plan
from agentspan.operations.envelopes import Envelope
from agentspan.operations.json_scores import score_agent_instance, score_agent_span
from agentspan.storage.answers import Rows
from agentspan.storage.questions import Violations
from agentspan.text import one_line

Fields = Mapping[str, Any]
JsonOperation = Callable[[Context, Fields], Envelope]

PAGE_SIZE = 50
OWNERS = ("owner_person_id", "team_id", "risk_profile_id")


def create_agent(ctx: Context, fields: Fields) -> Envelope:
    """agents/create."""
    names = ("name", "description", "external_identifier", "id", *OWNERS, "idempotency_key")
    return envelopes.of_done(ctx, agents.create(ctx, **_picked(fields, names, "name")))


def update_agent(ctx: Context, fields: Fields) -> Envelope:
    """agents/update."""
    names = ("name", "description", *OWNERS, "idempotency_key")
    return envelopes.of_done(ctx, agents.update(ctx, _id(fields, "agent_id"), **_picked(fields, names)))


def retire_agent(ctx: Context, fields: Fields) -> Envelope:
    """agents/retire."""
    key = fields.get("idempotency_key")
    return envelopes.of_done(ctx, agents.retire(ctx, _id(fields, "agent_id"), idempotency_key=key))


def reinstate_agent(ctx: Context, fields: Fields) -> Envelope:
    """agents/reinstate."""
    key = fields.get("idempotency_key")
    return envelopes.of_done(ctx, agents.reinstate(ctx, _id(fields, "agent_id"), idempotency_key=key))


def delete_agent(ctx: Context, fields: Fields) -> Envelope:
    """agents/delete."""
    row = agents.delete(ctx, _id(fields, "agent_id"))
    return {"status": "success", "details": resources.plain(resources.agent(row, ctx.account))}


def show_agent(ctx: Context, fields: Fields) -> Envelope:
    """agents/show."""
    return envelopes.of_row(ctx, agents.show(ctx, **_picked(fields, ("agent_id", "external_identifier"))))


def list_agents(ctx: Context, fields: Fields) -> Envelope:
    """agents/list."""
    return _list(ctx, fields, agents.page, ("status", "environment_id"))


def list_agent_versions(ctx: Context, fields: Fields) -> Envelope:
    """agent_versions/list."""
    return _list(ctx, fields, agents.versions, ("agent_id",))


def show_agent_version(ctx: Context, fields: Fields) -> Envelope:
    """agent_versions/show."""
    return envelopes.of_row(ctx, ctx.row(AgentVersionRow, _id(fields, "agent_version_id")))


def create_agent_schema_version(ctx: Context, fields: Fields) -> Envelope:
    """agent_schema_versions/create."""
    names = (
        "external_identifier",
        "span_type_schemas",
        "span_schemas",
        "span_result_schemas",
        "quality_schemas",
        "quality_schema",
    )
    done = agent_schema_versions.create(
        ctx,
        agent_id=fields.get("agent_id"),
        idempotency_key=fields.get("idempotency_key"),
        **_picked(fields, names),
    )
    return envelopes.of_done(ctx, done)


def show_agent_schema_version(ctx: Context, fields: Fields) -> Envelope:
    """agent_schema_versions/show."""
    return envelopes.of_row(ctx, ctx.row(AgentSchemaVersionRow, _id(fields, "agent_schema_version_id")))


def list_agent_schema_versions(ctx: Context, fields: Fields) -> Envelope:
    """agent_schema_versions/list."""
    return _list(ctx, fields, agent_schema_versions.page, ("agent_id",))


def register_agent_instance(ctx: Context, fields: Fields) -> Envelope:
    """agent_instances/register."""
    names = (
        "agent_id",
        "agent_version",
        "agent_schema_version",
        "id",
        "idempotency_key",
        "update_current_version",
        "purpose",
        "metadata",
        "external_identifier",
        "session",
        "user",
        "task",
        "tags",
    )
    done = agent_instances.register(ctx, **_picked(fields, names))
    assert isinstance(done.row, AgentInstanceRow)
    schema = envelopes.details(ctx, ctx.row(AgentSchemaVersionRow, done.row.agent_schema_version_id))
    return envelopes.of_row(ctx, done.row, agent_schema_version=schema)


def start_agent_instance(ctx: Context, fields: Fields) -> Envelope:
    """agent_instances/start."""
    names = ("timestamp", "idempotency_key")
    return envelopes.of_done(
        ctx, agent_instances.start(ctx, _id(fields, "agent_instance_id"), **_picked(fields, names))
    )


def finish_agent_instance(ctx: Context, fields: Fields) -> Envelope:
    """agent_instances/finish."""
    names = ("status", "timestamp", "idempotency_key")
    return envelopes.of_done(
        ctx, agent_instances.finish(ctx, _id(fields, "agent_instance_id"), **_picked(fields, names))
    )


def terminate_agent_instance(ctx: Context, fields: Fields) -> Envelope:
    """agent_instances/terminate."""
    id, reason = _id(fields, "agent_instance_id"), fields.get("reason")
    return envelopes.of_done(
        ctx, agent_instances.terminate(ctx, id, reason, idempotency_key=fields.get("idempotency_key"))
    )


def record_quality(ctx: Context, fields: Fields) -> Envelope:
    """agent_instances/record_quality."""
    names = ("name", "payload", "idempotency_key")
    id = _id(fields, "agent_instance_id")
    said = _picked(fields, names, "name", "payload")
    return envelopes.of_done(ctx, quality.record(ctx, id, **said, must_be_declared=True))


def update_agent_instance(ctx: Context, fields: Fields) -> Envelope:
    """agent_instances/update."""
    key = fields.get("idempotency_key")
    return envelopes.of_done(
        ctx, instance_updates.update(ctx, _id(fields, "agent_instance_id"), fields, idempotency_key=key)
    )


def show_agent_instance(ctx: Context, fields: Fields) -> Envelope:
    """agent_instances/show."""
    return envelopes.of_row(ctx, ctx.row(AgentInstanceRow, _id(fields, "agent_instance_id")))


def agent_context(ctx: Context, fields: Fields) -> Envelope:
    """agent_instances/agent_context."""
    body = agent_instances.agent_context(ctx, _id(fields, "agent_instance_id"))
    return {"status": "success", "agent_context": {"body": body}}


def list_agent_instances(ctx: Context, fields: Fields) -> Envelope:
    """agent_instances/list."""
    names = ("agent_id", "agent_version_id", "status", "purpose", "environment_id")
    return _list(ctx, fields, agent_instances.page, names)


class SharingOperation:
    """A write whose plan may be carried out together with those of other requests (see `together`).

    Args:
        plan: makes it from the fields of the request.
    """

    def __init__(self, plan: Callable[[Context, Fields], Plan]) -> None:
        self.plan = plan

    def __call__(self, ctx: Context, fields: Fields) -> Envelope:
        """Carry it out alone."""
        return envelopes.of_done(ctx, ctx.carry_out(self.plan(ctx, fields)))


@SharingOperation
def create_agent_span(ctx: Context, fields: Fields) -> Plan:
    """agent_spans/create."""
    names = (
        "agent_instance_id",
        "schema_name",
        "status",
        "payload",
        "result_payload",
        "id",
        "parent_span_id",
        "started_at",
        "finished_at",
        "sensitive_encoding",
        "idempotency_key",
    )
    needed = ("agent_instance_id", "schema_name", "status")
    return agent_spans.plan_create(ctx, **_picked(fields, names, *needed))


@SharingOperation
def start_agent_span(ctx: Context, fields: Fields) -> Plan:
    """agent_spans/start."""
    names = ("timestamp", "idempotency_key")
    return agent_spans.plan_start(ctx, _id(fields, "agent_span_id"), **_picked(fields, names))


@SharingOperation
def finish_agent_span(ctx: Context, fields: Fields) -> Plan:
    """agent_spans/finish."""
    names = ("status", "result_payload", "timestamp", "sensitive_encoding", "idempotency_key")
    return agent_spans.plan_finish(ctx, _id(fields, "agent_span_id"), **_picked(fields, names))


def list_violations(ctx: Context, fields: Fields) -> Envelope:
    """agent_spans/violations."""
    span = ctx.row(AgentSpanRow, _id(fields, "agent_span_id"))
    found = ctx.storage.ask(Violations([span.id], instance_id=span.agent_instance_id))[span.id]
    summaries = [violation._asdict() for violation in found]
    return {"status": "success", "summaries": summaries, "pagination": None, "sorting": None}


def list_agent_spans(ctx: Context, fields: Fields) -> Envelope:
    """agent_spans/list."""
    summaries = request.flag("include_summaries", fields.get("include_summaries"))
    names = (
        "agent_instance_id",
        "agent_id",
        "start_time",
        "end_time",
        "status",
        "schema_name",
        "environment_id",
    )
    return _list(ctx, fields, agent_spans.page, names, summaries=summaries)


BULK: Mapping[str, JsonOperation] = {
    "agents/list": list_agents,
    "agents/show": show_agent,
    "agents/create": create_agent,
    "agents/update": update_agent,
    "agent_instances/register": register_agent_instance,
    "agent_instances/start": start_agent_instance,
    "agent_instances/finish": finish_agent_instance,
    "agent_instances/terminate": terminate_agent_instance,
    "agent_instances/record_quality": record_quality,
    "agent_instances/score": score_agent_instance,
    "agent_spans/create": create_agent_span,
    "agent_spans/start": start_agent_span,
    "agent_spans/finish": finish_agent_span,
    "agent_spans/list": list_agent_spans,
    "agent_spans/score": score_agent_span,
}
"""The operations that a bulk request may hold, by their `_type`."""
READS = frozenset({list_agents, show_agent, list_agent_spans})
"""Those among them that change nothing."""


LISTS = frozenset({"_type", "idempotency_key", "details", "pagination", "sorting"}) | {
    "include_summaries",
    "include_risk_level",
}
"""The fields that any list takes. A field that a list does not know could be a filter, so it is refused."""


def _picked(fields: Fields, names: tuple[str, ...], *needed: str) -> dict[str, Any]:
    """Return the known fields; unknown ones are ignored, as the API does. Needed ones that are missing are None."""
    picked: dict[str, Any] = dict.fromkeys(needed)
    for name, value in fields.items():  # fewer than the names, of which most are left out
        if name in names:
            picked[name] = value
    return picked


def _id(fields: Fields, name: str) -> Any:
    value = fields.get(name)
    if value is None:
        raise RequiredValue(name, "is required")
    return value


def _list(
    ctx: Context, fields: Fields, page: Callable[..., Rows], names: tuple[str, ...], *, summaries: bool = True
) -> Envelope:
    unknown = fields.keys() - LISTS - {*names}
    if unknown:
        raise InvalidValue(one_line(min(unknown), 40), f"is no field of this list; it has {', '.join(names)}")
    wanted = fields.get("pagination")
    if wanted is not None and not isinstance(wanted, Mapping):
        raise InvalidValue("pagination", "must be an object with offset and page_size")
    offset = (wanted or {}).get("offset")
    offset = 0 if offset is None else request.count("pagination.offset", offset, 0, request.MAX_OFFSET)
    size = (wanted or {}).get("page_size")
    size = PAGE_SIZE if size is None else request.count("pagination.page_size", size, 1, request.MAX_PAGE)
    sorting = request.sorting(fields.get("sorting"))
    rows = page(ctx, **_picked(fields, names), sorting=sorting, offset=offset, page_size=size)
    return envelopes.of_page(ctx, rows, sorting=sorting, offset=offset, page_size=size, summaries=summaries)
