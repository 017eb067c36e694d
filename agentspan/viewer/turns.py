"""The words of agents, as turns: the contents of the spans of a conversation, in threads.

When agents run at the same time, what they say is not mixed. A span is in the thread of its nearest agent span. Below
an agent, or outside any, branches with conversations of their own that overlap in time have a thread each. Spans of an
agent that follow each other and continue one conversation, as in a program that makes an agent span for each question,
are one thread.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict

from agentspan.analysis import messages
from agentspan.analysis.messages import SENT, SYSTEM, Call, Message, Part, exact, value_of
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.aliases import USAGE_MEMBERS
from agentspan.schemas.meaning import error_of, error_text
from agentspan.schemas.span_types import fallback

MAX_TEXT = 20_000
"""Characters of a text that a turn shows; the span has all of it."""
MAX_ARGUMENTS = 200_000
"""Characters of arguments that are shown as JSON; of longer ones the beginning is shown, as text."""
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
# Why a model ended, where that is as usual; a limit or a filter is shown.
_USUAL_ENDS = frozenset({"stop", "end_turn", "tool_calls", "tool_use", "function_call", "STOP", "completed"})


class TurnCall(Call):
    """A call that a model asked for. `same` is the turn of the tool's step if that is equal, else `differs` is."""

    same: int | None
    differs: int | None


class Turn(TypedDict):
    """A turn of the conversation: one message, or a step of a tool. Turns have numbers from 1, in their order.

    Attributes:
        span: the span that it is from.
        thread: the thread that it is in: the id of the span that began it, or "" outside any agent.
        agent: the thread's name; None outside any agent.
        side: "in" what a model was sent, "out" what it answered, "" of other spans.
        role: system, user, assistant, tool, or what the program calls it.
        text: the message; of a tool, its output.
        length: characters of the whole text, of which `text` has at most MAX_TEXT.
        name: the tool's, model's or author's.
        arguments: a tool's, as JSON text.
        calls: tools that the model asked for.
        asked_by: the span of the model that called the tool.
        others: what else the message, or the span's payload and result, hold.
        again: what the model was sent besides new turns: equal to these turns, each range by its first and last number.
        differs: turns of the same call that say something else.
        error: what a failed span died of.
        at: when.
        status: the span's; `failed` of a tool that returned an error, too.
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


class Step(NamedTuple):
    """A tool span: what it was given and what it returned. `arguments` is None where they were not recorded.

    `said` are the texts of its error: its message, with and without the type.
    """

    span: AgentSpanRow
    call_id: str | None
    name: str
    arguments: str | None
    output: Any
    text: str
    others: list[Part]
    error: str | None
    said: tuple[str, ...]


def step_of(span: AgentSpanRow) -> Step:
    """Return a tool span as a step."""
    asked, result = value_of(span.payload), value_of(span.result_payload)
    payload = asked if isinstance(asked, dict) else {}
    call_id, arguments = payload.get("call_id"), payload.get("arguments")
    others = _strange(asked) + messages.rest(payload, {"name", "arguments", *_if_text(payload, "call_id")})
    output: Any = result
    if isinstance(result, dict):
        output = result.get("output") if result.keys() & {"output", "error", "error_type"} else result
        if output is not result:
            others += messages.rest(result, {"output", "error"} if error_of(result) is not result else result)
    text, parts = ("", []) if output is None or output == {} else messages.text_of(output)
    error, more = error_parts(result, span.status)
    return Step(
        span,
        call_id if isinstance(call_id, str) else None,
        payload["name"] if isinstance(payload.get("name"), str) else span.label or span.schema_title,
        None if arguments is None else arguments if isinstance(arguments, str) else messages.json_of(arguments),
        output,
        text,
        others + parts + more,
        error,
        () if error is None else (error, *_messages_of(error_of(result))),
    )


def _messages_of(error: Any) -> list[str]:
    return [error["message"]] if isinstance(error, dict) and isinstance(error.get("message"), str) else []


def settings(payload: Any) -> list[Part]:
    """Return what a model was given besides messages, such as its tools."""
    if not isinstance(payload, dict):
        return _strange(payload)
    return messages.rest(payload, {*SYSTEM, *SENT, *_if_text(payload, "model")})


def outcome(result: Any) -> list[Part]:
    """Return what a model's result holds besides its answer, its figures, which the tree has, and an end as usual."""
    if not isinstance(result, dict) or error_of(result) is result:
        return []
    known = {name for name in (_FIGURES | USAGE_MEMBERS) & result.keys() if _is_figures(result[name])}
    for name in ("finish_reason", "stop_reason"):
        known |= {name} if isinstance(result.get(name), str) and result[name] in _USUAL_ENDS else set()
    return messages.rest(result, {*_ANSWERED, "error", *known})


