"""`agentspan open`: opens the viewer in a browser, from a running server of the file or from one that it starts."""

import os
import re
import subprocess
import sys
import tempfile
import time
import webbrowser
from pathlib import Path
from typing import IO

import click

import agentspan
from agentspan.analysis import by_name
from agentspan.cli.app import command, location_in, opened_existing, options
from agentspan.cli.completion import RUN
from agentspan.cli.output import Failed, answer, safe, to_copy
from agentspan.host import guard
from agentspan.journal.writers import life_of
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.serve.running import running
from agentspan.storage.location import ENVIRONMENT, Location

IDLE = "2h"
"""How long a server in the background waits for a request before it ends."""
START_S = 30.0
"""Seconds within which a server starts, also on a busy machine."""
END_S = 10.0
"""Seconds within which a server ends: it gives running requests 2.5 s."""
LOOK_S = 0.05
_ADDRESS = re.compile(rb" on (http://\S+) ")
_PROGRAM = (
    "import sys; sys.path.append(sys.argv.pop(1)); sys.argv[0] = 'agentspan'; from agentspan.cli import main; main()"
)
"""Not `-m agentspan`: that would import modules from the current folder first."""


@command("open")
@click.argument("run", required=False, type=RUN)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@click.option("--stop", is_flag=True, help="End the server of this file that runs in the background.")
@options
@click.pass_context
def open_command(
    ctx: click.Context, /, db: str | None, *, run: str | None, no_browser: bool, stop: bool, as_json: bool
) -> None:
    """Open the viewer in a browser: the list of runs, or the page of RUN.

    It is that of a running `serve` of this file, if there is one. Else a server is started in the background, which
    only this machine can reach. It ends by itself after two hours without a request.
    """
    location = location_in(ctx, db).absolute()
    if stop:
        if run is not None:
            raise click.UsageError("--stop ends a server; it takes no RUN")
        _stop(location, as_json=as_json)
        return
    with opened_existing(ctx, db, read_only=True) as database:
        page = "" if run is None else _page(by_name.find_run_or_span(database.storage, run))
    found = next(running(location), None)
    url = (_start(location) if found is None else found.url) + f"/{page}"
    can_open = not (no_browser or as_json) and has_browser()
    note = "" if can_open or as_json else "open it in a browser"
    started = f"a server runs in the background until it was idle for {IDLE}; `{to_copy('open', '--stop')}` ends it"
    lines = (f"{url}{f'  ({note})' if note else ''}", "" if found is not None else started)
    answer({"url": url, "started": found is None}, *lines, as_json=as_json)
    if can_open:
        webbrowser.open(url)


def has_browser() -> bool:
    """Return whether a browser with windows can be opened. A text browser in the terminal cannot show the viewer."""
    if sys.platform in ("darwin", "win32") or os.environ.get("BROWSER"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _page(found: AgentInstanceRow | AgentSpanRow) -> str:
    """Return the address of the page of a run, or of a step in it, below that of the server."""
    if isinstance(found, AgentSpanRow):
        return f"runs/{found.agent_instance_id}#span={found.id}"
    return f"runs/{found.id}"


def _start(location: Location) -> str:
    """Start a server in the background, and return its address.

    Its session is its own, so that it outlives this terminal. The storage is named in the environment, because a URL
    may have a password, and all users can read the arguments of a process.
    """
    place = str(Path(agentspan.__file__).parents[1])
    command = [sys.executable, "-P", "-c", _PROGRAM, place, "serve", "--port", "0", "--idle", IDLE, "--in-background"]
    environment = {**os.environ, ENVIRONMENT: location.text}
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
        )
        url = _address(process, said)
    process.returncode = 0  # it goes on: without this, Python warns of a process that nobody has waited for
    return url


def _address(process: "subprocess.Popen[bytes]", said: IO[bytes]) -> str:
    until = time.monotonic() + START_S
    while True:
        has_ended = process.poll() is not None
        said.seek(0)
        text = said.read()
        address = _ADDRESS.search(text)
        if address is not None and not has_ended:
            return address[1].decode()
        if has_ended or time.monotonic() > until:
            process.kill()
            process.wait()
            last = text.decode(errors="replace").strip().rpartition("\n")[2].removeprefix("Error: ")
            raise Failed(safe(last or "the server did not start"))
        time.sleep(LOOK_S)


def _stop(location: Location, *, as_json: bool) -> None:
    """End the servers of a storage that `open` has started; those that a person has started are left."""
    import signal

    mine = [each for each in running(location) if each.in_background]
    for each in mine:
        with guard(ProcessLookupError):
            os.kill(each.process.pid, signal.SIGTERM)
    until = time.monotonic() + END_S
    while any(life_of(server.process) == "alive" for server in mine) and time.monotonic() < until:
        time.sleep(LOOK_S)
    text = f"ended {mine[0].url}" if mine else "no server of this file runs in the background"
    answer({"stopped": [each.url for each in mine]}, text, as_json=as_json)
