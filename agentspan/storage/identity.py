"""Which storage is at a place: another file at the same path is another storage, though it is a backup of the same."""

from agentspan.storage.protocol import Storage

Identity = tuple[int, str]
"""How many files have been at the path, as far as was noticed; the id of the account, of a storage that is no file."""


class Identities:
    """Tells which storage is at the place of one, now and when it was asked first.

    Args:
        storage: not used before it is asked: it may be a server that does not answer.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._account = ""

    def known(self) -> Identity:
        """Return it, of a server as it was at the first time.

        Raises:
            StorageError: the storage cannot be read.
        """
        journals = self._storage.capabilities().journals
        if journals is not None:
            return journals.files, ""
        self._account = self._account or self._storage.account().id
        return 0, self._account

    def now(self) -> Identity:
        """Return it; a server is asked.

        Raises:
            StorageError: the storage cannot be read.
        """
        journals = self._storage.capabilities().journals
        return (0, self._storage.account().id) if journals is None else (journals.files, "")