def _is_figures(value: Any) -> bool:
    """Return whether a value is a number, or an object of such."""
    if isinstance(value, dict):
        return all(item is None or _is_figures(item) for item in value.values())
    return isinstance(value, int | float)


def error_parts(result: Any, status: str) -> tuple[str | None, list[Part]]:
    """Return the error in a result as a text, and as a part where the text has not all of it."""
    error = error_of(result)
    if not error and status != "failed":
        return None, [] if error is None else [messages.part("error", error)]
    text = error_text(result) or (messages.json_of(error) if error else "failed")
    return text, [] if error is None or _is_said(error) else [messages.part("error", error)]


def _is_said(error: Any) -> bool:
    """Return whether `Type: message` is all of an error."""
    if not isinstance(error, dict):
        return isinstance(error, str)
    is_text = error.keys() <= {"type", "message"} and all(isinstance(value, str) for value in error.values())
    return is_text and "." not in error.get("type", "")


def is_answer(message: Message, step: Step) -> bool:
    """Return whether a tool's message says what the tool's step returned, as text or as its JSON."""
    if message["others"]:
        return False
    if step.error is not None:
        return message["text"] in step.said and step.output is None
    if message["text"] == step.text:
        return True
    return step.output is not None and exact(message["text"]) == exact(messages.json_of(step.output))


def is_call(call: Call, step: Step) -> bool | None:
    """Return whether a step did what a model asked for; None where that was not recorded."""
    if step.arguments is None:
        return None
    if call["name"] != step.name or call["others"]:
        return False
    return call["arguments"] == step.arguments or exact(call["arguments"]) == exact(step.arguments)


def arguments_of(text: str) -> str:
    """Return arguments as a turn shows them."""
    if len(text) <= MAX_ARGUMENTS:
        return text
    return f"{text[:MAX_TEXT]}… ({len(text) - MAX_TEXT:,} more characters in the span)"


def _strange(payload: Any) -> list[Part]:
    """Return a payload that is no object: all of it was marked as sensitive, or it was written by hand."""
    return [] if isinstance(payload, dict) or payload is None else [messages.part("payload", payload)]


def _if_text(payload: dict[str, Any], name: str) -> set[str]:
    return {name} if isinstance(payload.get(name), str) else set()


Opening = tuple[Hashable, Hashable, int]
"""The beginning of an llm span's conversation: its system prompt, the message after it, and how many follow."""


