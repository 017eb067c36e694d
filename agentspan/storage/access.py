"""Access to any storage: one row by its id or its unique columns, all rows of a type, its identity, and views of it.

All rows of a type are read page by page. Each page begins after the last id of the previous page, never at an offset.
One page is in memory at a time, and no row is read twice. The pages are no snapshot: a row that is stored during the
scan is included if its id comes later, and a row that is removed during the scan may be missing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Generic, TypeVar, cast

from agentspan.errors import InvalidValue, NotFound, UnexpectedRefType
from agentspan.model.changes import Outcome, Unit
from agentspan.model.registration import References
from agentspan.model.rows import (
    ROWS,
    TYPE_OF,
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentSpanRow,
    AgentVersionRow,
    ResourceType,
    Row,
    Value,
)
from agentspan.storage.answers import CutRows, Found
from agentspan.storage.protocol import Capabilities, Storage
from agentspan.storage.questions import Account, Find, Outlines, Query, Question

T = TypeVar("T")
R = TypeVar("R", bound=Row)


def unique(storage: Storage, row_type: type[R], **where: Value) -> R | None:
    """Return the row whose unique columns have these values; None if there is no such row."""
    rows = storage.ask(Query(TYPE_OF[cast(Any, row_type)], cast(Any, where), limit=1)).rows
    return rows[0] if rows and isinstance(rows[0], row_type) else None


def references(storage: Storage, agent: AgentRow | None, version: str, content_hash: str) -> References:
    """Return the stored rows that the registration of a run needs: the agent, its version and its schema version.

    Args:
        agent: the run's agent; None for a new agent.
        version: the external_identifier of the run's agent version.
        content_hash: the hash of the run's schema version.
    """
    if agent is None:
        return References(None, None, None)
    return References(
        agent,
        unique(storage, AgentVersionRow, agent_id=agent.id, external_identifier=version),
        unique(storage, AgentSchemaVersionRow, agent_id=agent.id, content_hash=content_hash),
    )


def check_unused(found: Found, id: str | None) -> None:
    """Check that an id that a client chose is unused. None, for no such id, always passes.

    Raises:
        InvalidValue: a row has the id already.
    """
    if id is not None and id in found.rows:
        raise InvalidValue("id", f"{id} is used already; leave it out to get a new one")


_NOUNS: dict[type, str] = {row: type_.replace("_", " ") for type_, row in ROWS.items()}


def expect(found: Found, row_type: type[R], id: object) -> R:
    """Return the row with an id from `found`, and check its type.

    Raises:
        NotFound: no row has this id.
        UnexpectedRefType: the row has another type.
    """
    noun = _NOUNS[row_type]
    located: tuple[ResourceType, Row] | None = found.rows.get(id) if isinstance(id, str) else None
    if located is None:
        raise NotFound(f"no {noun} has the id {_shown(id)}")
    row = located[1]
    if not isinstance(row, row_type):
        raise UnexpectedRefType(f"{_shown(id)} is the id of an {located[0].replace('_', ' ')}, not of an {noun}")
    return row


def instance(storage: Storage, id: str) -> AgentInstanceRow:
    """Return the run with an id.

    Raises:
        NotFound: no row has this id.
        UnexpectedRefType: the row has another type.
    """
    return expect(storage.ask(Find(id, instance_id=id)), AgentInstanceRow, id)


def instances(storage: Storage, ids: Iterable[str]) -> Iterator[AgentInstanceRow]:
    """Yield the runs with these ids. Runs that are not there are left out: `prune` may remove one meanwhile."""
    for id in ids:
        _, row = storage.ask(Find(id, instance_id=id)).rows.get(id, (None, None))
        if isinstance(row, AgentInstanceRow):
            yield row


def _shown(id: object) -> str:
    return repr(id[:40]) if isinstance(id, str) else f"(a value of type {type(id).__name__})"


FEW_ROWS = 20
"""The smallest number of spans in a page. It is small because a client may read slowly, and a span may have 10 MB."""
PAGE_BYTES = 2 * 2**20
"""The bytes of payloads that a page of spans should have. The number of rows is estimated from the previous page."""


def scan(
    storage: Storage,
    row_type: type[R],
    where: Mapping[str, Value] | None = None,
    *,
    after: str = "",
    descending: bool = False,
    limit: int | None = None,
) -> Iterator[R]:
    """Yield the rows of a type that match `where`, in the order of their ids.

    Args:
        where: column → required value; None matches all rows.
        after: yield only rows whose id is greater; with `descending`, less.
        descending: yield the latest rows first.
        limit: the largest number of rows; None for all.
    """
    for page in pages(storage, row_type, where, after=after, descending=descending, limit=limit):
        yield from page


def pages(
    storage: Storage,
    row_type: type[R],
    where: Mapping[str, Value] | None = None,
    *,
    after: str = "",
    descending: bool = False,
    limit: int | None = None,
) -> Iterator[list[R]]:
    """Yield the rows of a type that match `where` in pages of at most `page_rows` of the storage. No page is empty."""
    most = storage.capabilities().page_rows
    query = Query(TYPE_OF[cast(type[Row], row_type)], where or {}, after=after, descending=descending)
    left = limit
    while left is None or left > 0:
        wanted = most if left is None else min(left, most)
        rows = storage.ask(query.changed(limit=wanted)).rows
        if rows:
            yield cast(list[R], rows)
        if len(rows) < wanted:
            return
        query = query.changed(after=rows[-1].id)
        left = None if left is None else left - len(rows)


def count(storage: Storage, type_: ResourceType, where: Mapping[str, Value] | None = None) -> int:
    """Return how many rows of a type match `where`, without reading the rows."""
    return storage.ask(Query(type_, where or {}, limit=0, with_total=True)).counted()


def outlines_of(
    storage: Storage, instance_id: str, *, since: str | None = None, bare: bool = False
) -> Iterator[AgentSpanRow]:
    """Yield the outlines of a run's spans by id (see questions.Outlines), read in pages: payloads can be large."""
    asked = Outlines(instance_id, "", None, since, bare)
    can = storage.capabilities()
    if Outlines not in can.answers:  # each page would read all spans
        yield from storage.ask(asked)
        return
    wanted = FEW_ROWS
    while True:
        rows = storage.ask(asked.changed(limit=wanted))
        yield from rows
        if len(rows) < wanted:
            return
        asked, wanted = asked.changed(after=rows[-1].id), _next_rows(rows, can.page_rows)


