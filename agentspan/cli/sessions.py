"""`agentspan import --list` lists the sessions of this machine. `import` and `watch` share its options."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import compress
from typing import Any, TypeVar

import click

from agentspan import clock
from agentspan.analysis import filter_words
from agentspan.api.context import Context
from agentspan.arriving.arrival import Arrived
from agentspan.cli.app import command, location_in, opened, options
from agentspan.cli.output import (
    Failed,
    answer,
    bar,
    columns_of,
    document,
    echo_lines,
    fit_end,
    hint,
    local,
    safe,
    table,
    to_copy,
    utc_option,
    width,
    zone,
)
from agentspan.model.rows import SessionFileRow
from agentspan.sessions import machine
from agentspan.sessions.formats import Format, Source, home
from agentspan.sessions.importing import Importer, import_all, noted_path
from agentspan.sessions.machine import Choice, Listed
from agentspan.sessions.registry import formats
from agentspan.storage.access import scan
from agentspan.text import cost_text, dotted, noun, size_text

F = TypeVar("F", bound=Callable[..., Any])
CHOICE_NAMES = ("since", "projects", "excluded")
STATED_SHARE = 0.01
"""The difference of a stated cost from our own above which both are printed."""
MOST_LINES = 10
"""The most lines about files that could not be read."""
WAIT_S = 30.0
"""The seconds for which an import waits for other writers."""
_OTHER_COLUMNS = 64
"""The columns beside the project."""
_COUNT_COLUMNS = 10
"""The columns of a count that is left out if nothing has it."""


def choice_options(function: F) -> F:
    """Add the options that choose sessions to a command."""
    for names, help in (
        (("--exclude-project", "excluded"), "None of this folder, or below it; repeatable."),
        (("--project", "projects"), "Only of this folder, or below it: a path, a name, or a pattern; repeatable."),
    ):
        function = click.option(*names, metavar="GLOB", multiple=True, help=help)(function)
    return click.option("--since", metavar="TIME", help="Only sessions that went on since then: 7d, 2026-11-24.")(
        function
    )


def choice_of(since: str | None, projects: Sequence[str], excluded: Sequence[str]) -> Choice:
    """Return the choice of the options.

    Raises:
        InvalidValue: the time has no known form.
    """
    since_ns = 0
    if since is not None:
        since_ns = int(clock.to_datetime(filter_words.parse_time(since, zone=zone())).timestamp()) * 10**9
    return Choice(since_ns, tuple(projects), tuple(excluded))


@command("sessions")
@click.argument("names", metavar="[SOURCE...]", nargs=-1)
@choice_options
@utc_option
@options
@click.pass_context
def sessions_command(ctx: click.Context, /, names: tuple[str, ...], db: str | None, as_json: bool, **how: Any) -> None:
    """List the sessions of coding agents on this machine.

    Nothing is stored. SOURCE is a format, such as claude or codex, or a file or folder; without one, of all formats.
    EXPIRING is how many their product deletes within a week.
    """
    known, choice = formats(), choice_of(**how)
    sources = machine.chosen_at(machine.places(names, known, os.environ), known, choice)
    rows = list_of(ctx, db, sources, known, choice)
    if as_json:
        document(_plain(rows))
        return
    show_list(rows)
    if any(row.imported < row.sessions for row in rows):
        echo_lines(hint("import them", to_copy("import", *(names or ("all",))), width()))


def list_of(
    ctx: click.Context, db: str | None, sources: Sequence[Source], known: Mapping[str, Format], choice: Choice
) -> list[Listed]:
    """Return the rows of the list of sessions."""
    location = location_in(ctx, db)
    imported: set[tuple[str, str]] = set()
    if location.path is None or location.path.exists():
        with opened(ctx, db) as database:
            imported = {(row.format, row.path) for row in scan(database.storage, SessionFileRow)}

    def is_imported(source: Source) -> bool:
        return (source.format, noted_path(source.path)) in imported

    return machine.listed(sources, known, os.environ, is_imported, clock.wall_ns(), choice)


def _plain(rows: Sequence[Listed]) -> dict[str, Any]:
    found = []
    for row in rows:
        values = row._asdict()
        first_ns, last_ns = values.pop("first_ns"), values.pop("last_ns")
        found.append({**values, "first": clock.to_text(first_ns), "last": clock.to_text(last_ns)})
    sums = {name: sum(each[name] for each in found) for name in ("sessions", "bytes", "expiring", "imported")}
    return {"projects": found, "total": sums}


def show_list(rows: Sequence[Listed]) -> None:
    """Print the list of sessions: for each product a line, then a row for each folder."""
    if not rows:
        found = "no sessions of coding agents were found on this machine; those of another folder"
        echo_lines(hint(found, to_copy("import", "FOLDER"), width()))
        return
    cells: list[list[str] | str] = []
    expiring = sum(row.expiring for row in rows)
    shown = [True] * 5 + [bool(expiring), any(row.imported for row in rows)]
    room = width() - _OTHER_COLUMNS + sum(_COUNT_COLUMNS for each in shown[5:] if not each)
    for title in dict.fromkeys(row.title for row in rows):
        own = [row for row in rows if row.title == title]
        cells.append(_total(title, own))
        cells += [[*compress(_cells(row, room), shown)] for row in own]
    header = ["PROJECT", "SESSIONS", "FIRST", "LAST", "SIZE", "EXPIRING", "IMPORTED"]
    table([*compress(header, shown)], cells, right={1, 4, 5, 6})
    if expiring:
        verb = "is" if expiring == 1 else "are"
        click.echo(f"{noun(expiring, 'session')} {verb} deleted by the product within a week; what is imported stays")


def _total(title: str, rows: Sequence[Listed]) -> str:
    sessions, size = sum(row.sessions for row in rows), sum(row.bytes for row in rows)
    return dotted(title, noun(sessions, "session"), noun(len(rows), "project"), size_text(size))


def _cells(row: Listed, room: int) -> list[str]:
    return [
        f"  {short_path(row.project, max(16, room) - 2)}",
        f"{row.sessions:,}",
        *(f"{local(clock.to_text(ns)):%Y-%m-%d}" for ns in (row.first_ns, row.last_ns)),
        size_text(row.bytes).replace(" bytes", " B").replace(" byte", " B"),
        f"{row.expiring:,}" if row.expiring else "",
        f"{row.imported:,}" if row.imported else "",
    ]


def short_path(path: str, columns: int) -> str:
    """Return a path with `~` for the home folder; of one that is too long, the end."""
    own = str(home(os.environ))
    path = safe(f"~{path[len(own) :]}" if f"{path}/".startswith(f"{own}/") else path)
    if columns_of(path) <= columns:
        return path
    return "…" + fit_end(path[::-1], columns - 1)[::-1].lstrip("…")


def asked(rows: Sequence[Listed], what: str) -> None:
    """Ask a person on a terminal whether the listed sessions may be imported.

    Args:
        what: the command that imports them without asking.

    Raises:
        SystemExit: there is no terminal (2), or the answer is no (1).
    """
    if not sys.stdin.isatty():
        click.echo(f"nothing was imported; to import them: {what}", err=True)
        raise SystemExit(2)
    count = sum(row.sessions for row in rows)
    if not click.confirm(f"Import {noun(count, 'session')}?", default=False):
        raise SystemExit(1)


def import_sessions(
    ctx: click.Context, db: str | None, names: Sequence[str], *, as_json: bool, yes: bool, again: bool, **how: Any
) -> None:
    """Import the sessions that arguments name, and print what is new; without arguments, list and ask first."""
    known, choice = formats(), choice_of(**how)
    sources = machine.chosen_at(machine.places(names, known, os.environ), known, choice)
    if not names and not yes:
        rows = list_of(ctx, db, sources, known, choice)
        document(_plain(rows)) if as_json else show_list(rows)
        if rows:
            asked(rows, to_copy("import", "all"))
    if not sources:
        looked = f"no sessions were found: {' '.join(names)}; known are those of {', '.join(known)}"
        answer({**plain_arrived(Arrived()), "problems": [], "unchanged": 0}, looked if names else "", as_json=as_json)
        return
    try:
        with importing(ctx, db, known, again=again, wanted=choice.wanted) as importer:
            todo = machine.in_order(sources, importer, known)
            stopped = _import(importer, todo, known)
    except KeyboardInterrupt:
        raise Stopped from None
    unchanged = len(sources) - len(todo)
    if as_json:
        document({**plain_arrived(importer.arrived), "problems": importer.problems, "unchanged": unchanged})
    else:
        show_arrived(importer, unchanged)
    if stopped:
        raise Stopped


class Stopped(Failed):
    """Ends a command that Ctrl-C has stopped."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("stopped; what is imported stays, and the same command goes on from there")


