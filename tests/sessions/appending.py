"""A program that appends steps to session files as a coding agent does. It writes a line about each step.

    python -m tests.sessions.appending FOLDER NAME STEPS PAUSE_S

It changes the way of writing with each session: plain appends, appends with fsync, a copy that replaces the file, a
file that moves to another folder while it grows, and one that is compressed at its end.
"""

import gzip
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

EACH = 40
"""The steps of a session."""


def append(path: Path, text: str) -> Path:
    with path.open("a") as file:
        file.write(text)
    return path


def append_and_sync(path: Path, text: str) -> Path:
    with path.open("a") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return path


def append_in_halves(path: Path, text: str) -> Path:
    with path.open("a") as file:
        for part in (text[: len(text) // 2], text[len(text) // 2 :]):
            file.write(part)
            file.flush()
            time.sleep(0.001)
    return path


def replace(path: Path, text: str) -> Path:
    aside = path.with_suffix(".new")
    aside.write_text((path.read_text() if path.exists() else "") + text)
    os.replace(aside, path)
    return path


def move(path: Path, text: str) -> Path:
    append(path, text)
    folder = path.parent.parent / ("moved" if path.parent.name != "moved" else "back")
    folder.mkdir(exist_ok=True)
    return path.rename(folder / path.name)


WAYS: list[Callable[[Path, str], Path]] = [append, append_and_sync, append_in_halves, replace, move]


def main(folder: Path, name: str, steps: int, pause_s: float) -> None:
    """Write sessions of EACH steps until all steps are written; write `SESSION STEP TIME` for each."""
    for first in range(0, steps, EACH):
        number = first // EACH
        path = folder / f"project{number % 7}" / f"{name}-{number}.toy"
        path.parent.mkdir(parents=True, exist_ok=True)
        for step in range(min(EACH, steps - first)):
            at = 10**9 + first + step
            lines = ({"id": f"{step}", "ask": "why?", "at": at}, {"id": f"{step}", "answer": "so", "at": at})
            path = WAYS[number % len(WAYS)](path, "".join(f"{json.dumps(line)}\n" for line in lines))
            sys.stdout.write(f"{path.name.partition('.')[0]} {step} {time.time()}\n")
            sys.stdout.flush()
            time.sleep(pause_s)
        if number % 3 == 2:  # as Codex does with old files
            packed = path.with_name(f"{path.name}.gz")
            packed.write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
