"""Reads all rows of a type, page by page. Each page begins after the last id of the one before, never at an offset.

One page is in memory at a time, and no row is read twice. The pages are no snapshot: a row that is stored meanwhile is
among them if its id comes later, and a row that is removed meanwhile may be missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

from agentspan.model.rows import TYPE_OF, AgentSpanRow, ResourceType, Row, Value
from agentspan.storage.answers import CutRows
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Query

R = TypeVar("R", bound=Row)

FEW_ROWS = 20
"""Spans in a page at least, where a client reads them: it may take long, and a span may have 10 MB."""
PAGE_BYTES = 2 * 2**20
"""Bytes of payloads in such a page, if the next ones are like the last ones."""


def scan(
    storage: Storage,
    row_type: type[R],
    where: Mapping[str, Value] | None = None,
    *,
    after: str = "",
    descending: bool = False,
    limit: int | None = None,
) -> Iterator[R]:
    """Yield the rows of a type that equal `where`, by id.

    Args:
        where: column → value that it must have; all rows when left out.
        after: the id to begin after.
        descending: the latest first; `after` is then the id to begin before.
        limit: how many rows at most; None for all.
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
    """Yield the same rows in pages, none of them empty, of as many rows as the storage asks for at most."""
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
    """Return how many rows of a type equal `where`, without reading them."""
    return storage.ask(Query(type_, where or {}, limit=0, with_total=True)).counted()


def span_pages(read: Callable[[str, int], Sequence[AgentSpanRow]], most_rows: int) -> Iterator[Sequence[AgentSpanRow]]:
    """Yield the spans of a run by id, in pages of few bytes, none of them empty.

    Args:
        read: returns the spans after an id, at most so many.
        most_rows: the `page_rows` of their storage.
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
    """Return how many rows have PAGE_BYTES, if they are like these."""
    size = sum(len(row.payload) + len(row.result_payload or "") for row in rows) // len(rows)
    return max(FEW_ROWS, min(most_rows, PAGE_BYTES // max(size, 1)))


def whole_spans_of(storage: Storage, instance_id: str) -> Iterator[list[AgentSpanRow]]:
    """Yield whole spans of a run by id, in pages that end with the span that passes PAGE_BYTES; none is empty.

    No read transaction lasts as long as the caller takes.
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
    """Yield the same spans one by one. A span is in memory only as long as the caller keeps it."""
    for page in whole_spans_of(storage, instance_id):
        page.reverse()
        while page:
            yield page.pop()
