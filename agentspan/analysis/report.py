"""Runs in Markdown: a report of a program's run for reviews in git, and a transcript of a coding agent's session.

The same run gives the same report, whichever file holds it: ids become ordinals (`span 3` is the third span of the
tree), and times become offsets from the start of the run. Text from payloads is escaped: it can neither close a code
fence nor become markup. In a transcript the words of people and models stay Markdown, without HTML.
"""

import json
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from agentspan import jsontext
from agentspan.analysis.calls import files_of, shown_call
from agentspan.analysis.costs import Chapter, chapters_of
from agentspan.analysis.diff_text import fenced
from agentspan.analysis.messages import spoken
from agentspan.analysis.tree import (
    MARKS,
    Node,
    build,
    closed_text,
    every,
    is_notice,
    is_session,
    run_error,
    run_name,
    session_title,
    span_error,
    sums,
    title_of,
    took_and_active,
    walk,
)
from agentspan.blobs import described
from agentspan.clock import millis_between
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.span_types import error_text
from agentspan.storage.access import instance
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf
from agentspan.storage.row_by_row import has_failed, summaries_of
from agentspan.storage.sums import RunSummary
from agentspan.text import amounts, cost_text, cut, dotted, duration_text, noun, one_line, printable

TITLE = 200
MOST_LINES = 16
"""The most lines of an edit or a list that a conversation as text has."""
THOUGHTS = ("thinking", "reasoning")
DEEPEST = 20
"""The largest indentation of a step, in levels; deeper steps show a number. Else a chain of 5,000 takes 28 MB."""
_MARKUP = re.compile(r"([\\`*_\[\]<>|~&])")


def markdown(storage: Storage, run_ids: Sequence[str]) -> Iterator[str]:
    """Yield the lines of reports on runs, and of transcripts of sessions, without line ends."""
    runs = (run for id in run_ids for run in summaries_of(storage, [instance(storage, id)]))
    for number, run in enumerate(runs, start=1):
        if number > 1:
            yield ""
        yield from (transcript(storage, run) if is_session(run.run) else _Report(storage, run, number).lines())


