"""Maps parts of Claude Code's records to the payloads and results of steps. Pure functions, without state.

Every function accepts any JSON: a member of the wrong type counts as missing.
"""

import math
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

from agentspan.arriving import object_in, text_in, tokens_in

SYNTHETIC = "<synthetic>"
"""The model of messages that Claude Code writes itself, such as "No response requested."."""
INTERRUPTED = "[Request interrupted by user"
"""How a record begins that says that a person interrupted the agent."""
AGENT_TOOLS = frozenset({"Task", "Agent"})
"""The tools that start a sub-agent."""
LOCAL_COMMANDS = frozenset(
    {
        "/add-dir", "/agents", "/bug", "/clear", "/compact", "/config", "/context", "/cost", "/doctor", "/effort",
        "/exit", "/export", "/fast", "/feedback", "/help", "/hooks", "/ide", "/login", "/logout", "/mcp", "/memory",
        "/model",
        "/permissions", "/plugin", "/quit", "/remote-control", "/rename", "/resume", "/rewind", "/status",
        "/statusline", "/tasks", "/terminal-setup", "/theme", "/todos", "/upgrade", "/usage", "/vim",
    }
)  # fmt: skip
"""Commands that set or show something: no task for the agent."""
_REJECTED = ("The user doesn't want to", "User rejected tool use")
_COMMANDS = ("<command-name>", "<command-message>")
_NOTICES = ("<local-command-", "<task-notification>", "<bash-", "<system-reminder>", "<user-memory-input>")
_TAG = re.compile(r"<([a-z-]+)>")
_COMMAND = re.compile(r"<command-name>\s*(.*?)\s*</command-name>", re.DOTALL)
_ARGUMENTS = re.compile(r"<command-args>\s*(.*?)\s*</command-args>", re.DOTALL)
_EXIT = re.compile(r"(?:Error: )?Exit code (\d{1,9})\b")
_LIMITS = ("limit reached", "usage limit", "hit your", "out of extra usage", "credit balance")
_EPOCH = date(1970, 1, 1).toordinal()
_MINUTES: dict[str, int] = {}


def uuid_of(record: Mapping[str, Any]) -> Any:
    """Return the uuid of a record; of one that a fork has copied under a new uuid, that of the original."""
    fork = record.get("forkedFrom")
    origin = fork.get("messageUuid") if type(fork) is dict else None
    return origin if type(origin) is str and origin else record.get("uuid")


def blocks_of(content: Any) -> list[dict[str, Any]]:
    """Return the content blocks of a message; a text is one block."""
    if type(content) is str:
        return [{"type": "text", "text": content}]
    return [each for each in content if type(each) is dict] if type(content) is list else []


def millis_of(timestamp: Any) -> int | None:
    """Return a time such as `2026-01-31T12:00:00.123Z` in milliseconds since the epoch; None if it is none."""
    if type(timestamp) is not str or len(timestamp) < 20 or timestamp[-1] != "Z":
        return None
    try:
        minute = _MINUTES.get(timestamp[:17])
        if minute is None:
            minute = _minute_of(timestamp[:17])
        if len(timestamp) == 24 and (in_minute := timestamp[17:19] + timestamp[20:23]).isdigit():
            return minute + int(in_minute)
        return (
            minute + int(timestamp[17:19]) * 1000 + (int((timestamp[20:-1] + "00")[:3]) if len(timestamp) > 20 else 0)
        )
    except ValueError:
        return None


def _minute_of(text: str) -> int:
    """Return the begin of a minute, such as `2026-01-31T12:00:`, in milliseconds since the epoch."""
    days = date.fromisoformat(text[:10]).toordinal() - _EPOCH
    hours, minutes = int(text[11:13]), int(text[14:16])
    if days < 0 or not (0 <= hours < 24 and 0 <= minutes < 60):
        raise ValueError(text)
    if len(_MINUTES) > 1000:
        _MINUTES.clear()
    _MINUTES[text] = ((days * 24 + hours) * 60 + minutes) * 60_000
    return _MINUTES[text]


def kind_of_text(text: str) -> str:
    """Return the kind of a text in the place of a prompt: `prompt`, `interruption`, `command`, or a notice's tag."""
    if text.startswith(INTERRUPTED):
        return "interruption"
    if text.startswith("<"):
        if text.startswith(_COMMANDS):
            return "command"
        if text.startswith(_NOTICES) and (tag := _TAG.match(text)) is not None:
            return tag[1]
    return "prompt"


def command_of(text: str) -> str:
    """Return the slash command of a record as a person types it: `/review 12`."""
    name, arguments = _COMMAND.search(text), _ARGUMENTS.search(text)
    if name is None:
        return re.sub(r"<[^>]*>", " ", text).strip()
    return " ".join(part for part in (name[1], arguments[1] if arguments else "") if part)


def plain_text(content: Any) -> str:
    """Return the texts of a message's content."""
    if type(content) is str:
        return content
    return "\n".join(text for block in blocks_of(content) if (text := text_in(block.get("text"))) is not None)


