"""The contract of a storage backend. A new one proves itself with `agentspan.testing.StorageContract`.

Every backend implements `Storage`. Its optional capabilities are returned by `capabilities()`. Code above storages uses
that, never isinstance: a storage that wraps another one would lose the methods that it does not forward.

Until agentspan 1.0 this may change from one minor version to the next; `PROTOCOL` counts the changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from agentspan.errors import DatabaseBusy
from agentspan.model.changes import Key, Outcome, Unit, Violation
from agentspan.model.rows import AccountRow, AgentSpanRow, ResourceType, Row, Value
from agentspan.model.status import FINISH_STATUSES
from agentspan.tuning import STANDARD

if TYPE_CHECKING:
    from agentspan.storage.analytics import Analytics, Scores
    from agentspan.storage.file_capabilities import Backup, StorageFile
    from agentspan.storage.location import Location
    from agentspan.storage.partitions import Partitions
    from agentspan.storage.shared import Changes, Notes
    from agentspan.storage.transfer import Transfer

T = TypeVar("T")

PROTOCOL = 1
"""The version of this contract."""


class Storage(Protocol):
    """Commits guarded changes and answers reads.

    Safe to call from any thread, and usable in a forked child. Ids, names and times are compared as they are written:
    case, blanks, accents and microseconds count. Texts have no greatest length.

    Faults of the storage itself, and all errors of its driver, raise a `StorageError`: `DatabaseBusy` if trying again
    may help, `NotStorable` if it never does. All other outcomes are values.
    """

    def capabilities(self) -> Capabilities:
        """Return what this storage can do beyond this protocol; the same each time, also after closing."""
        ...

    def account(self) -> AccountRow:
        """Return the row that identifies this storage: created with it, never changed, and found like others."""
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

    def find(self, *ids: str, key: Key | None = None, instance_id: str | None = None) -> Found:
        """Return the rows with these ids, of whatever type, and what is stored under a key, in one snapshot.

        For a stored key its subject's row is among the rows. `terminated` has the reason for each terminated instance
        among these, or of these spans.

        Args:
            instance_id: the run that all spans and runs among these ids belong to, or are; None where the caller does
                not know it. A backend that is partitioned by run reads one partition then; others ignore it.
        """
        ...

    def page(self, query: Query) -> Rows:
        """Return a page of rows of one type. (To read all of them, see storage.scanning.)"""
        ...

    def iter_spans(self, instance_id: str) -> Iterator[AgentSpanRow]:
        """Yield all spans of an instance by id, which is the order of creation, without holding them all in memory.

        All of one snapshot, which is taken when the first is read: the caller may write before it reads the last.
        """
        ...

    def counts(self, instance_ids: Sequence[str]) -> Mapping[str, SpanCounts]:
        """Count the spans of each of these instances; one without spans, or unknown, has zeros."""
        ...

    def violations(self, span_ids: Sequence[str], *, instance_id: str | None = None) -> Mapping[str, list[Violation]]:
        """Return where the payloads of these spans do not match their schema, for each span the oldest first.

        A span without violations, or an unknown one, has an empty list.

        Args:
            instance_id: the run that all these spans belong to, where the caller knows it (see find).
        """
        ...

    def close(self) -> None:
        """Close files and connections. Closing twice is fine.

        Afterwards every call but capabilities() raises StorageError, also those of a capability.
        """
        ...


class Capabilities(NamedTuple):
    """The optional capabilities of a storage: for each, the object that provides it, or None.

    Attributes:
        backend: the backend's name, for messages.
        location: opens the same storage again, here or in another process; None if that is impossible.
        groups: several operations in one commit.
        removal: removing old runs and keys.
        outlines: reads spans without most of their payloads.
        analytics: answers about many runs.
        check: finding damage.
        waiting: setting how long reads wait.
        file: the size of the file, and making it smaller.
        backup: copying everything to a new file.
        sql: answering SELECTs over the tables and views.
        journals: having journals beside the file.
        spool: having journals in a folder of this host, in front of a server.
        sums: adding up the spans of a run.
        scores: the newest scores, and the tags, of many runs.
        transfer: reading and writing what only a copy of a whole storage needs.
        notes: keeping texts for programs on several machines.
        changes: reading the spans that were committed since a cursor.
        partitions: keeping finished spans in partitions by time.
        concurrency: how many threads of a process may write at the same time to good effect. A commit of a storage with
            more than 1 waits for a server.
        keeps_contents: whether it stores what is repeated in payloads once, and makes use of TextInParts.
        page_rows: how many rows a reader of all rows asks it for at once.
    """

    backend: str
    location: Location | None = None
    groups: Groups | None = None
    removal: Removal | None = None
    outlines: Outlines | None = None
    analytics: Analytics | None = None
    check: Check | None = None
    waiting: Waiting | None = None
    file: StorageFile | None = None
    backup: Backup | None = None
    sql: Sql | None = None
    journals: BesideJournals | None = None
    sums: Sums | None = None
    keeps_contents: bool = False
    scores: Scores | None = None
    transfer: Transfer | None = None
    notes: Notes | None = None
    changes: Changes | None = None
    concurrency: int = 1
    spool: Spool | None = None
    partitions: Partitions | None = None
    page_rows: int = STANDARD.page_rows


class Groups(Protocol):
    """Lets several operations, reads and writes in turn, share one commit."""

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Call `work` with a storage whose reads include its own writes, and return its result.

        All that it wrote is durable then; nothing of it, if it raised, be it a KeyboardInterrupt. A function and no
        with-block: an exception from a signal handler may come before the first line of an `__exit__`.

        Raises: DatabaseBusy: other writers did not let go within `wait_s` seconds.
        """
        ...


