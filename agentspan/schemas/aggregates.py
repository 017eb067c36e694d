"""The rule that decides which spans are aggregates. It is evaluated once, when a span is derived or created.

An aggregate is a span that sums up others: it repeats the tokens and the cost of the spans in it, so sums leave it out.
The result is stored in the column `is_aggregate`. SQL, Python and the viewer read that column, not the name.

No operation by id changes the name of a stored span. `resummarize` evaluates the rule again all the same. So does an
import, because it may change the name when it finishes an open span.
"""

AGGREGATES = frozenset({"agent"})
"""The built-in span types whose spans are aggregates."""


def built_in_part(schema_name: str) -> str:
    """Return the part of a name that may be a built-in span type: the second part of `prefix:type…`, else the name."""
    parts = schema_name.split(":", 2)
    return parts[1] if len(parts) > 1 else schema_name


def is_aggregate(schema_name: str) -> bool:
    """Return whether spans of this name are aggregates: `agent`, `langchain:agent`, `a:agent:b`; not `x:y:agent`."""
    return built_in_part(schema_name) in AGGREGATES
