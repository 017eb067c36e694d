"""The questions that a storage can be asked. Each is a value; `Storage.ask` returns its answer.

A question reads; a task, at the end of this file, does something beside changes of rows. Every storage answers the
questions of BASIC. From these, storage.row_by_row answers more of them for a storage that has no answer of its own. The
rest is answered only by a storage whose capabilities name it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Self, TypeVar, dataclass_transform, get_args

from agentspan import jsontext
from agentspan.model.changes import Key
from agentspan.model.rows import AccountRow, AgentSpanRow, ResourceType, ScoreRow, Value, Violation
from agentspan.storage.answers import (
    Answer,
    Changed,
    Dropped,
    FailureSum,
    Found,
    FoundSpan,
    KeyRow,
    LatestScore,
    Made,
    Partition,
    Progress,
    Rows,
    RunBrief,
    RunList,
    RunSum,
    SpanCounts,
    SpanMark,
    SpanSum,
    Stat,
    State,
    StepUse,
    Width,
)

RunSort = Literal["started", "duration", "cost", "tokens", "spans", "failed"]
"""The orders of a list of runs: the latest, longest, most expensive … first; runs without a value come last."""
SORTS: tuple[RunSort, ...] = get_args(RunSort)


class RunFilter(NamedTuple):
    """A filter for runs. Fields left at None match everything.

    Attributes:
        agent: the agent's name, id or external_identifier.
        status: the run's.
        since: the earliest started_at (else inserted_at) that counts, as stored text (see clock).
        failed: only runs that failed, or in which a span did.
        grep: text, in any case, in the run's id, agent, version, external_identifier, metadata, result, error or
            termination reason. To find text in its spans, use `search`.
        git_commit: the beginning of the run's commit, in upper or lower case.
        version: the external_identifier of the agent's version; `default` where none was given.
        session: the run's session.
        until: the first started_at (else inserted_at) that no longer counts, as stored text.
        error: text, in any case, in the run's error or termination reason, or in the result of a failed span.
        meta: pairs of a key of the run's metadata and its value as text; all must match. A dot in a key goes into an
            object.
        task: the run's task.
        tags: all of which the run has.
        scores: rules such as `reward>=1` (see analysis.outcomes), which the newest scores of the run fulfil.
        mark: the label of the run's newest mark; `*` for any.
        signature: the id of a failure, or of how a run ended, or the beginning of it (see schemas.signatures).
        ids: the only runs that count. `analysis.runs` turns scores, mark and signature into it, so that a
            storage that filters by itself finds them at None.
    """

    agent: str | None = None
    status: str | None = None
    since: str | None = None
    failed: bool = False
    grep: str | None = None
    git_commit: str | None = None
    version: str | None = None
    session: str | None = None
    until: str | None = None
    error: str | None = None
    meta: tuple[tuple[str, str], ...] = ()
    task: str | None = None
    tags: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    mark: str | None = None
    ids: frozenset[str] | None = None
    signature: str | None = None


def is_said_in(needle: str, *texts: str | None) -> bool:
    """Return whether one of these texts has the needle, in any case."""
    needle = needle.lower()
    return any(text is not None and needle in text.lower() for text in texts)


def has_meta(metadata: str | None, meta: Sequence[tuple[str, str]]) -> bool:
    """Return whether a run's metadata, a JSON text, has all of these values.

    Args:
        meta: pairs of a key and a value as text: a JSON string without its quotes, or any other JSON value.
    """
    found = None if metadata is None else jsontext.decode(metadata)
    return all(_as_text(found, key) == value for key, value in meta)


def _as_text(value: object, key: str) -> str | None:
    """Return a member as text; None if there is none. A key with dots is a member with that name first, then a path."""
    if not isinstance(value, dict):
        return None
    if key in value:
        member = value[key]
        return member if isinstance(member, str) else jsontext.encode(member)[0]
    head, dot, rest = key.partition(".")
    return _as_text(value.get(head), rest) if dot else None


T = TypeVar("T", covariant=True)

AHEAD = 4
"""Partitions that are made for times to come."""


@dataclass_transform()
class Question(Generic[T]):
    """A question whose answer is a T.

    Attributes:
        in_journals: whether the answer depends on records that may still be in a journal, so that a storage which sees
            journals drains them first.
    """

    in_journals: ClassVar[bool] = True
    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Take the annotations of the class as its fields, and the values in the class as their defaults."""
        cls.fields = tuple(name for name, type_ in cls.__annotations__.items() if not type_.startswith("ClassVar"))

    def __init__(self, *values: Any, **named: Any) -> None:
        """Compile the initializer of the class when its first object is made.

        `dataclass` compiles six functions for each class at import: 40 % of the import of a program with one call.
        """
        cls = type(self)
        cls.__init__ = _initializer(cls)  # type: ignore[method-assign]
        cls.__init__(self, *values, **named)

    def changed(self, **fields: Any) -> Self:
        """Return the question with other values of fields."""
        made = copy(self)
        vars(made).update(fields)
        return made

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def _initializer(cls: type[Question[Any]]) -> Callable[..., None]:
    parameters = (f"{name}=_class.{name}" if name in vars(cls) else name for name in cls.fields)
    lines = [f"def __init__({', '.join(('self', *parameters))}):", *(f" self.{name} = {name}" for name in cls.fields)]
    made: dict[str, Any] = {"_class": cls}
    exec("\n".join((*lines, " self.check()" if hasattr(cls, "check") else " pass")), made)
    initializer: Callable[..., None] = made["__init__"]
    return initializer


