"""The context of a model call: the elements that it read, each with its source, its size, and its span.

A recorded call has its messages in its payload. A call in the session file of a coding agent has none: its context is
replayed from all spans before it in the run, of the same agent, since the last compaction. The replay reads each span
of the run once.

Sizes in tokens are estimates: a quarter of the characters, scaled so that their sum is the number of input tokens that
the provider counted. A session file has neither the system prompt nor the definitions of tools. So the tokens that the
agent's first call has beyond its elements are attributed to these: they are one element, `unrecorded`, in each of the
agent's calls.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

from agentspan import jsontext
from agentspan.analysis import messages
from agentspan.analysis.messages import Message, json_of, text_of
from agentspan.analysis.tree import began
from agentspan.blobs import described
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.file_paths import path_in
from agentspan.storage.access import expect
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, Outlines, SpansOf
from agentspan.text import one_line

Source = Literal[
    "unrecorded", "instructions", "tools", "memory", "summary", "prompt", "steering", "answer", "file", "tool", "hook",
    "notice",
]  # fmt: skip
"""Where an element of a context came from."""
TITLES: Mapping[Source, str] = {
    "unrecorded": "not recorded",
    "instructions": "instructions",
    "tools": "tool definitions",
    "memory": "memory",
    "summary": "summaries",
    "prompt": "prompts",
    "steering": "steering",
    "answer": "answers",
    "file": "files read",
    "tool": "tool results",
    "hook": "hooks",
    "notice": "notices",
}
"""The names of the sources in a table, in the order of the table."""
ONE: Mapping[Source, str] = {
    "unrecorded": "not recorded",
    "instructions": "instructions",
    "tools": "tool definitions",
    "memory": "memory",
    "summary": "summary",
    "prompt": "prompt",
    "steering": "steering",
    "answer": "answer",
    "file": "file",
    "tool": "tool",
    "hook": "hook",
    "notice": "notice",
}
"""The names of one element of each source."""
READERS = ("read", "view", "open_file", "cat")
"""The beginnings and ends of the names of tools that read a file."""
EXCERPT = 120
"""The number of characters of an element that are shown."""
CHARACTERS = 4
"""The characters of a token, as an estimate."""
_ROLES: Mapping[str, Source] = {"system": "instructions", "assistant": "answer", "tool": "tool"}
_CALLS = ("tool", "mcp")
_IN_CONTEXT = frozenset({"llm", "message", "compaction", "hook", "event", "agent", *_CALLS})
_STARTING = ("SessionStart", "UserPromptSubmit")
"""The events of hooks whose plain output the model reads."""
_OF_EVENTS: Mapping[Source, str] = {
    "instructions": "base_instructions developer developer_instructions user_instructions environment_context",
    "tools": "deferred_tools_delta agent_listing_delta mcp_instructions_delta skill_listing dynamic_tools "
    "recommended_plugins",
    "memory": "nested_memory relevant_memories",
    "file": "file edited_text_file compact_file_reference opened_file_in_ide selected_lines_in_ide directory",
    "hook": "hook_additional_context",
    "notice": "diagnostics task_reminder todo todo_reminder date_change plan_mode plan_mode_exit auto_mode "
    "output_style task-notification task_status invoked_skills silent_turn_reminder subagent_notification",
}
_EVENTS: Mapping[str, Source] = {name: source for source, names in _OF_EVENTS.items() for name in names.split()}
"""The events whose content the model reads, by the names that coding agents give them, with their sources."""
_REMINDER = "<system-reminder>"
_CUT = "[cut by a microcompaction]"


class Element(NamedTuple):
    """One element of the context of a model call.

    Attributes:
        source: where it came from.
        name: the name of the tool, the path of the file, the name of the hook; None for others.
        characters: its size.
        tokens: its estimated size.
        span_id: the span that it came from; of a recorded call, the call itself.
        excerpt: its beginning on one line.
        digest: equal for elements with the same source and text.
        place: equal for two states of the same element, such as the result of one tool call before and after it was
            cut; None if nothing identifies the element.
    """

    source: Source
    name: str | None
    characters: int
    tokens: int
    span_id: str
    excerpt: str
    digest: str
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """The elements that a model call read.

    Attributes:
        span_id, run_id, summary, model: the call.
        input_tokens: the tokens that the provider counted; None if unknown.
        is_recorded: True if the call's own payload has the messages; False if they were taken from the run.
        elements: in the order of the conversation.
        compactions: the ids of the compactions before the call, under the same agent.
    """

    span_id: str
    run_id: str
    summary: str
    model: str | None
    input_tokens: int | None
    is_recorded: bool
    elements: tuple[Element, ...]
    compactions: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """The tokens of the context: those that the provider counted, else the sum of the estimates."""
        return sum(each.tokens for each in self.elements) if self.input_tokens is None else self.input_tokens


def contexts(storage: Storage, calls: Sequence[AgentSpanRow]) -> list[Context]:
    """Return the context of each of these model calls. Each run is read only once.

    Args:
        calls: whole spans of the type `llm`.

    Raises:
        InvalidValue: a span is no model call.
    """
    for call in calls:
        if built_in_part(call.schema_name) != "llm":
            raise InvalidValue("step", f"{call.id} is a {call.schema_name} step; only a model call has a context")
    found: dict[str, Context] = {}
    unread: dict[str, list[AgentSpanRow]] = {}
    for call in calls:
        if (own := _recorded(call)) is not None:
            found[call.id] = own
        else:
            unread.setdefault(call.agent_instance_id, []).append(call)
    for run_id, group in unread.items():
        found |= _of_run(storage, run_id, {call.id for call in group})
    return [found[call.id] for call in calls]


def largest_call(storage: Storage, run_id: str) -> AgentSpanRow | None:
    """Return the model call of a run with the most input tokens, the latest of equal ones; None without a call."""
    calls = [span for span in storage.ask(Outlines(run_id)) if built_in_part(span.schema_name) == "llm"]
    return _whole(storage, max(calls, key=lambda span: (span.input_tokens or 0, began(span)), default=None))


def previous_call(storage: Storage, call: AgentSpanRow) -> AgentSpanRow | None:
    """Return the model call before a call, under the same agent; None if it is the agent's first."""
    agents = _Agents(storage.ask(Outlines(call.agent_instance_id)))
    scope = agents.of(call.id)
    before = (
        span
        for span in agents.spans.values()
        if built_in_part(span.schema_name) == "llm" and began(span) < began(call) and agents.of(span.id) == scope
    )
    return _whole(storage, max(before, key=began, default=None))


