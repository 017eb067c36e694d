"""Operations on agent instances (runs). Registering finds or makes the agent, its version and its schema version."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from agentspan import forks, ids, jsontext
from agentspan.errors import InvalidValue
from agentspan.model import instances, registration
from agentspan.model.changes import Unit
from agentspan.model.registration import DEFAULT, Registration, VersionFields, check_purpose
from agentspan.model.rows import (
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentVersionRow,
    Value,
)
from agentspan.model.status import INSTANCE_STATUSES, PURPOSES
from agentspan.operations import about_run, agent_schema_versions, request
from agentspan.operations.as_sent import inside
from agentspan.operations.context import Context, Done
from agentspan.operations.run_details import details_of
from agentspan.recovery.closing_spans import Closer
from agentspan.storage.answers import Found, Rows
from agentspan.storage.lookup import check_unused, expect, references, unique
from agentspan.storage.questions import Query
from agentspan.storage.scanning import each_span_of

SORTABLE = frozenset({"id", "inserted_at", "updated_at", "started_at", "finished_at", "status"})


def register(
    ctx: Context,
    *,
    agent_id: Any = None,
    agent_version: Any = None,
    agent_schema_version: Any = None,
    id: Any = None,
    idempotency_key: Any = None,
    update_current_version: Any = None,
    purpose: Any = None,
    metadata: Any = None,
    external_identifier: Any = None,
    session: Any = None,
    user: Any = None,
    task: Any = None,
    tags: Any = None,
) -> Done:
    """Register an instance (see AgentInstances.register)."""
    name = request.text("agent_id", agent_id) or DEFAULT
    with inside("agent_version"):
        version = _version_fields(agent_version)
    with inside("agent_schema_version"):
        schema = agent_schema_versions.fields(ctx, agent_schema_version)
    purpose = PURPOSES[0] if purpose is None else purpose
    check_purpose(purpose)
    metadata_text = None if metadata is None else request.json_object("metadata", metadata)
    said = {
        "agent_id": name,
        "agent_version": version._asdict(),
        "agent_schema_version": [schema.external_identifier, schema.content_hash],
        "id": request.own_id("id", id),
        "update_current_version": request.flag("update_current_version", update_current_version),
        "purpose": purpose,
        "metadata": metadata_text and metadata_text[1],
        "external_identifier": request.text("external_identifier", external_identifier),
    }
    about = about_run.read({"session": session, "user": user, "task": task}, tags, metadata_text and metadata_text[1])
    said |= about.said  # keys of before stay what they were
    key = request.idempotency_key("agent_instances/register", idempotency_key, said)
    name = name if ids.is_pfid(name) else ctx.admit_text(name)
    version = version._replace(
        external_identifier=ctx.admit_text(version.external_identifier),
        name=version.name and ctx.admit_text(version.name),
        description=version.description and ctx.admit_text(version.description),
    )
    if version.runtime_environment is not None:
        runtime = ctx.admit(version.runtime_environment, jsontext.decode(version.runtime_environment))
        version = version._replace(runtime_environment=runtime.text)
    wanted = Registration(
        id or ctx.ids.new(),
        name,
        version,
        schema,
        purpose,
        metadata_text and ctx.admit(*metadata_text).text,
        external_identifier,
        minted=id is None,
        update_version=said["update_current_version"],
        **about.admitted(ctx),
    )
    is_id = ids.is_pfid(name)

    def decide(found: Found, now: str) -> Unit:
        check_unused(found, id)
        agent = expect(found, AgentRow, name) if is_id else unique(ctx.storage, AgentRow, external_identifier=name)
        if agent is not None and external_identifier is not None:
            where = {"agent_id": agent.id, "external_identifier": external_identifier}
            if ctx.storage.ask(Query("agent_instance", where, limit=1)).rows:
                raise InvalidValue("external_identifier", "already names another instance of this agent")
        stored = references(ctx.storage, agent, version.external_identifier, schema.content_hash)
        return Unit(registration.register(wanted, stored, ctx.ids.new, now), wanted.id, key)

    return ctx.commit((id, name if is_id else None), key, decide)


def _version_fields(value: Any) -> VersionFields:
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise InvalidValue("agent_version", "must be an object")
    name, external = (
        request.text("name", value.get("name")),
        request.text("external_identifier", value.get("external_identifier")),
    )
    description = request.text("description", value.get("description"))
    runtime = value.get("runtime_environment")
    runtime_text = None if runtime is None else request.json_object("runtime_environment", runtime)[0]
    return VersionFields(external or name or DEFAULT, name, description, runtime_text)


def start(ctx: Context, agent_instance_id: Any, *, timestamp: Any = None, idempotency_key: Any = None) -> Done:
    """Start a pending instance (see AgentInstances.start)."""
    at = request.timestamp("timestamp", timestamp)
    said = {"agent_instance_id": agent_instance_id, "timestamp": at}
    key = request.idempotency_key("agent_instances/start", idempotency_key, said)

    def decide(found: Found, now: str) -> Unit:
        instance = expect(found, AgentInstanceRow, agent_instance_id)
        agent = ctx.row(AgentRow, instance.agent_id)
        return Unit(instances.start(instance, agent, at, now), instance.id, key)

    return ctx.commit((agent_instance_id,), key, decide, instance_id=agent_instance_id)


def finish(
    ctx: Context,
    agent_instance_id: Any,
    *,
    status: Any = None,
    timestamp: Any = None,
    idempotency_key: Any = None,
) -> Done:
    """Finish an instance (see AgentInstances.finish)."""
    wanted = "complete" if status is None else status
    at = request.timestamp("timestamp", timestamp)
    said = {"agent_instance_id": agent_instance_id, "status": wanted, "timestamp": at}
    key = request.idempotency_key("agent_instances/finish", idempotency_key, said)

    def decide(found: Found, now: str) -> Unit:
        instance = expect(found, AgentInstanceRow, agent_instance_id)
        moves = [instances.finish(instance, wanted, at, now)]
        if instance.status == "terminated":
            moves += Closer(ctx.storage, ctx.stored_span_types).close_terminated(
                instance.id, instance.termination_reason or "", now
            )
        return Unit(tuple(moves), instance.id, key)

    return ctx.commit((agent_instance_id,), key, decide, instance_id=agent_instance_id)


def terminate(ctx: Context, agent_instance_id: Any, reason: Any, *, idempotency_key: Any = None) -> Done:
    """Terminate an instance and close its open spans, all at once (see AgentInstances.terminate)."""
    reason = request.required_text("reason", reason)
    said = {"agent_instance_id": agent_instance_id, "reason": reason}
    key = request.idempotency_key("agent_instances/terminate", idempotency_key, said)
    reason = ctx.admit_text(reason)

    def decide(found: Found, now: str) -> Unit:
        instance = expect(found, AgentInstanceRow, agent_instance_id)
        closed = Closer(ctx.storage, ctx.stored_span_types).close_terminated(instance.id, reason, now)
        return Unit((instances.terminate(instance, reason, now), *closed), instance.id, key)

    return ctx.commit((agent_instance_id,), key, decide, instance_id=agent_instance_id)


def agent_context(ctx: Context, agent_instance_id: Any) -> dict[str, Any]:
    """Return all that is known of an instance (see AgentInstances.agent_context)."""
    context, spans = agent_context_parts(ctx, agent_instance_id)
    return {**context, "spans": [*spans]}


def agent_context_parts(ctx: Context, agent_instance_id: Any) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return the same in two parts: what is not a span, and the spans, a few of which are in memory at a time."""
    with forks.importing:
        from agentspan.model import resources
        from agentspan.operations import envelopes

    instance = ctx.row(AgentInstanceRow, agent_instance_id)
    agent, schema = (
        ctx.row(AgentRow, instance.agent_id),
        ctx.row(AgentSchemaVersionRow, instance.agent_schema_version_id),
    )
    context = {
        "instance": resources.plain(details_of(ctx.storage, instance, ctx.account)),
        "agent": resources.plain(resources.agent(agent, ctx.account)),
        "schema": resources.plain(resources.schema_version(schema, ctx.account)),
    }
    rows = each_span_of(ctx.storage, instance.id)
    of_row = partial(envelopes.span, account_id=ctx.account.id, purpose=instance.purpose, piece_bytes=ctx.piece_bytes)
    return context, map(of_row, rows)


def page(
    ctx: Context,
    *,
    agent_id: Any = None,
    agent_version_id: Any = None,
    status: Any = None,
    purpose: Any = None,
    environment_id: Any = None,
    sorting: Any = None,
    offset: int = 0,
    page_size: int = 50,
) -> Rows:
    """Return a page of instances (see AgentInstances.list)."""
    where: dict[str, Value] = {}
    if agent_id is not None:
        where["agent_id"] = ctx.row(AgentRow, agent_id).id
    if agent_version_id is not None:
        where["agent_version_id"] = ctx.row(AgentVersionRow, agent_version_id).id
    ctx.check_environment(environment_id)
    filters = {
        "status": request.one_of("status", status, INSTANCE_STATUSES),
        "purpose": request.one_of("purpose", purpose, PURPOSES),
    }
    where |= {column: value for column, value in filters.items() if value is not None}
    query = Query("agent_instance", where)
    return ctx.storage.ask(
        request.page(query, sorting, offset, page_size, columns=SORTABLE, most_bytes=ctx.piece_bytes)
    )
