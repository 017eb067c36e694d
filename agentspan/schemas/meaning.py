"""Derives the columns of a span that follow from its payloads and type (see rows.Meaning), and its violations."""

from typing import Any

from agentspan import jsontext
from agentspan.model.rows import AgentSpanRow, Meaning, Violation
from agentspan.schemas import aliases, prices
from agentspan.schemas.aggregates import has_own_tokens
from agentspan.schemas.aliases import ERROR_TYPES, NAME_MEMBERS, USAGE_MEMBERS, count
from agentspan.schemas.span_types import BUILT_IN_TYPES, SpanType
from agentspan.schemas.templates import MAX_SUMMARY, arguments_text
from agentspan.text import duration_text, one_line

_no_usage = (USAGE_MEMBERS | {"input_tokens", "output_tokens", "cost_usd", "response_id"}).isdisjoint
_REASONS = ("finish_reason", "stop_reason", "stopReason")
_no_reason = frozenset(_REASONS).isdisjoint
_no_other_name = NAME_MEMBERS.isdisjoint
_new = tuple.__new__  # see model.spans
_INT64 = 2**63
MAX_LABEL = 200
_WITH_OUTPUT = frozenset({BUILT_IN_TYPES["tool"], BUILT_IN_TYPES["chain"]})
"""The built-in types whose summaries end with the result's `output`."""


def describe(
    span_type: SpanType,
    schema_name: str,
    status: str,
    payload: dict[str, Any],
    result: Any,
    duration_ms: float | None,
    check: tuple[bool, bool] = (True, True),
) -> Meaning:
    """Return the derived columns and the violations of a span.

    Args:
        span_type: the type whose schemas and template are used.
        schema_name: the span's own name, for `{{_schema}}`.
        status: the span's status.
        payload: plain JSON, as a parser returns it.
        result: plain JSON of any type, or None.
        duration_ms: milliseconds, or None while it is open.
        check: whether the payload and the result are new. A new one is checked against its schema; the label is derived
            from a new payload only.
    """
    new_payload, new_result = check
    violations: tuple[Violation, ...] = ()
    if new_payload and not span_type.payload.quick(payload):
        violations = span_type.payload.check(payload)
    if type(payload) is not dict:  # all of it was marked as sensitive, and the value is no object
        payload = {}
    if result is None:
        context = payload
    else:
        is_object = type(result) is dict
        if new_result and not span_type.result.quick(result) and not (is_object and _is_error(result, status)):
            # The result of an exception has only the error: no type's schema describes it.
            violations += span_type.result.check(result)
        context = {**payload, **result} if is_object else payload
    summary = label = None
    template = span_type.ready or span_type.compiled()
    if template is not None:
        if status == "failed" or template.asks:
            summary = template.render(context, _reserved(schema_name, status, result, duration_ms))
        else:  # the common case: the template uses no reserved name
            summary = template.render(context)
    if result is not None and span_type.result_template is not None:
        summary = _with_outcome(summary, span_type, context, result, status)
    elif type(result) is dict and "output" not in result and result and span_type in _WITH_OUTPUT:
        summary = _with_all_of(result, summary, status)
    if new_payload and span_type.label_field is not None:
        label = label_of(span_type, payload)
    aggregate = span_type.is_aggregate
    if aggregate and has_own_tokens(payload):
        aggregate = 0
    reason = None if type(result) is not dict or _no_reason(result) else _finish_reason(result)
    if _no_usage(context):  # the common case
        return _new(Meaning, (label, aggregate, summary, None, None, None, None, None, reason, violations))
    get = context.get
    input_tokens, output_tokens, cost = get("input_tokens"), get("output_tokens"), get("cost_usd")
    if input_tokens is None or output_tokens is None:
        input_tokens = aliases.tokens_of(context, "input_tokens") if input_tokens is None else input_tokens
        output_tokens = aliases.tokens_of(context, "output_tokens") if output_tokens is None else output_tokens
        cost = aliases.cost_of(context) if cost is None else cost
    if input_tokens is None and output_tokens is None and cost is None and "response_id" not in context:
        return _new(Meaning, (label, aggregate, summary, None, None, None, None, None, reason, violations))
    tokens_in, tokens_out, dollars = count(input_tokens), count(output_tokens), _cost(cost)
    if (
        dollars is None
        and new_result
        and not aggregate
        and (span_type.label_field == "model" or span_type.is_aggregate)
    ):
        dollars = prices.cost_of(context, tokens_in, tokens_out)
    answer = _response_id(get("response_id")), count(get("cache_write_tokens"))
    return _new(Meaning, (label, aggregate, summary, tokens_in, tokens_out, dollars, *answer, reason, violations))