def _whole(storage: Storage, span: AgentSpanRow | None) -> AgentSpanRow | None:
    """Return a span with its payloads, which outlines lack."""
    if span is None:
        return None
    return expect(storage.ask(Find(span.id, instance_id=span.agent_instance_id)), AgentSpanRow, span.id)


def _recorded(call: AgentSpanRow) -> Context | None:
    """Return the context of a call whose payload has messages; None if it has none."""
    payload = jsontext.decode(described(call.payload))
    if type(payload) is not dict or not any(payload.get(name) for name in messages.SENT):
        return None
    elements = []
    called: dict[str, tuple[str, Any]] = {}
    if payload.get("tools"):
        elements.append(_element("tools", None, json_of(payload["tools"]), call.id, place="tools"))
    for message, _ in messages.sent(payload):
        for each in message["calls"]:
            if each["id"] is not None:
                called[each["id"]] = each["name"], each["arguments"]
        elements.append(_of_message(message, call.id, called, len(elements)))
    return _context(call, elements, 0, is_recorded=True)


def _of_message(message: Message, span_id: str, called: Mapping[str, tuple[str, Any]], number: int) -> Element:
    source = _ROLES.get(message["role"], "prompt")
    name, arguments = called.get(message["call_id"] or "", (message["name"], None))
    path = None
    if source == "tool" and name is not None and arguments is not None:
        path = path_read(name, _decoded(arguments))
    calls = (f"{call['name']}({call['arguments']})" for call in message["calls"])
    texts = [message["text"], *calls, *(other["text"] for other in message["others"])]
    place = message["call_id"] if source == "tool" else f"system {number}" if source == "instructions" else None
    text = "\n".join(text for text in texts if text)
    return _element("file" if path else source, path or name, text, span_id, place=place)


def _decoded(text: str) -> Any:
    try:
        return jsontext.decode(text)
    except ValueError:
        return None


def path_read(tool: str, arguments: Any) -> str | None:
    """Return the path of the file that a call of a tool read; None if the tool reads no file."""
    name = tool.lower()
    return path_in(arguments) if name.startswith(READERS) or name.endswith(READERS) else None


