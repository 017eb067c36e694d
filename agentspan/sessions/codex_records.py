"""Values in the records of Codex: times, texts, images, tokens, tool calls and their outputs. Pure functions.

A record may hold any JSON in any member. These functions take any value, and return nothing where it is no use.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from agentspan.arriving import Outcome, count_in, decoded, list_in, object_in, present

_MARKED = re.compile(r"\s*(?:<([a-z_]+)[ >]|# (AGENTS\.md) instructions)")
_EXITED = re.compile(r"(?:Process exited with code|Exit code:) (-?\d{1,9})\b")
_FAILED = (
    "exec_command failed", "apply_patch verification failed", "apply_patch failed", "Script failed",
    "unsupported call: ", "unsupported custom tool call: ",
)  # fmt: skip
"""The begins of outputs by which Codex says that it could not run a call."""
_ABORTED = re.compile(r"(?:Wall time: [0-9.]+ seconds?\n)?aborted by user")
_LIMITS = ("usage_limit_exceeded", "session_budget_exceeded", "context_window_exceeded", "rate_limit_exceeded")
_HEAD_CHARS = 600
"""The first characters of an output, in which Codex itself writes how the command ended."""


def without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the members of other names that are not null."""
    return {name: value for name, value in values.items() if name not in names and value is not None}


def ms_of_duration(value: Any) -> float | None:
    """Return a duration of `secs` and `nanos`, or a text such as `1.5s`, in milliseconds; None for other values."""
    if type(value) is dict:
        seconds, nanos = count_in(value.get("secs")), count_in(value.get("nanos"))
        return None if seconds is None else seconds * 1000 + (nanos or 0) / 1_000_000
    return None


def is_later_id(id: Any, than: str) -> bool:
    """Return whether a UUID of version 7, which begins with a time, was made with or after another one."""
    return type(id) is str and is_timed_id(id) and id.lower() >= than.lower()


def is_timed_id(id: str) -> bool:
    """Return whether an id is a UUID of version 7."""
    return len(id) == 36 and id[14] == "7" and id[8] == id[13] == id[18] == id[23] == "-"


def content_of(content: Any) -> Any:
    """Return the content of a message: its text if it has only texts, else blocks, with images as base64."""
    if type(content) is not list:
        return content
    blocks = [block_of(each) for each in content]
    if all(type(each) is dict and each.get("type") == "text" and type(each.get("text")) is str for each in blocks):
        return "\n".join(each["text"] for each in blocks)
    return blocks


def block_of(part: Any) -> Any:
    """Return a part of a content as a block `text` or `image`; unknown parts unchanged."""
    kind = part.get("type") if type(part) is dict else None
    if kind in ("input_text", "output_text", "text", "Text"):
        return {"type": "text", "text": part.get("text")}
    if kind in ("input_image", "image") and type(part.get("image_url")) is str:
        return _image(part["image_url"])
    return part


def _image(url: str) -> dict[str, Any]:
    head, _, data = url.partition(";base64,")
    if not data or not head.startswith("data:"):
        return {"type": "image", "source": {"type": "url", "url": url}}
    return {"type": "image", "source": {"type": "base64", "media_type": head[5:], "data": data}}


def texts_of(content: Any) -> list[str]:
    """Return the texts of a content or a summary: of a text, a list of texts, or a list of parts with a text."""
    if type(content) is str:
        return [content] if content else []
    found = (each.get("text") if type(each) is dict else each for each in list_in(content))
    return [each for each in found if type(each) is str and each]


def mark_of(text: str) -> str | None:
    """Return the name of a text that Codex puts into messages of the role user, such as `environment_context`."""
    found = _MARKED.match(text)
    return None if found is None else found[1] or found[2]


def usage_of(usage: Any) -> dict[str, int]:
    """Return the tokens of a model call, as the result of an `llm` has them; none if there is no usage."""
    found: dict[str, int] = {}
    if type(usage) is not dict:
        return found
    for name, theirs in _USAGE:
        count = count_in(usage.get(theirs))
        if count is not None and (count or name != "cache_write_tokens"):
            found[name] = count
    return found


_USAGE = (
    ("input_tokens", "input_tokens"),
    ("cached_tokens", "cached_input_tokens"),
    ("cache_write_tokens", "cache_write_input_tokens"),
    ("output_tokens", "output_tokens"),
    ("reasoning_tokens", "reasoning_output_tokens"),
)


def usage_between(before: Any, after: Any) -> dict[str, int]:
    """Return the difference of two sums of tokens, for an event that has no tokens of its own call."""
    old, new = usage_of(before), usage_of(after)
    return {name: value - old.get(name, 0) for name, value in new.items() if value >= old.get(name, 0)}


