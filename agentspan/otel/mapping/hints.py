"""Guesses from attributes, by the mapping tables: to map a span costs too much in the caller."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from agentspan.otel.mapping import genai, guesses, pydantic_ai
from agentspan.otel.mapping.mapped import FAMILIES, plain_name
from agentspan.otel.span import OtelSpan, Scope

_ALL = (*FAMILIES, *genai.VERSIONS)
_FIELDS = {"run.session": "session", "run.user": "user"}
_CONVERSATION = tuple(
    (name, _FIELDS[row.place], row.read)
    for family in _ALL
    for row in family.rows.get("*", ())
    if row.place in _FIELDS
    for name in row.names
)
_CONVERSATION_NAMES = frozenset(name for name, _, _ in _CONVERSATION)
_MODEL_NAMES = frozenset(
    name
    for family in _ALL
    for row in family.rows.get("llm", ())
    if row.place in ("payload.model", "result.response_model")
    for name in row.names
)


def conversation_of(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return the `session` and the `user` of a run, as far as attributes tell them."""
    found: dict[str, str] = {}
    if _CONVERSATION_NAMES.isdisjoint(attributes):
        return found
    for name, field, read in _CONVERSATION:
        if name in attributes and type(value := read(attributes[name])) is str:
            found.setdefault(field, value)
    return found


def may_be_call(attributes: Mapping[str, Any]) -> bool:
    """Return whether a span may be a call of a model: all that are name one."""
    return not _MODEL_NAMES.isdisjoint(attributes)


def is_step(attributes: Mapping[str, Any]) -> bool:
    """Return whether a span is a step of its own (see Mapped)."""
    return pydantic_ai.is_step(attributes)


@lru_cache(1024)
def begun_type(scope: str, name: str) -> str:
    """Return the schema_name that a span with these names probably has, before its attributes are known."""
    found = guesses.guess(OtelSpan("", "", None, name, 0, None, scope=Scope(scope)))
    return plain_name(name) if found in (None, "custom") else str(found)
