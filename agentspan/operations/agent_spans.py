"""Operations on agent spans, by id. Every rule of the state machine lies in model.spans.

Writes are plans, for `Context.carry_out`: those of several callers may be carried out together.
"""

from typing import Any, cast

from agentspan import ids, jsontext
from agentspan.errors import RequiredValue
from agentspan.model import sensitive, spans
from agentspan.model.changes import Ref, Unit
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSpanRow, Value
from agentspan.model.status import SPAN_STATUSES
from agentspan.operations import request
from agentspan.operations.context import Context, Plan
from agentspan.schemas.meaning import describe, error_text
from agentspan.schemas.span_types import check_name, title_of
from agentspan.storage.answers import Found, Rows
from agentspan.storage.lookup import check_unused, expect
from agentspan.storage.questions import Query

SORTABLE = frozenset({"id", "inserted_at", "updated_at", "started_at", "finished_at", "schema_name", "status"})


def plan_create(
    ctx: Context,
    *,
    agent_instance_id: Any,
    schema_name: Any,
    status: Any,
    payload: Any = None,
    result_payload: Any = None,
    id: Any = None,
    parent_span_id: Any = None,
    started_at: Any = None,
    finished_at: Any = None,
    sensitive_encoding: Any = None,
    idempotency_key: Any = None,
) -> Plan:
    """Plan to create a span in any status (see AgentSpans.create)."""
    for field, value in (
        ("agent_instance_id", agent_instance_id),
        ("schema_name", schema_name),
        ("status", status),
    ):
        if value is None:
            raise RequiredValue(field, "is required")
    check_name(schema_name)
    request.own_id("id", id)
    is_marked = sensitive_encoding is not None and request.flag("sensitive_encoding", sensitive_encoding)
    sent = request.json_object("payload", {} if payload is None else payload)
    sent_result = None if result_payload is None else request.json_value("result_payload", result_payload)
    start, finish = request.timestamp("started_at", started_at), request.timestamp("finished_at", finished_at)
    said = {
        "agent_instance_id": agent_instance_id,
        "schema_name": schema_name,
        "status": status,
        "payload": sent[1],
        "result_payload": sent_result and sent_result[1],
        "id": id,
        "parent_span_id": parent_span_id,
        "started_at": start,
        "finished_at": finish,
        "sensitive_encoding": is_marked or None,
    }
    key = request.idempotency_key("agent_spans/create", idempotency_key, said)
    text, plain, marks = ctx.admit(*sent)
    result_text, result, result_marks = (None, None, 0) if sent_result is None else ctx.admit(*sent_result)
    if sent_result is None and status == "failed":
        result_text, result = _error_in(text)
    schema_name = ctx.admit_text(schema_name)
    span_id = id or ctx.ids.new()
    kept = ctx.kept(agent_instance_id) if parent_span_id is None or ids.is_pfid(parent_span_id) else None

    def decide(found: Found, now: str) -> Unit:
        instance = expect(found, AgentInstanceRow, agent_instance_id)
        refs: tuple[Ref, ...] = ()
        if parent_span_id is not None:
            refs = (Ref("agent_span", parent_span_id),)
        if found is kept:
            refs = (Ref("agent", instance.agent_id), *refs)
        else:
            ctx.keep(instance)
            refs = tuple(
                ref._replace(instance_id=expect(found, AgentSpanRow, ref.id).agent_instance_id) for ref in refs
            )
        check_unused(found, id)
        times = spans.create_times(status, start, finish, has_result=result is not None, now=now)
        span_type = ctx.registry_of(instance.id).resolve(schema_name)
        meaning = describe(span_type, schema_name, status, plain, result, times.duration_ms)
        ctx.check_strict(meaning.violations, schema_name)
        put = spans.created(
            span_id,
            instance.agent_id,
            instance.id,
            parent_span_id=parent_span_id,
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
            sensitive_encoding=int(is_marked or marks or result_marks),
        )
        return Unit((put,), span_id, key)

    return Plan((agent_instance_id, parent_span_id, id), key, decide, kept)


def _error_in(payload: str) -> tuple[str | None, Any]:
    """Return the error that a failed span has in its payload as a result, in both forms; None where there is none.

    The API's TypeScript SDK sends it there, and no result. All that reads errors looks for them in results.
    """
    if '"error"' not in payload:
        return None, None
    result = {"error": jsontext.decode(payload).get("error")}
    return (jsontext.text_of(result), result) if error_text(result) else (None, None)


