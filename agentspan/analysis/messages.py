"""Normalizes chat messages of model clients to one form: OpenAI's (chat, responses), Anthropic's, Google's.

Also extracts the messages that a span sent to a model and the model's answer, and compares messages.

Nothing is dropped: a value in an unknown form becomes JSON text, and unknown members of a message become its parts.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from operator import itemgetter
from typing import Any, TypedDict

from agentspan import jsontext
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.builtin import built_in_part

ROLES = {"model": "assistant", "ai": "assistant", "human": "user", "developer": "system", "function": "tool"}
MAX_PART = 20_000
"""The number of characters of a part that are shown; the span holds the whole part."""
SYSTEM = ("system", "instructions", "system_prompt", "system_instruction", "systemInstruction")
"""Members of an llm span's payload that are its system prompt."""
SENT = ("messages", "input", "prompt", "contents")
"""Members of an llm span's payload that hold the messages sent to the model."""
_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "thinking", "reasoning", "refusal"})
_TEXTS = ("text", "thinking", "refusal")
_ARGUMENTS = ("arguments", "input", "args")
_CALL_TYPES = ("function", "function_call", "tool_use", "tool_call")
# Members without information for a reader, if they are short texts or numbers.
_MARKS = frozenset({"id", "index", "status", "object", "created"})
_MAX_MARK = 100


class Part(TypedDict):
    """A part of a message that is not its text, as JSON text: an unknown member, or a content part like `image_url`.

    `text` has at most MAX_PART characters; `length` is the length of the whole text.
    """

    name: str
    text: str
    length: int


class Call(TypedDict):
    """A tool call that a model requests, with the arguments as JSON text."""

    id: str | None
    name: str
    arguments: str
    others: list[Part]


class Message(TypedDict):
    """A chat message in the normalized form.

    `name` is the name of the author or tool; `call_id` is the id of the call that a tool message answers; `others` are
    all parts that are not text.
    """

    role: str
    name: str | None
    text: str
    calls: list[Call]
    call_id: str | None
    others: list[Part]


Keyed = tuple[Message, tuple[str, ...]]
Known = dict[tuple[str, str], list[Keyed]]


def read(value: Any, role: str = "user") -> list[Message]:
    """Return the messages in a value, which is a list of messages, one message, or a text of the role `role`."""
    if value is None or value == "" or value == []:
        return []
    items = value if isinstance(value, list) else [value]
    return [message for item in items for message in _messages(item, role)]


def calls(value: Any) -> list[Call]:
    """Return the tool calls in a value, which is a list of calls, one call, or None."""
    if value is None:
        return []
    return [_call(item) for item in (value if isinstance(value, list) else [value])]


def spoken(span: AgentSpanRow) -> list[Message]:
    """Return the messages in the payload of a message span."""
    return read(jsontext.value_of(span.payload))


def sent(payload: Any, known: Known | None = None) -> list[Keyed]:
    """Return the messages that were sent to a model, the system prompt first, each with its key (see key_of).

    Args:
        payload: the decoded payload of an llm span.
        known: a cache of messages by role and JSON text, so that a history that is sent again is not parsed again.
    """
    if not isinstance(payload, dict):
        return []
    known = {} if known is None else known
    found = [each for name in SYSTEM for each in _read(payload.get(name), "system", known)]
    texts: list[Any] = []
    for name in SENT:
        if (value := payload.get(name)) is not None and value not in texts:
            texts.append(value)
            found += _read(value, "user", known)
    return found


def first_prompt(spans: Iterable[AgentSpanRow]) -> str | None:
    """Return the text of the first message of a user in some spans, else what an agent was asked; None without one."""
    given = None
    for span in spans:
        kind = built_in_part(span.schema_name)
        if kind == "agent" and given is None:
            value = jsontext.value_of(span.payload)
            given = value.get("input") if isinstance(value, dict) else None
        found = spoken(span) if kind == "message" else []
        if kind == "llm":
            found = [message for message, _ in sent(jsontext.value_of(span.payload))]
        for message in found:
            if message["role"] == "user" and message["text"].strip():
                return message["text"]
    return given if isinstance(given, str) and given.strip() else None


