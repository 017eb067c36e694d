"""The conversation of a run: the messages of its llm, tool and message spans, each once, in order of time.

A model is sent the whole conversation again with every call; what was shown before is passed over. A tool's call and
its answer are one turn.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypedDict

from agentspan import jsontext
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.meaning import error_text
from agentspan.schemas.span_types import fallback
from agentspan.viewer import messages
from agentspan.viewer.messages import Call, Message

MAX_TEXT = 20_000
"""Characters of a text that a turn shows; the span has all of it."""


class Turn(TypedDict):
    """A turn of the conversation: one message.

    Attributes:
        span: the span that it is from.
        role: system, user, assistant, tool, or what the program calls it.
        text: the message; of a tool, its answer.
        length: characters of the whole text, of which `text` has at most MAX_TEXT.
        name: the tool's or model's.
        arguments: a tool's, as JSON text.
        calls: tools that the model asked for and whose answers are no turns of their own.
        asked_by: the span of the model that called the tool.
        others: parts that are no text, such as `image_url`.
        error: what a failed span died of.
        agent: the agent in whose span it was said, where there is one.
        at: when.
        status: the span's.
    """

    span: str
    role: str
    text: str
    length: int
    name: str | None
    arguments: str | None
    calls: list[Call]
    asked_by: str | None
    others: list[str]
    error: str | None
    agent: str | None
    at: str
    status: str


def of_span(span: AgentSpanRow) -> list[dict[str, Any]]:
    """Return the messages that went into a span and came out of it, for the types that have any."""
    kind = fallback(span.schema_name).name
    if kind == "message":
        return [dict(message) for message in _spoken(span)]
    if kind != "llm":
        return []
    sent, answered = _sent(span), _answered(span)
    return [{**message, "side": "in"} for message in sent] + [{**message, "side": "out"} for message in answered]


def of_run(spans: Iterable[AgentSpanRow]) -> list[Turn]:
    """Return the turns of a run."""
    ordered = sorted(spans, key=lambda span: (span.started_at or span.inserted_at, span.id))
    reader = _Reader({span.id: span for span in ordered if fallback(span.schema_name).name == "agent"}, ordered)
    for span in ordered:
        reader.read(span)
    # A model answers at its end: other spans may have begun in between.
    return sorted(reader.turns, key=lambda turn: turn["at"])


class _Reader:
    """Reads spans in order, and remembers the messages that were shown."""

    def __init__(self, agents: dict[str, AgentSpanRow], spans: list[AgentSpanRow]) -> None:
        self.turns: list[Turn] = []
        self._agents = agents
        self._parents = {span.id: span.parent_span_id for span in spans}
        tools = [span for span in spans if fallback(span.schema_name).name == "tool"]
        self._answered = {id for span in tools if isinstance(id := _object(span.payload).get("call_id"), str)}
        self._shown: Counter[tuple[str, str]] = Counter()
        self._calls: dict[str, tuple[str, Call]] = {}

    def read(self, span: AgentSpanRow) -> None:
        """Add a span's turns."""
        match fallback(span.schema_name).name:
            case "message":
                for message in _spoken(span):
                    self._say(span, message, span.started_at or span.inserted_at)
            case "llm":
                self._read_llm(span)
            case "tool":
                self._read_tool(span)

    def _read_llm(self, span: AgentSpanRow) -> None:
        began = span.started_at or span.inserted_at
        sent = _sent(span)
        seen: Counter[tuple[str, str]] = Counter()
        for place, message in enumerate(sent):
            key = _key(message)
            seen[key] += 1
            if self._is_new(message, key, seen[key], is_last=place == len(sent) - 1):
                self._say(span, message, began)
        ended = span.finished_at or span.updated_at
        for message in _answered(span):
            for call in message["calls"]:
                if call["id"]:
                    self._calls[call["id"]] = (span.id, call)
            self._say(span, message, ended)
        if span.status == "failed":
            self._add(span, "assistant", "", ended, name=span.label, error=_error(span) or "failed")

    def _is_new(self, message: Message, key: tuple[str, str], seen: int, *, is_last: bool) -> bool:
        if message["call_id"] in self._answered:
            return False
        if seen > self._shown[key]:
            return True
        # A program that sends only the latest messages says the same "yes" again without the one before.
        last = self.turns[-1] if self.turns else None
        return (
            is_last
            and message["role"] == "user"
            and last is not None
            and last["role"] == "assistant"
            and (last["error"] is None and not last["calls"])
        )

    def _read_tool(self, span: AgentSpanRow) -> None:
        payload, result = _object(span.payload), _object(span.result_payload)
        asked_by, _ = self._calls.get(str(payload.get("call_id")), (None, None))
        output = result.get("output") if "output" in result or "error" in result else result
        turn = self._add(
            span,
            "tool",
            "" if output is None or output == {} else messages.text_of(output),
            span.started_at or span.inserted_at,
            name=span.label or span.schema_title,
            error=(_error(span) or "failed") if span.status == "failed" else None,
        )
        arguments = payload.get("arguments", {})
        turn["arguments"] = arguments if isinstance(arguments, str) else jsontext.encode(arguments)[0]
        turn["asked_by"] = asked_by

    def _say(self, span: AgentSpanRow, message: Message, at: str) -> None:
        self._shown[_key(message)] += 1
        open_calls = [call for call in message["calls"] if call["id"] not in self._answered or call["id"] is None]
        if message["calls"] and not (open_calls or message["text"] or message["others"]):
            return  # each of its calls is a turn
        asked_by, call = self._calls.get(message["call_id"] or "", (None, None))
        turn = self._add(span, message["role"], message["text"], at, name=span.label)
        turn["calls"], turn["others"], turn["asked_by"] = open_calls, message["others"], asked_by
        if call is not None:
            turn["name"], turn["arguments"] = call["name"], call["arguments"]

    def _add(
        self, span: AgentSpanRow, role: str, text: str, at: str, *, name: str | None, error: str | None = None
    ) -> Turn:
        turn: Turn = {
            "span": span.id,
            "role": role,
            "text": text[:MAX_TEXT],
            "length": len(text),
            "name": name,
            "arguments": None,
            "calls": [],
            "asked_by": None,
            "others": [],
            "error": error,
            "agent": self._agent_of(span),
            "at": at,
            "status": span.status,
        }
        self.turns.append(turn)
        return turn

    def _agent_of(self, span: AgentSpanRow) -> str | None:
        above = {span.id}
        parent = span.parent_span_id
        while parent is not None and parent not in above:  # hand-made spans may be their own ancestors
            if parent in self._agents:
                return self._agents[parent].label
            above.add(parent)
            parent = self._parents.get(parent)
        return None


