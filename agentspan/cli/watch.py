"""`agentspan watch` follows sessions as they grow, with or without a terminal; `serve --watch` does so in a thread."""

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from agentspan import clock, files
from agentspan.api.context import Context, Redacts
from agentspan.cli.app import command, db_option, location_in
from agentspan.cli.output import Failed, hint, local, safe, to_copy, utc_option, width
from agentspan.cli.sessions import WAIT_S, asked, choice_of, choice_options, importing, list_of, short_path, show_list
from agentspan.cli.settings_file import Change, read, write
from agentspan.errors import AgentspanError
from agentspan.host import Thread
from agentspan.model.rows import AgentInstanceRow
from agentspan.sessions import machine, unattended
from agentspan.sessions.formats import Format
from agentspan.sessions.importing import Importer
from agentspan.sessions.machine import Choice, Place
from agentspan.sessions.reading import plain_path
from agentspan.sessions.registry import formats
from agentspan.sessions.watching import Event, Watcher
from agentspan.storage.access import unique
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.text import dotted, noun, one_line

EACH_S = 10.0
"""The seconds between two lines about the growth of one session."""
TITLE = 48
"""The most characters of a session's task in a line."""
_DONE = "it is installed already"
_NOWHERE = "neither Claude Code nor systemd was found here, so there is nothing to install"
END_S = 2.0
"""The seconds that the thread of a server gets to finish the file it reads."""


@command("watch")
@click.argument("names", metavar="[SOURCE...]", nargs=-1)
@choice_options
@click.option("-q", "--quiet", is_flag=True, help="Print only faults.")
@click.option("--yes", is_flag=True, help="Begin without asking.")
@click.option("--unattended", is_flag=True, help="Print what follows sessions without a terminal; install it.")
@click.option("--remove", is_flag=True, help="With --unattended: take it out again.")
@utc_option
@db_option
@click.pass_context
def watch_command(
    ctx: click.Context,
    /,
    names: tuple[str, ...],
    db: str | None,
    *,
    quiet: bool,
    yes: bool,
    unattended: bool,
    remove: bool,
    **how: Any,
) -> None:
    """Follow the sessions of coding agents as they grow, until Ctrl-C.

    SOURCE is a format, such as claude or codex, or a file or folder, or all. Without one, the sessions of this machine
    are listed, and followed after a yes.
    """
    if remove and not unattended:
        raise click.UsageError("--remove goes with --unattended")
    known, choice = formats(), choice_of(**how)
    places = machine.places(names, known, os.environ)
    if unattended:
        _unattended(location_in(ctx, db), names, _chosen_words(**how), yes=yes, remove=remove)
        return
    ask(ctx, db, names, known, places, choice, yes=yes, what=to_copy("watch", "all"))
    _follow(ctx, db, known, places, choice, quiet=quiet)


def ask(
    ctx: click.Context,
    db: str | None,
    names: Sequence[str],
    known: Mapping[str, Format],
    places: Sequence[Place],
    choice: Choice,
    *,
    yes: bool,
    what: str,
) -> None:
    """List the sessions and ask whether to import them, unless formats or paths were named.

    Raises:
        SystemExit: there is no terminal (2), or the answer is no (1).
    """
    if names or yes:
        return
    rows = list_of(ctx, db, machine.chosen_at(places, known, choice), known, choice)
    show_list(rows)
    asked(rows, what)


def _follow(
    ctx: click.Context,
    db: str | None,
    known: Mapping[str, Format],
    places: Sequence[Place],
    choice: Choice,
    *,
    quiet: bool,
) -> None:
    stop = _on_signals()
    try:
        with importing(ctx, db, known, follows=True, wanted=choice.wanted) as importer:
            lines = Lines(importer, quiet=quiet)
            if not quiet:
                click.echo(f"following {noun(len(places), 'place')}; Ctrl-C ends it")
            watcher = Watcher(importer, known, places, choice, report=lines.report, complain=lines.complain, stop=stop)
            watcher.run()
    except KeyboardInterrupt:
        pass
    if not quiet:
        click.echo("ended; what was seen is stored, and the next watch goes on from there", err=True)


