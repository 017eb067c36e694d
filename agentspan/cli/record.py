"""Runs a program, and records it: its exit code, signals, stdin and terminal are its own."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import click

from agentspan import clock
from agentspan.cli.output import Failed, argument, noun, safe
from agentspan.errors import AgentspanError
from agentspan.model.rows import AgentInstanceRow, AgentRow
from agentspan.otel.instruments.program import MARK
from agentspan.storage.location import ENVIRONMENT, Location
from agentspan.storage.protocol import Query

SITE = Path(__file__).parent.parent / "otel" / "site"
_PASSED_ON = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT")
"""Signals that are for this process alone, and are passed on; so is SIGINT, unless a terminal sends it to both."""
LOOK_S = 1.0
"""How often to look whether the program has ended: SIGCHLD may be blocked, by whoever started this process."""
MOST = 200


def command(location: Location, arguments: Sequence[str], *, module: str | None) -> None:
    """Run a program; end as it ended."""
    began = clock.now()
    code = _run(_command_line(arguments, module), _environment(location))
    try:
        click.echo(f"agentspan: {_said(location, began)}", err=True)
    except OSError:  # nobody reads stderr, or it is full: the program's exit code says more than that
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # else Python writes it again when it ends, and exits with 120
    if code < 0:  # killed by a signal: end by the same, which is what a shell expects
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    raise SystemExit(code)


def _command_line(arguments: Sequence[str], module: str | None) -> list[str]:
    if module is not None:
        return [sys.executable, "-m", module, *arguments]
    if arguments and arguments[0].endswith(".py") and not os.access(arguments[0], os.X_OK):
        return [sys.executable, *arguments]
    return [*arguments]


def _environment(location: Location) -> dict[str, str]:
    site, before = str(SITE), os.environ.get("PYTHONPATH")
    path = site if not before else f"{site}{os.pathsep}{before}"
    return {**os.environ, "PYTHONPATH": path, ENVIRONMENT: str(location.absolute()), MARK: site}


def _run(command_line: Sequence[str], environment: dict[str, str]) -> int:
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        elif process.poll() is None:
            process.send_signal(number)

    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        signal.Signals[name]: pass_on for name in _PASSED_ON if hasattr(signal, name)
    }
    handlers[signal.SIGINT] = _do_nothing if _is_in_front() else pass_on
    # What is ignored stays so, in the program too, as `nohup` and shells want it.
    ours = [number for number in handlers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handlers[number]) for number in ours}
    try:
        with _signals() as signals:
            process = subprocess.Popen(command_line, env=environment)
            for number in early:
                process.send_signal(number)
            while signals is not None and process.poll() is None:
                if select.select([signals], [], [], LOOK_S)[0]:
                    os.read(signals, 4096)
            return process.wait()
    except OSError as error:
        raise Failed(f"cannot run {argument(command_line[0])}: {error.strerror}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals() -> Iterator[int | None]:
    """Yield a pipe to read, which gets a byte for each signal, also for the end of a child; None on Windows.

    A signal that comes just before a system call begins does not interrupt it: Python would call its handler when the
    program has ended. A byte in a pipe cannot be missed.
    """
    if not hasattr(signal, "SIGCHLD"):
        yield None
        return
    signals, given = os.pipe()
    os.set_blocking(given, False)
    before = signal.signal(signal.SIGCHLD, _do_nothing)
    given_before = signal.set_wakeup_fd(given, warn_on_full_buffer=False)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(given_before)
        signal.signal(signal.SIGCHLD, before)
        os.close(given)
        os.close(signals)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def _is_in_front() -> bool:
    """Return whether a terminal sends its signals to this process and to the program both."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _said(location: Location, began: str) -> str:
    """Return what was recorded since a time, and how to look at it."""
    from agentspan.database import open

    try:
        with open(location, read_only=True) as database:
            rows = database.storage.page(Query("agent_instance", order="id", descending=True, limit=MOST)).rows
            new = [row for row in rows if isinstance(row, AgentInstanceRow) and row.inserted_at >= began]
            agents = database.storage.find(*{row.agent_id for row in new}).rows
    except AgentspanError as error:
        return f"nothing was recorded ({error})"
    if not new:
        return "nothing was recorded; `agentspan instrument --list` shows what can be"
    last = new[0]
    agent = agents[last.agent_id][1]
    name = f" ({safe(agent.name)})" if isinstance(agent, AgentRow) else ""
    others = "" if len(new) == 1 else f"; {noun(len(new), 'run')} in all"
    return (
        f"run {last.id}{name} is in {location}{others}; look at it: agentspan --db {argument(location)} show {last.id}"
    )
