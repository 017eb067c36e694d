"""Finds the error of a failed span in its status, its exception events, and the attributes of instrumentors."""

import re
from collections.abc import Mapping
from typing import Any

from agentspan.otel.mapping.values import literal, text
from agentspan.otel.span import Event, OtelSpan

EXCEPTION = "exception"
_TYPE, _MESSAGE, _STACKTRACE = "exception.type", "exception.message", "exception.stacktrace"
_TYPED = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Timeout|Failure)): (.*)", re.DOTALL)
_REPR = re.compile(r"([A-Za-z_][\w.]*)\((['\"])(.*)\2\)\Z", re.DOTALL)
_TRACEBACK = "Traceback (most recent call last):"
_FAMILY_MESSAGES = ("error.message", "langfuse.observation.status_message", "error.msg")
_FAMILY_STACKTRACES = ("error.stack_trace", "error.stacktrace")
_VAGUE = frozenset({"_OTHER", "Exception", "Error"})


def exceptions(span: OtelSpan) -> list[Event]:
    """Return the exception events of a span, in the order in which they were recorded."""
    return [event for event in span.events if event.name == EXCEPTION]


def error_of(span: OtelSpan) -> tuple[dict[str, str], list[str]]:
    """Return the error of a failed span, `{type, message, stacktrace}`, and the names of attributes it makes redundant.

    An exception event wins over the status, and the status over attributes.
    """
    last = exceptions(span)[-1:]
    attributes_of_event = last[0].attributes if last else {}
    attributes = span.attributes
    type_ = text(attributes_of_event.get(_TYPE))
    message = text(attributes_of_event.get(_MESSAGE)) or text(span.status_message)
    message = message or _first(attributes, _FAMILY_MESSAGES)
    stacktrace = text(attributes_of_event.get(_STACKTRACE))
    stacktrace = stacktrace or _first(attributes, _FAMILY_STACKTRACES)
    message, stacktrace = _parted(message, stacktrace)
    type_, message = _typed(type_ if type_ not in _VAGUE else None, message, exact=type_)
    error_type = text(attributes.get("error.type")) or _agreed(attributes.get("error"))
    type_ = type_ or (error_type if error_type not in _VAGUE else None) or "Error"
    error = {"type": type_, "message": message, "stacktrace": stacktrace}
    texts = {*error.values(), type_.rpartition(".")[2]}
    repeating = ("error.type", *_FAMILY_MESSAGES, *_FAMILY_STACKTRACES)
    used = [name for name in repeating if type(attributes.get(name)) is str and attributes[name] in texts]
    return {key: value for key, value in error.items() if value}, used


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((found for name in names if (found := text(attributes.get(name)))), None)


def _agreed(error: Any) -> str | None:
    return text(error.get("type")) if type(error) is dict else None


def _parted(message: str | None, stacktrace: str | None) -> tuple[str | None, str | None]:
    """Split message and traceback: LangChain's tracers write both into the message."""
    if message is None or _TRACEBACK not in message:
        return message, stacktrace
    head, _, tail = message.partition(_TRACEBACK)
    return head.strip() or tail.strip().rpartition("\n")[2], stacktrace or f"{_TRACEBACK}{tail}"


def _typed(type_: str | None, message: str | None, *, exact: str | None) -> tuple[str | None, str | None]:
    """Return the type and the message of an error.

    Args:
        type_: the type, or None if it is missing or as vague as `Exception`.
        message: a text, or a text with the type in it: `ValueError: no`, `ValueError('no')`, or a dict.
        exact: the type, also if it is vague.
    """
    if message is None:
        return type_ or exact, None
    message = _agents_message(message)
    if type_ is None and (match := _REPR.match(message)) is not None:
        return match[1], match[3]
    match = _TYPED.match(message)
    if match is not None and (type_ is None or type_.rpartition(".")[2] == match[1].rpartition(".")[2]):
        return type_ or match[1], match[2]
    return type_ or (exact if exact not in _VAGUE else None), message


def _agents_message(message: str) -> str:
    """Return `Error in agent run: no` from `{'message': 'Error in agent run', 'data': {'error': 'no'}}`.

    Another message is returned unchanged.
    """
    whole = literal(message)
    if type(whole) is dict and type(whole.get("message")) is str:
        data = whole.get("data")
        inner = data.get("error") if type(data) is dict else None
        return f"{whole['message']}: {inner}" if type(inner) is str else whole["message"]
    head, _, tail = message.partition(": {")
    data = literal("{" + tail) if tail.endswith("}") else None
    if type(data) is dict and type(data.get("error")) is str:
        return f"{head}: {data['error']}"
    return message
