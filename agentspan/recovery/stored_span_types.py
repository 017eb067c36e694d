"""Finds the span types that a stored run was registered with, and caches them."""

from typing import TypeVar

from agentspan.errors import NotFound
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow
from agentspan.schemas.span_types import Registry, from_schemas
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find
from agentspan.tuning import STANDARD

V = TypeVar("V")


class StoredSpanTypes:
    """The span types of stored runs, cached: a run's schema version and its content never change.

    Args:
        most: runs, and schema versions, that are cached.
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
            assert isinstance(version, AgentSchemaVersionRow)  # a foreign key says so
            registry = _keep(self._registries, version_id, from_schemas(version.span_type_schemas), self._most)
        return registry

    def keep(self, instance: AgentInstanceRow) -> AgentInstanceRow:
        """Add a run to the cache, and return it."""
        return _keep(self._instances, instance.id, instance, self._most)

    def kept(self, instance_id: str) -> AgentInstanceRow | None:
        """Return a cached run, or None. Its unchanging columns are correct unless the file was replaced."""
        return self._instances.get(instance_id)


def _keep(cache: dict[str, V], key: str, value: V, most: int) -> V:
    if len(cache) >= most:
        for oldest in cache:  # no call in between, as with next(iter(cache)): another thread may add a key
            cache.pop(oldest, None)
            break
    cache[key] = value
    return value
