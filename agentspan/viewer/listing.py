"""The list of runs as text cells, for the page and for the JSON that updates it.

The page also lists the steps that contain the text of the filter, from a search of all spans of the file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from agentspan import clock
from agentspan.analysis.causes import Judged, Scored, Verdict, left_open, page_of, verdict
from agentspan.analysis.runs import find_runs, ids_that_match, marked
from agentspan.analysis.search import Hit, search
from agentspan.analysis.session_runs import about, line_of, prompt_of, totals_text
from agentspan.analysis.tree import is_session, score_text
from agentspan.answers.blocks import Cell
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentVersionRow, ScoreRow
from agentspan.model.scores import MARK
from agentspan.storage import text_search
from agentspan.storage.answers import Rows
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SORTS, Find, NewestScores, Query, RunSort
from agentspan.storage.row_by_row import Labels, labels_of, names_of, tokens_of
from agentspan.storage.sums import RunList, RunSummary
from agentspan.text import cost_texts, duration_text, noun
from agentspan.viewer.address import Address
from agentspan.viewer.texts import tokens_text

PAGE = 50
MAX_AGENTS = 500
MAX_MARKS = 100
SINCE = {"1h": "last hour", "24h": "last day", "7d": "last week", "30d": "last month"}
PREPARING = "Adding up the spans of this file for the first time…"


FORM = ("agent", "status", "since", "mark", "failed", "grep")
"""The names of the filter grammar that have a field in the page's form."""
MORE = {
    "version": "Version", "task": "Task", "purpose": "Purpose", "session": "Session", "tag": "Tag", "score": "Score",
    "error": "Error", "tool": "Tool", "model": "Model", "until": "Before", "project": "Project", "git_commit": "Commit",
}  # fmt: skip
"""The names of the filter grammar that have a field among the further ones, with their labels."""
COLUMNS: tuple[tuple[str, str, RunSort | None], ...] = (
    ("status", "Verdict", None),
    ("name", "Agent", None),
    ("about", "About", None),
    ("why", "Why", None),
    ("marks", "Marks", None),
    ("started", "Started (UTC)", "started"),
    ("took", "Took", "duration"),
    ("spans", "Steps", "spans"),
    ("failed", "Failed", "failed"),
    ("tokens", "Tokens", "tokens"),
    ("cost", "Cost", "cost"),
)
"""The columns of the list: name, title, and the order that a click on the title asks for."""


def listing(storage: Storage, address: Address) -> dict[str, Any]:
    """Return a page of runs as JSON values.

    Returns:
        `runs`, each with its `cells`; `count`, a text with the numbers of shown and of all runs; `total`, the number of
        all matching runs; `preparing`, False because the sums over spans are complete (see unsummed).
    """
    found = find_runs(storage, address.filter(), limit=PAGE, offset=address.offset, sort=sort_of(address))
    rows = [summary.run for summary in found.runs]
    page = page_of(storage, found.runs)
    labels = labels_of(storage, [row.id for row in rows]) if rows else {}
    runs = _with_marks(storage, [_judged(storage, summary, page, labels, address) for summary in found.runs])
    for run, cost in zip(runs, cost_texts(summary.cost_usd for summary in found.runs), strict=True):
        run["cells"]["cost"] = cost
    return {
        "runs": runs,
        "total": found.total,
        "count": _count(found, address.offset),
        "preparing": False,
    }


def sort_of(address: Address) -> RunSort:
    """Return the order of the list; the latest run first if the address has none, or an unknown one."""
    asked = address.get("sort")
    return next((sort for sort in SORTS if sort == asked), SORTS[0])


def unsummed(storage: Storage, address: Address) -> dict[str, Any]:
    """Return a page of runs without sums, while the spans are still being summed; without runs if a filter is set."""
    query = Query("agent_instance", descending=True, limit=PAGE, offset=address.offset, with_total=True)
    page = storage.ask(query) if not address.words and sort_of(address) == SORTS[0] else Rows([], 0)
    rows = [row for row in page.rows if isinstance(row, AgentInstanceRow)]
    named = storage.ask(Find(*{id for row in rows for id in (row.agent_id, row.agent_version_id)})).rows
    left, scored = left_open(storage, rows), Scored(storage, None, ())
    runs = []
    for row in rows:
        agent, version = named[row.agent_id][1], named[row.agent_version_id][1]
        assert isinstance(agent, AgentRow)
        assert isinstance(version, AgentVersionRow)
        sums = (0, 0, 0, None, None, None, row.duration_ms)
        summary = RunSummary(row, agent.name, version.external_identifier, *sums)
        run = _run(summary, verdict(row, scored, left), address)
        runs.append({**run, "cells": {**run["cells"], "spans": "…"}})
    return {"runs": runs, "total": page.counted(), "count": PREPARING, "preparing": True}


def agent_names(storage: Storage) -> list[str]:
    """Return the names of up to MAX_AGENTS agents, sorted, for the choices of the form."""
    rows = storage.ask(Query("agent", limit=MAX_AGENTS)).rows
    return sorted({row.name for row in rows if isinstance(row, AgentRow)}, key=str.casefold)


def marks(storage: Storage) -> list[str]:
    """Return the words with which runs are marked, the most frequent first, for the choices of the form."""
    found = marked(storage)
    return sorted(filter(None, found), key=lambda word: (-len(found[word]), word))[:MAX_MARKS]


