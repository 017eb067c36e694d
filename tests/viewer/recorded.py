"""Runs whose conversations are read."""

from typing import Any

from agentspan.database import Database
from agentspan.model.changes import SpanStatus
from agentspan.storage.questions import SpansOf
from agentspan.viewer import conversation, turns


class Recorded:
    """A run whose spans follow each other, a second each."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.run = db.agent_instances.register("a", agent_version={}, agent_schema_version={}).id
        self.seconds = 0

    def add(
        self,
        name: str,
        payload: Any,
        result: Any = None,
        *,
        status: SpanStatus = "complete",
        parent: str | None = None,
        seconds: int | None = None,
        lasts: int = 0,
    ) -> str:
        self.seconds = self.seconds + 1 if seconds is None else seconds
        at, end = (f"2026-11-24T10:{one // 60:02d}:{one % 60:02d}Z" for one in (self.seconds, self.seconds + lasts))
        return self.db.agent_spans.create(
            self.run,
            name,
            status,
            payload,
            result,
            parent_span_id=parent,
            started_at=at,
            finished_at=end,
        ).id

    def said(self) -> list[tuple[str, str]]:
        return [(turn["role"], turn["text"]) for turn in self.turns()]

    def turns(self) -> list[turns.Turn]:
        return self.conversation().turns

    def conversation(self) -> conversation.Conversation:
        return conversation.of_run(self.db.storage.ask(SpansOf(self.run)))


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, Any]:
    return {"role": "system", "content": text}


CALL = {"id": "c1", "function": {"name": "pay", "arguments": '{"to":"bob","sum":1}'}}


def answer(text: str) -> dict[str, Any]:
    """What the tool of CALL said, as the model is told."""
    return {"role": "tool", "tool_call_id": "c1", "content": text}
