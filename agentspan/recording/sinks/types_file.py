"""Keeps the span types beside a journal, for whoever recovers it: some runs were registered without one of them."""

from collections.abc import Callable
from pathlib import Path

from agentspan.interrupts import let_through
from agentspan.journal.spool import keep_types


class TypesFile:
    """The file of one journal.

    Args:
        folder: of the journal.
        writer_id: returns the id of this process.
        late_types: returns all span types as JSON text, if a run of this process is registered without one of them.

    Attributes:
        is_due: whether the file has to be written before the next record.
    """

    def __init__(self, folder: Path, writer_id: Callable[[], str], late_types: Callable[[], str | None]) -> None:
        self.is_due = False
        self._folder = folder
        self._writer_id = writer_id
        self._late_types = late_types

    def write(self) -> None:
        """Write the file, if there is a late type."""
        self.is_due = False
        written: str | None = None
        while (types := self._late_types()) not in (None, written):  # another thread may have written newer ones
            try:
                keep_types(self._folder, self._writer_id(), types)
            except OSError as raised:  # a full disk: what a killed program leaves is read without them
                let_through(raised)
                return
            written = types
