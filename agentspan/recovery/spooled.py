"""A storage that is no file, with journals on this host in front of it. Its reads drain and recover them first."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from agentspan.model.changes import Outcome, Unit
from agentspan.storage.location import Location
from agentspan.storage.protocol import Capabilities, Storage
from agentspan.storage.questions import Question

T = TypeVar("T")
Look = Callable[[], None]


class Spooled:
    """Reads call `look` first; the rest is passed on.

    Args:
        direct: the plain storage.
        location: opens it, in any process.
        folder: of the journals.
        look: drains and recovers them.
    """

    def __init__(self, direct: Storage, location: Location, folder: Path, look: Look) -> None:
        self.direct = direct
        self.location = location
        self.folder = folder
        self._look = look

    def seeing(self, look: Look) -> "Spooled":
        """Return the same with another `look`."""
        return Spooled(self.direct, self.location, self.folder, look)

    def capabilities(self) -> Capabilities:
        """Return those of the plain storage, with journals on this host."""
        return self.direct.capabilities()._replace(spool=self)

    def ask(self, question: Question[T]) -> T:
        """Look, where journals may have a part of the answer, and pass the question on."""
        if question.in_journals:
            self._look()
        return self.direct.ask(question)

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Pass the units on."""
        return self.direct.apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Look, and pass the work on."""
        self._look()
        return self.direct.group(work, wait_s)

    def close(self) -> None:
        """Close the plain storage."""
        self.direct.close()
