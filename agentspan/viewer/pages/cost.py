"""The page of costs: by model, day, agent …, as `agentspan cost` prints them; each number leads to its runs."""

from collections.abc import Iterator

from agentspan.analysis.costs import BY_STEPS, BYS, cache_of, checked, costs
from agentspan.answers import cost
from agentspan.answers.blocks import Block
from agentspan.storage.protocol import Storage
from agentspan.viewer.address import Address
from agentspan.viewer.page import ROWS, Page, part


def first(storage: Storage, address: Address) -> Iterator[Block]:
    """Yield the sums, the costs of each period, and the rows; those of tools and prompts are a later part."""
    by = checked(address.get("by") or BYS[0])
    found = costs(storage, address.filter(), "day" if by in BY_STEPS else by, cache=False)
    if found.total.runs:
        yield from cost.sums(found)
        yield cost.ways(by)
        yield from cost.picture(found)
        yield from () if by in BY_STEPS else cost.rows(found, address.most(ROWS))


def rows_of_steps(storage: Storage, address: Address) -> Iterator[Block]:
    """Yield the rows of tools or prompts: the tree of each run is read for them."""
    by = address.get("by")
    if by in BY_STEPS:
        found = costs(storage, address.filter(), by, cache=False)
        yield from cost.unread(found)
        yield from cost.rows(found, address.most(ROWS))


def cached(storage: Storage, address: Address) -> Iterator[Block]:
    """Yield the use of the caches of the models' providers."""
    by = checked(address.get("by") or BYS[0])
    yield from cost.caches(cache_of(storage, address.filter(), by), by, address.most(ROWS))


COST = Page("cost", "Cost", (part(first), part(rows_of_steps), part(cached)))
