"""Reads all rows of a type, page by page. Each page begins after the last id of the previous page, never at an offset.

One page is in memory at a time, and no row is read twice. The pages are no snapshot: a row that is stored during the
scan is included if its id comes later, and a row that is removed during the scan may be missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

from agentspan.model.rows import TYPE_OF, AgentSpanRow, ResourceType, Row, Value
from agentspan.storage.answers import CutRows
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Query

R = TypeVar("R", bound=Row)

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


def span_pages(read: Callable[[str, int], Sequence[AgentSpanRow]], most_rows: int) -> Iterator[Sequence[AgentSpanRow]]:
    """Yield the spans of a run by id, in pages of about PAGE_BYTES. No page is empty.

    Args:
        read: called with an id and a number; returns at most that number of spans whose ids come after it.
        most_rows: the `page_rows` of the storage.
    """
    after, wanted = "", FEW_ROWS
    while True:
        rows = read(after, wanted)
        if rows:
            yield rows
        if len(rows) < wanted:
            return
        after, wanted = rows[-1].id, _next_rows(rows, most_rows)


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
