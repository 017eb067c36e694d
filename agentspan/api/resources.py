"""The API's resources as pydantic models, which operations by id return. Importing this module costs 60 ms."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar, overload

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PrivateAttr

from agentspan.model.changes import AgentStatus, InstanceStatus, Purpose, SpanStatus
from agentspan.model.scores import Source

T = TypeVar("T")
A = TypeVar("A", bound="Answered")


class Resource(BaseModel):
    """The base of all resources: they cannot be changed."""

    model_config = ConfigDict(frozen=True)


class Control(Resource):
    """A request to the program of an instance.

    Attributes:
        terminate: the instance was terminated; its program should stop.
        reason: why, as whoever terminated it said.
    """

    terminate: Literal[True] = True
    reason: str


class Answered(Resource):
    """A resource in the answer of a write. Two are equal if their fields are; `control` is not compared."""

    _control: Control | None = PrivateAttr(None)

    @property
    def control(self) -> Control | None:
        """The request to stop, in the answer of a write to a terminated instance; else None."""
        return self._control

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__


class AgentSpan(Answered):
    """One step of a run.

    Attributes:
        type: always "agent_span".
        id: PFID of the span.
        account_id: PFID of the file's account.
        agent_id: PFID of the agent.
        agent_instance_id: PFID of the instance (the run) that it belongs to.
        parent_span_id: PFID of the span in which it happened, or None.
        schema_name: the span type's name.
        schema_title: the span type's title, for people.
        status: pending, active, complete, failed or cancelled.
        payload: the input of the step (a JSON object).
        result_payload: the output of the step, any JSON; None until the span has finished.
        started_at: UTC; None while pending.
        finished_at: UTC; None while in progress.
        summary: one line for people; None when the span type has no template.
        inserted_at: when it was created, UTC.
        updated_at: when it last changed, UTC.
        duration_ms: milliseconds from start to finish; None while in progress.
        label: the model's or tool's name, where the type has one.
        input_tokens: tokens in, from the payloads.
        output_tokens: tokens out, from the payloads.
        cost_usd: cost in US dollars, from the payloads.
        writer_id: the process that recorded it; None when it was created by id.
        closed_by: who closed it for its program: "terminated", "abandoned", or None.
        closed_at: when that was, or None.
        ended_late: whether its own end came after that, and replaced status, result and times.
        is_aggregate: whether it sums up other spans: its tokens and cost repeat theirs, and sums leave them out.
        purpose: the instance's: live, smoke_test or eval.
        payload_byte_size_estimate: bytes of the payload and the result as JSON.
        risk_level: always None: a file has no risk levels.
        risk_score: always None.
        sensitive_encoding: whether values in it are marked as sensitive, or its client said so.
        response_id: the provider's id of a model's answer, or None.
        cache_write_tokens: how many input tokens were written to the provider's cache, or None.
        finish_reason: why the model stopped, in its provider's word, or None.
    """

    type: Literal["agent_span"] = "agent_span"
    id: str
    account_id: str
    agent_id: str
    agent_instance_id: str
    parent_span_id: str | None
    schema_name: str
    schema_title: str
    status: SpanStatus
    payload: dict[str, Any]
    result_payload: Any
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    summary: str | None
    inserted_at: AwareDatetime
    updated_at: AwareDatetime
    duration_ms: float | None
    label: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    writer_id: str | None
    closed_by: str | None
    closed_at: AwareDatetime | None
    ended_late: bool
    is_aggregate: bool = Field(examples=[False])
    sensitive_encoding: bool
    response_id: str | None = Field(examples=["chatcmpl-7x2mT9qLwZ"])
    cache_write_tokens: int | None = Field(examples=[0])
    finish_reason: str | None = Field(examples=["stop"])

    purpose: Purpose
    payload_byte_size_estimate: int
    risk_level: str | None = None
    risk_score: float | None = None


class CostBreakdown(Resource):
    """The cost of a run in US dollars, from the cost of its spans.

    Attributes:
        total_cost: the sum; None if no span has a cost.
        by_model: the sum of each model's spans, by the model's name (their label); `unknown` where they have none.
    """

    total_cost: float | None
    by_model: dict[str, float]


class SpanCounts(Resource):
    """The number of an instance's spans in each status."""

    total: int = 0
    pending: int = 0
    active: int = 0
    complete: int = 0
    failed: int = 0
    cancelled: int = 0
    finished: int = 0


