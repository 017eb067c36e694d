"""The contract of a storage backend. The tests in `agentspan.testing.StorageContract` check a backend against it.

Every backend implements `Storage`. Changes and questions (see storage.questions) are values, so that a storage can wrap
another storage in a few lines (see Wrapper). Code that uses a storage never checks its class with isinstance: it reads
`capabilities()`.

Until agentspan 1.0 the contract may change from one minor version to the next; `PROTOCOL` counts the changes.
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
"""The version of the storage contract."""


class Storage(Protocol):
    """Commits guarded changes and answers questions.

    Safe to call from any thread, and usable in a forked child. Ids, names and times are compared character by
    character: case, blanks, accents and microseconds count. Texts have no maximum length.

    Faults of the storage itself, and all errors of its driver, raise a `StorageError`: `DatabaseBusy` if a retry may
    help, `NotStorable` if a retry never helps. All other outcomes are returned as values.
    """

    def capabilities(self) -> Capabilities:
        """Return the abilities of this storage. Every call returns equal values, also after closing."""
        ...

    def ask(self, question: Question[T]) -> T:
        """Return the answer to a question (see storage.questions).

        For a question that the storage cannot answer by itself, it returns `row_by_row.answer(self, question)`.
        """
        ...

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Commit units in order, in one transaction, and return one outcome per unit. They are durable on return.

        Each unit is applied whole or not at all. Its guards are checked against the state after the earlier units. Its
        idempotency key is checked before its guards, and stored with its changes. With `stop_at_refusal`, the first
        outcome that is KeyTaken or Refused ends the list: later units are not applied.

        Raises:
            DatabaseBusy: other writers held the write lock for `wait_s` seconds; nothing is stored.
            StorageError: nothing is stored, except after InDoubt: then the units may be stored, and it is safe to
                apply them again.
        """
        ...

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Run `work`, which may read and write several times, and commit all its writes at once.

        `work` is called with a storage whose reads include the writes of the group; its result is returned. All writes
        are durable on return. If `work` raises, even a KeyboardInterrupt, all of them are rolled back. This is a
        function and no with-block, because a signal handler may raise before the first line of an `__exit__` runs.

        Raises:
            DatabaseBusy: other writers held the write lock for `wait_s` seconds.
        """
        ...

    def close(self) -> None:
        """Close files and connections. Closing twice is fine.

        After closing, every call except `close` and `capabilities` raises StorageError.
        """
        ...


class Capabilities(NamedTuple):
    """The abilities of a storage: which questions it answers, where it lies, and whether it has journals.

    Attributes:
        backend: the backend's name, for messages.
        answers: the types of questions that the storage answers by itself.
        location: opens the same storage again, in this process or another; None if the storage cannot be opened again.
        journals: the access to the journals beside the storage's file; None if it has no journals beside a file.
        spool: the access to the journals on this host in front of a server; None if the storage has no spool.
        concurrency: how many threads of a process can usefully write at the same time. More than 1 means that a commit
            waits for a server.
        keeps_contents: whether texts that payloads repeat are stored once, and TextInParts is used for that.
        page_rows: how many rows `storage.scanning` reads at once.
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
    """The file was overwritten a moment ago. It is used again after a check of the whole file."""


class FileReplaced(DatabaseBusy):
    """The file was deleted or replaced during an operation. The new file at the path has nothing of that operation."""


class BesideJournals(Protocol):
    """A storage whose rows are in a file with journals beside it. The journals are drained before the file is read.

    If the file is deleted or replaced, later changes are stored in the new file at its path.
    """

    @property
    def path(self) -> Path:
        """The path of the storage's file."""
        ...

    @property
    def direct(self) -> Storage:
        """The same storage without draining: its reads do not drain journals first."""
        ...

    def seeing(self, look: Callable[[], None]) -> Storage:
        """Return a view of this storage that calls `look` before each read; the storage itself if it already does."""
        ...

    def look_seldom(self) -> None:
        """Check every 250 ms only that the file is at its path. Changes between a deletion and a check are lost."""
        ...

    def draining(self) -> Storage:
        """Return a view of this storage for draining a journal, which notices when the file is replaced.

        Its `apply` raises FileReplaced, once, if the path has another file than at the previous call. From now on, the
        caller must call `sync`: the storage no longer flushes its log by itself.
        """
        ...

    @property
    def files(self) -> int:
        """The number of files that this process has opened at the path. It grows when the file is replaced."""
        ...

    def has(self, ids: Sequence[str]) -> bool:
        """Return whether all these spans, runs and writers are in the file, read by a new connection without a cache.

        Without ids, only the file is checked.

        Raises:
            StorageError: another program has overwritten the file, or the file cannot be read.
        """
        ...

    def sync(self) -> None:
        """Flush all applied changes to the disk.

        Raises:
            OSError: the disk cannot store them.
        """
        ...


class Spool(Protocol):
    """A storage on a server, with journals on this host. The journals are drained before the server is read."""

    @property
    def folder(self) -> Path:
        """The folder of this host that contains the journals."""
        ...

    @property
    def location(self) -> Location:
        """The location of the server's storage."""
        ...

    def seeing(self, look: Callable[[], None]) -> Storage:
        """Return a view of this storage that calls `look` before each read."""
        ...


S = TypeVar("S", bound=Storage)
"""The type of the storage that a Wrapper wraps."""
Look = Callable[[], None]
"""A function that drains and recovers journals. It is called before a read."""


class Wrapper(Generic[S]):
    """A storage that passes every call on to another storage. Subclasses override single methods.

    Args:
        direct: the storage that is wrapped.
    """

    def __init__(self, direct: S) -> None:
        self._direct = direct

    @property
    def direct(self) -> S:
        """The storage that is wrapped."""
        return self._direct

    def capabilities(self) -> Capabilities:
        """Return the capabilities of the wrapped storage."""
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
    """A storage that drains journals before each question whose answer may depend on them, and before each group.

    Args:
        direct: the storage that is wrapped.
        look: drains the journals; called before the question or group is passed on.
    """

    def __init__(self, direct: S, look: Look) -> None:
        super().__init__(direct)
        self._look = look

    def ask(self, question: Question[T]) -> T:
        """Drain the journals if the answer may depend on them, then pass the question on."""
        if question.in_journals:
            self._look()
        return self.direct.ask(question)

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Drain the journals, then pass the work on."""
        self._look()
        return self.direct.group(work, wait_s)
