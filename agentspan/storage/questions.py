"""The questions that a storage can answer. Each question is a value; `Storage.ask` returns its answer.

A question only reads. A task, at the end of this file, also does something, such as removing runs. Every storage
answers the questions in BASIC by itself. From those answers, storage.row_by_row computes the answers to more questions,
for a storage that lacks its own. Any other question is answered only by a storage whose capabilities list it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import copy
from types import MappingProxyType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
    dataclass_transform,
    get_args,
)

from agentspan import jsontext
from agentspan.model.changes import Key
from agentspan.model.rows import AccountRow, AgentSpanRow, ResourceType, ScoreRow, Value, Violation
from agentspan.schemas.builtin import built_in_part
from agentspan.storage.answers import Found, KeyRow, LatestScore, Rows, SpanCounts, SpanMark, SpanSum

if TYPE_CHECKING:
    from agentspan.storage.sums import (  # noqa: F401 (in texts, so that a program that only records imports none)
        Answer,
        CachedCall,
        Changed,
        Dropped,
        FailureSum,
        FoundSpan,
        Made,
        Partition,
        Progress,
        RunBrief,
        RunList,
        RunSum,
        Stat,
        State,
        StepUse,
        TimedSum,
        Width,
    )

RunSort = Literal["started", "duration", "cost", "tokens", "spans", "failed"]
"""The order of a list of runs: the latest, longest, most expensive … first. Runs without a value come last."""
SORTS: tuple[RunSort, ...] = get_args(RunSort)


class RunFilter(NamedTuple):
    """A filter for runs. Fields left at None match everything.

    Attributes:
        agent: the agent's name, id or external_identifier.
        status: the run's status.
        since: the earliest started_at (else inserted_at) that matches, as stored text (see clock).
        failed: only runs that failed, or that contain a failed span.
        grep: text, in any case, in the run's id, agent, version, external_identifier, metadata, result, error or
            termination reason. For text in spans, use `search`.
        git_commit: the beginning of the run's commit, in upper or lower case.
        version: the external_identifier of the agent's version; `default` for runs recorded without a version.
        session: the run's session.
        until: the first started_at (else inserted_at) that no longer matches, as stored text.
        error: text, in any case, in the run's error or termination reason, or in the result of a failed span.
        meta: pairs of a key of the run's metadata and its value as text; all must match. The key `a.b` means the member
            `b` of the object `a`, unless there is a key `a.b`.
        task: the run's task.
        tags: tags that the run must have, all of them.
        scores: rules such as `reward>=1` (see analysis.outcomes); the newest scores of the run must fulfil all.
        mark: the label of the run's newest mark, or of a mark of one of its spans; `*` for any.
        signature: the id of a failure in the run, or of the way the run ended, or the beginning of such an id (see
            schemas.signatures).
        ids: the only runs that match. `analysis.runs` replaces scores, mark, signature, touched, project, tool and
            model by ids, so that a storage never has to evaluate those.
        touched: the path of a file that a call of a tool names, or the end of that path (see schemas.file_paths).
        project: a folder, or a pattern with `*`: the `cwd` in the run's metadata is it, or below it. Without `/`, the
            name of a folder.
        tool: the name of a tool that the run called, or a pattern with `*`, such as `mcp__*`.
        model: the name of a model that the run called, or a pattern with `*`.
        purpose: the run's purpose: `live`, `smoke_test` or `eval`.
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
    touched: str | None = None
    project: str | None = None
    tool: str | None = None
    model: str | None = None
    purpose: str | None = None


def contains_text(needle: str, *texts: str | None) -> bool:
    """Return whether one of these texts contains the needle; upper and lower case are equal."""
    needle = needle.lower()
    return any(text is not None and needle in text.lower() for text in texts)


def has_meta(metadata: str | None, meta: Sequence[tuple[str, str]]) -> bool:
    """Return whether a run's metadata, a JSON text, contains all pairs in `meta`.

    Args:
        meta: pairs of a key and a value as text: a JSON string without its quotes, or any other JSON value.
    """
    found = jsontext.value_of(metadata)
    return all(_as_text(found, key) == value for key, value in meta)


def _as_text(value: object, key: str) -> str | None:
    """Return a member of an object as text, None if it is absent. A dotted key is tried as a name, then as a path."""
    if not isinstance(value, dict):
        return None
    if key in value:
        member = value[key]
        return member if isinstance(member, str) else jsontext.encode(member)[0]
    head, dot, rest = key.partition(".")
    return _as_text(value.get(head), rest) if dot else None