def _with_outcome(
    summary: str | None, span_type: SpanType, context: dict[str, Any], result: Any, status: str
) -> str | None:
    """Append the rendered result_template of a client, or the error of a failed span: `exec: ls → exit 0`.

    The service does not render that template today. The text stands where summaries of built-in types have the outcome.
    """
    if status == "failed":
        outcome = error_text(result)
    else:
        template = span_type.result_compiled()
        outcome = None if template is None else template.render(context)
    parts = [part for part in (summary, outcome) if part]
    return one_line(" → ".join(parts), MAX_SUMMARY) if parts else summary


def _with_all_of(result: dict[str, Any], summary: str | None, status: str) -> str | None:
    """Append the whole result of a function that returned a dict: `Tool f() → a=1, b=2`."""
    if summary is None or status != "complete":
        return summary
    line = f"{summary} → {arguments_text(result)}"  # both parts are clean lines
    return line if len(line) <= MAX_SUMMARY else one_line(line, MAX_SUMMARY)


def _reserved(schema_name: str, status: str, result: Any, duration_ms: float | None) -> dict[str, str | None]:
    return {
        "_status": status,
        "_schema": schema_name,
        "_error": error_text(result) if status == "failed" else None,
        "_duration": None if duration_ms is None else duration_text(duration_ms),
    }


def label_of(span_type: SpanType, payload: dict[str, Any]) -> str | None:
    """Return the label of a span, such as the model's or tool's name; None if its type has no label."""
    field = span_type.label_field or ""
    value = payload.get(field)
    if field == "name" and not _no_other_name(payload):  # other packages name the span `name`, not the tool
        value = aliases.label_of(payload, field) or value
    elif type(value) is not str and field == "model":
        value = aliases.label_of(payload, field)
    if type(value) is not str:
        return None
    return value if len(value) <= 40 and value.isidentifier() else one_line(value, MAX_LABEL)


def _cost(value: Any) -> float | None:
    if type(value) is int and -_INT64 <= value < _INT64:
        return float(value)
    return value if type(value) is float and value - value == 0 else None  # not NaN, not infinite


def _response_id(value: Any) -> str | None:
    return one_line(value, MAX_LABEL) if type(value) is str else None


def _finish_reason(result: dict[str, Any]) -> str | None:
    found = next((value for name in _REASONS if type(value := result.get(name)) is str), None)
    return None if found is None else one_line(found, MAX_LABEL)


def _is_error(result: dict[str, Any], status: str) -> bool:
    return "error" in result or (status == "failed" and "error_type" in result)


def returned_error(span: AgentSpanRow) -> bool:
    """Return whether a call returned an error as its result (`is_error`), whatever its status."""
    result = span.result_payload
    if result is None or '"is_error"' not in result:
        return False
    found = jsontext.decode(result)
    return isinstance(found, dict) and found.get("is_error") is True


def error_of(result: Any) -> Any:
    """Return the error in a failed span's result: its `error`, or the result itself as @prefactor/core sends it."""
    if type(result) is not dict:
        return None
    error = result.get("error")
    return result if error is None and type(result.get("error_type")) is str else error


def error_type(error: Any) -> str | None:
    """Return the type of an error without its module, by each name that clients send it under; None without one."""
    if type(error) is not dict:
        return None
    found = next((name for key in ERROR_TYPES if type(name := error.get(key)) is str), None)
    return None if found is None else found.rpartition(".")[2]


def error_text(result: Any) -> str | None:
    """Return a failed span's error as `Type: message`, the type without its module."""
    error = error_of(result)
    if type(error) is dict:
        parts = [part for part in (error_type(error), error.get("message")) if type(part) is str and part]
        return ": ".join(parts) or None
    return error if type(error) is str and error else None
