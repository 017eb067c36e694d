"""A run's spans as a tree, in the order in which they began, and its sums."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from agentspan import jsontext
from agentspan.blobs import described
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.templates import arguments_text, inline
from agentspan.text import cut


@dataclass(slots=True)
class Node:
    """A span and its children. `alike` are the siblings after it that are folded into it (see tree_folding)."""

    span: AgentSpanRow
    children: list["Node"] = field(default_factory=list)
    alike: list["Node"] = field(default_factory=list)


class Sums(NamedTuple):
    """The sums over a run's spans; None if no span has a value."""

    spans: int
    failed: int
    tokens: int | None
    cost_usd: float | None


def build(spans: Iterable[AgentSpanRow]) -> list[Node]:
    """Return the roots; a span whose parent is not among the spans is a root too."""
    nodes = {node.span.id: node for node in sorted(map(Node, spans), key=_order)}
    roots: list[Node] = []
    for node in nodes.values():
        parent = nodes.get(node.span.parent_span_id or "")
        (roots if parent is None else parent.children).append(node)
    _cut_circles(nodes, roots)
    return roots


def _cut_circles(nodes: dict[str, Node], roots: list[Node]) -> None:
    """Make a root of the first span of each circle: spans that are their own ancestors, as only hand-made rows are."""
    reached = {node.span.id for node in every(roots)}
    for node in nodes.values():
        if node.span.id in reached:
            continue
        above: set[str] = set()
        while node.span.id not in above:  # a span below a circle leads up into it
            above.add(node.span.id)
            node = _parent(node, nodes)
        circle = [node]
        while (node := _parent(node, nodes)) is not circle[0]:
            circle.append(node)
        first = min(circle, key=_order)
        _parent(first, nodes).children.remove(first)
        roots.append(first)
        reached.update(below.span.id for below in every([first]))
    roots.sort(key=_order)


def _parent(node: Node, nodes: dict[str, Node]) -> Node:
    return nodes[node.span.parent_span_id or ""]


def every(roots: list[Node]) -> Iterator[Node]:
    """Yield each node, parents first. Unlike walk, it takes no longer for a deeper tree."""
    stack = roots[::-1]
    while stack:
        node = stack.pop()
        yield node
        stack += reversed(node.children)


def numbers(roots: list[Node]) -> dict[str, int]:
    """Return the number of each span among the steps of its run, from 1 on, parents first."""
    return {node.span.id: number for number, node in enumerate(every(roots), start=1)}


def walk(roots: list[Node]) -> Iterator[tuple[Node, tuple[bool, ...]]]:
    """Yield each node, parents first, with whether each of its ancestors, and itself, is the last of its siblings."""
    stack = _level(roots, ())
    while stack:
        node, lasts = stack.pop()
        yield node, lasts
        stack += _level(node.children, lasts)


def _level(nodes: list[Node], above: tuple[bool, ...]) -> list[tuple[Node, tuple[bool, ...]]]:
    """Return siblings, the last one first."""
    return [(node, (*above, index == 0)) for index, node in enumerate(reversed(nodes))]


def sums(spans: Iterable[AgentSpanRow]) -> Sums:
    """Add up a run. Tokens and cost of aggregates do not count (see schemas.aggregates)."""
    total = failed = tokens = 0
    cost = 0.0
    has_tokens = has_cost = False
    for span in spans:
        total += 1
        failed += span.status == "failed"
        if span.is_aggregate:
            continue
        if span.input_tokens is not None or span.output_tokens is not None:
            has_tokens = True
            tokens += (span.input_tokens or 0) + (span.output_tokens or 0)
        if span.cost_usd is not None:
            has_cost = True
            cost += span.cost_usd
    return Sums(total, failed, tokens if has_tokens else None, cost if has_cost else None)


_OF_OTEL = frozenset({"attributes", "events", "links", "dropped", "otel"})
"""The members in which a payload has what no field of its type is for (see otel.mapping)."""


def title_of(span: AgentSpanRow, limit: int) -> str:
    """Return a span's summary; for a type without a template, its title, its label, and the beginning of its payload.

    The label comes first: payloads of other packages begin with ids.
    """
    if span.summary:
        return span.summary
    decoded = jsontext.decode(described(span.payload))
    if type(decoded) is dict and "duplicate_of" in decoded:  # of OpenTelemetry: the rest of it repeats that span
        return f"{span.schema_title} (duplicate)"
    if type(decoded) is dict and _OF_OTEL.issuperset(decoded):  # a span of no family: all of it is beside its name
        payload = cut(arguments_text(decoded.get("attributes")) or "", limit)
    else:
        payload = inline(decoded, limit)
    return " ".join(text for text in (span.schema_title, span.label, payload) if text and text != "{}")


def _order(node: Node) -> tuple[str, str]:
    return (node.span.started_at or node.span.inserted_at, node.span.id)
