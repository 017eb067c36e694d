"""Operations on agents and their versions."""

from typing import Any

from agentspan.errors import DatabaseBusy, InvalidAction, InvalidValue, NotFound, RequiredValue
from agentspan.model import agents
from agentspan.model.changes import Applied, Put, Remove, Unit
from agentspan.model.rows import AgentRow, ResourceType, Value
from agentspan.model.status import AGENT_STATUSES, INSTANCE_STATUSES, OPEN
from agentspan.operations import request
from agentspan.operations.context import ATTEMPTS, Context, Done
from agentspan.storage.answers import Found, Rows
from agentspan.storage.lookup import check_unused, expect, unique
from agentspan.storage.questions import Query
from agentspan.storage.scanning import count

SORTABLE = frozenset({"id", "name", "inserted_at", "updated_at", "status"})
SORTABLE_VERSIONS = frozenset({"id", "external_identifier", "inserted_at", "updated_at"})


def create(
    ctx: Context,
    *,
    name: Any,
    description: Any = None,
    external_identifier: Any = None,
    id: Any = None,
    owner_person_id: Any = None,
    team_id: Any = None,
    risk_profile_id: Any = None,
    idempotency_key: Any = None,
) -> Done:
    """Create an agent (see Agents.create)."""
    owners = {"owner_person_id": owner_person_id, "team_id": team_id, "risk_profile_id": risk_profile_id}
    owners = {field: request.text(field, value) for field, value in owners.items()}
    said = {
        "name": request.required_text("name", name),
        "description": request.text("description", description),
        "external_identifier": request.text("external_identifier", external_identifier),
        "id": request.own_id("id", id),
        **owners,
    }
    key = request.idempotency_key("agents/create", idempotency_key, said)
    agent_id = id or ctx.ids.new()
    external_identifier = external_identifier and ctx.admit_text(external_identifier)

    def decide(found: Found, now: str) -> Unit:
        check_unused(found, id)
        if external_identifier is not None:
            other = unique(ctx.storage, AgentRow, external_identifier=external_identifier)
            if other is not None:
                raise InvalidValue("external_identifier", f"already names the agent {other.id}")
        about = ctx.admit_text(name), description and ctx.admit_text(description)
        admitted = (value and ctx.admit_text(value) for value in owners.values())
        row = AgentRow(agent_id, external_identifier, *about, "pending", now, now, *admitted)
        return Unit((Put(row, minted=id is None),), agent_id, key)

    return ctx.commit((id,), key, decide)


def show(ctx: Context, *, agent_id: Any = None, external_identifier: Any = None) -> AgentRow:
    """Return an agent by exactly one of its names (see Agents.show)."""
    if (agent_id is None) == (external_identifier is None):
        raise RequiredValue("agent_id", "give either agent_id or external_identifier")
    if agent_id is not None:
        return ctx.row(AgentRow, agent_id)
    name = ctx.admit_text(request.required_text("external_identifier", external_identifier))
    found = unique(ctx.storage, AgentRow, external_identifier=name)
    if found is None:
        raise NotFound("no agent has this external_identifier")
    return found


def update(
    ctx: Context,
    agent_id: Any,
    *,
    name: Any = None,
    description: Any = None,
    owner_person_id: Any = None,
    team_id: Any = None,
    risk_profile_id: Any = None,
    idempotency_key: Any = None,
) -> Done:
    """Change what an agent was created with; a field that is left out stays (see Agents.update)."""
    owners = {"owner_person_id": owner_person_id, "team_id": team_id, "risk_profile_id": risk_profile_id}
    values: dict[str, Value] = {
        field: request.required_text(field, value) if field == "name" else request.text(field, value)
        for field, value in {"name": name, "description": description, **owners}.items()
        if value is not None
    }
    key = request.idempotency_key("agents/update", idempotency_key, {"agent_id": agent_id, **values})

    def decide(found: Found, now: str) -> Unit:
        agent = expect(found, AgentRow, agent_id)
        admitted = {field: value and ctx.admit_text(str(value)) for field, value in values.items()}
        return Unit((agents.updated(agent, admitted, now),), agent.id, key)

    return ctx.commit((agent_id,), key, decide)


