"""The identity of a storage: another file at the same path is another storage, even if it is a backup of the first.

A new storage has one account, with the ids of its one environment and its one deployment.
"""

from agentspan import clock, ids
from agentspan.model.rows import AccountRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account

Identity = tuple[int, str]
"""Of a file, how many files this process has seen at its path, and ""; of another storage, 0 and its account's id."""


class Identities:
    """Returns the identity of the storage at a location, so that a caller detects that it was replaced.

    Args:
        storage: the storage. It is read at the first call only, because it may be a server that does not answer.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._account = ""

    def known(self) -> Identity:
        """Return the identity of the storage. A server is queried once; later calls return the cached identity.

        Raises:
            StorageError: the storage cannot be read.
        """
        journals = self._storage.capabilities().journals
        if journals is not None:
            return journals.files, ""
        self._account = self._account or self._storage.ask(Account()).id
        return 0, self._account

    def now(self) -> Identity:
        """Return the current identity of the storage. A server is queried at each call.

        Raises:
            StorageError: the storage cannot be read.
        """
        journals = self._storage.capabilities().journals
        return (0, self._storage.ask(Account()).id) if journals is None else (journals.files, "")


def new_account() -> AccountRow:
    """Return a new account row, with a random partition and new ids in this partition."""
    partition = ids.random_partition()
    source = ids.IdSource(partition)
    return AccountRow(source.new(), source.new(), source.new(), partition, clock.now())
