"""Makes the partitions that are missing, where a storage has partitions and this user may make them."""

from typing import NamedTuple

from agentspan.errors import AgentspanError, DatabaseBusy, DatabaseUnusable, NotPermitted
from agentspan.storage.partitions import Made
from agentspan.storage.protocol import Storage


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
    partitions = storage.capabilities().partitions
    if partitions is None:
        return Upkeep()
    if dry_run:
        return Upkeep(missing=partitions.missing())
    try:
        return Upkeep(partitions.make(wait_s=wait_s))
    except (DatabaseBusy, DatabaseUnusable, NotPermitted) as error:
        return Upkeep(missing=partitions.missing(), problem=error)
