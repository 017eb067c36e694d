"""Runs pytest with the plugin in a process and a folder of its own."""

import os
import subprocess
import sys
from pathlib import Path

import agentspan

ROOT = Path(agentspan.__file__).parents[1]


def run_pytest(folder: Path, *options: str, ini: str = "", **files: str) -> str:
    """Run the tests in these files, every warning an error, and return what pytest says (see `finished_pytest`)."""
    done = finished_pytest(folder, *options, ini=ini, **files)
    return done.stdout + done.stderr


def finished_pytest(folder: Path, *options: str, ini: str = "", **files: str) -> "subprocess.CompletedProcess[str]":
    """Run the tests in these files, every warning an error.

    Args:
        ini: lines below `[pytest]`.
        files: the text of each module, by its name.
    """
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "agentspan.testing.plugin", "-p", "no:cacheprovider"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "AGENTSPAN_"))}
    # Without the entry point, which would be the same plugin under a second name.
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    environment["CI"] = "true"  # else pytest cuts the lines of its summary to the width of the terminal
    return subprocess.run(
        [*command, "-W", "error", "--strict-markers", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
