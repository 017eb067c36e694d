"""Operations on agent instances (runs). Registering a run creates its agent, version and schema version if missing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar

from agentspan import ids, jsontext
from agentspan.api import agents, checks, envelopes
from agentspan.api.agents import SchemaVersion
from agentspan.api.checks import inside
from agentspan.api.context import Admitted, Context, Plan
from agentspan.api.envelopes import Envelope, resource_of
from agentspan.api.operation import (
    CHANGES_NOTHING,
    ChangeRow,
    Check,
    Fields,
    GetRow,
    IdempotencyKey,
    Listing,
    Name,
    Operation,
    OwnId,
    Route,
    Tags,
    Time,
    Write,
    filters,
)
from agentspan.api.resources import AgentInstance
from agentspan.api.spans import Start
from agentspan.errors import InvalidValue, RequiredValue
from agentspan.journal.names import Closer
from agentspan.model import instances, registration, scores
from agentspan.model.changes import INSTANCE_STATUSES, PURPOSES, Change, FinishStatus, Move, Purpose, Put, Remove, Unit
from agentspan.model.registration import DEFAULT, MAX_TAGS, UNNAMED, Registration, VersionFields, check_purpose
from agentspan.model.rows import (
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentVersionRow,
    TagRow,
    Value,
)
from agentspan.model.scores import scored
from agentspan.schemas.span_types import SpanType, describe
from agentspan.storage.access import check_unused, each_span_of, expect, references, scan, unique
from agentspan.storage.answers import Found
from agentspan.storage.questions import Query
from agentspan.text import one_line

T = TypeVar("T")

TEXTS = ("session", "user", "task")
MAX_TAG = 200
"""The most characters of one tag."""


class About(NamedTuple):
    """The fields of a request that describe a run: session, user, task and tags, as fields or as members of metadata.

    Attributes:
        texts: the fields of TEXTS that the request has, by name.
        tags: all tags of the run, each once; None if the request has no tags.
    """

    texts: Mapping[str, str]
    tags: tuple[str, ...] | None

    @property
    def hashed_fields(self) -> dict[str, Any]:
        """The values for the hash of an idempotency key."""
        return {**self.texts, **({} if self.tags is None else {"tags": [*self.tags]})}

    def admitted(self, ctx: Context) -> dict[str, Any]:
        """Return the fields without credentials, as arguments of a Registration."""
        texts: dict[str, Any] = {name: ctx.admit_text(text) for name, text in self.texts.items()}
        return {**texts, "tags": tuple(dict.fromkeys(map(ctx.admit_text, self.tags or ())))}


def about_in(fields: Mapping[str, Any], tags: Any, metadata: Mapping[str, Any] | None) -> About:
    """Check the fields of a request that describe a run, and return them.

    Args:
        fields: the fields of TEXTS by name; None for a field that is left out.
        tags: a list of texts; None if it is left out.
        metadata: the metadata of the run. If a field is left out, a member with its name and its type takes its place.

    Raises:
        InvalidValue: a field is no text, or tags are not a list of up to MAX_TAGS texts of up to MAX_TAG characters.
    """
    texts = {name: checks.text(name, fields.get(name)) or None for name in TEXTS}
    for name in TEXTS:
        if texts[name] is None:
            texts[name] = _member(metadata, name, checks.text) or None
    checked = _tags("tags", tags) if tags is not None else _member(metadata, "tags", _tags)
    return About({name: text for name, text in texts.items() if text is not None}, checked)


def _tags(field: str, tags: Any) -> tuple[str, ...]:
    if not isinstance(tags, list | tuple) or len(tags) > MAX_TAGS:
        raise InvalidValue(field, f"must be a list of at most {MAX_TAGS} texts")
    checked = [checks.text(field, tag) or "" for tag in tags]
    if any(not 0 < len(tag) <= MAX_TAG for tag in checked):
        raise InvalidValue(field, f"must be texts of 1 to {MAX_TAG} characters")
    return tuple(dict.fromkeys(checked))


def _member(metadata: Mapping[str, Any] | None, name: str, check: Callable[[str, Any], T]) -> T | None:
    """Return a member of metadata, checked; None if there is none, or if it has another meaning there."""
    member = None if metadata is None else metadata.get(name)
    try:
        return None if member is None else check(name, member)
    except InvalidValue:
        return None


class VersionForRegister(Fields):
    """The version of an agent that an instance is of.

    Attributes:
        external_identifier: the client's name for it; `name`, else "default", when left out.
        name: for people.
        description: for people.
        runtime_environment: the frameworks and the system that it runs with; kept as it is.
    """

    external_identifier: str | None = None
    name: str | None = None
    description: str | None = None
    runtime_environment: dict[str, Any] | None = None


class RegisterInstance(Write):
    """Register an instance; its agent, version and schema version are made when they are new.

    Attributes:
        agent_id: PFID of an agent, or a name (external_identifier), made when missing; "default" when left out.
        environment_id: taken, and not looked at: a file has one environment.
        agent_version: the version of the agent.
        agent_schema_version: the span types and quality schemas.
        id: a PFID of the client's own; minted when left out.
        external_identifier: the client's own name for the instance, unique among its agent's.
        update_current_version: give a known version its new name and description.
        purpose: why the instance runs.
        metadata: the input of the run and facts about it.
        session: the conversation that the run belongs to.
        user: the person that it runs for.
        task: the name of the run's task. If session, user, task or tags are left out, members of metadata set them.
        tags: words by which runs are found.
    """

    route = Route("POST", "/agent_instance/register", "instances", AgentInstance)
    summary = "Register an instance"
    envelope = "Registered"
    action = "agent_instances/register"
    may_be_empty = True
    again = "answers with the instance as it is now"

    agent_id: str | None = None
    environment_id: str | None = None
    agent_version: VersionForRegister | None = None
    agent_schema_version: SchemaVersion | None = None
    id: OwnId = None
    external_identifier: str | None = None
    idempotency_key: IdempotencyKey = None
    update_current_version: bool | None = None
    purpose: Purpose | None = None
    metadata: dict[str, Any] | None = None
    session: str | None = None
    user: str | None = None
    task: str | None = None
    tags: Tags = None

    def plan(self, ctx: Context) -> Plan:
        """Plan to register an instance."""
        name = checks.text("agent_id", self.agent_id) or DEFAULT
        with inside("agent_version"):
            version = _version_fields(self.agent_version)
        with inside("agent_schema_version"):
            schema = agents.fields(ctx, self.agent_schema_version)
        purpose = PURPOSES[0] if self.purpose is None else self.purpose
        check_purpose(purpose)
        metadata = None if self.metadata is None else checks.json_object("metadata", self.metadata)
        own_id = checks.own_id("id", self.id)
        updates = checks.flag("update_current_version", self.update_current_version)
        request = {
            "agent_id": name,
            "agent_version": version._asdict(),
            "agent_schema_version": [schema.external_identifier, schema.content_hash],
            "id": own_id,
            "update_current_version": updates,
            "purpose": purpose,
            "metadata": metadata,
            "external_identifier": checks.text("external_identifier", self.external_identifier),
        }
        about = about_in({each: getattr(self, each) for each in TEXTS}, self.tags, metadata and metadata.plain)
        key = self.key({**request, **about.hashed_fields})  # keys from before these fields keep their hashes
        name = name if ids.is_pfid(name) else ctx.admit_text(name)
        version = version._replace(
            external_identifier=ctx.admit_text(version.external_identifier),
            name=version.name and ctx.admit_text(version.name),
            description=version.description and ctx.admit_text(version.description),
        )
        if version.runtime_environment is not None:
            runtime = ctx.admit(version.runtime_environment, jsontext.decode(version.runtime_environment))
            version = version._replace(runtime_environment=runtime.text)
        id, external = self.id, self.external_identifier
        wanted = Registration(
            id or ctx.ids.new(),
            name,
            version,
            schema,
            purpose,
            metadata and ctx.admit(*metadata).text,
            external,
            minted=id is None,
            update_version=updates,
            **about.admitted(ctx),
        )
        is_id = ids.is_pfid(name)

        def decide(found: Found, now: str) -> Unit:
            check_unused(found, id)
            agent = expect(found, AgentRow, name) if is_id else unique(ctx.storage, AgentRow, external_identifier=name)
            if agent is not None and external is not None:
                where: dict[str, Value] = {"agent_id": agent.id, "external_identifier": external}
                if ctx.storage.ask(Query("agent_instance", where, limit=1)).rows:
                    raise InvalidValue("external_identifier", "already names another instance of this agent")
            stored = references(ctx.storage, agent, version.external_identifier, schema.content_hash)
            return Unit(registration.register(wanted, stored, ctx.ids.new, now), wanted.id, key)

        return Plan((id, name if is_id else None), key, decide)

    def __call__(self, ctx: Context) -> Envelope:
        """Register the instance, and return its envelope with its schema version."""
        row = self.run(ctx).row
        assert isinstance(row, AgentInstanceRow)
        schema = envelopes.details(ctx, ctx.row(AgentSchemaVersionRow, row.agent_schema_version_id))
        return envelopes.of_row(ctx, row, agent_schema_version=schema)


def _version_fields(value: Any) -> VersionFields:
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise InvalidValue("agent_version", "must be an object")
    name, external = (
        checks.text("name", value.get("name")),
        checks.text("external_identifier", value.get("external_identifier")),
    )
    description = checks.text("description", value.get("description"))
    runtime = value.get("runtime_environment")
    runtime_text = None if runtime is None else checks.json_object("runtime_environment", runtime)[0]
    return VersionFields(external or name or DEFAULT, name, description, runtime_text)


class StartInstance(Start):
    """Start an instance."""

    route = Route("POST", "/agent_instance/{agent_instance_id}/start", "instances", AgentInstance)
    action = "agent_instances/start"
    row_type = AgentInstanceRow

    agent_instance_id: str

    def decide(self, ctx: Context, row: AgentInstanceRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Start a pending instance."""
        return [*instances.start(row, ctx.row(AgentRow, row.agent_id), sent.get("timestamp"), now)]


