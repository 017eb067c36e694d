"""Transitions of a span: each operation becomes a Put or a Move, or is refused with the API's error.

Recording and operations by id both use `created`, `started` and `finished`, which only assemble. (journal.deriving
assembles new spans of a journal.) The rules for operations by id (timestamps, allowed transitions) are in
`create_times`, `start` and `finish`.
"""

from typing import Any, NamedTuple

from agentspan.clock import millis_between
from agentspan.errors import InvalidAction, InvalidValue
from agentspan.model.changes import (
    CLOSERS,
    FINISH_STATUSES,
    LEAVES,
    OPEN,
    REPLACED,
    SPAN_STATUSES,
    Move,
    Over,
    Put,
    Ref,
)
from agentspan.model.rows import AT_END, OF_PAYLOAD, AgentInstanceRow, AgentSpanRow, Meaning, Value

# A named tuple's own constructor wraps this one in a Python function: 0.25 µs instead of 0.1, nine times a span.
_new = tuple.__new__
_NOTHING: dict[str, Value] = {}
LEAVES_CANCELLED = frozenset({"cancelled"})
_LATE = {status: (Over(leaves, {"ended_late": 1}, adds=True),) for status, leaves in REPLACED.items()}
"""The values that a late end sets over a close, by the status of the end. Made once, since most ends are not late
(0.4 µs)."""

CLOCK_SKEW_MS = 60_000
"""The most milliseconds that a client's finish may be before the start. Such a finish is stored as the start."""


FINISHED = ("status", "result_payload", "finished_at", "duration_ms", "updated_at", *AT_END)
"""The columns that the end of a span sets."""
_AT_END = len(OF_PAYLOAD)


class Times(NamedTuple):
    """The start, the finish and the duration of a span."""

    started_at: str | None
    finished_at: str | None = None
    duration_ms: float | None = None


def created(
    id: str,
    agent_id: str,
    agent_instance_id: str,
    parent_span_id: str | None,
    schema_name: str,
    schema_title: str,
    status: str,
    payload: str,
    result_payload: str | None,
    times: tuple[str | None, str | None, float | None],
    meaning: Meaning,
    now: str,
    writer_id: str | None = None,
    minted: bool = False,
    refs: tuple[Ref, ...] = (),
    sensitive_encoding: int = 0,
) -> Put:
    """Return the Put of a new span, whose values the caller has checked. Positional, because keywords cost 0.6 µs."""
    started_at, finished_at, duration_ms = times
    head = (
        id,
        agent_id,
        agent_instance_id,
        parent_span_id,
        schema_name,
        schema_title,
        status,
        payload,
        result_payload,
        started_at,
        finished_at,
        duration_ms,
        now,
        now,
        writer_id,
        None,  # closed_by, closed_at, ended_late
        None,
        None,
        sensitive_encoding,
    )
    return _new(Put, (_new(AgentSpanRow, head + meaning[:-1]), refs, meaning[-1], minted))


def started(
    id: str,
    *,
    started_at: str,
    meaning: Meaning,
    now: str,
    also_closed: bool = False,
    instance_id: str | None = None,
) -> Move:
    """Return the move of a span from pending to active.

    Args:
        also_closed: True if a span that was closed as cancelled becomes failed, because it did start. Recorders pass
            True; by id, such a start is refused.
    """
    values: dict[str, Value] = {
        "status": "active",
        "started_at": started_at,
        "summary": meaning.summary,
        "updated_at": now,
    }
    at = started_at  # the start is later than the close, so the close was not the end
    late: dict[str, Value] = {"status": "failed", "started_at": at, "finished_at": at, "updated_at": now}
    over = (Over(LEAVES_CANCELLED, late),) if also_closed else ()
    return Move("agent_span", id, LEAVES["active"], values, over=over, instance_id=instance_id)


def finished(
    id: str,
    status: str,
    result_payload: str | None,
    times: Times,
    meaning: Meaning,
    now: str,
    instance_id: str | None = None,
) -> Move:
    """Return the move of a span to a terminal status. Positional, because keywords are slower."""
    started_at, finished_at, duration_ms = times
    known: tuple[Any, ...] = (status, result_payload, finished_at, duration_ms, now)
    values: dict[str, Value] = dict(zip(FINISHED, known + meaning[_AT_END:-1]))  # noqa: B905  # strict=True: 0.1 µs
    if status == "cancelled":
        values["started_at"] = started_at
    return _new(Move, ("agent_span", id, LEAVES[status], values, meaning[-1], _NOTHING, _LATE[status], instance_id))


