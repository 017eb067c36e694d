"""The page of versions: those of an agent side by side, and a verdict on the newest, as `agentspan versions` prints."""

from collections.abc import Sequence
from typing import Any

from agentspan.analysis import drift_text
from agentspan.analysis.by_name import AT
from agentspan.analysis.cases import CaseRow, Tally, case_table
from agentspan.analysis.causes import opposite
from agentspan.analysis.drift import PASSED, DriftRow
from agentspan.analysis.failure_text import interval_text
from agentspan.analysis.fingerprints import sentences
from agentspan.analysis.outcomes import OutcomeRule, parse
from agentspan.analysis.versions import AgentVersions, Comparison, Version, Versions, agents, comparison, versions
from agentspan.schemas.builtin import built_in_part
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter
from agentspan.text import noun, share_text
from agentspan.viewer.address import Address
from agentspan.viewer.page import Page, Part
from agentspan.viewer.texts import (
    Linked,
    at_text,
    judged,
    rule_in,
    tokens_text,
    took_text,
    usd_text,
    version_text,
    with_outcome,
)

OWN = ("base", "head", "by")
"""The parameters that choose the compared groups."""
MOST_CASES = 100
"""The number of cases that are listed before the link to all."""


def first(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the versions of the agent, or the agents that have several."""
    address, judged_by = judged(storage, address)
    filter = address.filter()
    name = address.word("agent")
    every = [] if name else agents(storage, filter)
    several = [each for each in every if each.versions > 1]
    if not name and len(several or every) == 1:
        name = (several or every)[0].agent
    if not name:
        return {"agent": "", "agents": [_agent(each, address) for each in several], "total": len(every)}
    found = versions(storage, name, filter._replace(agent=None), rule_in(address))
    return {"agent": found.agent, "rule": judged_by, **_versions(found, address)}


def _agent(each: AgentVersions, address: Address) -> dict[str, str]:
    return {
        "agent": each.agent,
        "link": with_outcome(address, "versions", agent=each.agent),
        "versions": f"{each.versions:,}",
        "newest": version_text(each.newest),
        "runs": f"{each.runs:,}",
        "last_at": at_text(each.last_at),
    }


def _versions(found: Versions, address: Address) -> dict[str, Any]:
    rule = None if found.outcome is None else parse(found.outcome)
    number = len(found.versions) + found.left_out
    newest = found.versions[0] if found.versions else None
    judged = f", judged by {found.outcome}" if found.outcome else ""
    latest = (
        "" if newest is None else f"; the newest, {version_text(newest.version)}, since {at_text(newest.first_at)} UTC"
    )
    return {
        "sentence": f"{noun(number, 'version')} of {found.agent}{judged}{latest}",
        "rows": [_version(each, found.agent, rule, address) for each in found.versions],
        "has_open": any(each.open for each in found.versions),
        "names": [each.version for each in found.versions],
        "left": noun(found.left_out, "earlier version") if found.left_out else "",
        "missed": found.missed and f"The status decides, and some runs missed {found.missed}",
        "judge": found.missed and address.link("versions", agent=found.agent, outcome=found.missed),
        "will_compare": len(found.versions) > 1 or any(address.get(name) for name in OWN),
    }


def _version(each: Version, agent: str, rule: OutcomeRule | None, address: Address) -> dict[str, Any]:
    def to(**changes: str | None) -> str:
        return address.link("", agent=agent, version=each.version, **changes)

    missed = None if rule is None else opposite(rule)
    failed = to(status="failed") if missed is None else to(score=missed)
    return {
        "name": Linked(version_text(each.version), to()),
        "runs": Linked(f"{each.runs:,}", to()),
        "failed": Linked((share_text(each.failed, each.known) or "0%") if each.known else "", failed),
        "interval": "" if each.interval is None else interval_text(each.interval),
        "outcome": f"{each.known - each.failed:,} of {each.known:,}" if each.known else "",
        "open": Linked(f"{each.open:,}" if each.open else "", to(status="active")),
        "took": Linked(took_text(each.duration_ms), to(sort="duration")),
        "tokens": Linked(tokens_text(each.tokens), to(sort="tokens")),
        "cost": Linked(usd_text(each.cost_usd), to(sort="cost")),
        "total": Linked(usd_text(each.total_usd), to(sort="cost")),
        "first_at": at_text(each.first_at),
    }


def compared(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the comparison of the newest version with the one before, or of the groups in the address."""
    address, _ = judged(storage, address)
    filter, name = address.filter(), _name(storage, address)
    if not name:
        return {"is_compared": False}
    is_asked = any(address.get(each) for each in OWN)
    if not is_asked and len(versions(storage, name, filter._replace(agent=None)).versions) < 2:
        return {"is_compared": False}
    base, head, by = (address.get(each) or None for each in OWN)
    found = comparison(
        storage, name, filter._replace(agent=None), rule_in(address), base=base, head=head, by=by
    )  # fmt: skip
    drift = found.drift
    base_name, head_name = (text if found.change else version_text(text) for text in (found.base, found.head))
    whole = bool(address.get("all"))
    shown = drift_text.shown_rows(drift, whole=whole)
    left = len(drift.rows) - len(shown)
    has_rows = drift.verdict != "not_compared"
    return {
        "is_compared": True,
        "verdict": drift.verdict,
        "sentence": drift_text.sentence(drift, base_name, head_name),
        "detectable": "" if drift.verdict in ("no_evidence", "inconclusive") else _detectable(found),
        "over_all": [*drift_text.over_all(drift)] if has_rows else [],
        "about": [] if found.change is None else sentences(found.change, at_text),
        "facts": drift_text.facts(drift, base_name, head_name) if has_rows else "",
        "base": base_name,
        "head": head_name,
        "rows": [_row(row, found, address) for row in shown] if has_rows else [],
        "left": noun(left, "more row") if left and has_rows else "",
        "all": address.same("versions", all=1),
        "legend": drift_text.legend(drift) if has_rows else "",
    }


def _detectable(found: Comparison) -> str:
    least = found.drift.detectable
    if least is None or found.drift.verdict == "not_compared":
        return ""
    if least >= 1:
        return "With this few runs no drop of passed runs would show."
    return f"So many runs find a drop of {100 * least:.0f} points of passed runs in four of five cases."


def _row(row: DriftRow, found: Comparison, address: Address) -> dict[str, Any]:
    values = []
    for is_head, value, filter in ((False, row.base, found.base_filter), (True, row.head, found.head_filter)):
        text = drift_text.value_text(row.metric, value)
        values.append((Linked(text, _runs(row, filter, address)), drift_text.interval_text(row, is_head=is_head)))
    return {
        "name": drift_text.row_name(row),
        "mark": drift_text.mark(row).strip(),
        "is_worse": row.is_significant and row.is_worse,
        "base": values[0],
        "head": values[1],
        "change": drift_text.change_text(row),
        "q": drift_text.q_text(row),
    }


_BY_LABEL = {"tool": "tool", "llm": "model", "embedding": "model"}


def _runs(row: DriftRow, filter: RunFilter, address: Address) -> str:
    """Return the address of the runs of a group, those that called the tool or model of a row; "" for ids."""
    if filter.ids is not None or filter.version is None:
        return ""
    changes: dict[str, str | None] = {"agent": filter.agent, "version": filter.version}
    word = _BY_LABEL.get(built_in_part(row.metric.schema_name or ""))
    if word is not None and row.metric.label and "*" not in row.metric.label:
        changes[word] = row.metric.label
    elif row.metric != PASSED:
        sort = {"duration_ms": "duration", "cost_usd": "cost", "tokens": "tokens", "spans": "spans"}
        changes["sort"] = sort.get(row.metric.measure)
    return address.link("", **changes)


def _name(storage: Storage, address: Address) -> str:
    """Return the agent of the address, else the only one that has several versions; "" if there are others."""
    if name := address.word("agent"):
        return name
    several = [each for each in agents(storage, address.filter()) if each.versions > 1]
    return several[0].agent if len(several) == 1 else ""


def cases(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the cases that became worse or better, beside the versions; nothing without two versions with a case."""
    address, _ = judged(storage, address)
    name, filter = _name(storage, address), address.filter()._replace(agent=None)
    if not name or address.get("by"):
        return {"is_compared": False}
    base, head = (address.get(each) or None for each in ("base", "head"))
    found = case_table(storage, name, filter, rule_in(address), base=base, head=head)
    if not found.is_compared:
        return {"is_compared": False}
    whole, differ = bool(address.get("all")), found.worse + found.better
    rows = found.cases if whole else found.cases[: min(differ, MOST_CASES)]
    return {
        "is_compared": True,
        "sentence": f"{version_text(found.versions[-2])} → {version_text(found.versions[-1])}: {found.counts()}",
        "versions": [version_text(each) for each in found.versions],
        "cases": [_case(row, found.versions, name, address) for row in rows],
        "left": noun(len(found.cases) - len(rows), "more case") if len(rows) < len(found.cases) else "",
        "all": address.same("versions", all=1),
    }


def _case(row: CaseRow, names: Sequence[str], agent: str, address: Address) -> dict[str, Any]:
    def cell(tally: Tally | None, version: str) -> Linked:
        if tally is None:
            return Linked("")
        if tally.run_id is not None:
            return Linked(str(tally), f"runs/{tally.run_id}")
        is_filter = "=" in version or AT in version
        to = "" if is_filter else address.link("", agent=agent, version=version, task=row.case)
        return Linked(str(tally), to)

    return {
        "name": row.case,
        "cells": [cell(*each) for each in zip(row.tallies, names, strict=True)],
        "change": row.word,
    }


VERSIONS = Page(
    "versions",
    "Versions",
    (Part("versions.html", first), Part("versions_compared.html", compared), Part("versions_cases.html", cases)),
)
