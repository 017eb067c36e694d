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

    # The operations are imported at their first use: their resources are pydantic models, which take a tenth of a
    # second to import, and most commands only read.

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
        """Check the file, and close the runs and spans that dead programs left open.

        Active ones become failed, pending ones cancelled, with `closed_by` abandoned.

        Args:
            dry_run: report the changes without making them.
            dead_hosts: hosts whose programs are known to be dead. Without it, only programs of this host are judged.
            idle_since: also close runs that were made by id, with their spans, if they have not changed since this
                time: an aware datetime, or RFC 3339 text with an offset. The program of such a run is not known.

        Raises:
            InvalidValue: `idle_since` is no time.
            DatabaseBusy: others kept a lock.
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
        """Remove finished runs, the oldest first, and idempotency keys older than 7 days. Shrink the file.

        A run stays while the run or one of its spans is open. With `older_than` alone, whole partitions that are old
        enough are removed first, and then other runs row by row.

        Args:
            older_than: remove runs that finished before this time, an aware datetime or RFC 3339 text with an offset.
            keep_failed: keep runs that failed or contain a failed span.
            max_bytes: remove runs until at most this many bytes of the file are in use.
            dry_run: report what would be removed, and remove nothing.
            only: called with rows of runs; returns the ids of the runs that may be removed. Without `older_than` and
                `max_bytes`, every finished run that it returns is removed.
            whole_partitions: remove whole partitions only; requires `older_than`, and no other choice of runs.

        Raises:
            InvalidValue: `older_than` is no time; `max_bytes` is passed, and the storage has no file; or
                `whole_partitions` is passed, and the storage has no partitions or runs are also chosen otherwise.
            StorageError: the storage cannot remove runs.
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
        """Return up to 1,000 fresh ids, for resources that the caller creates with an id of its own.

        Raises:
            InvalidValue: the count is no whole number from 1 to 1,000.
        """
        return [self._context.ids.new() for _ in range(count_of("count", count, 1, MAX_PFIDS))]

    def bulk(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Run several operations in order, each completely or not at all. Stop after the first refused operation.

        Args:
            items: at least one mapping. Each has a `_type` (such as "agent_spans/create"), an `idempotency_key` of 8
                to 64 characters that is unique in this call, and the operation's fields, flat or in `details`.

        Returns:
            The outputs by idempotency key, in the form of the HTTP API. Operations that did not run have none.

        Raises:
            InvalidValue, RequiredValue: an item has no usable type or key. No operation has run.
        """
        with forks.importing:
            from agentspan.api.bulk import plan, run

        return run(self._context, plan(items))

    def close(self) -> None:
        """Close the storage. Later operations raise StorageError.

        A storage object of `agentspan.configure`, which `open` uses if `db` is left out, stays open for recording.
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
            When left out: the storage of `agentspan.configure`, also one in memory; else the file that AGENTSPAN_DB
            names; else ./agentspan.db.
        read_only: never write. Operations that would write raise NotPermitted.
        strict_schemas: refuse payloads that do not match their schema.
        sensitive: whether to "redact" or "keep" values that are marked as `{"$sensitive": …, "value": …}`.
        tuning: sizes and times, for tests; see agentspan/tuning.py.

    Raises:
        DatabaseUnusable: the file is no database or belongs to a newer version, its folder does not exist …
    """
    db, closes = chosen(db)
    storage = open_storage(db, read_only=read_only, tuning=tuning)
    return Database(
        storage, strict_schemas=strict_schemas, sensitive=sensitive, read_only=read_only, closes=closes, tuning=tuning
    )
