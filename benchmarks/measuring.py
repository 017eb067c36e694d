"""What the benchmarks share: turns in processes of their own, what machine this is, medians, and a progress bar."""

import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import click

QUERY, OUTPUT = "x" * 250, "y" * 280
PAYLOAD = {"name": "search", "arguments": {"query": QUERY}}
RESULT = {"output": OUTPUT}


def machine() -> str:
    """Return the versions, and how busy the machine is: other programs make every figure larger."""
    load = "/".join(f"{load:.1f}" for load in os.getloadavg())
    return (
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}, "
        f"{os.cpu_count()} processors, load {load}"
    )


def turn(script: str, *args: object) -> Any:
    """Run a script in a process of its own, and return what the last line that it prints says, as JSON.

    Alone in its process, a contestant has no threads of another one's beside it.
    """
    command = [sys.executable, script, *map(str, args)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def medians(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure that the turns of one contestant gave."""
    return {name: statistics.median(each[name] for each in turns) for name in turns[0]}


def verdict(what: str, value: float, bound: float, unit: str = "×", *, at_least: bool = False) -> str:
    """Say how a figure compares with what is wanted of it."""
    is_met = value >= bound if at_least else value <= bound
    sign = "≥" if at_least else "≤"
    return f"{what:<60}{value:8.2f} {unit:<3} wanted {sign} {bound:g} {unit}: {'met' if is_met else 'MISSED'}"


def bar(steps: Iterable[Any], label: str) -> AbstractContextManager[Iterable[Any]]:
    """Show on a terminal's stderr how far it is."""
    steps = list(steps)
    return click.progressbar(steps, label=label, file=sys.stderr, hidden=not sys.stderr.isatty())


def resident_mib() -> float:
    """Return how much memory this process has now, with what is mapped of files (Linux)."""
    return _status("VmRSS")


def anonymous_mib() -> float:
    """Return how much of that is no part of any file (Linux)."""
    return _status("RssAnon")


def _status(name: str) -> float:
    with open("/proc/self/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file)
    return int(fields[name].split()[0]) / 1024
