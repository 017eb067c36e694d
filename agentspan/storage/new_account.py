"""The account row of a new storage: fixed local ids for what the API expects and a file has only one of."""

from agentspan import clock, ids
from agentspan.model.rows import AccountRow


def new_account() -> AccountRow:
    """Choose a partition at random, and mint the ids in it."""
    partition = ids.random_partition()
    source = ids.IdSource(partition)
    return AccountRow(source.new(), source.new(), source.new(), partition, clock.now())
