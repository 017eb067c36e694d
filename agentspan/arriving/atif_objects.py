"""The objects of ATIF (Agent Trajectory Interchange Format) as payloads and results of span types. Pure functions.

Reading and writing share these functions. An exported object has the differences between a span and what these
functions return for the object, in `extra.agentspan`. So the import of an export gives equal payloads and results.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from agentspan import jsontext
from agentspan.arriving.json_values import list_in, object_in

OWN = "agentspan"
"""The member of `extra` that holds the facts for which the format has no member."""
MCP = "mcp__"
"""The prefix of a tool that a server of MCP has: `mcp__SERVER__TOOL`."""
UNKNOWN = "unknown"
"""The model or the version of a document that names none."""
_STEP = frozenset(
    {
        "step_id", "timestamp", "source", "model_name", "reasoning_effort", "message", "reasoning_content",
        "tool_calls", "observation", "metrics", "is_copied_context", "llm_call_count", "extra",
    }
)  # fmt: skip
_CALL = frozenset({"tool_call_id", "function_name", "arguments", "extra"})
RESULT = frozenset({"source_call_id", "content", "subagent_trajectory_ref", "extra"})
"""The members of a result of an observation."""
_USAGE = {
    "prompt_tokens": "input_tokens",
    "cached_tokens": "cached_tokens",
    "completion_tokens": "output_tokens",
    "cost_usd": "stated_cost_usd",
}
"""The members of `metrics` that have a name of their own in results of `llm`."""
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_NS = 253_000_000_000 * 10**9
"""The latest time that is read: in the year 9987."""


def several(value: Any) -> list[Any]:
    """Return a list unchanged, no element for None, and any other value as the only element: it is not dropped."""
    return value if isinstance(value, list) else [] if value is None else [value]


def text_or_none(value: Any) -> str | None:
    """Return a value if it is a text with characters, without halves of surrogate pairs; else None."""
    return whole(value) if isinstance(value, str) and value else None


def whole(text: str) -> str:
    """Return a text in which each half of a surrogate pair is replaced: strict readers refuse it."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def own_of(value: Any) -> dict[str, Any]:
    """Return our member of an exported object's `extra`; an empty object for objects of other programs."""
    return object_in(object_in(object_in(value).get("extra")).get(OWN))


def foreign_extra(value: Any, known: Collection[str] | None = None) -> dict[str, Any]:
    """Return `extra` of an object without our member, and the members that are not known.

    Args:
        known: the names of the members that the format has; None returns `extra` alone.
    """
    found = object_in(value)
    extra = found.get("extra")
    unknown = {} if known is None else {name: item for name, item in found.items() if name not in known}
    if extra is None or isinstance(extra, dict):
        return unknown | {name: item for name, item in (extra or {}).items() if name != OWN}
    return unknown | {"extra": extra}


def time_of(value: Any) -> int | None:
    """Return the nanoseconds since the epoch of an ISO 8601 time; None if it is none. A time without offset is UTC."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return min(max((moment - _EPOCH) // _MICROSECOND * 1000, 0), _LAST_NS)


def content_of(value: Any) -> Any:
    """Return the content of a message or an observation: its text, or its parts as model providers write them."""
    if not isinstance(value, list):
        return value
    return [_part_of(part) for part in value]


def _part_of(part: Any) -> Any:
    kind, source = object_in(part).get("type"), object_in(object_in(part).get("source"))
    path = source.get("path")
    if kind not in ("image", "audio") or not isinstance(path, str):
        return part
    data = _DATA.match(path)
    if data is not None:
        found = {"type": "base64", "media_type": data[1], "data": path[data.end() :]}
    else:
        found = {"type": "url" if "://" in path else "file", **source, "url": path}
        del found["path"]
    return {"type": kind, "source": found}


def text_of(content: Any) -> str:
    """Return the texts of a message's content, joined by line ends."""
    if isinstance(content, str):
        return content
    texts = (object_in(part).get("text") for part in list_in(content))
    return "\n".join(text for text in texts if isinstance(text, str))


