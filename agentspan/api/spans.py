"""Operations on agent spans, and on the scores of runs and spans, by id.

All rules of the state machine are in model.spans; those of scores are in model.scores.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, cast

from agentspan import ids, jsontext
from agentspan.api import checks, envelopes, resources
from agentspan.api.checks import Json
from agentspan.api.context import Admitted, Context, Plan
from agentspan.api.envelopes import Envelope, score
from agentspan.api.operation import (
    ChangeRow,
    Check,
    GetRow,
    Keyable,
    Listing,
    Mark,
    Operation,
    OwnId,
    Route,
    Time,
    Write,
    filters,
)
from agentspan.api.resources import AgentSpan, Score
from agentspan.errors import InvalidValue, RequiredValue, UnexpectedRefType
from agentspan.model import columns, spans
from agentspan.model.changes import SPAN_STATUSES, Change, FinishStatus, Put, Ref, SpanStatus, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ResourceType, ScoreRow, Value, Violation
from agentspan.model.scores import MAX_EXPLANATION, MAX_NAME, Judgement, Source, counting, judgement, scored
from agentspan.schemas.span_types import check_name, describe, error_text, title_of
from agentspan.storage.access import check_unused, expect
from agentspan.storage.answers import Found
from agentspan.storage.questions import Find, Query, Violations
from agentspan.storage.row_by_row import history


def _type_name(field: str, name: Any) -> Any:
    check_name(name)
    return name


class SpanForCreate(Keyable):
    """The fields of a new span.

    Attributes:
        agent_instance_id: PFID of the instance that it belongs to.
        schema_name: the span type.
        status: the status to begin in.
        payload: the input of the step.
        result_payload: the output of the step, any JSON; only with a terminal status.
        id: a PFID of the client's own; minted when left out.
        parent_span_id: PFID of the span in which it happens.
        started_at: RFC 3339 with an offset; now when left out, not kept of a pending span.
        finished_at: RFC 3339 with an offset; only with a terminal status, now when left out.
        sensitive_encoding: whether values are marked as sensitive, as `{"$sensitive": "string", "labels": ["email"],
            "value": …}`; such values are not stored, with this or without, unless the server keeps them.
    """

    again: ClassVar[str] = "answers with the span as it is now"

    agent_instance_id: str
    schema_name: Annotated[str, Check(_type_name)]
    status: SpanStatus
    payload: Annotated[dict[str, Any], Check(checks.json_object)] = {}  # noqa: RUF012
    result_payload: Annotated[Any, Check(checks.json_value)] = None
    id: OwnId = None
    parent_span_id: str | None = None
    started_at: Time = None
    finished_at: Time = None
    sensitive_encoding: Mark = None


class CreateSpan(SpanForCreate, Write):
    """Create a span in any status.

    Attributes:
        details: the span.
    """

    route = Route("POST", "/agent_spans", "spans", AgentSpan)
    summary = "Create a span"
    envelope = "Controlled"
    action = "agent_spans/create"
    wraps = SpanForCreate
    shares = True
    first = ("schema_name", "id", "sensitive_encoding")
    defaults: ClassVar[Mapping[str, Any]] = {"payload": Json("{}", {})}

    def plan(self, ctx: Context) -> Plan:
        """Plan to create a span in any status."""
        sent = self.checked()
        key = self.key(sent)
        run_id, status, parent_id = sent["agent_instance_id"], sent["status"], sent.get("parent_span_id")
        text, plain, marks = ctx.admit(*sent["payload"])
        result_text, result, result_marks = _admitted(ctx, sent)
        if status == "failed" and "result_payload" not in sent:
            result_text, result = _error_in(text)
        schema_name = ctx.admit_text(sent["schema_name"])
        id = self.id
        span_id = id or ctx.ids.new()
        kept = ctx.kept(run_id) if parent_id is None or ids.is_pfid(parent_id) else None

        def decide(found: Found, now: str) -> Unit:
            instance = expect(found, AgentInstanceRow, run_id)
            refs: tuple[Ref, ...] = ()
            if parent_id is not None:
                refs = (Ref("agent_span", parent_id),)
            if found is kept:
                refs = (Ref("agent", instance.agent_id), *refs)
            else:
                ctx.stored_span_types.keep(instance)
                refs = tuple(
                    ref._replace(instance_id=expect(found, AgentSpanRow, ref.id).agent_instance_id) for ref in refs
                )
            check_unused(found, id)
            start, finish = sent.get("started_at"), sent.get("finished_at")
            times = spans.create_times(status, start, finish, has_result=result is not None, now=now)
            span_type = ctx.registry_of(instance.id).resolve(schema_name)
            meaning = describe(span_type, schema_name, status, plain, result, times.duration_ms)
            ctx.check_strict(meaning.violations, schema_name)
            put = spans.created(
                span_id,
                instance.agent_id,
                instance.id,
                parent_span_id=parent_id,
                schema_name=schema_name,
                schema_title=title_of(span_type, schema_name),
                status=status,
                payload=text,
                result_payload=result_text,
                times=times,
                meaning=meaning,
                now=now,
                minted=id is None,
                refs=refs,
                sensitive_encoding=int(bool(sent.get("sensitive_encoding") or marks or result_marks)),
            )
            return Unit((put,), span_id, key)

        return Plan((run_id, parent_id, id), key, decide, kept)


def _admitted(ctx: Context, sent: Mapping[str, Any]) -> Admitted | tuple[None, None, int]:
    result = sent.get("result_payload")
    return (None, None, 0) if result is None else ctx.admit(*result)


def _error_in(payload: str) -> tuple[str | None, Any]:
    """Return the error in a failed span's payload as a result, as JSON text and parsed; None, None without an error.

    The API's TypeScript SDK sends errors in the payload, and no result. All readers look for errors in results.
    """
    if '"error"' not in payload:
        return None, None
    result = {"error": jsontext.decode(payload).get("error")}
    return (jsontext.text_of(result), result) if error_text(result) else (None, None)


class Start(ChangeRow):
    """Start a pending span or instance.

    Attributes:
        timestamp: when it started, RFC 3339 with an offset; now when left out.
    """

    body_name = "Start"
    may_wrap = may_be_empty = True

    timestamp: Time = None


class StartSpan(Start):
    """Start a span."""

    route = Route("POST", "/agent_spans/{agent_span_id}/start", "spans", AgentSpan)
    envelope = "Controlled"
    action = "agent_spans/start"
    row_type = AgentSpanRow
    shares = True

    agent_span_id: str

    def decide(self, ctx: Context, row: AgentSpanRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Start a pending span."""
        times = spans.start(row, sent.get("timestamp"), now)
        span_type = ctx.registry_of(row.agent_instance_id).resolve(row.schema_name)
        payload = columns.read_payload(row.payload)[0]
        meaning = describe(span_type, row.schema_name, "active", payload, None, None, check=(False, False))
        started_at, run_id = cast(str, times.started_at), row.agent_instance_id
        return [spans.started(row.id, started_at=started_at, meaning=meaning, now=now, instance_id=run_id)]


