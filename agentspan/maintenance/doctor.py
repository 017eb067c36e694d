"""Examines a file after a crash: closes the runs and spans of dead programs, and lists refused changes."""

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from agentspan import clock, jsontext
from agentspan.api.context import Context, Plan
from agentspan.errors import DatabaseBusy, NotFound, StorageError
from agentspan.journal.names import Closer
from agentspan.journal.writers import DeadWriters, Life, why_unknown
from agentspan.maintenance.prune import Upkeep, keep_partitions
from agentspan.model import instances
from agentspan.model.changes import OPEN, Move, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, RefusedChangeRow, WriterRow
from agentspan.storage.access import expect, scan
from agentspan.storage.answers import Found
from agentspan.storage.questions import Damage, Find, Mend, Query, SpansOf
from agentspan.tuning import STANDARD, Tuning

LATEST = 20
"""The largest number of refused changes, and of damaged parts of each kind, that are reported."""
UNREAD = ("damaged", "unreadable")
"""The values of `why` in refused_changes for rows that describe damage in a journal instead of a refused change."""


@dataclass
class RunReport:
    """A run that is open, or has open spans.

    Attributes:
        run: the row of the run, before the doctor's changes.
        writer: the program that began the run; None for a run that was registered by id.
        life: whether the program still runs: alive, dead or unknown.
        closed_run: whether the doctor closed the run itself.
        closed_spans: how many spans of the run the doctor closed.
        left_open: how many spans of the run stay open, because their programs are alive or may be.
        not_judged: the programs of the run, or of its open spans, whose life is unknown, each with the reason, such as
            `is on another host`.
    """

    run: AgentInstanceRow
    writer: WriterRow | None
    life: Life
    closed_run: bool = False
    closed_spans: int = 0
    left_open: int = 0
    not_judged: list[tuple[WriterRow, str]] = field(default_factory=list)


@dataclass
class Report:
    """The findings of the doctor, and the changes that it made.

    Attributes:
        problems: damage of the file itself; empty if there is none, or if the storage has no check.
        runs: the runs that were open or had open spans.
        refused: the latest 20 changes that arrived too late, or whose run is not stored, the latest first.
        refused_total: the number of all refused changes.
        damage: the latest parts of killed programs' journals that could not be read, the latest first.
        damage_total: the number of all parts that could not be read.
        partitions: the partitions that were made, and how many are missing.
        mended_agents: how many agents were missing, and have their id as name now.
        mended_spans: how many spans had another agent than their run, and have that of their run now.
        waiting_journals: how many dead programs have journals that are not recovered yet, because the time was over.
        waiting_bytes: the size of these journals.
        waiting_runs: how many open runs were not examined, because the time was over.
    """

    problems: list[str] = field(default_factory=list)
    runs: list[RunReport] = field(default_factory=list)
    refused: list[RefusedChangeRow] = field(default_factory=list)
    refused_total: int = 0
    damage: list[RefusedChangeRow] = field(default_factory=list)
    damage_total: int = 0
    partitions: Upkeep = field(default_factory=Upkeep)
    mended_agents: int = 0
    mended_spans: int = 0
    waiting_journals: int = 0
    waiting_bytes: int = 0
    waiting_runs: int = 0


def examine(
    ctx: Context,
    *,
    dry_run: bool = False,
    dead_hosts: Collection[str] = (),
    idle_since: str | None = None,
    tuning: Tuning = STANDARD,
) -> Report:
    """Check the file, and close the runs and spans that dead programs left open.

    Active ones become failed, pending ones cancelled, with `closed_by` abandoned. Runs and spans stay open if they are
    of operations by id, of live programs, or of programs that cannot be judged (on other hosts, in other containers or
    time namespaces). But all open spans of a terminated run are closed.

    Journals are recovered, and runs closed, for a limited time: the report has what waits for the next call.

    Args:
        dry_run: report what would be done, and change nothing.
        dead_hosts: hosts whose programs are known to be dead.
        idle_since: also close runs that were made by id, and have not changed since this time.
        tuning: sizes and times, for tests; see agentspan/tuning.py.

    Raises:
        DatabaseBusy: others kept locks of some runs, and all other runs were examined; or they locked the storage.
    """
    report = Report()
    closing = _Closing(ctx, dead_hosts, idle_since, tuning)
    if Damage in ctx.storage.capabilities().answers:
        report.problems = ctx.storage.ask(Damage())
    if report.problems and not dry_run and Mend in ctx.storage.capabilities().answers:
        with suppress(StorageError):  # of a file that is damaged otherwise
            report.mended_agents, report.mended_spans = ctx.storage.ask(Mend(ctx.wait_s))
            report.problems = ctx.storage.ask(Damage())
    report.partitions = keep_partitions(ctx.storage, ctx.wait_s, dry_run=dry_run)
    report.runs, locked = closing.close_all(_with_open(ctx), dry_run=dry_run)
    report.waiting_runs = closing.waiting
    if locked:
        runs, locked = closing.close_all(locked, dry_run=dry_run)
        report.runs = sorted(report.runs + runs, key=lambda each: each.run.id)
    if locked:
        raise DatabaseBusy(f"others kept a lock of {len(locked)} runs, such as {locked[0]}; the others were examined")
    report.waiting_journals, report.waiting_bytes = closing.dead_writers.waiting()
    for why in UNREAD:
        query = Query("refused_change", {"why": why}, descending=True, limit=LATEST, with_total=True)
        page = ctx.storage.ask(query)
        report.damage += cast(list[RefusedChangeRow], page.rows)
        report.damage_total += page.counted()
    limit = LATEST + report.damage_total
    page = ctx.storage.ask(Query("refused_change", descending=True, limit=limit, with_total=True))
    rows = cast(list[RefusedChangeRow], page.rows)
    report.refused = [row for row in rows if row.why not in UNREAD][:LATEST]
    report.refused_total = page.counted() - report.damage_total
    return report


