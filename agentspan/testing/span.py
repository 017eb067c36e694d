"""A recorded step as an object to make assertions on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from agentspan import jsontext
from agentspan.analysis.tree import build, every
from agentspan.model.changes import SpanStatus
from agentspan.model.rows import AgentSpanRow
from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.values import Limits
from agentspan.schemas.span_types import error_of
from agentspan.text import one_line

MAX_SHOWN = 80


@dataclass(frozen=True, slots=True, repr=False)
class CapturedSpan:
    """One recorded span, with the values that it had when it was read.

    Attributes:
        id: its PFID.
        schema_name: the span type's name.
        name: its label (the model of an llm, the name of a tool), else the `name` in its payload, else its schema_name.
        status: pending, active, complete, failed or cancelled.
        payload: the input of the step, a JSON object.
        result: its result_payload, any JSON; None if it has none.
        summary: one line for people; None if its type has no template.
        duration_ms: milliseconds from start to finish; None while it is open.
        input_tokens: the value in its payloads, or None.
        output_tokens: the value in its payloads, or None.
        cost_usd: US dollars, the value in its payloads, or None.
        parent: its parent span, or None.
        children: its child spans, in the order in which they began.
    """

    id: str
    schema_name: str
    name: str
    status: SpanStatus
    payload: dict[str, Any] = field(hash=False)
    result: Any = field(hash=False)
    summary: str | None
    duration_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    parent: "CapturedSpan | None" = field(compare=False)
    children: "list[CapturedSpan]" = field(compare=False, default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.title} {self.status}>"

    @property
    def title(self) -> str:
        """`type name`, as in the tree of a run; only the type if the span has no other name."""
        name = one_line(self.name, MAX_SHOWN)
        return self.schema_name if name == self.schema_name else f"{self.schema_name} {name}"

    @property
    def error(self) -> Any:
        """The `error` in the result: `type`, `message` and `stacktrace`; None when there is none."""
        return error_of(self.result)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a call: the `arguments` in the payload, else the payload without `name`."""
        arguments = self.payload.get("arguments")
        if isinstance(arguments, dict):
            return arguments
        return {name: value for name, value in self.payload.items() if name != "name"}


def captured(rows: Iterable[AgentSpanRow]) -> list[CapturedSpan]:
    """Return spans in the order in which they began, each with its parent and children."""
    made: dict[str, CapturedSpan] = {}
    began: dict[str, str] = {}
    for node in every(build(rows)):
        row = node.span
        parent = made.get(row.parent_span_id or "")
        made[row.id] = span = _captured(row, parent)
        began[row.id] = row.started_at or row.inserted_at
        if parent is not None:
            parent.children.append(span)
    return sorted(made.values(), key=lambda span: (began[span.id], span.id))


def _captured(row: AgentSpanRow, parent: CapturedSpan | None) -> CapturedSpan:
    payload = jsontext.decode(row.payload)
    own = payload.get("name")
    return CapturedSpan(
        id=row.id,
        schema_name=row.schema_name,
        name=row.label or (own if isinstance(own, str) and own else row.schema_name),
        status=cast(SpanStatus, row.status),
        payload=payload,
        result=None if row.result_payload is None else jsontext.decode(row.result_payload),
        summary=row.summary,
        duration_ms=row.duration_ms,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost_usd=row.cost_usd,
        parent=parent,
    )


def is_called(span: CapturedSpan, name: str) -> bool:
    """Return whether a span has this name or this type."""
    return name in (span.name, span.schema_name)


def has_begun(span: CapturedSpan) -> bool:
    """Return whether a span started: it is neither pending nor cancelled."""
    return span.status not in ("pending", "cancelled")


def has(members: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Return whether an object has the expected members; an expected value may be any object that can be recorded."""
    return all(name in members and _is(members[name], value) for name, value in expected.items())


def _is(recorded: Any, expected: Any) -> bool:
    """Compare values as they are, for `mock.ANY` and `pytest.approx`; then as JSON, because a tuple becomes a list."""
    return bool(expected == recorded) or bool(_as_recorded(expected) == recorded)


def _as_recorded(value: Any) -> Any:
    return jsontext.decode(Capture(Limits(), None).object({"value": value}))["value"]


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """Format a call for people: `search(query='flights', limit=3)`."""
    return f"{name}({', '.join(f'{key}={one_line(repr(value), MAX_SHOWN)}' for key, value in arguments.items())})"
