"""The page of failures: groups of failed runs, and features associated with failure, as `agentspan why` prints them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentspan.analysis import by_name, failure_text
from agentspan.analysis.associations import Finding
from agentspan.analysis.causes import opposite
from agentspan.analysis.outcomes import OutcomeRule
from agentspan.analysis.why import Group, Why, failed_share, why
from agentspan.answers.groups import version_text
from agentspan.storage.protocol import Storage
from agentspan.text import noun, share_text
from agentspan.viewer.address import Address, Pair
from agentspan.viewer.page import Page, Part
from agentspan.viewer.texts import Linked, at_text, judged, rule_in, spark, with_outcome

SHORTEST_SIGNATURE = 4
LONGEST_SIGNATURE = 12
SHOWN = 30
"""The number of groups of each kind that are shown; `all=1` in the address shows MOST."""
MOST = 300
MAX_VERSIONS = 3
MAX_POOLED = 3
"""The number of findings over all runs together that are shown if nothing was found within tasks."""


def first(storage: Storage, address: Address) -> dict[str, Any]:
    """Return how many runs failed, in one sentence."""
    address, rule = judged(storage, address)
    found = failed_share(storage, address.filter(), rule_in(address))
    missed = found.missed
    return {
        "sentence": ". ".join(filter(None, (failure_text.head(found), failure_text.unrecorded(found))))
        if found.runs or found.unknown
        else "",
        "rule": rule,
        "is_empty": not (found.runs or found.unknown),
        "missed": missed and f"{missed.missed:,} of {missed.runs:,} missed {missed.rule}",
        "judge": missed and with_outcome(address, "failures", outcome=str(missed.rule)),
        "dataset": _dataset(address),
    }


def _dataset(address: Address) -> str:
    """Return the address of the dataset of the runs that failed."""
    return address.narrowed(_failed(address)).link("export", format="dataset")


def _failed(address: Address) -> Pair:
    """Return the condition of the runs that failed."""
    rule = rule_in(address)
    return ("score", opposite(rule)) if isinstance(rule, OutcomeRule) else ("status", "failed")


def groups(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the groups of failed runs, and the findings."""
    address, _ = judged(storage, address)
    found = why(storage, address.filter(), rule_in(address))
    most = MOST if address.get("all") else SHOWN
    short = _short([group.signature for group in found.groups])
    kinds = [[group for group in found.groups if (group.kind == "ending") is is_ending] for is_ending in (False, True)]
    shown = [group for of_kind in kinds for group in of_kind[:most]]
    short |= by_name.short_ids(storage, [group.run_id for group in shown])
    tables = []
    for title, of_kind in (
        (_title(found, kinds[0]), kinds[0]),
        ("Without a failed step, by how they ended", kinds[1]),
    ):
        rows = [_group(group, short, found, address) for group in of_kind[:most]]
        left = len(of_kind) - len(rows)
        tables.append({"title": title, "rows": rows, "left": left and noun(left, "more group")})
    return {
        "tables": [table for table in tables if table["rows"]],
        "all": address.same("failures", all=1) if most == SHOWN else "",
        "period": "" if found.periods is None else failure_text.length_text(found.periods),
        "alone": found.signature is not None,
        "has_failed": bool(found.failed),
        "silent": found.silent and f"{found.silent:,} of the failed runs have no failed step",
        **(_findings(found) if found.failed and found.failed < found.runs and found.groups else {"compared": ""}),
    }


def _title(found: Why, failures: Sequence[Group]) -> str:
    of = "Failed runs" if found.failed else "Runs with a failed step"
    several = " (a run can be in several)" if failure_text.overlap(failures, found) else ""
    return f"{of}, by what failed{several}"


def _group(group: Group, short: Mapping[str, str], found: Why, address: Address) -> dict[str, Any]:
    of = found.failed or failure_text.total_of([group])
    passed = found.runs - found.failed
    most = sorted(group.versions.items(), key=lambda item: (-item[1], item[0]))
    signature = short[group.signature]
    runs = address.narrowed(("signature", signature), *([_failed(address)] if found.failed else []))
    about: str = "" if found.periods is None else f"runs per {failure_text.length_text(found.periods)}"
    return {
        "signature": signature,
        "text": group.text if group.example is None else f"{group.text} (latest: {group.example})",
        "runs": runs.link(),
        "number": f"{group.runs:,} of {of:,}",
        "share": share_text(group.runs, of),
        "passed": "" if group.passed is None or not passed else f"{group.passed:,} of {passed:,}",
        "passed_share": "" if not group.passed or not passed else share_text(group.passed, passed),
        "recovered": "recovered" if group.recovered else "",
        "steps": failure_text.steps(group),
        "agents": failure_text.agents(group),
        "versions": [
            Linked(f"{version_text(name)}: {number:,}", runs.link(version=name)) for name, number in most[:MAX_VERSIONS]
        ],
        "more_versions": noun(len(most) - MAX_VERSIONS, "more version") if len(most) > MAX_VERSIONS else "",
        "spark": spark(group.histogram) if len(group.histogram) > 1 else None,
        "spark_text": f"{about}, the first {at_text(group.first_at)}, the last {at_text(group.last_at)} UTC",
        "seen": at_text(group.last_at),
        "run": short[group.run_id],
        "example": f"runs/{group.run_id}" + (f"#span={group.span_id}" if group.span_id else ""),
        "alone": with_outcome(address, "failures", signature=signature),
    }


_WHAT = re.compile(r"\Awhat goes with (this )?failure[,:] ")
"""The beginning of the sentence about findings. It is removed, because the heading of the page says the same."""


def _findings(found: Why) -> dict[str, Any]:
    of = found.findings
    pooled = of.findings if not of.stratified else () if of.findings else of.pooled[:MAX_POOLED]
    tested = f" ({of.tested_pooled:,} things tested)" if of.stratified else ""
    parts = [("", found.compared), ("arguments of ", found.read)]
    partly = [f"{what}{number:,} of {found.comparable:,} runs" for what, number in parts if number < found.comparable]
    return {
        "compared": _WHAT.sub("", failure_text.compared(found)),
        "looked_at": ", ".join(partly),
        "missable": failure_text.missable(of),
        "pooled": f"pooled only, so that it may be the tasks{tested}" if pooled else "",
        "findings": [_finding(each) for each in pooled or of.findings],
        "explained": failure_text.Q_EXPLAINED,
    }


def _finding(each: Finding) -> dict[str, str]:
    odds, low, high = map(failure_text.ratio, (each.odds_ratio, each.low, each.high))
    return {
        "feature": " · ".join(filter(None, (each.feature, failure_text.also(each)))),
        "failed": f"{each.failed_with:,} of {each.failed:,}",
        "passed": f"{each.passed_with:,} of {each.passed:,}",
        "odds": f"×{odds} ({low}–{high})",
        "q": "<0.001" if each.q < 0.001 else f"{each.q:.2g}",
        "tasks": noun(each.tasks, "task") if each.stratified else "",
        "turned": "all together point the other way" if each.stratified and each.is_turned else "",
    }


def _short(ids: list[str]) -> dict[str, str]:
    """Return the shortest beginnings of ids, all of the same length, that are all different; by id."""
    lengths = range(SHORTEST_SIGNATURE, LONGEST_SIGNATURE)
    length = next((n for n in lengths if len({id[:n] for id in ids}) == len(set(ids))), LONGEST_SIGNATURE)
    return {id: id[:length] for id in ids}


FAILURES = Page("failures", "Failures", (Part("failures.html", first), Part("failures_groups.html", groups)))