def provider_of(model: str | None) -> str | None:
    """Return the provider of a model by its name; None for models that are no Claude."""
    if model is None:
        return None
    if model.startswith("claude"):
        return "anthropic"
    return "aws" if "anthropic.claude" in model else None


def usage_of(usage: Any) -> dict[str, Any]:
    """Return the tokens of a model call, by the names of an `llm` result; nothing without a usage."""
    if type(usage) is not dict or "output_tokens" not in usage:
        return {}
    get = usage.get
    read = tokens_in(get("cache_read_input_tokens"))
    written = tokens_in(get("cache_creation_input_tokens"))
    found: dict[str, Any] = {
        "input_tokens": tokens_in(get("input_tokens")) + read + written,
        "cached_tokens": read,
        "cache_write_tokens": written,
        "output_tokens": tokens_in(get("output_tokens")),
    }
    if written and type(parts := get("cache_creation")) is dict:
        hours = tokens_in(parts.get("ephemeral_1h_input_tokens"))
        if hours:
            found["cache_write_1h_tokens"] = min(hours, written)
    server = get("server_tool_use")
    if type(server) is dict and any(server.values()):  # mostly all are 0
        used = {name: count for name, count in server.items() if tokens_in(count)}
        if used:
            found["server_tool_use"] = used
    return found


