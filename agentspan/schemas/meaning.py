"""Draw out of a span's payloads what its row shows: summary, label, tokens, cost, and where they break the schema."""

from typing import Any

from agentspan.model.changes import Violation
from agentspan.model.spans import Meaning
from agentspan.schemas.span_types import SpanType
from agentspan.text import one_line

_INT64 = 2**63
_NO_RESULT: dict[str, Any] = {}


def describe(
    span_type: SpanType,
    schema_name: str,
    status: str,
    payload: dict[str, Any],
    result: dict[str, Any] | None,
    duration_ms: float | None,
    *,
    check: tuple[bool, bool] = (True, True),
) -> Meaning:
    """Return what a span means; payloads are plain JSON as a parser gives it.

    Args:
        check: whether to check the payload, and the result, against the schema.
    """
    violations: tuple[Violation, ...] = ()
    if check[0]:
        violations = span_type.payload.check(payload)
    if check[1] and result is not None and "error" not in result:
        # A result with an error is an exception's, whatever the type.
        violations += span_type.result.check(result)
    merged = _NO_RESULT if result is None else result
    template = span_type.compiled()
    summary = None
    if template is not None:
        context = {**payload, **merged, "_status": status, "_schema": schema_name}
        context["_error"] = error_text(result) if status == "failed" else None
        if "_duration" in template.names:
            context["_duration"] = None if duration_ms is None else duration_text(duration_ms)
        summary = template.render(context)
    label = None
    if span_type.label_field is not None:
        value = payload.get(span_type.label_field)
        label = one_line(value, 200) if type(value) is str else None
    return Meaning(
        summary,
        label,
        _int(merged.get("input_tokens", payload.get("input_tokens"))),
        _int(merged.get("output_tokens", payload.get("output_tokens"))),
        _cost(merged.get("cost_usd", payload.get("cost_usd"))),
        violations,
    )


def _int(value: Any) -> int | None:
    return value if type(value) is int and -_INT64 <= value < _INT64 else None


def _cost(value: Any) -> float | None:
    if type(value) is int and -_INT64 <= value < _INT64:
        return float(value)
    return value if type(value) is float and value - value == 0 else None  # neither NaN nor infinite


def error_text(result: dict[str, Any] | None) -> str | None:
    """Return a failed span's error as `Type: message` (one line of it is for the caller to cut)."""
    error = (result or {}).get("error")
    if type(error) is dict:
        type_, message = error.get("type"), error.get("message")
        parts = [part for part in (type_, message) if type(part) is str and part]
        return ": ".join(parts) or None
    return error if type(error) is str and error else None


def duration_text(duration_ms: float) -> str:
    """Write milliseconds as a person says them: `0.4 ms`, `312 ms`, `2.1 s`, `3m 07s`, `1h 02m`."""
    if duration_ms < 10:
        return f"{duration_ms:.1f} ms"
    if duration_ms < 999.5:
        return f"{duration_ms:.0f} ms"
    seconds = duration_ms / 1000
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"