def plan_start(ctx: Context, agent_span_id: Any, *, timestamp: Any = None, idempotency_key: Any = None) -> Plan:
    """Plan to start a pending span (see AgentSpans.start)."""
    at = request.timestamp("timestamp", timestamp)
    said = {"agent_span_id": agent_span_id, "timestamp": at}
    key = request.idempotency_key("agent_spans/start", idempotency_key, said)

    def decide(found: Found, now: str) -> Unit:
        span = expect(found, AgentSpanRow, agent_span_id)
        times = spans.start(span, at, now)
        span_type = ctx.registry_of(span.agent_instance_id).resolve(span.schema_name)
        payload = sensitive.read(span.payload)[0]
        meaning = describe(span_type, span.schema_name, "active", payload, None, None, check=(False, False))
        started_at, run_id = cast(str, times.started_at), span.agent_instance_id
        move = spans.started(span.id, started_at=started_at, meaning=meaning, now=now, instance_id=run_id)
        return Unit((move,), span.id, key)

    return Plan((agent_span_id,), key, decide)


def plan_finish(
    ctx: Context,
    agent_span_id: Any,
    *,
    status: Any = None,
    result_payload: Any = None,
    timestamp: Any = None,
    sensitive_encoding: Any = None,
    idempotency_key: Any = None,
) -> Plan:
    """Plan to finish a span (see AgentSpans.finish)."""
    wanted = "complete" if status is None else status
    at = request.timestamp("timestamp", timestamp)
    is_marked = sensitive_encoding is not None and request.flag("sensitive_encoding", sensitive_encoding)
    sent = None if result_payload is None else request.json_value("result_payload", result_payload)
    said = {
        "agent_span_id": agent_span_id,
        "status": wanted,
        "result_payload": None if sent is None else sent[1],
        "timestamp": at,
        "sensitive_encoding": is_marked or None,
    }
    key = request.idempotency_key("agent_spans/finish", idempotency_key, said)
    text, result, marks = (None, None, 0) if sent is None else ctx.admit(*sent)

    def decide(found: Found, now: str) -> Unit:
        span = expect(found, AgentSpanRow, agent_span_id)
        times = spans.finish(span, wanted, at, now)
        span_type = ctx.registry_of(span.agent_instance_id).resolve(span.schema_name)
        payload = sensitive.read(span.payload)[0]
        meaning = describe(span_type, span.schema_name, wanted, payload, result, times.duration_ms, check=(False, True))
        ctx.check_strict(meaning.violations, span.schema_name)
        move = spans.finished(span.id, wanted, text, times, meaning, now, span.agent_instance_id)
        if spans.is_guess(span) and span.status == "cancelled":
            move = spans.also_started(move, times.started_at)
        if is_marked or marks:
            move = spans.with_sensitive(move)
        return Unit((move,), span.id, key)

    return Plan((agent_span_id,), key, decide)


def page(
    ctx: Context,
    *,
    agent_instance_id: Any = None,
    agent_id: Any = None,
    start_time: Any = None,
    end_time: Any = None,
    status: Any = None,
    schema_name: Any = None,
    environment_id: Any = None,
    sorting: Any = None,
    offset: int = 0,
    page_size: int = 50,
) -> Rows:
    """Return a page of an instance's or an agent's spans (see AgentSpans.list)."""
    if agent_instance_id is None and agent_id is None:
        raise RequiredValue("agent_instance_id", "is required where agent_id is not given")
    where: dict[str, Value] = {}
    if agent_instance_id is not None:
        where["agent_instance_id"] = ctx.row(AgentInstanceRow, agent_instance_id).id
    if agent_id is not None:
        where["agent_id"] = ctx.row(AgentRow, agent_id).id
    ctx.check_environment(environment_id)
    filters = {
        "status": request.one_of("status", status, SPAN_STATUSES),
        "schema_name": request.text("schema_name", schema_name),
    }
    query = Query(
        "agent_span",
        where | {column: value for column, value in filters.items() if value is not None},
        request.timestamp("start_time", start_time),
        request.timestamp("end_time", end_time),
    )
    return ctx.storage.ask(
        request.page(query, sorting, offset, page_size, columns=SORTABLE, most_bytes=ctx.piece_bytes)
    )
