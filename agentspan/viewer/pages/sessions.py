"""The page of a session: its runs in order, each with its first prompt, as `agentspan show --session` prints them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from agentspan.analysis.session_runs import PAGE, session_runs, totals_text
from agentspan.analysis.tree import is_session, session_title
from agentspan.answers import session as answers
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.text import noun
from agentspan.viewer.address import Address
from agentspan.viewer.page import Page, Part
from agentspan.viewer.texts import at_text, rule_in

LOOKED_AT = 1000
"""The number of latest runs whose sessions are listed if the address has no session."""


def first(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the totals of the session in the address, or the latest sessions."""
    session = address.word("session")
    if not session:
        rows = [*scan(storage, AgentInstanceRow, descending=True, limit=LOOKED_AT + 1)]
        sessions = _latest(rows, address)
        among = "" if len(rows) <= LOOKED_AT else f" among the latest {LOOKED_AT:,} runs"
        sentence = f"{noun(len(sessions), 'session')}{among}, the latest {sessions[0]['at']}." if sessions else ""
        return {"session": "", "sessions": sessions, "sentence": sentence}
    found = session_runs(storage, session, address.filter(), limit=0)
    return {"session": session, "sentence": totals_text(noun(found.total, "run"), found.totals)}


def _latest(rows: Sequence[AgentInstanceRow], address: Address) -> list[dict[str, str]]:
    numbers: Counter[str] = Counter()
    last: dict[str, AgentInstanceRow] = {}
    titles: dict[str, str] = {}
    more = " or more" if len(rows) > LOOKED_AT else ""  # counting all would read all runs: no index has sessions
    for run in rows[:LOOKED_AT]:
        if run.session:
            numbers[run.session] += 1
            last.setdefault(run.session, run)
            titles[run.session] = titles.get(run.session) or session_title(run) or ""
    return [
        {
            "session": name,
            "title": titles[name],
            # The session of a coding agent opens as its conversation.
            "link": f"runs/{run.id}#view=conversation" if numbers[name] == 1 and is_session(run) else link,
            "all": link,
            "runs": f"{numbers[name]:,}{more}",
            "at": at_text(run.started_at or run.inserted_at),
        }
        for name, run in last.items()
        for link in [address.link("sessions", session=name)]
    ]


def runs(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the runs of the session in the address."""
    session = address.word("session")
    if not session:
        return {"blocks": []}
    found = session_runs(storage, session, address.filter(), rule_in(address), offset=address.offset)
    after = address.offset + len(found.runs)
    return {
        "blocks": [answers.table(found, at_text, address.offset)] if found.runs else [],
        "users": ", ".join(found.users),
        "title": found.title or "",
        "more": address.same("sessions", offset=after) if after < found.total else "",
        "less": address.same("sessions", offset=max(0, address.offset - PAGE) or None) if address.offset else "",
        "shown": f"{address.offset + 1:,}–{after:,} of {noun(found.total, 'run')}" if found.runs else "",
        "all": address.link("", session=session),
    }


SESSIONS = Page(
    "sessions", "Sessions", (Part("sessions.html", first), Part("sessions_runs.html", runs)), parameters="/{session}"
)