class _Report:
    def __init__(self, storage: Storage, run: RunSummary, number: int) -> None:
        self._run = run
        self._roots = build(storage.ask(SpansOf(run.run.id)))
        spans = [node.span for node in every(self._roots)]
        self._number = {span.id: place for place, span in enumerate(spans, start=1)}
        self._names = {run.run.id: f"run {number}", **{id: f"span {place}" for id, place in self._number.items()}}
        self._id = re.compile("|".join(map(re.escape, self._names)))
        self._begin = min([run.run.started_at or run.run.inserted_at, *(s.started_at for s in spans if s.started_at)])

    def lines(self) -> Iterator[str]:
        """Yield the lines of the report on one run: facts, tree of steps, then each step with its payloads."""
        run = self._run
        name = run_name(run.agent, run.version)
        yield f"# {_escaped(self._text(name, TITLE))} · {run.run.status}"
        yield ""
        for label, value in self._facts():
            yield f"- {label}: {value}"
        for label, text in (("Given", run.run.metadata), ("Result", run.run.result), ("Error", run.run.error)):
            yield from self._json(label, text)
        yield ""
        yield "## Steps"
        yield ""
        yield from fenced("text", [self._step(node, lasts) for node, lasts in walk(self._roots)])
        for node in every(self._roots):
            yield from self._details(node)

    def _facts(self) -> Iterator[tuple[str, str]]:
        run = self._run
        if run.duration_ms is not None:
            yield "took", duration_text(run.duration_ms)
        yield "spans", f"{run.spans}" + (f", {run.failed} failed" if run.failed else "")
        yield from _usage(run)
        if run.run.termination_reason is not None:
            yield "terminated", _escaped(self._text(run.run.termination_reason, TITLE))

    def _step(self, node: Node, lasts: tuple[bool, ...]) -> str:
        span, depth = node.span, len(lasts) - 1
        above = "".join("  " if last else "│ " for last in lasts[max(0, depth - DEEPEST) : -1])
        above += "└─" if lasts[-1] else "├─"
        if depth > DEEPEST:
            above = f"… {depth} {above}"
        return f"{above}{MARKS[span.status]} {self._number[span.id]} {self._title(span)}{self._when(span)}"

    def _when(self, span: AgentSpanRow) -> str:
        if span.started_at is None or span.status == "cancelled":
            return f"  ({span.status})"
        took = "running" if span.duration_ms is None else duration_text(span.duration_ms)
        return f"  ({self._offset(span)}, {took})"

    def _offset(self, span: AgentSpanRow) -> str:
        return f"+{duration_text(millis_between(self._begin, span.started_at or span.inserted_at))}"

    def _details(self, node: Node) -> Iterator[str]:
        span = node.span
        yield ""
        yield f"### {self._number[span.id]}. {_escaped(self._title(span))}"
        yield ""
        yield f"- type: {_escaped(self._text(span.schema_name, TITLE))}"
        closed = closed_text(span)
        yield f"- status: {span.status}" + (f" (closed by being {closed})" if closed else "")
        if span.parent_span_id in self._number:
            yield f"- in: span {self._number[span.parent_span_id]}"
        if span.started_at is not None:
            yield f"- started: {self._offset(span)}"
        if span.duration_ms is not None:
            yield f"- took: {duration_text(span.duration_ms)}"
        yield from (f"- {name}: {value}" for name, value in _usage(span))
        if error := span_error(span):
            yield f"- error: {_escaped(self._text(error, TITLE))}"
        yield from self._json("Payload", span.payload)
        yield from self._json("Result", span.result_payload)

    def _json(self, label: str, text: str | None) -> Iterator[str]:
        if text is None:
            return
        value = _without_stacktrace(jsontext.decode(described(text)))
        yield ""
        yield f"{label}:"
        yield ""
        shown = json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)
        yield from fenced("json", printable(self._named(shown), keep="\n").split("\n"))

    def _title(self, span: AgentSpanRow) -> str:
        return self._text(span.summary or span.schema_title, TITLE)

    def _text(self, text: str, limit: int) -> str:
        return one_line(self._named(text), limit)

    def _named(self, text: str) -> str:
        return self._id.sub(lambda found: self._names[found[0]], text)


def _usage(row: RunSummary | AgentSpanRow) -> Iterator[tuple[str, str]]:
    if row.input_tokens is not None or row.output_tokens is not None:
        yield "tokens", f"{row.input_tokens or 0} in, {row.output_tokens or 0} out"
    if row.cost_usd is not None:
        yield "cost", _escaped(cost_text(row.cost_usd))


def _without_stacktrace(value: Any) -> Any:
    """Return a decoded payload without stack traces, which change whenever a line is added to the program."""
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("error"), dict):
        return {**value, "error": _without_stacktrace(value["error"])}
    return {key: item for key, item in value.items() if key != "stacktrace"}


def _escaped(text: str) -> str:
    return _MARKUP.sub(r"\\\1", text)


def transcript(storage: Storage, run: RunSummary) -> Iterator[str]:
    """Yield the lines of a session as a conversation: words as Markdown; thinking, tools and sub-agents folded."""
    roots = build(storage.ask(SpansOf(run.run.id)))
    spans = [node.span for node in every(roots)]
    models = dict.fromkeys(span.label for span in spans if built_in_part(span.schema_name) == "llm" and span.label)
    began = run.run.started_at or run.run.inserted_at
    facts = dotted(
        run_name(run.agent, run.version),
        ", ".join(models),
        f"{began[:10]} {began[11:16]} UTC",
        "" if run.duration_ms is None else took_and_active(run.duration_ms, spans),
        noun(run.spans, "step"),
        *amounts((run.input_tokens or 0) + (run.output_tokens or 0) or None, run.cost_usd),
    )
    yield f"# {_escaped(one_line(session_title(run.run) or run_name(run.agent, run.version), TITLE))}"
    yield ""
    yield _escaped(one_line(facts, 5 * TITLE))
    chapters = chapters_of(spans)
    heads = {each.span_id: dotted(f"{number}", _figures(each)) for number, each in enumerate(chapters, 1)}
    if len(chapters) > 1:
        names = (_escaped(one_line(f"{each.name} · {_figures(each)}", TITLE)) for each in chapters)
        yield from ("", *(f"{number}. {name}" for number, name in enumerate(names, 1)))
    if files := files_of(spans):
        yield from ("", f"Edited: {_escaped(one_line(', '.join(map(str, files)), 5 * TITLE))}")
    yield from _talk(roots, 0, heads)
    if run.run.error is not None:
        yield from ("", f"**{run.run.status}**: {_escaped(one_line(run_error(run.run) or '', TITLE))}")


