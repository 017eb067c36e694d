"""Runs to look at, recorded by id with times of their own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import agentspan
from agentspan.api.context import Context
from agentspan.api.spans import CreateSpan
from agentspan.database import Database
from agentspan.model.changes import SpanStatus
from agentspan.storage.protocol import Storage

BEGAN = datetime(2026, 11, 24, 9, 12, 4, tzinfo=UTC)


def at(seconds: float) -> datetime:
    """A moment so long after the run began."""
    return BEGAN + timedelta(seconds=seconds)


class Recording:
    """A run that is being written."""

    def __init__(self, db: Database, agent: str, **fields: Any) -> None:
        self.db = db
        versions = {"agent_version": {"external_identifier": "1.2"}, "agent_schema_version": {}}
        made = db.agent_instances.register(agent, **{**versions, **fields})
        self.id = made.id
        db.agent_instances.start(self.id, timestamp=at(0))

    def span(
        self,
        name: str,
        payload: Any,
        result: Any = None,
        *,
        status: SpanStatus = "complete",
        parent: str | None = None,
        begin: float = 0,
        end: float = 1,
        **fields: Any,
    ) -> str:
        """A span's id."""
        if status != "pending":
            fields["started_at"] = at(begin)
        if status not in ("pending", "active"):
            fields["finished_at"] = at(end)
        made = self.db.agent_spans.create(self.id, name, status, payload, result, parent_span_id=parent, **fields)
        return made.id

    def finish(self, seconds: float) -> str:
        """The run's id, which has finished."""
        self.db.agent_instances.finish(self.id, timestamp=at(seconds))
        return self.id


def failing_run(db: Database) -> str:
    """A small run of every shape: nested, failed, cancelled, with a conversation."""
    run = Recording(db, "researcher", metadata={"ticket": "OPS-1"})
    root = run.span("agent", {"name": "researcher", "goal": "find the cause"}, {"steps": 3}, end=41.2)
    question = {"role": "user", "content": "Why are invoices late?"}
    run.span("message", question, parent=root, begin=0.1, end=0.1)
    call = {"id": "c1", "type": "function", "function": {"name": "search_logs", "arguments": '{"query":"timeout"}'}}
    result = {
        "text": "I will look.",
        "tool_calls": [call],
        "input_tokens": 812,
        "output_tokens": 95,
        "cost_usd": 0.0024,
    }
    run.span("llm", {"model": "gpt-4.1", "messages": [question]}, result, parent=root, begin=0.2, end=2.1)
    error = {
        "type": "TimeoutError",
        "message": "no answer",
        "stacktrace": 'Traceback\n  File "a.py", line 1\nTimeoutError',
    }
    arguments = {"name": "search_logs", "arguments": {"query": "timeout"}, "call_id": "c1"}
    run.span("tool", arguments, {"error": error}, status="failed", parent=root, begin=2.1, end=32.1)
    search = run.span("retrieval", {"query": "locks", "source": "kb"}, {"count": 4}, parent=root, begin=32.1, end=33)
    run.span(
        "embedding",
        {"model": "small", "input_count": 1},
        {"dimensions": 8, "told": '{"a": [{"b": 1}]}'},
        parent=search,
        begin=32.2,
        end=32.4,
    )
    run.span("chain", {"name": "draft"}, status="cancelled", parent=root, begin=33, end=33)
    run.span("step", {"big": 2**63 + 1}, {"error": "again"}, status="failed", parent=root, begin=34, end=35)
    said = {"text": "The report holds a lock.", "input_tokens": 20, "output_tokens": 7}
    run.span("llm", {"model": "gpt-4.1", "messages": [question]}, said, parent=root, begin=36, end=41)
    return run.finish(41.2)


def long_run(db: Database, count: int) -> str:
    """A run of many spans, ten in each chain, one of which fails now and then; written in one commit."""
    run = Recording(db, "crawler")

    def work(grouped: Storage) -> None:
        context = Context(grouped)
        chain = None
        for number in range(count):
            is_chain, fails = number % 11 == 0, number % 400 == 399
            result: dict[str, Any] = (
                {"error": {"type": "Empty", "message": f"page {number}"}} if fails else {"output": number}
            )
            fields = {
                "agent_instance_id": run.id,
                "schema_name": "chain" if is_chain else "tool",
                "status": "failed" if fails else "complete",
                "payload": {"name": f"batch {number // 11}" if is_chain else "fetch", "arguments": {"page": number}},
                "result_payload": result,
                "parent_span_id": None if is_chain else chain,
                "started_at": at(number / 100),
                "finished_at": at(number / 100 + 0.02),
            }
            done = CreateSpan(fields).run(context)
            chain = done.row.id if is_chain else chain

    db.storage.group(work, 5.0)
    return run.finish(count / 100)


HOSTILE = (
    "<script>alert('a')</script></script><script>alert('b')</script>"
    "<img src=x onerror=alert('c')><svg onload=alert('d')>"
    '<a href="javascript:alert(1)">javascript:alert(2)</a>'
    "\"'><b onmouseover=alert('e')>{{7*7}}${7*7}"
)
UNSEEN = "a\u202eb\u0000c\u001b[31md\u200fe\u2066f"


def hostile_run(db: Database) -> str:
    """A run in which every text that somebody else chose is an attack."""
    nasty = HOSTILE + UNSEEN.replace("\u0000", "")
    run = Recording(db, HOSTILE[:120], metadata={HOSTILE: nasty}, external_identifier=HOSTILE[:200])
    root = run.span("agent", {"name": HOSTILE, "goal": nasty}, {"output": nasty})
    call = {"id": HOSTILE, "function": {"name": HOSTILE, "arguments": '{"a":"' + "</script>" + '"}'}}
    said = {"role": HOSTILE, "content": nasty}
    result = {"text": nasty, "tool_calls": [call]}
    run.span("llm", {"model": HOSTILE, "messages": [said], HOSTILE: [nasty]}, result, parent=root)
    error = {"type": HOSTILE, "message": nasty, "stacktrace": nasty}
    run.span("tool", {"name": HOSTILE, "arguments": nasty}, {"error": error}, status="failed", parent=root)
    run.span(HOSTILE[:150], {"a": UNSEEN}, {"b": nasty}, parent=root)
    run.span("message", {"role": HOSTILE, "content": UNSEEN}, parent=root)
    return run.finish(2)


def database(path: Path) -> Database:
    """A new file."""
    return agentspan.open(path)
