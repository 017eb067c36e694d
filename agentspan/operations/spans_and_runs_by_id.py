"""The operations by id on spans and instances: call `operations`, return the API's models."""

import builtins
from datetime import datetime
from typing import Any, Unpack, cast

from agentspan.journal import own_journals
from agentspan.model import resources
from agentspan.model.changes import Violation
from agentspan.model.pages import Page, pagination
from agentspan.model.resources import AgentInstance, AgentSpan
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow, AgentSpanRow
from agentspan.model.status import FinishStatus, InstanceStatus, Purpose, SpanStatus
from agentspan.operations import agent_instances, agent_spans, instance_updates, quality
from agentspan.operations.context import Context, Done
from agentspan.operations.instance_updates import InstanceFields
from agentspan.operations.run_details import details_of
from agentspan.storage.questions import Counts, Violations
from agentspan.storage.scores import said_of

Time = datetime | str
"""An aware datetime, or RFC 3339 text with an offset."""


class AgentSpans:
    """Operations on spans. Ids that name nothing raise NotFound; ids of another type, UnexpectedRefType."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

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

        Args:
            agent_instance_id: the run that it belongs to, whatever its status.
            schema_name: the span type; one that was not registered falls back as `prefix:type` says, else to `custom`.
            status: the status to begin in.
            payload: what went in, a JSON object; `{}` when left out.
            result_payload: what came out, any JSON; None for no result; only with a terminal status.
            id: a PFID of one's own; minted when left out.
            parent_span_id: an existing span.
            started_at: now when left out; of a pending span it is not kept.
            finished_at: only with a terminal status; now when left out.
            sensitive_encoding: whether values are marked as sensitive, `{"$sensitive": "string", "labels": ["email"],
                "value": …}`. The value of such a mark is not stored in any case, unless the database was opened with
                `sensitive="keep"`.
            idempotency_key: at most 64 characters; the same request again returns the span as it is now.

        Raises:
            InvalidValue, RequiredValue: a value is wrong or missing.
            IdempotencyKeyAlreadyUsed: the key was used for another request.
            ValidationErrors: strict_schemas, and a payload does not match.
        """
        plan = agent_spans.plan_create(
            self._ctx,
            agent_instance_id=agent_instance_id,
            schema_name=schema_name,
            status=status,
            payload=payload,
            result_payload=result_payload,
            id=id,
            parent_span_id=parent_span_id,
            started_at=started_at,
            finished_at=finished_at,
            sensitive_encoding=sensitive_encoding,
            idempotency_key=idempotency_key,
        )
        return self._answer(self._ctx.carry_out(plan))

    def start(self, agent_span_id: str, timestamp: Time | None = None, idempotency_key: str | None = None) -> AgentSpan:
        """Start a pending span, now or at `timestamp`.

        Raises:
            InvalidAction: it is not pending.
        """
        plan = agent_spans.plan_start(self._ctx, agent_span_id, timestamp=timestamp, idempotency_key=idempotency_key)
        return self._answer(self._ctx.carry_out(plan))

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
        """Finish a span. Of several that try at the same moment, in any process, exactly one succeeds.

        Args:
            agent_span_id: the span.
            status: `complete` (when left out) or `failed`, of an active span; `cancelled`, of a pending one.
            result_payload: what came out, any JSON; None for no result.
            timestamp: now when left out; up to 60 s before started_at counts as started_at. A cancelled span's
                started_at and finished_at are both set to it.
            idempotency_key: at most 64 characters; the same request again succeeds again.
            sensitive_encoding: as in `create`.

        Raises:
            InvalidAction: the span is not in a status that this one follows; it is untouched.
            InvalidValue: a value is wrong, such as a timestamp too early.
            IdempotencyKeyAlreadyUsed: the key was used for another request.
            ValidationErrors: strict_schemas, and the result does not match.
        """
        plan = agent_spans.plan_finish(
            self._ctx,
            agent_span_id,
            status=status,
            result_payload=result_payload,
            timestamp=timestamp,
            sensitive_encoding=sensitive_encoding,
            idempotency_key=idempotency_key,
        )
        return self._answer(self._ctx.carry_out(plan))

    def get(self, agent_span_id: str) -> AgentSpan:
        """Return a span."""
        return self._model(self._ctx.row(AgentSpanRow, agent_span_id))

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
        """Return a page of the spans of a run or of an agent, in order of creation unless `sorting` says otherwise.

        Args:
            agent_instance_id: the run. It or `agent_id` is required.
            agent_id: the agent.
            status: only spans with this status.
            schema_name: only spans of this type.
            start_time: the first started_at (else inserted_at) that counts.
            end_time: the first one that no longer counts.
            include_summaries: fill `summary` in, as the API does only when asked.
            sorting: a field such as `started_at`, or `-started_at` for descending.
            offset: how many spans to pass over.
            page_size: 1 to 100.

        Raises:
            RequiredValue: neither a run nor an agent is given.
        """
        page = agent_spans.page(
            self._ctx,
            agent_instance_id=agent_instance_id,
            agent_id=agent_id,
            status=status,
            schema_name=schema_name,
            start_time=start_time,
            end_time=end_time,
            sorting=sorting,
            offset=offset,
            page_size=page_size,
        )
        rows = cast("builtins.list[AgentSpanRow]", page.rows)
        purposes = self._ctx.purposes_of(rows)
        items = [
            resources.span(row, self._ctx.account, purposes[row.agent_instance_id], summary=include_summaries)
            for row in rows
        ]
        return Page(items, pagination(page.counted(), offset, page_size))

    def violations(self, agent_span_id: str) -> builtins.list[Violation]:
        """Return the violations of a span's payloads: side, path, keyword and message of each."""
        span = self._ctx.row(AgentSpanRow, agent_span_id)
        return self._ctx.storage.ask(Violations([span.id], instance_id=span.agent_instance_id))[span.id]

    def _answer(self, done: Done) -> AgentSpan:
        return resources.controlled(self._model(done.row), done.control)

    def _model(self, row: Any) -> AgentSpan:
        return resources.span(row, self._ctx.account, self._ctx.purposes_of([row])[row.agent_instance_id])