@dataclass(eq=False, slots=True)
class Thread:
    """A thread.

    Attributes:
        id: that of the span that it began with; "" for what is outside any agent.
        name: the agent's, or of a branch the label or title of its span; None outside any agent.
        parent: the thread in which it began; None for the outermost.
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
    """The threads of a run.

    Args:
        spans: all of the run, in order of time.
        opening: returns how an llm span's conversation begins. It is called for few spans.
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
        models = [span for span in spans if _kind(span) == "llm"]
        self._branches = self._find_branches(models)
        self._first: dict[str, AgentSpanRow] = {}
        for span in models:
            self._first.setdefault(self._scopes[span.id], span)
        self._of_scope: dict[str, Thread] = {"": self._outermost}
        self._of_branch: dict[str, Thread] = {}
        self._begun: dict[tuple[str, str | None, Hashable], tuple[Thread, str, int]] = {}
        for span in spans:
            if _kind(span) == "agent" and span.id not in self._of_scope:
                self._of_agent(span.id)
        for scope in {self._scopes[span.id] for span in models}:
            self._separate(scope)
        self._number(spans)

    def of(self, span: AgentSpanRow) -> Thread:
        """Return the thread of a span that is no agent span."""
        found = self._of_branch.get(self._tops[span.id])
        return self._of_scope[self._scopes[span.id]] if found is None else found

    def _place(self, span: AgentSpanRow) -> None:
        """Find a span's nearest agent span, and its highest ancestor below that; remember both for all on the way."""
        way: list[str] = []
        at: str | None = span.id
        seen: set[str] = set()
        while at is not None and at in self._spans and at not in self._tops and at not in seen:
            seen.add(at)  # rows made by hand may be their own ancestors
            way.append(at)
            at = self._spans[at].parent_span_id
        above = at if at in self._tops else None
        for id in reversed(way):
            if above is None:
                self._tops[id], self._scopes[id] = id, ""
            elif _kind(self._spans[above]) == "agent":
                self._tops[id], self._scopes[id] = id, above
            else:
                self._tops[id], self._scopes[id] = self._tops[above], self._scopes[above]
            above = id

    def _latest(self, spans: Iterable[AgentSpanRow]) -> dict[str, str]:
        """Return when each agent span ended; while it is open, the last time that is known of a span in it."""
        ends: dict[str, str] = {}
        for span in spans:
            end = span.finished_at or _start(span)
            scope = self._scopes[span.id]
            ends[scope] = max(ends.get(scope, ""), end)
            if _kind(span) == "agent":
                ends[span.id] = max(ends.get(span.id, ""), end)
        return ends

    def _find_branches(self, models: Iterable[AgentSpanRow]) -> dict[str, list[_Branch]]:
        found: dict[str, dict[str, _Branch]] = defaultdict(dict)
        for span in models:
            top, branches = self._tops[span.id], found[self._scopes[span.id]]
            start, end = _start(span), span.finished_at or _start(span)
            if (known := branches.get(top)) is None:
                branches[top] = _Branch(self._spans[top], start, end, span)
            elif end > known.end:
                branches[top] = known._replace(end=end)
        return {scope: list(branches.values()) for scope, branches in found.items()}

    def _of_agent(self, id: str) -> None:
        """Find the thread of an agent span, and of the agents around it."""
        way = []
        while id not in self._of_scope:
            way.append(id)
            id = self._scopes[id]
        for id in reversed(way):
            self._of_scope[id] = self._begin(self._spans[id], self._of_scope[self._scopes[id]])

    def _begin(self, span: AgentSpanRow, parent: Thread) -> Thread:
        """Return the thread that an agent span continues, if one of its name began in the same way; else a new one."""
        first = self._first.get(span.id)
        opening = None if first is None else self._opening(first)
        if opening is None:
            return Thread(span.id, span.label, parent)
        _, message, count = opening
        key = (parent.id, span.label, message)
        thread, ended, counted = self._begun.get(key, (None, "", 0))
        if thread is None or ended > _start(span) or count <= counted:
            thread = Thread(span.id, span.label, parent)
        self._begun[key] = (thread, self._ends[span.id], count)
        return thread

    def _separate(self, scope: str) -> None:
        """Give branches of an agent that overlap others a thread each; those that continue another join it."""
        branches = self._branches[scope]
        overlapping = _overlapping(branches)
        if not overlapping:
            return
        lanes: list[list[_Branch]] = []
        free: dict[Hashable, list[tuple[str, int]]] = defaultdict(list)  # of lanes that began alike, when each ended
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
        # Of calls beside each other without a span around them, the longest conversation is the agent's own.
        own = [lane for lane in apart if len(lane) > 1 and all(_kind(one.top) == "llm" for one in lane)]
        kept = max(own, key=len, default=None)
        for lane in apart:
            if lane is not kept:
                top = lane[0].top
                thread = Thread(top.id, top.label or top.schema_title, self._of_scope[scope])
                self._of_branch.update({one.top.id: thread for one in lane})

    def _number(self, spans: Iterable[AgentSpanRow]) -> None:
        """Make the names of threads different: worker, worker (2)."""
        threads = dict.fromkeys(self.of(span) for span in spans if _kind(span) in ("llm", "message", "tool"))
        named: dict[str, int] = defaultdict(int)
        for thread in threads:
            if thread.name is not None:
                named[thread.name] += 1
                if named[thread.name] > 1:
                    thread.name = f"{thread.name} ({named[thread.name]})"


def _overlapping(branches: list[_Branch]) -> set[str]:
    """Return the branches that ran at the same time as another."""
    found: set[str] = set()
    latest: _Branch | None = None
    for branch in sorted(branches, key=lambda one: (one.start, one.end)):
        if latest is not None and branch.start < latest.end:
            found |= {branch.top.id, latest.top.id}
        if latest is None or branch.end > latest.end:
            latest = branch
    return found


def in_order(threads: Mapping[Thread, list[tuple[str, int]]]) -> list[tuple[Thread, int]]:
    """Return what threads hold as one list: a thread is a block in the one in which it began, at its own beginning.

    Args:
        threads: of each thread its items, as a time and a number; a thread without items may be missing.
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


def _kind(span: AgentSpanRow) -> str:
    return fallback(span.schema_name).name


def _start(span: AgentSpanRow) -> str:
    return span.started_at or span.inserted_at
