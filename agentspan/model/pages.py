"""Pages of lists of the API's resources, and where each lies in its whole list."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from pydantic import BaseModel, ConfigDict

T = TypeVar("T")


class Pagination(BaseModel):
    """The position of a page in the whole list.

    Attributes:
        item_count: items in the whole list.
        item_start: the first item of this page, counted from one; 0 if the page has none.
        item_end: the last item of this page, counted from one; 0 if the page has none.
        page_count: pages in all.
        page_index: this page, counted from one; more than `page_count` beyond the end.
        page_offset: items before this page.
        page_size: items of a page.
        next_page_offset: the offset of the next page, or null.
        previous_page_offset: the offset of the page before, or null. Beyond the end, that of the last page.
    """

    model_config = ConfigDict(frozen=True)

    item_count: int
    item_start: int
    item_end: int
    page_count: int
    page_index: int
    page_offset: int
    page_size: int
    next_page_offset: int | None
    previous_page_offset: int | None


@dataclass(frozen=True, slots=True)
class Page(Sequence[T], Generic[T]):
    """A page of a list: a sequence of its items, with where it lies in the whole.

    Attributes:
        summaries: the items, as the API calls them.
        pagination: how many there are in all, and where the neighbouring pages begin.
    """

    summaries: list[T]
    pagination: Pagination

    def __len__(self) -> int:
        return len(self.summaries)

    def __iter__(self) -> Iterator[T]:
        return iter(self.summaries)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self.summaries[index]


def pagination(total: int, offset: int, page_size: int) -> Pagination:
    """Describe the page of `page_size` items that begins at `offset`."""
    end = min(offset + page_size, total) if offset < total else 0
    previous = max(offset - page_size, 0) if offset <= total else (max(total - 1, 0) // page_size) * page_size
    return Pagination(
        item_count=total,
        item_start=offset + 1 if end else 0,
        item_end=end,
        page_count=-(-total // page_size),
        page_index=offset // page_size + 1,
        page_offset=offset,
        page_size=page_size,
        next_page_offset=offset + page_size if offset + page_size < total else None,
        previous_page_offset=previous if offset > 0 else None,
    )
