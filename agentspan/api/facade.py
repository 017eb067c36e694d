"""The operations by id of `agentspan.open`: methods with written-out parameters, for editors, that return resources.

A method passes its `locals()` to its operation, which keeps the values of its fields and ignores others.
"""

import builtins
from datetime import datetime
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from agentspan.api import agents, envelopes, runs, spans
from agentspan.api.agents import ShowAgent
from agentspan.api.context import Context
from agentspan.api.envelopes import resource_of, resources_of, score
from agentspan.api.operation import GetRow, Listing, Write
from agentspan.api.resources import (
    Agent,
    AgentInstance,
    AgentSchemaVersion,
    AgentSpan,
    AgentVersion,
    Page,
    Score,
    controlled,
    pagination,
    registered,
)
from agentspan.journal import spool
from agentspan.model.changes import AgentStatus, FinishStatus, InstanceStatus, Purpose, SpanStatus
from agentspan.model.rows import AgentSchemaVersionRow, Row, Violation
from agentspan.model.scores import Source

T = TypeVar("T")
Time = datetime | str
"""An aware datetime, or RFC 3339 text with an offset."""


class InstanceFields(TypedDict, total=False):
    """The fields of `AgentInstances.update`."""

    quality_payload: dict[str, Any] | None
    metadata: dict[str, Any] | None
    session: str | None
    user: str | None
    task: str | None
    tags: list[str] | None


class ResourceOperations(Generic[T]):
    """Operations that return one type of resource.

    An `idempotency_key` has at most 64 characters: the same request with the same key changes nothing more, and returns
    the resource as it is now. `sorting` is a field, with `-` in front for descending, or a dict of `field` and
    `direction` (`asc`, `desc`); `id`, the order of creation, when left out. `offset` items are skipped, and `page_size`
    (1 to 100) returned. An `id` is a PFID of the caller's own; minted when left out.

    Raises:
        NotFound, UnexpectedRefType: an id names nothing, or a resource of another type.
        InvalidValue, RequiredValue: a value is wrong or missing.
        IdempotencyKeyAlreadyUsed: the key was used for another request.
        ValidationErrors: strict_schemas, and a payload does not match.
    """

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def _done(self, write: Write) -> T:
        done = write.run(self._ctx)
        resource: Any = self._resource(done.row)
        made: T = controlled(resource, done.control)
        return made

    def _of(self, operation: GetRow | ShowAgent) -> T:
        return self._resource(operation.row(self._ctx))

    def _resource(self, row: Row) -> T:
        resource: T = resource_of(self._ctx, row)
        return resource

    def _page(self, asked: Listing) -> Page[T]:
        found = asked.rows(self._ctx)
        items: list[T] = resources_of(self._ctx, found.rows, summaries=asked.shows_summaries)
        return Page(items, pagination(found.counted(), asked.offset, asked.page_size))