def call_of(block: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the type and the payload of the step of a tool call.

    Args:
        block: a block with the tool's `name`, `input` and `id`.
    """
    name = text_in(block.get("name")) or "unknown"
    arguments = block.get("input")
    type_, payload = "tool", {"name": name, "arguments": arguments}
    if name.startswith("mcp__") and (target := name[5:].partition("__"))[2]:
        type_ = "mcp"
        payload = {"method": "tools/call", "server": target[0], "target": target[2], "arguments": arguments}
    if (id := text_in(block.get("id"))) is not None:
        payload["call_id"] = id
    if name == "Skill" and (skill := skill_of(arguments)) is not None:
        payload["skill"] = skill
    return type_, payload


def skill_of(arguments: Any) -> str | None:
    """Return the name of the skill that a call of the tool Skill names."""
    get = object_in(arguments).get
    return text_in(get("skill")) or text_in(get("command"))


def output_of(content: Any) -> Any:
    """Return the output of a tool: its only text, or its blocks."""
    if type(content) is list and len(content) == 1 and type(content[0]) is dict and content[0].get("type") == "text":
        return content[0].get("text", "")
    return content


def result_of(type_: str, payload: Mapping[str, Any], block: Mapping[str, Any], structured: Any) -> dict[str, Any]:
    """Return the result of a tool call.

    Args:
        type_: `tool` or `mcp`.
        payload: the payload of the call.
        block: the `tool_result` block.
        structured: the record's toolUseResult; None if it has none.
    """
    content = block.get("content")
    output = output_of(content)
    result: dict[str, Any] = {"result" if type_ == "mcp" else "output": output}
    if block.get("is_error") is True:
        result["is_error"] = True
    name = payload.get("name")
    if name == "Bash" and (code := _exit_code(output, block, structured)) is not None:
        result["exit_code"] = code
    rest = _without(structured, content, output, object_in(payload.get("arguments")))
    if rest is not None:
        result["structured"] = rest
    return result


def _exit_code(output: Any, block: Mapping[str, Any], structured: Any) -> int | None:
    if block.get("is_error") is True:
        found = _EXIT.match(output) if type(output) is str else None
        return None if found is None else int(found[1])
    if type(structured) is not dict or "stdout" not in structured or structured.get("interrupted"):
        return None
    # The exit code of a background command is not known yet, and an interpreted one is not written down.
    return None if "backgroundTaskId" in structured or structured.get("returnCodeInterpretation") else 0


def _without(structured: Any, content: Any, output: Any, arguments: Mapping[str, Any]) -> Any:
    """Return the structured result without values that the output or the arguments have; None if none is left."""
    if structured is None or structured in (content, output):
        return None
    if type(structured) is str:
        is_same = type(output) is str and structured.removeprefix("Error: ") == output
        return None if is_same else structured
    if type(structured) is not dict:
        return structured
    known = [each for each in (output, content, *arguments.values()) if each]
    rest = {name: value for name, value in structured.items() if type(value) not in _LONG or value not in known}
    if type(stdout := rest.get("stdout")) is str and type(output) is str and (not stdout or stdout.strip() == output):
        del rest["stdout"]
    file = rest.get("file")
    if (
        type(file) is dict
        and type(text := file.get("content")) is str
        and type(output) is str
        and len(output) >= len(text)
    ):
        # The output is the content with line numbers.
        rest["file"] = {name: value for name, value in file.items() if name != "content"}
    return rest or None


_LONG = (str, list, dict)


def was_stopped(block: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Return whether a person rejected or stopped a tool call."""
    structured = record.get("toolUseResult")
    if type(structured) is dict and structured.get("interrupted") is True:
        return True
    if block.get("is_error") is not True:
        return False
    output = output_of(block.get("content"))
    return "toolDenialKind" in record or (type(output) is str and output.startswith((*_REJECTED, INTERRUPTED)))


def took_ms(block: Mapping[str, Any], record: Mapping[str, Any], structured: Any) -> float:
    """Return how long a tool ran, as its result states: 0 for one that a person rejected; infinite if it does not."""
    output = output_of(block.get("content"))
    if block.get("is_error") is True and type(output) is str and output.startswith(_REJECTED):
        return 0
    took = object_in(structured).get("durationMs")
    return took if isinstance(took, int | float) and took >= 0 else math.inf


def is_limit(text: str, kind: Any) -> bool:
    """Return whether an error message of Claude Code says that a limit of usage was reached."""
    low = text.lower()
    return kind in ("rate_limit", "billing_error") or any(each in low for each in _LIMITS)


def api_error_of(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the payload (without the model) and the result of a failed attempt of a model call."""
    error = object_in(record.get("error"))
    inner = object_in(object_in(error.get("error")).get("error"))
    message = text_in(inner.get("message")) or text_in(error.get("formatted")) or text_in(error.get("message"))
    code = object_in(error.get("connection")).get("code")
    kind = text_in(inner.get("type")) or text_in(code) or (f"http_{error['status']}" if error.get("status") else None)
    retry = {
        "attempt": record.get("retryAttempt"),
        "max_retries": record.get("maxRetries"),
        "retry_in_ms": record.get("retryInMs"),
    }
    payload = {name: value for name, value in retry.items() if type(value) in (int, float)}
    failed = {"type": kind or "api_error", "message": message or text_in(record.get("error")) or "the API failed"}
    return payload, {"error": failed}


def hook_of(attachment: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the payload and the result of a hook's attachment."""
    get = attachment.get
    event = text_in(get("hookEvent"))
    payload = {"name": text_in(get("hookName")) or event or "hook", "event": event}
    blocking = object_in(get("blockingError"))
    payload["command"] = get("command") or blocking.get("command")
    payload["call_id"] = text_in(get("toolUseID"))
    result: dict[str, Any] = {}
    output = get("content") or get("stdout")
    if output:
        result["output"] = output
    if get("stdout") and get("stdout") != output:
        result["stdout"] = get("stdout")
    if get("stderr"):
        result["stderr"] = get("stderr")
    if type(get("exitCode")) is int:
        result["exit_code"] = get("exitCode")
    if get("type") != "hook_success":
        message = text_in(blocking.get("blockingError")) or text_in(get("stderr")) or "the hook failed"
        result["error"] = {"type": str(get("type")), "message": message}
    return {name: value for name, value in payload.items() if value}, result


def stop_hooks_of(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the payload and the result of the hooks that ran at the end of a turn."""
    infos = record.get("hookInfos")
    hooks = [each for each in infos if type(each) is dict] if type(infos) is list else []
    commands = [each.get("command") for each in hooks]
    payload: dict[str, Any] = {
        "name": "Stop",
        "event": "Stop",
        "command": commands[0] if len(commands) == 1 else commands,
    }
    if took := max((tokens_in(each.get("durationMs")) for each in hooks), default=0):  # they run at the same time
        payload["duration_ms"] = took
    result: dict[str, Any] = {}
    for name, ours in (
        ("hookAdditionalContext", "output"),
        ("hookErrors", "errors"),
        ("preventedContinuation", "prevented_continuation"),
        ("stopReason", "stop_reason"),
    ):
        if record.get(name):
            result[ours] = record[name]
    return payload, result


def compaction_of(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the payload and the result of a compaction or a microcompaction, without the summary."""
    facts = object_in(record.get("compactMetadata") or record.get("microcompactMetadata"))
    payload: dict[str, Any] = {"trigger": text_in(facts.get("trigger")) or "unknown"}
    if before := tokens_in(facts.get("preTokens")):
        payload["tokens_before"] = before
    if "microcompactMetadata" in record:
        payload["micro"] = True
    rest = {name: value for name, value in facts.items() if name not in _COMPACTION and value}
    if rest:
        payload["details"] = rest
    result: dict[str, Any] = {}
    if after := tokens_in(facts.get("postTokens")):
        result["tokens_after"] = after
    elif saved := tokens_in(facts.get("tokensSaved")):
        result["tokens_after"] = max(0, before - saved)
    return payload, result


_COMPACTION = ("trigger", "preTokens", "postTokens", "tokensSaved")


def preserved_of(record: Mapping[str, Any]) -> list[str]:
    """Return the uuids of the records that a compaction has kept in the context."""
    kept = object_in(object_in(record.get("compactMetadata")).get("preservedMessages"))
    return names_of(kept.get("allUuids") or kept.get("uuids"))[:_MOST_KEPT]


_MOST_KEPT = 1000


def settings_of(params: Any) -> dict[str, Any]:
    """Return the settings of a request for the payload of a model call: the small ones, without lists of features."""
    found = {name: value for name, value in object_in(params).items() if name in _SETTINGS and value is not None}
    if type(found.get("max_tokens")) is not int:
        found.pop("max_tokens", None)
    return found


_SETTINGS = frozenset({"max_tokens", "temperature", "thinking", "output_config", "context_management", "service_tier"})


def names_of(value: Any) -> list[str]:
    """Return the texts of a list."""
    return [each for each in value if type(each) is str] if type(value) is list else []