def _with_open(ctx: Context) -> list[str]:
    """Return the ids of the instances that are open, or have open spans, in the order of their creation."""
    ids: set[str] = set()
    for status in OPEN:
        ids.update(row.id for row in scan(ctx.storage, AgentInstanceRow, {"status": status}))
        ids.update(row.agent_instance_id for row in scan(ctx.storage, AgentSpanRow, {"status": status}))
    return sorted(ids)


class _Closing:
    """Closes open runs and spans of dead writers, once their journals are recovered; and idle ones without a writer."""

    def __init__(self, ctx: Context, dead_hosts: Collection[str], idle_since: str | None, tuning: Tuning) -> None:
        self._ctx = ctx
        self._idle_since = idle_since
        self._until = time.monotonic() + tuning.doctor_s
        self.waiting = 0
        self.dead_writers = DeadWriters(ctx.storage, dead_hosts, wait_s=tuning.doctor_s, tuning=tuning)
        self._closer = Closer(ctx.storage, ctx.stored_span_types)

    def close_all(self, instance_ids: Collection[str], *, dry_run: bool) -> tuple[list[RunReport], list[str]]:
        """Close runs and spans that dead programs left open. Return reports, and the ids of runs that others lock.

        Raises:
            DatabaseBusy: others lock the whole storage.
        """
        reports: list[RunReport] = []
        locked: list[str] = []
        has_row_locks = self._ctx.storage.capabilities().concurrency > 1
        for number, instance_id in enumerate(instance_ids):
            if number and time.monotonic() > self._until:
                self.waiting = len(instance_ids) - number
                break
            try:
                run = self._close(instance_id, dry_run=dry_run)
            except NotFound:  # another process has removed it meanwhile
                continue
            except DatabaseBusy:  # a program was stopped in the middle of a transaction
                if not has_row_locks:
                    raise
                locked.append(instance_id)
                continue
            if run is not None:
                reports.append(run)
        return reports, locked

    def _close(self, instance_id: str, *, dry_run: bool) -> RunReport | None:
        """Close a run and its spans if dead programs left them open. Return None if nothing in the run is open."""
        self.dead_writers.lives.look_again()
        instance = self._ctx.row(AgentInstanceRow, instance_id)
        open_spans, _ = _open_spans(self._ctx, instance)
        writers = {instance.writer_id, *(span.writer_id for span in open_spans)}
        for each in writers:
            self.dead_writers.has(each)
        instance = self._ctx.row(AgentInstanceRow, instance_id)  # a recovered journal may have had the run's end
        writer_id = instance.writer_id
        lives = self.dead_writers.lives
        run = RunReport(instance, lives.writer(writer_id), lives.of(writer_id))
        unknown = (lives.writer(each) for each in sorted(filter(None, writers)) if lives.of(each) == "unknown")
        run.not_judged = [(writer, why_unknown(writer)) for writer in unknown if writer is not None]
        if not self._plan(run, self._ctx.storage.ask(Find(instance_id, instance_id=instance_id)), clock.now()).changes:
            return run if run.left_open or instance.status in OPEN else None
        if not dry_run:
            decide = partial(self._plan, run)
            self._ctx.carry_out(Plan((instance_id,), None, decide, instance_id=instance_id))
        return run

    def _plan(self, run: RunReport, found: Found, now: str) -> Unit:
        instance = expect(found, AgentInstanceRow, run.run.id)
        open_spans, last = _open_spans(self._ctx, instance)
        is_idle = instance.writer_id is None and self._idle_since is not None and last < self._idle_since
        moves: list[Move] = []
        for span in open_spans:
            if instance.status == "terminated":
                error = {"type": "Terminated", "message": instance.termination_reason or ""}
                moves.append(self._closer.close(span, "terminated", error, now, now))
            elif self.dead_writers.has(span.writer_id):
                error = _error(self.dead_writers.lives.writer(span.writer_id))
                moves.append(self._closer.close(span, "abandoned", error, last, now))
            elif is_idle and span.writer_id is None:
                moves.append(self._closer.close(span, "abandoned", _idle(last), last, now))
        run.closed_spans, run.left_open = len(moves), len(open_spans) - len(moves)
        # A run stays open as long as one of its spans does: a program may still record into it.
        is_over = is_idle or self.dead_writers.has(instance.writer_id)
        run.closed_run = instance.status in OPEN and is_over and not run.left_open
        if run.closed_run:
            error = _idle(last) if is_idle else _error(run.writer)
            moves.append(instances.abandoned(instance, jsontext.encode(error)[0], last, now))
        return Unit(tuple(moves), instance.id)


def _open_spans(ctx: Context, instance: AgentInstanceRow) -> tuple[list[AgentSpanRow], str]:
    """Return an instance's open spans, and the time of its last known event."""
    last, found = instance.updated_at, []
    for span in ctx.storage.ask(SpansOf(instance.id)):
        last = max(last, span.updated_at)
        if span.status in OPEN:
            found.append(span)
    return found, last


def _idle(last: str) -> dict[str, str]:
    return {"type": "Abandoned", "message": f"it has not changed since {last}, and its program is not known"}


def _error(writer: WriterRow | None) -> dict[str, str]:
    who = "its program" if writer is None else f"its program, {writer.program} (pid {writer.pid} on {writer.host}),"
    return {"type": "Abandoned", "message": f"{who} ended without finishing it"}
