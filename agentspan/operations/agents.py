"""Operations on agents: what the runs of one agent have in common."""

from typing import Any

from agentspan.errors import InvalidValue
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentRow
from agentspan.operations import request
from agentspan.operations.context import Context, Done, check_unused
from agentspan.storage.protocol import Found, Query, Rows

SORTABLE = frozenset({"id", "name", "inserted_at", "updated_at", "status"})


def find(ctx: Context, external_identifier: str) -> AgentRow | None:
    """Return the agent of an external_identifier, if there is one."""
    rows = ctx.storage.page(Query("agent", {"external_identifier": external_identifier})).rows
    return rows[0] if rows and isinstance(rows[0], AgentRow) else None


def create(
    ctx: Context,
    *,
    name: Any,
    description: Any = None,
    external_identifier: Any = None,
    id: Any = None,
    idempotency_key: Any = None,
) -> Done:
    """Create an agent (see Agents.create)."""
    said = {
        "name": request.required_text("name", name),
        "description": request.text("description", description),
        "external_identifier": request.text("external_identifier", external_identifier),
        "id": request.own_id("id", id),
    }
    key = request.idempotency_key("agents/create", idempotency_key, said)
    agent_id = id or ctx.ids.new()

    def decide(found: Found, now: str) -> Unit:
        check_unused(found, id)
        if external_identifier is not None:
            other = find(ctx, external_identifier)
            if other is not None:
                raise InvalidValue("external_identifier", f"already names the agent {other.id}")
        row = AgentRow(agent_id, external_identifier, name, description, "pending", now, now)
        return Unit((Put(row, minted=id is None),), agent_id, key)

    return ctx.commit((id,), key, decide)


def page(ctx: Context, *, sorting: str | None = None, offset: int = 0, page_size: int = 50) -> Rows:
    """Return a page of agents (see Agents.list)."""
    return ctx.storage.page(request.page(Query("agent"), sorting, offset, page_size, columns=SORTABLE))
