"""The API's resources as pydantic models, made from rows: what operations by id return. Importing this costs 60 ms."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar, cast

from pydantic import AwareDatetime, BaseModel, PrivateAttr

from agentspan.model.agent_resources import (
    Agent,
    AgentSchemaVersion,
    AgentVersion,
    AvailableActions,
    InstanceCounts,
    Resource,
)
from agentspan.model.columns import values_of
from agentspan.model.rows import (
    AccountRow,
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentSpanRow,
    AgentVersionRow,
    ScoreRow,
)
from agentspan.model.schema_versions import UNNAMED
from agentspan.model.score_resources import Score, score
from agentspan.model.status import InstanceStatus, Purpose, SpanStatus


class Control(Resource):
    """A request to the program of an instance.

    Attributes:
        terminate: the instance was terminated; its program should stop.
        reason: why, as whoever terminated it said.
    """

    terminate: Literal[True] = True
    reason: str


class Answered(Resource):
    """A resource that is in the answer of a write. What the answer has beside it does not count for equality."""

    _control: Control | None = PrivateAttr(None)

    @property
    def control(self) -> Control | None:
        """The request to stop, in the answer of a write to a terminated instance; else None."""
        return self._control

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__


A = TypeVar("A", bound=Answered)


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
        payload: what went in (a JSON object).
        result_payload: what came out, any JSON; None until the span has finished.
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
    is_aggregate: bool
    sensitive_encoding: bool
    response_id: str | None
    cache_write_tokens: int | None

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
        metadata: what the run was given (a JSON object), or None.
        result: what it returned (a JSON object), or None.
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
        task: what it had to do, or None.
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


NO_MODEL = "unknown"
"""The name under which CostBreakdown counts the cost of spans that have no label."""


def span(row: AgentSpanRow, account: AccountRow, purpose: str, *, summary: bool = True) -> AgentSpan:
    """Make a span from its row and the purpose of its instance."""
    values = values_of(row)
    if not summary:
        values["summary"] = None
    size = byte_size(row)
    return AgentSpan(account_id=account.id, purpose=cast(Purpose, purpose), payload_byte_size_estimate=size, **values)


def byte_size(row: AgentSpanRow) -> int:
    """Return the size of a span's payloads in bytes."""
    payload, result = row.payload, row.result_payload or ""
    if payload.isascii() and result.isascii():
        return len(payload) + len(result)
    return _bytes_of(payload) + _bytes_of(result)


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def instance(
    row: AgentInstanceRow,
    account: AccountRow,
    counts: Mapping[str, int],
    *,
    tags: Sequence[str],
    scores: Sequence[ScoreRow],
    types: Mapping[str, int] | None = None,
    costs: Mapping[str, float] | None = None,
) -> AgentInstance:
    """Make an instance from its row, its tags, its scores and the counts of its spans by status, where asked by type.

    Args:
        costs: by model, in US dollars.
    """
    values = values_of(row)
    values["git_dirty"] = None if row.git_dirty is None else bool(row.git_dirty)
    if costs is not None:
        total = sum(costs.values()) if costs else None
        values["cost_breakdown"] = CostBreakdown(total_cost=total, by_model=dict(costs))
    for field, unnamed in (("quality_payloads", "quality_payload"), ("quality_summaries", "quality_summary")):
        values[field] = values[field] or {}
        values[unnamed] = values[field].pop(UNNAMED, None)
    return AgentInstance(
        account_id=account.id,
        environment_id=account.environment_id,
        agent_deployment_id=account.agent_deployment_id,
        span_counts=SpanCounts(**counts),
        tags=[*tags],
        scores=[score(row) for row in scores],
        span_schema_counts=None if types is None else dict(types),
        **values,
    )


def controlled(resource: A, reason: str | None) -> A:
    """Add the request to stop to the answer of a write, if its instance was terminated for this reason."""
    if reason is not None:
        resource._control = Control(reason=reason)
    return resource


def registered(resource: AgentInstance, version: AgentSchemaVersion) -> AgentInstance:
    """Add the schema version to the answer of a registration."""
    resource._schema_version = version
    return resource


def agent(
    row: AgentRow,
    account: AccountRow,
    *,
    actions: Mapping[str, bool] | None = None,
    counts: Mapping[str, int] | None = None,
) -> Agent:
    """Make an agent from its row, with what may be done with it and its instances by status where those were asked."""
    return Agent(
        account_id=account.id,
        available_actions=None if actions is None else AvailableActions(**actions),
        instance_counts=None if counts is None else InstanceCounts(**counts),
        **values_of(row),
    )


def agent_version(row: AgentVersionRow, account: AccountRow) -> AgentVersion:
    """Make an agent's version from its row."""
    return AgentVersion(account_id=account.id, **values_of(row))


def schema_version(row: AgentSchemaVersionRow, account: AccountRow) -> AgentSchemaVersion:
    """Make a schema version from its row."""
    values = values_of(row)
    schemas = {item["name"]: item for item in values["quality_schemas"] or []}
    unnamed = schemas.pop(UNNAMED, None)
    values["quality_schemas"] = [*schemas.values()]
    values["quality_schema"] = unnamed and {name: value for name, value in unnamed.items() if name != "name"}
    return AgentSchemaVersion(account_id=account.id, **values)


def plain(model: BaseModel) -> dict[str, Any]:
    """Return a resource as plain JSON; payloads as they are, since pydantic refuses their lone surrogates."""
    kept = {name: value for name, value in model if isinstance(value, dict | list) or name == "result_payload"}
    dumped = model.model_dump(mode="json", exclude=set(kept))
    if isinstance(model, AgentInstance):
        kept["scores"] = [plain(each) for each in model.scores]
    return {name: kept.get(name, dumped.get(name)) for name in type(model).model_fields}
