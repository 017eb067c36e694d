"""Environments with the packages of a framework, made once in the folder that AGENTSPAN_TEST_FRAMEWORKS names."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.checkout import ROOT

FOLDER = os.environ.get("AGENTSPAN_TEST_FRAMEWORKS")
PROGRAMS = Path(__file__).parent / "programs"
HAS_OTEL = f"{ROOT}[otel]"


def python_of(name: str, packages: Iterable[str]) -> Path:
    """Return the Python of an environment with the newest versions of packages."""
    assert FOLDER is not None, "AGENTSPAN_TEST_FRAMEWORKS names no folder"
    environment = Path(FOLDER) / name
    python = environment / "bin" / "python"
    if not (environment / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-e", *packages], check=True)
        (environment / "ready").touch()
    return python