class FinishSpan(ChangeRow):
    """Finish a span.

    Attributes:
        status: terminal status: `complete` (when left out) or `failed`, of an active span; `cancelled`, of a pending
            one, whose times are then both set to the timestamp.
        result_payload: the output of the step, any JSON.
        timestamp: when it finished, RFC 3339 with an offset; now when left out.
        sensitive_encoding: whether values of the result are marked as sensitive (see the creation of a span).
    """

    route = Route("POST", "/agent_spans/{agent_span_id}/finish", "spans", AgentSpan)
    envelope = "Controlled"
    action = "agent_spans/finish"
    row_type = AgentSpanRow
    shares = True
    may_wrap = may_be_empty = True
    first = ("timestamp", "sensitive_encoding")
    defaults: ClassVar[Mapping[str, Any]] = {"status": "complete"}

    agent_span_id: str
    status: FinishStatus | None = None
    result_payload: Annotated[Any, Check(checks.json_value)] = None
    timestamp: Time = None
    sensitive_encoding: Mark = None

    def decide(self, ctx: Context, row: AgentSpanRow, sent: Mapping[str, Any], now: str) -> Sequence[Change]:
        """Finish a span."""
        status = sent["status"]
        text, result, marks = _admitted(ctx, sent)
        times = spans.finish(row, status, sent.get("timestamp"), now)
        span_type = ctx.registry_of(row.agent_instance_id).resolve(row.schema_name)
        payload = columns.read_payload(row.payload)[0]
        meaning = describe(span_type, row.schema_name, status, payload, result, times.duration_ms, check=(False, True))
        ctx.check_strict(meaning.violations, row.schema_name)
        move = spans.finished(row.id, status, text, times, meaning, now, row.agent_instance_id)
        if spans.is_guess(row) and row.status == "cancelled":
            move = spans.also_started(move, times.started_at)
        if marks or sent.get("sensitive_encoding"):
            move = spans.with_sensitive(move)
        return [move]


