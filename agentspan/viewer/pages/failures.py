"""The page of failures: groups of failed runs, and features associated with failure, as `agentspan why` prints them."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from agentspan.analysis.causes import opposite
from agentspan.analysis.outcomes import OutcomeRule
from agentspan.analysis.why import failed_share, why
from agentspan.answers import why as answers
from agentspan.answers.blocks import Block, Sentence
from agentspan.storage.protocol import Storage
from agentspan.viewer.address import Address
from agentspan.viewer.page import Page, Part, part
from agentspan.viewer.texts import judged, rule_in

SHOWN = 30
"""The number of groups of each kind that are shown; `all=1` in the address shows MOST."""
MOST = 300


def first(storage: Storage, address: Address) -> dict[str, Any]:
    """Return how many runs failed, in one sentence, and the address of the dataset of these runs."""
    address, rule = judged(storage, address)
    by = rule_in(address)
    share = failed_share(storage, address.filter(), by)
    blocks = [*answers.first(share, rule)]
    failed = ("score", opposite(by)) if isinstance(by, OutcomeRule) else ("status", "failed")
    return {
        "blocks": blocks,
        "dataset": blocks and share.by_agent is None and address.narrowed(failed).link("export", format="dataset"),
    }


def groups(storage: Storage, address: Address) -> Iterator[Block]:
    """Yield the groups of failed runs, and the findings."""
    address, _ = judged(storage, address)
    found = why(storage, address.filter(), rule_in(address))
    if found.silent:
        have = "has" if found.silent == 1 else "have"
        yield Sentence(f"{found.silent:,} of the failed runs {have} no failed step", "note")
    shown = answers.groups(found, min(MOST, address.most(SHOWN)), outcome=address.get("outcome"))
    yield from chain(*shown, answers.findings(found))


FAILURES = Page("failures", "Failures", (Part("failures.html", first), part(groups)))
