"""Turns of a conversation, extracted from spans, and the threads that keep concurrent agents apart.

A span belongs to the thread of its nearest agent span. Below an agent, or outside any agent, branches with separate
conversations that overlap in time have a thread each. Consecutive spans of an agent that continue one conversation
share a thread, as in a program that creates an agent span for each question.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypedDict

from agentspan import jsontext
from agentspan.analysis import messages
from agentspan.analysis.messages import Call, Message, Part
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.aliases import USAGE_MEMBERS
from agentspan.schemas.span_types import error_in, error_text, fallback

MAX_TEXT = 20_000
"""The largest number of characters of a text in a turn; the span holds the whole text."""
MAX_ARGUMENTS = 200_000
"""The largest number of characters of arguments that are shown as JSON; longer ones are truncated and shown as text."""
_ANSWERED = ("text", "tool_calls", "output_messages", "output")
_FIGURES = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "cache_write_tokens",
        "reasoning_tokens",
        "cost_usd",
        "time_to_first_token_ms",
    }
)
# Usual reasons for which a model ended, which are not shown; unusual ones, such as a limit or a filter, are.
_USUAL_ENDS = frozenset({"stop", "end_turn", "tool_calls", "tool_use", "function_call", "STOP", "completed"})


class TurnCall(Call):
    """A tool call of a model. `same` is the number of the tool step's turn if the step has the same name and arguments.

    If the step has other ones, `differs` is the number of its turn instead.
    """

    same: int | None
    differs: int | None


class Turn(TypedDict):
    """A turn of the conversation: one message, or a step of a tool. Turns have numbers from 1, in their order.

    Attributes:
        span: the id of the span that the turn is from.
        thread: the id of the thread: the id of the span that began the thread, or "" outside any agent.
        agent: the name of the thread; None outside any agent.
        side: "in" for a message sent to a model, "out" for a model's answer, "" for other spans.
        role: system, user, assistant, tool, or another role of the program.
        text: the text of the message, or the output of the tool, with at most MAX_TEXT characters.
        length: the number of characters of the whole text.
        name: the name of the tool, model or author.
        arguments: the arguments of a tool as JSON text.
        calls: the tool calls of a model.
        asked_by: the id of the llm span that called the tool.
        others: all other members of the message, or of the span's payload and result.
        again: the turns that equal the other messages sent to the model, as ranges of first and last number.
        differs: the numbers of turns of the same tool call with a different text.
        error: the error of a failed span.
        at: the time of the turn, as stored text.
        status: the status of the span; `failed` also for a tool that returned an error.
        shown: the call of a tool in the session of a coding agent (see calls.Shown). An edit then has no `arguments`.
    """

    span: str
    thread: str
    agent: str | None
    side: str
    role: str
    text: str
    length: int
    name: str | None
    arguments: str | None
    calls: list[TurnCall]
    asked_by: str | None
    others: list[Part]
    again: list[tuple[int, int]]
    differs: list[int]
    error: str | None
    at: str
    status: str
    shown: dict[str, Any] | None


class Step(NamedTuple):
    """A tool span, decoded: its arguments and its output. `arguments` is None if they were not recorded.

    `error_texts` holds the texts of its error: the message, with and without the error's type.
    """

    span: AgentSpanRow
    name: str
    arguments: str | None
    output: Any
    text: str
    others: list[Part]
    error: str | None
    error_texts: tuple[str, ...]


def step_of(span: AgentSpanRow) -> Step:
    """Decode a tool span; return its arguments, output and error."""
    asked, result = jsontext.value_of(span.payload), jsontext.value_of(span.result_payload)
    payload = asked if isinstance(asked, dict) else {}
    arguments = payload.get("arguments")
    others = _strange(asked) + messages.rest(payload, {"name", "arguments", *_if_text(payload, "call_id")})
    output: Any = result
    if isinstance(result, dict):
        output = result.get("output") if result.keys() & {"output", "error", "error_type"} else result
        if output is not result:
            others += messages.rest(result, {"output", "error"} if error_in(result) is not result else result)
    text, parts = ("", []) if output is None or output == {} else messages.text_of(output)
    error, more = error_parts(result, span.status)
    return Step(
        span,
        payload["name"] if isinstance(payload.get("name"), str) else span.label or span.schema_title,
        None if arguments is None else arguments if isinstance(arguments, str) else messages.json_of(arguments),
        output,
        text,
        others + parts + more,
        error,
        () if error is None else (error, *_messages_of(error_in(result))),
    )


def call_id_of(span: AgentSpanRow) -> str | None:
    """Return the id of the call that a tool span executed; None if unknown."""
    payload = jsontext.value_of(span.payload) if '"call_id"' in span.payload else None
    call_id = payload.get("call_id") if isinstance(payload, dict) else None
    return call_id if isinstance(call_id, str) else None


def _messages_of(error: Any) -> list[str]:
    return [error["message"]] if isinstance(error, dict) and isinstance(error.get("message"), str) else []


def settings(payload: Any) -> list[Part]:
    """Return the settings of a model call, such as its tools: all payload members except messages and model name."""
    if not isinstance(payload, dict):
        return _strange(payload)
    return messages.rest(payload, {*messages.SYSTEM, *messages.SENT, *_if_text(payload, "model")})


def outcome(result: Any) -> list[Part]:
    """Return the members of a model's result to show beside its answer.

    Figures are left out, because the tree shows them; so are errors, and the usual reasons for which a model ended.
    """
    if not isinstance(result, dict) or error_in(result) is result:
        return []
    known = {name for name in (_FIGURES | USAGE_MEMBERS) & result.keys() if _is_figures(result[name])}
    for name in ("finish_reason", "stop_reason"):
        known |= {name} if isinstance(result.get(name), str) and result[name] in _USUAL_ENDS else set()
    return messages.rest(result, {*_ANSWERED, "error", *known})


def _is_figures(value: Any) -> bool:
    """Return whether a value is a number, or an object that contains only numbers."""
    if isinstance(value, dict):
        return all(item is None or _is_figures(item) for item in value.values())
    return isinstance(value, int | float)


def error_parts(result: Any, status: str) -> tuple[str | None, list[Part]]:
    """Return the error in a result as text; also as a part if the text does not contain the whole error."""
    error = error_in(result)
    if not error and status != "failed":
        return None, [] if error is None else [messages.part("error", error)]
    text = error_text(result) or (messages.json_of(error) if error else "failed")
    return text, [] if error is None or _is_said(error) else [messages.part("error", error)]


def _is_said(error: Any) -> bool:
    """Return whether the text `Type: message` contains the whole error."""
    if not isinstance(error, dict):
        return isinstance(error, str)
    is_text = error.keys() <= {"type", "message"} and all(isinstance(value, str) for value in error.values())
    return is_text and "." not in error.get("type", "")


def is_answer(message: Message, step: Step) -> bool:
    """Return whether a tool message equals the output of a tool step, as text or as JSON."""
    if message["others"]:
        return False
    if step.error is not None:
        return message["text"] in step.error_texts and step.output is None
    if message["text"] == step.text:
        return True
    return step.output is not None and messages.exact(message["text"]) == messages.exact(messages.json_of(step.output))


def is_call(call: Call, step: Step) -> bool | None:
    """Return whether a tool step has the name and arguments of a call; None if its arguments were not recorded."""
    if step.arguments is None:
        return None
    if call["name"] != step.name or call["others"]:
        return False
    return call["arguments"] == step.arguments or messages.exact(call["arguments"]) == messages.exact(step.arguments)


def arguments_of(text: str) -> str:
    """Return the arguments of a call for display: unchanged, or truncated if longer than MAX_ARGUMENTS."""
    if len(text) <= MAX_ARGUMENTS:
        return text
    return f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT:,} more characters in the span)"


def _strange(payload: Any) -> list[Part]:
    """Return a payload that is not an object as a part; it was wholly marked as sensitive, or written by hand."""
    return [] if isinstance(payload, dict) or payload is None else [messages.part("payload", payload)]


def _if_text(payload: dict[str, Any], name: str) -> set[str]:
    return {name} if isinstance(payload.get(name), str) else set()


Opening = tuple[Hashable, Hashable, int]
"""How an llm span's conversation begins: system prompt, first other message, and number of non-system messages."""