class Removal(Protocol):
    """Removes old runs and keys."""

    def remove_runs(self, ids: Sequence[str], wait_s: float) -> tuple[int, int]:
        """Remove runs with all that belongs to them, in one commit; return how many, and how many spans.

        Guard, for each: it has finished, and nothing in it is open. Others, and unknown ids, are passed over.

        Raises:
            DatabaseBusy: other writers did not let go within `wait_s` seconds; nothing is removed.
        """
        ...

    def remove_keys(self, before: str, wait_s: float, *, dry_run: bool = False) -> int:
        """Remove the idempotency keys that were stored before a time; return their number."""
        ...


class Outlines(Protocol):
    """Returns a run's spans without the columns that a list does not show."""

    def outlines(
        self, instance_id: str, *, after: str = "", limit: int | None = None, since: str | None = None
    ) -> list[AgentSpanRow]:
        """Return spans of an instance by id, without most of their payloads.

        The payload is `{}` where there is a summary. The result is None where the span has not failed, unless its text
        has `is_error` as true.

        Args:
            after: only spans whose id is greater.
            limit: how many at most.
            since: only spans whose updated_at is not before this.
        """
        ...


class Sums(Protocol):
    """Adds up the spans of a run without returning them."""

    def sums(self, instance_id: str) -> list[SpanSum]:
        """Return the sums over the spans of an instance, in any order; an empty list for one without spans."""
        ...


class Check(Protocol):
    """Finds damage."""

    def check(self) -> list[str]:
        """Return the damage that was found, a sentence each without stored values; empty if there is none."""
        ...


class Waiting(Protocol):
    """Sets how long reads wait for other processes."""

    def wait_at_most(self, wait_s: float) -> None:
        """Change how long reading, and opening again, may wait."""
        ...


class Sql(Protocol):
    """Answers a person's own SELECT over the documented tables and views."""

    def select(self, query: str, values: Sequence[Any] = ()) -> Answer:
        """Run one SELECT. It can only read.

        Raises:
            InvalidValue: it is no SQL, or does more than read.
            StorageError: what is stored is damaged.
        """
        ...


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


class Answer(NamedTuple):
    """The rows that a SELECT returned."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


class StoredKey(NamedTuple):
    """An idempotency key that was used, and the id of the resource that its request was about."""

    request_hash: str
    subject: str


class Found(NamedTuple):
    """Rows by id, from one snapshot; ids that name nothing are absent."""

    rows: Mapping[str, tuple[ResourceType, Row]]
    key: StoredKey | None = None
    terminated: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Query:
    """Rows of one type that equal `where`, in the order of a column.

    Attributes:
        where: column → value that it must have.
        start_time: spans only: the earliest started_at (else inserted_at) that counts, as stored text.
        end_time: spans only: the first time that no longer counts.
        prefix: what the id begins with.
        order: the column to sort by; ties, and the default, go by id, which is the order of creation.
        offset: how many rows to skip.
        limit: how many rows at most; None for all.
        after: only rows whose id is greater than this one; with `descending`, less. Only in the order of ids.
        with_total: return the number of all rows too, without regard to `after`, `offset` and
            `limit`. Counting reads all of them: 77 ms among a million on PostgreSQL.
        most_bytes: how many characters of JSON to read: the row that passes them is the last, and the ids of the
            others are in `CutRows.rest`. A storage may ignore it.
    """

    type: ResourceType
    where: Mapping[str, Value] = field(default_factory=dict)
    start_time: str | None = None
    end_time: str | None = None
    prefix: str = ""
    order: str = "id"
    descending: bool = False
    offset: int = 0
    limit: int | None = None
    after: str = ""
    with_total: bool = False
    most_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.after and self.order != "id":
            raise ValueError("`after` is an id: rows in another order have no place after it")


class Rows(NamedTuple):
    """A page of a query; `total`, None unless the query asks for it, is how many rows there are in all."""

    rows: list[Row]
    total: int | None = None

    def counted(self) -> int:
        """Return `total` of a query that requested it."""
        assert self.total is not None
        return self.total


class CutRows(Rows):
    """The first rows of a page (see Query.most_bytes).

    Attributes:
        rest: the ids of the page's other rows, which were not read; none if the last row was the one too many.
    """

    rest: Sequence[str]


def with_rest(page: Rows, rest: Sequence[str]) -> Rows:
    """Return a page as a cut one, with the ids of its rows that were not read."""
    cut = CutRows(*page)
    cut.rest = rest
    return cut


class SpanCounts(NamedTuple):
    """The number of an instance's spans in each status."""

    total: int = 0
    pending: int = 0
    active: int = 0
    complete: int = 0
    failed: int = 0
    cancelled: int = 0
    finished: int = 0


class SpanSum(NamedTuple):
    """The spans of a run with the same status, type and label.

    Attributes:
        spans: how many there are.
        cost_usd: what they cost, in US dollars; None if none of them has a cost. Spans that sum up others are left out.
    """

    status: str
    schema_name: str
    label: str | None
    spans: int
    cost_usd: float | None


def span_counts(by_status: Mapping[str, int]) -> SpanCounts:
    """Add up the counts of each status; finished are the complete, failed and cancelled ones."""
    finished = sum(by_status.get(status, 0) for status in FINISH_STATUSES)
    return SpanCounts(sum(by_status.values()), finished=finished, **by_status)
