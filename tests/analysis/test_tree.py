"""A run's spans as a tree: every span once, in order of start, whatever the parents say; and sums without doubles."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentspan.analysis.tree import Node, Sums, build, sums, title_of, walk
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.builtin import is_aggregate


def span(
    id: str,
    parent: str | None = None,
    *,
    started_at: str | None = "2026-11-24T00:00:00.000000Z",
    schema_name: str = "tool",
    status: str = "complete",
    tokens: tuple[int | None, int | None] = (None, None),
    cost_usd: float | None = None,
) -> AgentSpanRow:
    """A row with what a tree looks at."""
    nothing = dict.fromkeys(AgentSpanRow._fields)
    said = {
        "id": id,
        "parent_span_id": parent,
        "schema_name": schema_name,
        "status": status,
        "started_at": started_at,
        "input_tokens": tokens[0],
        "output_tokens": tokens[1],
        "cost_usd": cost_usd,
        "inserted_at": "2026-11-24T00:00:00.000000Z",
        "is_aggregate": int(is_aggregate(schema_name)),
    }
    return AgentSpanRow(**{**nothing, **said})  # type: ignore[arg-type]


def shape(nodes: Iterable[Node]) -> dict[str, object]:
    """A tree as nested dicts of ids."""
    return {node.span.id: shape(node.children) for node in nodes}


def ids(nodes: list[Node]) -> list[str]:
    """The ids in the order of a walk."""
    return [node.span.id for node, _ in walk(nodes)]


span_ids = st.sampled_from("abcdefgh")
rows = st.lists(
    st.builds(
        span,
        span_ids,
        st.none() | span_ids | st.just("missing") | st.just(""),
        started_at=st.none() | st.sampled_from(["2026-11-24T00:00:01.000000Z", "2026-11-23T00:00:00.000000Z"]),
    ),
    unique_by=lambda row: row.id,
)


@given(rows)
@example([span("a", "a")])
@example([span("a", "b"), span("b", "a"), span("c", "a"), span("d", "c")])
def test_every_span_is_in_the_tree_exactly_once_whatever_the_parents(spans: list[AgentSpanRow]) -> None:
    roots = build(spans)
    assert sorted(ids(roots)) == sorted(row.id for row in spans)
    for node, _ in walk(roots):
        assert all(child.span.parent_span_id == node.span.id for child in node.children)


@given(rows)
def test_siblings_are_in_order_of_start(spans: list[AgentSpanRow]) -> None:
    roots = build(spans)
    for siblings in [roots, *(node.children for node, _ in walk(roots))]:
        starts = [(node.span.started_at or node.span.inserted_at, node.span.id) for node in siblings]
        assert all(earlier < later for earlier, later in pairwise(starts))


@given(rows, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(spans: list[AgentSpanRow], rng: object) -> None:
    turned = list(spans)
    rng.shuffle(turned)  # type: ignore[attr-defined]
    assert shape(build(turned)) == shape(build(spans))


@given(rows)
def test_a_span_is_a_root_only_without_a_parent_among_the_spans_or_in_a_circle(spans: list[AgentSpanRow]) -> None:
    parents = {row.id: row.parent_span_id for row in spans}

    def is_its_own_ancestor(id: str) -> bool:
        above, steps = parents[id], 0
        while above in parents and above != id and steps < len(parents):
            above, steps = parents[above], steps + 1
        return above == id

    for node in build(spans):
        assert node.span.parent_span_id not in parents or is_its_own_ancestor(node.span.id)


def test_a_parent_that_never_came_makes_a_root() -> None:
    spans = [span("b", "a"), span("c", "b"), span("d", "missing")]
    assert shape(build(spans)) == {"b": {"c": {}}, "d": {}}


def test_a_circle_is_cut_at_its_first_span_and_what_hangs_on_it_stays_there() -> None:
    # "0" began first of all, but only hangs on the circle.
    spans = [span("0", "c"), span("a", "c"), span("b", "a"), span("c", "b"), span("d", "0")]
    assert shape(build(spans)) == {"a": {"b": {"c": {"0": {"d": {}}}}}}


def test_two_circles_and_a_root_are_in_order_of_start() -> None:
    spans = [span("a", "a"), span("b"), span("c", "d"), span("d", "c")]
    assert shape(build(spans)) == {"a": {}, "b": {}, "c": {"d": {}}}
    assert [node.span.id for node in build(spans)] == ["a", "b", "c"]


def test_a_walk_tells_who_is_the_last_of_its_siblings() -> None:
    spans = [span("a"), span("b", "a"), span("c", "b"), span("d", "a"), span("e")]
    assert [(node.span.id, lasts) for node, lasts in walk(build(spans))] == [
        ("a", (False,)),
        ("b", (False, False)),
        ("c", (False, False, True)),
        ("d", (False, True)),
        ("e", (True,)),
    ]


@pytest.mark.parametrize(
    ("payload", "title"),
    [
        ('{"attributes": {"country": "US", "days": 90}, "otel": {"scope": "travel"}}', "look up country=US, days=90"),
        ('{"events": [{"name": "retry"}]}', "look up"),
        ('{"attributes": {"a": 1}, "b": 2}', 'look up {"attributes":{"a":1},"b":2}'),
        ("{}", "look up"),
    ],
)
def test_the_title_of_a_span_of_opentelemetry_has_its_attributes(payload: str, title: str) -> None:
    row = span("a")._replace(schema_title="look up", label=None, summary=None, payload=payload)
    assert title_of(row, 80) == title


def test_nothing_is_no_tree() -> None:
    assert build([]) == []
    assert list(walk([])) == []


def chain(length: int, *, closed: bool = False) -> list[AgentSpanRow]:
    """Spans each in the one before it."""
    first = f"{length - 1:05d}" if closed else None
    return [span(f"{n:05d}", f"{n - 1:05d}" if n else first) for n in range(length)]


@pytest.mark.full
@pytest.mark.parametrize("closed", [False, True], ids=["chain", "circle"])
def test_a_chain_of_ten_thousand_spans_is_walked(closed: bool) -> None:
    visited = 0
    for node, lasts in walk(build(chain(10_000, closed=closed))):
        assert int(node.span.id) == visited == len(lasts) - 1
        visited += 1
    assert visited == 10_000


def test_ten_thousand_siblings_are_walked() -> None:
    spans = [span("root"), *(span(f"{n:05d}", "root") for n in range(10_000))]
    assert ids(build(spans)) == ["root", *(f"{n:05d}" for n in range(10_000))]


def test_sums_add_up_what_the_spans_used() -> None:
    spans = [
        span("a", schema_name="llm", tokens=(10, 5), cost_usd=0.25),
        span("b", schema_name="embedding", tokens=(7, None)),
        span("c", status="failed", cost_usd=0.5),
        span("d", status="cancelled"),
    ]
    assert sums(spans) == Sums(spans=4, failed=1, tokens=22, cost_usd=0.75)


def test_what_no_span_said_is_none_and_what_one_said_counts_even_when_it_is_zero() -> None:
    assert sums([]) == Sums(0, 0, None, None)
    assert sums([span("a")]) == Sums(1, 0, None, None)
    assert sums([span("a", tokens=(0, None), cost_usd=0.0)]) == Sums(1, 0, 0, 0.0)


@pytest.mark.parametrize("name", ["agent", "langchain:agent", "prefactor:agent:main"])
def test_agent_spans_do_not_count_again_what_their_llm_calls_used(name: str) -> None:
    agent = span("a", schema_name=name, tokens=(10, 5), cost_usd=0.5, status="failed")
    llm = span("b", "a", schema_name="llm", tokens=(10, 5), cost_usd=0.5)
    assert sums([agent, llm]) == Sums(2, 1, 15, 0.5)


@pytest.mark.parametrize("name", ["llm", "agent:llm", "my:tool:agent", "agents"])
def test_only_agent_spans_are_left_out(name: str) -> None:
    assert sums([span("a", schema_name=name, tokens=(1, 2))]) == Sums(1, 0, 3, None)
