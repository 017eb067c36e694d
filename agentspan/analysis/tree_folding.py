"""Makes a large tree small enough to read: folds siblings that repeat, and keeps only some nodes."""

from collections.abc import Callable, Iterable

from agentspan import jsontext
from agentspan.analysis.tree import Node, every
from agentspan.clock import millis_between
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.meaning import error_text
from agentspan.schemas.signatures import error_parts, error_without_values, signature
from agentspan.storage.row_by_row import has_failed

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