def _figures(chapter: Chapter) -> str:
    began = f"{chapter.at[:10]} {chapter.at[11:16]} UTC"
    return dotted(began, *amounts(chapter.tokens, chapter.cost_usd, chapter.duration_ms))


def talk(
    turns: Iterable[Mapping[str, Any]],
    sections: Mapping[str, Mapping[str, Any]],
    chapters: Sequence[Mapping[str, Any]],
    steps: Mapping[str, int],
    columns: int,
) -> Iterator[str]:
    """Yield the lines of a conversation as text: prompts after `>`, each call of a tool with the number of its step.

    Args:
        turns, sections, chapters: those of the viewer's conversation.
        steps: the number of each step, by its id.
        columns: the largest width of a line that is no words.
    """
    begins: dict[int, list[int]] = defaultdict(list)
    for number, chapter in enumerate(chapters):
        begins[chapter["turn"]].append(number)
    thread = ""
    for at, turn in enumerate(turns):
        for number in begins[at]:
            chapter, began = chapters[number], chapters[number]["at"]
            used = amounts(chapter["tokens"], chapter["cost_usd"], chapter["duration_ms"])
            yield from ("", f"── {dotted(f'{number + 1}', f'{began[:10]} {began[11:16]} UTC', *used)}")
            if chapter["span_id"] != turn["span"]:
                yield f"> {chapter['name']}"
        indent, around = "", sections[turn["thread"]]
        while around["parent"] is not None:
            indent, around = f"{indent}  ", sections[around["parent"]]
        if turn["thread"] != thread and turn["agent"] is not None:
            section = sections[turn["thread"]]
            figures = amounts(section["tokens"], section["cost_usd"], section["duration_ms"] or None)
            yield from ("", one_line(f"{indent[2:]}◆ {dotted(turn['agent'], *figures)}", columns))
        thread = turn["thread"]
        is_step = (turn["role"], turn["side"]) == ("tool", "")
        room = max(20, columns - len(indent))
        for line in _call_lines(turn, steps, room) if is_step else _message_lines(turn, room):
            yield indent + line if line else ""


def _call_lines(turn: Mapping[str, Any], steps: Mapping[str, int], columns: int) -> Iterator[str]:
    """Yield the line of a call of a tool, then the first lines of its edit or its list, and its error."""
    call = turn["shown"] or shown_call(turn["name"] or "tool", turn["arguments"])._asdict()
    rows = len(turn["text"].splitlines()) if not call["lines"] else 0
    end = (f" → {noun(rows, 'line')}" if rows else "") + f"  #{steps.get(turn['span'], '?')}"
    yield f"{MARKS[turn['status']]} {one_line(call['line'], max(20, columns - len(end) - 2))}{end}"
    for sign, text in call["lines"][:MOST_LINES]:
        yield f"    {sign} {cut(text, columns - 6)}"
    if (more := len(call["lines"]) - MOST_LINES + call["more"]) > 0:
        yield f"    … {noun(more, 'more line')}"
    if turn["error"]:
        yield f"    {one_line(turn['error'], columns - 4)}"


