"""`agentspan tail`: prints a line for each transition as it happens, in any process."""

import time

import click

from agentspan import jsontext
from agentspan.analysis import id_prefixes
from agentspan.analysis.following import Follower, Transition
from agentspan.analysis.runs import names_of
from agentspan.cli.output import MARKS, document, fit, noun, status_style, style, width
from agentspan.cli.runs import name_of
from agentspan.cli.tree import title
from agentspan.database import Database
from agentspan.figures import duration_text
from agentspan.model import resources
from agentspan.model.rows import AgentInstanceRow
from agentspan.model.status import OPEN
from agentspan.recovery.writers import Lives
from agentspan.schemas.meaning import error_text
from agentspan.storage.protocol import Query

EVERY_S = 0.2
SHARE = 5
"""How many times as long as a look takes is waited until the next one: a large run must not keep a core busy."""


def command(database: Database, what: str | None, *, one: bool, as_json: bool) -> None:
    """Follow runs until Ctrl-C, or until the end of one."""
    storage = database.storage
    if what is not None:
        follower = Follower(storage, id_prefixes.find_run(storage, what))
    else:
        latest = storage.page(Query("agent_instance", descending=True, limit=1)).rows
        run = latest[0] if latest else None
        is_live = isinstance(run, AgentInstanceRow) and run.status in OPEN and not _is_dead(database, run)
        follower = (
            Follower(storage, id_prefixes.find_run(storage, id_prefixes.LATEST))
            if is_live
            else Follower(storage, after=_id(run))
        )
        if not is_live and not as_json:
            click.echo("waiting for a run", err=True)
    seen: list[Transition] = []
    try:
        _follow(database, follower, one=one or as_json, seen=seen, is_quiet=as_json)
    except KeyboardInterrupt:
        pass
    if as_json:
        document(_plain(database, seen))


def _follow(database: Database, follower: Follower, *, one: bool, seen: list[Transition], is_quiet: bool) -> None:
    while True:
        began = time.monotonic()
        found = follower.look()
        if is_quiet:
            seen += found
        else:
            for transition in found:
                click.echo(_line(database, transition))
        run = follower.run
        is_dead = not found and run is not None and run.status in OPEN and _is_dead(database, run)
        if run is not None and (follower.is_over() or is_dead or (not found and run.status not in OPEN)):
            if is_dead and not is_quiet:
                click.echo(fit(f"run {run.id}: its program died; `agentspan doctor` closes what it left open", width()))
            if one:
                return
            follower.leave()
            continue
        time.sleep(max(EVERY_S, SHARE * (time.monotonic() - began)))


def _id(row: object) -> str:
    return row.id if isinstance(row, AgentInstanceRow) else ""


def _is_dead(database: Database, run: AgentInstanceRow) -> bool:
    return Lives(database.storage).of(run.writer_id) == "dead"


def _line(database: Database, transition: Transition) -> str:
    """Write a transition on a line: when, what, and how it ended."""
    at, status, row, depth = transition
    columns = width()
    if isinstance(row, AgentInstanceRow):
        if status in OPEN:
            text = f"run {row.id} {name_of(names_of(database.storage, [row])[row.id])}"
        else:
            text = f"run {row.id} {status}, {noun(database.storage.counts([row.id])[row.id].total, 'span')}"
        result = row.error and {"error": jsontext.decode(row.error)}
    else:
        text = "  " * min(depth + 1, columns // 8) + title(row)
        result = jsontext.decode(row.result_payload) if status == "failed" and row.result_payload else None
    end = "" if row.duration_ms is None or status in OPEN or status == "cancelled" else duration_text(row.duration_ms)
    error = error_text(result) if status == "failed" and isinstance(result, dict) else None
    indent = text[: len(text) - len(text.lstrip(" "))]
    shown = indent + fit(text, max(8, columns - 15 - len(indent) - (len(end) + 2 if end else 0)))
    line = f"{at[11:23]} {status_style(MARKS[status], status)} "
    line += style(shown, bold=True) if isinstance(row, AgentInstanceRow) else shown
    line += f"  {end}" if end else ""
    if error is not None and error not in text:
        line += f"\n{' ' * 15}{indent}" + status_style(fit(error, max(8, columns - 15 - len(indent))), "failed")
    return line


def _plain(database: Database, seen: list[Transition]) -> dict[str, object]:
    storage = database.storage
    account = storage.account()
    run = next((t.row for t in reversed(seen) if isinstance(t.row, AgentInstanceRow)), None)
    counts = {} if run is None else storage.counts([run.id])[run.id]._asdict()
    return {
        "run": None if run is None else resources.plain(resources.instance(run, account, counts)),
        "transitions": [
            {
                "at": t.at,
                "id": t.row.id,
                "type": "agent_instance" if isinstance(t.row, AgentInstanceRow) else "agent_span",
                "status": t.status,
                "summary": None if isinstance(t.row, AgentInstanceRow) else title(t.row),
                "depth": t.depth,
            }
            for t in seen
        ],
        "total": len(seen),
    }