class Score(Resource):
    """A judgement of a run or of a span.

    Attributes:
        type: always "score".
        id: PFID of the score.
        agent_instance_id: PFID of the run that is judged, or whose span is.
        target_type: the type of the judged resource: "agent_instance" or "agent_span".
        target_id: PFID of the run or span that is judged.
        name: the name of the score, such as `reward`; `mark` and `note` are names for people.
        value: the number, or None.
        label: the word, such as `good`, or None.
        source: who judged: "human", "model" or "code".
        identifier: the judge, where several judge the same, or None.
        inserted_at: when the score was recorded, UTC.
        explanation: why, or None.
    """

    type: Literal["score"] = "score"
    id: str
    agent_instance_id: str
    target_type: Literal["agent_instance", "agent_span"]
    target_id: str
    name: str
    value: float | None
    label: str | None
    source: Source
    identifier: str | None
    inserted_at: AwareDatetime
    explanation: str | None


class AgentInstance(Answered):
    """One run of an agent.

    Attributes:
        type: always "agent_instance".
        id: PFID of the instance.
        account_id: PFID of the file's account.
        agent_id: PFID of the agent.
        agent_version_id: PFID of the agent's version.
        agent_schema_version_id: PFID of the set of span types that it was registered with.
        environment_id: PFID of the file's one environment.
        agent_deployment_id: PFID of the file's one deployment.
        external_identifier: the client's own name for it, unique among the agent's instances, or None.
        status: as a span's, or terminated.
        purpose: live, smoke_test or eval.
        started_at: UTC; None while pending.
        finished_at: UTC; None while in progress.
        inserted_at: when it was registered, UTC.
        updated_at: when it last changed, UTC.
        termination_reason: why it was terminated, or None.
        span_counts: its spans by status.
        duration_ms: milliseconds from start to finish; None while in progress.
        metadata: the input of the run and facts about it (a JSON object), or None.
        result: the output of the run (a JSON object), or None.
        error: the error that ended it (`type`, `message`, `stacktrace`), or None.
        quality_payloads: evaluations of the run, by the name of their quality schema.
        quality_summaries: their summaries, for those whose quality schema has a template.
        quality_payload: the evaluation without a name, which is replaced as a whole, or None.
        quality_summary: its summary, if the instance was registered with a quality_schema that has a template, or None.
        writer_id: the process that recorded it; None when it was registered by id.
        closed_by: who closed it for its program: "terminated", "abandoned", or None.
        closed_at: when that was, or None.
        ended_late: whether its own end came after that, and replaced status, result and times.
        git_commit: the commit of the git checkout in which its program ran, or None.
        session: the conversation that it belongs to, or None.
        user: the person that it ran for, or None.
        task: the name of its task, or None.
        tags: words by which it is found, in the order of the alphabet.
        git_dirty: whether files of the checkout differed from git_commit; None where that is not known.
        scores: its scores that count, the oldest first; those of its spans are not among them.
        cost_breakdown: the cost of its spans; None in lists.
        span_schema_counts: its spans by type; None in lists.
        risk_score: always None: a file has no risk scores.
    """

    type: Literal["agent_instance"] = "agent_instance"
    id: str
    account_id: str
    agent_id: str
    agent_version_id: str
    agent_schema_version_id: str
    environment_id: str
    agent_deployment_id: str
    external_identifier: str | None
    status: InstanceStatus
    purpose: Purpose
    started_at: AwareDatetime | None
    finished_at: AwareDatetime | None
    inserted_at: AwareDatetime
    updated_at: AwareDatetime
    termination_reason: str | None
    span_counts: SpanCounts
    duration_ms: float | None
    metadata: dict[str, Any] | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    quality_payloads: dict[str, dict[str, Any]]
    quality_summaries: dict[str, str]
    quality_payload: dict[str, Any] | None
    quality_summary: str | None
    writer_id: str | None
    closed_by: str | None
    closed_at: AwareDatetime | None
    ended_late: bool
    git_commit: str | None
    session: str | None
    user: str | None
    task: str | None
    tags: list[str]
    git_dirty: bool | None
    scores: list[Score]
    cost_breakdown: CostBreakdown | None = None
    span_schema_counts: dict[str, int] | None = None
    risk_score: float | None = None

    _schema_version: "AgentSchemaVersion | None" = PrivateAttr(None)

    @property
    def agent_schema_version(self) -> "AgentSchemaVersion | None":
        """The schema version that it was registered with, in the answer of `register`; else None."""
        return self._schema_version


