"""A recorded run, and its spans, as objects to make assertions on. They only read the storage.

An outline has a line of `type name` for each span: short enough to write by hand, exact enough to compare. The text of
a run is equal for each recording of the same behaviour, also with real ids and times. It has marks of its own, because
a stored text must stay valid if the marks of the command line change.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from agentspan import jsontext
from agentspan.analysis.tree import build, every, in_time, sums, walk
from agentspan.model.changes import OPEN, InstanceStatus, SpanStatus
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSchemaVersionRow, AgentSpanRow, AgentVersionRow
from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.values import Limits
from agentspan.schemas.span_types import Registry, error_in, error_text, error_type, from_schemas
from agentspan.schemas.templates import MAX_INLINE, inline
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf
from agentspan.text import duration_text, noun, one_line, printable

MAX_SHOWN = 80


@dataclass(frozen=True, slots=True, repr=False)
class CapturedSpan:
    """One recorded span, with the values that it had when it was read.

    Attributes:
        id: its PFID.
        schema_name: the span type's name.
        name: its label (the model of an llm, the name of a tool), else the `name` in its payload, else its schema_name.
        status: pending, active, complete, failed or cancelled.
        payload: the input of the step, a JSON object.
        result: its result_payload, any JSON; None if it has none.
        summary: one line for people; None if its type has no template.
        duration_ms: milliseconds from start to finish; None while it is open.
        input_tokens: the value in its payloads, or None.
        output_tokens: the value in its payloads, or None.
        cost_usd: US dollars, the value in its payloads, or None.
        parent: its parent span, or None.
        children: its child spans, in the order in which they began.
    """

    id: str
    schema_name: str
    name: str
    status: SpanStatus
    payload: dict[str, Any] = field(hash=False)
    result: Any = field(hash=False)
    summary: str | None
    duration_ms: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    parent: "CapturedSpan | None" = field(compare=False)
    children: "list[CapturedSpan]" = field(compare=False, default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.title} {self.status}>"

    @property
    def title(self) -> str:
        """`type name`, as in the tree of a run; only the type if the span has no other name."""
        name = one_line(self.name, MAX_SHOWN)
        return self.schema_name if name == self.schema_name else f"{self.schema_name} {name}"

    @property
    def error(self) -> Any:
        """The `error` in the result: `type`, `message` and `stacktrace`; None when there is none."""
        return error_in(self.result)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a call: the `arguments` in the payload, else the payload without `name`."""
        arguments = self.payload.get("arguments")
        if isinstance(arguments, dict):
            return arguments
        return {name: value for name, value in self.payload.items() if name != "name"}


def captured(rows: Iterable[AgentSpanRow]) -> list[CapturedSpan]:
    """Return spans in the order in which they began, each with its parent and children."""
    rows = in_time(rows)
    made: dict[str, CapturedSpan] = {}
    for node in every(build(rows)):
        parent = made.get(node.span.parent_span_id or "")
        made[node.span.id] = span = _captured(node.span, parent)
        if parent is not None:
            parent.children.append(span)
    return [made[row.id] for row in rows]


def _captured(row: AgentSpanRow, parent: CapturedSpan | None) -> CapturedSpan:
    payload = jsontext.decode(row.payload)
    own = payload.get("name")
    return CapturedSpan(
        id=row.id,
        schema_name=row.schema_name,
        name=row.label or (own if isinstance(own, str) and own else row.schema_name),
        status=cast(SpanStatus, row.status),
        payload=payload,
        result=jsontext.value_of(row.result_payload),
        summary=row.summary,
        duration_ms=row.duration_ms,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost_usd=row.cost_usd,
        parent=parent,
    )


def is_called(span: CapturedSpan, name: str) -> bool:
    """Return whether a span has this name or this type."""
    return name in (span.name, span.schema_name)


def has_begun(span: CapturedSpan) -> bool:
    """Return whether a span started: it is neither pending nor cancelled."""
    return span.status not in ("pending", "cancelled")


