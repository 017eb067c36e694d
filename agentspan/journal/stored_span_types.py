"""Finds the span types that a stored run was registered with, and makes the changes that close its open spans."""

from typing import Any, TypeVar

from agentspan import jsontext
from agentspan.errors import NotFound
from agentspan.model import columns, spans
from agentspan.model.changes import OPEN, Move
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow, AgentSpanRow
from agentspan.schemas.span_types import Registry, describe, from_schemas
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf
from agentspan.tuning import STANDARD

V = TypeVar("V")


class StoredSpanTypes:
    """The span types of stored runs, cached: a run's schema version and its content never change.

    Args:
        most: the number of runs, and of schema versions, that are cached.
    """

    def __init__(self, most: int = STANDARD.cached_runs) -> None:
        self._most = most
        self._instances: dict[str, AgentInstanceRow] = {}
        self._registries: dict[str, Registry] = {}

    def of(self, storage: Storage, instance_id: str) -> Registry:
        """Return the span types of a run.

        Raises:
            NotFound: the storage has no such run.
        """
        instance = self._instances.get(instance_id)
        if instance is None:
            found = storage.ask(Find(instance_id, instance_id=instance_id)).rows.get(instance_id)
            if found is None or not isinstance(found[1], AgentInstanceRow):
                raise NotFound(f"no agent instance has the id {instance_id!r}")
            instance = self.keep(found[1])
        version_id = instance.agent_schema_version_id
        registry = self._registries.get(version_id)
        if registry is None:
            version = storage.ask(Find(version_id)).rows[version_id][1]
            assert isinstance(version, AgentSchemaVersionRow)  # guaranteed by a foreign key
            registry = _keep(self._registries, version_id, from_schemas(version.span_type_schemas), self._most)
        return registry

    def keep(self, instance: AgentInstanceRow) -> AgentInstanceRow:
        """Add a run to the cache, and return it."""
        return _keep(self._instances, instance.id, instance, self._most)

    def kept(self, instance_id: str) -> AgentInstanceRow | None:
        """Return a cached run, or None. Its columns that never change are correct unless the file was replaced."""
        return self._instances.get(instance_id)


def _keep(cache: dict[str, V], key: str, value: V, most: int) -> V:
    if len(cache) >= most:
        for oldest in cache:  # no call in between, as with next(iter(cache)): another thread may add a key
            cache.pop(oldest, None)
            break
    cache[key] = value
    return value


class Closer:
    """Makes the changes that close open spans; the caller commits them."""

    def __init__(self, storage: Storage, stored_span_types: StoredSpanTypes) -> None:
        self._storage = storage
        self._stored_span_types = stored_span_types

    def close(self, span: AgentSpanRow, by: str, error: dict[str, str], at: str, now: str) -> Move:
        """Return the move that closes an open span, with `error` in its result (see spans.closed)."""
        result: dict[str, Any] = {"error": error}
        status = "failed" if span.status == "active" else "cancelled"
        span_type = self._stored_span_types.of(self._storage, span.agent_instance_id).resolve(span.schema_name)
        payload = columns.read_payload(span.payload)[0]
        meaning = describe(span_type, span.schema_name, status, payload, result, None, (False, False))
        if span_type.lacks_liquid:  # another program rendered it, with python-liquid
            meaning = meaning._replace(summary=span.summary)
        return spans.closed(span, by, result_payload=jsontext.encode(result)[0], meaning=meaning, at=at, now=now)

    def close_terminated(self, instance_id: str, reason: str, now: str) -> list[Move]:
        """Return the moves that close all open spans of a run that is terminated for this reason."""
        error = {"type": "Terminated", "message": reason}
        found = self._storage.ask(SpansOf(instance_id))
        return [self.close(span, "terminated", error, now, now) for span in found if span.status in OPEN]
