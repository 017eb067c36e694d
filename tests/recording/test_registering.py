"""Threads that begin the first runs of a program at the same moment: each registration names one agent."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from agentspan.ids import IdSource
from agentspan.journal.committer import Committer, Listener, Tally
from agentspan.journal.names import Names, StoredSpanTypes
from agentspan.journal.records import decode_unit, encode_registration
from agentspan.model import registration
from agentspan.model.changes import Applied, Move, Put, Unit
from agentspan.model.registration import DEFAULT, Registration, VersionFields
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSchemaVersionRow, AgentVersionRow, Row
from agentspan.recording.destination import Unread
from agentspan.schemas.span_types import REGISTRY
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find
from tests.impatient import at_once

IDS = IdSource(0)
TYPES = registration.fields_of(REGISTRY.items())


def registered(unread: Unread) -> Unit:
    """The registration of one more run of the agent `a`."""
    return unread.registration(Registration(IDS.new(), "a", VersionFields(DEFAULT), TYPES, "live", None), IDS.new)[0]


def rows_of(unit: Unit) -> Iterator[Row]:
    """The rows that a unit puts."""
    return (change.row for change in unit.changes if isinstance(change, Put))


def store(storage: Storage, units: Sequence[Unit]) -> None:
    """Apply units, none of which is refused."""
    assert [type(outcome) for outcome in storage.apply(units)] == [Applied] * len(units)


def agents_of(unit: Unit) -> set[str]:
    """The ids of the agents that the rows of a registration name; its run names none yet."""
    rows = [*rows_of(unit)]
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
    names, runs = Names(IDS.new), list[AgentInstanceRow]()
    for _ in range(2):
        agent, *others = registered(Unread()).changes
        assert isinstance(agent, Put)
        unit = Unit((agent._replace(row=agent.row._replace(id=IDS.new())), *others))
        assert storage.apply([names.resolved(storage, unit)]) == [Applied()]
        runs += [
            change.row for change in others if isinstance(change, Put) and isinstance(change.row, AgentInstanceRow)
        ]
        names.forget()
    found = [row for _, row in storage.ask(Find(*(run.id for run in runs))).rows.values()]
    assert len({(row.agent_id, row.agent_version_id) for row in found if isinstance(row, AgentInstanceRow)}) == 1


def test_a_run_is_renamed_although_another_program_puts_its_new_agent_at_that_moment(storage: Storage) -> None:
    class Meanwhile:
        """The storage; before it takes the renaming, it takes a registration of the same agent."""

        def __getattr__(self, name: str) -> Any:
            return getattr(storage, name)

        def apply(self, units: Sequence[Unit], **how: Any) -> Any:
            if any(isinstance(change, Move) for change in units[0].changes) and not others:
                others.extend(Names(IDS.new).resolved(storage, unit) for unit in [registered(Unread())])
                store(storage, others)
            return storage.apply(units, **how)

    others = list[Unit]()
    unread = Unread()
    wanted = Registration(IDS.new(), "before", VersionFields(DEFAULT), TYPES, "live", None)
    unit, _ = unread.registration(wanted, IDS.new)
    store(storage, [Names(IDS.new).resolved(storage, unit)])
    committer = Committer(
        cast(Storage, Meanwhile()),
        lambda: "writer",
        IDS,
        resolve=lambda run, name: REGISTRY.resolve(name),
        stored_span_types=StoredSpanTypes(),
        listener=Listener(),
    )
    renaming = unread.renaming(wanted._replace(agent="a"), IDS.new)
    assert committer.apply([renaming], 1.0) == Tally(recorded=1)
    run = storage.ask(Find(wanted.id)).rows[wanted.id][1]
    (other,) = (row for row in rows_of(others[0]) if isinstance(row, AgentRow))
    assert isinstance(run, AgentInstanceRow)
    assert run.agent_id == other.id


def test_the_span_types_of_a_registration_that_begins_a_segment_are_found_with_another_agent(storage: Storage) -> None:
    """The segment before had them, for another agent, and is in the storage."""
    store(storage, [Names(IDS.new).resolved(storage, registered(Unread()))])
    wanted = Registration(IDS.new(), "b", VersionFields(DEFAULT), TYPES, "live", None)
    unit = Unread().registration(wanted, IDS.new)[0]
    without = decode_unit(encode_registration(unit, with_content=False)[2:])
    (schema,) = (
        row for row in rows_of(Names(IDS.new).resolved(storage, without)) if isinstance(row, AgentSchemaVersionRow)
    )
    assert (schema.content_hash, schema.span_type_schemas) == (TYPES.content_hash, TYPES.span_type_schemas)


def test_threads_that_keep_more_runs_than_are_cached_do_not_disturb_each_other() -> None:
    (row,) = (row for row in rows_of(registered(Unread())) if isinstance(row, AgentInstanceRow))

    def keep(thread: int) -> None:
        for number in range(300):
            types.keep(row._replace(id=f"{thread} {number}"))

    for _ in range(30):
        types = StoredSpanTypes(most=50)
        assert at_once(4, keep) == []