@contextmanager
def importing(ctx: click.Context, db: str | None, known: Mapping[str, Format], **how: Any) -> Iterator[Importer]:
    """Open the storage of a command, and yield an importer into it, with redaction as for data that clients send."""
    from agentspan.recording.capture.plain import SentRedaction

    with opened(ctx, db, read_only=False) as database:
        yield Importer(Context(database.storage, redacts=SentRedaction(), wait_s=WAIT_S), known, **how)


def _import(importer: Importer, sources: Sequence[Source], known: Mapping[str, Format]) -> bool:
    """Import sources with a progress bar; return whether Ctrl-C stopped it."""
    try:
        with bar("importing") as progress:
            for _ in import_all(importer, sources, known, progress):
                pass
    except KeyboardInterrupt:
        return True
    return False


def plain_arrived(arrived: Arrived) -> dict[str, Any]:
    """Return the counts of what was stored, in the form of a document."""
    return {
        "runs": len(arrived.runs),
        "grown": len(arrived.changed_runs),
        "steps": arrived.spans,
        "changed": arrived.changed,
        "inherited": arrived.inherited,
        "cost_usd": arrived.cost_usd,
        "stated": {
            model: {"stated_usd": stated, "own_usd": own} for model, (stated, own) in sorted(arrived.stated.items())
        },
        "no_price": dict(sorted(arrived.no_price.items())),
        "no_tokens": len(arrived.no_tokens),
        "no_text": len(arrived.no_text),
        "not_understood": dict(sorted(arrived.unread.items())),
    }


