"""`agentspan.open`: one opened storage with its operations by id."""

import os
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal, Self

from agentspan.operations.by_id import AgentInstances, Agents, AgentSchemaVersions, AgentSpans
from agentspan.operations.context import Context
from agentspan.storage import open_storage
from agentspan.storage.protocol import Storage

if TYPE_CHECKING:
    from agentspan.operations.doctor import Report


class Database:
    """One opened storage with its operations; also a context manager that closes it.

    Attributes:
        agents: create, get, list.
        agent_instances: register, start, finish, terminate, get, list.
        agent_schema_versions: create, get, list.
        agent_spans: create, start, finish, get, list, violations.
        storage: the backend underneath.
    """

    def __init__(self, storage: Storage, *, strict_schemas: bool = False) -> None:
        self._context = context = Context(storage, strict_schemas=strict_schemas)
        self.storage = storage
        self.agents = Agents(context)
        self.agent_instances = AgentInstances(context)
        self.agent_schema_versions = AgentSchemaVersions(context)
        self.agent_spans = AgentSpans(context)

    def doctor(self, *, dry_run: bool = False, dead_hosts: Collection[str] = ()) -> "Report":
        """Check the file, and close what programs that have died left open: failed (pending: cancelled), abandoned.

        Args:
            dry_run: only say what would be done.
            dead_hosts: hosts whose programs are known to be dead; else those of other hosts are left alone.
        """
        from agentspan.operations.doctor import examine

        return examine(self._context, dry_run=dry_run, dead_hosts=dead_hosts)

    def close(self) -> None:
        """Close the storage; operations afterwards raise StorageError."""
        self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> Literal[False]:
        self.close()
        return False


def open(
    db: "str | os.PathLike[str] | Storage | None" = None,
    *,
    read_only: bool = False,
    strict_schemas: bool = False,
) -> Database:
    """Open a database for operations by id.

    Args:
        db: a file, made when it does not exist; `":memory:"`; or a Storage. AGENTSPAN_DB, else ./agentspan.db,
            when left out.
        read_only: never write; operations that would raise NotPermitted.
        strict_schemas: refuse payloads that do not match their schema.

    Raises:
        DatabaseUnusable: the file is no database, or a newer version's, its folder does not exist …
    """
    return Database(open_storage(db, read_only=read_only), strict_schemas=strict_schemas)
