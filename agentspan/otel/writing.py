"""Writes runs as OTLP: a run is a trace, with a span for the run itself around those of its steps.

Attributes have the newest names of the GenAI conventions and the kinds of OpenInference. `agentspan.…` holds the rest:
`agentspan serve` makes the same rows of it, with the same ids (see copies). It was redacted when it was recorded.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from agentspan import __version__, jsontext
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ScoreRow
from agentspan.otel.identity import span_id_of, trace_id_of
from agentspan.otel.mapping import judgements, outgoing
from agentspan.otel.stored_rows import ns_of

SCOPE = "agentspan"
_ERROR, _OK, _UNSET = 2, 1, 0
_COLUMNS = ("schema_name", "schema_title", "status", "summary", "duration_ms", "cost_usd", "closed_by")


class OutgoingRun(NamedTuple):
    """A run, with the names of its agent and version, and its tags."""

    row: AgentInstanceRow
    agent: str
    version: str
    tags: Sequence[str] = ()


def request(
    run: OutgoingRun, spans: Iterable[AgentSpanRow], *, with_run: bool, scores: Iterable[ScoreRow] = ()
) -> dict[str, Any]:
    """Return an ExportTraceServiceRequest in JSON with finished spans of a run.

    Args:
        with_run: whether it has the span of the run, too; the run must have finished.
        scores: of the run and its spans; they are events of the span that each is about.
    """
    written = [_span(run, row) for row in spans]
    if with_run:
        written.append(_run_span(run))
    events: dict[str, list[dict[str, Any]]] = {}
    for score in scores:
        events.setdefault(span_id_of(score.target_id), []).append(_event(score))
    for span in written:
        if span["spanId"] in events:
            span["events"] = [*span.get("events", ()), *events[span["spanId"]]]
    resource = {"attributes": _attributes(_resource(run))}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": _scope(), "spans": written}]}]}


def log_request(run: OutgoingRun, scores: Iterable[ScoreRow]) -> dict[str, Any]:
    """Return an ExportLogsServiceRequest in JSON with scores of a run and its spans that were sent before.

    The conventions have an evaluation as a log record, too. A span that is sent again would be there twice.
    """
    records = [
        {
            "timeUnixNano": str(ns_of(score.inserted_at)),
            "eventName": judgements.RESULT,
            "traceId": trace_id_of(run.row.id),
            "spanId": span_id_of(score.target_id),
            "attributes": _attributes(judgements.attributes_of(score) | judgements.place_of(score)),
        }
        for score in scores
    ]
    resource = {"attributes": _attributes(_resource(run))}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": _scope(), "logRecords": records}]}]}


def _scope() -> dict[str, str]:
    return {"name": SCOPE, "version": __version__}


def _resource(run: OutgoingRun) -> dict[str, Any]:
    row = run.row
    return {
        "service.name": run.agent,
        "service.version": None if run.version == "default" else run.version,
        "agentspan.run.id": row.id,
        "agentspan.run.agent": run.agent,
        "agentspan.run.version": run.version,
        "agentspan.run.external_identifier": row.external_identifier,
        "agentspan.run.purpose": row.purpose,
        "agentspan.run.metadata": row.metadata,
        "agentspan.run.started_at": row.started_at,
        "agentspan.run.session": row.session,
        "agentspan.run.user": row.user,
        "agentspan.run.git_commit": row.git_commit,
        "agentspan.run.git_dirty": None if row.git_dirty is None else bool(row.git_dirty),
        "agentspan.run.task": row.task,
        "agentspan.run.tags": [*run.tags] or None,
    }


def _span(run: OutgoingRun, row: AgentSpanRow) -> dict[str, Any]:
    payload, result = _decoded(row.payload), _decoded(row.result_payload)
    said = outgoing.attributes(row, payload, result, run.row)
    said |= {
        "agentspan.id": row.id,
        "agentspan.parent_span_id": row.parent_span_id,
        **{f"agentspan.{name}": getattr(row, name) for name in _COLUMNS},
    }
    parent = span_id_of(row.parent_span_id or run.row.id)
    error = result.get("error") if isinstance(result, dict) else None
    return _written(
        run,
        span_id_of(row.id),
        parent,
        outgoing.name(row, payload),
        row.started_at,
        row.finished_at,
        row.status,
        error,
        said,
    )


def _run_span(run: OutgoingRun) -> dict[str, Any]:
    row = run.row
    said = outgoing.run_attributes(row, run.agent, run.version)
    about = ("status", "finished_at", "duration_ms", "result", "error", "termination_reason", "closed_by", "closed_at")
    said |= {f"agentspan.run.{name}": getattr(row, name) for name in about}
    error = _decoded(row.error)
    name = f"invoke_agent {run.agent}"
    return _written(run, span_id_of(row.id), None, name, row.started_at, row.finished_at, row.status, error, said)


def _written(
    run: OutgoingRun,
    id: str,
    parent: str | None,
    name: str,
    started_at: str | None,
    finished_at: str | None,
    status: str,
    error: Any,
    said: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a span in OTLP's JSON. What was cancelled has no counterpart: its status is unset, its length 0."""
    end_ns = ns_of(finished_at)
    code = {"failed": _ERROR, "terminated": _ERROR, "complete": _OK}.get(status, _UNSET)
    written: dict[str, Any] = {
        "traceId": trace_id_of(run.row.id),
        "spanId": id,
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(ns_of(started_at) or end_ns),
        "endTimeUnixNano": str(end_ns),
        "attributes": _attributes(said),
        "status": {"code": code},
    }
    if parent is not None:
        written["parentSpanId"] = parent
    if isinstance(error, dict) and code == _ERROR:
        written["status"]["message"] = str(error.get("message") or "")
        about = {f"exception.{name}": error.get(name) for name in ("type", "message", "stacktrace")}
        written["events"] = [{"name": "exception", "timeUnixNano": str(end_ns), "attributes": _attributes(about)}]
    return written


def _event(score: ScoreRow) -> dict[str, Any]:
    """Return a score as an event of its span."""
    attributes = _attributes(judgements.attributes_of(score))
    return {"name": judgements.RESULT, "timeUnixNano": str(ns_of(score.inserted_at)), "attributes": attributes}


def _attributes(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in said.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    if type(value) is bool:
        return {"boolValue": value}
    if type(value) is int and -(2**63) <= value < 2**63:
        return {"intValue": str(value)}
    if type(value) is float:
        return {"doubleValue": value}
    if type(value) is list:
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": value if type(value) is str else jsontext.encode(value)[0]}


def _decoded(text: str | None) -> Any:
    return None if text is None else jsontext.decode(text)