def message_of(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of the `message` span of a step."""
    source = step.get("source")
    role = {"agent": "assistant", "system": "system"}.get(source if isinstance(source, str) else "", "user")
    payload: dict[str, Any] = {"role": role, "content": content_of(step.get("message", ""))}
    return payload | _rest(step)


def _rest(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a step that the format does not have, and its `extra`, as a member `extra`."""
    found = foreign_extra(step, _STEP)
    observation = step.get("observation")
    if isinstance(observation, dict) and (more := foreign_extra(observation, ("results",))):
        found["observation"] = more
    return {"extra": found} if found else {}


def model_call_of(step: Mapping[str, Any], model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the payload and the result of the `llm` span of an agent's step.

    Args:
        model: the model of the agent, for steps that name none.
    """
    payload: dict[str, Any] = {
        "model": text_or_none(step.get("model_name")) or text_or_none(model) or UNKNOWN,
        **({} if step.get("reasoning_effort") is None else {"effort": step["reasoning_effort"]}),
        **({} if step.get("llm_call_count") in (None, 1) else {"llm_call_count": step["llm_call_count"]}),
        **_rest(step),
    }
    message, result = step.get("message"), dict[str, Any]()
    if text := text_of(message):
        result["text"] = text
    if message is not None and not isinstance(message, str):
        result["content"] = content_of(message)
    if step.get("reasoning_content"):
        result["thinking"] = step["reasoning_content"]
    if calls := several(step.get("tool_calls")):
        result["tool_calls"] = [_request_of(call) for call in calls]
    return payload, result | _usage_of(step.get("metrics"))


def _request_of(call: Any) -> Any:
    if not isinstance(call, dict):
        return call
    return {"id": call.get("tool_call_id"), "name": call.get("function_name"), "arguments": call.get("arguments")}


def _usage_of(metrics: Any) -> dict[str, Any]:
    if not isinstance(metrics, dict):
        return {} if metrics is None else {"metrics": metrics}
    found: dict[Any, Any] = {
        _USAGE.get(str(name), name): value for name, value in metrics.items() if value is not None and name != "extra"
    }
    extra = foreign_extra(metrics)
    return found | ({"metrics": extra} if extra else {})


def tool_call_of(call: Mapping[str, Any], results: Sequence[Any]) -> tuple[str, dict[str, Any], dict[str, Any] | None]:
    """Return the span type, the payload and the result of a tool call.

    Args:
        results: the results of the observation with the id of the call.
    """
    name = text_or_none(call.get("function_name")) or UNKNOWN
    payload: dict[str, Any] = {"arguments": call.get("arguments")}
    if text_or_none(call.get("tool_call_id")) is not None:
        payload["call_id"] = call["tool_call_id"]
    if extra := foreign_extra(call, _CALL):
        payload["extra"] = extra
    server, _, target = name.removeprefix(MCP).partition("__")
    if name.startswith(MCP) and server and target:
        return (
            "mcp",
            {"method": "tools/call", "server": server, "target": target, **payload},
            _output("result", results),
        )
    return "tool", {"name": name, **payload}, _output("output", results)


def _output(member: str, results: Sequence[Any]) -> dict[str, Any] | None:
    """Return the result of a tool from the results of an observation; None if there are none."""
    contents = [content_of(content) for each in results if (content := object_in(each).get("content")) is not None]
    extras = [extra for each in results if (extra := foreign_extra(each, RESULT))]
    if not results:
        return None
    found: dict[str, Any] = {}
    if contents:
        found[member] = contents[0] if len(contents) == 1 else contents
    return found | ({"extra": extras[0] if len(extras) == 1 else extras} if extras else {})


def agent_of(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the payload and the result of the `agent` span of a trajectory."""
    agent = object_in(document.get("agent"))
    payload: dict[str, Any] = {"name": text_or_none(agent.get("name")) or "agent"}
    if (version := text_or_none(agent.get("version"))) not in (None, UNKNOWN):
        payload["version"] = version
    if goal := first_prompt(document):
        payload["goal"] = goal
    output = last_answer(document)
    return payload, None if output is None else {"output": output}


def first_prompt(document: Mapping[str, Any]) -> str | None:
    """Return the text of the first step of the user; None without."""
    for step in list_in(document.get("steps")):
        if object_in(step).get("source") == "user" and not step.get("is_copied_context"):
            return text_of(step.get("message")) or None
    return None


def last_answer(document: Mapping[str, Any]) -> str | None:
    """Return the text of the last step if it is the agent's, and has a text; else None."""
    steps = list_in(document.get("steps"))
    last = object_in(steps[-1]) if steps else {}
    return (text_of(last.get("message")) or None) if last.get("source") == "agent" else None


def difference(name: str, own: Any, native: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the difference from which `patched` restores a payload or a result, given the one of the format's object.

    Args:
        name: `payload` or `result`.
        own: the decoded payload or result of a span.
        native: what the functions of this module return for the object.
    """
    if own is None and native is None:
        return {}
    if not isinstance(own, dict):
        return {name: own, f"{name}_whole": True}
    if native is None:
        return {name: own}
    members = {key: value for key, value in own.items() if key not in native or not _equal(value, native[key])}
    without = [key for key in native if key not in own]
    return {**({name: members} if members else {}), **({f"{name}_without": without} if without else {})}


def _equal(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON: 1, 1.0 and true differ."""
    return type(one) is type(other) and (one is other or jsontext.text_of(one) == jsontext.text_of(other))


def patched(name: str, own: Mapping[str, Any], native: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the payload or the result of an exported span.

    Args:
        name: `payload` or `result`.
        own: our member of the object's `extra`.
        native: what the functions of this module return for the object.
    """
    stated = own.get(name)
    if own.get(f"{name}_whole") is True:
        return stated if stated is None or isinstance(stated, dict) else {"output": stated}
    without = {each for each in list_in(own.get(f"{name}_without")) if isinstance(each, str)}
    if native is None and name not in own:
        return None
    kept = {key: value for key, value in (native or {}).items() if key not in without}
    return kept | object_in(stated)
