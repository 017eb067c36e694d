"""Transitions of an agent instance (one run of an agent). It refers to an agent, a version and a schema version."""

from agentspan.errors import InvalidAction
from agentspan.model.changes import LEAVES, REPLACED, Move, Over
from agentspan.model.rows import (
    AgentInstanceRow,
    AgentRow,
    Value,
)
from agentspan.model.spans import Times, check_finish, finish_times, is_guess

_TERMINATED = frozenset({"terminated"})


def start(instance: AgentInstanceRow, agent: AgentRow, timestamp: str | None, now: str) -> tuple[Move, ...]:
    """Return the moves that start a pending instance, and that make its agent active at the first start.

    Raises:
        InvalidAction: the instance is not pending.
    """
    if instance.status not in LEAVES["active"]:
        raise InvalidAction(f"agent instance {instance.id} is {instance.status}: only a pending one can be started")
    values: dict[str, Value] = {"status": "active", "started_at": timestamp or now, "updated_at": now}
    return (Move("agent_instance", instance.id, LEAVES["active"], values), *activate(agent, now))


def activate(agent: AgentRow, now: str) -> tuple[Move, ...]:
    """Return the move that makes a pending agent active; none for an agent in another status."""
    if agent.status != "pending":
        return ()
    return (Move("agent", agent.id, frozenset({"pending"}), {"status": "active", "updated_at": now}),)


def finish(instance: AgentInstanceRow, status: str, timestamp: str | None, now: str) -> Move:
    """Return the move that finishes an instance by id. A terminated instance keeps its status, and gets the times.

    The spans of the instance do not change.

    Raises:
        InvalidAction: the status of the instance does not allow this finish.
        InvalidValue: the status is not terminal, or the timestamp lies more than 60 s before started_at.
    """
    check_finish("agent instance", instance.id, instance.status, status, closed=is_guess(instance))
    times = finish_times(instance.started_at, status, timestamp, now)
    return finished(instance.id, status=status, times=times, now=now)


def terminate(instance: AgentInstanceRow, reason: str, now: str) -> Move:
    """Return the move that terminates an active instance for good. The caller closes its open spans in the same unit.

    Raises:
        InvalidAction: the instance is not active.
    """
    if instance.status not in LEAVES["terminated"]:
        raise InvalidAction(f"agent instance {instance.id} is {instance.status}: only an active one can be terminated")
    times = finish_times(instance.started_at, "terminated", None, now)
    values: dict[str, Value] = {
        "status": "terminated",
        "termination_reason": reason,
        "closed_by": "terminated",
        "closed_at": now,
        "finished_at": times.finished_at,
        "duration_ms": times.duration_ms,
        "updated_at": now,
    }
    return Move("agent_instance", instance.id, LEAVES["terminated"], values)


def abandoned(instance: AgentInstanceRow, error: str, at: str, now: str) -> Move:
    """Return the move that closes an open instance of a dead program: an active one failed, a pending one cancelled."""
    status = "failed" if instance.status == "active" else "cancelled"
    times = finish_times(instance.started_at, status, None, at)
    move = finished(instance.id, status=status, times=times, now=now, error=error)
    return move._replace(set={**move.set, "closed_by": "abandoned", "closed_at": now}, over=())


def renamed(id: str, agent_id: str, agent_version_id: str, agent_schema_version_id: str) -> Move:
    """Return the move of a run, with its spans, to an agent or version that became known after the run began.

    Only recording does this. The move sets no `updated_at`: read again from a journal, it would reset a later time.
    """
    values: dict[str, Value] = {
        "agent_id": agent_id,
        "agent_version_id": agent_version_id,
        "agent_schema_version_id": agent_schema_version_id,
    }
    return Move("agent_instance", id, frozenset(), values)


def quality_recorded(instance: AgentInstanceRow, payloads: str, summaries: str, now: str) -> Move:
    """Return the move that sets the quality payloads of an instance, if they have not changed since they were read."""
    values: dict[str, Value] = {"quality_payloads": payloads, "quality_summaries": summaries, "updated_at": now}
    unchanged: dict[str, Value] = {"quality_payloads": instance.quality_payloads}
    return Move("agent_instance", instance.id, frozenset(), values, unchanged=unchanged)


def finished(
    id: str, *, status: str, times: Times, now: str, result: str | None = None, error: str | None = None
) -> Move:
    """Return the move of an instance to a terminal status. It also replaces a close of the instance."""
    values: dict[str, Value] = {
        "status": status,
        "finished_at": times.finished_at,
        "duration_ms": times.duration_ms,
        "updated_at": now,
    }
    if status == "cancelled":
        values["started_at"] = times.started_at
    if result is not None:
        values["result"] = result
    if error is not None:
        values["error"] = error
    late: dict[str, Value] = {**values, "result": result, "error": error, "ended_late": 1}
    of_terminated = {name: value for name, value in late.items() if name != "status"}
    abandoned, terminated = REPLACED[status] - _TERMINATED, REPLACED[status] & _TERMINATED
    over = (Over(abandoned, late), Over(terminated, of_terminated))
    return Move("agent_instance", id, LEAVES[status], values, over=over)
