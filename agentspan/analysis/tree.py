"""A run's spans as a tree, in the order in which they began, and its sums."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from agentspan.model.rows import AgentSpanRow


@dataclass(slots=True)
class Node:
    """A span and the spans that happened in it."""

    span: AgentSpanRow
    children: list["Node"] = field(default_factory=list)


class Sums(NamedTuple):
    """What a run used; None where no span said."""

    spans: int
    failed: int
    tokens: int | None
    cost_usd: float | None


def build(spans: Iterable[AgentSpanRow]) -> list[Node]:
    """Return the roots; a span whose parent is not among the spans is a root too."""
    nodes = {span.id: Node(span) for span in sorted(spans, key=_order)}
    roots: list[Node] = []
    for node in nodes.values():
        parent = nodes.get(node.span.parent_span_id or "")
        (roots if parent is None else parent.children).append(node)
    _cut_circles(nodes, roots)
    return roots


def _cut_circles(nodes: dict[str, Node], roots: list[Node]) -> None:
    """Make roots of what hangs on no root: spans that are their own ancestors, which only hand-made rows are."""
    reached = {node.span.id for node, _ in walk(roots)}
    for id, node in nodes.items():
        if id not in reached:
            nodes[node.span.parent_span_id or ""].children.remove(node)
            roots.append(node)
            reached.update(below.span.id for below, _ in walk([node]))


def walk(roots: list[Node]) -> Iterator[tuple[Node, tuple[bool, ...]]]:
    """Yield each node, parents first, with whether each of its ancestors, and itself, is the last of its siblings."""
    stack = [_level(roots, ())]
    while stack:
        for node, lasts in stack[-1]:
            yield node, lasts
            stack.append(_level(node.children, lasts))
            break
        else:
            stack.pop()


def _level(nodes: list[Node], above: tuple[bool, ...]) -> Iterator[tuple[Node, tuple[bool, ...]]]:
    return ((node, (*above, index == len(nodes) - 1)) for index, node in enumerate(nodes))


def sums(spans: Iterable[AgentSpanRow]) -> Sums:
    """Add up a run; agent spans repeat what the spans in them used, so their tokens and cost do not count."""
    total = failed = tokens = 0
    cost = 0.0
    has_tokens = has_cost = False
    for span in spans:
        total += 1
        failed += span.status == "failed"
        if span.schema_name == "agent" or span.schema_name.endswith(":agent"):
            continue
        if span.input_tokens is not None or span.output_tokens is not None:
            has_tokens = True
            tokens += (span.input_tokens or 0) + (span.output_tokens or 0)
        if span.cost_usd is not None:
            has_cost = True
            cost += span.cost_usd
    return Sums(total, failed, tokens if has_tokens else None, cost if has_cost else None)


def _order(span: AgentSpanRow) -> tuple[str, str]:
    return (span.started_at or span.inserted_at, span.id)


def _is_above(node: Node, parent: Node, nodes: dict[str, Node]) -> bool:
    """Tell whether a node is its own ancestor: only hand-made rows are, and they must not hang anything."""
    seen = set()
    current: Node | None = parent
    while current is not None and current.span.id not in seen:
        if current is node:
            return True
        seen.add(current.span.id)
        current = nodes.get(current.span.parent_span_id or "")
    return False