def has(members: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Return whether an object has the expected members; an expected value may be any object that can be recorded."""
    return all(name in members and _is(members[name], value) for name, value in expected.items())


def _is(recorded: Any, expected: Any) -> bool:
    """Compare values as they are, for `mock.ANY` and `pytest.approx`; then as JSON, because a tuple becomes a list."""
    return bool(expected == recorded) or bool(_as_recorded(expected) == recorded)


def _as_recorded(value: Any) -> Any:
    return jsontext.decode(Capture(Limits(), None).object({"value": value}))["value"]


def call_text(name: str, arguments: Mapping[str, Any]) -> str:
    """Format a call for people: `search(query='flights', limit=3)`."""
    return f"{name}({', '.join(f'{key}={one_line(repr(value), MAX_SHOWN)}' for key, value in arguments.items())})"


MARKS = {"pending": "◌", "active": "●", "complete": "✓", "failed": "✗", "cancelled": "○", "terminated": "■"}
MAX_NAME = 80

_ID_CHARACTER = "[0-9abcdefghjkmnpqrstvwxyz]"
_ID = re.compile(rf"(?<![0-9a-z])[0-7]{_ID_CHARACTER}{{31}}(?![0-9a-z])")
_CUT_ID = re.compile(rf"(?<![0-9a-z])([0-7]{_ID_CHARACTER}{{3,30}})…")  # the first 3 characters stay equal for years
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]*…?")


def run_text(storage: Storage, row: AgentInstanceRow, title: str, *, payloads: bool) -> str:
    """Return a run as text, equal for each recording of the same behaviour (see agentspan.testing.snapshot).

    Args:
        title: the agent's name, and its version.
    """
    nodes = list(walk(build(storage.ask(SpansOf(row.id)))))
    registry = _registry(storage, row)
    metadata, result, error = (jsontext.value_of(text) for text in (row.metadata, row.result, row.error))
    lines = [f"{MARKS[row.status]} {_with_error(title, error)}"]
    if payloads:
        members = {"metadata": metadata, "result": result, "error": _without_stacktrace(error)}
        lines += _json_lines("│ " if nodes else "  ", members)
    for node, lasts in nodes:
        above = "".join("  " if last else "│ " for last in lasts[:-1])
        branch = "└─" if lasts[-1] else "├─"
        lines.append(f"{above}{branch}{MARKS[node.span.status]} {_line(node.span, registry)}")
        if payloads:
            below = above + ("  " if lasts[-1] else "│ ") + ("│ " if node.children else "  ")
            lines += _json_lines(below, _payloads(node.span))
    text = printable("\n".join(lines), keep="\n")
    ids = {row.id: "<run>"} | {node.span.id: f"<span {number}>" for number, (node, _) in enumerate(nodes, 1)}
    return _ADDRESS.sub("at 0x…", _without_ids(text, ids, storage))


def run_title(name: str, version: str | None) -> str:
    """Return the title of a run: the agent's name, and its version if it has one."""
    return " ".join(one_line(text, MAX_NAME) for text in (name, version) if text is not None)


def _line(span: AgentSpanRow, registry: Registry) -> str:
    """Return `type · summary → error`; without a summary the span's name, if it has one."""
    result = jsontext.value_of(span.result_payload)
    shown = span.summary or ""
    if shown and span.duration_ms is not None and "_duration" in (registry.resolve(span.schema_name).template or ""):
        shown = shown.replace(duration_text(span.duration_ms), "<duration>")
    if not shown:
        name = span.label or jsontext.decode(span.payload).get("name")
        shown = one_line(name, MAX_NAME) if isinstance(name, str) and name != span.schema_name else ""
    text = f"{span.schema_name} · {shown}" if shown else span.schema_name
    return _with_error(text, None if result is None or span.status != "failed" else error_in(result))


def _with_error(text: str, error: Any) -> str:
    """Append the type of an error to a line. It replaces the error message that a summary may end in."""
    if error is None:
        return text
    arrow = f" → {error_type(error) or 'error'}"
    whole = f" → {inline(error_text({'error': error}) or '', MAX_INLINE)}"  # as templates of built-in types append it
    if text.endswith(whole):
        return text.removesuffix(whole) + arrow
    return (text.rpartition(arrow)[0] or text) + arrow


def _payloads(span: AgentSpanRow) -> dict[str, Any]:
    result = jsontext.value_of(span.result_payload)
    if isinstance(result, dict) and "error" in result:
        result = {**result, "error": _without_stacktrace(result["error"])}
    elif error_in(result) is not None:
        result = _without_stacktrace(result)
    return {"payload": jsontext.decode(span.payload), "result": result}


def _without_stacktrace(error: Any) -> Any:
    return {k: v for k, v in error.items() if k != "stacktrace"} if isinstance(error, dict) else error


def _json_lines(margin: str, members: Mapping[str, Any]) -> Iterator[str]:
    for name, value in members.items():
        if value is not None:
            yield f"{margin}   {name} {json.dumps(value, sort_keys=True, ensure_ascii=False)}"


def _registry(storage: Storage, run: AgentInstanceRow) -> Registry:
    """Return the span types that a run was registered with."""
    version = storage.ask(Find(run.agent_schema_version_id)).rows[run.agent_schema_version_id][1]
    return from_schemas(version.span_type_schemas if isinstance(version, AgentSchemaVersionRow) else "[]")


def _without_ids(text: str, ids: dict[str, str], storage: Storage) -> str:
    """Replace the ids of stored resources by names. Other text in the form of an id (half of all MD5 sums) stays."""
    names = dict(ids)
    found = dict.fromkeys(_ID.findall(text))  # each once, in the order of the text
    others = storage.ask(Find(*(id for id in found if id not in ids))).rows
    names |= {id: f"<id {number}>" for number, id in enumerate((id for id in found if id in others), 1)}
    text = _ID.sub(lambda match: names.get(match[0], match[0]), text)
    return _CUT_ID.sub(lambda cut: "<id…" if any(id.startswith(cut[1]) for id in names) else cut[0], text)


INDENT = "  "


def outline(roots: Iterable[CapturedSpan]) -> list[str]:
    """Return a line for each span, indented below its parent: `tool search`, and `tool search (failed)`.

    A status is shown unless it is complete.
    """
    lines = []
    stack = [(root, 0) for root in reversed(list(roots))]
    while stack:
        span, depth = stack.pop()
        status = "" if span.status == "complete" else f" ({span.status})"
        lines.append(f"{INDENT * depth}{span.title}{status}")
        stack += [(child, depth + 1) for child in reversed(span.children)]
    return lines


def normal(expected: str) -> list[str]:
    """Return the lines of a hand-written outline in the form of `outline`; any width of indentation is accepted.

    Raises:
        ValueError: a line is indented less than the line above it, but like no line before.
    """
    lines, depths = [], [-1]
    for number, line in enumerate(expected.expandtabs().splitlines(), 1):
        words = line.split()
        if not words:
            continue
        depth = len(line) - len(line.lstrip())
        is_deeper = depth > depths[-1]
        while depths[-1] > depth:
            depths.pop()
        if is_deeper:
            depths.append(depth)
        elif depths[-1] != depth:
            raise ValueError(f"line {number} of the expected tree, {line.strip()!r}, is indented like none above it")
        lines.append(INDENT * (len(depths) - 2) + " ".join(words))
    return lines


def difference(expected: list[str], recorded: list[str]) -> Iterator[str]:
    """Yield the lines of both outlines; `-` marks a line that was only expected, `+` one that was only recorded."""
    yield from list(difflib.unified_diff(expected, recorded, lineterm="", n=len(expected) + len(recorded)))[3:]


MAX_LINES = 100
"""The most lines of a run, and of a list, in the message of a failed assertion; others are counted."""


class CapturedRun:
    """One recorded run. Each access reads the storage again, also while the run goes on. A span is not updated.

    The argument `name` of the methods is a span's name (the tool, the model, the `name` in its payload) or its type:
    `search`, `gpt-4.1`, `llm`. A failed assertion raises AssertionError; its message has the missing spans and the run.

    Attributes:
        id: the agent instance's PFID.
    """

    __slots__ = ("_storage", "id")

    def __init__(self, storage: Storage, id: str) -> None:
        self.id = id
        self._storage = storage

    def __repr__(self) -> str:
        return f"<CapturedRun {self.name} {self.status}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CapturedRun) and (self.id, self._storage) == (other.id, other._storage)

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def name(self) -> str:
        """The agent's name."""
        agent = self._find(self._row().agent_id)
        return agent.name if isinstance(agent, AgentRow) else ""

    @property
    def version(self) -> str | None:
        """The agent's version; None if the run was recorded without one."""
        version = self._find(self._row().agent_version_id)
        name = version.external_identifier if isinstance(version, AgentVersionRow) else "default"
        return None if name == "default" else name

    @property
    def status(self) -> InstanceStatus:
        """The status: pending, active, complete, failed, cancelled or terminated."""
        return cast(InstanceStatus, self._row().status)

    @property
    def purpose(self) -> str:
        """The purpose: live, smoke_test or eval."""
        return self._row().purpose

    @property
    def metadata(self) -> dict[str, Any] | None:
        """The input of the run, a JSON object, or None."""
        return _object(self._row().metadata)

    @property
    def result(self) -> dict[str, Any] | None:
        """The output of the run, a JSON object, or None."""
        return _object(self._row().result)

    @property
    def error(self) -> dict[str, Any] | None:
        """The exception that ended the run: `type`, `message` and `stacktrace`; or None."""
        return _object(self._row().error)

    @property
    def duration_ms(self) -> float | None:
        """Milliseconds from start to finish; None while the run is open."""
        return self._row().duration_ms

    @property
    def tokens(self) -> int | None:
        """The input and output tokens of all spans but aggregates; None if no span has them."""
        return sums(self._rows()[1]).tokens

    @property
    def cost_usd(self) -> float | None:
        """The cost of all spans but aggregates, in US dollars; None if no span has one."""
        return sums(self._rows()[1]).cost_usd

    @property
    def spans(self) -> list[CapturedSpan]:
        """All spans, in the order in which they began."""
        return captured(self._rows()[1])

    @property
    def roots(self) -> list[CapturedSpan]:
        """The spans directly in the run, in the order in which they began; others are below them as `children`."""
        return [span for span in self.spans if span.parent is None]

    def find(self, name: str, /, **payload: Any) -> list[CapturedSpan]:
        """Return the spans of this name or type, in the order in which they began.

        Args:
            name: `search`, `gpt-4.1`, or a type such as `llm`.
            payload: members that the payload must have, among others.
        """
        return [span for span in self.spans if is_called(span, name) and has(span.payload, payload)]

    def calls(self, name: str, /, **arguments: Any) -> list[CapturedSpan]:
        """Return the started spans of this name or type, in the order in which they started.

        Args:
            name: `search`, `gpt-4.1`, or a type such as `llm`.
            arguments: members that the call's arguments must have, among others (see `CapturedSpan.arguments`).
        """
        spans = [span for span in self.spans if is_called(span, name) and has_begun(span)]
        return [span for span in spans if has(span.arguments, arguments)]

    def text(self, *, payloads: bool = False) -> str:
        """Return the run as text, the same for each recording of the same behaviour; `payloads` as for `snapshot`."""
        return run_text(self._storage, self._row(), run_title(self.name, self.version), payloads=payloads)

    def tree(self) -> str:
        """Return the spans as indented lines of `type name`, in the form that `assert_tree` expects."""
        return "\n".join(outline(self.roots))

    def assert_called(self, name: str, /, times: int | None = None, **arguments: Any) -> None:
        """Assert that a span of this name or type started.

        Args:
            name: `search`, `gpt-4.1`, or a type such as `llm`.
            times: the exact number of calls; None for at least one. `calls` can select an argument called `times`.
            arguments: members that the call's arguments must have, among others: `query="flights"`. A value matches as
                it is (`mock.ANY` works), or in the JSON form in which it would be recorded.

        Raises:
            AssertionError: no such span started, or another number of them.
        """
        __tracebackhide__ = True
        count = len(self.calls(name, **arguments))
        if times is None and not count:
            self._fail(f"{_called(name, arguments)} was never called{self._listed(name, arguments)}")
        if times is not None and count != times:
            wanted = _called(name, arguments)
            self._fail(f"expected {noun(times, 'call')} of {wanted}, found {count}{self._listed(name, arguments)}")

    def assert_never_called(self, name: str, /, **arguments: Any) -> None:
        """Assert that no span of this name or type, with these arguments, started.

        Raises:
            AssertionError: one started.
        """
        __tracebackhide__ = True
        count = len(self.calls(name, **arguments))
        if count:
            self._fail(f"{_called(name, arguments)} was called{self._listed(name, arguments)}")

    def assert_order(self, *names: str) -> None:
        """Assert that spans of these names or types started in this order. Other spans may start between them.

        Raises:
            AssertionError: they started in another order, or not at all.
            ValueError: there are fewer than two names.
        """
        __tracebackhide__ = True
        if len(names) < 2:
            raise ValueError("an order is one of two names at least")
        spans = [span for span in self.spans if has_begun(span)]
        position = 0
        for index, name in enumerate(names):
            found = next((i for i in range(position, len(spans)) if is_called(spans[i], name)), None)
            if found is None:
                before = f" after {' → '.join(names[:index])}" if index else ""
                earlier = ", only before that" if any(is_called(span, name) for span in spans) else ""
                self._fail(f"expected {' → '.join(names)}: no {name} started{before}{earlier}")
            position = found + 1

    def assert_no_open_spans(self) -> None:
        """Assert that no span is pending or active.

        Raises:
            AssertionError: a span is pending or active.
        """
        __tracebackhide__ = True
        spans = [f"{span.title} ({span.status})" for span in self.spans if span.status in OPEN]
        if spans:
            self._fail(f"{noun(len(spans), 'span')} not finished: {_some(spans, ', ')}")

    def assert_no_failures(self) -> None:
        """Assert that neither the run nor any of its spans failed.

        Raises:
            AssertionError: the run or a span failed.
        """
        __tracebackhide__ = True
        failed = [f"  {span.title}: {_error(span.error)}" for span in self.spans if span.status == "failed"]
        if self.status == "failed":
            failed.insert(0, f"  the run: {_error(self.error)}")
        if failed:
            self._fail(f"{len(failed)} failed:\n{_some(failed, chr(10))}")

    def assert_tree(self, expected: str) -> None:
        r'''Assert that the run has exactly these spans, in this order, with this nesting.

            run.assert_tree("""
                agent researcher
                  tool search
                  tool fetch (failed)
                  llm gpt-4.1
            """)

        Args:
            expected: a line for each span: `type name`, or only the type if the span has no other name. It is indented
                below its parent, by any width. A status other than complete follows in brackets. `run.tree()` returns
                the lines of a run to start from.

        Raises:
            AssertionError: the trees differ; the message has both, line by line.
            ValueError: a line is indented less than the line above it, but like no line before.
        '''
        __tracebackhide__ = True
        wanted, recorded = normal(expected), outline(self.roots)
        if wanted != recorded:
            lines = list(difference(wanted, recorded))
            self._fail("the tree is another one (- expected, + recorded):\n" + _some(lines, "\n"))

    def _listed(self, name: str, arguments: dict[str, Any]) -> str:
        """Return a list of all calls of a name, for a message about a call with arguments; else an empty text."""
        calls = [call_text(f"  {span.name}", span.arguments) for span in self.calls(name)] if arguments else []
        return f"; all calls of {name}:\n{_some(calls, chr(10))}" if calls else ""

    def _fail(self, what: str) -> NoReturn:
        __tracebackhide__ = True
        raise AssertionError(f"{what}\n\n{_some(self.text().splitlines(), chr(10))}")

    def _find(self, id: str) -> Any:
        return self._storage.ask(Find(id)).rows[id][1]

    def _row(self) -> AgentInstanceRow:
        return cast(AgentInstanceRow, self._find(self.id))

    def _rows(self) -> tuple[AgentInstanceRow, list[AgentSpanRow]]:
        return self._row(), list(self._storage.ask(SpansOf(self.id)))


def _object(text: str | None) -> dict[str, Any] | None:
    return cast(dict[str, Any] | None, jsontext.value_of(text))


def _error(error: Any) -> str:
    return error_text({"error": error}) or "it says no error"


def _called(name: str, arguments: dict[str, Any]) -> str:
    return call_text(name, arguments) if arguments else name


def _some(lines: list[str], between: str) -> str:
    more = len(lines) - MAX_LINES
    return between.join(lines[:MAX_LINES] + ([f"… and {more} more"] if more > 0 else []))