def _read(value: Any, role: str, known: Known) -> list[Keyed]:
    if value is None or value == "":
        return []
    found: list[Keyed] = []
    for item in value if isinstance(value, list) else [value]:
        text = json_of(item)
        if (keyed := known.get((role, text))) is None:
            keyed = known[role, text] = [(message, key_of(message)) for message in read([item], role)]
        found += keyed
    return found


def answered(result: Any) -> list[Message]:
    """Return the messages of a model's answer from a decoded result: its text and calls, and its output messages.

    Output messages that repeat the text or the calls are left out.
    """
    if not isinstance(result, dict):
        return read(result, "assistant")
    made = calls(result.get("tool_calls"))
    answer = read(result.get("text"), "assistant")
    if made and not answer:
        answer = read({"role": "assistant", "content": None})
    if made:
        answer[-1]["calls"] = answer[-1]["calls"] + made
    for name in ("output_messages", "output"):
        more = read(result.get(name), "assistant")
        if more and _joined(more) != _joined(answer):
            answer += [message for message in more if key_of(message) not in {key_of(one) for one in answer}]
    return answer


def arguments_by_call(spans: Iterable[AgentSpanRow]) -> dict[str, Any]:
    """Return the id of a tool call → the arguments of the first step that executed it."""
    found: dict[str, Any] = {}
    for span in spans:
        payload = jsontext.value_of(span.payload) if '"call_id"' in span.payload else None
        if isinstance(payload, dict) and "arguments" in payload and isinstance(payload.get("call_id"), str):
            found.setdefault(payload["call_id"], payload["arguments"])
    return found


def with_arguments(result: Any, used: Mapping[str, Any], *, is_session: bool) -> Any:
    """Return a model's result, in which the calls without arguments have those of their tools' steps.

    Args:
        used: see arguments_by_call.
        is_session: whether the run is the session of a coding agent. Its decoder leaves long arguments out of the
            model's call, so a call that has a part of its step's arguments gets all of them.
    """
    made = result.get("tool_calls") if isinstance(result, dict) else None
    return {**result, "tool_calls": [_whole(each, used, is_session) for each in made]} if type(made) is list else result


def _whole(call: Any, used: Mapping[str, Any], is_session: bool) -> Any:
    id = call.get("id") if isinstance(call, dict) else None
    if not isinstance(id, str) or id not in used:
        return call
    own, whole = call.get("arguments"), used[id]
    is_object = isinstance(own, dict) and isinstance(whole, dict)
    is_part = all(_begins(own[k], whole.get(k)) for k in own) if is_object else _begins(own, whole)
    is_missing = call.keys().isdisjoint((*_ARGUMENTS, "function"))
    return {**call, "arguments": whole} if is_missing or (is_session and is_part) else call


def _begins(own: Any, whole: Any) -> bool:
    """Return whether a value is the other one, or the begin of a text, with `…` behind it."""
    is_cut = isinstance(own, str) and isinstance(whole, str) and own.endswith("…")
    return own == whole or (is_cut and whole.startswith(own[:-1]))


def key_of(message: Message) -> tuple[str, ...]:
    """Return a key that is equal for equal messages. Ids of calls are ignored."""
    called = (part for call in message["calls"] for part in ("\0call", call["name"], exact(call["arguments"])))
    others = (part for one in message["others"] for part in ("\0part", one["name"], one["text"]))
    return (message["role"], message["name"] or "", message["text"], *called, *others)


def exact(text: str) -> str:
    """Return JSON text in a canonical form, or the text itself if it is not JSON.

    Numbers keep their digits, and duplicate members are all kept, so that only exactly equal values are equal.
    """
    return _short_exact(text) if len(text) <= _MAX_KEPT else _exact(text)


