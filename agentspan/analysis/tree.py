"""The tree of a run's spans in order of start, with sums, numbers and folding of similar siblings; texts of one row."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agentspan import jsontext
from agentspan.blobs import described
from agentspan.clock import millis_between
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ScoreRow
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.failing import error_of
from agentspan.schemas.signatures import error_parts, error_without_values, signature
from agentspan.schemas.span_types import error_text
from agentspan.schemas.templates import MAX_SUMMARY, arguments_text, inline
from agentspan.storage.row_by_row import has_failed
from agentspan.text import cut, duration_text, one_line

MARKS = {"pending": "◌", "active": "●", "complete": "✓", "failed": "✗", "cancelled": "○", "terminated": "■"}
"""The mark of each status of a step or a run, as text."""


@dataclass(slots=True)
class Node:
    """A span and its children. `alike` are the following siblings that `fold` merged into this node."""

    span: AgentSpanRow
    children: list["Node"] = field(default_factory=list)
    alike: list["Node"] = field(default_factory=list)


class Sums(NamedTuple):
    """The sums over a run's spans. `tokens` or `cost_usd` is None if no span has a value."""

    spans: int
    failed: int
    tokens: int | None
    cost_usd: float | None


def began(span: AgentSpanRow) -> tuple[str, str]:
    """Return the time at which a span started, else that of its creation; and its id, which decides ties."""
    return span.started_at or span.inserted_at, span.id


def in_time(spans: Iterable[AgentSpanRow]) -> list[AgentSpanRow]:
    """Return spans in the order in which they started."""
    return sorted(spans, key=began)


def build(spans: Iterable[AgentSpanRow]) -> list[Node]:
    """Build the tree of spans; return its roots. A span whose parent is not among the spans is a root, too."""
    nodes = {span.id: Node(span) for span in in_time(spans)}
    roots: list[Node] = []
    for node in nodes.values():
        parent = nodes.get(node.span.parent_span_id or "")
        (roots if parent is None else parent.children).append(node)
    _cut_circles(nodes, roots)
    return roots


def _cut_circles(nodes: dict[str, Node], roots: list[Node]) -> None:
    """Make the first span of each cycle a root. Only rows made by hand can be their own ancestors."""
    reached = {node.span.id for node in every(roots)}
    for node in nodes.values():
        if node.span.id in reached:
            continue
        above: set[str] = set()
        while node.span.id not in above:  # from a span below a cycle, go up into the cycle
            above.add(node.span.id)
            node = _parent(node, nodes)
        circle = [node]
        while (node := _parent(node, nodes)) is not circle[0]:
            circle.append(node)
        first = min(circle, key=lambda each: began(each.span))
        _parent(first, nodes).children.remove(first)
        roots.append(first)
        reached.update(below.span.id for below in every([first]))
    roots.sort(key=lambda each: began(each.span))


def _parent(node: Node, nodes: dict[str, Node]) -> Node:
    return nodes[node.span.parent_span_id or ""]


def every(roots: list[Node]) -> Iterator[Node]:
    """Yield each node, parents first. Unlike `walk`, it is not slower for a deeper tree."""
    stack = roots[::-1]
    while stack:
        node = stack.pop()
        yield node
        stack += reversed(node.children)


def numbers(roots: list[Node]) -> dict[str, int]:
    """Return the number of each span in its run, by span id: from 1 on, parents first."""
    return {node.span.id: number for number, node in enumerate(every(roots), start=1)}


def walk(roots: list[Node]) -> Iterator[tuple[Node, tuple[bool, ...]]]:
    """Yield each node, parents first, with one flag per ancestor and for itself: whether it is the last sibling."""
    stack = _level(roots, ())
    while stack:
        node, lasts = stack.pop()
        yield node, lasts
        stack += _level(node.children, lasts)


def _level(nodes: list[Node], above: tuple[bool, ...]) -> list[tuple[Node, tuple[bool, ...]]]:
    """Return siblings in reverse order for a stack, each with the flags of `walk`."""
    return [(node, (*above, index == 0)) for index, node in enumerate(reversed(nodes))]


