"""The price of a large payload for its caller, beside `json.dumps` of the same payload.

A payload is the messages of a conversation, as a model is called with it: English texts of 50 to 3,000 characters, in
one half of the rows with a character in each that is not ASCII. Each figure is the least of many short turns, in which
the contestants take turns: what disturbs a turn makes it longer, never shorter. Nothing is stored: the price is that of
turning a payload into the text that is recorded: with all defaults, without redaction, over the limit, and in a run in
which its messages were not sent before, where each of them is recorded by itself.

A block of 8 MB is freed first, as every program has done that ran for a while. Until a block of 3 MB was freed, glibc
gives what large texts took back to the system each time, and the next one has 460 to 950 page faults, of 2 µs each:
a third of the time of 1 MB. `--fresh` measures that.

    python benchmarks/bench_payload.py [--turns 200] [--fresh]
"""

import argparse
import json
import random
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from measuring import machine, verdict

from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.redaction import Redaction
from agentspan.recording.capture.repeats import Repeats
from agentspan.recording.capture.values import Limits

SIZES = (10_000, 100_000, 1_000_000)
OVER = 1_200_000
WANTED = 1.2
WORDS = re.findall(
    r"\w+",
    "the reservation of your flight to that city on the next morning was changed and a refund of the fare goes to the "
    "card that you paid with unless the policy of the company says otherwise please confirm with yes before I go on",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=200, help="of the smallest payload; larger ones take fewer")
    parser.add_argument("--fresh", action="store_true", help="as in a program that has freed no large block yet")
    options = parser.parse_args()
    turns = options.turns
    if not options.fresh:
        bytes(8_000_000)
    print(machine())
    with_all, unredacted = Capture(Limits(), Redaction()), Capture(Limits(), None)
    columns = ("json.dumps", "recorded", "redact=None", "new in a run")
    print(f"{'payload':<24}{''.join(f'{column:>14}' for column in columns)}{'recorded / json.dumps':>24}")
    for size in (*SIZES, OVER):
        for text, apostrophe in (("ASCII", "'"), ("not ASCII", "’")):
            payload = conversation(size, apostrophe)
            dumps, recorded, plain, new = least(
                max(turns * SIZES[0] // size, 5),
                partial(json.dumps, payload),
                partial(with_all.object, payload),
                partial(unredacted.object, payload),
                partial(in_a_run, with_all, payload),
            )
            what = f"{size // 1000:,} kB, {text}"
            row = f"{what:<24}{dumps:>11.0f} µs{recorded:>11.0f} µs{plain:>11.0f} µs{new:>11.0f} µs"
            print(verdict(row, recorded / dumps, WANTED) if size != OVER else f"{row}{recorded / dumps:>12.2f} × (cut)")


def in_a_run(capture: Capture, payload: dict[str, Any]) -> object:
    """Capture the first payload of a run."""
    return capture.object(payload, Repeats())


def conversation(size: int, apostrophe: str) -> dict[str, Any]:
    """Return the payload of a call of a model, of about so many characters as JSON."""
    choice = random.Random(1)
    messages: list[dict[str, str]] = []
    while size > 0:
        words = choice.choices(WORDS, k=choice.randrange(10, 600))
        content = " ".join(words) + f", it{apostrophe}s done"
        messages.append({"role": choice.choice(("user", "assistant")), "content": content})
        size -= len(content) + 30
    return {"model": "gpt-4.1", "messages": messages}


def least(turns: int, *contestants: Callable[[], object]) -> list[float]:
    """Return the shortest turn of each contestant, in µs."""
    best = [float("inf")] * len(contestants)
    for _ in range(turns):
        for index, contestant in enumerate(contestants):
            began = time.perf_counter_ns()
            contestant()
            best[index] = min(best[index], (time.perf_counter_ns() - began) / 1000)
    return best


if __name__ == "__main__":
    main()