class AgentSpans(ResourceOperations[AgentSpan]):
    """Operations on spans.

    Examples:
        import agentspan

        with agentspan.open("by-id.db") as db:
            run = db.agent_instances.register("planner")
            db.agent_instances.start(run.id)
            span = db.agent_spans.create(run.id, "tool", "active", {"name": "search"})
            db.agent_spans.finish(span.id, result_payload={"output": "In May."})
            db.scores.record(span.id, "relevance", 0.5, by="human")
            db.agent_instances.finish(run.id)
            assert db.agent_spans.list(run.id)[0].status == "complete"
    """

    def create(
        self,
        agent_instance_id: str,
        schema_name: str,
        status: SpanStatus,
        payload: dict[str, Any] | None = None,
        result_payload: Any = None,
        *,
        id: str | None = None,
        parent_span_id: str | None = None,
        started_at: Time | None = None,
        finished_at: Time | None = None,
        sensitive_encoding: bool | None = None,
        idempotency_key: str | None = None,
    ) -> AgentSpan:
        """Create a span in any status.

        If a failed span has no `result_payload`, and its payload has an `error` (an object with a type or a `message`,
        or a text), its `result_payload` is `{"error": …}` with that error.

        Args:
            agent_instance_id: the run of the span; it may have any status.
            schema_name: the span type. An unregistered `prefix:type` falls back to the built-in `type`, else to
                `custom`.
            status: the first status of the span.
            payload: the input, a JSON object; `{}` when left out.
            result_payload: the output, any JSON; None for no output; only with a terminal status.
            id: a PFID of the caller's own; minted when left out.
            parent_span_id: an existing span.
            started_at: now when left out; ignored for a pending span.
            finished_at: only with a terminal status; now when left out.
            sensitive_encoding: whether values are marked as sensitive, `{"$sensitive": "string", "labels": ["email"],
                "value": …}`. Marked values are never stored, with or without this flag, unless the database was opened
                with `sensitive="keep"`.

        Raises:
            ValidationErrors: with strict_schemas, a payload does not match its schema.
        """
        return self._done(spans.CreateSpan(locals()))

    def start(self, agent_span_id: str, timestamp: Time | None = None, idempotency_key: str | None = None) -> AgentSpan:
        """Start a pending span, now or at `timestamp`.

        Raises:
            InvalidAction: the span is not pending.
        """
        return self._done(spans.StartSpan(locals()))

    def finish(
        self,
        agent_span_id: str,
        status: FinishStatus | None = None,
        result_payload: Any = None,
        timestamp: Time | None = None,
        idempotency_key: str | None = None,
        *,
        sensitive_encoding: bool | None = None,
    ) -> AgentSpan:
        """Finish a span. Of several concurrent calls for one span, in any processes, exactly one succeeds.

        Args:
            agent_span_id: the span.
            status: `complete` (when left out) or `failed`, of an active span; `cancelled`, of a pending one.
            result_payload: the output, any JSON; None for no output.
            timestamp: the time of the finish; now when left out. A time up to 60 s before started_at counts as
                started_at. A cancelled span gets it as both started_at and finished_at.
            sensitive_encoding: whether values of the result are marked as sensitive (see `create`).

        Raises:
            InvalidAction: the status of the span does not allow this finish; the span is unchanged.
            InvalidValue: a value is wrong, such as a timestamp too early.
            ValidationErrors: with strict_schemas, the result does not match its schema.
        """
        return self._done(spans.FinishSpan(locals()))

    def get(self, agent_span_id: str) -> AgentSpan:
        """Return a span."""
        return self._of(spans.GetSpan(locals()))

    def list(
        self,
        agent_instance_id: str | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
        *,
        agent_id: str | None = None,
        status: SpanStatus | None = None,
        schema_name: str | None = None,
        include_summaries: bool = False,
        sorting: str | None = None,
        offset: int = 0,
        page_size: int = 50,
    ) -> Page[AgentSpan]:
        """Return a page of the spans of a run or of an agent, in order of creation unless `sorting` is passed.

        Args:
            agent_instance_id: the run. It or `agent_id` is required.
            agent_id: the agent.
            status: only spans with this status.
            schema_name: only spans of this type.
            start_time: only spans with a started_at (else inserted_at) at this time or later.
            end_time: only spans with a started_at (else inserted_at) before this time.
            include_summaries: True to fill in `summary`, which the API leaves out by default.
            sorting: `id`, `inserted_at`, `updated_at`, `started_at`, `finished_at`, `schema_name` or `status`.

        Raises:
            RequiredValue: neither a run nor an agent is passed.
        """
        return self._page(spans.ListSpans(locals()))

    def violations(self, agent_span_id: str) -> builtins.list[Violation]:
        """Return the violations of a span's payloads: side, path, keyword and message of each."""
        return spans.ListViolations(locals()).found(self._ctx)


