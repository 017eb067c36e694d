"""The operations by id on agents, their versions and schema versions: call `operations`, return the API's models."""

import builtins
from typing import Any, cast

from agentspan.model import resources
from agentspan.model.agent_resources import Agent, AgentSchemaVersion, AgentVersion
from agentspan.model.agents import available_actions
from agentspan.model.pages import Page, pagination
from agentspan.model.rows import AgentRow, AgentSchemaVersionRow, AgentVersionRow
from agentspan.model.status import AgentStatus
from agentspan.operations import agent_schema_versions, agents
from agentspan.operations.context import Context


class Agents:
    """Operations on agents. Ids that name nothing raise NotFound; ids of another type, UnexpectedRefType."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def create(
        self,
        name: str,
        description: str | None = None,
        external_identifier: str | None = None,
        *,
        id: str | None = None,
        owner_person_id: str | None = None,
        team_id: str | None = None,
        risk_profile_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Agent:
        """Create an agent, pending until its first instance starts.

        Args:
            owner_person_id, team_id, risk_profile_id: ids of the API's service, kept as they are.

        Raises:
            InvalidValue: a value is wrong, or the external_identifier names another agent.
        """
        done = agents.create(
            self._ctx,
            name=name,
            description=description,
            external_identifier=external_identifier,
            id=id,
            owner_person_id=owner_person_id,
            team_id=team_id,
            risk_profile_id=risk_profile_id,
            idempotency_key=idempotency_key,
        )
        return self._full(done.row)

    def get(self, agent_id: str) -> Agent:
        """Return an agent, with its available actions and the counts of its instances."""
        return self._full(self._ctx.row(AgentRow, agent_id))

    def show(self, agent_id: str | None = None, *, external_identifier: str | None = None) -> Agent:
        """Return an agent by its id or by its external_identifier.

        Raises:
            RequiredValue: neither is given, or both.
        """
        return self._full(agents.show(self._ctx, agent_id=agent_id, external_identifier=external_identifier))

    def update(
        self,
        agent_id: str,
        name: str | None = None,
        description: str | None = None,
        *,
        owner_person_id: str | None = None,
        team_id: str | None = None,
        risk_profile_id: str | None = None,
        idempotency_key: str | None = None,
    ) -> Agent:
        """Change what an agent was created with; a field that is left out stays."""
        done = agents.update(
            self._ctx,
            agent_id,
            name=name,
            description=description,
            owner_person_id=owner_person_id,
            team_id=team_id,
            risk_profile_id=risk_profile_id,
            idempotency_key=idempotency_key,
        )
        return self._full(done.row)

    def retire(self, agent_id: str, idempotency_key: str | None = None) -> Agent:
        """Retire an agent: it and its runs stay.

        Raises:
            InvalidAction: it is retired already.
        """
        return self._full(agents.retire(self._ctx, agent_id, idempotency_key=idempotency_key).row)

    def reinstate(self, agent_id: str, idempotency_key: str | None = None) -> Agent:
        """Undo a retirement.

        Raises:
            InvalidAction: it is not retired.
        """
        return self._full(agents.reinstate(self._ctx, agent_id, idempotency_key=idempotency_key).row)

    def delete(self, agent_id: str) -> Agent:
        """Delete an agent that has no instances, with its versions and schema versions; return it as it was before.

        Raises:
            InvalidAction: it has instances; retire it instead.
        """
        return self._model(agents.delete(self._ctx, agent_id))

    def list(
        self,
        *,
        status: AgentStatus | None = None,
        sorting: str | None = None,
        offset: int = 0,
        page_size: int = 50,
    ) -> Page[Agent]:
        """Return a page of agents; `sorting` by `name` or `-name`, among others."""
        page = agents.page(self._ctx, status=status, sorting=sorting, offset=offset, page_size=page_size)
        return Page([self._model(row) for row in page.rows], pagination(page.counted(), offset, page_size))

    def _model(self, row: Any) -> Agent:
        return resources.agent(row, self._ctx.account)

    def _full(self, row: Any) -> Agent:
        counts = agents.instance_counts(self._ctx, row.id)
        actions = available_actions(row, has_instances=counts["total"] > 0)
        return resources.agent(row, self._ctx.account, actions=actions, counts=counts)


class AgentVersions:
    """Operations on agent versions. A version is created when an instance registers with a new one."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def get(self, agent_version_id: str) -> AgentVersion:
        """Return a version."""
        return resources.agent_version(self._ctx.row(AgentVersionRow, agent_version_id), self._ctx.account)

    def list(
        self, agent_id: str | None = None, *, sorting: str | None = None, offset: int = 0, page_size: int = 50
    ) -> Page[AgentVersion]:
        """Return a page of versions, of all agents or of one."""
        page = agents.versions(self._ctx, agent_id=agent_id, sorting=sorting, offset=offset, page_size=page_size)
        items = [resources.agent_version(cast(AgentVersionRow, row), self._ctx.account) for row in page.rows]
        return Page(items, pagination(page.counted(), offset, page_size))


class AgentSchemaVersions:
    """Operations on schema versions. Their id follows their content: the same span types are the same version."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def create(
        self,
        agent_id: str,
        external_identifier: str | None = None,
        *,
        span_type_schemas: builtins.list[dict[str, Any]] | None = None,
        span_schemas: dict[str, Any] | None = None,
        span_result_schemas: dict[str, Any] | None = None,
        quality_schemas: builtins.list[dict[str, Any]] | None = None,
        quality_schema: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> AgentSchemaVersion:
        """Create a schema version of an agent, or return the one with the same content.

        Raises:
            InvalidValue: an entry is wrong.
        """
        done = agent_schema_versions.create(
            self._ctx,
            agent_id=agent_id,
            idempotency_key=idempotency_key,
            external_identifier=external_identifier,
            span_type_schemas=span_type_schemas,
            span_schemas=span_schemas,
            span_result_schemas=span_result_schemas,
            quality_schemas=quality_schemas,
            quality_schema=quality_schema,
        )
        return self._model(done.row)

    def get(self, agent_schema_version_id: str) -> AgentSchemaVersion:
        """Return a schema version."""
        return self._model(self._ctx.row(AgentSchemaVersionRow, agent_schema_version_id))

    def list(
        self, agent_id: str | None = None, *, sorting: str | None = None, offset: int = 0, page_size: int = 50
    ) -> Page[AgentSchemaVersion]:
        """Return a page of schema versions, of all agents or of one."""
        page = agent_schema_versions.page(
            self._ctx, agent_id=agent_id, sorting=sorting, offset=offset, page_size=page_size
        )
        return Page([self._model(row) for row in page.rows], pagination(page.counted(), offset, page_size))

    def _model(self, row: Any) -> AgentSchemaVersion:
        return resources.schema_version(row, self._ctx.account)
