"""Simulates whole verdicts of `agentspan.evaluate`: how often it errs, what it finds, and what stopping early saves.

Outcomes are drawn at random, and pass through the functions that an evaluation uses: plan, order, stop, comparison.
Nothing is recorded, so that 2,000 evaluations of 50 cases take minutes.

    python benchmarks/bench_evaluations.py [--sets 2000] [--size 50,3,3]
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.evaluation.simulated_evaluations import KINDS, SIZES, simulated

HEADER = (
    "cases × base/trials  tasks   stop   null: worse  better    drop  of few  found: even  broken  twice: found   saved"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--size", help="cases, trials of the base, trials; all of them when left out")
    parser.add_argument("--kind", choices=[*KINDS], help="of tasks; all of them when left out")
    options = parser.parse_args()
    sizes = [tuple(map(int, options.size.split(",")))] if options.size else SIZES
    print(HEADER)
    for cases, in_base, trials in sizes:
        for kind in [options.kind] if options.kind else KINDS:
            for early in (False, True):
                found = simulated(cases, in_base, trials, kind, early=early, seeds=range(options.sets))
                print(
                    f"{cases:>5} × {in_base}/{trials}{'':>11}{kind:<7} {'early' if early else 'fixed':<5}"
                    f"{found.null_worse:>13.1%}{found.null_better:>8.1%}{found.drop:>8.1%}{found.of_few:>8.1%}{found.even:>11.1%}"
                    f"{found.broken:>9.1%}{found.twice:>13.1%}{found.saved:>10.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