_MAX_KEPT = 1000


@lru_cache(maxsize=4096)
def _short_exact(text: str) -> str:
    """Cache the form of short texts: a call is compared in its answer, in each history with it, and with its step."""
    return _exact(text)


def _exact(text: str) -> str:
    try:
        return _form(_EXACT.decode(text))
    except (ValueError, RecursionError):
        return text


def text_of(value: Any) -> tuple[str, list[Part]]:
    """Return any value as text and further parts: a text unchanged, chat parts as their text, anything else as JSON."""
    if isinstance(value, str):
        return value, []
    items = value if isinstance(value, list) else [value]
    if items and all(isinstance(part, dict) and "type" in part and _text_name(part) for part in items):
        return _content(value)
    return json_of(value), []


def rest(value: Mapping[str, Any], known: Collection[str]) -> list[Part]:
    """Return the members of an object as parts, without the `known` names and without empty members."""
    return [
        part(name, item)
        for name, item in value.items()
        if name not in known and item is not None and item != "" and item != [] and item != {}
    ]


def part(name: str, value: Any) -> Part:
    """Return a decoded JSON value as a part: as JSON text, truncated to MAX_PART characters."""
    text = json_of(value)
    return {"name": name, "text": text[:MAX_PART], "length": len(text)}


def _messages(item: Any, role: str) -> Iterator[Message]:
    if not isinstance(item, dict):
        yield _message(role, item if isinstance(item, str) else json_of(item))
        return
    kind = item.get("type")
    if kind == "function_call":  # OpenAI's responses API lists calls and their outputs beside the messages
        yield {**_message("assistant", ""), "calls": [_call(item)]}
    elif kind == "function_call_output":
        text, others = text_of(item.get("output"))
        others += rest(item, _known(item, "type", "output", "call_id"))
        yield {**_message("tool", text, others), "call_id": _text(item.get("call_id"))}
    elif _text_name(item) and "type" in item and "role" not in item:
        yield _message(role, *_content([item]))
    elif not item.keys() & {"role", "content", "parts", "tool_calls"}:
        yield _message(role, json_of(item))
    else:
        yield from _chat(item, role)


def _chat(item: dict[str, Any], role: str) -> Iterator[Message]:
    speaker = item.get("role", role)
    speaker = speaker if isinstance(speaker, str) else role if speaker is None else json_of(speaker)
    field = "content" if "content" in item else "parts"
    content = item.get(field)
    parts = content if isinstance(content, list) else []
    for each in parts:  # Anthropic puts tool results into a user message as parts
        if _is_type(each, "tool_result"):
            text, others = text_of(each.get("content"))
            others += rest(each, _known(each, "type", "content", "tool_use_id"))
            yield {**_message("tool", text, others), "call_id": _text(each.get("tool_use_id"))}
    remaining = [each for each in parts if not _is_type(each, "tool_result", "tool_use")] if parts else content
    text, others = _content(remaining)
    made = calls(item.get("tool_calls")) + [_call(each) for each in parts if _is_type(each, "tool_use")]
    if item.get("function_call") is not None:
        made.append(_call(item["function_call"]))
    name, call_id = _text(item.get("name")), _text(item.get("tool_call_id"))
    known = _known(item, "role", field, "tool_calls", "function_call")
    known |= {key for key, value in (("name", name), ("tool_call_id", call_id)) if value is not None}
    known |= {"type"} if item.get("type") == "message" else set()
    others += rest(item, known)
    if text or others or made or not parts:
        message = _message(ROLES.get(speaker, speaker), text, others)
        yield {**message, "name": name, "calls": made, "call_id": call_id}


def answer_of(text: str, name: str | None, call_id: str | None) -> Message:
    """Return a message of the role `tool`, made of the output text of a tool."""
    return {**_message("tool", text), "name": name, "call_id": call_id}


