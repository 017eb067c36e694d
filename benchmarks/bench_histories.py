"""The cost of an llm call with its whole history in the caller, beside `json.dumps`, and how fast it is in the file.

An agent sends all its messages with each call, and each call adds two of 1 kB: 100 calls, on average with 100 kB. The
caller's time is that of a with-block without a body; `json.dumps` of the same payload follows each call. The medians
are of all calls. Each turn has a process and a file of its own; with `--against` turns of another checkout alternate
with those of this one.

    python benchmarks/bench_histories.py [--runs 4] [--rounds 5] [--folder DIR] [--against CHECKOUT]
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import bar, machine, medians, turn, verdict

import agentspan

CALLS = 100
"""Calls in a run."""
WORDS = ["flight", "invoice", "refund", "customer", "please", "check", "order", "date", "policy", "agent", "number"]


def message(number: int, size: int = 1000) -> dict[str, Any]:
    """Return a message of about so many characters; it depends on the number only."""
    source = random.Random(number)
    text = " ".join(source.choices(WORDS, k=size // 7))
    return {"role": ("user", "assistant")[number % 2], "content": f"{number}: {text}"}


def record(path: Path, runs: int) -> dict[str, float]:
    """Record, in this process; return times in s: of a call, of json.dumps, and of all until it is in the file."""
    tracer = agentspan.Tracer(path, raise_errors=True, enabled=True)
    encode = json.dumps
    answers = [f"answer {number}" for number in range(CALLS)]
    calls: list[float] = []
    dumps: list[float] = []
    durable = 0.0
    for run in range(runs):
        said = [message(1000 * run + number) for number in range(2 * CALLS)]
        # What a program makes of its history is new each time; only the texts in it are the same objects.
        sent = [[dict(each) for each in said[: 2 + 2 * number]] for number in range(CALLS)]
        own = 0.0
        began = time.perf_counter()
        with tracer.run("bench"):
            for number, messages in enumerate(sent):
                payload = {"model": "m", "messages": messages, "temperature": 0}
                start = time.perf_counter()
                with tracer.span("llm", payload) as span:
                    span.set_result({"text": answers[number], "input_tokens": 25_000, "output_tokens": 3})
                middle = time.perf_counter()
                encode(payload)
                end = time.perf_counter()
                own += end - middle
                calls.append(middle - start)
                dumps.append(end - middle)
        while not tracer.flush(60.0):
            pass
        durable += time.perf_counter() - began - own
    tracer.shutdown()
    size = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*") if each.is_file())
    return {
        "call": statistics.median(calls),
        "dumps": statistics.median(dumps),
        "durable": durable / (runs * CALLS),
        "size": size / (runs * CALLS),
    }


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where files lie (default: a temporary folder)")
    parser.add_argument("--against", type=Path, help="another checkout, whose turns alternate with this one's")
    parser.add_argument("--turn", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.turn:
        print(json.dumps(record(options.turn, options.runs)))
        return
    here = Path(__file__).resolve().parent.parent
    checkouts = [here, *([options.against.resolve()] if options.against else [])]
    found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    with bar(range(options.rounds), "rounds") as rounds:
        for number in rounds:
            for checkout in checkouts if number % 2 else reversed(checkouts):
                os.environ["PYTHONPATH"] = str(checkout)
                with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                    found[checkout].append(turn(__file__, "--turn", Path(folder, "runs.db"), "--runs", options.runs))
    print(machine())
    for checkout, turns in found.items():
        each = medians(turns)
        print(
            f"{'this checkout' if checkout == here else 'the other one':<15} {each['call'] * 1e6:7.0f} µs a call, "
            f"{each['dumps'] * 1e6:6.0f} µs json.dumps, {each['durable'] * 1e6:7.0f} µs until it is in the file, "
            f"{each['size']:9,.0f} bytes a call"
        )
    own = found[here]
    print(verdict("a call / json.dumps", statistics.median(t["call"] / t["dumps"] for t in own), 0.8))
    if options.against:
        pairs = zip(own, found[checkouts[1]], strict=True)
        ratio = statistics.median(other["durable"] / this["durable"] for this, other in pairs)
        print(verdict("calls a second in the file / those of the other checkout", ratio, 3, at_least=True))


if __name__ == "__main__":
    main()
