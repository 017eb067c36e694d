"""Writes small rollouts of Codex in the forms that the product has written, and decodes them."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentspan.arriving.records import Record, Session, Step, Unread
from agentspan.sessions.codex_decoder import CodexDecoder

THREAD = "01990000-0000-7000-8000-000000000001"
CHILD = "01990000-1000-7000-8000-000000000002"
GRANDCHILD = "01990000-2000-7000-8000-000000000003"
TURN = "01990000-0001-7000-8000-00000000000a"
FILE = Path("rollout.jsonl")
Json = dict[str, Any]


class Decoded(NamedTuple):
    """What a rollout decodes to: the session, its last steps by key, and what was not understood."""

    session: Session | None
    steps: dict[str, Step]
    unread: dict[str, int]

    def of(self, *types: str) -> list[Step]:
        """Return the steps of some types, in their order in time."""
        return sorted((step for step in self.steps.values() if step.type in types), key=lambda step: step.start_ns)

    def names(self, type: str = "event") -> list[str]:
        """Return the names of the steps of a type."""
        return [step.payload["name"] for step in self.of(type)]


def at(seconds: float) -> str:
    """Return a time of a rollout."""
    minutes, rest = divmod(seconds, 60)
    return f"2026-01-02T03:{int(minutes):02d}:{rest:06.3f}Z"


def record(kind: str, payload: Json, seconds: float = 0.0) -> Json:
    """Return a record with an envelope."""
    return {"timestamp": at(seconds), "type": kind, "payload": payload}


def header(id: str = THREAD, seconds: float = 0.0, **more: Any) -> Json:
    """Return the header of a thread."""
    about = {"id": id, "timestamp": at(seconds), "cwd": "/home/ann/shop", "cli_version": "0.120.0", "source": "cli"}
    git = {"commit_hash": "a" * 40, "branch": "main", "repository_url": "https://example.org/shop.git"}
    return record("session_meta", {**about, "originator": "codex-tui", "git": git, **more}, seconds)


def item(seconds: float, type: str, **more: Any) -> Json:
    """Return a response item."""
    return record("response_item", {"type": type, **more}, seconds)


def event(seconds: float, type: str, **more: Any) -> Json:
    """Return an event."""
    return record("event_msg", {"type": type, **more}, seconds)


def context(seconds: float, model: str = "gpt-5.4", **more: Any) -> Json:
    """Return the settings of a turn."""
    sandbox = {"type": "workspace-write"}
    payload = {"model": model, "effort": "high", "approval_policy": "on-request", "sandbox_policy": sandbox}
    return record("turn_context", {**payload, **more}, seconds)


def message(seconds: float, role: str, text: str) -> Json:
    """Return a message as a response item."""
    kind = "output_text" if role == "assistant" else "input_text"
    return item(seconds, "message", role=role, content=[{"type": kind, "text": text}])


def prompt(seconds: float, text: str) -> list[Json]:
    """Return a prompt: the message and the event that repeats it."""
    return [message(seconds, "user", text), event(seconds, "user_message", message=text, images=[])]


def said(seconds: float, text: str) -> list[Json]:
    """Return a message of the model: the event and the item."""
    return [event(seconds, "agent_message", message=text), message(seconds, "assistant", text)]


def call(seconds: float, id: str, name: str = "exec_command", **arguments: Any) -> Json:
    """Return a call of a function."""
    return item(seconds, "function_call", name=name, arguments=json.dumps(arguments), call_id=id)


def output(seconds: float, id: str, text: Any) -> Json:
    """Return the output of a call."""
    return item(seconds, "function_call_output", call_id=id, output=text)


def usage(given: int, out: int, cached: int = 0, reasoning: int = 0) -> Json:
    """Return tokens as the source has them."""
    return {
        "input_tokens": given,
        "cached_input_tokens": cached,
        "output_tokens": out,
        "reasoning_output_tokens": reasoning,
        "total_tokens": given + out,
    }


def tokens(seconds: float, last: Json, total: Json | None = None) -> Json:
    """Return an event of tokens."""
    return event(seconds, "token_count", info={"total_token_usage": total or last, "last_token_usage": last})


def turn(seconds: float, id: str = TURN) -> Json:
    """Return the start of a turn."""
    return event(seconds, "task_started", turn_id=id)


def done(seconds: float, text: str | None = "Done.") -> Json:
    """Return the end of a turn."""
    return event(seconds, "task_complete", turn_id=TURN, last_agent_message=text)


def decode(records: Iterable[Any], id: str = "name") -> Decoded:
    """Decode a rollout as a whole."""
    decoder = CodexDecoder(id)
    found: list[Record] = []
    for each in records:
        found += decoder.feed(FILE, each if isinstance(each, bytes) else json.dumps(each).encode())
    return collected([*found, *decoder.rest()])


def grown(records: Sequence[Any], id: str = "name") -> Decoded:
    """Decode a rollout that grows by one line at a time."""
    decoder = CodexDecoder(id)
    found: list[Record] = []
    for each in records:
        found += decoder.feed(FILE, each if isinstance(each, bytes) else json.dumps(each).encode())
        found += decoder.rest()
    return collected(found)


def collected(records: Iterable[Record]) -> Decoded:
    """Return what is left when each later state of a step has replaced the one before."""
    session: Session | None = None
    steps: dict[str, Step] = {}
    unread: dict[str, int] = {}
    for each in records:
        if isinstance(each, Step):
            assert session is not None, "a session comes before its steps"
            assert each.session == session.id
            steps[each.key] = each
        elif isinstance(each, Unread):
            unread[each.what] = unread.get(each.what, 0) + each.times
        else:
            assert session is None or each.started_ns == session.started_ns
            session = each
    return Decoded(session, steps, unread)
