"""Copies a storage to a new file while other processes write to it."""

import os

from agentspan.errors import StorageError
from agentspan.storage.protocol import Storage


def backup(storage: Storage, path: str | os.PathLike[str]) -> int:
    """Copy everything that is committed to a new file.

    Returns:
        The size of the copy, in bytes.

    Raises:
        StorageError: the storage cannot make a backup.
        InvalidValue: the file exists, or its folder does not.
    """
    can = storage.capabilities()
    if can.backup is None:
        raise StorageError(f"the storage {can.backend!r} cannot make a backup")
    return can.backup.backup(path)
