"""The steps that contain the text of the list's filter: a search of all spans of the file, for the page of runs."""

from typing import Any

from agentspan.analysis.runs import ids_that_match
from agentspan.analysis.search import Hit, search
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage import tokenizing
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find
from agentspan.storage.row_by_row import names_of
from agentspan.viewer.listing import Asked

SHOWN = 30
EXAMINED = 200
"""Hits whose runs are compared with the other filters: the search itself knows no filters of runs."""


def found_steps(storage: Storage, asked: Asked) -> dict[str, Any]:
    """Return the spans with the text of a filter, the latest first, of runs that match its other fields.

    The text is searched as words, the last of them by its beginning, as `agentspan search` does.

    Returns:
        `steps`, at most SHOWN: of each its `run`, its `span`, the `agent`, the `status`, the `summary`, when it
        `started`, `parts`, a snippet cut into pieces, of which every second one is a match, and `repeats`, how many
        later spans of the run repeat it. `count` says how many there are.
    """
    others = asked._replace(grep="", offset=0)
    is_filtered = others != Asked()
    found = search(storage, query_of(asked.grep), limit=EXAMINED if is_filtered else SHOWN)
    rows = storage.ask(Find(*{hit.run_id for hit in found.hits})).rows
    runs = [row for _, row in rows.values() if isinstance(row, AgentInstanceRow)]
    names = names_of(storage, runs)
    wanted = ids_that_match(storage, runs, others.filter()) if is_filtered else set(names)
    hits = [hit for hit in found.hits if hit.run_id in wanted]
    return {
        "steps": [_step(hit, names[hit.run_id].agent) for hit in hits[:SHOWN]],
        "count": _count(len(hits), len(found.hits), found.total, is_filtered=is_filtered),
    }


def query_of(text: str) -> str:
    """Return a search for a text whose last word may be the beginning of one."""
    text = text.strip()
    return text if not text or text[-1] in f'"{tokenizing.PREFIX}' else text + tokenizing.PREFIX


def _step(hit: Hit, agent: str) -> dict[str, Any]:
    return {
        "run": hit.run_id,
        "span": hit.span_id,
        "agent": agent,
        "status": hit.status,
        "summary": hit.summary,
        "started": (hit.started_at or "")[:19].replace("T", " "),
        "parts": _parts(hit),
        "repeats": hit.repeats,
    }


def _parts(hit: Hit) -> list[str]:
    """Cut a snippet at its matches: text, match, text, …"""
    parts, done = [], 0
    for start, end in hit.matches:
        parts += [hit.snippet[done:start], hit.snippet[start:end]]
        done = end
    return [*parts, hit.snippet[done:]]


def _count(matching: int, examined: int, total: int, *, is_filtered: bool) -> str:
    if is_filtered and examined < total:
        shown = f"the latest {SHOWN:,} of " if matching > SHOWN else ""
        return f"{shown}{matching:,} of the latest {examined:,} steps with this text ({total:,} in the file)"
    number = matching if is_filtered else total
    noun = "step" if number == 1 else "steps"
    return f"the latest {SHOWN:,} of {number:,} {noun}" if number > SHOWN else f"{number:,} {noun}"