class FinishInstance(ChangeRow):
    """Finish an instance. Its spans are left alone.

    Attributes:
        status: `complete` (when left out) or `failed`, of an active one; `cancelled`, of a pending one.
        timestamp: when it finished, RFC 3339 with an offset; now when left out.
    """

    route = Route("POST", "/agent_instance/{agent_instance_id}/finish", "instances", AgentInstance)
    envelope = "Controlled"
    action = "agent_instances/finish"
    row_type = AgentInstanceRow
    may_wrap = may_be_empty = True
    defaults: ClassVar[Mapping[str, Any]] = {"status": "complete"}

    agent_instance_id: str
    status: FinishStatus | None = None
    timestamp: Time = None

    def decide(self, ctx: Context, row: AgentInstanceRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Finish an instance. If it is terminated, also close its open spans."""
        changes: list[Change] = [instances.finish(row, sent["status"], sent.get("timestamp"), now)]
        if row.status == "terminated":
            changes += _closed(ctx, row, row.termination_reason or "", now)
        return changes


class TerminateInstance(ChangeRow):
    """Terminate an instance, for good.

    Attributes:
        reason: why, for people; the instance's program receives it.
    """

    route = Route("POST", "/agent_instance/{agent_instance_id}/terminate", "instances", AgentInstance)
    summary = "Terminate an instance"
    action = "agent_instances/terminate"
    row_type = AgentInstanceRow
    body_name = "Terminate"

    agent_instance_id: str
    reason: Name

    def decide(self, ctx: Context, row: AgentInstanceRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Terminate an instance, and close its open spans, all at once."""
        reason = ctx.admit_text(sent["reason"])
        closed = _closed(ctx, row, reason, now)
        return [instances.terminate(row, reason, now), *closed]


def _closed(ctx: Context, row: AgentInstanceRow, reason: str, now: str) -> Sequence[Change]:
    return Closer(ctx.storage, ctx.stored_span_types).close_terminated(row.id, reason, now)


class RecordQuality(ChangeRow):
    """Record an evaluation of an instance.

    Attributes:
        name: the quality schema's name.
        payload: the evaluation; null removes it.
    """

    route = Route("POST", "/agent_instance/{agent_instance_id}/record_quality", "instances", AgentInstance)
    action = "agent_instances/record_quality"
    row_type = AgentInstanceRow
    again = CHANGES_NOTHING
    must_be_declared: ClassVar[bool] = True
    """Refuse a name without a quality schema, as the API does."""

    agent_instance_id: str
    name: Name
    payload: Annotated[dict[str, Any] | None, Check(checks.json_object)] = None

    def decide(self, ctx: Context, row: AgentInstanceRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Set, or with None remove, a named quality payload of an instance."""
        if self.must_be_declared and _quality_type(ctx, row, self.name) is None:
            shown = one_line(self.name, 60)
            raise InvalidValue("name", f"the instance was registered without a quality schema called {shown!r}")
        admitted = ctx.admit(*sent["payload"]) if "payload" in sent else None
        return _quality_changes(ctx, row, self.name, admitted, now)


class RecordAnyQuality(RecordQuality):
    """Record an evaluation of an instance under any name: Python's form."""

    must_be_declared = False


class InstanceForUpdate(Fields):
    """Changes of an instance. A field that is left out stays; null removes its value. One field is required.

    Attributes:
        quality_payload: the evaluation without a name, as a whole.
        metadata: the input of the run and facts about it, as a whole. Its members session, user, task and tags set the
            fields of the same name that are left out.
        session: the conversation that the run belongs to.
        user: the person that it runs for.
        task: the name of the run's task.
        tags: words by which runs are found, all of them.
    """

    quality_payload: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    session: str | None = None
    user: str | None = None
    task: str | None = None
    tags: Tags = None


class UpdateInstance(InstanceForUpdate, Write):
    """Change an instance, in any status.

    Attributes:
        details: the fields to change, with their new values.
    """

    route = Route("PUT", "/agent_instance/{agent_instance_id}", "instances", AgentInstance)
    summary = "Change an instance, or replace its evaluation"
    action = "agent_instances/update"
    wraps = InstanceForUpdate
    again = CHANGES_NOTHING

    agent_instance_id: str

    def plan(self, ctx: Context) -> Plan:
        """Plan to change the fields that the request has; None removes the value of a field.

        Raises:
            RequiredValue: the request has no field to change.
        """
        sent_fields = {name: self.__dict__[name] for name in InstanceForUpdate.fields if name in self.__dict__}
        if not sent_fields:
            first, *others = InstanceForUpdate.fields
            raise RequiredValue(first, f"or one of {', '.join(others)} is required; null removes it")
        payloads = [name for name in ("quality_payload", "metadata") if name in sent_fields]
        sent: dict[str, Any] = {
            name: None if sent_fields[name] is None else checks.json_object(name, sent_fields[name])
            for name in payloads
        }
        metadata = sent.get("metadata")
        about = about_in(
            {name: sent_fields.get(name) for name in TEXTS}, sent_fields.get("tags"), metadata and metadata.plain
        )
        removed = [name for name, value in sent_fields.items() if value is None]
        request: dict[str, Any] = {"agent_instance_id": self.agent_instance_id, **about.hashed_fields, **sent}
        if removed and [*sent_fields] != [
            "quality_payload"
        ]:  # keys from before there were other fields keep their hashes
            request["removed"] = removed
        key = self.key(request)
        admitted = {name: None if each is None else ctx.admit(*each) for name, each in sent.items()}
        redacted = about.admitted(ctx)
        tags = () if "tags" in removed else redacted.pop("tags") if about.tags is not None else None

        def decide(found: Found, now: str) -> Unit:
            instance = expect(found, AgentInstanceRow, self.agent_instance_id)
            changes: list[Change] = []
            if "quality_payload" in admitted:
                changes += _quality_changes(ctx, instance, UNNAMED, admitted["quality_payload"], now)
            values: dict[str, Value] = {name: redacted.get(name) for name in TEXTS if name in about.texts}
            values |= {name: None for name in TEXTS if name in removed}
            if "metadata" in admitted:
                values["metadata"] = None if admitted["metadata"] is None else admitted["metadata"].text
            if values or not changes:
                changes.append(Move("agent_instance", instance.id, frozenset(), {**values, "updated_at": now}))
            if tags is not None:
                changes += _tagged(ctx, instance, tags, now)
            return Unit(tuple(changes), instance.id, key)

        return Plan((self.agent_instance_id,), key, decide, instance_id=self.agent_instance_id)


def _quality_changes(
    ctx: Context, instance: AgentInstanceRow, name: str, admitted: Admitted | None, now: str
) -> tuple[Change, ...]:
    """Return the changes that set, or with None remove, a quality payload, and add the scores that it holds.

    Raises:
        ValidationErrors: with strict_schemas, the payload does not match its schema.
    """
    payloads = jsontext.decode(instance.quality_payloads or "{}")
    summaries = jsontext.decode(instance.quality_summaries or "{}")
    before = _judgements(name, payloads.pop(name, None))
    summaries.pop(name, None)
    if admitted is not None:
        quality = _quality_type(ctx, instance, name)
        payloads[name] = jsontext.decode(admitted.text)
        if quality is not None:
            shown = name or "quality_schema"
            meaning = describe(quality, shown, instance.status, admitted.plain, None, None)
            ctx.check_strict(meaning.violations, shown)
            if meaning.summary is not None:
                summaries[name] = meaning.summary
    after = _judgements(name, payloads.get(name))
    gone = [scores.withdrawn(score) for score in before if score not in after]
    rows = [scored(ctx.ids.new(), instance, judged, now) for judged in (*after.values(), *gone)]
    texts = (jsontext.encode(payloads)[0], jsontext.encode(summaries)[0])
    return (instances.quality_recorded(instance, *texts, now), *(Put(row, minted=True) for row in rows))


def _judgements(name: str, payload: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if payload is None else scores.judgements(name, payload)


def _quality_type(ctx: Context, instance: AgentInstanceRow, name: str) -> SpanType | None:
    """Return the quality schema of a name that an instance was registered with; None if there is none."""
    version = ctx.row(AgentSchemaVersionRow, instance.agent_schema_version_id)
    for item in jsontext.decode(version.quality_schemas or "[]"):
        if item["name"] == name:
            shape = {"name": name, "params_schema": item.get("schema"), "template": item.get("template")}
            return SpanType(shape, trusted=True)
    return None


def _tagged(ctx: Context, instance: AgentInstanceRow, tags: tuple[str, ...], now: str) -> list[Change]:
    """Return the changes after which an instance has these tags and no others."""
    stored = {row.tag: row.id for row in scan(ctx.storage, TagRow, {"agent_instance_id": instance.id})}
    changes: list[Change] = [Remove("tag", id) for tag, id in stored.items() if tag not in tags]
    new = [TagRow(ctx.ids.new(), instance.id, tag, now) for tag in tags if tag not in stored]
    return [*changes, *(Put(row, minted=True) for row in new)]


class GetInstance(GetRow):
    """Get an instance."""

    route = Route("GET", "/agent_instance/{agent_instance_id}", "instances", AgentInstance)
    scans = True
    row_type = AgentInstanceRow

    agent_instance_id: str


class ShowInstance(Operation):
    """Show an instance."""

    route = Route("GET", "/agent_instance/show", "instances", AgentInstance)

    agent_instance_id: str | None = None
    include_counts: bool = False
    include_costs: bool = False

    def __call__(self, ctx: Context) -> Envelope:
        """Return the envelope of the instance."""
        if self.agent_instance_id is None:
            raise RequiredValue("agent_instance_id", "is required")
        return envelopes.of_row(ctx, ctx.row(AgentInstanceRow, self.agent_instance_id))


class GetAgentContext(Operation):
    """Get an instance with everything that belongs to it."""

    route = Route("GET", "/agent_instance/{agent_instance_id}/agent_context", "instances")
    envelope = "AgentContext"

    agent_instance_id: str

    def parts(self, ctx: Context) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
        """Return the parts other than spans, and an iterator of the spans that keeps a few in memory at a time."""
        instance = ctx.row(AgentInstanceRow, self.agent_instance_id)
        agent = ctx.row(AgentRow, instance.agent_id)
        schema = ctx.row(AgentSchemaVersionRow, instance.agent_schema_version_id)
        context = {
            "instance": envelopes.plain(resource_of(ctx, instance)),
            "agent": envelopes.plain(envelopes.agent(agent, ctx.account)),
            "schema": envelopes.plain(envelopes.schema_version(schema, ctx.account)),
        }
        rows = each_span_of(ctx.storage, instance.id)
        purpose, piece_bytes = instance.purpose, ctx.piece_bytes
        of_row = partial(envelopes.span, account_id=ctx.account.id, purpose=purpose, piece_bytes=piece_bytes)
        return context, map(of_row, rows)

    def __call__(self, ctx: Context) -> Envelope:
        """Return an instance as plain JSON: `instance`, `agent`, `schema`, and all `spans` in order."""
        context, spans = self.parts(ctx)
        return {**context, "spans": [*spans]}


class ListInstances(Listing):
    """List instances."""

    route = Route("GET", "/agent_instance", "instances", AgentInstance)
    sortable = frozenset({"id", "inserted_at", "updated_at", "started_at", "finished_at", "status"})
    statuses = INSTANCE_STATUSES
    ignored = ("include_counts", "include_costs", "include_risk_score")

    agent_id: str | None = None
    agent_version_id: str | None = None
    status: str | None = None
    purpose: str | None = None
    environment_id: str | None = None
    include_counts: bool = False
    include_costs: bool = False
    include_risk_score: bool = False

    def query(self, ctx: Context) -> Query:
        """Return a query for instances."""
        where = ctx.where_agent(self.agent_id)
        if self.agent_version_id is not None:
            where["agent_version_id"] = ctx.row(AgentVersionRow, self.agent_version_id).id
        ctx.check_environment(self.environment_id)
        where |= filters(
            status=checks.one_of("status", self.status, INSTANCE_STATUSES),
            purpose=checks.one_of("purpose", self.purpose, PURPOSES),
        )
        return Query("agent_instance", where)
