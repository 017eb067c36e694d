"""The page of a search over all runs: the steps with some words, by run, as `agentspan search --by-run` prints them."""

from typing import Any

from agentspan.analysis.causes import verdicts_on
from agentspan.analysis.runs import find_runs, ids_of
from agentspan.analysis.search import PER_RUN, RUNS, HitsByRun, search_by_run
from agentspan.analysis.tree import run_name, session_title
from agentspan.answers import search as answers
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter, contains_text
from agentspan.storage.sums import RunSummary
from agentspan.text import noun
from agentspan.viewer.address import Address
from agentspan.viewer.listing import query_of
from agentspan.viewer.page import Page, Part
from agentspan.viewer.texts import Linked, at_text

OF_ONE_RUN = 200
"""The number of steps of a run that are shown if only this run is searched."""


def hits(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the hits by run; `run` in the address searches only that run, and shows all its hits."""
    text, run = address.get("q"), address.get("run")
    if not text:
        return {"q": "", "run": "", "is_filtered": bool(address.words)}
    filter = address.filter()
    runs = None if filter == RunFilter() else ids_of(storage, filter)
    most = OF_ONE_RUN if run else PER_RUN
    found = search_by_run(storage, query_of(text), run=run or None, runs=runs, offset=address.offset, per_run=most)
    verdicts = verdicts_on(storage, [each.run for each in found.runs], None)
    after = address.offset + len(found.runs)
    is_last = after >= found.found
    return {
        "q": text,
        "run": run,
        "sentence": str(found),
        "is_filtered": bool(address.words),
        "named": _named(found),
        **_own(storage, found, address),
        "blocks": [*answers.by_run(found, verdicts, at_text, () if run else [text])],
        "more": "" if is_last else address.same("search", offset=after),
        "less": address.same("search", offset=max(0, address.offset - RUNS) or None) if address.offset else "",
        "shown": f"{address.offset + 1:,}–{after:,} of {noun(found.found, 'run')}" if found.runs else "",
        "narrow": "" if found.is_whole or not is_last else f"Earlier steps are not listed: {found.total:,} have it.",
    }


def _named(found: HitsByRun) -> dict[str, str] | None:
    row = found.named
    if isinstance(row, AgentSpanRow):
        return {"what": f"Step {row.id}", "link": f"runs/{row.agent_instance_id}#span={row.id}"}
    if isinstance(row, AgentInstanceRow):
        name = f" ({row.external_identifier})" if row.external_identifier else ""
        return {"what": f"Run {row.id}{name}", "link": f"runs/{row.id}"}
    return None


def _own(storage: Storage, found: HitsByRun, address: Address) -> dict[str, Any]:
    """Return the latest runs with the text in their own names, metadata, result or error, and where all are listed."""
    if address.get("run") or address.offset:
        return {"own": [], "own_all": None}
    text = address.get("q").strip('"')
    listed = find_runs(storage, address.filter()._replace(grep=text), limit=RUNS)
    own = [each for each in listed.runs if each.run != found.named and _says(each, text)]
    number = listed.total - (len(listed.runs) - len(own))
    return {
        "own": [_own_run(each) for each in own[:PER_RUN]],
        "own_all": Linked(noun(number, "run"), address.link("", grep=text)) if own else None,
    }


def _says(each: RunSummary, text: str) -> bool:
    """Return whether a run has a text elsewhere than in its id: three letters are in the ids of many runs."""
    row = each.run
    said = (row.external_identifier, row.metadata, row.result, row.error, row.termination_reason)
    return contains_text(text, each.agent, each.version, *said)


def _own_run(each: RunSummary) -> dict[str, str]:
    row = each.run
    return {
        "link": f"runs/{row.id}",
        "status": row.status,
        "name": run_name(each.agent, each.version),
        "about": " · ".join(filter(None, [at_text(row.started_at or row.inserted_at), row.task, session_title(row)])),
    }


SEARCH = Page("search", "Search", (Part("search.html", hits),), in_bar=False)