T = TypeVar("T", covariant=True)

AHEAD = 4
"""How many partitions are created in advance, for future times."""


@dataclass_transform()
class Question(Generic[T]):
    """A question whose answer is a T.

    Attributes:
        in_journals: whether the answer depends on records that may still be in a journal. A storage with journals
            drains them first.
    """

    if not TYPE_CHECKING:

        def __class_getitem__(cls, answer: object) -> type:
            """Return the class itself: only a type checker reads the type of the answer."""
            return cls

    in_journals: ClassVar[bool] = True
    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        """Take the annotations of the class as its fields, and the values in the class as their defaults."""
        super().__init_subclass__()
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
    """The account row, which identifies the storage. It is created with the storage and never changes."""


class Find(Question[Found]):
    """The rows with these ids, of any type, and the stored idempotency key, in one snapshot.

    If the key is stored, the row of its subject is included. `terminated` has the reason for each terminated run that
    is among the rows, or that has a span among the rows.

    Attributes:
        instance_id: the run to which all these spans belong, or the only run among the ids; None if the caller does not
            know it. A backend that is partitioned by run then reads one partition; others ignore it.
    """

    ids: tuple[str, ...]
    key: Key | None
    instance_id: str | None

    def __init__(self, *ids: str, key: Key | None = None, instance_id: str | None = None) -> None:
        self.ids = ids
        self.key = key
        self.instance_id = instance_id


class Query(Question[Rows]):
    """A page of the rows of one type that match `where`, sorted by a column. To scan all rows, use storage.access.

    Attributes:
        where: column → required value.
        start_time: for spans: the earliest started_at (else inserted_at) that matches, as stored text.
        end_time: for spans: the first started_at (else inserted_at) that no longer matches, as stored text.
        prefix: the beginning of the id.
        order: the column to sort by. Rows with equal values are sorted by id, which is the order of creation.
        offset: how many rows to skip.
        limit: the largest number of rows; None for all.
        after: only rows whose id is greater than this one; with `descending`, less. Requires the order `id`.
        with_total: also return the number of all matching rows, regardless of `after`, `offset` and `limit`. Counting
            reads all of them: 77 ms among a million on PostgreSQL.
        most_bytes: the limit of characters of JSON to read. The row that exceeds it is the last one that is read, and
            the ids of the remaining rows are in `CutRows.rest`. A storage may ignore the limit.
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
        """Check that `after` is used with the order `id` only.

        Raises:
            ValueError: `after` is set, and the order is another column.
        """
        if self.after and self.order != "id":
            raise ValueError("`after` is an id: rows in another order have no place after it")


class SpansOf(Question[Iterator[AgentSpanRow]]):
    """An iterator over all spans of an instance by id, the order of creation; they are never all in memory.

    All spans are from one snapshot, taken when the first span is read. The caller may write while it iterates.
    """

    instance_id: str


class Counts(Question[Mapping[str, SpanCounts]]):
    """The number of spans in each status, for each of these runs. Unknown ids and runs without spans have zeros."""

    instance_ids: Sequence[str]


class Violations(Question[Mapping[str, list[Violation]]]):
    """The violations of the schemas in the payloads of these spans, the oldest first for each span.

    A span without violations, or with an unknown id, has an empty list.

    Attributes:
        instance_id: the run to which all these spans belong, if the caller knows it (see Find).
    """

    span_ids: Sequence[str]
    instance_id: str | None = None


BASIC: frozenset[type[Question[Any]]] = frozenset({Account, Find, Query, SpansOf, Counts, Violations})
"""The questions that every storage answers by itself."""


class Outlines(Question[list[AgentSpanRow]]):
    """Spans of an instance by id, for a list: without most payloads, which a list does not show.

    The payload is `{}` if the span has a summary. The result is None unless the step failed (see schemas.failing). A
    storage that lacks its own answer returns whole spans.

    Attributes:
        after: only spans whose id is greater than this one.
        limit: the largest number of spans; None for all.
        since: only spans whose updated_at is at this time or later, as stored text.
        bare: whether the caller reads no payload and no result. A storage may then return `{}` and None for all.
    """

    instance_id: str
    after: str = ""
    limit: int | None = None
    since: str | None = None
    bare: bool = False


class SpanSums(Question[list[SpanSum]]):
    """The counts and costs of an instance's spans by status, type and label, in any order; empty without spans."""

    instance_id: str


