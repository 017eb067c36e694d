"""`agentspan show --follow`: follows runs while any process records them; each change of a status is a line.

The storage is polled; a Follower returns the changes since the last poll.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

import click

from agentspan import clock
from agentspan.analysis import by_name, filter_words
from agentspan.analysis.causes import verdicts_on
from agentspan.analysis.tree import run_error, run_name
from agentspan.cli.app import command, reads
from agentspan.cli.completion import RUN
from agentspan.cli.filter_options import outcome_rule
from agentspan.cli.output import (
    MARKS,
    document,
    fit,
    hint,
    local,
    plain_rows,
    status_style,
    style,
    to_copy,
    utc_option,
    verdict_style,
    width,
    zone,
)
from agentspan.cli.show import title
from agentspan.database import Database
from agentspan.journal.names import StoredSpanTypes
from agentspan.journal.writers import Lives
from agentspan.model import columns
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.failing import error_of
from agentspan.schemas.span_types import Registry, describe
from agentspan.storage.access import scan
from agentspan.storage.answers import SpanCounts
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, SpansOf
from agentspan.storage.row_by_row import names_of
from agentspan.text import duration_text, noun

EVERY_S = 0.2
SHARE = 5
"""The pause between two polls, as a multiple of the time of a poll, so that a large run does not keep a core busy."""
CONTEXT = 10
"""The largest number of transitions from before the start of the command that are printed for a run."""


@command("tail")
@click.argument("run", required=False, type=RUN)
@click.option("--one", is_flag=True, help="End when the run does, instead of waiting for the next one.")
@click.option("--all", "whole", is_flag=True, help="Begin with the start of the run, instead of its last lines.")
@click.option("--since", metavar="TIME", help="Begin at this time: 90s, 15m, 2h ago; 02:00, yesterday, 2026-11-24 …")
@utc_option
@reads
def tail_command(
    database: Database, *, run: str | None, one: bool, whole: bool, since: str | None, as_json: bool
) -> None:
    """Print each step of RUN as it begins and ends, then of the runs after it.

    Without RUN, of the latest run.
    """
    if whole and since is not None:
        raise click.UsageError("--all and --since exclude each other")
    at = None if since is None else filter_words.parse_time(since, zone=zone())
    if at is not None:
        tail = _Tail(database, at, context=0, is_quiet=as_json)
    else:
        tail = _Tail(database, "" if whole or as_json else clock.now(), context=CONTEXT, is_quiet=as_json)
    storage, waiting = database.storage, NEXT
    if run is not None:
        follower = Follower(storage, by_name.find_run(storage, run))
    elif at is not None and (first := _first_since(database, at)) is not None:
        follower = Follower(storage, first)
    else:
        latest = next(scan(storage, AgentInstanceRow, descending=True, limit=1), None)
        is_live = latest is not None and latest.status in OPEN and not _is_dead(database, latest)
        follower = Follower(storage, latest if is_live else None, after="" if latest is None else latest.id)
        if not is_live:
            waiting = _waiting(storage, latest)
    try:
        tail.follow(follower, one=one or as_json, waiting=waiting)
    except KeyboardInterrupt:
        pass
    if as_json:
        document(tail.plain())


NEXT = "waiting for the next run; Ctrl-C ends"


def _waiting(storage: Storage, latest: AgentInstanceRow | None) -> str:
    """Return the message that no run is going on, with the command that shows the latest one."""
    if latest is None:
        return "waiting for the first run; Ctrl-C ends"
    name = run_name(*names_of(storage, [latest])[latest.id])
    shown = to_copy("show", by_name.short_id(storage, latest.id), "--follow")
    return "\n".join([NEXT, *hint(f"the latest, of {name}, is {latest.status}", shown, width())])


class Transition(NamedTuple):
    """A change of the status of a run or a span.

    Attributes:
        at: the time of the change, as stored text.
        status: the new status; `row` may already have a later one.
        row: the run or span.
        depth: the number of spans around a span; 0 for a run and for a root span.
    """

    at: str
    status: str
    row: AgentInstanceRow | AgentSpanRow
    depth: int


class Recent(NamedTuple):
    """The transitions of a run to print when following it begins.

    Attributes:
        run: the start of the run, if it is earlier than `shown`; at most one transition.
        passed: the number of transitions between `run` and `shown`, which are not printed.
        shown: the latest transitions.
    """

    run: list[Transition]
    passed: int
    shown: list[Transition]


def recent(found: list[Transition], at: str, context: int) -> Recent:
    """Select the transitions of a run from a time on, with some earlier ones as context.

    Args:
        found: all transitions of the run so far, by time.
        at: the time, as stored text.
        context: the number of earlier transitions to include; with 0, the start of the run is left out, too.
    """
    before = sum(transition.at < at for transition in found)
    first = max(0, before - context)
    passed = found[:first]
    if not context:
        return Recent([], 0, found[first:])
    start = [t for t in passed if isinstance(t.row, AgentInstanceRow)][-1:]
    return Recent(start, len(passed) - len(start), found[first:])


def title_before(span: AgentSpanRow, types: Registry) -> str:
    """Return the title of a span without its outcome, as it was before the span ended."""
    if span.status in OPEN:
        return title(span)
    payload = columns.read_payload(span.payload)[0]
    meaning = describe(
        types.resolve(span.schema_name), span.schema_name, "active", payload, None, None, check=(False, False)
    )
    return title(span._replace(summary=meaning.summary))


class Follower:
    """Follows one run from its start, then the next runs, one at a time.

    Args:
        run: the first run to follow; None for the first run after `after`.
        after: the id of a run; this run and all earlier ones are skipped.
    """

    def __init__(self, storage: Storage, run: AgentInstanceRow | None = None, *, after: str = "") -> None:
        self._storage = storage
        self._after = after
        self.run = run
        self._run_status: str | None = None
        self._counts: SpanCounts | None = None
        self._known: dict[str, str] = {}
        self._depths: dict[str, int] = {}

    def look(self) -> list[Transition]:
        """Return the transitions since the previous call. Rows written during a call are returned by the next one."""
        if self.run is None and not self._begin_next():
            return []
        assert self.run is not None
        run_id = self.run.id  # read the run before its spans, so that a finished run has all its spans
        located = self._storage.ask(Find(run_id, instance_id=run_id)).rows.get(run_id)
        if located is None or not isinstance(located[1], AgentInstanceRow):
            self.leave()
            return []
        self.run = run = located[1]
        found = [*self._of_run(run), *self._of_spans(run)]
        # At equal times, the start of a run sorts before its spans, and the end of a run after them.
        found.sort(key=lambda t: (t.at, _ends_run(t), not isinstance(t.row, AgentInstanceRow), t.depth))
        return found

    def is_over(self) -> bool:
        """Return whether the followed run has ended and has no open span."""
        counts = self._counts
        return (
            self.run is not None
            and self.run.status not in OPEN
            and counts is not None
            and not counts.pending
            and not counts.active
        )

    def leave(self) -> None:
        """Stop following the current run; the next call of `look` starts with the next run."""
        if self.run is not None:
            self._after = self.run.id
        self.run = self._run_status = self._counts = None
        self._known.clear()
        self._depths.clear()

    def _begin_next(self) -> bool:
        self.run = next(scan(self._storage, AgentInstanceRow, after=self._after, limit=1), None)
        return self.run is not None

    def _of_run(self, run: AgentInstanceRow) -> Iterator[Transition]:
        before, self._run_status = self._run_status, run.status
        yield from (Transition(at, status, run, 0) for at, status in _since(run, before))

    def _of_spans(self, run: AgentInstanceRow) -> Iterator[Transition]:
        # Statuses only move forward, so equal counts mean that no status changed, and no span needs to be read.
        counts = self._storage.ask(Counts([run.id]))[run.id]
        if counts == self._counts:
            return
        self._counts = counts
        for span in self._storage.ask(SpansOf(run.id)):
            before = self._known.get(span.id)
            if before == span.status:
                continue
            self._known[span.id] = span.status
            depth = self._depths.get(span.parent_span_id or "", -1) + 1
            self._depths[span.id] = depth
            yield from (Transition(at, status, span, depth) for at, status in _since(span, before))


def _ends_run(transition: Transition) -> bool:
    return isinstance(transition.row, AgentInstanceRow) and transition.status not in OPEN


def _since(row: AgentInstanceRow | AgentSpanRow, before: str | None) -> Iterator[tuple[str, str]]:
    """Yield the time and status of each change of a row since the status `before`; of all changes if it is None."""
    if row.status == "pending" and before is None:
        yield row.inserted_at, "pending"
    if row.started_at is not None and before in (None, "pending") and row.status != "cancelled":
        yield row.started_at, "active"
    if row.status not in OPEN:
        yield row.finished_at or row.updated_at, row.status


class _Tail:
    """Prints the transitions of runs as they happen, or collects them for the document of `--json`.

    Args:
        at: the time from which on all transitions are printed, as stored text; "" for all.
        context: the number of earlier transitions of a run that are printed, too.
        is_quiet: collect the transitions without printing them.
    """

    def __init__(self, database: Database, at: str, *, context: int, is_quiet: bool) -> None:
        self._database = database
        self._at = at
        self._context = context
        self._is_quiet = is_quiet
        self._types = StoredSpanTypes()
        self._seen: list[Transition] = []
        self._run: AgentInstanceRow | None = None

    def follow(self, follower: Follower, *, one: bool, waiting: str = NEXT) -> None:
        """Print the transitions of a run, then those of later runs, until Ctrl-C; with `one`, only of one run.

        Args:
            waiting: the message for stderr when there is no run to follow.
        """
        asked = follower.run
        known: str | None = None
        is_told = False
        while True:
            began = time.monotonic()
            found = follower.look()
            self._run = run = follower.run
            if run is None and not is_told:
                click.echo(waiting, err=True)
                waiting = NEXT
            is_told = run is None
            if run is not None and run.id != known:
                known = run.id
                is_past = run.status not in OPEN and all(transition.at < self._at for transition in found)
                if asked is None or run.id == asked.id or not is_past:  # skip later runs that ended before `at`
                    self._show(recent(found, self._at, self._context))
            else:
                self._show(Recent([], 0, found))
            is_dead = not found and run is not None and run.status in OPEN and _is_dead(self._database, run)
            if run is not None and (follower.is_over() or is_dead or (not found and run.status not in OPEN)):
                if is_dead and not self._is_quiet:
                    doctor = to_copy("doctor")
                    click.echo(f"run {run.id}: its program died; `{doctor}` closes what it left open")
                if one:
                    return
                follower.leave()
                continue
            time.sleep(max(EVERY_S, SHARE * (time.monotonic() - began)))

    def _show(self, some: Recent) -> None:
        if self._is_quiet:
            self._seen += some.shown
            return
        for transition in some.run:
            click.echo(self._line(transition))
        if some.passed:
            text = f"… {noun(some.passed, 'earlier line')}; --all prints each"
            click.echo(style(" " * 15 + text, fg="bright_black"))
        for transition in some.shown:
            click.echo(self._line(transition))

    def _line(self, transition: Transition) -> str:
        """Return a transition as one line: time, title and result. The line for the start of a span has no result."""
        at, status, row, depth = transition
        columns, mark = width(), status_style(MARKS[status], status)
        if isinstance(row, AgentInstanceRow):
            storage = self._database.storage
            if status in OPEN:
                text = f"run {row.id} {run_name(*names_of(storage, [row])[row.id])}"
            else:
                verdict = verdicts_on(storage, [row], outcome_rule(None))[row.id]
                mark = verdict_style(verdict.mark, verdict, status)
                text = f"run {row.id} {verdict.text}, {noun(storage.ask(Counts([row.id]))[row.id].total, 'span')}"
            error = run_error(row) if status == "failed" else None
        else:
            text = "  " * min(depth + 1, columns // 8) + self._title(row, status)
            error = error_of(status, row.result_payload)
        end = (
            "" if row.duration_ms is None or status in OPEN or status == "cancelled" else duration_text(row.duration_ms)
        )
        indent = text[: len(text) - len(text.lstrip(" "))]
        shown = indent + fit(text, max(8, columns - 15 - len(indent) - (len(end) + 2 if end else 0)))
        line = f"{local(at).isoformat(timespec='milliseconds')[11:23]} {mark} "
        line += style(shown, bold=True) if isinstance(row, AgentInstanceRow) else shown
        line += f"  {end}" if end else ""
        if error and error not in text:
            line += f"\n{' ' * 15}{indent}" + status_style(fit(error, max(8, columns - 15 - len(indent))), "failed")
        return line

    def _title(self, span: AgentSpanRow, status: str) -> str:
        """Return the title of a span for the line of a transition: without an outcome if the status is open."""
        if status not in OPEN:
            return title(span)
        return title_before(span, self._types.of(self._database.storage, span.agent_instance_id))

    def plain(self) -> dict[str, object]:
        """Return the document of `--json`."""
        seen, run = self._seen, self._run
        return {
            "run": None if run is None else plain_rows(self._database.storage, [run])[0],
            "transitions": [
                {
                    "at": t.at,
                    "id": t.row.id,
                    "type": "agent_instance" if isinstance(t.row, AgentInstanceRow) else "agent_span",
                    "status": t.status,
                    "summary": None if isinstance(t.row, AgentInstanceRow) else self._title(t.row, t.status),
                    "depth": t.depth,
                }
                for t in seen
            ],
            "total": len(seen),
        }


def _first_since(database: Database, at: str) -> AgentInstanceRow | None:
    """Return the first run that started at a time or later; None without one. Runs are read from the latest back."""
    first = None
    for row in scan(database.storage, AgentInstanceRow, descending=True):
        if (row.started_at or row.inserted_at) < at:
            break
        first = row
    return first


def _is_dead(database: Database, run: AgentInstanceRow) -> bool:
    return Lives(database.storage).of(run.writer_id) == "dead"
