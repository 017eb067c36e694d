"""An agent's life: pending until its first instance starts, then active; retired, and reinstated, by hand."""

from agentspan.errors import InvalidAction
from agentspan.model.changes import Move
from agentspan.model.rows import AgentRow, Value


def updated(agent: AgentRow, values: dict[str, Value], now: str) -> Move:
    """Return the change that sets columns of an agent."""
    return Move("agent", agent.id, frozenset(), {**values, "updated_at": now})


def retire(agent: AgentRow, now: str) -> Move:
    """Retire an agent. It and its runs stay stored.

    Raises:
        InvalidAction: it is retired already.
    """
    if agent.status == "retired":
        raise InvalidAction(f"agent {agent.id} is retired already")
    return Move("agent", agent.id, frozenset({"pending", "active"}), {"status": "retired", "updated_at": now})


def reinstate(agent: AgentRow, *, was_used: bool, now: str) -> Move:
    """Undo a retirement: the agent is active, or pending if no instance of it has started.

    Raises:
        InvalidAction: it is not retired.
    """
    if agent.status != "retired":
        raise InvalidAction(f"agent {agent.id} is {agent.status}: only a retired one can be reinstated")
    status = "active" if was_used else "pending"
    return Move("agent", agent.id, frozenset({"retired"}), {"status": status, "updated_at": now})


def available_actions(agent: AgentRow, *, has_instances: bool) -> dict[str, bool]:
    """Return which operations on an agent would succeed now."""
    retired = agent.status == "retired"
    return {"update": True, "retire": not retired, "reinstate": retired, "delete": not has_instances}