def _run(
    summary: RunSummary,
    judged: Verdict,
    address: Address,
    why: str = "",
    scores: Sequence[ScoreRow] = (),
    prompt: str = "",
) -> dict[str, Any]:
    run = summary.run
    started = run.started_at or run.inserted_at
    return {
        "id": run.id,
        "href": address.link(f"runs/{run.id}") + "#view=conversation" * is_session(run),
        "mark": judged.status,
        "cells": {
            "status": judged.text,
            "agent": summary.agent,
            "version": "" if summary.version == "default" else summary.version,
            "about": about(summary.run, prompt),
            "why": why,
            "marks": "",
            "started": started[5:19].replace("T", " "),
            "took": _took(summary, is_under_way=judged.kind == "running"),
            "spans": f"{summary.spans:,}",
            "failed": f"{summary.failed:,}" if summary.failed else "",
            "tokens": tokens_text(tokens_of(summary)),
            "cost": "",
        },
        "titles": {
            "started": started,
            "agent": run.id,
            "status": "; ".join([run.status, *map(score_text, scores)]),
            "why": why,
        },
    }


def _judged(
    storage: Storage, summary: RunSummary, page: Judged, labels: Mapping[str, Labels], address: Address
) -> dict[str, Any]:
    id = summary.run.id
    why = line_of(page.causes[id].text) if id in page.causes else ""
    prompt = prompt_of(storage, summary.run)
    return _run(summary, page.verdicts[id], address, why, labels[id].scores, prompt)


def _with_marks(storage: Storage, runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add the marks of runs and of their steps to the cells of the runs."""
    texts: dict[str, list[str]] = {run["id"]: [] for run in runs}
    for score in storage.ask(NewestScores([*texts])) if runs else ():
        if score.name == MARK and score.label:
            of_step = "" if score.target_type == "agent_instance" else " (a step)"
            texts[score.agent_instance_id].append(f"{score.label}{of_step}")
    return [{**run, "cells": {**run["cells"], "marks": line_of(", ".join(texts[run["id"]]))}} for run in runs]


def _took(summary: RunSummary, *, is_under_way: bool) -> str:
    """Return the duration of a run, or the time since its start if it is under way; "" if unknown."""
    if summary.duration_ms is not None:
        return duration_text(summary.duration_ms)
    started = summary.run.started_at
    if not is_under_way or started is None:
        return ""
    return duration_text(max(0.0, clock.millis_between(started, clock.now())))


def _count(found: RunList, offset: int) -> str:
    shown = f"{offset + 1:,}–{offset + len(found.runs):,}" if offset else f"{len(found.runs):,}"
    return totals_text(f"{shown} of {noun(found.total, 'run')}", found.totals, "span")


SHOWN = 30
EXAMINED = 200
"""The number of hits whose runs are checked against the other filters, because the search has no filters of runs."""


def found_steps(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the spans that contain the text of a filter, the latest first, of runs that match its other fields.

    All words of the text must occur; the last word also matches as a prefix.

    Returns:
        `steps`, at most SHOWN, each with `run`, `span`, `agent`, `status`, `summary`, `started`, `parts` (a snippet in
        pieces, of which every second one is a match) and `repeats` (the number of later spans of the run that repeat
        the text); and `count`, a text with the number of all hits. With other conditions, only the latest EXAMINED hits
        are checked against them: `count` then has the number of matches among these.
    """
    others = address._replace(words=tuple(pair for pair in address.words if pair[0] != "grep"))
    is_filtered = bool(others.words)
    found = search(storage, query_of(address.word("grep")), limit=EXAMINED if is_filtered else SHOWN)
    rows = storage.ask(Find(*{hit.run_id for hit in found.hits})).rows
    runs = [row for _, row in rows.values() if isinstance(row, AgentInstanceRow)]
    names = names_of(storage, runs)
    wanted = ids_that_match(storage, runs, others.filter()) if is_filtered else set(names)
    hits = [hit for hit in found.hits if hit.run_id in wanted]
    return {
        "steps": [_step(hit, names[hit.run_id].agent) for hit in hits[:SHOWN]],
        "count": _number_of(len(hits), len(found.hits), found.total, is_filtered=is_filtered),
    }


def query_of(text: str) -> str:
    """Return the search words for a text that is being typed: the last word matches as a prefix."""
    text = text.strip()
    return text if not text or text[-1] in f'"{text_search.PREFIX}' else text + text_search.PREFIX


def _step(hit: Hit, agent: str) -> dict[str, Any]:
    return {
        "run": hit.run_id,
        "span": hit.span_id,
        "agent": agent,
        "status": hit.status,
        "summary": hit.summary,
        "started": (hit.started_at or "")[:19].replace("T", " "),
        "parts": [text for text, _ in Cell(hit.snippet, matches=hit.matches).pieces()],
        "repeats": hit.repeats,
    }


def _number_of(matching: int, examined: int, total: int, *, is_filtered: bool) -> str:
    if is_filtered and examined < total:
        shown = f"the latest {SHOWN:,} of " if matching > SHOWN else ""
        return f"{shown}{matching:,} of the latest {examined:,} steps with this text ({total:,} in the file)"
    number = matching if is_filtered else total
    steps = noun(number, "step")
    return f"the latest {SHOWN:,} of {steps}" if number > SHOWN else steps
