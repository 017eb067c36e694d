"""A storage that is no file, with journals on this host in front of it. Its reads drain and recover them first."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, cast

from agentspan.model.changes import Key, Outcome, Unit, Violation
from agentspan.model.rows import AccountRow, AgentSpanRow
from agentspan.storage.location import Location
from agentspan.storage.protocol import Capabilities, Found, Query, Rows, SpanCounts, Storage

Look = Callable[[], None]
READING = ("groups", "outlines", "analytics", "check", "backup", "sql", "sums", "scores", "transfer", "changes")
"""The capabilities that read what journals may hold."""


class Spooled:
    """Reads call `look` first; the rest is passed on.

    Args:
        direct: the plain storage.
        location: opens it, in any process.
        folder: of the journals.
        look: drains and recovers them.
    """

    def __init__(self, direct: Storage, location: Location, folder: Path, look: Look) -> None:
        self.direct = direct
        self.location = location
        self.folder = folder
        self._look = look

    def seeing(self, look: Look) -> "Spooled":
        """Return the same with another `look`."""
        return Spooled(self.direct, self.location, self.folder, look)

    def capabilities(self) -> Capabilities:
        """See Storage."""
        can = self.direct.capabilities()
        reading: dict[str, Any] = {name: getattr(can, name) for name in READING}
        looking = {name: None if each is None else _Looking(each, self._look) for name, each in reading.items()}
        return can._replace(**cast(Any, looking), spool=self)

    def account(self) -> AccountRow:
        """See Storage."""
        return self.direct.account()

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """See Storage."""
        return self.direct.apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)

    def find(self, *ids: str, key: Key | None = None, instance_id: str | None = None) -> Found:
        """See Storage."""
        self._look()
        return self.direct.find(*ids, key=key, instance_id=instance_id)

    def page(self, query: Query) -> Rows:
        """See Storage."""
        self._look()
        return self.direct.page(query)

    def iter_spans(self, instance_id: str) -> Iterator[AgentSpanRow]:
        """See Storage."""
        self._look()
        return self.direct.iter_spans(instance_id)

    def counts(self, instance_ids: Sequence[str]) -> Mapping[str, SpanCounts]:
        """See Storage."""
        self._look()
        return self.direct.counts(instance_ids)

    def violations(self, span_ids: Sequence[str], *, instance_id: str | None = None) -> Mapping[str, list[Violation]]:
        """See Storage."""
        self._look()
        return self.direct.violations(span_ids, instance_id=instance_id)

    def close(self) -> None:
        """See Storage."""
        self.direct.close()


class _Looking:
    """A capability whose methods call `look` first."""

    def __init__(self, capability: Any, look: Look) -> None:
        self._capability = capability
        self._look = look

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._capability, name)
        if not callable(found):
            return found

        @wraps(found)
        def looking(*args: Any, **kwargs: Any) -> Any:
            self._look()
            return found(*args, **kwargs)

        return looking