class GetSpan(GetRow):
    """Get a span."""

    route = Route("GET", "/agent_spans/{agent_span_id}", "spans", AgentSpan)

    row_type = AgentSpanRow

    agent_span_id: str


class ListViolations(Operation):
    """List the places where a span's payloads do not match their schemas."""

    route = Route("GET", "/agent_spans/{agent_span_id}/violations", "spans", resources.Violation)
    envelope = "Many"

    agent_span_id: str

    def found(self, ctx: Context) -> list[Violation]:
        """Return the violations."""
        span = ctx.row(AgentSpanRow, self.agent_span_id)
        return ctx.storage.ask(Violations([span.id], instance_id=span.agent_instance_id))[span.id]

    def __call__(self, ctx: Context) -> Envelope:
        """Return the envelope of the violations."""
        return envelopes.of_all([violation._asdict() for violation in self.found(ctx)])


class ListSpans(Listing):
    """List the spans of an instance, or of an agent."""

    route = Route("GET", "/agent_spans", "spans", AgentSpan)
    sortable = frozenset({"id", "inserted_at", "updated_at", "started_at", "finished_at", "schema_name", "status"})
    statuses = SPAN_STATUSES
    ignored = ("include_risk_level",)

    agent_instance_id: str | None = None
    agent_id: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    status: str | None = None
    schema_name: str | None = None
    environment_id: str | None = None
    include_summaries: bool = False
    include_risk_level: bool = False

    @classmethod
    def of_json(cls, sent: Mapping[str, Any]) -> Self:
        """Return the operation of a request. `include_summaries` may be the text `true` or `false`."""
        summaries = checks.flag("include_summaries", sent.get("include_summaries"))
        made = super().of_json(sent)
        made.include_summaries = summaries
        return made

    def query(self, ctx: Context) -> Query:
        """Return a query for the spans of an instance or of an agent."""
        if self.agent_instance_id is None and self.agent_id is None:
            raise RequiredValue("agent_instance_id", "is required where agent_id is not given")
        where: dict[str, Value] = {}
        if self.agent_instance_id is not None:
            where["agent_instance_id"] = ctx.row(AgentInstanceRow, self.agent_instance_id).id
        where |= ctx.where_agent(self.agent_id)
        ctx.check_environment(self.environment_id)
        where |= filters(
            status=checks.one_of("status", self.status, SPAN_STATUSES),
            schema_name=checks.text("schema_name", self.schema_name),
        )
        return Query(
            "agent_span",
            where,
            checks.timestamp("start_time", self.start_time),
            checks.timestamp("end_time", self.end_time),
        )


Target = AgentInstanceRow | AgentSpanRow
Word = Annotated[str | None, Check(None, {"max_length": MAX_NAME})]


