"""Makes session files as Claude Code writes them, with invented content."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentspan.arriving.records import Record, Session, Step, Unread
from agentspan.sessions.claude_records import ClaudeDecoder
from agentspan.sessions.formats import Source

SESSION = "11111111-2222-4333-8444-555555555555"
OTHER = "99999999-2222-4333-8444-555555555555"
_COMMON = {"isSidechain": False, "userType": "external", "cwd": "/src/shop", "version": "2.1.100", "gitBranch": "main"}


def at(second: float) -> str:
    """Return the time of a second of the test's minute."""
    return f"2026-03-01T10:{int(second) // 60:02}:{int(second) % 60:02}.{round(second * 1000) % 1000:03}Z"


def record(type: str, uuid: str, parent: str | None, second: float, **more: Any) -> dict[str, Any]:
    """Return a record with the members that all have."""
    return {
        "type": type, "uuid": uuid, "parentUuid": parent, "timestamp": at(second), "sessionId": SESSION,
        **_COMMON, **more,
    }  # fmt: skip


def timed(type: str, second: float, **more: Any) -> dict[str, Any]:
    """Return a record without an id, as those about the session are."""
    return {"type": type, "timestamp": at(second), "sessionId": SESSION, **more}


def user(uuid: str, parent: str | None, second: float, content: Any, **more: Any) -> dict[str, Any]:
    return record("user", uuid, parent, second, message={"role": "user", "content": content}, **more)


def usage(output: int, **more: Any) -> dict[str, Any]:
    return {
        "input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 50, "output_tokens": output,
        **more,
    }  # fmt: skip


def assistant(uuid: str, parent: str | None, second: float, *blocks: Any, id: str = "msg_1", **more: Any) -> Any:
    message = {
        "id": id, "model": more.pop("model", "claude-sonnet-4-5"), "role": "assistant", "content": [*blocks],
        "stop_reason": more.pop("stop_reason", None), "usage": more.pop("usage", usage(5)),
    }  # fmt: skip
    return record(
        "assistant", uuid, parent, second, message=message, requestId=more.pop("request", f"req_{id}"), **more
    )


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def tool(id: str, name: str = "Bash", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}


def result(
    uuid: str, parent: str, second: float, id: str, content: Any, structured: Any = None, **more: Any
) -> dict[str, Any]:
    block = {"type": "tool_result", "tool_use_id": id, "content": content}
    if more.pop("is_error", False):
        block["is_error"] = True
    extra = {} if structured is None else {"toolUseResult": structured}
    return user(uuid, parent, second, [block], **extra, **more)


def system(uuid: str, parent: str | None, second: float, subtype: str, **more: Any) -> dict[str, Any]:
    return record("system", uuid, parent, second, subtype=subtype, **more)


def attachment(uuid: str, parent: str | None, second: float, type: str, **more: Any) -> dict[str, Any]:
    return record("attachment", uuid, parent, second, attachment={"type": type, **more})


CONVERSATION = [
    user("u1", None, 0, "Why does the build fail?"),
    assistant("a1", "u1", 2, {"type": "thinking", "thinking": "Look first.", "signature": "x"}, usage=usage(1)),
    assistant("a2", "a1", 3, tool("t1", command="make", description="Build")),
    result("r1", "a2", 5, "t1", "Exit code 2\nno rule", "Error: Exit code 2\nno rule", is_error=True),
    assistant("a3", "r1", 8, text("A rule is missing."), id="msg_2", stop_reason="end_turn"),
]


class Decoded:
    """What a decoder yielded: the last session, the last steps by key in order of time, and what was not understood."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.session: Session | None = None
        self.steps: dict[str, Step] = {}
        self.unread: list[str] = []
        for each in records:
            if isinstance(each, Session):
                self.session = each
            elif isinstance(each, Step):
                assert self.session is not None
                self.steps[each.key] = each
            else:
                assert isinstance(each, Unread)
                self.unread.append(each.what)

    @property
    def known(self) -> Session:
        assert self.session is not None
        return self.session

    def of(self, *types: str) -> list[Step]:
        """Return the steps of some types, in order of time."""
        steps = [step for step in self.steps.values() if not types or step.type in types]
        return sorted(steps, key=lambda step: step.start_ns)

    def one(self, type: str) -> Step:
        (step,) = self.of(type)
        return step


MAIN = Path(f"/home/projects/-src-shop/{SESSION}.jsonl")


def decoded(records: Iterable[Any], parts: dict[str, list[Any]] | None = None, *, growing: bool = False) -> Decoded:
    """Decode the records of a main file, and those of files beside it, by name."""
    files = {MAIN: [*records], **{MAIN.parent / name: each for name, each in (parts or {}).items()}}
    decoder = ClaudeDecoder(Source("claude", MAIN, tuple(list(files)[1:])))

    def yielded() -> Iterable[Record]:
        for file, lines in files.items():
            for line in lines:
                yield from decoder.feed(file, line if type(line) is bytes else json.dumps(line).encode())
                if growing:
                    yield from decoder.rest()
        yield from decoder.rest()

    return Decoded(yielded())