def _element(source: Source, name: str | None, text: str, span_id: str, *, place: str | None = None) -> Element:
    digest = blake2b(f"{source}\0{text}".encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
    tokens = -(-len(text) // CHARACTERS)
    return Element(source, name, len(text), tokens, span_id, one_line(text, EXCERPT), digest, place)


def _context(
    call: AgentSpanRow,
    elements: Sequence[Element],
    unrecorded: int,
    *,
    is_recorded: bool = False,
    compactions: tuple[str, ...] = (),
) -> Context:
    """Return the context of a call, whose estimated tokens are scaled to the counted ones."""
    counted = call.input_tokens
    if counted is not None and unrecorded >= counted:
        unrecorded = 0  # of the prompt of the agent's first call, and this call has another one
    if counted is not None:
        elements = _scaled(elements, counted - unrecorded)
    if unrecorded:
        own = Element("unrecorded", None, 0, unrecorded, call.id, "system prompt, tools, memory", "unrecorded", None)
        elements = [own, *elements]
    return Context(
        call.id,
        call.agent_instance_id,
        call.summary or call.schema_title,
        call.label,
        counted,
        is_recorded,
        tuple(elements),
        compactions,
    )


def _scaled(elements: Sequence[Element], tokens: int) -> list[Element]:
    """Return elements whose tokens add up to `tokens`.

    The rounding error of each element is carried over to the next.
    """
    estimated = sum(each.tokens for each in elements)
    if not estimated:
        return [*elements]
    found, done, given = [], 0, 0
    for each in elements:
        done += each.tokens
        own = round(tokens * done / estimated) - given
        given += own
        found.append(each._replace(tokens=own))
    return found


class _Agents:
    """The agent of each span of a run: the id of the nearest agent span above it, or "" for the run itself."""

    def __init__(self, spans: Iterable[AgentSpanRow]) -> None:
        self.spans = {span.id: span for span in spans}
        self._known: dict[str, str] = {}

    def of(self, id: str) -> str:
        """Return the id of the agent span above a span; "" for the run itself."""
        way: list[str] = []
        at = self.above(id)
        while at and at not in self._known and at not in way and not self._is_agent(at):
            way.append(at)
            at = self.above(at)
        found = at if at and self._is_agent(at) else self._known.get(at, "")
        self._known.update(dict.fromkeys(way, found))
        return found

    def above(self, id: str) -> str:
        """Return the id of the span above a span; "" if there is none in the run."""
        parent = self.spans[id].parent_span_id or ""
        return parent if parent in self.spans else ""

    def is_inside_call(self, id: str) -> bool:
        """Return whether the span above is a tool call: its result is part of that call's result."""
        above = self.above(id)
        return bool(above) and built_in_part(self.spans[above].schema_name) in _CALLS

    def _is_agent(self, id: str) -> bool:
        return built_in_part(self.spans[id].schema_name) == "agent"


class _Event(NamedTuple):
    """A span of a run that is part of contexts: when it started and ended, and the elements that it adds.

    Attributes:
        kind: the built-in span type.
        is_gone: whether the step belongs to a branch that a person left by going back.
        cut: the ids of the calls whose results a microcompaction cut; None for any other step.
    """

    began: tuple[str, str]
    ended: str | None
    kind: str
    span: AgentSpanRow
    elements: tuple[Element, ...]
    is_gone: bool
    cut: frozenset[str] | None = None


def _of_run(storage: Storage, run_id: str, calls: set[str]) -> dict[str, Context]:
    """Return the contexts of calls of one run whose payloads have no messages."""
    agents = _Agents(storage.ask(Outlines(run_id)))
    scopes = {agents.of(id) for id in calls}
    events: dict[str, list[_Event]] = {scope: [] for scope in scopes}
    goals: dict[str, Element] = {}
    for span in storage.ask(SpansOf(run_id)):
        kind = built_in_part(span.schema_name)
        if kind not in _IN_CONTEXT or span.id not in agents.spans:
            continue
        if span.id in scopes and (goal := _goal(span)) is not None:
            goals[span.id] = goal
        scope = agents.of(span.id)
        is_inside = kind in ("agent", *_CALLS) and agents.is_inside_call(span.id)
        if scope in scopes and not is_inside:
            events[scope].append(_event(span, kind))
    found: dict[str, Context] = {}
    for scope, own in events.items():
        found |= _Replay(goals.get(scope), calls).run(own)
    return found


def _goal(agent: AgentSpanRow) -> Element | None:
    payload = jsontext.decode(described(agent.payload))
    goal = payload.get("goal") or payload.get("input") if type(payload) is dict else None
    return None if not goal else _element("prompt", None, _text(goal), agent.id)


def _event(span: AgentSpanRow, kind: str) -> _Event:
    payload = _object(span.payload)
    result = _object(span.result_payload)
    # The row without its payloads: many thousands of them are kept until they are sorted.
    light = span._replace(payload="{}", result_payload=None)
    is_gone = payload.get("rewound") is True or (kind == "message" and span.status == "cancelled")
    elements = tuple(_elements(light, kind, payload, result))
    cut = None
    if kind == "compaction" and payload.get("micro") is True:
        details = payload.get("details")
        ids = details.get("compactedToolIds") if type(details) is dict else None
        cut = frozenset(id for id in ids if type(id) is str) if type(ids) is list else frozenset()
    return _Event(began(span), span.finished_at, kind, light, elements, is_gone, cut)


def _object(text: str | None) -> dict[str, Any]:
    found = None if text is None else jsontext.decode(described(text))
    return found if type(found) is dict else {}


def _text(value: Any) -> str:
    if value is None:
        return ""
    text, others = text_of(value)
    return "\n".join([text, *(each["text"] for each in others)]) if others else text


def _elements(
    span: AgentSpanRow, kind: str, payload: Mapping[str, Any], result: Mapping[str, Any]
) -> Iterator[Element]:
    """Yield the elements that a step adds to the contexts after it."""
    name, place = span.label, None
    match kind:
        case "message":
            role = payload.get("role")
            source: Source = "steering" if payload.get("steering") else _ROLES.get(str(role), "prompt")
            text = _text(payload.get("content"))
            if source == "instructions" and text.startswith(_REMINDER):
                source = "hook" if " hook " in text[:EXCERPT] else "notice"
        case "llm":
            source, name, text = "answer", None, _answer(result)
        case "compaction":
            source, name, text = "summary", None, _text(result.get("summary"))
        case "hook":
            source, text = "hook", _hook_text(payload, result)
        case "event":
            source, content = _EVENTS.get(name or "", "notice"), payload.get("content")
            text = _text(_innermost(content)) if name in _EVENTS else ""
            name = path_in(content) or name
        case _:
            name = f"{payload.get('server')} {payload.get('target')}" if kind == "mcp" else name
            path = path_read(name or "", payload.get("arguments"))
            source, name = ("file", path) if path else ("tool", name)
            text = _text(result.get("output", result.get("result")) or result.get("error"))
            place = call_id if type(call_id := payload.get("call_id")) is str else None
    if text:
        yield _element(source, name, text, span.id, place=place)


def _hook_text(payload: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Return the text that a hook adds to the context: its additional context, or its output that is no JSON object."""
    added = result.get("additional_context") or payload.get("additional_context")
    output = result.get("output")
    if not added and payload.get("event") in _STARTING and type(output) is str and not output.startswith("{"):
        added = output
    return _text(added)


def _innermost(content: Any) -> Any:
    """Return the innermost content of an event, whose content may be an object that has a content itself."""
    while type(content) is dict and content.get("content"):
        content = content["content"]
    return content


def _answer(result: Mapping[str, Any]) -> str:
    made = messages.calls(result.get("tool_calls"))
    texts = [_text(result.get("text")), *(f"{call['name']}({call['arguments']})" for call in made)]
    return "\n".join(text for text in texts if text)


def _cut(element: Element, ids: frozenset[str]) -> Element:
    """Return an element, cut if it is the result of one of these calls."""
    if element.place not in ids or element.excerpt == _CUT:
        return element
    return _element(element.source, element.name, _CUT, element.span_id, place=element.place)


@dataclass(slots=True)
class _Replay:
    """The conversation of one agent, replayed up to each of its calls.

    Attributes:
        goal: the task of a sub-agent, which is its first element unless a message is.
        calls: the ids of the calls whose contexts are wanted.
        elements: the context so far.
        waiting: calls of tools that have not ended before the model call that follows them.
        unrecorded: the tokens of the first call beyond its elements; None before that call.
        is_gone: whether the steps that come next, if they are cancelled, belong to a branch that was left.
    """

    goal: Element | None
    calls: set[str]
    elements: list[Element] = field(default_factory=list)
    waiting: list[_Event] = field(default_factory=list)
    compactions: list[str] = field(default_factory=list)
    unrecorded: int | None = None
    is_gone: bool = False

    def run(self, events: list[_Event]) -> dict[str, Context]:
        """Return the contexts of the wanted calls."""
        found: dict[str, Context] = {}
        events.sort(key=lambda event: event.began)
        if self.goal is not None and not any(event.kind == "message" for event in events[:3]):
            self.elements.append(self.goal)
        for event in events:
            if self._is_left(event):
                if event.span.id in self.calls:
                    found[event.span.id] = self._context(event.span)
                continue
            if event.kind == "llm":
                self._read(event, found)
            elif event.cut is not None:
                self.elements = [_cut(each, event.cut) for each in self.elements]
            elif event.kind == "compaction":
                self.elements, self.waiting = [*event.elements], []
                self.compactions.append(event.span.id)
            elif event.kind in ("agent", *_CALLS):
                self.waiting.append(event)
            else:
                self._take_ended(event.began[0])
                self.elements += event.elements
        return found

    def _is_left(self, event: _Event) -> bool:
        if event.kind == "message":
            self.is_gone = event.is_gone
        return event.is_gone or (self.is_gone and event.span.status == "cancelled")

    def _read(self, event: _Event, found: dict[str, Context]) -> None:
        # A call reads the results of the tools called before it, but not of one that still runs in the background.
        self._take_ended(event.ended or event.began[0])
        counted = event.span.input_tokens
        if self.unrecorded is None and counted is not None:
            self.unrecorded = max(0, counted - sum(each.tokens for each in self.elements))
        if event.span.id in self.calls:
            found[event.span.id] = self._context(event.span)
        self.elements += event.elements

    def _take_ended(self, at: str) -> None:
        still = []
        for each in self.waiting:
            if each.ended is not None and each.ended <= at:
                self.elements += each.elements
            else:
                still.append(each)
        self.waiting = still

    def _context(self, call: AgentSpanRow) -> Context:
        return _context(call, self.elements, self.unrecorded or 0, compactions=tuple(self.compactions))


def short_name(name: str) -> str:
    """Return the last two parts of a path; another name unchanged."""
    parts = name.split("/")
    return name if len(parts) < 3 else "/".join(parts[-2:])


class Share(NamedTuple):
    """The part of one source in a context, or in a change of it: elements, characters, tokens."""

    source: Source
    elements: int
    characters: int
    tokens: int
    names: tuple[tuple[str, int], ...] = ()


MOST_NAMES = 5
"""The most names that a share lists: the files, or the tools, with the most tokens."""


def by_source(elements: Iterable[Element]) -> list[Share]:
    """Return the share of each source in elements, the largest first, with the names that have the most tokens."""
    sums: dict[Source, list[int]] = {}
    names: dict[Source, dict[str, int]] = {}
    for each in elements:
        own = sums.setdefault(each.source, [0, 0, 0])
        for place, number in enumerate((1, each.characters, each.tokens)):
            own[place] += number
        if each.name is not None:
            of_name = names.setdefault(each.source, {})
            of_name[each.name] = of_name.get(each.name, 0) + each.tokens
    shares = []
    for source, (number, characters, tokens) in sums.items():
        largest = sorted(names.get(source, {}).items(), key=lambda pair: -pair[1])[:MOST_NAMES]
        shares.append(Share(source, number, characters, tokens, tuple(largest)))
    return sorted(shares, key=lambda share: -share.tokens)


def plain_context(found: Context) -> dict[str, Any]:
    """Return a context as a JSON object, with its sums by source."""
    return {
        **{name: getattr(found, name) for name in FACTS},
        "tokens": found.tokens,
        "compactions": list(found.compactions),
        "by_source": [_plain_share(share) for share in by_source(found.elements)],
        "elements": [numbered(number, each) for number, each in enumerate(found.elements, start=1)],
    }


def _plain_share(share: Share) -> dict[str, Any]:
    return share._asdict() | {"names": [list(pair) for pair in share.names]}


def numbered(number: int, element: Element) -> dict[str, Any]:
    """Return an element as a JSON object, with its number in its context."""
    return {"number": number, **element._asdict()}


FACTS = ("span_id", "run_id", "summary", "model", "input_tokens", "is_recorded")
"""The members of a context that are written as they are."""