def _message_lines(turn: Mapping[str, Any], columns: int) -> Iterator[str]:
    """Yield the words of a message; thinking is named, and what neither a person nor a model said is one line."""
    for part in turn["others"]:
        if part["name"] in THOUGHTS:
            yield f"({part['name']})"
    lines = described(turn["text"]).strip("\n").split("\n") if turn["text"].strip() else []
    if turn["role"] not in ("user", "assistant"):
        lines = [one_line(f"({turn['role']}: {turn['text']}", columns - 1) + ")"] if lines else []
    if turn["role"] == "user":
        lines = [f"> {line}" for line in lines]
    yield from ("", *lines, "") if lines else ()
    if (more := turn["length"] - len(turn["text"])) > 0 and turn["role"] in ("user", "assistant"):
        yield f"… ({noun(more, 'more character')} in the step)"
    for call in turn["calls"]:
        if call["same"] is None or turn["side"] != "out":
            yield one_line(f"→ {shown_call(call['name'], call['arguments']).line}", columns)
    if turn["error"]:
        yield f"✗ {one_line(turn['error'], columns - 2)}"


def _talk(nodes: Sequence[Node], depth: int, heads: Mapping[str, str]) -> Iterator[str]:
    """Yield the steps of one level as a conversation. A heading stands where another one speaks.

    Args:
        heads: what the headings of prompts that are chapters say, by the ids of their steps.
    """
    speaker = ""
    steps = deque(nodes if depth < DEEPEST else (Node(each.span) for each in every([*nodes])))
    while steps:
        node = steps.popleft()
        span, kind = node.span, built_in_part(node.span.schema_name)
        result = jsontext.value_of(span.result_payload)
        result = result if isinstance(result, dict) else {}
        lines: list[str] = []
        role = "assistant"
        if kind == "message":
            role = next((each["role"] for each in spoken(span)), "user")
            lines = [line for each in spoken(span) for line in _words(each["text"], breaks=role == "user")]
            if role not in ("user", "assistant"):
                lines, role = _folded(f"{role}: {title_of(span, TITLE).partition(': ')[2]}", lines), "assistant"
        elif kind == "event" and span.label == "command":
            role, lines = "user", [_escaped(one_line(title_of(span, TITLE).partition(": ")[2], TITLE))]
        elif kind == "llm":
            thought = result.get("thinking")
            if isinstance(thought, str) and thought.strip():
                lines += [*_folded("Thinking", _words(thought)), ""]
            if isinstance(result.get("text"), str):
                lines += _words(result["text"])
            if error := span_error(span):
                lines += ["", f"**failed**: {_escaped(one_line(error, TITLE))}"]
        elif kind in ("tool", "mcp", "agent"):
            lines = list(_used(node, kind, result, depth, heads))
        elif kind == "chain":
            steps.extendleft(reversed(node.children))
        elif not is_notice(node):
            title = one_line(title_of(span, TITLE), TITLE)
            lines = _folded(title, _block([*_readable(jsontext.value_of(span.payload)), *_readable(result)]))
        while lines and not lines[-1]:
            lines.pop()
        if not lines:
            continue
        if (role != speaker and kind != "agent") or span.id in heads:
            speaker = role
            yield from ("", f"{'#' * min(6, 2 + depth)} {dotted(role.capitalize(), heads.get(span.id, ''))}")
        yield ""
        yield from lines


def _used(node: Node, kind: str, result: dict[str, Any], depth: int, heads: Mapping[str, str]) -> Iterator[str]:
    """Yield a call of a tool with its input and result, or a sub-agent with its conversation, folded.

    The diff of an edit, and the entries of a to-do list, follow unfolded.
    """
    span = node.span
    is_failed = has_failed(span)
    error = error_text(result) if is_failed else None
    mark = "✗ " if is_failed else ""
    title = one_line(title_of(span, TITLE).removeprefix(f"{span.schema_title} ").partition(" → ")[0], TITLE)
    if kind == "agent":
        total = sums(each.span for each in every(node.children))
        title = dotted(f"Agent {title}", noun(total.spans, "step"), *amounts(total.tokens, total.cost_usd))
    payload = jsontext.value_of(span.payload)
    given = payload.get("input" if kind == "agent" else "arguments") if isinstance(payload, dict) else payload
    call = None
    if kind == "tool" and isinstance(payload, dict) and isinstance(payload.get("name"), str):
        call = shown_call(payload["name"], given)
        title, given = call.line, None if call.lines else given
    inner = [*_block(_readable(given)), *_talk(node.children, depth + 1, heads)]
    if not (kind == "agent" and node.children):  # its last answer is the result
        inner += _block(_readable(result.get("output", result if kind == "mcp" else None)), "Result:")
    if error:
        inner += ["", f"**failed**: {_escaped(one_line(error, TITLE))}"]
    yield from _folded(mark + title, inner)
    if call is not None and call.lines:
        more = [f"… {noun(call.more, 'more line')}"] if call.more else []
        shown = (printable(f"{sign}{text}", keep="\t") for sign, text in call.lines)
        yield from ("", *fenced("diff", [*shown, *more]))


