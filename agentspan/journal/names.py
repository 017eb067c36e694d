"""Resolves the agent, the version and the schema version of a run when its registration is committed.

A recorder registers a run without reading the storage. So its unit puts rows that another program may have stored
already, under other ids. Of a stored run, finds the span types that it was registered with, and closes its open spans.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from agentspan import jsontext
from agentspan.errors import NotFound
from agentspan.model import columns, instances, spans
from agentspan.model.changes import OPEN, Change, Move, Put, PutSpans, Unit, unit_of
from agentspan.model.registration import fields_of
from agentspan.model.rows import (
    TYPE_OF,
    UNIQUE,
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentSpanRow,
    AgentVersionRow,
    Row,
    Value,
)
from agentspan.model.rows import with_agents as rows_with_agents
from agentspan.schemas.span_types import Registry, describe, from_schemas
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, Query, SpansOf
from agentspan.tuning import STANDARD

MAX_KNOWN = 1000
_LINKS = frozenset({"agent_id", "agent_version_id", "agent_schema_version_id"})
_NAMED = (AgentRow, AgentVersionRow, AgentSchemaVersionRow)


def names_rows(unit: Unit) -> bool:
    """Return whether a unit registers or renames a run: it puts an agent that may be stored under another id."""
    if len(unit.changes) < 2:
        return False
    change = unit.changes[0]
    return isinstance(change, Put) and isinstance(change.row, _NAMED)


def instance_in(unit: Unit) -> AgentInstanceRow | None:
    """Return the run that a unit registers; None if it registers none."""
    for change in unit.changes:
        if isinstance(change, Put) and isinstance(change.row, AgentInstanceRow):
            return change.row
    return None


def run_of(unit: Unit) -> str | None:
    """Return the id of the run that the last change of a unit needs in the storage; None if it needs no run."""
    change = unit.changes[-1]
    if isinstance(change, Move):
        return change.id if change.type == "agent_instance" else None
    return getattr(change.row, "agent_instance_id", None) if isinstance(change, Put) else None


class Names:
    """A cache of the agents, versions and schema versions of one storage, by their names.

    Args:
        new_id: mints an id for a version whose own id another version has: a schema version that lost its content.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._known: dict[tuple[Any, ...], Row] = {}
        self._contents: dict[str, AgentSchemaVersionRow] = {}

    def forget(self) -> None:
        """Empty the cache after a unit was not applied, because it may hold rows that were not stored."""
        self._known.clear()

    def resolved(self, storage: Storage, unit: Unit) -> Unit:
        """Return a registration with the ids of stored rows in place of Puts of them. The id of the run never changes.

        Apply the returned unit before the units that are resolved later, or in one commit with them in this order.
        """
        ids_now: dict[str, str] = {}
        changes: list[Change] = []
        for change in unit.changes:
            if isinstance(change, Move):
                changes.append(change._replace(set=_linked(change.set, ids_now)))
            elif not isinstance(change, Put):
                changes.append(change)
            else:
                row = cast(Any, change.row)._replace(**_links(change.row._asdict(), ids_now))
                if isinstance(row, AgentVersionRow | AgentSchemaVersionRow) and "" in ids_now:
                    # Two threads that begin their first runs at the same moment may mint two ids for one agent.
                    row = row._replace(agent_id=ids_now[""])
                if isinstance(row, AgentSchemaVersionRow):
                    row = self._whole(storage, row)
                named, is_stored = self._named(storage, row) if isinstance(row, _NAMED) else (row, False)
                ids_now[row.id] = named.id
                if isinstance(named, AgentRow):
                    ids_now[""] = named.id  # a run that is registered without reading has "" as its agent_id
                if not is_stored:
                    changes.append(change._replace(row=named))
                elif isinstance(named, AgentRow):
                    changes.extend(instances.activate(named, row.updated_at))
        return Unit(tuple(changes), unit.subject, unit.key)

    def _named(self, storage: Storage, row: Any) -> tuple[Row, bool]:
        """Return the stored row with the name of this row, else the row to put; and whether it is stored.

        The row is cached as stored.
        """
        type_ = TYPE_OF[type(row)]
        where = {column: cast(Value, getattr(row, column)) for column in UNIQUE[type_]}
        key = (type_, *where.values())
        stored = self._known.get(key)
        if stored is None and None not in where.values():
            stored = next(iter(storage.ask(Query(type_, where, limit=1)).rows), None)
        if stored is None and (located := storage.ask(Find(row.id)).rows.get(row.id)) is not None:
            if isinstance(row, AgentRow):  # it was renamed by id
                stored = located[1]
            else:
                row = row._replace(id=self._new_id())
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        kept = row if stored is None else stored
        self._known[key] = kept._replace(status="active") if isinstance(kept, AgentRow) else kept
        return kept, stored is not None

    def _whole(self, storage: Storage, row: AgentSchemaVersionRow) -> AgentSchemaVersionRow:
        """Return a schema version with its content; a version without span types if the content is lost.

        The content is lost if the record that had it was damaged, or the file of that record was deleted.
        """
        if row.span_type_schemas:
            if len(self._contents) >= MAX_KNOWN:
                self._contents.clear()
            self._contents[row.content_hash] = row
            return row
        known = self._contents.get(row.content_hash)
        if known is not None:
            return row._replace(span_type_schemas=known.span_type_schemas, quality_schemas=known.quality_schemas)
        where: dict[str, Value] = {"agent_id": row.agent_id, "content_hash": row.content_hash}
        if ("agent_schema_version", *where.values()) in self._known or _schema(storage, where) is not None:
            return row
        # Another agent may have the content: the segment with it is drained, and this record began the next segment.
        other = _schema(storage, {"content_hash": row.content_hash})
        if isinstance(other, AgentSchemaVersionRow):
            return row._replace(span_type_schemas=other.span_type_schemas, quality_schemas=other.quality_schemas)
        empty = fields_of(())
        return row._replace(**empty._asdict())


