"""Adapts a run's registration to a storage in which another process created its agent or version meanwhile."""

from collections.abc import Mapping
from typing import Any, cast

from agentspan.model import instances
from agentspan.model.changes import Change, Put, PutSpans, Unit, unit_of
from agentspan.model.rows import TYPE_OF, UNIQUE, AgentInstanceRow, AgentRow, AgentSpanRow
from agentspan.storage.protocol import Query, Storage

_LINKS = frozenset({"agent_id", "agent_version_id", "agent_schema_version_id"})


def rebased(storage: Storage, unit: Unit) -> tuple[Unit, AgentInstanceRow]:
    """Return a registration that refers to the rows that are stored now; the instance keeps its id."""
    ids_now: dict[str, str] = {}
    changes: list[Change] = []
    for change in unit.changes:
        if not isinstance(change, Put):
            changes.append(change)
            continue
        links = {name: ids_now.get(value, value) for name, value in change.row._asdict().items() if name in _LINKS}
        row: Any = cast(Any, change.row)._replace(**links)
        type_ = TYPE_OF[type(row)]
        where = {column: getattr(row, column) for column in UNIQUE.get(type_, ())}
        stored = storage.page(Query(type_, where, limit=1)).rows if where and None not in where.values() else []
        if stored:
            ids_now[row.id] = stored[0].id
            if isinstance(stored[0], AgentRow):
                changes.extend(instances.activate(stored[0], row.updated_at))
        else:
            changes.append(change._replace(row=row))
            if isinstance(row, AgentInstanceRow):
                instance = row
    return Unit(tuple(changes), unit.subject, unit.key), instance


def with_agents(unit: Unit, agents: Mapping[str, str]) -> Unit:
    """Return a unit whose spans have the agent with which their run was stored in the end.

    Args:
        agents: their ids, by the instance's.
    """
    change = unit.changes[0] if unit.changes else None
    if isinstance(change, PutSpans):
        return unit_of(change._replace(rows=[_with_agent(row, agents) for row in change.rows]))
    if isinstance(change, Put) and isinstance(change.row, AgentSpanRow):
        return unit_of(change._replace(row=_with_agent(change.row, agents)))
    return unit


def _with_agent(row: AgentSpanRow, agents: Mapping[str, str]) -> AgentSpanRow:
    agent_id = agents.get(row.agent_instance_id)
    return row if agent_id is None else row._replace(agent_id=agent_id)