def show_arrived(importer: Importer, unchanged: int) -> None:
    """Print what was stored, what was not understood, the files that could not be read, and what to do next."""
    arrived = importer.arrived
    grown = f"{noun(len(arrived.changed_runs), 'run')} grown" if arrived.changed_runs else ""
    runs = dotted(noun(len(arrived.runs), "new run"), grown, noun(arrived.spans, "step"))
    click.echo(dotted(runs, cost_text(arrived.cost_usd) if arrived.cost_usd else ""))
    if unchanged:
        click.echo(f"{noun(unchanged, 'file')} unchanged")
    if importer.removed:
        sessions = noun(importer.removed, "session")
        click.echo(f"{sessions} left out, because the run was removed, as by prune; --again brings it back")
    if arrived.inherited:
        click.echo(f"{noun(arrived.inherited, 'step')} left out, because a session that was forked has them")
    echo_lines(f"{safe(model)}: {line}" for model, line in _cost_lines(arrived))
    if arrived.no_price:
        names = ", ".join(f"{safe(model)} ({noun(count, 'call')})" for model, count in sorted(arrived.no_price.items()))
        click.echo(f"without a price: {names}")
    lacking = [(len(arrived.no_tokens), "tokens"), (len(arrived.no_text), "text")]
    if any(count for count, _ in lacking):
        click.echo(f"calls of models {', '.join(f'without {what}: {count:,}' for count, what in lacking if count)}")
    if arrived.unread:
        most = sorted(arrived.unread.items(), key=lambda each: (-each[1], each[0]))
        click.echo(f"not understood: {', '.join(f'{count:,} × {safe(what)}' for what, count in most)}", err=True)
    show_problems(importer.problems)
    if arrived.runs or arrived.changed_runs:
        echo_lines(hint("look at them in a browser", to_copy("open"), width()))
        echo_lines(hint("or here", to_copy("runs"), width()))


def show_problems(problems: Sequence[str]) -> None:
    """Print one line for each file that could not be read, up to a limit."""
    for problem in problems[:MOST_LINES]:
        click.echo(f"not read: {safe(problem)}", err=True)
    if len(problems) > MOST_LINES:
        click.echo(f"not read: {noun(len(problems) - MOST_LINES, 'more file')}", err=True)


def _cost_lines(arrived: Arrived) -> Iterator[tuple[str, str]]:
    for model, (stated, own) in sorted(arrived.stated.items()):
        if abs(stated - own) > STATED_SHARE * max(stated, own):
            yield model, f"the sessions state {cost_text(stated)}, the price table gives {cost_text(own)}"
