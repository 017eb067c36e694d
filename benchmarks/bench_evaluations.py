"""Simulates whole verdicts: how often `evaluate`, `diff`, `versions` and `check` err among equal versions, and whether
they find the drop that they promise. Also how often `evaluate` says `no difference` of a version that is worse by the
10 points that it is to show.

Outcomes are drawn at random, and pass through the functions that the commands use: plan, order, stop, comparison.
Nothing is recorded. 50 cases pass with 50, 80 or 95 %, alike or unlike; trials of a case repeat the first one with the
probability 0, 0.5 or 1; base and head have 1 or more trials a case. The seeds are 0, 1, 2 …

    python benchmarks/bench_evaluations.py [--sets 1000] [--power 200] [--size 1,5]
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.evaluation.simulated_evaluations import Way, cells, nulls, overlooked, power

WAYS: tuple[Way, ...] = ("fixed", "early", "diff", "check")
MOST, LEAST = 0.05, 0.75


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="comparisons of equal versions, for each line")
    parser.add_argument("--power", type=int, default=200, metavar="SETS", help="comparisons of worse versions; 0: none")
    parser.add_argument("--size", help="trials of the base and of the head, such as 1,5; all of them when left out")
    options = parser.parse_args()
    most = MOST + 2 * (MOST * (1 - MOST) / options.sets) ** 0.5
    least = LEAST - 2 * (LEAST * (1 - LEAST) / max(1, options.power)) ** 0.5
    given = tuple(map(int, options.size.split(","))) if options.size else None
    print(f"50 cases; seeds 0 to {options.sets - 1}, of worse versions 0 to {options.power - 1}; at most {most:.1%}")
    print("trials kind   share repeat | equal versions: worse better | early: worse better | diff: ≠  check: worse |")
    print("  then: no difference, though worse by 10 points | of each way: the drop in points: how often it is found")
    worst: dict[str, tuple[float, str]] = {}
    for cell in cells() if given is None else cells([(given[0], given[1])]):
        found, missed = nulls(cell, range(options.sets)), overlooked(cell, range(options.sets))
        name = f"{cell.in_base}/{cell.trials:<4} {cell.kind:<6} {cell.share:>5.0%} {cell.repeat:>6}"
        text = (
            f"{name} |"
            f" {found.worse:>5.1%} {found.better:>5.1%} | {found.early_worse:>5.1%} {found.early_better:>5.1%} |"
            f" {found.diff:>5.1%} {found.check:>5.1%} | {missed:>5.1%} |"
        )
        is_missed = max(*found, missed) > most
        rates = {"no difference": missed, **found._asdict()}
        for way in WAYS if options.power else ():
            of = power(cell, way, range(options.power))
            is_missed |= of.untold < 1 and of.found < least
            text += f" {way} {100 * of.drop:4.1f}: {of.found:>4.0%}" + (f" ({of.untold:.0%} none)" if of.untold else "")
            text += f" saved {of.saved:.0%}" if way == "early" else ""
            rates |= {f"{way} misses": 1 - of.found} if of.untold < 1 else {}
        print(text + ("  missed" if is_missed else ""), flush=True)
        for column, rate in rates.items():
            worst[column] = max(worst.get(column, (0.0, "")), (rate, name))
    for column, (rate, name) in worst.items():
        print(f"worst {column:<13} {rate:>5.1%} of {name}")


if __name__ == "__main__":
    main()