class RecordScore(Write):
    """Judge an instance or a span, in any status. The newest score of a name counts; those before it are kept.

    Other fields are refused.

    Attributes:
        name: the name of the score, such as `reward`.
        value: the number; true is 1, false is 0.
        label: the word.
        explanation: why.
        source: who judged; `code` when left out.
        identifier: the judge, where several judge the same: of each the newest score counts.
        withdraw: take back the scores of this name and identifier; without value, label and explanation.
    """

    action = "scores/record"
    body_name = "RecordScore"
    others: ClassVar[Literal["ignore", "allow", "forbid"]] = "forbid"
    again = "answers with the same score"
    target_type: ClassVar[type[Target] | None] = None
    """The type that the id must name; None for either."""
    target: ClassVar[str]
    """The name of the field with the id of the judged run or span."""

    name: Annotated[str, Check(None, {"max_length": MAX_NAME})]
    value: bool | float | None = None
    label: Word = None
    explanation: Annotated[str | None, Check(None, {"max_length": MAX_EXPLANATION})] = None
    source: Source | None = None
    identifier: Word = None
    withdraw: bool | None = None

    @classmethod
    def of_json(cls, sent: Mapping[str, Any]) -> Self:
        """Return the operation of a request. Refuse unknown fields.

        If a judge in a wrong field, such as `by`, were ignored, the score would be one of another judge.

        Raises:
            InvalidValue: the request has an unknown field.
        """
        unknown = sent.keys() - {*cls.fields, "_type", "details"}
        if unknown:
            there = ", ".join(name for name in cls.fields if name not in cls.ids)
            raise InvalidValue(min(unknown), f"is no field of a score; there are {there}")
        return super().of_json(sent)

    def plan(self, ctx: Context) -> Plan:
        """Plan to add a score of a run or a span."""
        target_id = getattr(self, self.target)
        judged = judgement(
            self.name,
            self.value,
            label=self.label,
            explanation=self.explanation,
            source="code" if self.source is None else self.source,
            identifier=self.identifier,
            withdraw=checks.flag("withdraw", self.withdraw),
        )
        key = self.key({"target_id": target_id, **judged._asdict()})
        name, value, *texts, source, identifier = judged
        label, explanation, identifier = (text and ctx.admit_text(text) for text in (*texts, identifier))
        admitted = Judgement(ctx.admit_text(name), value, label, explanation, source, identifier)
        id = ctx.ids.new()

        def decide(found: Found, now: str) -> Unit:
            target = _target(found, self.target_type, target_id)
            refs: tuple[Ref, ...] = ()
            if isinstance(target, AgentSpanRow):
                refs = (Ref("agent_span", target.id, target.agent_instance_id),)
            return Unit((Put(scored(id, target, admitted, now), refs, minted=True),), id, key)

        return Plan((target_id,), key, decide)


class ScoreInstance(RecordScore):
    """Judge an instance."""

    route = Route("POST", "/agent_instance/{agent_instance_id}/scores", "scores", Score)
    target, target_type = "agent_instance_id", AgentInstanceRow

    agent_instance_id: str


class ScoreSpan(RecordScore):
    """Judge a span."""

    route = Route("POST", "/agent_spans/{agent_span_id}/scores", "scores", Score)
    target, target_type = "agent_span_id", AgentSpanRow

    agent_span_id: str


class ScoreTarget(RecordScore):
    """Judge a run or a span: Python's form."""

    target = "target_id"

    target_id: str


class ListScores(Operation):
    """List the scores of a run, without those of its spans, or of a span."""

    scans = True
    envelope = "Many"
    target_type: ClassVar[type[Target] | None] = None
    target: ClassVar[str]

    include_history: bool = False

    def rows(self, ctx: Context) -> list[ScoreRow]:
        """Return the rows of the scores that count; with `include_history`, of all scores."""
        target_id = getattr(self, self.target)
        found = ctx.storage.ask(Find(*([target_id] if isinstance(target_id, str) else [])))
        target = _target(found, self.target_type, target_id)
        run_id = target.agent_instance_id if isinstance(target, AgentSpanRow) else target.id
        rows = [row for row in history(ctx.storage, run_id) if row.target_id == target.id]
        return rows if self.include_history else counting(rows)

    def __call__(self, ctx: Context) -> Envelope:
        """Return the envelope of the scores."""
        return envelopes.of_all([envelopes.plain(score(row)) for row in self.rows(ctx)])


class ListInstanceScores(ListScores):
    """List the scores of an instance."""

    route = Route("GET", "/agent_instance/{agent_instance_id}/scores", "scores", Score)
    target, target_type = "agent_instance_id", AgentInstanceRow

    agent_instance_id: str


class ListSpanScores(ListScores):
    """List the scores of a span."""

    route = Route("GET", "/agent_spans/{agent_span_id}/scores", "scores", Score)
    target, target_type = "agent_span_id", AgentSpanRow

    agent_span_id: str


class ListTargetScores(ListScores):
    """List the scores of a run or a span: Python's form."""

    target = "target_id"

    target_id: str


def _target(found: Found, target_type: type[Target] | None, id: Any) -> Target:
    """Return the run or span of an id.

    Raises:
        NotFound: nothing has this id.
        UnexpectedRefType: the id names a resource of another type.
    """
    if target_type is not None:
        return expect(found, target_type, id)
    located = found.rows.get(id) if isinstance(id, str) else None
    if located is None or isinstance(located[1], AgentInstanceRow):
        return expect(found, AgentInstanceRow, id)
    if not isinstance(located[1], AgentSpanRow):
        type_: ResourceType = located[0]
        raise UnexpectedRefType(f"{id!r} is the id of an {type_.replace('_', ' ')}, not of a run or a span")
    return located[1]
