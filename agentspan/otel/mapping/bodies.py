"""Reads attributes that contain a whole request or answer of a model provider: OpenAI's, Anthropic's, LangChain's.

Members of the body that become fields are removed from the attribute; its other members stay. So nothing is lost, and
messages are not stored twice.
"""

from collections.abc import Mapping
from typing import Any

from agentspan.otel.mapping import messages
from agentspan.otel.mapping.draft import Draft, Read
from agentspan.otel.mapping.values import flag, listed, members, number, parsed, text, whole

PARAMETERS: tuple[tuple[str, tuple[str, ...], Read], ...] = (
    ("payload.temperature", ("temperature",), number),
    ("payload.max_tokens", ("max_tokens", "max_completion_tokens", "max_output_tokens"), whole),
    ("payload.stream", ("stream",), flag),
    ("payload.seed", ("seed",), whole),
    ("payload.top_p", ("top_p",), number),
    ("payload.top_k", ("top_k",), whole),
    ("payload.stop_sequences", ("stop", "stop_sequences"), listed),
    ("payload.tools", ("tools", "functions"), messages.tools),
)
"""The parameters of a request: the field, the providers' names for it, and the function that reads it."""
_USAGE: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    ("input_tokens", (("input_tokens",), ("prompt_tokens",), ("inputTokens",), ("promptTokens",))),
    ("output_tokens", (("output_tokens",), ("completion_tokens",), ("outputTokens",), ("completionTokens",))),
    (
        "cached_tokens",
        (
            ("prompt_tokens_details", "cached_tokens"),
            ("input_tokens_details", "cached_tokens"),
            ("input_token_details", "cache_read"),
            ("cache_read_input_tokens",),
            ("cachedInputTokens",),
        ),
    ),
    (
        "cache_write_tokens",
        (
            ("prompt_tokens_details", "cache_write_tokens"),
            ("input_token_details", "cache_creation"),
            ("cache_creation_input_tokens",),
        ),
    ),
    (
        "reasoning_tokens",
        (
            ("completion_tokens_details", "reasoning_tokens"),
            ("output_tokens_details", "reasoning_tokens"),
            ("output_token_details", "reasoning"),
            ("reasoningTokens",),
        ),
    ),
)


def request(draft: Draft, name: str) -> None:
    """Set the payload fields of an llm span from an attribute that has a request, or only a request's messages."""
    request_of(draft, name, parsed(draft.get(name)))


def request_of(draft: Draft, name: str, value: Any) -> None:
    """Set the payload fields of an llm span from a decoded request, or a list of messages.

    Args:
        draft: the span that is being mapped.
        name: the attribute that the value came from. It keeps the members that become no field.
        value: the decoded value of the attribute.
    """
    if type(value) is list:
        _messages(draft, value, name)
        return
    if type(value) is not dict:
        return
    body, rest = value, dict(value)
    for field in ("messages", "input", "contents"):
        if type(body.get(field)) in (list, str) and body[field]:
            _messages(draft, body[field])
            del rest[field]
    for field in ("system", "instructions"):
        if body.get(field):
            draft.put("payload.system", messages.instructions(body[field]))
            del rest[field]
    if (model := text(body.get("model"))) is not None:
        draft.put("payload.model", model)
        if draft.payload["model"] == model:
            del rest["model"]
    draft.leave(name, parameters(draft, rest))


def parameters(draft: Draft, body: Mapping[str, Any]) -> dict[str, Any]:
    """Set the fields of a request's parameters, such as the temperature, and return the other members of the body."""
    rest = {name: value for name, value in body.items() if value is not None}
    if not rest:
        return rest
    for place, names, read in PARAMETERS:
        for name in names:
            if (value := read(body.get(name))) is not None:
                draft.put(place, value)
                rest.pop(name, None)
    return rest


def answer(draft: Draft, name: str) -> None:
    """Set the result fields of an llm span from an attribute that has an answer, or only an answer's messages."""
    answer_of(draft, name, parsed(draft.get(name)))