def finished_as(
    id: str,
    schema_name: str,
    schema_title: str,
    payload: str,
    status: str,
    result_payload: str | None,
    times: Times,
    meaning: Meaning,
    now: str,
    instance_id: str | None = None,
) -> Move:
    """Return the move to a terminal status of a span whose type and payload became known at its end, and are set, too.

    Only recording does this; operations by id change neither.
    """
    move = finished(id, status, result_payload, times, meaning, now, instance_id)
    learnt: dict[str, Value] = {
        "schema_name": schema_name,
        "schema_title": schema_title,
        "payload": payload,
        **{name: getattr(meaning, name) for name in OF_PAYLOAD},
    }
    return move._replace(set={**move.set, **learnt})


FINISHED_AS = tuple(finished_as("", "", "", "", "complete", None, Times(None), Meaning(), "").set)
"""The columns that an end sets if it also sets the type and the payload."""


def also_started(move: Move, started_at: str | None) -> Move:
    """Return a finish that also sets the start, for a span that was closed as cancelled before its start was stored."""
    over = move.over[0]
    return move._replace(over=(over._replace(set={**over.set, "started_at": started_at}),))


def with_sensitive(move: Move) -> Move:
    """Return a move that also sets `sensitive_encoding`, on an open span as well as over a close."""
    over = tuple(each._replace(set={**each.set, **_SENSITIVE}) for each in move.over)
    return move._replace(set={**move.set, **_SENSITIVE}, over=over)


_SENSITIVE: dict[str, Value] = {"sensitive_encoding": 1}


def closed(span: AgentSpanRow, by: str, *, result_payload: str, meaning: Meaning, at: str, now: str) -> Move:
    """Return the move that closes an open span for its program: an active one failed, a pending one cancelled.

    Args:
        by: `terminated` (its run was terminated) or `abandoned` (its program died).
        at: when the span ended, as far as is known.
        now: the time of the close.
    """
    status = "failed" if span.status == "active" else "cancelled"
    times = finish_times(span.started_at, status, None, at)
    result = result_payload if status == "failed" else None
    move = finished(span.id, status, result, times, meaning, now, span.agent_instance_id)
    return move._replace(set={**move.set, "closed_by": by, "closed_at": now}, over=())


def abandoned(id: str, result_payload: str, started_at: str, at: str, now: str, instance_id: str | None = None) -> Move:
    """Return the move that closes an active span whose instrumentor never ended it.

    The summary stays, because the caller does not have the payload to render it.

    Args:
        at: when the span ended, as far as is known.
        now: the time of the close.
    """
    times = finish_times(started_at, "failed", None, at)
    values: dict[str, Value] = {
        "status": "failed",
        "result_payload": result_payload,
        "finished_at": times.finished_at,
        "duration_ms": times.duration_ms,
        "updated_at": now,
        "closed_by": "abandoned",
        "closed_at": now,
    }
    return Move("agent_span", id, LEAVES["failed"], values, instance_id=instance_id)


def reported_again(
    id: str, schema_name: str, schema_title: str, payload: str, result_payload: str | None, meaning: Meaning, at: str
) -> Move:
    """Return the move that sets type and payloads of a finished span after another instrumentor reported its call, too.

    Only recording does this.

    Args:
        at: when the call ended, for `updated_at`. Not the current time: a move that is read again changes nothing.
    """
    move = finished_as(id, schema_name, schema_title, payload, "complete", result_payload, Times(None), meaning, at)
    values = {name: value for name, value in move.set.items() if name not in ("status", "finished_at", "duration_ms")}
    return Move("agent_span", id, frozenset(FINISH_STATUSES), values, meaning.violations)


