"""Measures answers about many runs: `why`, `drift` and `stats`, each as a whole command, and making their index.

Makes a file (see make_runs, `--verdicts`) and its index. Then the commands take turns, each in a process of its own.
The figures are seconds of the processor, user and system, with the start of Python: other programs change them less
than the clock's.

    python benchmarks/bench_verdicts.py [--spans 1000000] [--rounds 5] [--file MADE.db] [--against PYTHON]
    python benchmarks/bench_verdicts.py --planted 200

With `--planted` it counts instead in how many sets of runs `why` finds a planted cause (see planted), and how often it
finds something where outcomes were shuffled within tasks, in half as many shuffles again.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from make_runs import make
from measuring import bar, machine, verdict
from planted import CAUSES, MOST_ALARMS, TABLE, false_alarms, found

import agentspan

MILLION = 1_000_000
COMMANDS = {
    "why": ("why",),
    "why --outcome": ("why", "--outcome", "reward>=1"),
    "drift": ("drift", "airline@1", "airline@2"),
    "stats": ("stats",),
    "stats --version": ("stats", "--version", "2"),
}
MAKING = "making the index"


def seconds(python: str, file: Path, command: tuple[str, ...]) -> float:
    """Return the processor's seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([python, "-m", "agentspan", *command, "--db", file], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def made_index(python: str, file: Path) -> float:
    """Make the index anew; return the seconds, without those of a command that finds it made."""
    for end in ("", "-wal", "-shm"):
        Path(f"{file}-index{end}").unlink(missing_ok=True)
    return seconds(python, file, ("stats",)) - seconds(python, file, ("stats",))


def planted_causes(sets: int) -> None:
    """Print the share of sets in which each cause is found, and that of false alarms."""
    print(f"{'found within tasks':<20}" + "".join(f"{runs:>6} runs" for runs, _ in TABLE))
    for cause in CAUSES:
        shares = [sum(found(cause, runs=runs, seed=seed) for seed in range(sets)) / sets for runs, _ in TABLE]
        is_met = all(share >= least for share, (_, least) in zip(shares, TABLE, strict=True))
        print(f"{cause:<20}" + "".join(f"{share:11.3f}" for share in shares) + ("" if is_met else "  missed"))
    shuffles = 5
    bases = max(1, 3 * sets // 2 // shuffles)
    causes = [*CAUSES]
    shares = [
        sum(false_alarms(causes[seed % len(causes)], runs=runs, seed=seed, shuffles=shuffles) for seed in range(bases))
        / (bases * shuffles)
        for runs, _ in TABLE
    ]
    is_met = all(share <= MOST_ALARMS for share in shares)
    print(f"{'false alarms':<20}" + "".join(f"{share:11.3f}" for share in shares) + ("" if is_met else "  missed"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=MILLION)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--file", type=Path, help="made by make_runs.py with --verdicts; its index is made anew")
    parser.add_argument("--against", help="the Python of another checkout's environment, which takes turns")
    parser.add_argument("--folder", help="where the file lies meanwhile; a temporary folder when left out")
    parser.add_argument("--planted", type=int, metavar="SETS", help="count findings in so many sets of each kind")
    options = parser.parse_args()
    if options.planted:
        planted_causes(options.planted)
        return
    pythons = [sys.executable, *([options.against] if options.against else [])]
    print(machine())
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file = options.file or Path(folder) / "made.db"
        if options.file is None:
            with agentspan.open(file) as db:
                print(f"{make(db.storage, options.spans, verdicts=True):,} spans made")
        took: dict[tuple[str, str], list[float]] = {}
        with bar([(round_, python) for round_ in range(options.rounds) for python in pythons], "rounds") as steps:
            for round_, python in steps:
                if round_ == 0:
                    took[MAKING, python] = [made_index(python, file)]
                else:
                    seconds(python, file, ("stats",))  # the other one's index may have another form
                for name, command in COMMANDS.items():
                    took.setdefault((name, python), []).append(seconds(python, file, command))
    for name in (MAKING, *COMMANDS):
        figures = [statistics.median(took[name, python]) for python in pythons]
        print(f"{name:<20}" + "".join(f"{figure:10.2f} s" for figure in figures))
    if options.spans == MILLION:
        for name in COMMANDS:
            print(verdict(name, statistics.median(took[name, pythons[0]]), 1, "s"))


if __name__ == "__main__":
    main()