class NewestScores(Question[list[ScoreRow]]):
    """The valid scores (see model.scores.counting) of these runs and their spans, by time and id.

    Scores that were replaced or withdrawn are left out. Several judges, each with an identifier, may each have a score
    of the same name. A caller that needs a single one takes the newest.
    """

    instance_ids: Sequence[str]


class LatestScores(Question[Mapping[str, LatestScore]]):
    """The newest score of a name for each run that has one, by the run's id. Scores of spans are left out.

    Attributes:
        source: only scores from this source; None for all sources.
    """

    name: str
    source: str | None = None


class Tags(Question[Mapping[str, list[str]]]):
    """The tags of each of these runs, in alphabetical order. Unknown runs and runs without tags have an empty list."""

    instance_ids: Sequence[str]


class RunsWhere(Question["RunList"]):
    """A page of the runs that match a filter. Runs that are equal by `sort` are sorted by their ids, the latest first.

    Attributes:
        filter: without the conditions that `analysis.runs` has replaced by ids (see RunFilter).
        limit: the largest number of runs; None for all.
        offset: how many runs to skip.
        progress: called with the amount done and the total amount, while an index is built.
    """

    filter: RunFilter
    limit: int | None = None
    offset: int = 0
    sort: RunSort = "started"
    progress: Progress | None = None


class BriefsWhere(Question["list[RunBrief]"]):
    """All runs that match a filter, the latest first, with only the values that comparisons of runs need."""

    filter: RunFilter
    progress: Progress | None = None


class SpanStats(Question["list[Stat]"]):
    """Statistics of spans by type, and by type and label, in any order.

    Attributes:
        since: the earliest started_at (else inserted_at) of a span that is included, as stored text (see clock).
        until: the first started_at (else inserted_at) that is no longer included, as stored text.
        runs: the ids of the runs whose spans are included; None for all runs.
        progress: called with the amount done and the total amount, while an index is built.
    """

    since: str | None = None
    until: str | None = None
    runs: Collection[str] | None = None
    progress: Progress | None = None


class RunSums(Question["list[RunSum]"]):
    """The sums over the spans of these runs by run, type and label, in any order. Comparisons of many runs use them."""

    runs: Collection[str]
    progress: Progress | None = None


class TimedSums(Question["list[TimedSum]"]):
    """The tokens and costs of these runs' spans by run, type, label and quarter of an hour, in any order.

    Aggregates are left out.
    """

    runs: Collection[str]
    progress: Progress | None = None


class Search(Question["tuple[list[FoundSpan], int]"]):
    """A page of the spans that contain all terms, the latest first; and the total number of such spans.

    Text that an earlier span of the run contains does not count for a later span (see storage.text_search).

    Attributes:
        words: the terms. Each is a sequence of adjacent tokens, separated by blanks; its last token may end in `*`, for
            any ending.
        limit: the largest number of spans.
        offset: how many spans to skip.
        runs: the ids of the runs that are searched; None for all runs.
        progress: called with the amount done and the total amount, while spans are read or an index is built.
    """

    words: Sequence[str]
    limit: int
    offset: int = 0
    runs: Collection[str] | None = None
    progress: Progress | None = None


class SpansWith(Question[list[str]]):
    """The ids of the spans of a run that contain all terms, sorted. Unlike in Search, text that is repeated counts.

    Attributes:
        words: the terms, at least one (see Search).
    """

    instance_id: str
    words: Sequence[str]


class FailureSums(Question["list[FailureSum]"]):
    """The failed spans of these runs, grouped by run and signature, in any order."""

    run_ids: Collection[str]
    progress: Progress | None = None


class StepUses(Question["list[StepUse]"]):
    """The finished spans of these runs, counted by run, type and label, in any order."""

    run_ids: Collection[str]
    progress: Progress | None = None


class Touched(Question[frozenset[str]]):
    """The ids of the runs in which a call of a tool names a file (see schemas.file_paths).

    Every call of a tool is read: 0.1 s for 100,000 of them in a file.

    Attributes:
        path: the path, or the end of it; relative paths are compared from their end, too.
    """

    path: str


