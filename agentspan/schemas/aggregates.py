"""The one rule that tells which spans sum up others, evaluated once, when a span is derived or created.

A span that sums up others repeats the tokens and the cost of the spans in it. Sums leave it out. The answer is stored
in the column `is_aggregate`; SQL, Python and the page read that column and never look at the name again.

No operation changes the name of a stored span. `resummarize` evaluates the rule again all the same, and so does an
import, which takes over the name in its line where it finishes an open span.
"""

AGGREGATES = frozenset({"agent"})
"""The built-in span types whose spans sum up others."""


def built_in_part(schema_name: str) -> str:
    """Return the part of a name that may name a built-in span type: the second of `prefix:type…`, else the whole."""
    parts = schema_name.split(":", 2)
    return parts[1] if len(parts) > 1 else schema_name


def is_aggregate(schema_name: str) -> bool:
    """Tell whether spans of this name sum up others: `agent`, `langchain:agent`, `a:agent:b`; not `x:y:agent`."""
    return built_in_part(schema_name) in AGGREGATES