def updated(id: str, *, payload: str, meaning: Meaning, now: str, instance_id: str | None = None) -> Move:
    """Return the move that changes the payload of an open span. Only recording does this; operations by id never do."""
    values: dict[str, Value] = {
        "payload": payload,
        "updated_at": now,
        **meaning.by_column(),
    }
    late: dict[str, Value] = {"payload": payload, "label": meaning.label, "updated_at": now}
    over = (Over(REPLACED["failed"], late),)
    return Move("agent_span", id, OPEN, values, meaning.violations, over=over, instance_id=instance_id)


UPDATED = tuple(updated("", payload="", meaning=Meaning(), now="").set)
"""The columns that a change of the payload sets."""


def create_times(status: str, started_at: str | None, finished_at: str | None, *, has_result: bool, now: str) -> Times:
    """Check the status and the timestamps of a span that is created by id, and return its times.

    Raises:
        InvalidValue: an unknown status; a finished_at or result_payload on a span that is not finished; a
            finished_at more than 60 s before started_at.
    """
    if status not in SPAN_STATUSES:
        raise InvalidValue("status", f"must be one of {', '.join(SPAN_STATUSES)}")
    if status in OPEN:
        if finished_at is not None:
            raise InvalidValue("finished_at", f"a span created as {status} has not finished; leave it out")
        if has_result:
            raise InvalidValue("result_payload", f"a span created as {status} has no result; leave it out")
        return Times(None if status == "pending" else started_at or now)
    if status == "cancelled":
        at = finished_at or started_at or now
        return Times(at, at, 0.0)
    started_at = started_at or min(now, finished_at or now)
    return _finish_times(started_at, finished_at or max(started_at, now), field="finished_at")


def start(span: AgentSpanRow, timestamp: str | None, now: str) -> Times:
    """Check that a span may start. Return the time of the start.

    Raises:
        InvalidAction: the span is not pending.
    """
    if span.status not in LEAVES["active"]:
        raise InvalidAction(f"agent span {span.id} is {span.status}: only a pending span can be started")
    return Times(timestamp or now)


def finish(span: AgentSpanRow, status: str, timestamp: str | None, now: str) -> Times:
    """Check that a span may finish with this status, and return its times. A span closed for its program may, too.

    Raises:
        InvalidAction: the status of the span does not allow this finish.
        InvalidValue: the status is not terminal, or the timestamp lies more than 60 s before started_at.
    """
    check_finish("agent span", span.id, span.status, status, closed=is_guess(span))
    was_started = not is_guess(span) or span.status == "failed"
    return finish_times(span.started_at if was_started else None, status, timestamp, now)


def is_guess(row: AgentSpanRow | AgentInstanceRow) -> bool:
    """Return whether a row was closed for its program and has not received its own end."""
    return row.closed_by in CLOSERS and not row.ended_late


def check_finish(noun: str, id: str, stored: str, status: str, *, closed: bool = False) -> None:
    """Check that a span or an instance may finish with this status.

    Args:
        closed: True if the stored status comes from a close, which an own end replaces.

    Raises:
        InvalidAction: the stored status does not allow this finish.
        InvalidValue: the status is not terminal.
    """
    if status not in FINISH_STATUSES:
        raise InvalidValue("status", f"must be one of {', '.join(FINISH_STATUSES)}")
    if closed and stored in REPLACED[status]:
        return
    if stored not in LEAVES[status]:
        need = "pending" if status == "cancelled" else "active"
        raise InvalidAction(
            f"{noun} {id} is {stored}: only {'a' if need == 'pending' else 'an'} {need} one can become {status}"
        )


def finish_times(started_at: str | None, status: str, timestamp: str | None, now: str) -> Times:
    """Return the times of a finish. Cancelled: start and finish are equal. Else the finish is not before the start.

    Raises:
        InvalidValue: the timestamp lies more than 60 s before started_at.
    """
    if status == "cancelled" or started_at is None:
        at = timestamp or now
        return Times(at, at, 0.0)
    return _finish_times(started_at, timestamp or max(started_at, now), field="timestamp")


def _finish_times(started_at: str, finished_at: str, *, field: str) -> Times:
    elapsed = millis_between(started_at, finished_at)
    if elapsed < -CLOCK_SKEW_MS:
        raise InvalidValue(field, f"lies more than {CLOCK_SKEW_MS // 1000} s before started_at ({started_at})")
    if elapsed < 0:
        return Times(started_at, started_at, 0.0)
    return Times(started_at, finished_at, elapsed)
