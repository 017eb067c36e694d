"""The account row of a new storage: the ids of its one account, one environment and one deployment."""

from agentspan import clock, ids
from agentspan.model.rows import AccountRow


def new_account() -> AccountRow:
    """Return a new account row: a random partition, and ids in it."""
    partition = ids.random_partition()
    source = ids.IdSource(partition)
    return AccountRow(source.new(), source.new(), source.new(), partition, clock.now())
