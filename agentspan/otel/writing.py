"""Encodes runs as OTLP in JSON: a run becomes a trace, whose root span is the run and whose other spans are its steps.

Attributes have the newest names of the GenAI conventions and the kinds of OpenInference. Other columns are attributes
`agentspan.…`, from which another `agentspan serve` stores the same rows with the same ids (module copies). The data was
redacted when it was recorded. A span that came from OpenTelemetry keeps its events, its links, and a kind that is not
INTERNAL, which is also the kind of a span whose instrumentor set none.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agentspan import __version__, clock, jsontext
from agentspan.arriving.identity import span_id
from agentspan.arriving.json_values import object_in
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ScoreRow
from agentspan.otel.identity import span_id_of, trace_id_of
from agentspan.otel.mapping import judgements, outgoing
from agentspan.otel.mapping.mapped import ABOUT_SPAN
from agentspan.otel.otlp.json_bodies import MAX_VALUES
from agentspan.otel.span import KINDS
from agentspan.otel.stored_rows import ns_of

SCOPE = "agentspan"
SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai/0.1.0"
"""The version of the semantic conventions that the written attributes follow."""
MOST_VALUES = MAX_VALUES // 2
"""The most values in the recorded attributes, events and links of a written span; a receiver accepts twice as many."""
_BESIDE = ("attributes", "events", "links")
_IDS = re.compile(r"[0-9a-f]{32} [0-9a-f]{16}\Z")
_ERROR, _OK, _UNSET = 2, 1, 0
_COLUMNS = ("schema_name", "schema_title", "status", "summary", "duration_ms", "cost_usd", "closed_by")


class OutgoingRun(NamedTuple):
    """A run to encode, with the names of its agent and version, and its tags.

    Attributes:
        first: its first steps; the input of the run is that of the first of them that has one.
        last: its last steps, the last one first; a run without a result has the output of the first that has one.
    """

    row: AgentInstanceRow
    agent: str
    version: str
    tags: Sequence[str] = ()
    first: Sequence[AgentSpanRow] = ()
    last: Sequence[AgentSpanRow] = ()


def request(
    run: OutgoingRun, spans: Iterable[AgentSpanRow], *, with_run: bool, scores: Iterable[ScoreRow] = ()
) -> dict[str, Any]:
    """Return an ExportTraceServiceRequest in JSON with finished spans of a run.

    Args:
        with_run: whether to add the root span for the run itself; the run must have finished.
        scores: scores of the run and its spans. Each becomes an event of its target span; scores of spans that are
            not in this request are left out.
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
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{**_scope(), "spans": written}]}]}


def log_request(run: OutgoingRun, scores: Iterable[ScoreRow]) -> dict[str, Any]:
    """Return an ExportLogsServiceRequest in JSON with scores of spans that were sent earlier.

    The conventions allow an evaluation as a log record. To send the span again would store it twice in other backends.
    """
    records = [
        {
            "timeUnixNano": str(_sendable_ns(score.inserted_at)),
            "eventName": judgements.RESULT,
            "traceId": trace_id_of(run.row.id),
            "spanId": span_id_of(score.target_id),
            "attributes": _attributes(judgements.attributes_of(score) | judgements.place_of(score)),
        }
        for score in scores
    ]
    resource = {"attributes": _attributes(_resource(run))}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{**_scope(), "logRecords": records}]}]}


def _scope() -> dict[str, Any]:
    return {"scope": {"name": SCOPE, "version": __version__}, "schemaUrl": SCHEMA_URL}


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
    payload, result = _sendable(jsontext.value_of(row.payload)), jsontext.value_of(row.result_payload)
    attributes = {
        "agentspan.id": row.id,
        "agentspan.parent_span_id": row.parent_span_id,
        **{f"agentspan.{name}": getattr(row, name) for name in _COLUMNS},
        **outgoing.attributes(row, payload, result, run.row),
    }
    error = result.get("error") if isinstance(result, dict) else None
    written = _written(run, row, outgoing.name(row, payload), error, attributes)
    written["parentSpanId"] = span_id_of(row.parent_span_id or run.row.id)
    written["kind"] = 1 + KINDS.index(outgoing.kind(row))
    if isinstance(payload, dict) and not ABOUT_SPAN.isdisjoint(payload):
        return _as_recorded(run, written, payload)
    return written


def _sendable(payload: Any) -> Any:
    """Return a payload, without its attributes, events and links if they hold more than MOST_VALUES values.

    Nothing is lost: the attribute `input.value` has the whole payload.
    """
    if not isinstance(payload, dict) or _values([payload.get(name) for name in _BESIDE]) <= MOST_VALUES:
        return payload
    return {name: value for name, value in payload.items() if name not in _BESIDE}


def _values(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_values, inner))


def _run_span(run: OutgoingRun) -> dict[str, Any]:
    row = run.row
    about = ("status", "finished_at", "duration_ms", "result", "error", "termination_reason", "closed_by", "closed_at")
    attributes = {f"agentspan.run.{name}": getattr(row, name) for name in about}
    inputs = (outgoing.asked(step, jsontext.value_of(step.payload)) for step in run.first)
    asked = next((found for found in inputs if found is not None), row.task)
    result = jsontext.value_of(row.result)
    if result is None and row.status == "complete":
        outputs = (outgoing.answered(step, jsontext.value_of(step.result_payload)) for step in run.last)
        result = next((found for found in outputs if found is not None), None)
    elif isinstance(result, dict) and result.keys() == {"output"}:
        result = result["output"]
    attributes |= outgoing.run_attributes(row, run.agent, run.version, asked, result)
    return _written(run, row, f"invoke_agent {run.agent}", jsontext.value_of(row.error), attributes)


