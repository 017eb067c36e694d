"""Counts the instructions that a recorded step takes: in its caller, and until it is in the file.

Instructions do not depend on what else runs, and differ by 0.2 % from one run to the next. So they show whether a
change made recording dearer: run this with the interpreters of two checkouts. `valgrind` counts (Linux and macOS).

    python benchmarks/count_span.py [--base /path/to/other/checkout/.venv/bin/python]

A call is decorated, takes two arguments and returns a list; a model call is a block that reports tokens. Those in
a run with a budget are compared with the same steps in a run without. A block has 200 characters in and out; what it
takes until it is in the file is counted while nothing else is recorded, in one thread.
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
STEPS = {"call": 500, "call, commit": 500, "block": 500, STORED: 2000, "model call": 500}
"""The kinds of steps, and how many are in a turn. All that are stored at once share what that costs."""
BUDGETS = {
    "call, budget of steps": "call",
    "call, budget of all sums": "call",
    "call, also of repeats": "call",
    "model call, budget of steps": "model call",
    "model call, budget of all sums": "model call",
}
"""Steps in a run with a budget, and the step without one that each is compared with."""


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

    def model_call() -> None:
        with agentspan.span("llm", {"model": "gpt-4.1", "messages": [{"role": "user", "content": IN}]}) as span:
            span.set_result({"output": OUT, "input_tokens": 80, "output_tokens": 70})

    blocks: dict[str, Callable[[], object]] = {"block": block, "model": model_call}
    step = blocks.get(kind.replace(",", " ").split(" ")[0], lambda: call("hello", 3))
    gc.collect()
    gc.freeze()
    told: list[int] = []
    with agentspan.run("bench", **budget_of(agentspan, kind)):
        for number in range(ROUNDS + 1):
            mark()
            for _ in range(STEPS[BUDGETS.get(kind, kind)]):
                step()
            if kind == STORED:
                agentspan.flush()
            mark()
            agentspan.flush()
            told.append(number)
    print(json.dumps(told), flush=True)
    os._exit(0)


def budget_of(agentspan: Any, kind: str) -> dict[str, Any]:
    """Return the argument `budget` of a run for a kind of steps: far more than the steps use."""
    if kind not in BUDGETS:
        return {}
    sums = {"usd": 1e9, "tokens": 10**12, "minutes": 1e9} if "all sums" in kind or "also" in kind else {}
    repeats = {"repeats": 10**9} if "repeats" in kind else {}
    return {"budget": agentspan.Budget(steps=10**9, **sums, **repeats)}


def counted(python: str, kind: str) -> float:
    """Return the instructions of a step of a kind with the agentspan of an interpreter: the median of the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "agentspan.db")
        found = turns((python, __file__, "--child", kind, "--file", str(path)))
    steps = STEPS[BUDGETS.get(kind, kind)]
    return statistics.median(count for number, count in found if number) / steps  # the first round warms up


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
    print(f"{'instructions of a step':<32}{'':>12}" + f"{'base':>12}{'ratio':>8}" * bool(options.base))
    here: dict[str, float] = {}
    for kind in STEPS:
        value, base = counted(sys.executable, kind), counted(options.base, kind) if options.base else 0
        here[kind] = value
        print(f"{kind:<32}{value:>12,.0f}" + (f"{base:>12,.0f}{value / base:>8.3f}" if base else ""), flush=True)
    for kind, alike in BUDGETS.items():
        value = counted(sys.executable, kind)
        print(f"{kind:<32}{value:>12,.0f}{here[alike]:>12,.0f}{value / here[alike]:>8.3f}", flush=True)


if __name__ == "__main__":
    main()
