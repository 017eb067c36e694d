"""The types of the answers about rows (see storage.questions). They are plain values without a connection."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agentspan.model.changes import FINISH_STATUSES
from agentspan.model.rows import ResourceType, Row


class StoredKey(NamedTuple):
    """The values of a stored idempotency key: the hash of its request, and the id of the resource it was about."""

    request_hash: str
    subject: str


class Found(NamedTuple):
    """Rows by id, from one snapshot. Unknown ids are absent.

    Attributes:
        key: the stored idempotency key; None if it is not stored.
        terminated: id of a terminated run → the reason of its termination.
    """

    rows: Mapping[str, tuple[ResourceType, Row]]
    key: StoredKey | None = None
    terminated: Mapping[str, str] = {}


class Rows(NamedTuple):
    """A page of a query. `total` is the number of all matching rows; None unless the query has `with_total`."""

    rows: list[Row]
    total: int | None = None

    def counted(self) -> int:
        """Return `total`, for a query with `with_total`."""
        assert self.total is not None
        return self.total


class CutRows(Rows):
    """The first rows of a page that exceeds `Query.most_bytes`.

    Attributes:
        rest: the ids of the page's other rows, which were not read; empty if the page's last row exceeded the limit.
    """

    rest: Sequence[str]


def with_rest(page: Rows, rest: Sequence[str]) -> Rows:
    """Return a page as CutRows, with the ids of its rows that were not read."""
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


def span_counts(by_status: Mapping[str, int]) -> SpanCounts:
    """Return SpanCounts from counts by status. Complete, failed and cancelled spans are finished."""
    finished = sum(by_status.get(status, 0) for status in FINISH_STATUSES)
    return SpanCounts(sum(by_status.values()), finished=finished, **by_status)


class SpanSum(NamedTuple):
    """The count and cost of the spans of a run with the same status, type and label.

    Attributes:
        spans: the number of spans.
        cost_usd: their cost in US dollars, without aggregates; None if no span has a cost.
    """

    status: str
    schema_name: str
    label: str | None
    spans: int
    cost_usd: float | None


class LatestScore(NamedTuple):
    """The value and label of a run's newest score of a name, which comparisons of runs need."""

    value: float | None
    label: str | None


class KeyRow(NamedTuple):
    """A stored idempotency key, with the hash of its request and the id of the resource the request was about."""

    operation: str
    key: str
    request_hash: str
    subject: str
    inserted_at: str


class SpanMark(NamedTuple):
    """The number and the latest change of a run's spans with one status. A reader compares marks to detect changes.

    Attributes:
        spans: the number of spans.
        updated_at: the latest updated_at of these spans.
        ended_late: the number of spans whose `ended_late` is set.
    """

    status: str
    spans: int
    updated_at: str
    ended_late: int
