"""The rule that decides which spans are aggregates. It is evaluated once, when a span is derived or created.

An aggregate is a span that sums up others: it repeats the tokens and the cost of the spans in it, so sums leave it out.
If no model call is recorded inside an agent's span, its payload has `own_tokens`: then its tokens count.
The result is stored in the column `is_aggregate`. SQL, Python and the viewer read that column, not the name.

Operations by id never change the name of a stored span. `rederive` evaluates the rule again all the same. So does an
import, because it may change the name when it finishes an open span.
"""

from typing import Any

from agentspan import jsontext

OWN_TOKENS = "own_tokens"
"""The member of an agent's payload that is true if no other span has the agent's tokens."""
AGGREGATES = frozenset({"agent"})
"""The built-in span types whose spans are aggregates."""


def built_in_part(schema_name: str) -> str:
    """Return the part of a name that may be a built-in span type: the second part of `prefix:type…`, else the name."""
    parts = schema_name.split(":", 2)
    return parts[1] if len(parts) > 1 else schema_name


def is_aggregate(schema_name: str) -> bool:
    """Return whether spans of this name are aggregates: `agent`, `langchain:agent`, `a:agent:b`; not `x:y:agent`."""
    return built_in_part(schema_name) in AGGREGATES


def has_own_tokens(payload: Any) -> bool:
    """Return whether the tokens of a payload count, although its span has the name of an aggregate."""
    return type(payload) is dict and payload.get(OWN_TOKENS) is True


def stored_aggregate(schema_name: str, payload: str) -> int:
    """Return `is_aggregate` for an old row that was written without it, from its schema_name and payload text."""
    return int(is_aggregate(schema_name) and not (OWN_TOKENS in payload and has_own_tokens(jsontext.decode(payload))))