def sums(spans: Iterable[AgentSpanRow]) -> Sums:
    """Return the sums over a run's spans. Tokens and cost of aggregates are ignored (see schemas.builtin)."""
    total = failed = tokens = 0
    cost = 0.0
    has_tokens = has_cost = False
    for span in spans:
        total += 1
        failed += has_failed(span)
        if span.is_aggregate:
            continue
        if span.input_tokens is not None or span.output_tokens is not None:
            has_tokens = True
            tokens += (span.input_tokens or 0) + (span.output_tokens or 0)
        if span.cost_usd is not None:
            has_cost = True
            cost += span.cost_usd
    return Sums(total, failed, tokens if has_tokens else None, cost if has_cost else None)


def active_ms(spans: Iterable[AgentSpanRow]) -> float:
    """Return for how many ms at least one step of a run went on. Agents and others that sum up steps do not count."""
    covered, reached, first = 0.0, 0.0, ""
    for span in in_time(spans):
        if span.is_aggregate or span.started_at is None or span.duration_ms is None:
            continue
        first = first or span.started_at
        start = millis_between(first, span.started_at)
        end = max(reached, start + span.duration_ms)
        covered, reached = covered + end - max(start, reached), end
    return covered


LONG_MS = 60_000
"""The least duration of a run whose active time is worth a look."""


def took_and_active(duration_ms: float, spans: Iterable[AgentSpanRow]) -> str:
    """Return how long a run took, with its active time if that is less than half: `38h 2m (2h 05m active)`."""
    took = duration_text(duration_ms)
    if duration_ms >= LONG_MS and (active := active_ms(spans)) < duration_ms / 2:
        took += f" ({duration_text(active)} active)"
    return took


_OF_OTEL = frozenset({"attributes", "events", "links", "dropped", "otel"})
"""The payload members for OpenTelemetry data without a field in the span type (see otel.mapping)."""


def title_of(span: AgentSpanRow, limit: int) -> str:
    """Return a span's summary; without one, the title of its type, its label, and the beginning of its payload.

    The label stands before the payload, because payloads of other packages begin with ids.
    """
    if span.summary:
        return span.summary
    decoded = jsontext.decode(described(span.payload))
    if type(decoded) is dict and "duplicate_of" in decoded:  # from OpenTelemetry: the payload repeats another span
        return f"{span.schema_title} (duplicate)"
    if type(decoded) is dict and _OF_OTEL.issuperset(decoded):  # no known kind: only OpenTelemetry data
        payload = cut(arguments_text(decoded.get("attributes")) or "", limit)
    else:
        payload = inline(decoded, limit)
    return " ".join(text for text in (span.schema_title, span.label, payload) if text and text != "{}")


def with_calls(run: AgentInstanceRow, spans: list[AgentSpanRow]) -> list[AgentSpanRow]:
    """Return the spans of a run; of a session, with the arguments of the calls in the summaries of its model calls.

    The decoder of a session leaves long arguments, or all, out of a model's call: `LLM m: 24→3 tok → shell()`. They are
    those of the tools' steps up to the next model call of the same agent.
    """
    if not is_session(run):
        return spans
    called: dict[str, list[str]] = {}
    latest: dict[str | None, str] = {}
    for span in in_time(spans):
        kind = built_in_part(span.schema_name)
        if kind == "llm":
            latest[span.parent_span_id] = span.id
        elif kind == "tool" and span.summary and (model := latest.get(span.parent_span_id)) is not None:
            title = f"{span.schema_title} "
            called.setdefault(model, []).append(span.summary.removeprefix(title).partition(" → ")[0])
    return [_with_calls(span, called.get(span.id, ())) for span in spans]


def _with_calls(span: AgentSpanRow, called: Sequence[str]) -> AgentSpanRow:
    head, arrow, own = (span.summary or "").partition(" → ")
    name = own.partition("(")[0]
    if '"' in head or not any(call.startswith(f"{name}(") for call in called):
        return span
    return span._replace(summary=one_line(head + "".join(arrow + call for call in called), MAX_SUMMARY))