def _folded(title: str, lines: Iterable[str]) -> list[str]:
    """Return lines that a reader unfolds; the blank lines make Markdown of them."""
    inner = "\n".join(lines).strip("\n")
    return [f"<details><summary>{escape(printable(title))}</summary>", "", *inner.split("\n"), "", "</details>"]


def _block(lines: Iterable[str], label: str = "") -> list[str]:
    """Return lines in a code fence after a label; nothing for none."""
    whole = printable("\n".join(lines), keep="\n\t").strip("\n")
    return [*(["", label] if label else []), "", *fenced("text", whole.split("\n"))] if whole else []


def _readable(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield a decoded payload as lines: texts as they are, members after their names, what is in them indented."""
    if isinstance(value, str):
        yield from described(value).splitlines()
    elif depth > DEEPEST or not isinstance(value, dict | list):
        if value is not None:
            yield json.dumps(value, ensure_ascii=False)
    elif isinstance(value, dict) and value.keys() == {"type", "text"}:
        yield from _readable(value["text"], depth + 1)
    else:
        items = value.items() if isinstance(value, dict) else (("-", each) for each in value)
        for name, item in items:
            head = "- " if name == "-" else f"{name}: "
            lines = [*_readable(item, depth + 1)]
            if len(lines) == 1 or (lines and head == "- "):
                yield from (f"{head}{lines[0]}", *(f"  {line}" for line in lines[1:]))
            elif lines:
                yield from (head.rstrip(), *(f"    {line}" for line in lines))


_FENCE = re.compile(r"( {0,3})(`{3,}(?=[^`]*$)|~{3,})(.*)$")
_CODE = re.compile(r"(?<![\\`])(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")


def _words(text: str, *, breaks: bool = False) -> list[str]:
    """Return a text as Markdown that cannot break what is around it: no HTML, no open fence, lower headings.

    Args:
        breaks: whether each line stays one, as in what a person typed.
    """
    found: list[str] = []
    lines = printable("\n".join(described(text).splitlines()), keep="\n\t").strip("\n").split("\n")
    at = 0
    while at < len(lines):
        line, at = lines[at], at + 1
        if (fence := _FENCE.match(line)) is None:
            line = re.sub(r"^(#{1,6})(?=\s)", lambda marks: "#" * min(6, 2 + len(marks[1])), _without_html(line))
            found.append(f"{line}  " if breaks and line and "".join(lines[at : at + 1]) else line)
            continue
        closing = re.compile(rf" {{0,3}}{re.escape(fence[2][0])}{{{len(fence[2])},}}\s*$")
        end = next((n for n in range(at, len(lines)) if closing.match(lines[n])), len(lines))
        inner = [each.removeprefix(fence[1]) for each in lines[at:end]]
        # The fence is written anew without indent: a list item that ends cannot end it.
        found += fenced(re.sub(r"\W.*", "", fence[3].strip()), inner)
        at = end + 1
    return found


def _without_html(line: str) -> str:
    """Return a line in which no `<` begins a tag; code with one becomes `<code>`, as entities are text in backticks."""

    def code(found: re.Match[str]) -> str:
        if _TAG.search(found[0]) is None:
            return found[0]
        return "<code>" + re.sub(r"[^\w\s]", lambda each: f"&#{ord(each[0])};", found[2]) + "</code>"

    parts, at = [], 0
    for found in _CODE.finditer(line):
        parts += [_TAG.sub("&lt;", line[at : found.start()]), code(found)]
        at = found.end()
    return "".join([*parts, _TAG.sub("&lt;", line[at:])])