def controlled(resource: A, reason: str | None) -> A:
    """Add the request to stop to the answer of a write, with the reason; None adds no request."""
    if reason is not None:
        resource._control = Control(reason=reason)
    return resource


def registered(resource: AgentInstance, version: "AgentSchemaVersion") -> AgentInstance:
    """Add the schema version to the answer of a registration."""
    resource._schema_version = version
    return resource


class InstanceCounts(Resource):
    """The number of an agent's instances in each status."""

    total: int = 0
    pending: int = 0
    active: int = 0
    complete: int = 0
    failed: int = 0
    cancelled: int = 0
    terminated: int = 0
    finished: int = 0


class AvailableActions(Resource):
    """The operations on an agent that would succeed now: update, retire, reinstate, delete."""

    update: bool
    retire: bool
    reinstate: bool
    delete: bool


class Agent(Resource):
    """An agent: its name, status, and the counts of its runs.

    Attributes:
        type: always "agent".
        id: PFID of the agent.
        account_id: PFID of the file's account.
        external_identifier: the client's own name for it, unique in the file, or None.
        name: for people.
        description: for people, or None.
        status: pending until its first instance starts, then active; retired by retire.
        available_actions: the operations that its state allows now; None in lists, and of a deleted agent.
        instance_counts: its instances by status; likewise.
        inserted_at: when it was created, UTC.
        updated_at: when it last changed, UTC.
        owner_person_id: its owner in the service, as a client said, or None.
        team_id: its team there, likewise.
        risk_profile_id: its risk profile there, likewise.
    """

    type: Literal["agent"] = "agent"
    id: str
    account_id: str
    external_identifier: str | None
    name: str
    description: str | None
    status: AgentStatus
    available_actions: AvailableActions | None = None
    instance_counts: InstanceCounts | None = None
    inserted_at: AwareDatetime
    updated_at: AwareDatetime
    owner_person_id: str | None = None
    team_id: str | None = None
    risk_profile_id: str | None = None


class AgentVersion(Resource):
    """A version of an agent, as instances were registered with it.

    Attributes:
        type: always "agent_version".
        id: PFID of the version.
        account_id: PFID of the file's account.
        agent_id: PFID of the agent.
        external_identifier: the client's name for it, unique among the agent's versions.
        name: for people, or None.
        description: for people, or None.
        runtime_environment: the frameworks and the system that it ran with, as the client said, or None.
        inserted_at: when it was created, UTC.
        updated_at: when it last changed, UTC.
    """

    type: Literal["agent_version"] = "agent_version"
    id: str
    account_id: str
    agent_id: str
    external_identifier: str
    name: str | None
    description: str | None
    runtime_environment: dict[str, Any] | None
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class AgentSchemaVersion(Resource):
    """A set of span types that instances of an agent are registered with.

    Attributes:
        type: always "agent_schema_version".
        id: PFID of the schema version.
        account_id: PFID of the file's account.
        agent_id: PFID of the agent.
        external_identifier: the name it was first registered under, or None.
        content_hash: SHA-256 of its content, as hex: equal content is one version.
        span_type_schemas: the span types, each with name, title, params_schema, result_schema and template.
        quality_schemas: the quality schemas, each with name, schema, title and template.
        quality_schema: the one without a name, which quality_payload of instances follows, or None.
        inserted_at: when it was created, UTC.
        updated_at: when it last changed, UTC.
    """

    type: Literal["agent_schema_version"] = "agent_schema_version"
    id: str
    account_id: str
    agent_id: str
    external_identifier: str | None
    content_hash: str
    span_type_schemas: list[dict[str, Any]]
    quality_schemas: list[dict[str, Any]]
    quality_schema: dict[str, Any] | None
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class Pagination(BaseModel):
    """The position of a page in the whole list.

    Attributes:
        item_count: items in the whole list.
        item_start: the first item of this page, counted from one; 0 if the page has none.
        item_end: the last item of this page, counted from one; 0 if the page has none.
        page_count: pages in all.
        page_index: this page, counted from one; more than `page_count` beyond the end.
        page_offset: items before this page.
        page_size: items of a page.
        next_page_offset: the offset of the next page, or null.
        previous_page_offset: the offset of the page before, or null. Beyond the end, that of the last page.
    """

    model_config = ConfigDict(frozen=True)

    item_count: int
    item_start: int
    item_end: int
    page_count: int
    page_index: int
    page_offset: int
    page_size: int
    next_page_offset: int | None
    previous_page_offset: int | None


