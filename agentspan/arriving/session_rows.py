"""Makes the rows of sessions: of runs and their ends, of spans, and the moves that bring stored spans up to date.

Functions of values: they read no storage.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from typing import Any

from agentspan import clock, jsontext
from agentspan.api.context import Context
from agentspan.arriving.identity import hashed_id
from agentspan.arriving.records import Session, Step
from agentspan.arriving.stored import about_of, object_of, span_row
from agentspan.model.changes import Move
from agentspan.model.rows import DERIVED, AgentInstanceRow, AgentSpanRow, ScoreRow, SessionFileRow, Value
from agentspan.model.scores import Judgement, score_row
from agentspan.model.spans import Times
from agentspan.schemas.builtin import AGGREGATES
from agentspan.schemas.span_types import REGISTRY, describe
from agentspan.text import one_line

TITLE = 120
"""The most characters of the title that a session without one gets from its first prompt."""
STATUS = {"answered": "complete", "interrupted": "cancelled", "error": "failed", "limit": "failed", None: "complete"}
"""The status of a run by the outcome of its session."""
ANY = frozenset({"pending", "active", "complete", "failed", "cancelled"})
_REWRITTEN = (
    "parent_span_id", "schema_name", "schema_title", "status", "payload", "result_payload", "started_at", "finished_at",
    "duration_ms", "closed_by", "closed_at", "sensitive_encoding", *DERIVED,
)  # fmt: skip
"""The columns of a span that a later state of its step replaces."""
TOTALS = ("input_tokens", "output_tokens", "cost_usd")
_FIRST_NS, _LAST_NS = -62_135_596_800 * 10**9, 253_402_300_799_999_999_999
"""The begin of the year 1, and the end of 9999, in nanoseconds since the epoch."""


def score_of(ctx: Context, run_id: str, session: Session, judged: Mapping[str, Any]) -> ScoreRow:
    """Return the row of a judgement that a session has. Its id is derived from the run, the name and the judge."""
    get = judged.get
    label, explanation, identifier = (
        None if text is None else ctx.admit_text(text) for text in (get("label"), get("explanation"), get("identifier"))
    )
    name, source = ctx.admit_text(judged["name"]), get("source") or "code"
    judgement = Judgement(name, get("value"), label, explanation, source, identifier)
    content = f"{run_id}:{judgement.name}:{judgement.identifier}"
    if "edit" in judged:  # an edited score is another score, and the newest counts
        content += f":{judged['edit']}"
    id = hashed_id(content, session.started_ns, ctx.account.partition)
    at = clock.to_text(in_time(judged.get("at_ns") or session.ended_ns or session.started_ns))
    return score_row(id, run_id, "agent_instance", run_id, judgement, at)


def with_facts(step: Step) -> Step:
    """Return the step of a tool with what its source implies: the commit that it made, and the wait for a person."""
    result, get = step.result or {}, step.payload.get
    more: dict[str, Any] = {}
    if get("name") in _ASKS and step.end_ns is not None:
        more["waited_ms"] = (step.end_ns - step.start_ns) // 1_000_000
    arguments = get("arguments")
    command = (arguments.get("command") or arguments.get("cmd")) if type(arguments) is dict else None
    output = result.get("output")
    if type(output) is str and "git " in str(command) and (made := _COMMITTED.findall(output)):
        more["git_commit"] = made[-1]
    return step._replace(result=result | more) if more else step


_ASKS = ("AskUserQuestion", "ExitPlanMode", "request_user_input", "ask_user", "question")
"""The tools that ask a person."""
_COMMITTED = re.compile(r"^\[[^\]\n]+ ([0-9a-f]{7,40})\] ", re.MULTILINE)
"""The line that git prints for a commit: `[main abc1234] Water the beds`."""


def left_open(step: Step) -> Step:
    """Return an active step of a session that is over: it was cancelled, and when is not known."""
    return step._replace(status="cancelled", end_ns=step.start_ns)


def prompt_line(content: Any) -> str | None:
    """Return the text of a prompt on one line of at most TITLE characters; None without a text."""
    blocks = content if type(content) is list else [content]
    texts = (block.get("text") if type(block) is dict else block for block in blocks)
    text = next((text for text in texts if type(text) is str and not text.isspace()), "")
    return one_line(text[: 4 * TITLE], TITLE) or None


def metadata_of(session: Session) -> dict[str, Any]:
    """Return the metadata of a session's run: its own, with the fingerprint, the outcome and the session's id."""
    found: dict[str, Any] = {**session.metadata, "session_id": session.id}
    if session.outcome is not None:
        found["outcome"] = session.outcome
    if session.fingerprint:
        parts = dict(sorted(session.fingerprint.items()))
        found["fingerprint"] = {"id": sha256(repr(parts).encode()).hexdigest()[:12], "parts": parts}
    return found


def fingerprint_of(metadata: str | None) -> dict[str, str]:
    """Return the parts of the fingerprint in the stored metadata of a run; empty without a fingerprint."""
    found = {} if metadata is None else jsontext.decode(metadata).get("fingerprint")
    parts = found.get("parts") if type(found) is dict else None
    return parts if type(parts) is dict else {}


def ended_run(ctx: Context, session: Session, *, live: bool) -> dict[str, Value]:
    """Return the columns of a run that the latest state of its session sets."""
    status = "active" if live else STATUS[session.outcome]
    ended_ns = max(session.started_ns, session.ended_ns or session.started_ns)
    return {
        "status": status,
        "started_at": clock.to_text(session.started_ns),
        "finished_at": None if live else clock.to_text(ended_ns),
        "duration_ms": None if live else (ended_ns - session.started_ns) / 1_000_000,
        "metadata": object_of(ctx, metadata_of(session)),
        "result": None if session.output is None else object_of(ctx, {"output": session.output}),
        "error": None if session.error is None or live else object_of(ctx, session.error),
        "git_commit": session.git_commit,
        "session": about_of(ctx, session.conversation or session.id),
        "task": about_of(ctx, session.task),
    }


def in_time(ns: int) -> int:
    """Return a time, or the first or last one that a storage can have: a source may state any number."""
    return ns if 0 <= ns <= _LAST_NS else min(max(ns, _FIRST_NS), _LAST_NS)


def row_of(run: AgentInstanceRow, own: tuple[str, str | None], step: Step, now: str) -> AgentSpanRow:
    """Return the row of a step, before redaction: `redacted` is for those that need it.

    Args:
        own: the ids of the span and of its parent.
        now: the current time as stored text.

    Raises:
        ValueError: the payload or result cannot be encoded, because it is nested a thousand levels deep.
    """
    _, _, _, name, start_ns, end_ns, status, sent, returned = step
    start_ns, end_ns = in_time(start_ns), None if end_ns is None else in_time(end_ns)
    payload, result = jsontext.text_of(sent), "" if returned is None else jsontext.text_of(returned)
    started_at = clock.to_text(start_ns)
    ended_at: str | None = None
    duration_ms: float | None = None
    if end_ns is not None:
        took_ns = max(0, end_ns - start_ns)
        ended_at = clock.to_text(end_ns) if took_ns else started_at
        waited_ms = 0 if returned is None else returned.get("waited_ms", 0)
        duration_ms = max(0.0, took_ns / 1_000_000 - (waited_ms if type(waited_ms) is int else 0))
    times = Times(started_at, ended_at, duration_ms)
    return span_row(run, own, name, status, ((payload, sent, 0), (result, returned, 0)), times, now)


def redacted(ctx: Context, row: AgentSpanRow, doubtful: Collection[str]) -> AgentSpanRow:
    """Return the row of a step without credentials, also in the columns that are derived from its payload and result.

    Args:
        doubtful: which of the columns `payload` and `result_payload` the context must admit.
    """
    texts, plain, is_marked = dict[str, Any](), dict[str, Any](), 0
    for column in doubtful:
        text = getattr(row, column)
        admitted = ctx.admit_doubtful(text, jsontext.decode(text))
        if admitted.text != text or admitted.is_marked:
            texts[column], plain[column] = admitted.text, admitted.plain
            is_marked |= admitted.is_marked
    if not texts:
        return row
    for column in {"payload", "result_payload"} - plain.keys():
        text = getattr(row, column)
        plain[column] = jsontext.value_of(text)
    name, result = row.schema_name, plain["result_payload"]
    meaning = describe(REGISTRY.resolve(name), name, row.status, plain["payload"], result, row.duration_ms)
    return row._replace(**texts, sensitive_encoding=is_marked, **meaning.by_column())


def sums_of_agents(rows: Sequence[AgentSpanRow]) -> Mapping[str, tuple[int | None, int | None, float | None]]:
    """Return the sums of the spans below each agent of a run: input tokens, output tokens, cost. An empty sum is None.

    Args:
        rows: all spans of the run.
    """
    parents = {row.id: row.parent_span_id for row in rows}
    agents = {row.id for row in rows if row.is_aggregate and row.schema_name in AGGREGATES}
    below: dict[str, list[AgentSpanRow]] = {id: [] for id in agents}
    for row in rows:
        if row.is_aggregate or (row.input_tokens is None and row.output_tokens is None and row.cost_usd is None):
            continue
        above, seen = row.parent_span_id, set[str]()
        while above is not None and above not in seen:
            seen.add(above)
            if above in below:
                below[above].append(row)
            above = parents.get(above)
    return {id: _sums_of(found) for id, found in below.items()}


def _sums_of(rows: Sequence[AgentSpanRow]) -> tuple[int | None, int | None, float | None]:
    sent, made = ([n for row in rows if (n := getattr(row, name)) is not None] for name in TOTALS[:2])
    costs = [row.cost_usd for row in rows if row.cost_usd is not None]
    return sum(sent) if sent else None, sum(made) if made else None, math.fsum(costs) if costs else None


def update_of(row: AgentSpanRow, stored: AgentSpanRow, *, replaces: bool) -> Move | None:
    """Return the move that brings a stored span to a later state of its step; None if it is not earlier than that.

    Args:
        replaces: the row is what the source says now, whichever of them ends later.
    """
    if row.is_aggregate and row.schema_name in AGGREGATES and stored.input_tokens is not None:
        row = _with_totals(row, stored)
    if stored.status != "active" and not replaces and _is_earlier(row, stored):
        return None  # another program has read more of the file
    values: dict[str, Value] = {
        name: value for name in _REWRITTEN if (value := getattr(row, name)) != getattr(stored, name)
    }
    if not values:
        return None
    values["updated_at"] = row.updated_at
    if "payload" in values or "result_payload" in values:  # a storage derives nothing: all of it is set
        values |= {name: getattr(row, name) for name in ("payload", "result_payload", "sensitive_encoding")}
    unchanged: dict[str, Value] = {"updated_at": stored.updated_at}
    return Move("agent_span", row.id, ANY, values, unchanged=unchanged, instance_id=row.agent_instance_id)


def _is_earlier(row: AgentSpanRow, stored: AgentSpanRow) -> bool:
    """Return whether a row is an earlier state than a stored one that has ended. An own end is later than a close."""
    if row.closed_by is None and stored.closed_by is not None:
        return False
    if row.status == "active" or (row.closed_by is not None and stored.closed_by is None):
        return True
    return (row.finished_at or "") < (stored.finished_at or "")


def _with_totals(row: AgentSpanRow, stored: AgentSpanRow) -> AgentSpanRow:
    """Return the row of an agent with the totals that are stored: the decoder does not know them."""
    totals = {name: value for name in TOTALS if (value := getattr(stored, name)) is not None}
    result = {} if row.result_payload is None else jsontext.decode(row.result_payload)
    return row._replace(result_payload=jsontext.text_of({**result, **totals}), **totals)


def state_of(note: SessionFileRow) -> Mapping[str, Any]:
    """Return the values of a note that have no column of their own."""
    found = jsontext.decode(note.state)
    return found if isinstance(found, dict) else {}
