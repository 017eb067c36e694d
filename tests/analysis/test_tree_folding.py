"""Folding, keeping, and what a span took by itself."""

import itertools
import random

from agentspan.analysis.tree import FOLD_FROM, Node, build, fold, keep, node_error, own_ms, slowest, walk
from agentspan.model.rows import AgentSpanRow

_ids = itertools.count()


def span(
    name: str, begin: float = 0, took: float | None = 1, status: str = "complete", parent: AgentSpanRow | None = None
) -> AgentSpanRow:
    values: dict[str, object] = dict.fromkeys(AgentSpanRow._fields)
    at = f"2026-01-01T00:00:{begin:09.6f}Z"
    values |= {"id": f"{next(_ids):06}", "schema_name": "tool", "label": name, "status": status, "inserted_at": at}
    values |= {"started_at": at, "duration_ms": None if took is None else took * 1000, "payload": "{}"}
    return AgentSpanRow(**{**values, "parent_span_id": parent.id if parent else None})  # type: ignore[arg-type]


def names(roots: list[Node]) -> list[tuple[str | None, int]]:
    return [(node.span.label, len(node.alike)) for node, _ in walk(roots)]


def test_only_neighbours_that_are_alike_are_folded() -> None:
    assert names(fold(build([span("a") for _ in range(FOLD_FROM - 1)]))) == [("a", 0)] * (FOLD_FROM - 1)
    spans = [span("a") for _ in range(4)] + [span("b")] + [span("a") for _ in range(5)]
    assert names(fold(build(spans))) == [("a", 3), ("b", 0), ("a", 4)]
    assert names(fold([])) == []


def test_what_failed_is_folded_only_with_what_failed_of_the_same_error() -> None:
    def failed(message: str, parent: AgentSpanRow | None = None) -> AgentSpanRow:
        return span("a", status="failed", parent=parent)._replace(result_payload=f'{{"error": "{message}"}}')

    spans = [span("a"), *(failed("x") for _ in range(5)), *(failed("y") for _ in range(4)), failed("x"), span("a")]
    assert names(fold(build(spans))) == [("a", 0), ("a", 4), ("a", 3), ("a", 0), ("a", 0)]
    turns = [span("turn", n) for n in range(5)]
    tools = [failed("x" if n < 4 else "y", turn) for n, turn in enumerate(turns)]
    assert names(fold(build([*turns, *tools]))) == [("turn", 3), ("a", 0), ("turn", 0), ("a", 0)]


def test_failures_that_differ_only_in_values_are_folded_and_have_one_error_without_them() -> None:
    def failed(message: str) -> AgentSpanRow:
        return span("a", status="failed")._replace(
            result_payload=f'{{"error": {{"type": "E", "message": "{message}"}}}}'
        )

    spans = [*(failed(f"wait {n} s, request {n}f3a9c01") for n in range(39)), *(failed("wait 5 s") for _ in range(4))]
    roots = fold(build(spans))
    assert names(roots) == [("a", 38), ("a", 3)]
    assert [node_error(node) for node in roots] == ["E: wait <n> s, request <hex>", "E: wait 5 s"]
    assert node_error(build(spans)[0]) == "E: wait 0 s, request 0f3a9c01"


def test_calls_that_returned_an_error_or_had_other_targets_are_not_folded_with_others() -> None:
    def returned(is_error: str) -> AgentSpanRow:
        return span("a")._replace(result_payload=f'{{"output": "x", "is_error": {is_error}}}')

    spans = [
        *(returned("false") for _ in range(4)),
        *(returned("true") for _ in range(4)),
        *(span("a") for _ in range(4)),
    ]
    assert names(fold(build(spans[:8]))) == [("a", 3), ("a", 3)]
    assert [node_error(node) for node in fold(build(spans[:8]))] == [None, "x"]
    assert names(fold(build(spans))) == [("a", 3), ("a", 3), ("a", 3)]

    def called(target: str) -> AgentSpanRow:
        return span("tools/call")._replace(schema_name="mcp", summary=f"MCP tools/call {target}")

    spans = [called(target) for target in ("a", "b", "c", "d")] + [called("e") for _ in range(4)]
    assert names(fold(build(spans))) == [("tools/call", 0)] * 4 + [("tools/call", 3)]
    spans = [
        called(f"e → E: wait {n} s")._replace(status="failed", result_payload=f'{{"error": "wait {n} s"}}')
        for n in range(4)
    ]
    assert names(fold(build(spans))) == [("tools/call", 3)]


def test_what_is_open_or_terminated_is_never_folded_and_neither_is_what_holds_it() -> None:
    for status in ("terminated", "active", "pending"):
        parents = [span("turn", n) for n in range(6)]
        children = [span("x", n, status=status if n == 2 else "complete", parent=p) for n, p in enumerate(parents)]
        assert names(fold(build([*parents, *children]))) == [("turn", 0), ("x", 0)] * 6


def test_trees_are_alike_when_what_is_in_them_is() -> None:
    parents = [span("turn", n) for n in range(8)]
    children = [span("x" if n < 4 else "y", n, parent=p) for n, p in enumerate(parents)]
    assert names(fold(build([*parents, *children]))) == [("turn", 3), ("x", 0), ("turn", 3), ("y", 0)]


def test_a_deep_tree_is_folded_without_recursion() -> None:
    chain = [span("a")]
    for _ in range(5000):
        chain.append(span("a", parent=chain[-1]))
    assert len(names(fold(build(chain)))) == 5001


def test_folding_loses_no_span() -> None:
    source = random.Random(4)
    for _ in range(50):
        spans: list[AgentSpanRow] = []
        for _ in range(60):
            parent = source.choice(spans) if spans and source.random() < 0.5 else None
            spans.append(
                span(source.choice("ab"), status=source.choice(("complete",) * 5 + ("failed",)), parent=parent)
            )
        seen: set[str] = set()
        stack = fold(build(spans))
        while stack:
            node = stack.pop()
            assert node.span.id not in seen
            seen.add(node.span.id)
            stack += [*node.children, *node.alike]
        assert seen == {row.id for row in spans}


def test_what_is_kept_leads_there() -> None:
    top, other = span("top"), span("other")
    middle = span("middle", parent=top)
    leaf, unwanted = span("leaf", parent=middle), span("unwanted", parent=middle)
    kept = keep(build([top, other, middle, leaf, unwanted]), lambda node: node.span.label == "leaf")
    assert names(kept) == [("top", 0), ("middle", 0), ("leaf", 0)]


def test_a_span_by_itself_is_what_its_children_leave() -> None:
    parent = span("parent", 0, 10)
    children = [span("a", 1, 2), span("b", 2, 3), span("c", 8, 5), span("open", 6, None)]  # 1-5 and 8-10 of 0-10
    assert own_ms(parent, children) == 4000
    assert own_ms(parent, []) == 10_000
    assert own_ms(span("open", 0, None), []) == 0
    rows = [parent, *(child._replace(parent_span_id=parent.id) for child in children)]
    (first, second) = slowest(build(rows), 2)
    assert (first.span.id, first.own_ms, first.within) == (rows[3].id, 5000, (parent,))
    assert (second.span.id, second.own_ms, second.within) == (parent.id, 4000, ())
    assert len(slowest(build(rows), 99)) == 4
    assert slowest(build(rows), 1, lambda node: node.span.label == "b")[0].span.id == rows[2].id
