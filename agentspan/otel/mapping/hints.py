"""Guesses from attributes, by the mapping tables: to map a span costs too much in the caller."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from agentspan.otel.mapping import genai, guesses, judgements, pydantic_ai
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
) | {"llm.input_messages.0.message.role"}  # a call that failed may name no model


def conversation_of(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return the `session` and the `user` of a run, as far as attributes tell them."""
    found: dict[str, str] = {}
    for name, field, read in _CONVERSATION:
        if name in attributes and type(value := read(attributes[name])) is str:
            found.setdefault(field, value)
    return found


class Hints(NamedTuple):
    """The facts about a span that follow from the names of its attributes.

    Attributes:
        may_be_call: whether it may be a call of a model: all that succeed name one.
        may_be_judged: whether there may be a score among its attributes.
        names_conversation: whether there may be a session or a user (see `conversation_of`).
    """

    may_be_call: bool
    may_be_judged: bool
    names_conversation: bool


NO_HINTS = Hints(may_be_call=False, may_be_judged=False, names_conversation=False)
LONGEST = 64
"""Attributes of a span whose hints are kept: most have fewer, and longer conversations differ in each span."""


def hints_of(attributes: Mapping[str, Any]) -> Hints:
    """Return the hints of a span (0.3 µs: a program has few kinds of spans)."""
    names = tuple(attributes)
    return _kept_hints(names) if len(names) <= LONGEST else _hints(names)


def _hints(names: tuple[str, ...]) -> Hints:
    return Hints(
        not _MODEL_NAMES.isdisjoint(names), judgements.may_tell(names), not _CONVERSATION_NAMES.isdisjoint(names)
    )


_kept_hints = lru_cache(256)(_hints)


def is_step(attributes: Mapping[str, Any]) -> bool:
    """Return whether a span is a step of its own (see Mapped)."""
    return pydantic_ai.is_step(attributes)


@lru_cache(1024)
def begun_type(scope: str, name: str) -> str:
    """Return the schema_name that a span with these names probably has, before its attributes are known."""
    found = guesses.guess(OtelSpan("", "", None, name, 0, None, scope=Scope(scope)))
    return plain_name(name) if found in (None, "custom") else str(found)
