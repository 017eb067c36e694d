"""The page of versions: those of an agent side by side, and a verdict on the newest, as `agentspan versions` prints."""

from collections.abc import Iterator
from typing import Any

from agentspan.analysis.cases import case_table
from agentspan.analysis.fingerprints import sentences
from agentspan.analysis.versions import Comparison, agents, comparison, versions
from agentspan.answers import groups
from agentspan.answers import versions as answers
from agentspan.answers.blocks import Block, Heading
from agentspan.answers.groups import version_text
from agentspan.storage.protocol import Storage
from agentspan.viewer.address import Address
from agentspan.viewer.page import Page, Part, part
from agentspan.viewer.texts import at_text, judged, rule_in

OWN = ("base", "head", "by")
"""The parameters that choose the compared groups."""
MOST_CASES = 100
"""The number of cases that are listed before the link to all."""


def first(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the versions of the agent with the form that chooses two, or the agents that have several."""
    address, judged_by = judged(storage, address)
    filter = address.filter()
    name = address.word("agent")
    every = [] if name else agents(storage, filter)
    several = [each for each in every if each.versions > 1]
    if not name and len(several or every) == 1:
        name = (several or every)[0].agent
    if not name:
        return {"blocks": [*answers.several(every, at_text, address.get("outcome"))], "names": []}
    found = versions(storage, name, filter._replace(agent=None), rule_in(address))
    if not found.versions:
        return {"blocks": [], "names": []}
    return {
        "blocks": [*answers.versions(found, rule=judged_by), answers.table(found, at_text)],
        "agent": found.agent,
        "names": [each.version for each in found.versions],
        "will_compare": len(found.versions) > 1 or any(address.get(name) for name in OWN),
    }


def compared(storage: Storage, address: Address) -> Iterator[Block]:
    """Yield the comparison of the newest version with the one before, or of the groups in the address."""
    address, _ = judged(storage, address)
    filter, name = address.filter(), _name(storage, address)
    is_asked = any(address.get(each) for each in OWN)
    if not name or (not is_asked and len(versions(storage, name, filter._replace(agent=None)).versions) < 2):
        return
    base, head, by = (address.get(each) or None for each in OWN)
    found = comparison(storage, name, filter._replace(agent=None), rule_in(address), base=base, head=head, by=by)
    names = [text if found.change else version_text(text) for text in (found.base, found.head)]
    yield Heading(f"{names[1]} beside {names[0]}")
    about = [] if found.change is None else sentences(found.change, at_text)
    filters = found.base_filter, found.head_filter
    yield from groups.comparison(
        found.drift, names[0], names[1], filters, whole=bool(address.get("all")), about=[*_detectable(found), *about]
    )


def _detectable(found: Comparison) -> Iterator[str]:
    least = found.drift.detectable
    if least is not None and found.drift.verdict not in ("not_compared", "no_evidence", "inconclusive"):
        drop = f"So many runs find a drop of {100 * least:.0f} points of passed runs in four of five cases."
        yield drop if least < 1 else "With this few runs no drop of passed runs would show."


def _name(storage: Storage, address: Address) -> str:
    """Return the agent of the address, else the only one that has several versions; "" if there are others."""
    if name := address.word("agent"):
        return name
    several = [each for each in agents(storage, address.filter()) if each.versions > 1]
    return several[0].agent if len(several) == 1 else ""


def cases(storage: Storage, address: Address) -> Iterator[Block]:
    """Yield the cases that became worse or better, beside the versions; nothing without two versions with a case."""
    address, _ = judged(storage, address)
    name, filter = _name(storage, address), address.filter()._replace(agent=None)
    if not name or address.get("by"):
        return
    base, head = (address.get(each) or None for each in ("base", "head"))
    found = case_table(storage, name, filter, rule_in(address), base=base, head=head)
    if found.is_compared:
        yield Heading("Cases")
        yield from groups.cases(found, MOST_CASES, name, whole=bool(address.get("all")))


VERSIONS = Page("versions", "Versions", (Part("versions.html", first), part(compared), part(cases)))