def _spoken(span: AgentSpanRow) -> list[Message]:
    """Return the messages of a message span."""
    return messages.read(_object(span.payload))


def _sent(span: AgentSpanRow) -> list[Message]:
    """Return the messages that a model was sent."""
    payload = _object(span.payload)
    given = payload.get("messages", payload.get("input", payload.get("prompt")))
    return messages.read(payload.get("system"), "system") + messages.read(given)


def _answered(span: AgentSpanRow) -> list[Message]:
    """Return a model's answer: its text and its calls, or the messages in its result."""
    result = _object(span.result_payload)
    made = messages.calls(result.get("tool_calls"))
    said = messages.read(result.get("text"), "assistant")
    if not said and not made:
        given = result.get("output_messages", result.get("output"))
        return messages.read(given, "assistant")
    if not said:
        said = [{"role": "assistant", "text": "", "calls": [], "call_id": None, "others": []}]
    said[-1]["calls"] = made
    return said


def _key(message: Message) -> tuple[str, str]:
    """Return a key that is equal for equal messages."""
    called = "".join(f"\0{call['name']}" for call in message["calls"])
    return (message["role"], message["text"].strip() + called)


def _error(span: AgentSpanRow) -> str | None:
    return error_text(_object(span.result_payload))


def _object(text: str | None) -> dict[str, Any]:
    """Return a payload as a dict; {} if it is no object."""
    value = None if text is None else jsontext.decode(text)
    return value if isinstance(value, dict) else {}
