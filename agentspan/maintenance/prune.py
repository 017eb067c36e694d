"""Removes old finished runs and old idempotency keys. Makes partitions before they are needed, and drops old ones."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

from agentspan import clock
from agentspan.api.context import Context
from agentspan.errors import AgentspanError, DatabaseBusy, DatabaseUnusable, InvalidValue, NotPermitted, StorageError
from agentspan.journal.journal_folder import folder_of
from agentspan.journal.spool import mark_removal
from agentspan.journal.writers import DeadWriters
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow
from agentspan.model.spans import is_guess
from agentspan.storage.access import count, pages
from agentspan.storage.answers import SpanCounts
from agentspan.storage.protocol import Capabilities, Storage
from agentspan.storage.questions import (
    BriefsWhere,
    Compact,
    Counts,
    DropPartitions,
    FileBytes,
    MakePartitions,
    MissingPartitions,
    Query,
    RemoveKeys,
    RemoveRuns,
    RunFilter,
    UsedBytes,
)
from agentspan.storage.sums import Dropped, Made


class Upkeep(NamedTuple):
    """The partitions that were made, and how many are still missing.

    Attributes:
        made: the partitions that were made.
        missing: how many partitions are missing, for the current and coming periods.
        problem: the error that prevented making the partitions; None if there was no error.
    """

    made: Made = Made()
    missing: int = 0
    problem: AgentspanError | None = None


def keep_partitions(storage: Storage, wait_s: float, *, dry_run: bool = False) -> Upkeep:
    """Make the missing partitions. Return the error if others hold a lock or the user lacks the permission.

    Args:
        dry_run: only count the missing partitions.
    """
    if MakePartitions not in storage.capabilities().answers:
        return Upkeep()
    if dry_run:
        return Upkeep(missing=storage.ask(MissingPartitions()))
    try:
        return Upkeep(storage.ask(MakePartitions(wait_s=wait_s)))
    except (DatabaseBusy, DatabaseUnusable, NotPermitted) as error:
        return Upkeep(missing=storage.ask(MissingPartitions()), problem=error)


log = logging.getLogger("agentspan")

Only = Callable[[Sequence[AgentInstanceRow]], Collection[str]]
"""A function that receives runs, and returns the ids of the runs that may be removed."""

KEY_DAYS = 7
"""Days for which an idempotency key is kept."""
BATCH_SPANS = 2000
"""The approximate number of spans removed in one commit. Small, so that recorders need not wait."""
BATCH_RUNS = 500


class Pruned(NamedTuple):
    """The counts of removed rows; with `dry_run`, of rows that would be removed.

    Attributes:
        runs, spans, keys: how many runs, spans and idempotency keys.
        freed_bytes: by how many bytes the file shrank; None for a storage without a file, and for a dry run.
        partitions: how many partitions were removed as a whole; `runs` and `spans` count their content, too. None if
            the storage has no partitions, the user may not remove them, or runs are chosen one by one.
    """

    runs: int
    spans: int
    keys: int
    freed_bytes: int | None
    partitions: int | None = None


def prune(
    ctx: Context,
    *,
    older_than: str | None = None,
    keep_failed: bool = False,
    max_bytes: int | None = None,
    dry_run: bool = False,
    only: Only | None = None,
    whole_partitions: bool = False,
) -> Pruned:
    """Remove finished runs, the oldest first, and old idempotency keys. A run with an open span stays.

    A run that was closed for its program also stays, unless the program is known to be dead: it may continue the run.
    With `older_than` alone, whole partitions that are old enough are removed first, and then other runs row by row.

    Args:
        older_than: remove runs that finished before this time, as stored text.
        keep_failed: keep runs that failed or contain a failed span.
        max_bytes: remove runs until at most this many bytes of the file are in use.
        only: runs that this function does not return stay. Without `older_than` and `max_bytes`, every finished run
            that it returns is removed.
        dry_run: report what would be removed. With `max_bytes`, an estimate from the average size of a span.
        whole_partitions: remove only whole partitions that are old enough, and old keys.

    Raises:
        InvalidValue: `max_bytes` is passed, and the storage has no file; or `whole_partitions` is passed, and the
            storage has no partitions, runs are not chosen by `older_than` alone, or it is a dry run.
        StorageError: the storage cannot remove runs.
    """
    storage = ctx.storage
    can = storage.capabilities()
    has_file, has_partitions = Compact in can.answers, DropPartitions in can.answers
    if RemoveRuns not in can.answers:
        raise StorageError(f"the storage {can.backend!r} cannot remove runs")
    if max_bytes is not None and not has_file:
        raise InvalidValue("max_bytes", "this storage lies in no file, so it has no size")
    by_time_alone = older_than is not None and not (keep_failed or max_bytes is not None or only is not None or dry_run)
    if whole_partitions and not has_partitions:
        raise InvalidValue("whole_partitions", f"the storage {can.backend!r} has no partitions")
    if whole_partitions and not by_time_alone:
        raise InvalidValue("whole_partitions", "goes with `older_than` alone: no other choice of runs, and no dry run")
    before = storage.ask(FileBytes()) if has_file else 0
    week_ago = clock.parse(clock.to_datetime(clock.now()) - timedelta(days=KEY_DAYS))
    keys = storage.ask(RemoveKeys(week_ago, ctx.wait_s, dry_run))
    dropped = None
    if has_partitions and older_than is not None and by_time_alone:
        dropped = _dropped(ctx, older_than, must=whole_partitions)
    _, runs, spans = dropped or Dropped()
    partitions = None if dropped is None else dropped.partitions
    if whole_partitions:
        return Pruned(runs, spans, keys, None, partitions)
    left = _Left(ctx, max_bytes)
    for batch in _batches(ctx, older_than, keep_failed, left, only):
        if dry_run:
            done = len(batch), sum(counts.total for _, counts in batch)
        else:
            done = storage.ask(RemoveRuns([row.id for row, _ in batch], ctx.wait_s))
        runs, spans = runs + done[0], spans + done[1]
        left.removed(done[1], really=not dry_run)
    if runs and not dry_run:
        _tell_programs(can)
    if dry_run or not has_file:
        return Pruned(runs, spans, keys, None, partitions)
    storage.ask(Compact(ctx.wait_s))
    return Pruned(runs, spans, keys, max(0, before - storage.ask(FileBytes())))


def _tell_programs(can: Capabilities) -> None:
    """Notify running programs to delete the segments of their journals that may still hold removed data."""
    if can.spool is not None:
        mark_removal(can.spool.folder)
    elif can.journals is not None:
        mark_removal(folder_of(can.journals.path))


def _dropped(ctx: Context, older_than: str, *, must: bool) -> Dropped | None:
    """Remove whole old partitions. Return None if the storage refuses, so that rows must be removed instead.

    Args:
        must: raise the storage's error instead of returning None.
    """
    try:
        return ctx.storage.ask(DropPartitions(older_than, DeadWriters(ctx.storage).has, ctx.wait_s))
    except (DatabaseBusy, DatabaseUnusable) as error:
        if must:
            raise
        log.warning("runs are removed row by row: %s", error)
        return None


class _Left:
    """Tracks the bytes in use in the file against `max_bytes`."""

    def __init__(self, ctx: Context, max_bytes: int | None) -> None:
        self._storage = ctx.storage
        self._max = max_bytes
        self._used = self._per_span = 0.0
        if max_bytes is not None:
            self._used = self._storage.ask(UsedBytes())
            self._per_span = self._used / max(1, count(ctx.storage, "agent_span"))

    def removed(self, spans: int, *, really: bool) -> None:
        """Update the bytes in use after spans were removed."""
        if self._max is None:
            return
        self._used = self._storage.ask(UsedBytes()) if really else self._used - spans * self._per_span

    @property
    def is_limited(self) -> bool:
        """True if `max_bytes` was passed."""
        return self._max is not None

    def is_too_much(self, without: int) -> bool:
        """Return whether removing this many spans still leaves more than `max_bytes` in use; False without a limit."""
        return self._max is not None and self._used - without * self._per_span > self._max


def _batches(
    ctx: Context, older_than: str | None, keep_failed: bool, left: _Left, only: Only | None
) -> Iterator[list[tuple[AgentInstanceRow, SpanCounts]]]:
    """Yield the runs to remove, the oldest first, in batches for one commit each, until no more need to go."""
    batch: list[tuple[AgentInstanceRow, SpanCounts]] = []
    spans = 0
    failed = {run.id for run in ctx.storage.ask(BriefsWhere(RunFilter(failed=True)))} if keep_failed else ()
    dead_writers = DeadWriters(ctx.storage)
    is_any_old = only is not None and older_than is None and not left.is_limited
    newest = ctx.storage.ask(Query("agent_instance", descending=True, limit=1)).rows
    for chunk in pages(ctx.storage, AgentInstanceRow):
        if not newest or chunk[0].id > newest[0].id:  # programs may begin runs faster than this reads them
            break
        wanted = None if only is None else only(chunk)
        counts = ctx.storage.ask(Counts([row.id for row in chunk]))
        for row in chunk:
            if row.id in failed or not _may_go(row, counts[row.id], keep_failed):
                continue
            if wanted is not None and row.id not in wanted:
                continue
            is_old = is_any_old or (older_than is not None and (row.finished_at or row.updated_at) < older_than)
            if not is_old and not left.is_too_much(spans):
                continue
            if is_guess(row) and row.writer_id is not None and not dead_writers.has(row.writer_id):
                continue  # agentspan closed the run of a program that may be alive, and may continue the run
            batch.append((row, counts[row.id]))
            spans += counts[row.id].total
            if spans >= BATCH_SPANS or len(batch) >= BATCH_RUNS:
                yield batch
                batch, spans = [], 0
    if batch:
        yield batch


def _may_go(row: AgentInstanceRow, counts: SpanCounts, keep_failed: bool) -> bool:
    if row.status in OPEN or counts.pending or counts.active:
        return False
    return not (keep_failed and (row.status == "failed" or counts.failed))