def _schema(storage: Storage, where: Mapping[str, Value]) -> Row | None:
    """Return the first stored schema version with these values, or None."""
    return next(iter(storage.ask(Query("agent_schema_version", where, limit=1)).rows), None)


def without_name(unit: Unit) -> Unit:
    """Return a registration without the name of its run, because another run of the agent has this name."""
    changes = [
        change._replace(row=change.row._replace(external_identifier=None))
        if isinstance(change, Put) and isinstance(change.row, AgentInstanceRow)
        else change
        for change in unit.changes
    ]
    return unit._replace(changes=tuple(changes))


def spans_of(unit: Unit) -> Sequence[AgentSpanRow]:
    """Return the new spans of a unit."""
    change = unit.changes[0] if unit.changes else None
    if isinstance(change, PutSpans):
        return change.rows
    return (change.row,) if isinstance(change, Put) and isinstance(change.row, AgentSpanRow) else ()


def with_agents(unit: Unit, agents: Mapping[str, str]) -> Unit:
    """Return a unit whose spans have the stored agent of their run.

    Args:
        agents: the ids of agents, by the id of the run.
    """
    change = unit.changes[0] if unit.changes else None
    if isinstance(change, PutSpans):
        return unit_of(change._replace(rows=rows_with_agents(change.rows, agents)))
    if isinstance(change, Put) and isinstance(change.row, AgentSpanRow):
        return unit_of(change._replace(row=rows_with_agents([change.row], agents)[0]))
    return unit


def _links(values: Mapping[str, Any], ids_now: Mapping[str, str]) -> dict[str, Any]:
    return {name: ids_now[value] for name, value in values.items() if name in _LINKS and value in ids_now}


def _linked(values: Mapping[str, Value], ids_now: Mapping[str, str]) -> dict[str, Value]:
    return {**values, **_links(values, ids_now)}


V = TypeVar("V")


class StoredSpanTypes:
    """The span types of stored runs, cached: a run's schema version and its content never change.

    Args:
        most: the number of runs, and of schema versions, that are cached.

    Attributes:
        instances: the cached runs by id. Their columns that never change are correct unless the file was replaced.
        registries: the cached span types by the id of their schema version.
    """

    def __init__(self, most: int = STANDARD.cached_runs) -> None:
        self._most = most
        self.instances: dict[str, AgentInstanceRow] = {}
        self.registries: dict[str, Registry] = {}

    def of(self, storage: Storage, instance_id: str) -> Registry:
        """Return the span types of a run.

        Raises:
            NotFound: the storage has no such run.
        """
        instance = self.instances.get(instance_id)
        if instance is None:
            found = storage.ask(Find(instance_id, instance_id=instance_id)).rows.get(instance_id)
            if found is None or not isinstance(found[1], AgentInstanceRow):
                raise NotFound(f"no agent instance has the id {instance_id!r}")
            instance = self.keep(found[1])
        version_id = instance.agent_schema_version_id
        registry = self.registries.get(version_id)
        if registry is None:
            version = storage.ask(Find(version_id)).rows[version_id][1]
            assert isinstance(version, AgentSchemaVersionRow)  # guaranteed by a foreign key
            registry = _keep(self.registries, version_id, from_schemas(version.span_type_schemas), self._most)
        return registry

    def keep(self, instance: AgentInstanceRow) -> AgentInstanceRow:
        """Add a run to the cache, and return it."""
        return _keep(self.instances, instance.id, instance, self._most)


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