class Used(Question[frozenset[str]]):
    """The ids of the runs with a span, of any status, of some types and with some label: that used a tool or a model.

    Attributes:
        types: the built-in types of the spans (see schemas.builtin.built_in_part): `tool`, or `llm` and `embedding`.
        name: the label, or a pattern: `*` is any text. Capitals count.
        progress: called with the amount done and the total amount, while an index is built.
    """

    types: frozenset[str]
    name: str
    progress: Progress | None = None

    def includes(self, schema_name: str, label: str | None) -> bool:
        """Return whether a span with this type and label counts."""
        if not label or built_in_part(schema_name) not in self.types:
            return False
        if "*" not in self.name:
            return label == self.name
        return re.fullmatch(".*".join(map(re.escape, self.name.split("*"))), label, re.DOTALL) is not None


class CachedCalls(Question["list[CachedCall]"]):
    """The calls of models that read from, or wrote to, their provider's cache, in any order. Aggregates are left out.

    Attributes:
        runs: the ids of the runs whose spans are read; None for all runs.
        progress: called with the amount done and the total amount, while an index is built.
    """

    runs: Collection[str] | None = None
    progress: Progress | None = None


class SpanMarks(Question[Mapping[str, frozenset[SpanMark]]]):
    """The number and latest change of the spans in each status, for each of these runs; a reader compares them.

    Unknown runs and runs without spans have an empty set.
    """

    instance_ids: Sequence[str]


class StoredKeys(Question[list[KeyRow]]):
    """A page of the idempotency keys, sorted by operation and key. Only a copy of a whole storage needs them.

    Attributes:
        after: only keys after this pair of operation and key; None to begin with the first.
        limit: the largest number of keys.
        since: only keys that were stored at this time or later, as stored text.
    """

    after: tuple[str, str] | None = None
    limit: int = 500
    since: str = ""


class ChangedSpans(Question["Changed"]):
    """The spans of a run that were committed since a cursor. Some that were committed before may be repeated.

    A time could not replace the cursor: spans are committed later than their times, and clocks of machines differ.

    Attributes:
        cursor: the cursor of an earlier answer; "" for all spans. An invalid cursor, or one of another database, has
            the effect of "".
        after: only spans whose id is greater than this one.
        limit: the largest number of spans; None for all. To read the next page, pass the last id as `after` and the
            same cursor as for the first page.
    """

    instance_id: str
    cursor: str
    after: str = ""
    limit: int | None = None


class Damage(Question[list[str]]):
    """A check of the storage for damage: one sentence per finding, without stored values; empty if undamaged."""


class Select(Question["Answer"]):
    """The rows of a SELECT that a user wrote over the documented tables and views. It can only read.

    Attributes:
        limit_s: the seconds after which the query is ended; None for no limit.
        most_rows: the number of rows after which reading ends; None for all.

    Raises:
        InvalidValue: the text is no valid SQL, would write, or takes longer than `limit_s`.
        StorageError: the storage is damaged.
    """

    query: str
    values: Sequence[Any] = ()
    limit_s: float | None = None
    most_rows: int | None = None


class BackUp(Question[int]):
    """A backup of the whole storage into a new file, while others read and write; the answer is its size in bytes.

    Raises:
        InvalidValue: the path has a file already, or its folder does not exist.
    """

    path: str | os.PathLike[str]


class UsedBytes(Question[int]):
    """The number of used bytes in the storage's file, without its free pages."""

    in_journals: ClassVar[bool] = False


class FileBytes(Question[int]):
    """The size of the storage's file, including its write-ahead log."""

    in_journals: ClassVar[bool] = False


class Notes(Question[Mapping[str, str]]):
    """The notes with these names: texts by which programs that share a storage coordinate. Expired notes are absent.

    Notes belong to no run, and are not exported or copied.
    """

    __slots__ = ("names",)
    in_journals: ClassVar[bool] = False

    def __init__(self, *names: str) -> None:
        self.names = names


class NotesCount(Question[int]):
    """The number of notes whose names begin with a prefix."""

    prefix: str
    in_journals: ClassVar[bool] = False


class Partitions(Question["list[Partition]"]):
    """All partitions by time, the default partition last; an empty list if the tables are not partitioned.

    Each partition has the finished spans of the runs of a range of times. The time in a run's id decides, so that all
    spans of a run are in the same partition. The default partition has the spans of all other times, and is read like
    any other. So partitions may be created late, and only by programs that have the right to change tables.
    """

    in_journals: ClassVar[bool] = False


class TablesState(Question["State"]):
    """The version of the tables, and how many spans each part of the index lacks."""

    in_journals: ClassVar[bool] = False


