"""Threads that begin the first runs of a program at the same moment: each registration names one agent."""

from typing import Any

from agentspan.ids import IdSource
from agentspan.model import schema_versions
from agentspan.model.changes import Applied, Put, Unit
from agentspan.model.registration import DEFAULT, Registration, VersionFields
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSchemaVersionRow, AgentVersionRow
from agentspan.recording.registering import Unread
from agentspan.recovery.names import Names
from agentspan.schemas.span_types import REGISTRY
from agentspan.storage.protocol import Storage

IDS = IdSource(0)
TYPES = schema_versions.fields_of(REGISTRY.items())


def registered(unread: Unread) -> Unit:
    """The registration of one more run of the agent `a`."""
    return unread.registration(Registration(IDS.new(), "a", VersionFields(DEFAULT), TYPES, "live", None), IDS.new)[0]


def agents_of(unit: Unit) -> set[str]:
    """The ids of the agents that the rows of a registration name; its run names none yet."""
    rows = [change.row for change in unit.changes if isinstance(change, Put)]
    agents = {row.id for row in rows if isinstance(row, AgentRow)}
    return agents | {row.agent_id for row in rows if isinstance(row, AgentVersionRow | AgentSchemaVersionRow)}


class Interrupted(dict[Any, Any]):
    """A cache of agents; between a first look into it and the next step, another thread registers a run."""

    def __init__(self, unread: Unread) -> None:
        self._unread: Unread | None = unread

    def get(self, key: Any, default: Any = None) -> Any:
        found, unread = super().get(key), self._unread
        self._unread = None
        if unread is not None:
            registered(unread)
        return found


def test_a_registration_names_one_agent_although_another_thread_registers_in_between() -> None:
    unread = Unread()
    unread._agents = Interrupted(unread)
    assert [len(agents_of(registered(unread))) for _ in range(3)] == [1, 1, 1]


def test_a_registration_that_names_two_agents_by_mistake_is_stored(storage: Storage) -> None:
    """As programs of before left them in their journals; whether their agent is stored already or not."""
    names, runs = Names(storage), list[AgentInstanceRow]()
    for _ in range(2):
        agent, *others = registered(Unread()).changes
        assert isinstance(agent, Put)
        unit = Unit((agent._replace(row=agent.row._replace(id=IDS.new())), *others))
        assert storage.apply([names.resolved(unit)]) == [Applied()]
        runs += [
            change.row for change in others if isinstance(change, Put) and isinstance(change.row, AgentInstanceRow)
        ]
        names.forget()
    found = [row for _, row in storage.find(*(run.id for run in runs)).rows.values()]
    assert len({(row.agent_id, row.agent_version_id) for row in found if isinstance(row, AgentInstanceRow)}) == 1
