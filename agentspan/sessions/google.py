"""Decodes parts of records that Gemini CLI and Qwen Code have both: content, tokens, tool calls, rewound branches."""

import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from agentspan.arriving import Outcome, Session, Step, Unread, as_asked, json_of, object_in, present, text_in, tokens_in
from agentspan.sessions.timeline import Timeline

KEPT_BYTES = 16 * 2**20
"""The most bytes of records whose steps are kept, for the case that a rewind marks them."""
_MCP = re.compile(r"(.+) \((.+) MCP Server\)", re.DOTALL)
_EXIT = re.compile(r"^Exit Code: (-?\d{1,9})$", re.MULTILINE)
_SKILLS = {"activate_skill": "name", "skill": "skill"}
"""The argument that names the skill, by the tool that loads one."""


def record_of(line: bytes, session: str | None) -> dict[str, Any] | Unread | None:
    """Decode a line of a session file: an object, what could not be read, or None for an empty line."""
    if not line or line.isspace():
        return None
    try:
        record = json_of(line)
    except (ValueError, RecursionError):
        return Unread(session, "a line that is no JSON")
    return record if type(record) is dict else Unread(session, "a line that is no object")


def parts_of(content: Any) -> list[dict[str, Any]]:
    """Return the parts of a content: a text, a part, or a list of both. Other values are left out."""
    found = content if type(content) is list else [content]
    parts = [{"text": each} if type(each) is str else each for each in found]
    return [each for each in parts if type(each) is dict]


def text_of(parts: Iterable[dict[str, Any]]) -> str:
    """Return the text of parts, without thoughts."""
    return "".join(text for part in parts if not part.get("thought") and (text := text_in(part.get("text"))))


def thinking_of(parts: Iterable[dict[str, Any]]) -> str:
    """Return the text of the parts that are thoughts."""
    return "\n\n".join(text for part in parts if part.get("thought") and (text := text_in(part.get("text"))))


def content_of(parts: list[dict[str, Any]]) -> Any:
    """Return parts as the content of a message: a text, or blocks if there is anything but text."""
    if len(parts) == 1 and type(parts[0].get("text")) is str:
        return parts[0]["text"]
    return [_block(part) for part in parts]


