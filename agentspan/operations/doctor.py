"""After a crash: whose spans are still open although their program is dead, closing those, and what came too late."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import cast

from agentspan import clock, jsontext
from agentspan.model import instances
from agentspan.model.changes import Move, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, RefusedChangeRow, WriterRow
from agentspan.model.status import OPEN
from agentspan.operations import agent_spans
from agentspan.operations.context import Context, expect
from agentspan.operations.writers import Life, life_of
from agentspan.storage.protocol import Found, HasCheck, Query, Storage

UNREAD = ("damaged", "unreadable")
"""Why a row of refused_changes is there that tells of a place in a journal, not of a change."""


@dataclass
class RunReport:
    """A run with something open in it.

    Attributes:
        run: its row, as it was found.
        writer: the program that began the run, or None for one that was registered by id.
        life: whether that program still runs: alive, dead or unknown.
        closed_run: whether the run itself was closed.
        closed_spans: how many of its spans were.
        left_open: how many of its spans were not: their programs are alive, or it is not known.
    """

    run: AgentInstanceRow
    writer: WriterRow | None
    life: Life
    closed_run: bool = False
    closed_spans: int = 0
    left_open: int = 0


@dataclass
class Report:
    """What the doctor found, and did.

    Attributes:
        problems: what is wrong with the file itself; empty where it is sound, or the storage cannot tell.
        runs: those with something open in them.
        refused: changes that came too late, or fitted nothing, the latest first.
        refused_total: how many of those there are.
        damage: what of the journals of programs that were killed could not be read, the latest first.
        damage_total: how many such places there are.
    """

    problems: list[str] = field(default_factory=list)
    runs: list[RunReport] = field(default_factory=list)
    refused: list[RefusedChangeRow] = field(default_factory=list)
    refused_total: int = 0
    damage: list[RefusedChangeRow] = field(default_factory=list)
    damage_total: int = 0


def examine(
    ctx: Context, *, dry_run: bool = False, dead_hosts: Collection[str] = (), latest_refused: int = 20
) -> Report:
    """Check the file, and close what dead programs left open: failed (pending: cancelled), `closed_by` abandoned.

    What belongs to programs that are alive, to other hosts or containers, or to operations by id is left alone.

    Args:
        dry_run: only say what would be done.
        dead_hosts: hosts whose programs are known to be dead.
    """
    report = Report()
    if isinstance(ctx.storage, HasCheck):
        report.problems = ctx.storage.check()
    lives = Lives(ctx.storage, dead_hosts)
    for instance_id in _with_open(ctx):
        instance = ctx.row(AgentInstanceRow, instance_id)
        run = RunReport(instance, lives.writer(instance.writer_id), lives.of(instance.writer_id))
        _close(ctx, run, lives, dry_run=dry_run)
        report.runs.append(run)
    for why in UNREAD:
        page = ctx.storage.page(Query("refused_change", {"why": why}, descending=True, limit=latest_refused))
        report.damage += cast(list[RefusedChangeRow], page.rows)
        report.damage_total += page.total
    page = ctx.storage.page(Query("refused_change", descending=True, limit=latest_refused + report.damage_total))
    rows = cast(list[RefusedChangeRow], page.rows)
    report.refused = [row for row in rows if row.why not in UNREAD][:latest_refused]
    report.refused_total = page.total - report.damage_total
    return report


class Lives:
    """Which of the programs that wrote are alive; each is looked up once.

    Args:
        dead_hosts: hosts whose programs are known to be dead.
    """

    def __init__(self, storage: Storage, dead_hosts: Collection[str] = ()) -> None:
        self._storage = storage
        self._dead_hosts = dead_hosts
        self._known: dict[str, tuple[WriterRow | None, Life]] = {}

    def writer(self, id: str | None) -> WriterRow | None:
        """Return what is known of a writer; None where nothing is, and for what was written by id."""
        return self._look_up(id)[0]

    def of(self, id: str | None) -> Life:
        """Tell whether a writer is alive."""
        return self._look_up(id)[1]

    def _look_up(self, id: str | None) -> tuple[WriterRow | None, Life]:
        if id is None:
            return None, "unknown"
        if id not in self._known:
            located = self._storage.find(id).rows.get(id)
            row = located[1] if located is not None else None
            self._known[id] = (row, life_of(row, self._dead_hosts)) if isinstance(row, WriterRow) else (None, "unknown")
        return self._known[id]


def _with_open(ctx: Context) -> list[str]:
    """Return the ids of the instances that are open, or have open spans, in the order of their creation."""
    ids: set[str] = set()
    for status in OPEN:
        ids.update(row.id for row in ctx.storage.page(Query("agent_instance", {"status": status})).rows)
        spans = ctx.storage.page(Query("agent_span", {"status": status})).rows
        ids.update(cast(AgentSpanRow, row).agent_instance_id for row in spans)
    return sorted(ids)


def _close(ctx: Context, run: RunReport, lives: Lives, *, dry_run: bool) -> None:
    instance_id = run.run.id

    def decide(found: Found, now: str) -> Unit:
        instance = expect(found, AgentInstanceRow, instance_id)
        open_spans, last = _open_spans(ctx, instance)
        dead = [span for span in open_spans if lives.of(span.writer_id) == "dead"]
        moves: list[Move] = []
        for span in dead:
            error = _error(lives.writer(span.writer_id))
            moves.append(agent_spans.closing(ctx, span, "abandoned", error, last, now))
        run.closed_spans, run.left_open = len(dead), len(open_spans) - len(dead)
        # A run goes on while anybody records into it.
        run.closed_run = instance.status in OPEN and run.life == "dead" and not run.left_open
        if run.closed_run:
            moves.append(instances.abandoned(instance, jsontext.encode(_error(run.writer))[0], last, now))
        return Unit(tuple(moves), instance.id)

    planned = decide(ctx.storage.find(instance_id), clock.now())
    if planned.changes and not dry_run:
        ctx.commit((instance_id,), None, decide)


def _open_spans(ctx: Context, instance: AgentInstanceRow) -> tuple[list[AgentSpanRow], str]:
    """Return an instance's open spans, and the last time at which anything of it is known to have happened."""
    last, found = instance.updated_at, []
    for span in ctx.storage.iter_spans(instance.id):
        last = max(last, span.updated_at)
        if span.status in OPEN:
            found.append(span)
    return found, last


def _error(writer: WriterRow | None) -> dict[str, str]:
    who = "its program" if writer is None else f"its program, {writer.program} (pid {writer.pid} on {writer.host}),"
    return {"type": "Abandoned", "message": f"{who} ended without finishing it"}
