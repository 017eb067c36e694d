"""The contract of a storage backend. A new one proves itself with `agentspan.testing.StorageContract`.

Every backend implements `Storage`. Changes and questions (see storage.questions) are values, so a storage that wraps
another one is short (see Wrapper). Code above storages never uses isinstance: it asks, or looks at `capabilities()`.

Until agentspan 1.0 this may change from one minor version to the next; `PROTOCOL` counts the changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from agentspan.errors import DatabaseBusy
from agentspan.model.changes import Outcome, Unit
from agentspan.storage.questions import BASIC, Question
from agentspan.tuning import STANDARD

if TYPE_CHECKING:
    from agentspan.storage.location import Location

T = TypeVar("T")

PROTOCOL = 1
"""The version of this contract."""


class Storage(Protocol):
    """Commits guarded changes and answers questions.

    Safe to call from any thread, and usable in a forked child. Ids, names and times are compared as they are written:
    case, blanks, accents and microseconds count. Texts have no greatest length.

    Faults of the storage itself, and all errors of its driver, raise a `StorageError`: `DatabaseBusy` if trying again
    may help, `NotStorable` if it never does. All other outcomes are values.
    """

    def capabilities(self) -> Capabilities:
        """Return what this storage is and can do; the same each time, also after closing."""
        ...

    def ask(self, question: Question[T]) -> T:
        """Return the answer to a question (see storage.questions).

        A storage that has none of its own returns `row_by_row.answer(self, question)`.
        """
        ...

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Commit units in order and return one outcome each; when it returns, they are durable.

        All in one transaction; each unit is applied whole or not at all, and sees the ones before it. A key is looked
        at before the unit's guards and stored with its changes. With `stop_at_refusal` the first outcome that is
        KeyTaken or Refused is the last: later units are not tried, and the list is shorter.

        Raises:
            DatabaseBusy: other writers held the write lock for `wait_s` seconds; nothing is stored.
            StorageError: nothing is stored either. After InDoubt it may be; it is safe to apply the same again.
        """
        ...

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Let several operations, reads and writes in turn, share one commit.

        Call `work` with a storage whose reads include its own writes, and return its result. All that it wrote is
        durable then; nothing of it, if it raised, be it a KeyboardInterrupt. A function and no with-block: an exception
        from a signal handler may come before the first line of an `__exit__`.

        Raises:
            DatabaseBusy: other writers did not let go within `wait_s` seconds.
        """
        ...

    def close(self) -> None:
        """Close files and connections. Closing twice is fine.

        Afterwards every call but capabilities() raises StorageError.
        """
        ...


class Capabilities(NamedTuple):
    """The nature and the abilities of a storage.

    Attributes:
        backend: the backend's name, for messages.
        answers: the types of questions that it answers by itself.
        location: opens the same storage again, here or in another process; None if that is impossible.
        journals: having journals beside the file; None if it has none.
        spool: having journals in a folder of this host, in front of a server; None if it has none.
        concurrency: how many threads of a process may write at the same time to good effect. A commit of a storage with
            more than 1 waits for a server.
        keeps_contents: whether it stores what is repeated in payloads once, and makes use of TextInParts.
        page_rows: how many rows a reader of all rows asks it for at once.
    """

    backend: str
    answers: frozenset[type[Question[Any]]] = BASIC
    location: Location | None = None
    journals: BesideJournals | None = None
    spool: Spool | None = None
    concurrency: int = 1
    keeps_contents: bool = False
    page_rows: int = STANDARD.page_rows


class NotTrustedYet(DatabaseBusy):
    """The file was overwritten a moment ago, and is looked through again before it is trusted."""


class FileReplaced(DatabaseBusy):
    """The file was deleted or replaced in the middle of this. Nothing of it is in the file that has the path now."""


class BesideJournals(Protocol):
    """Keeps its rows in a file that may have journals beside it. They are drained before the file is read.

    A file can be deleted or replaced. What is applied after that is in the file that has the path then.
    """

    @property
    def path(self) -> Path:
        """The file."""
        ...

    @property
    def direct(self) -> Storage:
        """The same storage, whose reads do not drain journals first."""
        ...

    def seeing(self, look: Callable[[], None]) -> Storage:
        """Return this storage with `look` called before each read; itself if it does that already."""
        ...

    def look_seldom(self) -> None:
        """From now on, look for the file every 250 ms only: what is applied until then is lost with a deleted file."""
        ...

    def draining(self) -> Storage:
        """Return a view of this storage for moving a journal: all that it applies goes into one and the same file.

        Its `apply` raises FileReplaced, once, if the path has another file than at the call before. From now on, the
        caller has to call `sync`; nothing else does.
        """
        ...

    @property
    def files(self) -> int:
        """The number of files that this process has seen at the path. It grows when another file is there."""
        ...

    def has(self, ids: Sequence[str]) -> bool:
        """Return whether a new connection, which has nothing in a cache, finds all these spans, runs and writers.

        Without ids it only checks the file.

        Raises:
            StorageError: something else has written to the file, or it cannot be read.
        """
        ...

    def sync(self) -> None:
        """Have on the disk what was applied before.

        Raises:
            OSError: the disk does not take it.
        """
        ...


class Spool(Protocol):
    """Keeps its rows elsewhere, behind journals on this host, which are drained before it is read."""

    @property
    def folder(self) -> Path:
        """The folder of the journals."""
        ...

    @property
    def location(self) -> Location:
        """The location of the storage."""
        ...

    def seeing(self, look: Callable[[], None]) -> Storage:
        """Return the same storage with another function called before each read."""
        ...


S = TypeVar("S", bound=Storage)
"""The storage that a Wrapper has."""
Look = Callable[[], None]
"""Does the work that is due before a read: it drains and recovers journals."""


class Wrapper(Generic[S]):
    """A storage that passes all on to another one.

    Args:
        direct: the other one.
    """

    def __init__(self, direct: S) -> None:
        self._direct = direct

    @property
    def direct(self) -> S:
        """The other storage."""
        return self._direct

    def capabilities(self) -> Capabilities:
        """Return those of the other storage."""
        return self.direct.capabilities()

    def ask(self, question: Question[T]) -> T:
        """Pass the question on."""
        return self.direct.ask(question)

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Pass the units on."""
        return self.direct.apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Pass the work on."""
        return self.direct.group(work, wait_s)

    def close(self) -> None:
        """Close the other storage."""
        self.direct.close()


class Looking(Wrapper[S]):
    """A storage that looks before each question that journals may answer, and before a group.

    Args:
        look: called first.
    """

    def __init__(self, direct: S, look: Look) -> None:
        super().__init__(direct)
        self._look = look

    def ask(self, question: Question[T]) -> T:
        """Look, where journals may have a part of the answer, and pass the question on."""
        if question.in_journals:
            self._look()
        return self.direct.ask(question)

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Look, and pass the work on."""
        self._look()
        return self.direct.group(work, wait_s)
