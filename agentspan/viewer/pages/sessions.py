"""The page of a session: its runs in order, each with its first prompt, as `agentspan show --session` prints them."""

from collections import Counter
from typing import Any

from agentspan.analysis.session_runs import PAGE, SessionRun, session_runs, totals_text
from agentspan.analysis.tree import is_session, run_name, session_title
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.row_by_row import tokens_of
from agentspan.text import noun
from agentspan.viewer.address import Address
from agentspan.viewer.page import Page, Part
from agentspan.viewer.texts import at_text, mark_of, rule_in, tokens_text, took_text, usd_text

LOOKED_AT = 1000
"""The number of latest runs whose sessions are listed if the address has no session."""


def first(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the totals of the session in the address, or the latest sessions."""
    session = address.word("session")
    if not session:
        return {"session": "", "sessions": _latest(storage, address)}
    found = session_runs(storage, session, address.filter(), limit=0)
    return {"session": session, "sentence": totals_text(found.total, found.totals)}


def _latest(storage: Storage, address: Address) -> list[dict[str, str]]:
    numbers: Counter[str] = Counter()
    last: dict[str, AgentInstanceRow] = {}
    titles: dict[str, str] = {}
    for run in scan(storage, AgentInstanceRow, descending=True, limit=LOOKED_AT):
        if run.session:
            numbers[run.session] += 1
            last.setdefault(run.session, run)
            titles[run.session] = titles.get(run.session) or session_title(run) or ""
    return [
        {
            "session": name,
            "title": titles[name],
            "link": _link(run) if numbers[name] == 1 and is_session(run) else address.link("sessions", session=name),
            "runs": f"{numbers[name]:,}",
            "at": at_text(run.started_at or run.inserted_at),
        }
        for name, run in last.items()
    ]


def _link(run: AgentInstanceRow) -> str:
    """Return the address of a run: of the session of a coding agent, that of its conversation."""
    return f"runs/{run.id}{'#view=conversation' if is_session(run) else ''}"


def runs(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the runs of the session in the address."""
    session = address.word("session")
    if not session:
        return {"rows": []}
    found = session_runs(storage, session, address.filter(), rule_in(address), offset=address.offset)
    after = address.offset + len(found.runs)
    return {
        "rows": [_run(each, number) for number, each in enumerate(found.runs, address.offset + 1)],
        "has_failed": any(each.run.failed for each in found.runs),
        "users": ", ".join(found.users),
        "title": found.title or "",
        "more": address.same("sessions", offset=after) if after < found.total else "",
        "less": address.same("sessions", offset=max(0, address.offset - PAGE) or None) if address.offset else "",
        "shown": f"{address.offset + 1:,}–{after:,} of {noun(found.total, 'run')}" if found.runs else "",
        "all": address.link("", session=session),
    }


def _run(each: SessionRun, number: int) -> dict[str, Any]:
    run, row = each.run, each.run.run
    return {
        "number": f"{number:,}",
        "link": _link(row),
        "verdict": each.verdict.text,
        "is_bad": each.verdict.kind in ("failed", "missed"),
        "mark": mark_of(each.verdict),
        "cause": each.cause or "",
        "prompt": each.prompt or "no prompt was recorded",
        "name": run_name(run.agent, run.version),
        "started": at_text(row.started_at or row.inserted_at),
        "took": took_text(row.duration_ms),
        "steps": f"{run.spans:,}",
        "failed": f"{run.failed:,}" if run.failed else "",
        "tokens": tokens_text(tokens_of(run)),
        "cost": usd_text(run.cost_usd),
    }


SESSIONS = Page(
    "sessions", "Sessions", (Part("sessions.html", first), Part("sessions_runs.html", runs)), parameters="/{session}"
)