def server_of(name: str, namespace: Any) -> tuple[str, str] | None:
    """Return the MCP server and the tool of a call such as `mcp__server__tool`; None if it is none of MCP."""
    full = f"{namespace.rstrip('_')}__{name}" if type(namespace) is str and namespace.startswith("mcp__") else name
    if not full.startswith("mcp__"):
        return None
    server, _, tool = full[5:].partition("__")
    return (server, tool) if server and tool else None


def output_of(output: Any) -> dict[str, Any]:
    """Return the result of a tool call from its recorded output: `output`, and `exit_code`, `is_error` if known.

    Older outputs are JSON in a text, with the exit code in `metadata`; newer ones say it in their first lines.
    """
    if type(output) is dict and ("content" in output or "content_items" in output):
        result = {"output": content_of(output.get("content_items") or output.get("content"))}
        return result | ({"is_error": True} if output.get("success") is False else {})
    if type(output) is not str:
        return {"output": content_of(output)}
    if output.startswith('{"output":'):
        found = decoded(output)
        if type(found) is dict and "output" in found:
            return {"output": found["output"]} | _of_metadata(object_in(found.get("metadata")))
    if output.startswith(_FAILED):
        return {"output": output, "is_error": True}
    ended = _EXITED.search(output, 0, _HEAD_CHARS)
    return {"output": output} | ({} if ended is None else exit_of(int(ended[1])))


def _of_metadata(metadata: dict[str, Any]) -> dict[str, Any]:
    found = exit_of(metadata.get("exit_code"))
    seconds = metadata.get("duration_seconds")
    if isinstance(seconds, int | float):
        found["structured"] = {"duration_ms": seconds * 1000}
    return found


def exit_of(code: Any) -> dict[str, Any]:
    """Return `exit_code`, and `is_error` if it is not 0; nothing for a value that is no exit code."""
    if type(code) is not int or abs(code) >= 2**31:
        return {}
    return {"exit_code": code, "is_error": True} if code else {"exit_code": 0}


def is_aborted(output: Any) -> bool:
    """Return whether the output of a call says that a person stopped it."""
    return type(output) is str and (_ABORTED.match(output) is not None or output == "aborted")


_OUTPUTS = ("aggregated_output", "stdout", "formatted_output", "stderr")
_OF_ENVELOPE = frozenset({"type", "call_id", "callId", "id", "turn_id", "turnId", "exit_code", "duration", *_OUTPUTS})


def ended_of(event: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the members that the end event of a tool call adds to its result, and the texts of its output.

    Codex may write an output up to three times, beside the one that the model read. Each text is returned once.
    """
    structured = {name: value for name, value in event.items() if value is not None and name not in _OF_ENVELOPE}
    duration = ms_of_duration(event.get("duration"))
    if duration is not None:
        structured["duration_ms"] = duration
    result = exit_of(event.get("exit_code"))
    if event.get("success") is False or event.get("status") in ("failed", "declined"):
        result["is_error"] = True
    if structured:
        result["structured"] = structured
    texts: list[str] = []
    for name in _OUTPUTS:
        text = event.get(name)
        if type(text) is str and text and not any(text in each for each in texts):
            texts.append(text)
    return result, texts


def merged(result: dict[str, Any], ended: tuple[dict[str, Any], list[str]]) -> dict[str, Any]:
    """Return the result of a call with the members of its end event. Output that the result has is not added again."""
    more, texts = ended
    found = {**result, **more}
    structured = {**object_in(result.get("structured")), **object_in(more.get("structured"))}
    output = result.get("output")
    if output is None and texts:
        found["output"], texts = texts[0], texts[1:]
    else:
        texts = [text for text in texts if not (type(output) is str and text.rstrip() in output)]
    if texts:
        structured["full_output" if len(texts) == 1 else "outputs"] = texts[0] if len(texts) == 1 else texts
    if structured:
        found["structured"] = structured
    return found


def result_of_mcp(result: Any) -> dict[str, Any]:
    """Return the result of an MCP call from `{"Ok": …}`, `{"Err": …}`, or the server's answer itself."""
    if type(result) is dict and "Err" in result:
        return {"result": result["Err"], "is_error": True}
    answer = result["Ok"] if type(result) is dict and "Ok" in result else result
    is_error = type(answer) is dict and (answer.get("isError") is True or answer.get("is_error") is True)
    return {"result": answer} | ({"is_error": True} if is_error else {})


def error_of(error: Any) -> tuple[Outcome, dict[str, Any]]:
    """Return the outcome and the error of a turn or a model call that failed.

    Usage, budget and rate limits of the account, and a context that is full, are limits.
    """
    error = error if type(error) is dict else {"message": error}
    info, message = error.get("codex_error_info"), error.get("message")
    kind, about = next(iter(info.items())) if type(info) is dict and info else (info, None)
    kind = kind if type(kind) is str else "error"
    status = count_in(object_in(about).get("http_status_code"))
    found = {"type": kind, "message": message if type(message) is str else json.dumps(message), "status": status}
    return "limit" if kind in _LIMITS or status == 429 else "error", present(found)
