"""Reading all rows of a type, page by page: each page begins after the last id of the one before, never at an offset.

One page is in memory at a time, and no row is read twice. The pages are no snapshot: a row that is stored meanwhile is
among them if its id comes later, and a row that is removed meanwhile may be missing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeVar, cast

from agentspan.model.rows import TYPE_OF, Row, Value
from agentspan.storage.protocol import Query, Storage

R = TypeVar("R", bound=Row)

PAGE_ROWS = 500
"""How many rows a page has: 50 MB where payloads have 100 kB each."""


def scan(
    storage: Storage,
    row_type: type[R],
    where: Mapping[str, Value] | None = None,
    *,
    after: str = "",
    descending: bool = False,
) -> Iterator[R]:
    """Yield the rows of a type that equal `where`, by id.

    Args:
        where: column → value that it must have; all rows when left out.
        after: the id to begin after.
        descending: the latest first; `after` is then the id to begin before.
    """
    for page in pages(storage, row_type, where, after=after, descending=descending):
        yield from page


def pages(
    storage: Storage,
    row_type: type[R],
    where: Mapping[str, Value] | None = None,
    *,
    after: str = "",
    descending: bool = False,
) -> Iterator[list[R]]:
    """Yield the same rows in pages of PAGE_ROWS, the last one shorter, none empty."""
    query = Query(TYPE_OF[cast(type[Row], row_type)], where or {}, after=after, descending=descending, limit=PAGE_ROWS)
    while rows := storage.page(query).rows:
        yield cast(list[R], rows)
        if len(rows) < PAGE_ROWS:
            return
        query = replace(query, after=rows[-1].id)
