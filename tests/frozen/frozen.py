"""Compares a text with what a file of this folder has."""

import difflib
import os
from pathlib import Path

FOLDER = Path(__file__).parent
WRITES = "AGENTSPAN_TEST_FREEZE"
MOST_LINES = 60


def check(name: str, text: str) -> None:
    """Fail where a text differs from a file, with the lines that do."""
    path = FOLDER / name
    if os.environ.get(WRITES):
        path.write_text(text)
    known = path.read_text() if path.exists() else ""
    if text != known:
        lines = list(difflib.unified_diff(known.splitlines(), text.splitlines(), "frozen", "now", "", "", 0, ""))
        shown = "\n".join(line[:400] for line in lines[:MOST_LINES])
        raise AssertionError(f"{len(lines)} lines differ from {name}; if that is meant, run with {WRITES}=1\n{shown}")
