"""The conversation of a run as messages of OpenAI's chat form, each once: what a model is sent again is left out.

It is that of the outermost models: what agents within agents, and tools, said among themselves is no part of it. The
viewer's conversation has all threads (viewer.conversation).
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, TypedDict

from agentspan.analysis import messages
from agentspan.analysis.messages import Message
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.aggregates import built_in_part
from agentspan.schemas.meaning import error_text


class Function(TypedDict):
    """The tool that a model wants called, its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A tool call; `type` is always `function`."""

    id: str
    type: str
    function: Function


class ChatMessage(TypedDict):
    """A message; `name` and `tool_call_id` are "" where there is none. Images and the like are left out."""

    role: str
    content: str
    name: str
    tool_calls: list[ToolCall] | None
    tool_call_id: str


def conversation(spans: Sequence[AgentSpanRow]) -> list[ChatMessage]:
    """Return the conversation in the spans of a run, the system prompt of its first call first."""
    reader = _Reader()
    for span in sorted(_outermost(spans), key=lambda span: (span.started_at or span.inserted_at, span.id)):
        match built_in_part(span.schema_name):
            case "message":
                reader.read_message(span)
            case "llm":
                reader.read_llm(span)
            case "tool":
                reader.read_tool(span)
    return _with_ids([_chat(message) for message in (*reader.system, *reader.said)])


def _outermost(spans: Sequence[AgentSpanRow]) -> list[AgentSpanRow]:
    """Return the spans that are within no more agents and tools than the outermost model is."""
    by_id = {span.id: span for span in spans}
    depths: dict[str, int] = {}
    for span in spans:
        way: list[AgentSpanRow] = []
        at: AgentSpanRow | None = span
        while at is not None and at.id not in depths and at not in way:  # rows made by hand may be their own ancestors
            way.append(at)
            at = by_id.get(at.parent_span_id or "")
        for each in reversed(way):
            above = by_id.get(each.parent_span_id or "")
            is_deeper = above is not None and built_in_part(above.schema_name) in ("agent", "tool")
            depths[each.id] = depths.get(each.parent_span_id or "", 0) + is_deeper
    models = [depths[span.id] for span in spans if built_in_part(span.schema_name) == "llm" and not span.is_aggregate]
    deepest = min(models, default=max(depths.values(), default=0))
    return [span for span in spans if depths[span.id] <= deepest and not span.is_aggregate]


class _Reader:
    """Reads spans in order.

    Attributes:
        system: the system prompt of the first call.
        said: the other messages.
    """

    def __init__(self) -> None:
        self.system: list[Message] = []
        self.said: list[Message] = []
        self._known: messages.Known = {}
        self._places: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._answers: list[int] = []  # answers of tool spans that no model was sent so far

    def read_message(self, span: AgentSpanRow) -> None:
        for message in messages.spoken(span):
            if message["role"] == "system":
                self.system += [] if self.system else [message]
            elif not (message["role"] == "assistant" and self.said and self.said[-1]["text"] == message["text"]):
                self._add(message)

    def read_llm(self, span: AgentSpanRow) -> None:
        payload = messages.value_of(span.payload)
        if isinstance(payload, dict) and "duplicate_of" in payload:
            return
        sent = messages.sent(payload, self._known)
        self.system = self.system or [message for message, _ in sent if message["role"] == "system"]
        sent = [(message, key) for message, key in sent if message["role"] != "system"]
        seen: Counter[tuple[str, ...]] = Counter()
        for message, key in sent:
            seen[key] += 1
            places = self._places[key]
            if seen[key] <= len(places) and not (message is sent[-1][0] and self._is_next(message)):
                self._complete(places[seen[key] - 1], message)
            elif message["role"] == "tool" and (at := self._answer(message)) is not None:
                self.said[at] = {**message, "name": message["name"] or self.said[at]["name"]}
                places.append(at)
            else:
                self._add(message)
        for message in messages.answered(messages.value_of(span.result_payload)):
            if message["text"] or message["calls"]:
                self._add(message)

    def read_tool(self, span: AgentSpanRow) -> None:
        payload, result = messages.value_of(span.payload), messages.value_of(span.result_payload)
        output = result.get("output", result) if isinstance(result, dict) else result
        text = error_text(result) if span.status == "failed" and output is result else None
        if text is None:
            text = "" if output is None or output == {} else messages.text_of(output)[0]
        call_id = payload.get("call_id") if isinstance(payload, dict) else None
        answer = messages.answer_of(text, span.label, call_id if isinstance(call_id, str) else None)
        self._answers.append(len(self.said))
        self.said.append(answer)

    def _add(self, message: Message) -> None:
        self._places[messages.key_of(message)].append(len(self.said))
        self.said.append(message)

    def _is_next(self, message: Message) -> bool:
        """Return whether a user says the same again: a program may send the latest message without the history."""
        last = self.said[-1] if self.said else None
        return message["role"] == "user" and last is not None and last["role"] == "assistant" and not last["calls"]

    def _complete(self, at: int, again: Message) -> None:
        """Take the ids of calls from a message that is sent again, where the answer had none."""
        if any(call["id"] is None for call in self.said[at]["calls"]):
            self.said[at] = {**self.said[at], "calls": again["calls"]}

    def _answer(self, message: Message) -> int | None:
        """Return the place of the tool span whose answer this is: of that call, with that text, else the first."""
        left, call_id = self._answers, message["call_id"]
        of_call = [at for at in left if call_id is not None and self.said[at]["call_id"] == call_id]
        of_text = [at for at in left if self.said[at]["text"] == message["text"]]
        unnamed = [at for at in left if call_id is None or self.said[at]["call_id"] is None]
        found = next(iter([*of_call, *of_text, *unnamed]), None)
        if found is not None:
            left.remove(found)
        return found


def _chat(message: Message) -> ChatMessage:
    made: list[ToolCall] = [
        {"id": call["id"] or "", "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for call in message["calls"]
    ]
    return {
        "role": message["role"],
        "content": message["text"],
        "name": message["name"] or "",
        "tool_calls": made or None,
        "tool_call_id": message["call_id"] or "",
    }


def _with_ids(said: list[ChatMessage]) -> list[ChatMessage]:
    """Give calls without an id one, and their answers, which follow in their order."""
    left: list[ToolCall] = []
    for number, message in enumerate(said, start=1):
        if message["tool_calls"]:
            left = [*message["tool_calls"]]
            for place, call in enumerate(left, start=1):
                call["id"] = call["id"] or f"call_{number}_{place}"
        elif message["role"] == "tool" and left:
            same = [call for call in left if call["id"] == message["tool_call_id"]]
            call = (same or [call for call in left if call["function"]["name"] == message["name"]] or left)[0]
            message["tool_call_id"] = message["tool_call_id"] or call["id"]
            left.remove(call)
    return said


def first_of(said: Sequence[ChatMessage], role: str) -> str | None:
    """Return the text of the first message of a role that has one."""
    return next((message["content"] for message in said if message["role"] == role and message["content"]), None)


def answer_in(said: Sequence[ChatMessage]) -> str | None:
    """Return the last text that a model said."""
    return first_of([*reversed(said)], "assistant")


def as_text(value: Any) -> str | None:
    """Return a value as one text: a text as it is, another value as JSON."""
    return value if value is None or isinstance(value, str) else messages.json_of(value)