class AgentInstances(ResourceOperations[AgentInstance]):
    """Operations on instances, which are runs."""

    def register(
        self,
        agent_id: str | None = None,
        environment_id: str | None = None,
        agent_version: dict[str, Any] | None = None,
        agent_schema_version: dict[str, Any] | None = None,
        *,
        id: str | None = None,
        idempotency_key: str | None = None,
        update_current_version: bool | None = None,
        purpose: Purpose | None = None,
        metadata: dict[str, Any] | None = None,
        external_identifier: str | None = None,
        session: str | None = None,
        user: str | None = None,
        task: str | None = None,
        tags: builtins.list[str] | None = None,
    ) -> AgentInstance:
        """Register an instance, pending; its agent, version and schema version are made when they are new.

        The answer has the schema version as `agent_schema_version`. A schema or template that cannot be used is stored,
        and logged once with the reason; `agentspan doctor --schemas` shows it. Without a usable schema each payload has
        one violation, `$unchecked`; without a usable template spans have no summary.

        Args:
            agent_id: the PFID of an agent, or the caller's own name for it (its external_identifier); `default` when
                left out. An agent with a new name is created.
            environment_id: accepted for the sake of clients, and ignored: a file has one environment.
            agent_version: `external_identifier`, `name`, `description`, `runtime_environment`.
            agent_schema_version: `span_type_schemas`, a list of objects with name, title, params_schema,
                result_schema and template; or `span_schemas` and `span_result_schemas`, JSON Schemas by name; and
                `quality_schemas`, a list of objects with name, schema, title and template, and `quality_schema`, the
                one without a name. When left out: the built-in and registered span types of this process.
            id: a PFID of the caller's own; minted when left out.
            update_current_version: True to set the name and description of a version that exists already.
            purpose: `live` when left out, `smoke_test` or `eval`.
            metadata: the input of the run, or other facts about it; a JSON object.
            external_identifier: the caller's own name for the instance. A second instance of the agent with the same
                name raises InvalidValue.
            session: the caller's own name for the conversation that the run belongs to.
            user: the caller's own name for the person that the run is for.
            task: the caller's own name for the task of the run. If session, user, task or tags are left out, members of
                metadata with these names take their place, if they are texts (or, for tags, a list of texts).
            tags: words by which runs are found, at most 100.
        """
        done = runs.RegisterInstance(locals()).run(self._ctx)
        version = self._ctx.row(AgentSchemaVersionRow, done.row.agent_schema_version_id)  # type: ignore[union-attr]
        return registered(self._resource(done.row), envelopes.schema_version(version, self._ctx.account))

    def start(
        self, agent_instance_id: str, timestamp: Time | None = None, idempotency_key: str | None = None
    ) -> AgentInstance:
        """Start a pending instance, now or at `timestamp`.

        Raises:
            InvalidAction: the instance is not pending.
        """
        return self._done(runs.StartInstance(locals()))

    def finish(
        self,
        agent_instance_id: str,
        status: FinishStatus | None = None,
        timestamp: Time | None = None,
        idempotency_key: str | None = None,
    ) -> AgentInstance:
        """Finish an instance by the rules of a span's finish. Its spans do not change.

        This succeeds once for a run that `terminate` or `doctor` closed: its own end replaces the close. A terminated
        run stays terminated, and takes the times of its own end.

        Raises:
            InvalidAction: the status of the instance does not allow this finish; the instance is unchanged.
            InvalidValue: a value is wrong, such as a timestamp too early.
        """
        return self._done(runs.FinishInstance(locals()))

    def terminate(self, agent_instance_id: str, reason: str, idempotency_key: str | None = None) -> AgentInstance:
        """Terminate an active instance, for good, and close its open spans: active ones failed, pending ones cancelled.

        The closed spans have the error `Terminated`, and `closed_by` is `terminated`. The program of the run notices it
        at its next step. Spans that it begins later are still recorded.

        Args:
            agent_instance_id: the run.
            reason: why, for people; it is stored in the instance and in the errors of its closed spans.

        Raises:
            InvalidAction: the instance is not active; nothing is changed.
        """
        done = runs.TerminateInstance(locals()).run(self._ctx)
        spool.terminated(done.row.id, reason)
        return self._resource(done.row)

    def record_quality(
        self,
        agent_instance_id: str,
        name: str,
        payload: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> AgentInstance:
        """Record an evaluation of a run in any status: set one named quality payload, and add the scores it holds.

        Args:
            agent_instance_id: the run.
            name: the name of the evaluation. If the run was registered with a quality schema of this name, the payload
                is checked against it. Over HTTP and in bulk, a name without a schema is refused.
            payload: the evaluation, a JSON object; None removes the evaluation with this name.

        Raises:
            ValidationErrors: with strict_schemas, the payload does not match its schema.
        """
        return self._done(runs.RecordAnyQuality(locals()))

    def update(
        self, agent_instance_id: str, *, idempotency_key: str | None = None, **fields: Unpack[InstanceFields]
    ) -> AgentInstance:
        """Change the description of a run, or replace its evaluation without a name. The run may have any status.

        Args:
            agent_instance_id: the run.
            fields: the fields to change. A field that is left out stays; None removes its value. `tags`, `metadata` and
                `quality_payload` are replaced as a whole. If `session`, `user`, `task` or `tags` are left out, members
                of `metadata` with these names take their place. `quality_payload` needs no schema; if the run was
                registered with a `quality_schema`, its template makes the `quality_summary`.

        Raises:
            RequiredValue: no field is passed.
            ValidationErrors: with strict_schemas, the evaluation does not match its schema.
        """
        return self._done(runs.UpdateInstance({**fields, **locals()}))

    def agent_context(self, agent_instance_id: str) -> dict[str, Any]:
        """Return a run as plain JSON: `instance`, `agent`, `schema`, and all `spans` in order."""
        return runs.GetAgentContext(locals())(self._ctx)

    def get(self, agent_instance_id: str) -> AgentInstance:
        """Return an instance, with the counts of its spans."""
        return self._of(runs.GetInstance(locals()))

    def list(
        self,
        agent_id: str | None = None,
        agent_version_id: str | None = None,
        *,
        status: InstanceStatus | None = None,
        purpose: Purpose | None = None,
        sorting: str | None = None,
        offset: int = 0,
        page_size: int = 50,
    ) -> Page[AgentInstance]:
        """Return a page of instances, of all agents or of one; `sorting="-id"` for the newest first.

        Args:
            agent_id: only instances of this agent.
            agent_version_id: only instances of this version.
            status: only instances with this status.
            purpose: only instances with this purpose.
            sorting: `id`, `inserted_at`, `updated_at`, `started_at`, `finished_at` or `status`.
        """
        return self._page(runs.ListInstances(locals()))


class Agents(ResourceOperations[Agent]):
    """Operations on agents."""

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
            name: a name for people.
            description: for people.
            external_identifier: the caller's own name for it, unique in the file.
            owner_person_id, team_id, risk_profile_id: ids of the API's service, kept as they are.

        Raises:
            InvalidValue: a value is wrong, or the external_identifier names another agent.
        """
        return self._done(agents.CreateAgent(locals()))

    def get(self, agent_id: str) -> Agent:
        """Return an agent, with its available actions and the counts of its instances."""
        return self._of(agents.GetAgent(locals()))

    def show(self, agent_id: str | None = None, *, external_identifier: str | None = None) -> Agent:
        """Return an agent by its id or by its external_identifier, with its available actions and counts.

        Raises:
            RequiredValue: neither the id nor the external_identifier is passed, or both are.
        """
        return self._of(agents.ShowAgent(locals()))

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
        """Change fields of an agent; one that is left out stays.

        Args:
            agent_id: the agent.
            name, description, owner_person_id, team_id, risk_profile_id: as for `create`.
        """
        return self._done(agents.UpdateAgent(locals()))

    def retire(self, agent_id: str, idempotency_key: str | None = None) -> Agent:
        """Retire an agent. The agent and its runs stay stored, and new runs of it can be created.

        Raises:
            InvalidAction: the agent is retired already.
        """
        return self._done(agents.RetireAgent(locals()))

    def reinstate(self, agent_id: str, idempotency_key: str | None = None) -> Agent:
        """Undo the retirement of an agent: it is active again, or pending if no run of it ever started.

        Raises:
            InvalidAction: the agent is not retired.
        """
        return self._done(agents.ReinstateAgent(locals()))

    def delete(self, agent_id: str) -> Agent:
        """Delete an agent that has no instances, with its versions and schema versions; return it as it was before.

        Raises:
            InvalidAction: the agent has instances; retire it instead.
        """
        row = agents.DeleteAgent(locals()).deleted(self._ctx)
        return envelopes.agent(row, self._ctx.account)

    def list(
        self,
        *,
        status: AgentStatus | None = None,
        sorting: str | None = None,
        offset: int = 0,
        page_size: int = 50,
    ) -> Page[Agent]:
        """Return a page of agents.

        Args:
            status: only agents with this status.
            sorting: `id`, `name`, `inserted_at`, `updated_at` or `status`.
        """
        return self._page(agents.ListAgents(locals()))


class AgentVersions(ResourceOperations[AgentVersion]):
    """Operations on agent versions. A version is created when an instance registers with a new one."""

    def get(self, agent_version_id: str) -> AgentVersion:
        """Return a version."""
        return self._of(agents.GetAgentVersion(locals()))

    def list(
        self, agent_id: str | None = None, *, sorting: str | None = None, offset: int = 0, page_size: int = 50
    ) -> Page[AgentVersion]:
        """Return a page of versions, of all agents or of one.

        Args:
            agent_id: only versions of this agent.
            sorting: `id`, `external_identifier`, `inserted_at` or `updated_at`.
        """
        return self._page(agents.ListAgentVersions(locals()))


class AgentSchemaVersions(ResourceOperations[AgentSchemaVersion]):
    """Operations on schema versions. For one agent, the same span types are always the same version, with one id."""

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

        Args:
            agent_id: the agent.
            external_identifier: the caller's own name for it.
            span_type_schemas, span_schemas, span_result_schemas, quality_schemas, quality_schema: as the members of
                `agent_schema_version` of `AgentInstances.register`.
        """
        return self._done(agents.CreateSchemaVersion(locals()))

    def get(self, agent_schema_version_id: str) -> AgentSchemaVersion:
        """Return a schema version."""
        return self._of(agents.GetSchemaVersion(locals()))

    def list(
        self, agent_id: str | None = None, *, sorting: str | None = None, offset: int = 0, page_size: int = 50
    ) -> Page[AgentSchemaVersion]:
        """Return a page of schema versions, of all agents or of one.

        Args:
            agent_id: only schema versions of this agent.
            sorting: `id`, `inserted_at` or `external_identifier`.
        """
        return self._page(agents.ListSchemaVersions(locals()))


class Scores(ResourceOperations[Score]):
    """Operations on scores of runs and spans."""

    def record(
        self,
        target_id: str,
        name: str,
        value: float | None = None,
        *,
        label: str | None = None,
        explanation: str | None = None,
        by: Source = "code",
        identifier: str | None = None,
        withdraw: bool = False,
        idempotency_key: str | None = None,
    ) -> Score:
        """Judge a run or a span, in any status. The newest score of a name counts; those before it are kept.

        Args:
            target_id: the run or the span.
            name: the name of the score, such as `reward`; at most 200 characters, like label and identifier. `mark` and
                `note` are names for people, which `agentspan score --mark` writes.
            value: a finite number, or True or False.
            label: a word, such as `good`.
            explanation: why; at most 10,000 characters.
            by: who judged: "code", "human" or "model".
            identifier: the name of the judge, if several judge the same target: the newest score of each judge counts.
            withdraw: True to withdraw the earlier scores of this name and identifier; without value, label and
                explanation.

        Raises:
            RequiredValue: there is no name; or there is no value, label or explanation, and `withdraw` is False.
        """
        return self._done(spans.ScoreTarget({**locals(), "source": by}))

    def list(self, target_id: str, *, history: bool = False) -> builtins.list[Score]:
        """Return the scores of a run, without those of its spans, or of a span; the oldest first.

        Args:
            target_id: the run or the span.
            history: True for all scores, False for the scores that count.
        """
        wanted = spans.ListTargetScores({"target_id": target_id, "include_history": history})
        return [score(row) for row in wanted.rows(self._ctx)]
