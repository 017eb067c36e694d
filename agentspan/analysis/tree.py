"""A run's spans as a tree, in the order in which they began, with its sums; folds siblings that are alike."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from agentspan import jsontext
from agentspan.blobs import described
from agentspan.clock import millis_between
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.meaning import error_text
from agentspan.schemas.signatures import error_parts, error_without_values, signature
from agentspan.schemas.templates import arguments_text, inline
from agentspan.storage.row_by_row import has_failed
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


FOLD_FROM = 4
"""The least number of equal siblings in a row that are shown as one."""


def fold(roots: list[Node]) -> list[Node]:
    """Fold equal siblings in a row into the first one. Its `alike` then holds the others.

    Equal are spans of the same type, label, status and failure (by its signature) with equal children; calls over MCP
    also have one summary. A span is never folded if it, or a span in it, is open, was terminated, or ended late.
    """
    shapes: dict[object, int] = {}
    shape_of: dict[int, int | None] = {}
    for node in reversed(list(every(roots))):  # children first
        below = tuple(shape_of[id(child)] for child in node.children)
        span = node.span
        may = span.status in ("complete", "cancelled", "failed") and not span.ended_late and None not in below
        key = (span.schema_name, span.label, span.status, failure_of(span), _target(span), below)
        shape_of[id(node)] = shapes.setdefault(key, len(shapes)) if may else None
        node.children = _fold(node.children, shape_of)
    return _fold(roots, shape_of)


def failure_of(span: AgentSpanRow) -> str | None:
    """Return the id of the signature of a span that failed, or returned an error; None for others."""
    return signature(span).id if has_failed(span) else None


def error_of(span: AgentSpanRow) -> str | None:
    """Return the error of a failed span as one text."""
    if span.status != "failed" or span.result_payload is None:
        return None
    return error_text(jsontext.decode(span.result_payload))


def error_of_all(node: Node) -> str | None:
    """Return the error of a node and those folded into it: without its values where they differ, or were returned."""
    errors = {error_of(each.span) for each in (node, *node.alike)}
    if not node.alike or not has_failed(node.span) or (len(errors) == 1 and None not in errors):
        return error_of(node.span)
    return error_without_values(error_parts(node.span.result_payload)) or None


def _target(span: AgentSpanRow) -> str | None:
    """Return what a call over MCP is about, whose label is only the method; lists of spans have the summary of it."""
    return span.summary.partition(" → ")[0] if span.summary and span.schema_name.rpartition(":")[2] == "mcp" else None


def _fold(nodes: list[Node], shape_of: dict[int, int | None]) -> list[Node]:
    shown: list[Node] = []
    start = 0
    while start < len(nodes):
        shape, end = shape_of[id(nodes[start])], start + 1
        while shape is not None and end < len(nodes) and shape_of[id(nodes[end])] == shape:
            end += 1
        if end - start >= FOLD_FROM:
            nodes[start].alike = nodes[start + 1 : end]
            shown.append(nodes[start])
        else:
            shown += nodes[start:end]
        start = end
    return shown


def keep(roots: list[Node], wanted: Callable[[Node], bool]) -> list[Node]:
    """Keep the wanted nodes, and those that lead to them."""
    kept: set[int] = set()
    for node in reversed(list(every(roots))):
        node.children = [child for child in node.children if id(child) in kept]
        if node.children or wanted(node):
            kept.add(id(node))
    return [root for root in roots if id(root) in kept]


def slowest(roots: list[Node], number: int) -> set[str]:
    """Return the ids of the spans with the longest own time (see own_ms)."""
    own = {node.span.id: own_ms(node.span, (child.span for child in node.children)) for node in every(roots)}
    return set(sorted((id for id in own if own[id] > 0), key=lambda id: (-own[id], id))[:number])


def own_ms(span: AgentSpanRow, children: Iterable[AgentSpanRow]) -> float:
    """Return the milliseconds of a span in which none of its children ran; 0 while it is open."""
    if span.duration_ms is None or span.started_at is None:
        return 0.0
    covered, reached = 0.0, 0.0
    for child in children:  # in the order in which they began
        if child.started_at is None or child.duration_ms is None:
            continue
        begin = max(reached, millis_between(span.started_at, child.started_at))
        reached = max(
            begin, min(span.duration_ms, millis_between(span.started_at, child.started_at) + child.duration_ms)
        )
        covered += reached - begin
    return max(0.0, span.duration_ms - covered)
