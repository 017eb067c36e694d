"""The query parameters of lists: sorting, paging, and which names a list takes. Other names are refused by name."""

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Query
from fastapi.dependencies.models import Dependant

from agentspan.errors import InvalidValue

ABSENT: Mapping[str, str] = {
    "team_id": "a file has no teams",
    "owner_person_id": "a file has no people",
    "risk_profile_id": "a file has no risk profiles",
}
"""Filters of the API over what a file does not have, with the reason why each is refused."""

Offset = Annotated[int, Query(alias="pagination[offset]", ge=0, le=2**53)]
PageSize = Annotated[int, Query(alias="pagination[page_size]", ge=1, le=100)]
Sorting = Annotated[str | None, Query()]
SortingField = Annotated[str | None, Query(alias="sorting[field]")]
SortingDirection = Annotated[str | None, Query(alias="sorting[direction]")]


class Paging:
    """The order and the page that a request for a list asks for, in both forms that clients send.

    Raises:
        InvalidValue: the order is given in both forms, or a direction without a field.
    """

    def __init__(
        self, sorting: str | None, sorting_field: str | None, sorting_direction: str | None, offset: int, page_size: int
    ) -> None:
        in_parts = sorting_field is not None or sorting_direction is not None
        if sorting is not None and in_parts:
            raise InvalidValue("sorting", "give either sorting, or sorting[field] and sorting[direction]")
        self._sorting = {"field": sorting_field, "direction": sorting_direction} if in_parts else sorting
        self._page = {"offset": offset, "page_size": page_size}

    def fields(self, **filters: Any) -> dict[str, Any]:
        """Return the fields of a list operation: these, and the filters that are given."""
        given = {name: value for name, value in filters.items() if value is not None}
        return {**given, "sorting": self._sorting, "pagination": self._page}


async def paging(
    sorting: Sorting = None,
    sorting_field: SortingField = None,
    sorting_direction: SortingDirection = None,
    offset: Offset = 0,
    page_size: PageSize = 50,
) -> Paging:
    """Return the order and the page of a request. A coroutine: FastAPI calls others in a thread, for 0.4 ms."""
    return Paging(sorting, sorting_field, sorting_direction, offset, page_size)


def names_of(dependant: Dependant) -> frozenset[str]:
    """Return the names of a route's query parameters."""
    names = {parameter.alias for parameter in dependant.query_params}
    return frozenset(names.union(*(names_of(inner) for inner in dependant.dependencies)))


def check(query_string: bytes, known: frozenset[str]) -> None:
    """Check the names in a query string.

    Raises:
        InvalidValue: a name is not known, or there twice.
    """
    seen: set[str] = set()
    for name, _ in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            shown = name if name.isprintable() and len(name) <= 40 else f"{name[:40]!r}"
            why = ABSENT.get(name, f"this operation has no such parameter; it has {', '.join(sorted(known))}")
            raise InvalidValue(shown, why)
        if name in seen:
            raise InvalidValue(name, "is given twice")
        seen.add(name)
