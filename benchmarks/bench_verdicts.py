"""Measures answers about many runs: `why`, `diff` of versions and `stats`, as whole commands, and making their index.

Makes a file (see make_runs, `--verdicts`) and its index. Then the commands take turns, each in a process of its own.
The figures are seconds of the processor, user and system, with the start of Python: other programs change them less
than the clock's.

With `--simulate` it counts instead how often `drift` is right: comparisons of equal groups of 200 runs, and of groups
that differ by the drop that the first one says would show.

    python benchmarks/bench_verdicts.py [--spans 1000000] [--rounds 5] [--file MADE.db] [--against PYTHON]
    python benchmarks/bench_verdicts.py --simulate 400
    python benchmarks/bench_verdicts.py --planted 200

With `--planted` it counts in how many sets of runs `why` finds a planted cause (see planted), and how often it finds
something where outcomes were shuffled within tasks, in half as many shuffles again.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from make_runs import make
from measuring import bar, machine, verdict
from planted import CAUSES, LESS, MOST_ALARMS, TABLE, false_alarms, found

import agentspan
from tests.analysis.simulated_groups import simulated

MILLION = 1_000_000
COMMANDS = {
    "why": ("why",),
    "why --outcome": ("why", "--outcome", "reward>=1"),
    "drift": ("diff", "airline@1", "airline@2"),
    "stats": ("stats",),
    "stats --version": ("stats", "--version", "2"),
}
MAKING = "making the index"
SIMULATED = [(10, 0), (40, 0), (10, 50), (40, 50)]
"""Metrics of tools, and tasks by which the runs are paired."""
RUNS = 200


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


def simulate(sets: int) -> None:
    """Print how often drops that would show are found, and how often equal groups differ."""
    print(f"{'metrics':>7}  {'tasks':>5}  {'drop':>9}  {'found':>6}  {'false':>6}")
    for metrics, tasks in SIMULATED:
        with bar(range(sets), f"{metrics} metrics, {tasks} tasks") as seeds:
            drifts = [simulated(seed, runs=RUNS, metrics=metrics, tasks=tasks) for seed in seeds]
        drop = statistics.median(each.drop for each in drifts)
        shares = [sum(each) / sets for each in ([one.is_found for one in drifts], [one.is_false for one in drifts])]
        print(f"{metrics:>7}  {tasks or 'none':>5}  {100 * drop:2.0f} points  {shares[0]:6.1%}  {shares[1]:6.1%}")


def planted_causes(sets: int) -> None:
    """Print the share of sets in which each cause is found, and that of false alarms."""
    print(f"{'found within tasks':<20}" + "".join(f"{runs:>6} runs" for runs, _ in TABLE))
    for cause in CAUSES:
        shares = [sum(found(cause, runs=runs, seed=seed) for seed in range(sets)) / sets for runs, _ in TABLE]
        least = [LESS.get((cause, runs), share) for runs, share in TABLE]
        is_met = all(share >= wanted for share, wanted in zip(shares, least, strict=True))
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
    parser.add_argument("--simulate", type=int, metavar="SETS", help="count how often drift is right, in so many sets")
    parser.add_argument("--planted", type=int, metavar="SETS", help="count findings in so many sets of each kind")
    options = parser.parse_args()
    if options.simulate:
        simulate(options.simulate)
        return
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
