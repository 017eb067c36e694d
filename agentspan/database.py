"""`agentspan.open`: one opened storage with its operations by id, `bulk`, `doctor` and `prune`."""

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self

from agentspan import forks
from agentspan.api.checks import MAX_PFIDS, timestamp
from agentspan.api.checks import count as count_of
from agentspan.api.context import Context
from agentspan.errors import InvalidValue
from agentspan.journal.opening import open_storage
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.storage.registry import chosen
from agentspan.tuning import STANDARD, Tuning

if TYPE_CHECKING:
    from agentspan.api.facade import (
        AgentInstances,
        Agents,
        AgentSchemaVersions,
        AgentSpans,
        AgentVersions,
        Scores,
    )
    from agentspan.maintenance.doctor import Report
    from agentspan.maintenance.prune import Only, Pruned


class Database:
    """One opened storage with its operations; also a context manager that closes it.

    Attributes:
        agents: create, get, show, update, retire, reinstate, delete, list.
        agent_versions: get, list.
        agent_instances: register, start, finish, terminate, record_quality, update, agent_context, get, list.
        agent_schema_versions: create, get, list.
        agent_spans: create, start, finish, get, list, violations.
        scores: record, list.
        storage: the backend underneath.
    """

    def __init__(
        self,
        storage: Storage,
        *,
        strict_schemas: bool = False,
        sensitive: Literal["redact", "keep"] = "redact",
        read_only: bool = False,
        closes: bool = True,
        tuning: Tuning = STANDARD,
    ) -> None:
        if sensitive not in ("redact", "keep"):
            raise InvalidValue("sensitive", 'must be "redact" or "keep"')
        self._context = Context(
            storage, strict_schemas=strict_schemas, read_only=read_only, keep_sensitive=sensitive == "keep"
        )
        self.storage = storage
        self._closes = closes
        self._tuning = tuning

    # Each is imported where it is first needed: their resources are pydantic models, a tenth of a second to import,
    # and most commands only read.

    @cached_property
    def agents(self) -> "Agents":
        """The operations on agents."""
        from agentspan.api.facade import Agents

        return Agents(self._context)

    @cached_property
    def agent_versions(self) -> "AgentVersions":
        """The operations on versions of agents."""
        from agentspan.api.facade import AgentVersions

        return AgentVersions(self._context)

    @cached_property
    def agent_instances(self) -> "AgentInstances":
        """The operations on runs."""
        from agentspan.api.facade import AgentInstances

        return AgentInstances(self._context)

    @cached_property
    def agent_schema_versions(self) -> "AgentSchemaVersions":
        """The operations on schemas of agents."""
        from agentspan.api.facade import AgentSchemaVersions

        return AgentSchemaVersions(self._context)

    @cached_property
    def agent_spans(self) -> "AgentSpans":
        """The operations on spans."""
        from agentspan.api.facade import AgentSpans

        return AgentSpans(self._context)

    @cached_property
    def scores(self) -> "Scores":
        """The operations on scores."""
        from agentspan.api.facade import Scores

        return Scores(self._context)

    def doctor(
        self, *, dry_run: bool = False, dead_hosts: Collection[str] = (), idle_since: datetime | str | None = None
    ) -> "Report":
        """Check the file, and close what programs that have died left open: failed (pending: cancelled), abandoned.

        Args:
            dry_run: only say what would be done.
            dead_hosts: hosts whose programs are known to be dead; else those of other hosts are left alone.
            idle_since: close also the runs that were made by id and have not changed since this time, an aware datetime
                or RFC 3339 text with an offset, with their spans. Their programs are not known.

        Raises:
            InvalidValue: `idle_since` is no time.
        """
        with forks.importing:
            from agentspan.maintenance.doctor import examine

        at = timestamp("idle_since", idle_since)
        return examine(self._context, dry_run=dry_run, dead_hosts=dead_hosts, idle_since=at, tuning=self._tuning)

    def prune(
        self,
        *,
        older_than: datetime | str | None = None,
        keep_failed: bool = False,
        max_bytes: int | None = None,
        dry_run: bool = False,
        only: "Only | None" = None,
        whole_partitions: bool = False,
    ) -> "Pruned":
        """Remove runs that have finished, the oldest first, and idempotency keys older than 7 days; shrink the file.

        A run stays while anything in it is open. With `older_than` alone, partitions that are old as a whole are
        removed first, and then other runs by their rows.

        Args:
            older_than: remove what finished before this time, an aware datetime or RFC 3339 text with an offset.
            keep_failed: keep runs that failed, or in which a span did.
            max_bytes: remove until no more than this is in use in the file.
            dry_run: only say what would be done.
            only: called with rows of runs, returns the ids of those that may be removed; without `older_than` and
                `max_bytes` all of them are.
            whole_partitions: with `older_than` alone: leave the runs of other partitions.

        Raises:
            InvalidValue: `older_than` is no time; or `max_bytes`, where there is no file, or `whole_partitions`, where
                there are no partitions.
        """
        with forks.importing:
            from agentspan.maintenance.prune import prune

        at = timestamp("older_than", older_than)
        return prune(
            self._context,
            older_than=at,
            keep_failed=keep_failed,
            max_bytes=max_bytes,
            dry_run=dry_run,
            only=only,
            whole_partitions=whole_partitions,
        )

    def pfids(self, count: int = 1) -> list[str]:
        """Return fresh ids for resources of one's own, at most 1,000.

        Raises:
            InvalidValue: the count is no whole number from 1 to 1,000.
        """
        return [self._context.ids.new() for _ in range(count_of("count", count, 1, MAX_PFIDS))]

    def bulk(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Run several operations in order, each whole or not at all; the first that is refused is the last.

        Args:
            items: at least one; each has `_type` (such as "agent_spans/create"), an `idempotency_key` of 8 to 64
                characters, unique among them, and the operation's own fields, flat or in `details`.

        Returns:
            The outputs by idempotency key, as the HTTP API writes them; those after a refusal are absent.

        Raises:
            InvalidValue, RequiredValue: an item has no usable type or key; nothing is done then.
        """
        with forks.importing:
            from agentspan.api.bulk import plan, run

        return run(self._context, plan(items))

    def close(self) -> None:
        """Close the storage; operations afterwards raise StorageError.

        One that `open` found by itself because this process records into it stays open.
        """
        if self._closes:
            self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> Literal[False]:
        self.close()
        return False


def open(
    db: "str | os.PathLike[str] | Location | Storage | None" = None,
    *,
    read_only: bool = False,
    strict_schemas: bool = False,
    sensitive: Literal["redact", "keep"] = "redact",
    tuning: Tuning = STANDARD,
) -> Database:
    """Open a database for operations by id.

    Args:
        db: a file, made when it does not exist; `":memory:"`; `NAME://…` for another backend; or a Storage.
            When left out, what `agentspan.configure` was given, also a storage in memory; else AGENTSPAN_DB, else
            ./agentspan.db.
        read_only: never write; operations that would raise NotPermitted.
        strict_schemas: refuse payloads that do not match their schema.
        sensitive: whether to "redact" or "keep" values that are marked as `{"$sensitive": …, "value": …}`.
        tuning: sizes and times, for tests; see agentspan/tuning.py.

    Raises:
        DatabaseUnusable: the file is no database, or a newer version's, its folder does not exist …
    """
    db, closes = chosen(db)
    storage = open_storage(db, read_only=read_only, tuning=tuning)
    return Database(
        storage, strict_schemas=strict_schemas, sensitive=sensitive, read_only=read_only, closes=closes, tuning=tuning
    )