def retire(ctx: Context, agent_id: Any, *, idempotency_key: Any = None) -> Done:
    """Retire an agent (see Agents.retire)."""
    key = request.idempotency_key("agents/retire", idempotency_key, {"agent_id": agent_id})

    def decide(found: Found, now: str) -> Unit:
        agent = expect(found, AgentRow, agent_id)
        return Unit((agents.retire(agent, now),), agent.id, key)

    return ctx.commit((agent_id,), key, decide)


def reinstate(ctx: Context, agent_id: Any, *, idempotency_key: Any = None) -> Done:
    """Undo a retirement (see Agents.reinstate)."""
    key = request.idempotency_key("agents/reinstate", idempotency_key, {"agent_id": agent_id})

    def decide(found: Found, now: str) -> Unit:
        agent = expect(found, AgentRow, agent_id)
        counts = instance_counts(ctx, agent.id)
        used = counts["total"] > counts["pending"]
        return Unit((agents.reinstate(agent, was_used=used, now=now),), agent.id, key)

    return ctx.commit((agent_id,), key, decide)


def delete(ctx: Context, agent_id: Any) -> AgentRow:
    """Delete an agent that has no instances, with its versions (see Agents.delete); return its last row.

    Raises:
        InvalidAction: it has instances.
    """
    ctx.check_writable()
    for _ in range(ATTEMPTS):
        agent = ctx.row(AgentRow, agent_id)
        where: dict[str, Value] = {"agent_id": agent.id}
        if ctx.storage.ask(Query("agent_instance", where, limit=1)).rows:
            raise InvalidAction(f"agent {agent.id} has instances; retire it instead")
        removes = [Remove(type_, row.id) for type_ in _VERSIONS for row in ctx.storage.ask(Query(type_, where)).rows]
        unit = Unit((*removes, Remove("agent", agent.id)))
        if isinstance(ctx.storage.apply([unit], wait_s=ctx.wait_s)[0], Applied):
            return agent
    raise DatabaseBusy(f"other writers used agent {agent_id} in between; try again")


_VERSIONS: tuple[ResourceType, ...] = ("agent_version", "agent_schema_version")


def instance_counts(ctx: Context, agent_id: str) -> dict[str, int]:
    """Count an agent's instances by status, with their total and how many are finished."""
    counts: dict[str, int] = {}
    for status in INSTANCE_STATUSES:
        where: dict[str, Value] = {"agent_id": agent_id, "status": status}
        counts[status] = count(ctx.storage, "agent_instance", where)
    finished = sum(number for status, number in counts.items() if status not in OPEN)
    return {"total": sum(counts.values()), **counts, "finished": finished}


def page(
    ctx: Context,
    *,
    status: Any = None,
    environment_id: Any = None,
    sorting: Any = None,
    offset: int = 0,
    page_size: int = 50,
) -> Rows:
    """Return a page of agents (see Agents.list)."""
    ctx.check_environment(environment_id)
    wanted = request.one_of("status", status, AGENT_STATUSES)
    query = Query("agent", {} if wanted is None else {"status": wanted})
    return ctx.storage.ask(
        request.page(query, sorting, offset, page_size, columns=SORTABLE, most_bytes=ctx.piece_bytes)
    )


def versions(ctx: Context, *, agent_id: Any = None, sorting: Any = None, offset: int = 0, page_size: int = 50) -> Rows:
    """Return a page of agent versions (see AgentVersions.list)."""
    where: dict[str, Value] = {} if agent_id is None else {"agent_id": ctx.row(AgentRow, agent_id).id}
    query = Query("agent_version", where)
    return ctx.storage.ask(
        request.page(query, sorting, offset, page_size, columns=SORTABLE_VERSIONS, most_bytes=ctx.piece_bytes)
    )
