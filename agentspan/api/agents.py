"""Operations on agents and their versions."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from agentspan.api import checks, envelopes, from_rows
from agentspan.api.context import ATTEMPTS, Context, Plan
from agentspan.api.envelopes import Envelope
from agentspan.api.from_rows import instance_counts
from agentspan.api.operation import (
    CHANGES_NOTHING,
    ChangeRow,
    Check,
    Fields,
    GetRow,
    Keyable,
    Listing,
    Name,
    Operation,
    OwnId,
    Route,
    Text,
    Write,
)
from agentspan.api.resources import Agent, AgentVersion
from agentspan.errors import DatabaseBusy, InvalidAction, InvalidValue, NotFound, RequiredValue
from agentspan.model import registration
from agentspan.model.changes import Applied, Change, Put, Remove, Unit
from agentspan.model.rows import AgentRow, AgentVersionRow, ResourceType, Value
from agentspan.model.status import AGENT_STATUSES
from agentspan.storage.access import check_unused, unique
from agentspan.storage.answers import Found
from agentspan.storage.questions import Query

OWNERS = ("owner_person_id", "team_id", "risk_profile_id")


class AgentForCreate(Keyable):
    """An agent to be.

    Attributes:
        name: for people.
        description: for people.
        external_identifier: the client's own name for it, unique in the file.
        id: a PFID of the client's own; minted when left out.
        owner_person_id: kept as it is, as `team_id` and `risk_profile_id`: a file has none of these.
        team_id: kept as it is.
        risk_profile_id: kept as it is.
    """

    again: ClassVar[str] = "answers with the agent as it is now"

    name: Name
    description: Text = None
    external_identifier: Text = None
    id: OwnId = None
    owner_person_id: Text = None
    team_id: Text = None
    risk_profile_id: Text = None


class CreateAgent(AgentForCreate, Write):
    """Create an agent.

    Attributes:
        details: the agent.
    """

    route = Route("POST", "/agent", "agents", Agent)
    action = "agents/create"
    wraps = AgentForCreate
    first = OWNERS

    def plan(self, ctx: Context) -> Plan:
        """Plan to create an agent."""
        sent = self.checked()
        key = self.key(sent)
        id = self.id
        agent_id = id or ctx.ids.new()
        external = sent.get("external_identifier")
        if external:
            external = ctx.admit_text(external)

        def decide(found: Found, now: str) -> Unit:
            check_unused(found, id)
            if external is not None:
                other = unique(ctx.storage, AgentRow, external_identifier=external)
                if other is not None:
                    raise InvalidValue("external_identifier", f"already names the agent {other.id}")
            name, description, *owners = (_admitted(ctx, sent.get(each)) for each in ("name", "description", *OWNERS))
            row = AgentRow(agent_id, external, name, description, "pending", now, now, *owners)
            return Unit((Put(row, minted=id is None),), agent_id, key)

        return Plan((id,), key, decide)


def _admitted(ctx: Context, text: Any) -> Any:
    return text and ctx.admit_text(text)


class AgentForUpdate(Fields):
    """Changes of an agent. Fields that are left out stay as they are.

    Attributes:
        name: for people.
        description: for people.
        owner_person_id: kept as it is, as `team_id` and `risk_profile_id`.
        team_id: kept as it is.
        risk_profile_id: kept as it is.
    """

    name: Annotated[str | None, Check(checks.required_text)] = None
    description: Text = None
    owner_person_id: Text = None
    team_id: Text = None
    risk_profile_id: Text = None


class UpdateAgent(AgentForUpdate, ChangeRow):
    """Change an agent.

    Attributes:
        details: what to change.
    """

    route = Route("PUT", "/agent/{agent_id}", "agents", Agent)
    action = "agents/update"
    row_type = AgentRow
    wraps = AgentForUpdate
    again = CHANGES_NOTHING

    agent_id: str

    def decide(self, ctx: Context, row: AgentRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Change an agent."""
        values = {name: _admitted(ctx, text) for name, text in sent.items() if name != "agent_id"}
        return [registration.updated(row, values, now)]


class Keyed(ChangeRow):
    """A request that says nothing but its key."""

    body_name = "Keyed"
    row_type = AgentRow
    may_be_empty = True
    again = CHANGES_NOTHING