def run_name(agent: str, version: str) -> str:
    """Return the name of a run's agent, followed by the version if the run has one."""
    return agent if version == "default" else f"{agent} {version}"


def session_title(run: AgentInstanceRow) -> str | None:
    """Return the title of a coding agent's session, after the name of its folder; None for other runs."""
    metadata = _of_session(run)
    if metadata is None:
        return None
    title, folder = metadata.get("title"), metadata.get("cwd")
    text = title if type(title) is str and title else run.task or ""
    name = re.split(r"[/\\]", folder.rstrip("/\\"))[-1] if type(folder) is str else ""
    return ": ".join(filter(None, (name, text))) or None


def is_session(run: AgentInstanceRow) -> bool:
    """Return whether a run was imported from the session of a coding agent."""
    return _of_session(run) is not None


def _of_session(run: AgentInstanceRow) -> dict[str, Any] | None:
    session = (run.external_identifier or "").partition(":")[2]
    metadata = jsontext.decode(run.metadata) if session and run.metadata else None
    return metadata if type(metadata) is dict and metadata.get("session_id") == session else None


def test_of(run: AgentInstanceRow) -> str | None:
    """Return the node id of the test that recorded a run under pytest; None for other runs."""
    metadata = jsontext.decode(run.metadata) if run.metadata and '"test"' in run.metadata else None
    test = metadata.get("test") if type(metadata) is dict else None
    return test if type(test) is str and "::" in test else None


def trial_of(run: AgentInstanceRow) -> int | None:
    """Return the number of the trial, from 1, of a run of an evaluation, whose task is the case; else None."""
    metadata = jsontext.decode(run.metadata) if run.metadata and run.purpose == "eval" and run.task else None
    trial = metadata.get("trial") if type(metadata) is dict else None
    return trial if type(trial) is int else None


def late_text(row: AgentSpanRow | AgentInstanceRow) -> str | None:
    """Return a sentence about a run or span that ended after it had been closed; None if it did not end late."""
    if not row.ended_late:
        return None
    what = "the termination" if row.closed_by == "terminated" else "doctor closed it"
    return f"its own end came after {what}"


def closed_text(row: AgentSpanRow | AgentInstanceRow) -> str | None:
    """Return how a run or span was closed from outside, and whether it ended later; None if it was not closed."""
    if row.closed_by is None:
        return None
    late = late_text(row)
    return row.closed_by if late is None else f"{row.closed_by}; {late}"


def score_text(score: ScoreRow) -> str:
    """Return a line such as `reward 0.5 half: booked twice (by model judge-2)`."""
    return f"{judgement_text(score)} (by {judge_text(score)})"


def judgement_text(score: ScoreRow) -> str:
    """Return a score as text, without its judge: `reward 0.5 half: booked twice`."""
    value = None if score.value is None else f"{score.value:.6g}"
    judged = " ".join(part for part in (score.name, value, score.label) if part is not None)
    return judged if score.explanation is None else f"{judged}: {score.explanation}"


def judge_text(score: ScoreRow) -> str:
    """Return who judged, such as `model judge-2`."""
    return score.source if score.identifier is None else f"{score.source} {score.identifier}"


FOLD_FROM = 4
"""The least equal siblings in a row that `agentspan show` prints as one line."""


def fold(roots: list[Node]) -> list[Node]:
    """Fold consecutive equal siblings into the first one, whose `alike` then holds the others; return the roots.

    Spans are equal if type, label, status, failure signature and children are equal; calls over MCP also need the same
    target in their summaries. A span is never folded if it, or a span inside it, is open, terminated, or ended late.
    """
    shapes: dict[object, int] = {}
    shape_of: dict[int, int | None] = {}
    for node in reversed(list(every(roots))):  # children before parents
        below = tuple(shape_of[id(child)] for child in node.children)
        span = node.span
        may = span.status in ("complete", "cancelled", "failed") and not span.ended_late and None not in below
        failure = signature(span).id if has_failed(span) else None
        key = (span.schema_name, span.label, span.status, failure, _target(span), below)
        shape_of[id(node)] = shapes.setdefault(key, len(shapes)) if may else None
        node.children = _fold(node.children, shape_of)
    return _fold(roots, shape_of)