class AgentInstances:
    """Operations on instances (runs). Ids that name nothing raise NotFound; ids of another type, UnexpectedRefType."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

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

        Args:
            agent_id: an agent's PFID, or a name of one's own (its external_identifier), made when missing.
            environment_id: taken for the clients' sake; a file has one environment.
            agent_version: `external_identifier`, `name`, `description`, `runtime_environment`.
            agent_schema_version: `span_type_schemas`, a list of objects with name, title, params_schema,
                result_schema and template; or `span_schemas` and `span_result_schemas`, JSON Schemas by name; and
                `quality_schemas`, a list of objects with name, schema, title and template, and `quality_schema`, the
                one without a name. The built-in and
                registered span types of this process when left out.
            id: a PFID of one's own; minted when left out.
            idempotency_key: at most 64 characters; the same request again returns the instance as it is now.
            update_current_version: give a known version its new name and description.
            purpose: `live` when left out, `smoke_test` or `eval`.
            metadata: what the run is given, a JSON object.
            external_identifier: a name of one's own for the instance, unique among its agent's.
            session: the conversation that the run belongs to: a name of one's own.
            user: the person that it runs for: a name of one's own.
            task: what it has to do: a name of one's own. Session, user, task and tags that are left out are taken from
                metadata, where members with these names are texts, or a list of texts.
            tags: words by which runs are found, at most 100.

        Raises:
            InvalidValue: a value is wrong.
            IdempotencyKeyAlreadyUsed: the key was used for another request.
        """
        done = agent_instances.register(
            self._ctx,
            agent_id=agent_id,
            agent_version=agent_version,
            agent_schema_version=agent_schema_version,
            id=id,
            idempotency_key=idempotency_key,
            update_current_version=update_current_version,
            purpose=purpose,
            metadata=metadata,
            external_identifier=external_identifier,
            session=session,
            user=user,
            task=task,
            tags=tags,
        )
        version = self._ctx.row(AgentSchemaVersionRow, done.row.agent_schema_version_id)  # type: ignore[union-attr]
        return resources.registered(self._answer(done), resources.schema_version(version, self._ctx.account))

    def start(
        self, agent_instance_id: str, timestamp: Time | None = None, idempotency_key: str | None = None
    ) -> AgentInstance:
        """Start a pending instance, now or at `timestamp`.

        Raises:
            InvalidAction: it is not pending.
        """
        done = agent_instances.start(self._ctx, agent_instance_id, timestamp=timestamp, idempotency_key=idempotency_key)
        return self._answer(done)

    def finish(
        self,
        agent_instance_id: str,
        status: FinishStatus | None = None,
        timestamp: Time | None = None,
        idempotency_key: str | None = None,
    ) -> AgentInstance:
        """Finish an instance by the rules of a span's finish. Its spans do not change.

        Raises:
            InvalidAction: the instance is not in a status that this one follows; it is untouched.
            InvalidValue: a value is wrong, such as a timestamp too early.
            IdempotencyKeyAlreadyUsed: the key was used for another request.
        """
        done = agent_instances.finish(
            self._ctx, agent_instance_id, status=status, timestamp=timestamp, idempotency_key=idempotency_key
        )
        return self._answer(done)

    def terminate(self, agent_instance_id: str, reason: str, idempotency_key: str | None = None) -> AgentInstance:
        """Terminate an active instance, for good, and close its open spans: active ones failed, pending ones cancelled.

        Args:
            agent_instance_id: the run.
            reason: why, for people; it stands on the instance and in the errors of the spans.
            idempotency_key: at most 64 characters; the same request again succeeds again.

        Raises:
            InvalidAction: the instance is not active; nothing is touched.
        """
        done = agent_instances.terminate(self._ctx, agent_instance_id, reason, idempotency_key=idempotency_key)
        own_journals.terminated(done.row.id, reason)
        return self._answer(done)

    def record_quality(
        self,
        agent_instance_id: str,
        name: str,
        payload: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> AgentInstance:
        """Record an evaluation of a run in any status: set one named quality payload; others stay. It adds scores, too.

        Args:
            agent_instance_id: the run.
            name: of the evaluation; a quality schema of this name that the run was registered with checks the payload.
            payload: the evaluation, a JSON object; None removes the one of this name.
            idempotency_key: at most 64 characters; the same request again succeeds again.

        Raises:
            ValidationErrors: strict_schemas, and the payload does not match.
        """
        done = quality.record(self._ctx, agent_instance_id, name, payload, idempotency_key=idempotency_key)
        return self._answer(done)

    def update(
        self, agent_instance_id: str, *, idempotency_key: str | None = None, **fields: Unpack[InstanceFields]
    ) -> AgentInstance:
        """Change what a run says of itself, or replace its evaluation without a name, in any status of the run.

        Args:
            agent_instance_id: the run.
            idempotency_key: at most 64 characters; the same request again succeeds again.
            fields: what is left out stays, None removes it. `session`, `user`, `task`; `tags`, all of them; `metadata`,
                as a whole: its members with the names of the others are those, where they are left out.
                `quality_payload`, as a whole, needs no schema; with the `quality_schema` that the run was registered
                with it is summed up in `quality_summary`.

        Raises:
            RequiredValue: nothing is to be changed.
            InvalidValue: a value is wrong.
            ValidationErrors: strict_schemas, and the evaluation does not match.
        """
        given = cast(dict[str, Any], fields)
        done = instance_updates.update(self._ctx, agent_instance_id, given, idempotency_key=idempotency_key)
        return self._answer(done)

    def agent_context(self, agent_instance_id: str) -> dict[str, Any]:
        """Return a run as plain JSON: `instance`, `agent`, `schema`, and all `spans` in order."""
        return agent_instances.agent_context(self._ctx, agent_instance_id)

    def get(self, agent_instance_id: str) -> AgentInstance:
        """Return an instance, with the counts of its spans."""
        return self._model(self._ctx.row(AgentInstanceRow, agent_instance_id))

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
        """Return a page of instances, of all agents or of one; `sorting="-id"` for the newest first."""
        page = agent_instances.page(
            self._ctx,
            agent_id=agent_id,
            agent_version_id=agent_version_id,
            status=status,
            purpose=purpose,
            sorting=sorting,
            offset=offset,
            page_size=page_size,
        )
        return Page(self._models(*page.rows), pagination(page.counted(), offset, page_size))

    def _answer(self, done: Done) -> AgentInstance:
        return resources.controlled(self._model(done.row), done.control)

    def _model(self, row: Any) -> AgentInstance:
        return details_of(self._ctx.storage, row, self._ctx.account)

    def _models(self, *rows: Any) -> builtins.list[AgentInstance]:
        ids, account = [row.id for row in rows], self._ctx.account
        counts, said = self._ctx.storage.ask(Counts(ids)), said_of(self._ctx.storage, ids)
        return [resources.instance(row, account, counts[row.id]._asdict(), **said[row.id]._asdict()) for row in rows]
