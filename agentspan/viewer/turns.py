"""The contents of the spans of a conversation: messages sent and answered, steps of tools; and when two are equal."""

from typing import Any, NamedTuple, TypedDict

from agentspan.analysis import messages
from agentspan.analysis.messages import SENT, SYSTEM, Call, Message, Part, exact, value_of
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.aliases import USAGE_MEMBERS
from agentspan.schemas.meaning import error_of, error_text

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
    given, result = value_of(span.payload), value_of(span.result_payload)
    payload = given if isinstance(given, dict) else {}
    call_id, arguments = payload.get("call_id"), payload.get("arguments")
    others = _strange(given) + messages.rest(payload, {"name", "arguments", *_if_text(payload, "call_id")})
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
