"""The optional capabilities of a storage that keeps its rows in a file: size, compaction, backup (see protocol)."""

import os
from typing import NamedTuple, Protocol


class RewrittenSpans(NamedTuple):
    """The spans of one step: how many were looked at, how many of them were rewritten, and the id to go on after.

    Attributes:
        last: None if the run has no more.
    """

    seen: int
    changed: int
    last: str | None


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


class Rewriting(Protocol):
    """Stores the spans of older versions as it stores new ones, in less room."""

    def rewrite(self, instance_id: str, after: str, wait_s: float) -> RewrittenSpans:
        """Rewrite the finished spans of a run whose id is greater than `after`, as many as one short commit takes.

        No read returns anything else afterwards. Spans that are stored as new ones, and open ones, are passed over.

        Raises:
            DatabaseBusy: other writers did not let go within `wait_s` seconds; nothing is rewritten.
        """
        ...


class Backup(Protocol):
    """Copies everything to a new file."""

    def backup(self, path: str | os.PathLike[str]) -> int:
        """Copy everything, as of now, to a new file, while others read and write; return its size in bytes.

        Raises:
            InvalidValue: there is a file at the path already, or no folder.
        """
        ...
