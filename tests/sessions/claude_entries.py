"""Entries of an invented session, in the form in which the Claude Agent SDK mirrors them."""

import json
from pathlib import Path
from typing import Any

SESSION = "11111111-2222-4333-8444-555555555555"
KEY = {"project_key": "-home-ada-garden", "session_id": SESSION}
AGENT = {**KEY, "subpath": "subagents/agent-a1"}


def uuid_of(number: int) -> str:
    """Return the uuid of an entry."""
    return f"00000000-0000-4000-8000-{number:012d}"


def entry(number: int, kind: str, message: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an entry that follows the one before it."""
    return {
        "parentUuid": None if number == 1 else uuid_of(number - 1),
        "isSidechain": False,
        "userType": "external",
        "cwd": "/home/ada/garden",
        "sessionId": SESSION,
        "version": "2.1.0",
        "gitBranch": "main",
        "type": kind,
        "message": message,
        "uuid": uuid_of(number),
        "timestamp": f"2026-03-01T10:{number // 60:02d}:{number % 60:02d}.000Z",
        **more,
    }


def prompt(number: int, text: str, **more: Any) -> dict[str, Any]:
    """Return a prompt."""
    return entry(number, "user", {"role": "user", "content": text}, **more)


def answer(number: int, *blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an answer of the model with these blocks."""
    is_call = any(block["type"] == "tool_use" for block in blocks)
    message = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": list(blocks),
        "stop_reason": "tool_use" if is_call else "end_turn",
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 7},
    }
    return entry(number, "assistant", message, requestId=f"req_{number}", **more)


def text(content: str) -> dict[str, Any]:
    """Return a block of text."""
    return {"type": "text", "text": content}


def call(number: int, name: str = "Bash", **arguments: Any) -> dict[str, Any]:
    """Return a block that calls a tool."""
    return {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}


def result(number: int, of: int, content: str, **more: Any) -> dict[str, Any]:
    """Return the result of the call with a number."""
    block = {"type": "tool_result", "tool_use_id": f"toolu_{of}", "content": content, "is_error": False}
    return entry(number, "user", {"role": "user", "content": [block]}, **more)


def turn(first: int) -> list[dict[str, Any]]:
    """Return the four entries of a turn: a prompt, a call of a tool, its result, the answer."""
    return [
        prompt(first, f"water bed {first}"),
        answer(first + 1, call(first, command=f"water {first}")),
        result(first + 2, first, f"bed {first} is wet"),
        answer(first + 3, text(f"bed {first} has water")),
    ]


def written(folder: Path, entries: list[dict[str, Any]]) -> Path:
    """Write the session's file as Claude Code does, and return its path."""
    path = folder / KEY["project_key"] / f"{SESSION}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(each)}\n" for each in entries))
    return path


SUB_AGENT = [
    prompt(3, "look at the roses", isSidechain=True, agentId="a1"),
    answer(4, text("they are red"), isSidechain=True, agentId="a1"),
]
WITH_AGENT = [
    prompt(1, "how are the roses?"),
    answer(2, call(9, "Agent", prompt="look at the roses", description="roses", subagent_type="gardener")),
    result(6, 9, "they are red", parentUuid=uuid_of(2), toolUseResult={"agentId": "a1", "status": "completed"}),
    answer(7, text("red")),
]
META = {"agentType": "gardener", "toolUseId": "toolu_9"}
