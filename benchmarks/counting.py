"""Counts instructions of the processor, which other programs do not change: shared by the programs count_*.py.

A program under valgrind sets a mark before and after what it does, in turns, and prints what each turn was. Valgrind
writes down the counts at each mark, of each thread apart.
"""

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MARK = "getppid"
"""A function of the C library that nothing here needs: valgrind writes down its counts whenever it is called."""
SLOWER = 100
"""How many times as long a program takes under valgrind, about."""


def mark() -> None:
    """Begin or end a turn."""
    os.getppid()


def slow_clocks() -> None:
    """Make clocks as slow as valgrind makes the program, else a turn has what a program does once a second.

    To be called before the program is imported.
    """
    for clock in ("monotonic", "perf_counter", "time_ns"):
        _slow_down(clock)


def _slow_down(clock: str) -> None:
    tell = getattr(time, clock)
    start = tell()
    number = type(start)
    setattr(time, clock, lambda: start + number((tell() - start) / SLOWER))


def turns(command: Sequence[str], *, all_threads: bool = False) -> list[tuple[Any, int]]:
    """Run a command; return what its last line says of each turn, and the instructions of that turn.

    Args:
        command: prints a JSON list, an item for each turn.
        all_threads: count all threads; else the main one alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "counts")
        valgrind = ("valgrind", "--tool=callgrind", f"--dump-before={MARK}", f"--callgrind-out-file={out}")
        threads = () if all_threads else ("--separate-threads=yes",)
        # Else each byte of a `memset` of 2 KiB and more counts as an instruction, and none of a smaller one.
        vectors = "glibc.cpu.x86_rep_stosb_threshold=100000000:glibc.cpu.x86_rep_movsb_threshold=100000000"
        environment = {**os.environ, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "GLIBC_TUNABLES": vectors}
        try:
            done = subprocess.run(
                [*valgrind, *threads, *command], env=environment, capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise SystemExit("valgrind is needed: it counts the instructions (apt install valgrind)") from None
        if done.returncode:
            raise SystemExit(done.stderr)
        told = json.loads(done.stdout.splitlines()[-1])
        # Each turn lies between two marks: files 2, 4, 6 … were written when one ended.
        suffix = "" if all_threads else "-01"
        return [(each, _count(Path(f"{out}.{2 * number + 2}{suffix}"))) for number, each in enumerate(told)]


def _count(path: Path) -> int:
    found = re.search(r"^(?:summary|totals): (\d+)", path.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