class MissingPartitions(Question[int]):
    """The number of partitions that MakePartitions would create for the present and the next `ahead` ranges of time."""

    ahead: int = AHEAD
    in_journals: ClassVar[bool] = False


class Task(Question[T]):
    """Work of a storage other than the changes that `apply` commits; the answer is its result."""

    in_journals: ClassVar[bool] = False


class RemoveRuns(Task[tuple[int, int]]):
    """Remove finished runs and all their rows, in one commit; return the numbers of removed runs and spans.

    Runs that are open or contain an open span, and unknown ids, are skipped.

    Raises:
        DatabaseBusy: other writers held the write lock for `wait_s` seconds; nothing is removed.
    """

    ids: Sequence[str]
    wait_s: float


class Mend(Task[tuple[int, int]]):
    """Put agents that are missing, under their id as name, and give spans the agent of their run; return both numbers.

    An older agentspan left such spans where a backup was put in the place of a file that programs recorded into.
    """

    wait_s: float


PUT_AGENTS = (
    "insert into agents (id, name, status, inserted_at, updated_at) "
    "select agent_id, agent_id, 'active', min(inserted_at), max(updated_at) from "
    "(select agent_id, inserted_at, updated_at from agent_instances union all "
    "select agent_id, inserted_at, updated_at from agent_versions union all "
    "select agent_id, inserted_at, updated_at from agent_schema_versions) of_them "
    "where agent_id not in (select id from agents) group by agent_id"
)
"""The SQL that puts the agents of `Mend`."""


class RemoveKeys(Task[int]):
    """Remove the idempotency keys that were stored before a time; return their number. With `dry_run`, only count."""

    before: str
    wait_s: float
    dry_run: bool = False


class PutKeys(Task[int]):
    """Store idempotency keys in one commit; return how many were new. A key that is stored already is not changed.

    Raises:
        DatabaseBusy: other writers held the write lock for `wait_s` seconds; nothing is stored.
    """

    keys: Sequence[KeyRow]
    wait_s: float


class Compact(Task[None]):
    """Return unused space of the storage's file to the operating system. Others can write between its short steps."""

    wait_s: float


class WaitAtMost(Task[None]):
    """Set how many seconds a read, or a reopening, may wait for other processes."""

    wait_s: float


class PutNote(Task[str]):
    """Store a note, and return the text that is stored under its name afterwards. Expired notes are removed.

    Attributes:
        lasts_s: seconds, by the storage's clock, after which the note expires; None for never.
        replace: replace a text that is stored under the name already. If False, the stored text stays and is returned:
            several programs that store at the same moment all get the same text.

    Raises:
        NotPermitted: the storage is read-only.
    """

    name: str
    text: str
    lasts_s: float | None = None
    replace: bool = True


class ForgetNotes(Task[None]):
    """Remove all notes whose names begin with a prefix."""

    prefix: str


class MakePartitions(Task["Made"]):
    """Create the missing partitions: for the present, for future times, and for many spans in the default partition.

    Each partition is created in its own transaction, which moves its spans out of the default partition. The task is
    safe to run at any time, by several programs at once, and again after an interruption.

    Attributes:
        ahead: how many partitions there should be for future times.
        since: also create the partitions for all times since this one, as stored text.
        width: the range of times of a new partition; None for the width of the latest partition.
        wait_s: how many seconds to wait for others that use the default partition.

    Raises:
        DatabaseBusy: others used the default partition for `wait_s` seconds; the partitions created so far stay.
        DatabaseUnusable: the database user may not change the tables.
        NotPermitted: the storage is read-only.
    """

    ahead: int = AHEAD
    since: str | None = None
    width: Width | None = None
    wait_s: float = 5.0


class DropPartitions(Task["Dropped"]):
    """Remove the partitions all of whose runs are old, the oldest first, with all rows of these runs.

    Each partition is removed in one commit; only if it has very many violations, most of them are removed earlier. A
    partition is removed only if its range of times is over, all its runs finished before `before`, nothing in them is
    open, and the programs of runs that were closed on their behalf are dead. The default partition always stays.

    Attributes:
        before: the time before which all runs must have finished, as stored text.
        is_dead: called with the id of a writer whose run was closed on its behalf; returns whether its process is dead.

    Raises:
        DatabaseBusy: others used the partitions for `wait_s` seconds; the partitions removed so far stay removed.
        DatabaseUnusable: the database user may not remove tables.
        NotPermitted: the storage is read-only.
    """

    before: str
    is_dead: Callable[[str], bool]
    wait_s: float
