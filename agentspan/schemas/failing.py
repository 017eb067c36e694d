"""Decides whether a step failed, and finds the text of its error. The status alone does not say it.

The same condition in SQL is `FAILED` of each backend's `statements.py`. Whether a run failed is something else.
"""

import json
from typing import Any

from pydantic_core import from_json

from agentspan import jsontext
from agentspan.schemas.span_types import error_text


def failed(status: str, result_text: str | None) -> bool:
    """Return whether a step failed, or is complete and its result has `is_error` as true at the top of the object."""
    if status != "complete":
        return status == "failed"
    # Few results contain either, and only those are parsed. JSON may spell the name with escapes.
    if result_text is None or ('"is_error"' not in result_text and "\\u" not in result_text):
        return False
    return is_error(_decoded(result_text))


def is_error(result: Any) -> bool:
    """Return whether a call's decoded result says that it is an error."""
    return type(result) is dict and result.get("is_error") is True


def error_of(status: str, result_text: str | None) -> str:
    """Return the error of a failed step as `Type: message`, else the text that it returned; "" without either."""
    if result_text is None or not failed(status, result_text):
        return ""
    result = _decoded(result_text)
    if type(result) is not dict:
        return result if type(result) is str else ""
    if text := error_text(result) or returned_text(result):
        return text
    others = {name: value for name, value in result.items() if value and name != "is_error"}
    return jsontext.canonical(others) if is_error(result) and others else ""


def returned_text(result: dict[str, Any]) -> str:
    """Return the text that a call returned; for MCP, the texts of the result's content."""
    value = next((result[name] for name in ("output", "result", "content") if name in result), None)
    if type(value) is dict:
        value = value.get("content", value)
    if type(value) is list:
        texts = (part.get("text") for part in value if type(part) is dict)
        return "\n".join(text if type(text) is str else "" for text in texts)
    return value if type(value) is str else "" if value is None else jsontext.canonical(value)


def _decoded(text: str) -> Any:
    """Return decoded JSON; None if the text is no JSON. NaN and Infinity are none; numbers may have any length."""
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError:  # also lone surrogates, numbers of thousands of digits, and depth over 200
        pass
    try:
        return json.loads(text, parse_int=float, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> None:
    raise ValueError(name)