@dataclass(frozen=True, slots=True)
class Page(Sequence[T], Generic[T]):
    """A page of a list: a sequence of its items, with where it lies in the whole.

    Attributes:
        summaries: the items, as the API calls them.
        pagination: how many there are in all, and where the neighbouring pages begin.
    """

    summaries: list[T]
    pagination: Pagination

    def __len__(self) -> int:
        return len(self.summaries)

    def __iter__(self) -> Iterator[T]:
        return iter(self.summaries)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self.summaries[index]


def pagination(total: int, offset: int, page_size: int) -> Pagination:
    """Describe the page of `page_size` items that begins at `offset`."""
    end = min(offset + page_size, total) if offset < total else 0
    previous = max(offset - page_size, 0) if offset <= total else (max(total - 1, 0) // page_size) * page_size
    return Pagination(
        item_count=total,
        item_start=offset + 1 if end else 0,
        item_end=end,
        page_count=-(-total // page_size),
        page_index=offset // page_size + 1,
        page_offset=offset,
        page_size=page_size,
        next_page_offset=offset + page_size if offset + page_size < total else None,
        previous_page_offset=previous if offset > 0 else None,
    )


# The models below occur only in answers over HTTP.


class Violation(BaseModel):
    """A place where a payload does not match its schema.

    Attributes:
        side: in the payload, or in the result payload.
        path: where, as a JSON path.
        keyword: the keyword of the schema that the payload violates; `$unchecked` if the check could not be run.
        message: a description of the violation, without the value.
    """

    side: Literal["payload", "result_payload"]
    path: str
    keyword: str
    message: str


class Account(BaseModel):
    """The file itself.

    Attributes:
        type: always `account`.
        id: PFID of the account.
        name: always `local`.
        inserted_at: when the file was created, UTC.
        updated_at: the same.
    """

    type: Literal["account"]
    id: str
    name: str
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class Environment(BaseModel):
    """The one environment of a file.

    Attributes:
        type: always `environment`.
        id: PFID of the environment.
        account_id: PFID of the account.
        name: always `local`.
        inserted_at: when the file was created, UTC.
        updated_at: the same.
    """

    type: Literal["environment"]
    id: str
    account_id: str
    name: str
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class AgentDeployment(BaseModel):
    """The one deployment of a file, which all agents share.

    Attributes:
        type: always `agent_deployment`.
        id: PFID of the deployment.
        account_id: PFID of the account.
        agent_id: PFID of the agent that was asked for, or null.
        environment_id: PFID of the environment.
        current_version_id: always null: each run says its version.
        inserted_at: when the file was created, UTC.
        updated_at: the same.
    """

    type: Literal["agent_deployment"]
    id: str
    account_id: str
    agent_id: str | None
    environment_id: str
    current_version_id: str | None
    inserted_at: AwareDatetime
    updated_at: AwareDatetime


class Nothing(BaseModel):
    """A kind of resource that a file does not have; lists of it are empty.

    Attributes:
        id: PFID of the resource.
    """

    id: str


class Pfids(BaseModel):
    """Fresh ids.

    Attributes:
        pfids: the ids, in ascending order.
    """

    pfids: list[str]


class Pong(BaseModel):
    """The server is there, and the token is right.

    Attributes:
        account_id: PFID of the file's account.
    """

    account_id: str
