"""The contract of a storage backend. The tests in `agentspan.testing.StorageContract` check a backend against it.

Every backend implements `Storage`. Changes and questions (see storage.questions) are values, so that a storage can wrap
another storage in a few lines (see access.Wrapper). Code that uses a storage never checks its class with isinstance: it
reads `capabilities()`. The functions are the rules of the contract, for backends that decide in Python.

Until agentspan 1.0 the contract may change from one minor version to the next; `PROTOCOL` counts the changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

from agentspan import clock, ids
from agentspan.errors import DatabaseBusy, DatabaseUnusable
from agentspan.model.changes import Move, Outcome, Ref, Refused, Unit, over_of
from agentspan.model.rows import REFERENCES, TYPE_OF, UNIQUE, AccountRow, AgentInstanceRow, AgentSpanRow, Row, Violation
from agentspan.storage.answers import Rows
from agentspan.storage.questions import BASIC, Query, Question
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

    A storage on a server may also have a method `waiting(patience)`, which returns the same storage for a caller with
    this Patience (see storage.patience). Without it, a storage is used as it is.
    """

    def capabilities(self) -> Capabilities:
        """Return the abilities of this storage. Every call returns equal values, also after closing."""
        ...

    def ask(self, question: Question[T]) -> T:
        """Return the answer to a question of the module `agentspan.storage.questions`.

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
        page_rows: how many rows `storage.access` reads at once.
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

    def seeing(self, look: Callable[[], None], journals: Sized | None = None) -> Storage:
        """Return a view of this storage that calls `look` before each read; the storage itself if it already does.

        Args:
            journals: what `look` drains; while it is empty, reads do not call `look`.
        """
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

    def seeing(self, look: Callable[[], None], journals: Sized | None = None) -> Storage:
        """Return a view of this storage that calls `look` before each read, if there are journals."""
        ...


def references_of(row: Row) -> list[Ref]:
    """Return references to the rows that must exist before this row may be stored."""
    return [Ref(to, getattr(row, column)) for column, to in REFERENCES.get(TYPE_OF[type(row)], {}).items()]


def unique_of(row: Row) -> tuple[object, ...] | None:
    """Return the values of a row's unique columns; None if its type has no unique columns, or one of them is None."""
    columns = UNIQUE.get(TYPE_OF[type(row)])
    values = tuple(getattr(row, column) for column in columns or ())
    return None if columns is None or None in values else values


class Moved(NamedTuple):
    """The row after a Move. `is_over`: the span's own end replaced an end that was set on its behalf (see Over)."""

    row: Row
    is_over: bool


def moved(move: Move, stored: Row | None) -> Moved | Refused:
    """Return the row after a move, or the refusal if the move's guards do not hold.

    Args:
        stored: the stored row with the move's id; None if no row has the id.
    """
    if stored is None or TYPE_OF[type(stored)] != move.type:
        return Refused("missing", stored)
    refused: Refused | None = None
    if move.leaves and getattr(stored, "status", None) not in move.leaves:
        refused = Refused("status", stored)
    elif any(getattr(stored, column) != value for column, value in move.unchanged.items()):
        refused = Refused("changed", stored)
    over = None if refused is None else over_of(move, stored)
    if refused is not None and over is None:
        return refused
    values: Mapping[str, Any] = move.set if over is None else over.set
    return Moved(cast(Any, stored)._replace(**values), over is not None)


def violations_after(move: Move, before: Iterable[Violation]) -> tuple[Violation, ...]:
    """Return the violations of a span, `before` a move, after it: a new payload drops those of the old payload."""
    kept = (violation for violation in before if "payload" not in move.set or violation.side != "payload")
    return (*kept, *move.violations)


def terminated(run: Row | None) -> str | None:
    """Return the reason for which `run`, an instance, was terminated; None if it was not, or is no instance."""
    is_terminated = isinstance(run, AgentInstanceRow) and run.status == "terminated"
    return cast(AgentInstanceRow, run).termination_reason or "" if is_terminated else None


def page_of(rows: Iterable[Row], query: Query) -> Rows:
    """Select and sort the rows of a query, and return its page. The rows may have any types and any order."""
    found = [row for row in rows if TYPE_OF[type(row)] == query.type and _matches(row, query)]

    def position(row: Row) -> tuple[bool, Any, str]:
        value = getattr(row, query.order)
        return value is not None, value, row.id  # None comes first, as in SQLite

    found.sort(key=position, reverse=query.descending)
    total = len(found) if query.with_total else None
    if query.after:
        found = [row for row in found if (row.id < query.after if query.descending else row.id > query.after)]
    end = None if query.limit is None else query.offset + query.limit
    return Rows(found[query.offset : end], total)


def _matches(row: Row, query: Query) -> bool:
    if not row.id.startswith(query.prefix):
        return False
    if any(getattr(row, column) != value for column, value in query.where.items()):
        return False
    if isinstance(row, AgentSpanRow):
        at = row.started_at or row.inserted_at
        return (query.start_time is None or at >= query.start_time) and (query.end_time is None or at < query.end_time)
    return True


def new_account() -> AccountRow:
    """Return a new account row, with a random partition and new ids in this partition."""
    partition = ids.random_partition()
    source = ids.IdSource(partition)
    return AccountRow(source.new(), source.new(), source.new(), partition, clock.now())


def refused(place: str, of: str, version: int) -> DatabaseUnusable:
    """Return the error for a file or schema from before the first release.

    Args:
        place: the path of the file, or the location of the schema.
        of: `file` or `schema`.
        version: the version of the file or schema.
    """
    return DatabaseUnusable(
        f"{place} was made before the first release ({of} version {version}), and stays as it is; to bring it over, "
        "run `agentspan export` with the agentspan that wrote it, in another environment, and `agentspan import` here"
    )
