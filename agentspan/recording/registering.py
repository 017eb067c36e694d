"""Registers runs while they are recorded: without reading the storage where a journal lies in front of it.

Without a journal: find, model, apply; a unit that the storage cannot take now is put aside.
"""

from collections.abc import Callable
from typing import NamedTuple

from agentspan import clock, ids
from agentspan.errors import DatabaseBusy, StorageError
from agentspan.model import registration
from agentspan.model.changes import Applied, Put, Unit
from agentspan.model.registration import References, Referred, Registration
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSchemaVersionRow, AgentVersionRow
from agentspan.storage.lookup import check_unused, expect, references, unique
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find

ATTEMPTS = 20


MAX_KEPT = 1000
"""Agents, versions and schema versions of which a process keeps the rows."""


class Unread:
    """Makes the units that register and rename runs, without reading the storage.

    The first one of an agent mints an id for it, which later ones repeat. `recovery.names` replaces it where the agent
    is stored under another id.
    """

    def __init__(self) -> None:
        self._agents: dict[str, AgentRow] = {}
        self._versions: dict[tuple[str, str], AgentVersionRow] = {}
        self._schemas: dict[tuple[str, str], AgentSchemaVersionRow] = {}

    def registration(self, wanted: Registration, new_id: Callable[[], str]) -> tuple[Unit, AgentInstanceRow]:
        """Return the unit that registers a run, and its row, which has no agent_id yet."""
        now = clock.now()
        unit = Unit(registration.registration(wanted, self._referred(wanted, new_id, now), new_id, now), wanted.id)
        return unit, _instance(unit)

    def renaming(self, wanted: Registration, new_id: Callable[[], str]) -> Unit:
        """Return the unit that gives a registered run the agent and the version of `wanted`."""
        return Unit(registration.renaming(wanted.id, self._referred(wanted, new_id, clock.now())))

    def _referred(self, wanted: Registration, new_id: Callable[[], str], now: str) -> Referred:
        version, schema = wanted.version.external_identifier, wanted.schema.content_hash
        agent, of_version, of_schema = wanted.agent, (wanted.agent, version), (wanted.agent, schema)
        known = _of_one_agent(self._agents.get(agent), self._versions.get(of_version), self._schemas.get(of_schema))
        _, referred = registration.references(wanted, known, new_id, now)
        if len(self._versions) + len(self._schemas) > MAX_KEPT:
            self._agents, self._versions, self._schemas = {}, {}, {}
        self._agents[agent], self._versions[of_version], self._schemas[of_schema] = referred
        return referred


def _of_one_agent(
    agent: AgentRow | None, version: AgentVersionRow | None, schema: AgentSchemaVersionRow | None
) -> References:
    """Return what is known without the rows of another agent: between two looks, another thread may have minted one."""
    id = None if agent is None else agent.id
    own_version = version if version is not None and version.agent_id == id else None
    return References(agent, own_version, schema if schema is not None and schema.agent_id == id else None)


class Registered(NamedTuple):
    """The instance of a run, and whether it is in the storage; else its unit was put aside."""

    instance: AgentInstanceRow
    is_stored: bool


def register(
    storage: Storage,
    wanted: Registration,
    new_id: Callable[[], str],
    put_aside: Callable[[Unit, StorageError], None],
    *,
    wait_s: float,
) -> Registered:
    """Register a run, with its agent, version and schema version if they are new.

    Args:
        new_id: returns the PFID of each row that is made beside the instance.
        put_aside: receives the unit if the storage fails to apply it, to write it later.
        wait_s: how long to wait for other writers, in seconds.

    Raises:
        InvalidValue: a row has the instance's id already.
        NotFound, UnexpectedRefType: the agent's name is a PFID, and not an agent's.
        StorageError: the storage cannot be read.
    """
    for _ in range(ATTEMPTS):
        named = [wanted.agent] if ids.is_pfid(wanted.agent) else []
        found = storage.ask(Find(*([] if wanted.minted else [wanted.id]), *named))
        check_unused(found, None if wanted.minted else wanted.id)
        if named:
            agent: AgentRow | None = expect(found, AgentRow, wanted.agent)
        else:
            agent = unique(storage, AgentRow, external_identifier=wanted.agent)
        stored = references(storage, agent, wanted.version.external_identifier, wanted.schema.content_hash)
        unit = Unit(registration.register(wanted, stored, new_id, clock.now()), wanted.id)
        try:
            outcome = storage.apply([unit], wait_s=wait_s)[0]
        except StorageError as error:
            put_aside(unit, error)
            return Registered(_instance(unit), is_stored=False)
        if isinstance(outcome, Applied):
            return Registered(_instance(unit), is_stored=True)
    raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")


def stored_run(storage: Storage, agent: str, id: str, key: str) -> AgentInstanceRow | None:
    """Return the run with an id, else the agent's with an external identifier; None where neither is stored."""
    stored = unique(storage, AgentInstanceRow, id=id)
    if stored is not None:
        return stored
    named = unique(storage, AgentRow, external_identifier=agent)
    return named and unique(storage, AgentInstanceRow, agent_id=named.id, external_identifier=key)


def refer(storage: Storage, wanted: Registration, new_id: Callable[[], str], *, wait_s: float) -> Referred:
    """Store the agent, the version and the schema version of a run if they are new; return them.

    Raises:
        StorageError: the storage fails.
    """
    for _ in range(ATTEMPTS):
        agent = unique(storage, AgentRow, external_identifier=wanted.agent)
        stored = references(storage, agent, wanted.version.external_identifier, wanted.schema.content_hash)
        changes, referred = registration.references(wanted, stored, new_id, clock.now())
        if not changes or isinstance(storage.apply([Unit(tuple(changes))], wait_s=wait_s)[0], Applied):
            return referred
    raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")


def _instance(unit: Unit) -> AgentInstanceRow:
    (row,) = (change.row for change in unit.changes if isinstance(change, Put) and change.row.id == unit.subject)
    assert isinstance(row, AgentInstanceRow)
    return row