@dataclass(eq=False, slots=True)
class Thread:
    """A conversation of one agent, or of one of several concurrent branches.

    Attributes:
        id: the id of the first span of the thread; "" for spans outside any agent.
        name: the name of the agent, or the label or title of the branch's span; None outside any agent.
        parent: the thread in which this thread began; None for the outermost one.
    """

    id: str
    name: str | None
    parent: "Thread | None"


class _Branch(NamedTuple):
    """A child of an agent span (or of the run) in which models are called."""

    top: AgentSpanRow
    start: str
    end: str
    first: AgentSpanRow


class Threads:
    """Assigns the spans of a run to threads.

    Args:
        spans: all spans of the run, in order of time.
        opening: returns how the conversation of an llm span begins. It is called for few spans.
    """

    def __init__(self, spans: list[AgentSpanRow], opening: Callable[[AgentSpanRow], Opening | None]) -> None:
        self._spans = {span.id: span for span in spans}
        self._opening = opening
        self._outermost = Thread("", None, None)
        self._tops: dict[str, str] = {}
        self._scopes: dict[str, str] = {}
        for span in spans:
            self._place(span)
        self._ends = self._latest(spans)
        models = [span for span in spans if kind_of(span.schema_name) == "llm"]
        self._branches = self._find_branches(models)
        self._first: dict[str, AgentSpanRow] = {}
        for span in models:
            self._first.setdefault(self._scopes[span.id], span)
        self._of_scope: dict[str, Thread] = {"": self._outermost}
        self._of_branch: dict[str, Thread] = {}
        self._begun: dict[tuple[str, str | None, Hashable], tuple[Thread, str, int]] = {}
        for span in spans:
            if kind_of(span.schema_name) == "agent" and span.id not in self._of_scope:
                self._of_agent(span.id)
        for scope in {self._scopes[span.id] for span in models}:
            self._separate(scope)
        self._number(spans)

    def of(self, span: AgentSpanRow) -> Thread:
        """Return the thread of a span; not for agent spans."""
        found = self._of_branch.get(self._tops[span.id])
        return self._of_scope[self._scopes[span.id]] if found is None else found

    def _place(self, span: AgentSpanRow) -> None:
        """Find the nearest agent span of a span, and the topmost ancestor below it; store both, for ancestors too."""
        way: list[str] = []
        at: str | None = span.id
        seen: set[str] = set()
        while at is not None and at in self._spans and at not in self._tops and at not in seen:
            seen.add(at)  # rows made by hand can form a cycle
            way.append(at)
            at = self._spans[at].parent_span_id
        above = at if at in self._tops else None
        for id in reversed(way):
            if above is None:
                self._tops[id], self._scopes[id] = id, ""
            elif kind_of(self._spans[above].schema_name) == "agent":
                self._tops[id], self._scopes[id] = id, above
            else:
                self._tops[id], self._scopes[id] = self._tops[above], self._scopes[above]
            above = id

    def _latest(self, spans: Iterable[AgentSpanRow]) -> dict[str, str]:
        """Return the end of each agent span; for an open one, the latest known time of a span inside it."""
        ends: dict[str, str] = {}
        for span in spans:
            end = span.finished_at or start_of(span)
            scope = self._scopes[span.id]
            ends[scope] = max(ends.get(scope, ""), end)
            if kind_of(span.schema_name) == "agent":
                ends[span.id] = max(ends.get(span.id, ""), end)
        return ends

    def _find_branches(self, models: Iterable[AgentSpanRow]) -> dict[str, list[_Branch]]:
        found: dict[str, dict[str, _Branch]] = defaultdict(dict)
        for span in models:
            top, branches = self._tops[span.id], found[self._scopes[span.id]]
            start, end = start_of(span), span.finished_at or start_of(span)
            if (known := branches.get(top)) is None:
                branches[top] = _Branch(self._spans[top], start, end, span)
            elif end > known.end:
                branches[top] = known._replace(end=end)
        return {scope: list(branches.values()) for scope, branches in found.items()}

    def _of_agent(self, id: str) -> None:
        """Determine the threads of an agent span and of the agents around it."""
        way = []
        while id not in self._of_scope:
            way.append(id)
            id = self._scopes[id]
        for id in reversed(way):
            self._of_scope[id] = self._begin(self._spans[id], self._of_scope[self._scopes[id]])

    def _begin(self, span: AgentSpanRow, parent: Thread) -> Thread:
        """Return the thread that an agent span continues (same name, same first message, ended); else a new thread."""
        first = self._first.get(span.id)
        opening = None if first is None else self._opening(first)
        if opening is None:
            return Thread(span.id, span.label, parent)
        _, message, count = opening
        key = (parent.id, span.label, message)
        thread, ended, counted = self._begun.get(key, (None, "", 0))
        if thread is None or ended > start_of(span) or count <= counted:
            thread = Thread(span.id, span.label, parent)
        self._begun[key] = (thread, self._ends[span.id], count)
        return thread

    def _separate(self, scope: str) -> None:
        """Assign a thread to each branch of an agent that overlaps another; branches that continue a thread join it."""
        branches = self._branches[scope]
        overlapping = _overlapping(branches)
        if not overlapping:
            return
        lanes: list[list[_Branch]] = []
        free: dict[Hashable, list[tuple[str, int]]] = defaultdict(list)  # opening → (end, number) of its lanes
        for branch in branches:
            opening = self._opening(branch.first)
            alike = free[opening[:2] if opening is not None else branch.top.id]
            if alike and alike[0][0] <= branch.start:
                _, number = heapq.heappop(alike)
                lanes[number].append(branch)
            else:
                number = len(lanes)
                lanes.append([branch])
            heapq.heappush(alike, (branch.end, number))
        apart = [lane for lane in lanes if any(one.top.id in overlapping for one in lane)]
        # Among concurrent model calls without a span around them, the longest conversation is the agent's own.
        own = [lane for lane in apart if len(lane) > 1 and all(kind_of(one.top.schema_name) == "llm" for one in lane)]
        kept = max(own, key=len, default=None)
        for lane in apart:
            if lane is not kept:
                top = lane[0].top
                thread = Thread(top.id, top.label or top.schema_title, self._of_scope[scope])
                self._of_branch.update({one.top.id: thread for one in lane})

    def _number(self, spans: Iterable[AgentSpanRow]) -> None:
        """Number threads of equal names: worker, worker (2)."""
        shown = ("llm", "message", "tool")
        threads = dict.fromkeys(self.of(span) for span in spans if kind_of(span.schema_name) in shown)
        named: dict[str, int] = defaultdict(int)
        for thread in threads:
            if thread.name is not None:
                named[thread.name] += 1
                if named[thread.name] > 1:
                    thread.name = f"{thread.name} ({named[thread.name]})"