class Account(Question[AccountRow]):
    """The row that identifies the storage: created with it, never changed, and found like others."""


class Find(Question[Found]):
    """The rows with these ids, of whatever type, and what is stored under a key, in one snapshot.

    For a stored key its subject's row is among the rows. `terminated` has the reason for each terminated instance among
    these, or of these spans.

    Attributes:
        instance_id: the run that all spans and runs among these ids belong to, or are; None where the caller does not
            know it. A backend that is partitioned by run reads one partition then; others ignore it.
    """

    ids: tuple[str, ...]
    key: Key | None
    instance_id: str | None

    def __init__(self, *ids: str, key: Key | None = None, instance_id: str | None = None) -> None:
        self.ids = ids
        self.key = key
        self.instance_id = instance_id


class Query(Question[Rows]):
    """Rows of one type that equal `where`, in the order of a column. (To read all of them, see storage.scanning.)

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
    where: Mapping[str, Value] = MappingProxyType({})
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

    def check(self) -> None:
        """Refuse what no storage can answer."""
        if self.after and self.order != "id":
            raise ValueError("`after` is an id: rows in another order have no place after it")


class SpansOf(Question[Iterator[AgentSpanRow]]):
    """All spans of an instance by id, which is the order of creation, without holding them all in memory.

    All of one snapshot, which is taken when the first is read: the caller may write before it reads the last.
    """

    instance_id: str


class Counts(Question[Mapping[str, SpanCounts]]):
    """The numbers of spans of each of these instances in each status; one without spans, or unknown, has zeros."""

    instance_ids: Sequence[str]


class Violations(Question[Mapping[str, list[Violation]]]):
    """The places where payloads of these spans do not match their schema, for each span the oldest first.

    A span without violations, or an unknown one, has an empty list.

    Attributes:
        instance_id: the run that all these spans belong to, where the caller knows it (see Find).
    """

    span_ids: Sequence[str]
    instance_id: str | None = None


BASIC: frozenset[type[Question[Any]]] = frozenset({Account, Find, Query, SpansOf, Counts, Violations})
"""The questions that every storage answers by itself."""


class Outlines(Question[list[AgentSpanRow]]):
    """Spans of an instance by id, without most of their payloads, which a list does not show.

    The payload is `{}` where there is a summary. The result is None where the span has not failed, unless its text has
    `is_error` as true. A storage without an answer of its own returns whole spans.

    Attributes:
        after: only spans whose id is greater.
        limit: how many at most.
        since: only spans whose updated_at is not before this.
    """

    instance_id: str
    after: str = ""
    limit: int | None = None
    since: str | None = None


class SpanSums(Question[list[SpanSum]]):
    """The sums over the spans of an instance, in any order; an empty list for one without spans."""

    instance_id: str


class NewestScores(Question[list[ScoreRow]]):
    """The scores that count (see model.scores), of these runs and their spans, by time and id.

    Where one score of a name is wanted and several judges, each with an identifier, gave one, the newest of theirs is
    it.
    """

    instance_ids: Sequence[str]


class LatestScores(Question[Mapping[str, LatestScore]]):
    """The newest score of a name for each run that has one, by the run's id. Scores of spans do not count.

    Attributes:
        source: only scores from this source.
    """

    name: str
    source: str | None = None


class Tags(Question[Mapping[str, list[str]]]):
    """The tags of these runs, in the order of the alphabet; one without tags, or unknown, has none."""

    instance_ids: Sequence[str]


class RunsWhere(Question[RunList]):
    """A page of the runs that match. Ties of `sort` go by id, the latest first.

    Attributes:
        filter: without scores, mark and signature: `analysis.runs` has turned these into ids.
        limit: how many at most; None for all.
        offset: how many to pass over.
        progress: called with how much is done, and of how much, while there is an index to be built.
    """

    filter: RunFilter
    limit: int | None = None
    offset: int = 0
    sort: RunSort = "started"
    progress: Progress | None = None


class BriefsWhere(Question[list[RunBrief]]):
    """All runs that match, the latest first, as far as comparisons need them (see RunsWhere)."""

    filter: RunFilter
    progress: Progress | None = None


class SpanStats(Question[list[Stat]]):
    """Statistics of the spans of all runs, in any order.

    Attributes:
        since: the earliest started_at (else inserted_at) that counts, as stored text (see clock).
        until: the first time that no longer counts.
        runs: ids of the only runs whose spans count; None for all.
        progress: see RunsWhere.
    """

    since: str | None = None
    until: str | None = None
    runs: Collection[str] | None = None
    progress: Progress | None = None


class RunSums(Question[list[RunSum]]):
    """The sums of these runs by span type and label, in any order: what comparisons of many runs are made of."""

    runs: Collection[str]
    progress: Progress | None = None


class Search(Question[tuple[list[FoundSpan], int]]):
    """A page of the spans that say all these words first in their run, the latest first; and the total.

    Attributes:
        words: each the tokens that must stand side by side, separated by blanks; the last one of those may end in `*`,
            for any ending.
        limit: how many at most.
        offset: how many to pass over.
        runs: ids of the only runs that are searched; None for all.
        progress: see RunsWhere.
    """

    words: Sequence[str]
    limit: int
    offset: int = 0
    runs: Collection[str] | None = None
    progress: Progress | None = None


class FailureSums(Question[list[FailureSum]]):
    """The failures of these runs by run and signature, in any order."""

    run_ids: Collection[str]
    progress: Progress | None = None


class StepUses(Question[list[StepUse]]):
    """The types and labels that these runs used, with their numbers, in any order."""

    run_ids: Collection[str]
    progress: Progress | None = None


class SpanMarks(Question[Mapping[str, frozenset[SpanMark]]]):
    """The marks of the spans of each of these runs; none for a run without spans, or an unknown one."""

    instance_ids: Sequence[str]


class StoredKeys(Question[list[KeyRow]]):
    """Idempotency keys in the order of (operation, key). Only a copy of a whole storage needs them.

    Attributes:
        after: only keys after this one, an operation and a key; None for all.
        limit: how many at most.
        since: only keys that were stored at this time or later, as stored text.
    """

    after: tuple[str, str] | None = None
    limit: int = 500
    since: str = ""


class ChangedSpans(Question[Changed]):
    """The spans of a run that were committed since a cursor, and perhaps some that were committed before.

    Times cannot tell that: what a program recorded is committed later, and clocks of machines differ.

    Attributes:
        cursor: of an earlier answer; "" for all spans. One of another database, or no cursor at all, is as "".
        after: only spans whose id is greater.
        limit: how many at most. A reader who goes on `after` the last row of a full answer keeps the cursor of the
            first answer.
    """

    instance_id: str
    cursor: str
    after: str = ""
    limit: int | None = None


class Damage(Question[list[str]]):
    """The damage that is found, a sentence each without stored values; empty if there is none."""


class Select(Question[Answer]):
    """The rows of a person's own SELECT over the documented tables and views. It can only read.

    Raises:
        InvalidValue: it is no SQL, or does more than read.
        StorageError: what is stored is damaged.
    """

    query: str
    values: Sequence[Any] = ()


class BackUp(Question[int]):
    """A new file with everything, as of now, made while others read and write; the answer is its size in bytes.

    Raises:
        InvalidValue: there is a file at the path already, or no folder.
    """

    path: str | os.PathLike[str]


class UsedBytes(Question[int]):
    """The number of bytes of the storage's file that are in use."""

    in_journals: ClassVar[bool] = False