def _written(
    run: OutgoingRun, row: AgentSpanRow | AgentInstanceRow, name: str, error: Any, attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a span or a run as a span in OTLP's JSON. Without an error its status is unset, as the conventions want.

    OTLP has no cancelled spans: a row without a start gets the length 0.
    """
    end_ns = _sendable_ns(row.finished_at)
    code = _ERROR if row.status in ("failed", "terminated") else _UNSET
    written: dict[str, Any] = {
        "traceId": trace_id_of(run.row.id),
        "spanId": span_id_of(row.id),
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(_sendable_ns(row.started_at) or end_ns),
        "endTimeUnixNano": str(end_ns),
        "attributes": _attributes(attributes),
        "status": {"code": code},
    }
    if isinstance(error, dict) and code == _ERROR:
        written["status"]["message"] = str(error.get("message") or "")
        about = {f"exception.{name}": error.get(name) for name in ("type", "message", "stacktrace")}
        written["events"] = [{"name": "exception", "timeUnixNano": str(end_ns), "attributes": _attributes(about)}]
    return written


def _as_recorded(run: OutgoingRun, written: dict[str, Any], payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a written span with the kind, status, events and links of its recorded OpenTelemetry span.

    A part of the payload that has an unexpected form is left out.
    """
    otel, dropped = object_in(payload.get("otel")), object_in(payload.get("dropped"))
    if otel.get("kind") in KINDS:
        written["kind"] = 1 + KINDS.index(otel["kind"])
    if otel.get("status") == "OK" and written["status"]["code"] == _UNSET:
        written["status"] = {"code": _OK}
    if type(otel.get("trace_state")) is str:
        written["traceState"] = otel["trace_state"]
    if events := [*_recorded_events(payload)]:
        written["events"] = [*events, *written.get("events", ())]
    if links := [*_links(run, payload)]:
        written["links"] = links
    for name in _BESIDE:
        if type(count := dropped.get(name)) is int and 0 < count < 2**32:
            written[f"dropped{name.title()}Count"] = count
    return written


def _recorded_events(payload: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the recorded events of a span, without evaluations: `request` adds these from the table of scores."""
    for event in _objects(payload.get("events")):
        if type(event.get("name")) is str and event["name"] != judgements.RESULT:
            attributes = _attributes(object_in(event.get("attributes")))
            yield {"name": event["name"], "timeUnixNano": str(_ns(event.get("time"))), "attributes": attributes}


def _links(run: OutgoingRun, payload: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the recorded links of a span. A link within the span's own trace gets the ids of the written spans."""
    own = object_in(object_in(jsontext.value_of(run.row.metadata)).get("otel")).get("trace_id")
    for link in _objects(payload.get("links")):
        trace, span = link.get("trace_id"), link.get("span_id")
        if _IDS.match(f"{trace} {span}") is None:
            continue
        if trace == own:
            trace, span = trace_id_of(run.row.id), span_id_of(span_id(run.row.id, str(trace), str(span)))
        state = {"traceState": link["trace_state"]} if type(link.get("trace_state")) is str else {}
        attributes = _attributes(object_in(link.get("attributes")))
        yield {"traceId": trace, "spanId": span, "attributes": attributes, **state}


def _event(score: ScoreRow) -> dict[str, Any]:
    """Return a score as a span event in OTLP's JSON."""
    attributes = _attributes(judgements.attributes_of(score))
    return {"name": judgements.RESULT, "timeUnixNano": str(_sendable_ns(score.inserted_at)), "attributes": attributes}


def _attributes(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in attributes.items() if value is not None]


def _value(value: Any) -> dict[str, Any]:
    if type(value) is bool:
        return {"boolValue": value}
    if type(value) is int and -(2**63) <= value < 2**63:
        return {"intValue": str(value)}
    if type(value) is float:
        return {"doubleValue": value}
    if type(value) is list:
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    if type(value) is dict:
        return {"kvlistValue": {"values": [{"key": name, "value": _value(item)} for name, item in value.items()]}}
    if value is None:
        return {}
    return {"stringValue": value if type(value) is str else jsontext.encode(value)[0]}


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    yield from (each for each in value if isinstance(each, dict)) if isinstance(value, list) else ()


def _ns(time: Any) -> int:
    """Return a recorded time in nanoseconds since the epoch; 0 for a value that is no time."""
    try:
        return _sendable_ns(clock.parse(time))
    except ValueError:
        return 0


def _sendable_ns(text: str | None) -> int:
    """Return a stored time in nanoseconds since the epoch, from 1 to what 63 bits hold (the year 2262); 0 for None.

    OTLP has no earlier times, and some backends no later ones. 0 would mean that the time is not known.
    """
    return 0 if text is None else min(max(1, ns_of(text)), 2**63 - 1)
