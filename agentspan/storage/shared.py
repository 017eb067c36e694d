"""The capabilities of a storage that programs on several machines share (see protocol)."""

from collections.abc import Mapping
from typing import Protocol


class Notes(Protocol):
    """Keeps texts by name for programs that share a storage. They belong to no run, and are not exported or copied."""

    def notes(self, *names: str) -> Mapping[str, str]:
        """Return the texts of these names; names without one, or whose time is over, are absent."""
        ...

    def note(self, name: str, text: str, *, lasts_s: float | None = None, replace: bool = True) -> str:
        """Store a text under a name, and return the text that is stored there now.

        Texts whose time is over are removed at that occasion.

        Args:
            lasts_s: seconds, by the storage's clock, after which it is gone; None for ever.
            replace: replace another text that is stored there; else that one stays, and is returned. Of several
                programs at the same moment, all are returned the same text.

        Raises:
            NotPermitted: the storage is opened to be read only.
        """
        ...

    def count_notes(self, prefix: str) -> int:
        """Return how many names begin with a prefix."""
        ...

    def forget_notes(self, prefix: str) -> None:
        """Remove all texts whose names begin with a prefix."""
        ...