class FileBytes(Question[int]):
    """The size of the storage's file, including its write-ahead log."""

    in_journals: ClassVar[bool] = False


class Notes(Question[Mapping[str, str]]):
    """Texts by name, kept for programs that share a storage; names without one, or whose time is over, are absent.

    They belong to no run, and are not exported or copied.
    """

    __slots__ = ("names",)
    in_journals: ClassVar[bool] = False

    def __init__(self, *names: str) -> None:
        self.names = names


class NotesCount(Question[int]):
    """The number of names of notes that begin with a prefix."""

    prefix: str
    in_journals: ClassVar[bool] = False


class Partitions(Question[list[Partition]]):
    """All partitions by time, the default one last; an empty list where the tables were made without any.

    Finished spans are kept in partitions, each for a range of times, and whole runs in one of them, by the time that
    the ids of runs carry. A span for which no partition was made lies in the default one, and is read like any other.
    So partitions may be made late, and by few programs: by those that may change tables.
    """

    in_journals: ClassVar[bool] = False


class TablesState(Question[State]):
    """The version of the tables, and how far the index is."""

    in_journals: ClassVar[bool] = False


class MissingPartitions(Question[int]):
    """The number of partitions that MakePartitions would make for now and the times to come."""

    ahead: int = AHEAD
    in_journals: ClassVar[bool] = False


