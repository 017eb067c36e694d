"""The capabilities of a storage that programs on several machines share (see protocol)."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from agentspan.model.rows import AgentSpanRow


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


class Changed(NamedTuple):
    """The spans that were committed since a cursor.

    Attributes:
        rows: by id, as outlines returns them.
        cursor: to read on from: all that this answer may lack has been committed after it.
        stalled_s: seconds for which the cursor has stayed the same because a transaction is under way, at least; 0.0
            if it has not. Everything that was committed meanwhile is in each answer until that one ends.
    """

    rows: list[AgentSpanRow]
    cursor: str
    stalled_s: float


class Changes(Protocol):
    """Reads the spans of a run that were committed since a cursor.

    Times cannot tell that: what a program recorded is committed later, and clocks of machines differ.
    """

    def changed(self, instance_id: str, cursor: str, *, after: str = "", limit: int | None = None) -> Changed:
        """Return the spans that were committed since a cursor, and perhaps some that were committed before.

        Args:
            cursor: of an earlier answer; "" for all spans. One of another database, or no cursor at all, is as "".
            after: only spans whose id is greater.
            limit: how many at most. A reader who goes on `after` the last row of a full answer keeps the cursor of the
                first answer.
        """
        ...