def answer_of(draft: Draft, name: str, value: Any) -> None:
    """Set the result fields of an llm span from a decoded answer, a list of messages, or a text.

    Args:
        draft: the span that is being mapped.
        name: the attribute that the value came from. It keeps the members that become no field.
        value: the decoded value of the attribute.
    """
    if type(value) is str and "text" not in draft.result:
        output(draft, value)
        draft.leave(name, None)
    if type(value) is not dict and type(value) is not list:
        return
    if type(value) is list and len(value) == 1 and type(value[0]) is dict and "output" in value[0]:
        value = value[0]  # OpenAI's agents SDK writes a list of one response
    body = value if type(value) is dict else {}
    rest = dict(body)
    found: Any = None
    if type(choices := body.get("choices")) is list:
        found = [each.get("message", each) for each in choices if type(each) is dict]
        draft.put("result.finish_reason", _first(choices, "finish_reason"))
        rest.pop("choices")
    elif type(body.get("generations")) is list:
        found = _generations(draft, body)
        rest.pop("generations")
    elif type(body.get("output")) is list:
        found = body["output"]
        rest.pop("output")
    elif type(body.get("content")) is list or "tool_calls" in body or body.get("role") == "assistant":
        found = [{"role": "assistant", **{key: body[key] for key in ("content", "tool_calls") if key in body}}]
        draft.put("result.finish_reason", text(body.get("stop_reason")))
        rest = {key: item for key, item in rest.items() if key not in ("content", "tool_calls", "role")}
    elif _are_messages(body.get("messages")):
        found = rest.pop("messages")
    elif type(value) is list:
        found = value
    if found is None:
        return
    output(draft, found)
    is_item = body.get("type") == "message" and "status" in body  # an item of OpenAI's answer, whose id is the item's
    for place, member in (("result.response_model", "model"), ("result.response_id", "" if is_item else "id")):
        if (item := text(body.get(member))) is not None and not item.startswith("__"):
            draft.put(place, item)
            if draft.result.get(place.partition(".")[2]) == item:
                rest.pop(member)
    if (used := members(body.get("usage"))) is not None:
        usage(draft, used, adds_cached=body.get("type") == "message")
    draft.leave(name, {key: item for key, item in rest.items() if item is not None})


def output(draft: Draft, value: Any, *names: str) -> None:
    """Set the result fields of a model's answer: its messages, text, tool calls and finish reason.

    Args:
        draft: the span that is being mapped.
        value: the messages of the answer, in any form.
        names: the attributes that the messages were read from.
    """
    if "output_messages" in draft.result and not names:
        return
    answer = messages.answer_of(value)
    if not answer.messages:
        return
    draft.put("result.output_messages", answer.messages, *names)
    if draft.result["output_messages"] != answer.messages:
        return
    draft.put("result.text", answer.text)
    draft.put("result.tool_calls", answer.tool_calls or None)
    last = answer.messages[-1]
    draft.put("result.finish_reason", text(last.get("finish_reason")) if type(last) is dict else None)


def usage(draft: Draft, used: Mapping[str, Any], *, adds_cached: bool = False) -> None:
    """Set the counts of tokens from a provider's usage object.

    Args:
        adds_cached: whether the provider's input tokens exclude cached tokens, as Anthropic's do. Then they are added.
    """
    counts = {field: _count(used, paths) for field, paths in _USAGE}
    if adds_cached and counts["input_tokens"] is not None:
        counts["input_tokens"] += (counts["cached_tokens"] or 0) + (counts["cache_write_tokens"] or 0)
    for field, value in counts.items():
        draft.put(f"result.{field}", value)


def _are_messages(value: Any) -> bool:
    return type(value) is list and any(type(each) in (dict, list) for each in value)


def _count(used: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> int | None:
    for path in paths:
        value: Any = used
        for member in path:
            value = value.get(member) if isinstance(value, Mapping) else None
        if (found := whole(value)) is not None:
            return found
    return None


def _messages(draft: Draft, value: Any, *names: str) -> None:
    if "messages" in draft.payload and not names:
        return
    system, rest = messages.split_system(messages.messages(value))
    draft.put("payload.system", system)
    draft.put("payload.messages", rest or None, *names)


def _first(items: list[Any], member: str) -> str | None:
    return next((found for each in items if type(each) is dict and (found := text(each.get(member)))), None)


def _generations(draft: Draft, body: Mapping[str, Any]) -> list[Any]:
    """Return the messages of LangChain's LLMResult, and set the fields that only the messages have, such as usage."""
    groups = body["generations"]
    inner = [each for group in groups for each in (group if type(group) is list else [group]) if type(each) is dict]
    found = []
    for each in inner:
        message = each.get("message")
        found.append(message if type(message) is dict else {"role": "assistant", "content": each.get("text", "")})
        kwargs = message.get("kwargs", message) if type(message) is dict else {}
        described = kwargs.get("response_metadata") if type(kwargs) is dict else None
        info = each.get("generation_info")
        for about in (info, described):
            if type(about) is dict:
                draft.put("result.finish_reason", text(about.get("finish_reason")) or text(about.get("stop_reason")))
        if type(described) is dict:
            draft.put("result.response_model", text(described.get("model_name")) or text(described.get("model")))
            draft.put("result.response_id", text(described.get("id")))
        if type(kwargs) is dict and type(kwargs.get("usage_metadata")) is dict:
            usage(draft, kwargs["usage_metadata"])
    return found
