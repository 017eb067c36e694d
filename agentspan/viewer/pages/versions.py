"""The page of versions: a verdict on the newest of an agent, and all of them, as `agentspan versions` prints."""

from collections.abc import Iterator, Sequence
from typing import Any

from agentspan.analysis.cases import case_table
from agentspan.analysis.fingerprints import sentences
from agentspan.analysis.versions import AgentVersions, Comparison, agents, comparison, versions
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
    """Return the agents that have several versions, if the address names none; the rest follows the verdict."""
    every = agents(storage, address.filter())
    if not every and (name := address.word("agent")):
        versions(storage, name, address.filter()._replace(agent=None))  # refuses a name that no agent has
    follows = bool(_name(every))
    return {"blocks": [] if follows else [*answers.several(every, at_text, address.get("outcome"))], "follows": follows}


def all_of_them(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the versions of the agent with the form that chooses two."""
    address, judged_by = judged(storage, address)
    filter = address.filter()
    name = _name(agents(storage, filter))
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
    filter = address.filter()
    name = _name(agents(storage, filter))
    is_asked = any(address.get(each) for each in OWN)
    if not name or (not is_asked and len(versions(storage, name, filter._replace(agent=None)).versions) < 2):
        return
    base, head, by = (address.get(each) or None for each in OWN)
    found = comparison(storage, name, filter._replace(agent=None), rule_in(address), base=base, head=head, by=by)
    names = [text if found.change else version_text(text) for text in (found.base, found.head)]
    if found.drift.verdict not in ("worse", "better", "different"):  # sentences that name both
        yield Heading(f"{names[1]} beside {names[0]}")
    about = [] if found.change is None else sentences(found.change, at_text)
    filters = found.base_filter, found.head_filter
    yield from groups.comparison(
        found.drift, names[0], names[1], filters, whole=bool(address.get("all")), about=[*_detectable(found), *about]
    )


def _detectable(found: Comparison) -> Iterator[str]:
    least = found.drift.detectable
    if least is not None and found.drift.verdict not in ("not_compared", "no_evidence", "inconclusive"):
        drop = f"Of drops of {100 * least:.0f} points of passed runs, this many runs find four in five."
        yield drop if least < 1 else "With this few runs no drop of passed runs would show."


def _name(every: Sequence[AgentVersions]) -> str:
    """Return the only agent that has several versions, or the only one; "" if there are others."""
    found = [each for each in every if each.versions > 1] or every
    return found[0].agent if len(found) == 1 else ""


def cases(storage: Storage, address: Address) -> Iterator[Block]:
    """Yield the cases that became worse or better, beside the versions; nothing without two versions with a case."""
    address, _ = judged(storage, address)
    name, filter = _name(agents(storage, address.filter())), address.filter()._replace(agent=None)
    if not name or address.get("by"):
        return
    base, head = (address.get(each) or None for each in ("base", "head"))
    found = case_table(storage, name, filter, rule_in(address), base=base, head=head)
    if found.is_compared:
        yield Heading("Cases")
        yield from groups.cases(found, MOST_CASES, name, whole=bool(address.get("all")))


_PARTS = (Part("blocks.html", first), part(compared), Part("versions.html", all_of_them), part(cases))
VERSIONS = Page("versions", "Versions", _PARTS)