def run_error(run: AgentInstanceRow) -> str | None:
    """Return the error of a run as text; None if the run has none, or none that can be read."""
    return None if run.error is None else error_text({"error": jsontext.decode(run.error)})


def span_error(span: AgentSpanRow) -> str | None:
    """Return the error of a failed step as text; None if it did not fail, or has no error."""
    return error_of(span.status, span.result_payload) or None


def node_error(node: Node) -> str | None:
    """Return the error of a node and the nodes folded into it; None without an error.

    If their errors differ, or were returned by calls that completed, it is the error without its variable values.
    """
    errors = {span_error(each.span) for each in (node, *node.alike)}
    if not node.alike or not has_failed(node.span) or (len(errors) == 1 and None not in errors):
        return span_error(node.span)
    return error_without_values(error_parts(node.span.result_payload)) or None


def _target(span: AgentSpanRow) -> str | None:
    """Return the target of a request over MCP, from its summary: the label may be only the method. Else None."""
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
    """Prune a tree to the wanted nodes and their ancestors; return the roots."""
    kept: set[int] = set()
    for node in reversed(list(every(roots))):
        node.children = [child for child in node.children if id(child) in kept]
        if node.children or wanted(node):
            kept.add(id(node))
    return [root for root in roots if id(root) in kept]


_NOTICES = frozenset({"hook", "event"})
_READ = re.compile("error|interrupt|refusal|limit|command$|summary")
"""The labels of events that a person wants to read: what a person or the model's provider did. (Also in spans.js.)"""


def is_notice(node: Node) -> bool:
    """Return whether a step is only a notice about its program: a hook that completed, or a notice to the model."""
    span = node.span
    if span.status != "complete" or built_in_part(span.schema_name) not in _NOTICES or has_failed(span):
        return False
    return built_in_part(span.schema_name) == "hook" or _READ.search(span.label or "") is None


class Slow(NamedTuple):
    """A span, its own time in ms (see own_ms), and the spans around it, the outermost first."""

    span: AgentSpanRow
    own_ms: float
    within: tuple[AgentSpanRow, ...]


def slowest(roots: list[Node], number: int, wanted: Callable[[Node], bool] = lambda _: True) -> list[Slow]:
    """Return the `number` wanted spans with the longest own time, the slowest first."""
    nodes = [node for node in every(roots) if wanted(node)]
    own = {node.span.id: own_ms(node.span, (child.span for child in node.children)) for node in nodes}
    nodes = sorted(
        (node for node in nodes if own[node.span.id] > 0), key=lambda node: (-own[node.span.id], node.span.id)
    )
    above = {child.span.id: node.span for node in every(roots) for child in node.children}

    def within(span: AgentSpanRow) -> Iterator[AgentSpanRow]:
        while (parent := above.get(span.id)) is not None:
            yield parent
            span = parent

    return [Slow(node.span, own[node.span.id], tuple(within(node.span))[::-1]) for node in nodes[:number]]


def own_ms(span: AgentSpanRow, children: Iterable[AgentSpanRow]) -> float:
    """Return the own time of a span in ms, during which none of its children ran; 0 for an open span."""
    if span.duration_ms is None or span.started_at is None:
        return 0.0
    covered, reached = 0.0, 0.0
    for child in children:  # children are in order of start
        if child.started_at is None or child.duration_ms is None:
            continue
        offset = millis_between(span.started_at, child.started_at)
        begin = max(reached, offset)
        reached = max(begin, min(span.duration_ms, offset + child.duration_ms))
        covered += reached - begin
    return max(0.0, span.duration_ms - covered)
