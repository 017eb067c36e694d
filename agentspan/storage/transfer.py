"""The capability of a storage that can be copied whole: what a copy reads and writes beside rows (see protocol)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from agentspan.model.rows import AgentSpanRow


class KeyRow(NamedTuple):
    """An idempotency key as it is stored, with the hash of its request and the id that the request was about."""

    operation: str
    key: str
    request_hash: str
    subject: str
    inserted_at: str


class SpanMark(NamedTuple):
    """The spans of a run that have one status.

    Attributes:
        spans: how many there are.
        updated_at: the latest of theirs.
        ended_late: how many have it set.
    """

    status: str
    spans: int
    updated_at: str
    ended_late: int


class Transfer(Protocol):
    """Reads and writes what only a copy of a whole storage needs."""

    def span_marks(self, instance_ids: Sequence[str]) -> Mapping[str, frozenset[SpanMark]]:
        """Return the marks of the spans of each of these runs; none for a run without spans, or an unknown one."""
        ...

    def keys(self, *, after: tuple[str, str] | None = None, limit: int = 500, since: str = "") -> list[KeyRow]:
        """Return idempotency keys in the order of (operation, key).

        Args:
            after: only keys after this one, an operation and a key; None for all.
            limit: how many at most.
            since: only keys that were stored at this time or later, as stored text.
        """
        ...

    def put_keys(self, keys: Sequence[KeyRow], wait_s: float) -> int:
        """Store keys as they are, in one commit; return how many are new. A key that is stored already stays as it is.

        Raises:
            DatabaseBusy: other writers did not let go within `wait_s` seconds; nothing is stored.
        """
        ...


def marks_of(spans: Iterable[AgentSpanRow]) -> frozenset[SpanMark]:
    """Return the marks of the spans of a run."""
    found: dict[str, SpanMark] = {}
    for span in spans:
        _, number, latest, late = found.get(span.status, ("", 0, "", 0))
        late += span.ended_late is not None
        found[span.status] = SpanMark(span.status, number + 1, max(latest, span.updated_at), late)
    return frozenset(found.values())