def _block(part: dict[str, Any]) -> dict[str, Any]:
    if type(part.get("text")) is str:
        return {"type": "text", "text": part["text"]}
    data = object_in(part.get("inlineData"))
    bytes_, media_type = text_in(data.get("data")), text_in(data.get("mimeType"))
    if bytes_ and media_type:
        kind = "image" if media_type.startswith("image/") else "document"
        return {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": bytes_}}
    return part


def tokens_of(sent: Any, cached: Any, made: Any, thoughts: Any, tool: Any, total: Any) -> dict[str, int]:
    """Return the token fields of a call's result from the counts of Google's usage.

    Args:
        sent: the tokens of the prompt, with the cached ones.
        made: the tokens of the answer. Google's own models count thoughts beside it, and bill them as output; models
            behind OpenAI's API count them in it. The total tells which.
        tool: the tokens of tool use, which are input beside `sent`.
    """
    prompt, answer, thinking = tokens_in(sent) + tokens_in(tool), tokens_in(made), tokens_in(thoughts)
    is_inside = tokens_in(total) == prompt + answer
    return {
        "input_tokens": prompt,
        "cached_tokens": tokens_in(cached),
        "output_tokens": answer if is_inside else answer + thinking,
        "reasoning_tokens": thinking,
    }


def asked_of(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tool call as the model asked for it."""
    return {"id": call.get("id"), "name": call.get("name"), "arguments": as_asked(call.get("args"))}


def call_of(name: str, arguments: Any, call_id: str | None, display: str | None) -> tuple[str, dict[str, Any]]:
    """Return the span type and the payload of a tool call.

    Args:
        display: the name for people, which names the server of an MCP tool.
    """
    asked = {"call_id": call_id} if call_id else {}
    if display and (found := _MCP.fullmatch(display)):
        return "mcp", {
            "method": "tools/call", "server": found[2], "target": found[1], "arguments": arguments, **asked
        }  # fmt: skip
    payload: dict[str, Any] = {"name": name, "arguments": arguments, **asked}
    if name in _SKILLS and (skill := text_in(object_in(arguments).get(_SKILLS[name]))):
        payload["skill"] = skill
    return "tool", payload


def outcome_of(parts: list[dict[str, Any]], type: str, name: str) -> dict[str, Any]:
    """Return the result of a tool call from the parts that answer it.

    Args:
        type, name: the span type of the call, and the tool's name.
    """
    found: list[Any] = []
    for part in parts:
        response = object_in(part.get("functionResponse")).get("response")
        if response is None:
            if "functionResponse" not in part:
                found.append(_block(part))
            continue
        answer = object_in(response)
        found.append(next((answer[key] for key in ("output", "error") if key in answer), response))
    output = found[0] if len(found) == 1 else found or None
    result: dict[str, Any] = {"result" if type == "mcp" else "output": output}
    if name == "run_shell_command" and isinstance(output, str) and (exit_code := _EXIT.search(output)):
        result["exit_code"] = int(exit_code[1])
    return result


class Log:
    """One session: the values that later records of it need.

    Args:
        agent: the name of the product.
        parent, name: of a sub-agent, as a Session has them.

    Attributes:
        last_ns: the end of the newest record that the model answers to.
    """

    def __init__(self, id: str, agent: str, parent: tuple[str, str | None] | None = None, name: str | None = None):
        self.id, self.agent, self.parent, self.name = id, agent, parent, name
        self.started_ns = self.ended_ns = self.last_ns = 0
        self.time = Timeline()
        self.branch = Branch()
        self.models: dict[str, None] = {}
        self.metadata: dict[str, Any] = {}
        self.version: str | None = None
        self.conversation: str | None = None
        self.first: str | None = None
        self.task: str | None = None
        self.goal: Any = None
        self.answer: str | None = None
        self.outcome: Outcome | None = None
        self.error: dict[str, Any] | None = None

    def session(self) -> Session:
        """Return the session as far as it is known."""
        metadata = self.metadata | ({"models": [*self.models]} if self.models else {})
        parts = {"model": next(iter(self.models), None), "cli_version": self.version}
        return Session(
            self.id,
            self.agent,
            self.started_ns or 1,
            self.version,
            ended_ns=max(self.started_ns, self.ended_ns) or None,
            outcome=self.outcome,
            output=self.answer,
            error=self.error if self.outcome == "error" else None,
            task=self.task,
            conversation=self.conversation,
            first=self.first,
            parent=self.parent,
            name=self.name if self.parent else None,
            goal=self.goal if self.parent else None,
            fingerprint=present(parts),
            metadata=metadata,
        )

    def moment(
        self, key: str, type: str, start: int, payload: dict[str, Any], result: dict[str, Any] | None = None
    ) -> Step:
        """Return a step without a duration."""
        return Step(self.id, key, None, type, start, start, "complete", payload, result)

    def rewound(self, key: str, content: dict[str, Any], steps: Iterable[Step], ns: int) -> Iterator[Step]:
        """Yield the steps that a rewind removed, and the event of it. The last answer is none any more."""
        yield from steps
        yield self.moment(key, "event", self.time.at(ns), {"name": "rewind", "level": "info", "content": content})
        self.outcome = None


class Branch:
    """The records that are not rewound, in order, and the steps of the newest of them.

    The steps of at most KEPT_BYTES of records are kept. Older ones are not marked when they are rewound.
    """

    __slots__ = ("_bytes", "_kept", "_live")

    def __init__(self) -> None:
        self._live: dict[str, None] = {}
        self._kept: OrderedDict[str, tuple[list[Step], int]] = OrderedDict()
        self._bytes = 0

    def add(self, record: str, steps: list[Step], size: int) -> None:
        """Note a record, or its later state.

        Args:
            record: the id of the record.
            size: the number of bytes of the record.
        """
        self._live[record] = None
        old = self._kept.pop(record, None)
        if old is not None:
            kept = {step.key: step for step in old[0]}
            steps = [*(kept | {step.key: step for step in steps}).values()]
            size = max(size, old[1])
            self._bytes -= old[1]
        self._kept[record] = steps, size
        self._bytes += size
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1][1]

    def restart(self, records: Iterable[str]) -> None:
        """Note which records are live now, in order."""
        self._live = dict.fromkeys(records)

    def cut(self, records: Collection[str], *, is_kept: bool) -> tuple[list[Step], int]:
        """Rewind; return the rewound steps that are kept, marked, and the number of all rewound records.

        Args:
            records: the ids of the record to rewind to, of which the first in the branch counts; without any of them,
                everything is rewound.
            is_kept: whether that record stays itself.
        """
        live = list(self._live)
        place = next((place + is_kept for place, record in enumerate(live) if record in records), 0)
        self._live = dict.fromkeys(live[:place])
        return [*self._marked(live[place:])], len(live) - place

    def _marked(self, records: Iterable[str]) -> Iterator[Step]:
        for record in records:
            steps, size = self._kept.pop(record, ([], 0))
            self._bytes -= size
            for step in steps:
                status = "cancelled" if step.status == "active" else step.status
                end_ns = step.start_ns if step.end_ns is None else step.end_ns
                yield step._replace(status=status, end_ns=end_ns, payload={**step.payload, "rewound": True})
