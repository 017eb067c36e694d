"""Makes the partitions that are missing, where a storage has partitions and this user may make them."""

from typing import NamedTuple

from agentspan.errors import AgentspanError, DatabaseBusy, DatabaseUnusable, NotPermitted
from agentspan.storage.answers import Made
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import MakePartitions, MissingPartitions


class Upkeep(NamedTuple):
    """The outcome of making the partitions that were missing.

    Attributes:
        made: those that were made.
        missing: how many are missing, for now and for times to come.
        problem: what kept them from being made; None if nothing did.
    """

    made: Made = Made()
    missing: int = 0
    problem: AgentspanError | None = None


def keep_partitions(storage: Storage, wait_s: float, *, dry_run: bool = False) -> Upkeep:
    """Make the partitions that are missing, unless others are in the way, or the user may not.

    Args:
        dry_run: only count them.
    """
    if MakePartitions not in storage.capabilities().answers:
        return Upkeep()
    if dry_run:
        return Upkeep(missing=storage.ask(MissingPartitions()))
    try:
        return Upkeep(storage.ask(MakePartitions(wait_s=wait_s)))
    except (DatabaseBusy, DatabaseUnusable, NotPermitted) as error:
        return Upkeep(missing=storage.ask(MissingPartitions()), problem=error)