class Task(Question[T]):
    """Something that a storage does beside changes of rows; the answer is what came of it."""

    in_journals: ClassVar[bool] = False


class RemoveRuns(Task[tuple[int, int]]):
    """Remove runs with all that belongs to them, in one commit; return how many, and how many spans.

    Guard, for each: it has finished, and nothing in it is open. Others, and unknown ids, are passed over.

    Raises:
        DatabaseBusy: other writers did not let go within `wait_s` seconds; nothing is removed.
    """

    ids: Sequence[str]
    wait_s: float


class RemoveKeys(Task[int]):
    """Remove the idempotency keys that were stored before a time; return their number."""

    before: str
    wait_s: float
    dry_run: bool = False


class PutKeys(Task[int]):
    """Store keys as they are, in one commit; return how many are new. A key that is stored already stays as it is.

    Raises:
        DatabaseBusy: other writers did not let go within `wait_s` seconds; nothing is stored.
    """

    keys: Sequence[KeyRow]
    wait_s: float


class Compact(Task[None]):
    """Return unused space of the storage's file to the system, in steps between which others can write."""

    wait_s: float


class WaitAtMost(Task[None]):
    """Change how long reading, and opening again, may wait for other processes."""

    wait_s: float


class PutNote(Task[str]):
    """Store a text under a name, and return the text that is stored there now.

    Texts whose time is over are removed at that occasion.

    Attributes:
        lasts_s: seconds, by the storage's clock, after which it is gone; None for ever.
        replace: replace another text that is stored there; else that one stays, and is returned. Of several programs at
            the same moment, all are returned the same text.

    Raises:
        NotPermitted: the storage is opened to be read only.
    """

    name: str
    text: str
    lasts_s: float | None = None
    replace: bool = True


class ForgetNotes(Task[None]):
    """Remove all notes whose names begin with a prefix."""

    prefix: str


class MakePartitions(Task[Made]):
    """Make the partitions that are missing: for now, for times to come, and for many spans in the default one.

    Each is made in a transaction, with its spans moved out of the default partition. It may be asked at any time, by
    several programs at once, and again after it was interrupted.

    Attributes:
        ahead: how many partitions there should be for times to come.
        since: make also those for all times since this one, as stored text.
        width: of new partitions; None for that of the latest one.
        wait_s: how long it may wait for others that use the default partition.

    Raises:
        DatabaseBusy: others used the default partition for `wait_s` seconds; what was made so far stays.
        DatabaseUnusable: the user may not change the tables.
        NotPermitted: the storage was opened to be read only.
    """

    ahead: int = AHEAD
    since: str | None = None
    width: Width | None = None
    wait_s: float = 5.0


class DropPartitions(Task[Dropped]):
    """Remove the partitions that are old as a whole, the oldest first, with all that belongs to their runs.

    Each in one commit; only where a partition has very many violations, most of them are removed before. Guards, for
    each: its times are over; all runs have finished before a time, and nothing in them is open; and of runs that were
    closed for their programs, these are dead. One with another run stays, and so does the default one.

    Attributes:
        before: the time, as stored text.
        is_dead: called with the writers of runs that were closed for them.

    Raises:
        DatabaseBusy: others used the partitions for `wait_s` seconds; what was removed so far is.
        DatabaseUnusable: the user may not remove tables.
        NotPermitted: the storage was opened to be read only.
    """

    before: str
    is_dead: Callable[[str], bool]
    wait_s: float
