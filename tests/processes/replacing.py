"""Backups that come over a file while two programs record: `python -m tests.processes.replacing FOLDER MODE CHANGES`.

Each writer notes the runs and spans that `flush` returned True for, and when. Backups are renamed, moved and copied
over the file. What was flushed before a backup began or recorded after it lay at the path must be in the file at the
end, with an agent that has a row, unless the program was told: `flush` returned False, `health` counts it, or `doctor`
finds it. What came between is in the file of before, as docs/concepts.md says. Prints seed and figures.
"""

import argparse
import contextlib
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import agentspan
from tests.checkout import ROOT
from tests.recording import changing

WRITERS = ("first", "second")
STEPS = 10
"""Spans in a run, before its flush."""


class Change(NamedTuple):
    """When a backup was taken and lay at the path: of one clock, in seconds."""

    kind: str
    began: float
    ended: float


def moved_away(path: Path, backup: Path) -> None:
    """As `mv runs.db* old/; mv backup.db runs.db`."""
    away = path.with_name("old")
    away.mkdir(exist_ok=True)
    for end in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            changing.beside(path, end).rename(away / (path.name + end))
    backup.rename(path)


CHANGES: list[Callable[[Path, Path], Any]] = [
    changing.renamed_over, changing.restored, changing.copied_over, moved_away,
]  # fmt: skip


def write(path: Path, durability: Any, noted: Path) -> None:
    """Record runs until standard input ends, and note each that was flushed."""
    agentspan.configure(path, durability=durability)
    with noted.open("w") as notes:
        while not (noted.parent / "stop").exists():
            began = time.monotonic()
            lost = agentspan.health().failed
            with agentspan.run("shared") as run:
                for number in range(STEPS):
                    with agentspan.span("tool", {"name": "step", "number": number}):
                        pass
            told = not agentspan.flush() or agentspan.health().failed > lost
            note = {"run": run.id, "began": began, "ended": time.monotonic(), "told": told}
            notes.write(json.dumps(note) + "\n")
            notes.flush()
            time.sleep(0.01)
    until = time.monotonic() + 30
    while not agentspan.flush() and time.monotonic() < until:
        time.sleep(0.05)


@contextlib.contextmanager
def writers(folder: Path, path: Path, durability: str) -> Iterator[None]:
    """Two programs that record while the block runs."""
    command = [sys.executable, "-m", "tests.processes.replacing", str(folder), durability, "0", "--writer"]
    programs = [subprocess.Popen([*command, name], cwd=ROOT) for name in WRITERS]
    try:
        yield
        (folder / "stop").touch()
        for program in programs:
            program.wait(120)
    finally:
        for program in programs:
            program.kill()
            program.wait()


def replace(folder: Path, path: Path, count: int, rng: random.Random, kinds: list[Any]) -> list[Change]:
    """Let `count` backups come over the file, and more where the writers ask for a sound file: those are `asked`."""
    changes: list[Change] = []
    backup, last = folder / "backup.db", folder / "last.db"
    for _ in range(count):
        time.sleep(rng.uniform(0, 0.8))
        began = time.monotonic()
        backup.unlink(missing_ok=True)
        changing.back_up(path, backup)
        shutil.copyfile(backup, last)
        with contextlib.closing(sqlite3.connect(last)) as connection:
            if (found := connection.execute("pragma integrity_check").fetchall()) != [("ok",)]:
                raise SystemExit(f"The file is damaged: {found[:3]}, after {changes[-3:]}")
        time.sleep(rng.uniform(0, 0.1))
        change = rng.choice(kinds)
        change(path, backup)
        changes.append(Change(change.__name__, began, time.monotonic()))
        while not _is_trusted(folder, 10):
            shutil.copyfile(last, backup)
            changing.renamed_over(path, backup)
            changes.append(Change(f"asked after {change.__name__}", began, time.monotonic()))
    return changes


def _is_trusted(folder: Path, seconds: float) -> bool:
    """Wait until each writer has flushed a run that began from now on."""
    now = time.monotonic()
    while not all(any(n["began"] > now and not n["told"] for n in _notes(folder / name)) for name in WRITERS):
        if time.monotonic() > now + seconds:
            return False
        time.sleep(0.02)
    return True


def _notes(noted: Path) -> list[dict[str, Any]]:
    with contextlib.suppress(FileNotFoundError):
        return [json.loads(line) for line in noted.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return []


def check(folder: Path, path: Path, changes: list[Change]) -> dict[str, Any]:
    """Compare the notes with the file."""
    with agentspan.open(path) as database:
        problems = database.doctor().problems
    with contextlib.closing(sqlite3.connect(path)) as connection:
        complete = "select run, count(*) from spans where status = 'complete' and agent = 'shared' group by run"
        steps = dict(connection.execute(complete).fetchall())
        runs = dict(connection.execute("select id, status from agent_instances").fetchall())
        dangling = {
            table: connection.execute(
                f"select count(*) from {table} where agent_id not in (select id from agents)"
            ).fetchone()[0]
            for table in ("agent_spans", "agent_instances")
        }
        integrity = [row[0] for row in connection.execute("pragma integrity_check")]
    counts: Counter[str] = Counter()
    for note in (note for name in WRITERS for note in _notes(folder / name)):
        between = any(note["ended"] > change.began and note["began"] < change.ended for change in changes)
        kind = "told" if note["told"] else "between" if between else "acknowledged"
        counts[kind] += 1
        counts[f"{kind}, spans gone"] += STEPS - steps.get(note["run"], 0)
        counts[f"{kind}, runs gone"] += runs.get(note["run"]) != "complete"
    return {
        **counts,
        "without agent": dangling,
        "integrity": integrity,
        "problems": problems,
        **Counter(change.kind for change in changes),
    }


def main() -> None:
    """Run a writer, or all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("durability", choices=["journal", "commit"])
    parser.add_argument("changes", type=int)
    parser.add_argument("--seed", type=int, default=None)
    kinds = [change.__name__ for change in CHANGES]
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--writer", help=argparse.SUPPRESS)
    options = parser.parse_args()
    path = options.folder / "runs.db"
    if options.writer:
        write(path, options.durability, options.folder / options.writer)
        return
    seed = random.getrandbits(32) if options.seed is None else options.seed
    print(f"seed {seed}")
    with agentspan.open(path) as database:
        database.agent_instances.register("another")
    with writers(options.folder, path, options.durability):
        changes = replace(
            options.folder,
            path,
            options.changes,
            random.Random(seed),
            [c for c in CHANGES if not options.kinds or c.__name__ in options.kinds],
        )
    print(json.dumps(check(options.folder, path, changes)))


if __name__ == "__main__":
    main()