def _message(role: str, text: str, others: list[Part] | None = None) -> Message:
    return {"role": role, "name": None, "text": text, "calls": [], "call_id": None, "others": others or []}


def _content(value: Any) -> tuple[str, list[Part]]:
    """Return the text of a message's content, and all other parts of it."""
    if value is None:
        return "", []
    if isinstance(value, str):
        return value, []
    texts: list[str] = []
    others: list[Part] = []
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            texts.append(each)
        elif isinstance(each, dict) and (name := _text_name(each)):
            texts.append(each[name])
            others += rest(each, _known(each, "type", name))
        elif isinstance(each, dict) and isinstance(each.get("type"), str):
            others.append(part(each["type"], {key: item for key, item in each.items() if key != "type"}))
        else:
            texts.append(json_of(each))
    return "\n".join(texts), others


def _text_name(item: dict[str, Any]) -> str | None:
    """Return the name of the member that holds the text of a content part; None if the part is not text."""
    kind = item.get("type", "text")
    if not isinstance(kind, str) or kind not in _TEXT_PARTS:
        return None
    return next((name for name in _TEXTS if isinstance(item.get(name), str)), None)


def _call(item: Any) -> Call:
    if not isinstance(item, dict):
        return {"id": None, "name": "?", "arguments": json_of(item), "others": []}
    wrapped = isinstance(item.get("function"), dict)
    function = item["function"] if wrapped else item
    field = next((name for name in _ARGUMENTS if name in function), "arguments")
    arguments = function.get(field, {})
    id = _text(item.get("id")) if item.get("call_id") is None else _text(item["call_id"])
    name = _text(function.get("name"))
    known = _known(item, "call_id") | ({"function"} if wrapped else {field})
    known |= {"type"} if item.get("type") in _CALL_TYPES else set()
    known |= set() if wrapped or name is None else {"name"}
    others = rest(item, known)
    if wrapped:
        others += rest(function, {field} if name is None else {field, "name"})
    return {
        "id": id,
        "name": name or "?",
        "arguments": arguments if isinstance(arguments, str) else json_of(arguments),
        "others": others,
    }


def _known(item: dict[str, Any], *names: str) -> set[str]:
    """Return the names of members that need not be shown: `names`, and short ids, statuses and the like."""
    known = {*names}
    for name in item.keys() & _MARKS:  # nearly always one or none
        if isinstance(mark := item[name], int | str) and len(str(mark)) <= _MAX_MARK:
            known.add(name)
    return known


def json_of(value: Any) -> str:
    """Return a decoded JSON value as compact JSON text."""
    try:
        return jsontext.encode(value)[0]
    except ValueError:  # 1e400 in a row made by hand becomes infinity in Python
        return json.dumps(value, separators=(",", ":"))


class _Number(str):
    """A JSON number as it is written, so that 1 and 1.0 stay different."""

    __slots__ = ()


class _Members(list[tuple[str, Any]]):
    """The members of a JSON object as pairs, so that duplicate names are kept."""


_EXACT = json.JSONDecoder(object_pairs_hook=_Members, parse_int=_Number, parse_float=_Number)


def _form(value: Any) -> str:
    if type(value) is str:
        return encode_basestring_ascii(value)
    if isinstance(value, _Members):
        ordered = sorted(value, key=itemgetter(0))
        return f"{{{','.join([f'{encode_basestring_ascii(name)}:{_form(item)}' for name, item in ordered])}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_form, value))}]"
    return str(value) if isinstance(value, _Number) else json.dumps(value)


def _joined(messages: list[Message]) -> tuple[str, list[tuple[str, str]]]:
    """Return the concatenated text and all calls of messages, because providers split an answer differently."""
    calls = [(call["name"], exact(call["arguments"])) for message in messages for call in message["calls"]]
    return "".join(message["text"] for message in messages), calls


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _is_type(value: Any, *types: str) -> bool:
    return isinstance(value, dict) and value.get("type") in types