def _next_rows(rows: Sequence[AgentSpanRow], most_rows: int) -> int:
    """Return how many rows fit in PAGE_BYTES, if they are as large on average as `rows`."""
    size = sum(len(row.payload) + len(row.result_payload or "") for row in rows) // len(rows)
    return max(FEW_ROWS, min(most_rows, PAGE_BYTES // max(size, 1)))


def whole_spans_of(storage: Storage, instance_id: str) -> Iterator[list[AgentSpanRow]]:
    """Yield the spans of a run by id, in pages that end with the span that exceeds PAGE_BYTES. No page is empty.

    No read transaction is open while the caller works on a page.
    """
    most = storage.capabilities().page_rows
    query = Query("agent_span", {"agent_instance_id": instance_id}, limit=FEW_ROWS, most_bytes=PAGE_BYTES)
    while True:
        page = storage.ask(query)
        rows = cast(list[AgentSpanRow], page.rows)
        is_last = not isinstance(page, CutRows) and len(rows) < (query.limit or 0)
        if not rows:
            return
        query = query.changed(after=rows[-1].id, limit=_next_rows(rows, most))
        yield rows
        if is_last:
            return


def each_span_of(storage: Storage, instance_id: str) -> Iterator[AgentSpanRow]:
    """Yield the spans of a run one by one, by id. A yielded span is freed as soon as the caller drops it."""
    for page in whole_spans_of(storage, instance_id):
        page.reverse()
        while page:
            yield page.pop()


Identity = tuple[int, str]
"""Of a file, how many files this process has seen at its path, and ""; of another storage, 0 and its account's id."""


class Identities:
    """Returns the identity of the storage at a location, so that a caller detects that it was replaced.

    Another file at the same path is another storage, even if it is a backup of the first.
    """

    _account = ""

    def known(self, storage: Storage) -> Identity:
        """Return the identity of the storage. A server is queried once; later calls return the cached identity.

        Raises:
            StorageError: the storage cannot be read.
        """
        if self._account:
            return 0, self._account
        identity = identity_of(storage)
        self._account = identity[1]
        return identity


def identity_of(storage: Storage) -> Identity:
    """Return the current identity of a storage. A server is queried at each call.

    Raises:
        StorageError: the storage cannot be read.
    """
    journals = storage.capabilities().journals
    return (0, storage.ask(Account()).id) if journals is None else (journals.files, "")


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
        journals: what `look` drains; while it is empty, questions do not call `look`. None if that is not known.
    """

    def __init__(self, direct: S, look: Look, journals: Sized | None = None) -> None:
        super().__init__(direct)
        self._look, self._journals = look, journals

    def ask(self, question: Question[T]) -> T:
        """Drain the journals if the answer may depend on them, then pass the question on."""
        if question.in_journals and (self._journals is None or self._journals):
            self._look()
        return self.direct.ask(question)

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Drain the journals, then pass the work on."""
        self._look()
        return self.direct.group(work, wait_s)
