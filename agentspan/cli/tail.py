"""`agentspan tail`: prints a line for each transition as it happens, in any process."""

import time

import click

from agentspan import clock, jsontext
from agentspan.analysis import filter_words, id_prefixes
from agentspan.analysis.following import Follower, Recent, Transition, recent, title_before
from agentspan.cli.app import command, reads
from agentspan.cli.output import (
    MARKS,
    document,
    fit,
    local,
    noun,
    status_style,
    style,
    to_copy,
    utc_option,
    width,
    zone,
)
from agentspan.cli.runs import name_of
from agentspan.cli.tree import TITLE, title
from agentspan.database import Database
from agentspan.journal.stored_span_types import StoredSpanTypes
from agentspan.journal.writers import Lives
from agentspan.model.rows import AccountRow, AgentInstanceRow, AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.schemas.meaning import error_text
from agentspan.storage.questions import Account, Counts, Query
from agentspan.storage.row_by_row import labels_of, names_of
from agentspan.text import duration_text

EVERY_S = 0.2
SHARE = 5
"""The pause between two polls, as a multiple of the time of a poll, so that a large run does not keep a core busy."""
LOOKED_AT = 200
"""The number of runs per query in the search for the first run since a time."""
CONTEXT = 10
"""The largest number of transitions from before the start of the command that are printed for a run."""


@command("tail")
@click.argument("run", required=False)
@click.option("--one", is_flag=True, help="End when the run does, instead of waiting for the next one.")
@click.option("--all", "whole", is_flag=True, help="Begin with the start of the run, instead of its last lines.")
@click.option("--since", metavar="TIME", help="Begin at this time: 90s, 15m, 2h ago; 02:00, yesterday, 2026-11-24 …")
@utc_option
@reads
def tail_command(
    database: Database, *, run: str | None, one: bool, whole: bool, since: str | None, as_json: bool
) -> None:
    """Follow runs from now on until Ctrl-C, or until the end of one."""
    if whole and since is not None:
        raise click.UsageError("--all and --since exclude each other")
    at = None if since is None else filter_words.parse_time(since, zone=zone())
    if at is not None:
        tail = _Tail(database, at, context=0, is_quiet=as_json)
    else:
        tail = _Tail(database, "" if whole or as_json else clock.now(), context=CONTEXT, is_quiet=as_json)
    storage = database.storage
    if run is not None:
        follower = Follower(storage, id_prefixes.find_run(storage, run))
    elif at is not None and (first := _first_since(database, at)) is not None:
        follower = Follower(storage, first)
    else:
        latest = storage.ask(Query("agent_instance", descending=True, limit=1)).rows
        row = latest[0] if latest else None
        is_live = isinstance(row, AgentInstanceRow) and row.status in OPEN and not _is_dead(database, row)
        follower = (
            Follower(storage, id_prefixes.find_run(storage, id_prefixes.LATEST))
            if is_live
            else Follower(storage, after=_id(row))
        )
        if not is_live and not as_json:
            click.echo("waiting for a run", err=True)
    try:
        tail.follow(follower, one=one or as_json)
    except KeyboardInterrupt:
        pass
    if as_json:
        document(tail.plain())


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

    def follow(self, follower: Follower, *, one: bool) -> None:
        """Print the transitions of a run, then those of later runs, until Ctrl-C; with `one`, only of one run."""
        asked = follower.run
        known: str | None = None
        while True:
            began = time.monotonic()
            found = follower.look()
            self._run = run = follower.run
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
        columns = width()
        if isinstance(row, AgentInstanceRow):
            storage = self._database.storage
            if status in OPEN:
                text = f"run {row.id} {name_of(names_of(storage, [row])[row.id])}"
            else:
                text = f"run {row.id} {status}, {noun(storage.ask(Counts([row.id]))[row.id].total, 'span')}"
            result = row.error and {"error": jsontext.decode(row.error)}
        else:
            text = "  " * min(depth + 1, columns // 8) + self._title(row, status)
            result = jsontext.decode(row.result_payload) if status == "failed" and row.result_payload else None
        end = (
            "" if row.duration_ms is None or status in OPEN or status == "cancelled" else duration_text(row.duration_ms)
        )
        error = error_text(result) if status == "failed" and isinstance(result, dict) else None
        indent = text[: len(text) - len(text.lstrip(" "))]
        shown = indent + fit(text, max(8, columns - 15 - len(indent) - (len(end) + 2 if end else 0)))
        line = f"{local(at).isoformat(timespec='milliseconds')[11:23]} {status_style(MARKS[status], status)} "
        line += style(shown, bold=True) if isinstance(row, AgentInstanceRow) else shown
        line += f"  {end}" if end else ""
        if error is not None and error not in text:
            line += f"\n{' ' * 15}{indent}" + status_style(fit(error, max(8, columns - 15 - len(indent))), "failed")
        return line

    def _title(self, span: AgentSpanRow, status: str) -> str:
        """Return the title of a span for the line of a transition: without an outcome if the status is open."""
        if status not in OPEN:
            return title(span)
        return title_before(span, self._types.of(self._database.storage, span.agent_instance_id), TITLE)

    def _plain_run(self, run: AgentInstanceRow, account: AccountRow) -> dict[str, object]:
        from agentspan.api import envelopes  # imported late: Pydantic takes 80 ms

        storage = self._database.storage
        counts, labels = storage.ask(Counts([run.id]))[run.id]._asdict(), labels_of(storage, [run.id])[run.id]
        return envelopes.plain(envelopes.instance(run, account, counts, **labels._asdict()))

    def plain(self) -> dict[str, object]:
        """Return the document of `--json`."""
        storage, seen, run = self._database.storage, self._seen, self._run
        account = storage.ask(Account())
        return {
            "run": None if run is None else self._plain_run(run, account),
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
    first: AgentInstanceRow | None = None
    while True:
        query = Query("agent_instance", descending=True, limit=LOOKED_AT, after="" if first is None else first.id)
        rows = [row for row in database.storage.ask(query).rows if isinstance(row, AgentInstanceRow)]
        for row in rows:
            if (row.started_at or row.inserted_at) < at:
                return first
            first = row
        if len(rows) < LOOKED_AT:
            return first


def _id(row: object) -> str:
    return row.id if isinstance(row, AgentInstanceRow) else ""


def _is_dead(database: Database, run: AgentInstanceRow) -> bool:
    return Lives(database.storage).of(run.writer_id) == "dead"
