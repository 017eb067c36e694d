"""The optional capabilities of a storage that keeps its rows in a file: size, compaction, backup (see protocol)."""

import os
from typing import Protocol


class StorageFile(Protocol):
    """Keeps its rows in a file that can shrink."""

    def used_bytes(self) -> int:
        """Return the number of bytes of the file that are in use."""
        ...

    def file_bytes(self) -> int:
        """Return the size of the file, including its write-ahead log."""
        ...

    def compact(self, wait_s: float) -> None:
        """Return unused space to the system, in steps between which others can write."""
        ...


class Backup(Protocol):
    """Copies everything to a new file."""

    def backup(self, path: str | os.PathLike[str]) -> int:
        """Copy everything, as of now, to a new file, while others read and write; return its size in bytes.

        Raises:
            InvalidValue: there is a file at the path already, or no folder.
        """
        ...
