"""Reads all rows of a type, page by page. Each page begins after the last id of the one before, never at an offset.

One page is in memory at a time, and no row is read twice. The pages are no snapshot: a row that is stored meanwhile is
among them if its id comes later, and a row that is removed meanwhile may be missing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar, cast

from agentspan.model.rows import TYPE_OF, ResourceType, Row, Value
from agentspan.storage.protocol import Query, Storage

R = TypeVar("R", bound=Row)

PAGE_ROWS = 500
"""Rows in a page: 50 MB if payloads have 100 kB each."""
FEW_ROWS = 20
"""Rows in a page of spans that are sent to a client, who may take long to read them, or have many of 1 MB."""


def scan(
    storage: Storage,
    row_type: type[R],
    where: Mapping[str, Value] | None = None,
    *,
    after: str = "",
    descending: bool = False,
    limit: int | None = None,
    page_rows: int = PAGE_ROWS,
) -> Iterator[R]:
    """Yield the rows of a type that equal `where`, by id.

    Args:
        where: column → value that it must have; all rows when left out.
        after: the id to begin after.
        descending: the latest first; `after` is then the id to begin before.
        limit: how many rows at most; None for all.
        page_rows: how many are read at once.
    """
    for page in pages(storage, row_type, where, after=after, descending=descending, limit=limit, page_rows=page_rows):
        yield from page


def pages(
    storage: Storage,
    row_type: type[R],
    where: Mapping[str, Value] | None = None,
    *,
    after: str = "",
    descending: bool = False,
    limit: int | None = None,
    page_rows: int = PAGE_ROWS,
) -> Iterator[list[R]]:
    """Yield the same rows in pages of at most `page_rows`, none of them empty."""
    query = Query(TYPE_OF[cast(type[Row], row_type)], where or {}, after=after, descending=descending)
    left = limit
    while left is None or left > 0:
        wanted = page_rows if left is None else min(left, page_rows)
        rows = storage.page(replace(query, limit=wanted)).rows
        if rows:
            yield cast(list[R], rows)
        if len(rows) < wanted:
            return
        query = replace(query, after=rows[-1].id)
        left = None if left is None else left - len(rows)


def count(storage: Storage, type_: ResourceType, where: Mapping[str, Value] | None = None) -> int:
    """Return how many rows of a type equal `where`, without reading them."""
    return storage.page(Query(type_, where or {}, limit=0, with_total=True)).counted()