def _overlapping(branches: list[_Branch]) -> set[str]:
    """Return the ids of the top spans of branches that overlap another branch in time."""
    found: set[str] = set()
    latest: _Branch | None = None
    for branch in sorted(branches, key=lambda one: (one.start, one.end)):
        if latest is not None and branch.start < latest.end:
            found |= {branch.top.id, latest.top.id}
        if latest is None or branch.end > latest.end:
            latest = branch
    return found


def in_order(threads: Mapping[Thread, list[tuple[str, int]]]) -> list[tuple[Thread, int]]:
    """Return the items of all threads in one list: a nested thread is a block in its parent, at its start time.

    Args:
        threads: the items of each thread, as (time, number); threads without items may be missing.
    """
    below: dict[Thread, list[Thread]] = defaultdict(list)
    starts: dict[Thread, str] = {}
    top: Thread | None = None
    for thread, items in threads.items():
        start = min(time for time, _ in items)
        at: Thread | None = thread
        while at is not None:
            if at not in starts and at.parent is not None:
                below[at.parent].append(at)
            starts[at] = min(starts.get(at, start), start)
            top, at = at, at.parent
    ordered: list[tuple[Thread, int]] = []
    open_: list[tuple[Thread, int | None]] = [] if top is None else [(top, None)]
    while open_:
        thread, number = open_.pop()
        if number is not None:
            ordered.append((thread, number))
            continue
        parts: list[tuple[str, int, int, Thread, int | None]] = [
            *((time, 0, item, thread, item) for time, item in threads.get(thread, [])),
            *((starts[child], 1, place, child, None) for place, child in enumerate(below[thread])),
        ]
        open_ += [(of, item) for _, _, _, of, item in sorted(parts, key=lambda part: part[:3], reverse=True)]
    return ordered


@lru_cache(maxsize=1024)
def kind_of(schema_name: str) -> str:
    """Return the built-in type of spans with this schema_name."""
    return fallback(schema_name).name


def start_of(span: AgentSpanRow) -> str:
    """Return the time at which a span began, as stored text; of a pending one, when it was created."""
    return span.started_at or span.inserted_at