def _on_signals() -> Callable[[], bool]:
    """Handle SIGINT and SIGTERM: the first one ends the watcher after the file that it reads, the second one at once.

    Returns:
        A function that returns whether one has come.
    """
    came: list[int] = []

    def handle(number: int, frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return lambda: bool(came)


class Lines:
    """Prints a line for each session that begins, grows or ends, and one for each fault.

    Args:
        importer: knows the storage, for the tasks of runs.
        quiet: print only faults.
    """

    def __init__(self, importer: Importer, *, quiet: bool) -> None:
        self._storage: Storage = importer.storage
        self._quiet = quiet
        self._last: dict[Path, float] = {}
        self._more: dict[Path, int] = {}

    def report(self, event: Event) -> None:
        """Print an event. Growth of one session is printed at most every EACH_S seconds."""
        if self._quiet:
            return
        path = event.source.path
        steps = self._more.pop(path, 0) + event.steps
        if event.kind == "grew" and time.monotonic() - self._last.get(path, 0.0) < EACH_S:
            self._more[path] = steps
            return
        self._last[path] = time.monotonic()
        run = None if event.run is None else unique(self._storage, AgentInstanceRow, id=event.run)
        title = short_path(str(path), TITLE) if run is None else one_line(run.task or plain_path(path).stem, TITLE)
        text = dotted(f"{event.source.format}: {safe(title)}", noun(steps, "step") if steps else "", event.run or "")
        click.echo(f"{local(clock.now()):%H:%M:%S} {event.kind:<5} {text}")
        if event.kind == "ended":
            self._last.pop(path, None)

    def complain(self, fault: str) -> None:
        """Print a fault."""
        click.echo(f"{local(clock.now()):%H:%M:%S} {safe(fault)}", err=True)


class WatchThread:
    """Follows sessions in a thread of a server, with a connection of its own to the storage.

    Args:
        location: where the steps are stored.
        names: formats and paths; none for all formats.
        redacts: removes credentials from what is stored; None removes none.
    """

    def __init__(self, location: Location, names: Sequence[str], redacts: Redacts | None) -> None:
        self._location = location
        self._formats = formats()
        self._places = machine.places(names, self._formats, os.environ)
        self._redacts = redacts
        self._ending = threading.Event()
        self._thread = Thread(target=self._run, name="agentspan-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the file that it reads, but wait at most END_S seconds."""
        self._ending.set()
        self._thread.join(END_S)

    def _run(self) -> None:
        from agentspan.database import open

        try:
            with open(self._location) as database:
                ctx = Context(database.storage, redacts=self._redacts, wait_s=WAIT_S)
                importer = Importer(ctx, self._formats, follows=True)
                lines = Lines(importer, quiet=True)
                Watcher(
                    importer,
                    self._formats,
                    self._places,
                    Choice(),
                    report=lines.report,
                    complain=lines.complain,
                    stop=self._ending.is_set,
                ).run()
        except AgentspanError as error:
            click.echo(f"sessions are no longer followed: {safe(str(error))}", err=True)


def _chosen_words(since: str | None, projects: Sequence[str], excluded: Sequence[str]) -> list[str]:
    if since is not None:
        raise click.UsageError("--since does not go with --unattended")
    words = [word for each in projects for word in ("--project", each)]
    return [*words, *(word for each in excluded for word in ("--exclude-project", each))]


def _unattended(location: Location, names: Sequence[str], chosen: Sequence[str], *, yes: bool, remove: bool) -> None:
    """Print the hook and the unit, and install or remove them after a yes."""
    if location.path is None:
        raise Failed("--unattended is for a file: a URL with its password does not belong into settings")
    settings, unit = unattended.settings_path(os.environ), unattended.unit_path(os.environ)
    if not remove:
        unit = Path(os.path.realpath(unit))  # it may be a link into a repository
    known = formats()
    words = [os.path.abspath(name) if os.path.exists(name) and name not in known else name for name in names]
    hook, text = unattended.hook_of(location.path, chosen), unattended.unit_of(location.path, words, chosen)
    plan = _plan(settings, unit, hook, text, has_systemd=shutil.which("systemctl") is not None, remove=remove)
    if not plan:
        is_there = unit.exists() or settings.exists()
        click.echo("nothing is installed" if remove else _DONE if is_there else _NOWHERE)
        return
    for path, _, content in plan:
        click.echo(f"{safe(str(path))}: {'is removed' if content is None else ''}".rstrip())
        if content is not None:
            click.echo("".join(f"  {line}\n" for line in _shown(path, unit, hook, content, remove).splitlines()))
    if not yes:
        if not sys.stdin.isatty():
            click.echo("nothing was changed; --yes changes it", err=True)
            raise SystemExit(2)
        if not click.confirm("Remove it?" if remove else "Install it?", default=False):
            raise SystemExit(1)
    for change in plan:
        if change.path != unit and change.before is not None and not unattended.has_hook(change.before):
            _copy(change)
        write(change)
    verb = "disable" if remove else "enable"
    for line in hint(f"to {'end' if remove else 'begin'}", f"systemctl --user {verb} --now {unattended.UNIT}", width()):
        if any(change.path == unit for change in plan):
            click.echo(line)


def _shown(path: Path, unit: Path, hook: Mapping[str, Any], content: str, remove: bool) -> str:
    """Return the text that is printed for a change; for a change of settings, only the hook."""
    if path == unit:
        return content
    if remove:
        return "without the hook of agentspan; all else stays"
    return json.dumps({"hooks": {unattended.EVENT: [hook]}}, indent=2) + "\nis added; all else stays"


def _plan(
    settings: Path, unit: Path, hook: dict[str, Any], text: str, *, has_systemd: bool, remove: bool
) -> list[Change]:
    """Return the files to write, or to remove.

    Raises:
        Failed: a file cannot be read, or the settings are no JSON object.
    """
    plan: list[Change] = []
    text_before = read(settings)
    before = _settings_of(settings, text_before)
    after = unattended.without_hook(before) if remove else unattended.with_hook(before, hook)
    if after != before and settings.parent.is_dir():  # without the folder there is no Claude Code
        plan.append(
            Change(
                Path(os.path.realpath(settings)), text_before, json.dumps(after, indent=2, ensure_ascii=False) + "\n"
            )
        )
    unit_before, unit_after = read(unit), None if remove else text
    if unit_before != unit_after and (has_systemd or remove):
        plan.append(Change(unit, unit_before, unit_after))
    return plan


def _settings_of(path: Path, text: str | None) -> dict[str, Any]:
    try:
        found = {} if text is None else json.loads(text)
    except (ValueError, RecursionError):
        raise Failed(f"{path} is no JSON, so it is not changed") from None
    if not isinstance(found, dict):
        raise Failed(f"{path} is no JSON object, so it is not changed")
    return found


def _copy(change: Change) -> None:
    """Keep the settings as they were before, in a file beside them.

    Raises:
        Failed: the copy cannot be written.
    """
    try:
        with files.replacing(change.path.with_name(f"{change.path.name}.before-agentspan"), "wb") as file:
            file.write((change.before or "").encode())
    except OSError as error:
        raise Failed(f"{change.path} cannot be copied, so it is not changed: {error.strerror}") from None
