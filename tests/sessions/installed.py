"""Makes the toy format known to commands, by the entry point of a package, and writes sessions of it."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.checkout import ROOT

ENTRY_POINTS = "[agentspan.sessions]\ntoy = tests.sessions.toy:TOY\n"


def install(folder: Path) -> Path:
    """Write the description of a package that has the toy format; return the folder, for `sys.path`."""
    about = folder / "packages" / "toyformat-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toyformat\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    return about.parent


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a process whose home is a folder, and that has the toy format."""
    packages = home / "packages"
    if not packages.exists():
        install(home)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTSPAN_", "XDG_"))}
    path = os.pathsep.join([str(packages), str(ROOT), *filter(None, [kept.get("PYTHONPATH")])])
    return {**kept, "HOME": str(home), "PYTHONPATH": path}


def turns(count: int, first: int = 0, at: int = 1, **more: Any) -> list[dict[str, Any]]:
    """Return the lines of so many questions with their answers."""
    lines: list[dict[str, Any]] = []
    for number in range(first, first + count):
        lines.append({"id": f"{number}", "ask": f"question {number}", "at": at + number, **more})
        lines.append({"id": f"{number}", "answer": f"answer {number}", "at": at + number})
    return lines


def text_of(lines: Iterable[Any]) -> str:
    """Return lines of JSON."""
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def toy_file(folder: Path, name: str, lines: Iterable[Any], *, idle_s: float = 0) -> Path:
    """Write a session, last changed so many seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.toy"
    path.write_text(text_of(lines))
    changed = path.stat().st_mtime - idle_s
    os.utime(path, (changed, changed))
    return path
