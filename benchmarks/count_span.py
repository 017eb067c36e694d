"""Counts the instructions that a recorded step takes: in its caller, and until it is in the file.

Instructions do not depend on what else runs, and differ by 0.2 % from one run to the next. So they show whether a
change made recording dearer: run this with the interpreters of two checkouts. `valgrind` counts (Linux and macOS).

    python benchmarks/count_span.py [--base /path/to/other/checkout/.venv/bin/python]

A call is decorated, takes two arguments and returns a list. A block has 200 characters in and out; what it takes until
it is in the file is counted while nothing else is recorded, in one thread.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from counting import mark, slow_clocks, turns

ROUNDS = 5
IN, OUT = "x" * 200, "y" * 200
STORED = "block, until stored"
STEPS = {"call": 500, "call, commit": 500, "block": 500, STORED: 2000}
"""The kinds of steps, and how many are in a turn. All that are stored at once share what that costs."""


def configured(kind: str, path: Path) -> Any:
    """Return agentspan, which drains only when it is told to."""
    import agentspan

    more: dict[str, Any] = {"durability": "commit"} if kind.endswith("commit") else {}
    try:
        from agentspan.tuning import STANDARD

        tuning = STANDARD._replace(drain_tick_s=500.0)
        agentspan.configure(path, raise_errors=True, tuning=tuning, sync_every_s=None, **more)
    except (ImportError, TypeError):  # an older one
        if sink := sys.modules.get("agentspan.recording.journal_sink"):
            sink.TICK_S = 500.0  # type: ignore[attr-defined]
        agentspan.configure(path, raise_errors=True, **more)
    return agentspan


def child(kind: str, path: Path) -> None:
    """Record steps of one kind in turns, and print the number of each."""
    slow_clocks()
    agentspan: Any = configured(kind, path)

    @agentspan.span  # type: ignore[untyped-decorator]
    def call(query: str, limit: int) -> list[Any]:
        return [query, limit]

    def block() -> None:
        with agentspan.span("tool", {"name": "t", "text": IN}) as span:
            span.set_result({"text": OUT})

    step: Callable[[], object] = block if kind.startswith("block") else lambda: call("hello", 3)
    gc.collect()
    gc.freeze()
    told: list[int] = []
    with agentspan.run("bench"):
        for number in range(ROUNDS + 1):
            mark()
            for _ in range(STEPS[kind]):
                step()
            if kind == STORED:
                agentspan.flush()
            mark()
            agentspan.flush()
            told.append(number)
    print(json.dumps(told), flush=True)
    os._exit(0)


def counted(python: str, kind: str) -> float:
    """Return the instructions of a step of a kind with the agentspan of an interpreter: the median of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "agentspan.db")
        found = turns((python, __file__, "--child", kind, "--file", str(path)))
    return statistics.median(count for number, count in found if number) / STEPS[kind]  # the first round warms up


def main() -> None:
    """Count, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="an interpreter with another agentspan, to compare with")
    parser.add_argument("--child", metavar="KIND", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.file)
        return
    print(f"{'instructions of a step':<24}{'':>12}" + f"{'base':>12}{'ratio':>8}" * bool(options.base))
    for kind in STEPS:
        value, base = counted(sys.executable, kind), counted(options.base, kind) if options.base else 0
        print(f"{kind:<24}{value:>12,.0f}" + (f"{base:>12,.0f}{value / base:>8.3f}" if base else ""), flush=True)


if __name__ == "__main__":
    main()