class RetireAgent(Keyed):
    """Retire an agent."""

    route = Route("POST", "/agent/{agent_id}/retire", "agents", Agent)
    action = "agents/retire"

    agent_id: str

    def decide(self, ctx: Context, row: AgentRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Retire an agent."""
        return [registration.retire(row, now)]


class ReinstateAgent(Keyed):
    """Reinstate an agent."""

    route = Route("POST", "/agent/{agent_id}/reinstate", "agents", Agent)
    action = "agents/reinstate"

    agent_id: str

    def decide(self, ctx: Context, row: AgentRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Undo a retirement."""
        counts = instance_counts(ctx.storage, row.id)
        return [registration.reinstate(row, was_used=counts["total"] > counts["pending"], now=now)]


class DeleteAgent(Operation):
    """Delete an agent."""

    route = Route("DELETE", "/agent/{agent_id}", "agents", Agent)
    writes = True

    agent_id: str

    def deleted(self, ctx: Context) -> AgentRow:
        """Delete the agent, and return its last row.

        Raises:
            InvalidAction: the agent has instances.
        """
        ctx.check_writable()
        for _ in range(ATTEMPTS):
            agent = ctx.row(AgentRow, self.agent_id)
            where: dict[str, Value] = {"agent_id": agent.id}
            if ctx.storage.ask(Query("agent_instance", where, limit=1)).rows:
                raise InvalidAction(f"agent {agent.id} has instances; retire it instead")
            removes = [
                Remove(type_, row.id) for type_ in _VERSIONS for row in ctx.storage.ask(Query(type_, where)).rows
            ]
            unit = Unit((*removes, Remove("agent", agent.id)))
            if isinstance(ctx.storage.apply([unit], wait_s=ctx.wait_s)[0], Applied):
                return agent
        raise DatabaseBusy(f"other writers used agent {self.agent_id} in between; try again")

    def __call__(self, ctx: Context) -> Envelope:
        """Delete the agent, and return the envelope of its last row."""
        return envelopes.of_one(from_rows.plain(from_rows.agent(self.deleted(ctx), ctx.account)))


_VERSIONS: tuple[ResourceType, ...] = ("agent_version", "agent_schema_version")


class GetAgent(GetRow):
    """Get an agent."""

    route = Route("GET", "/agent/{agent_id}", "agents", Agent)

    row_type = AgentRow

    agent_id: str


class ShowAgent(Operation):
    """Show an agent by one of its names."""

    route = Route("GET", "/agent/show", "agents", Agent)

    agent_id: str | None = None
    external_identifier: str | None = None
    environment_id: str | None = None
    include_counts: bool = False
    include_risk_rollup: bool = False

    def row(self, ctx: Context) -> AgentRow:
        """Return the row of the agent.

        Raises:
            RequiredValue: neither the id nor the external_identifier is passed, or both are.
            NotFound: no agent has the id or the external_identifier.
        """
        ctx.check_environment(self.environment_id)
        if (self.agent_id is None) == (self.external_identifier is None):
            raise RequiredValue("agent_id", "give either agent_id or external_identifier")
        if self.agent_id is not None:
            return ctx.row(AgentRow, self.agent_id)
        name = ctx.admit_text(checks.required_text("external_identifier", self.external_identifier))
        found = unique(ctx.storage, AgentRow, external_identifier=name)
        if found is None:
            raise NotFound("no agent has this external_identifier")
        return found

    def __call__(self, ctx: Context) -> Envelope:
        """Return the envelope of the agent."""
        return envelopes.of_row(ctx, self.row(ctx))


class ListAgents(Listing):
    """List agents."""

    route = Route("GET", "/agent", "agents", Agent)
    sortable = frozenset({"id", "name", "inserted_at", "updated_at", "status"})
    statuses = AGENT_STATUSES

    status: str | None = None
    environment_id: str | None = None

    def query(self, ctx: Context) -> Query:
        """Return a query for agents."""
        ctx.check_environment(self.environment_id)
        wanted = checks.one_of("status", self.status, AGENT_STATUSES)
        return Query("agent", {} if wanted is None else {"status": wanted})


class GetAgentVersion(GetRow):
    """Get an agent version."""

    route = Route("GET", "/agent_version/{agent_version_id}", "versions", AgentVersion)

    row_type = AgentVersionRow

    agent_version_id: str


class ListAgentVersions(Listing):
    """List agent versions."""

    route = Route("GET", "/agent_version", "versions", AgentVersion)
    sortable = frozenset({"id", "external_identifier", "inserted_at", "updated_at"})

    agent_id: str | None = None

    def query(self, ctx: Context) -> Query:
        """Return a query for versions."""
        return Query("agent_version", ctx.where_agent(self.agent_id))
