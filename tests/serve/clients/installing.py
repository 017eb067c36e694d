"""Installs the official client packages into a folder: a virtual environment and a folder of npm, once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = Path(__file__).parent / "programs"
PYTHON_PACKAGES = (
    "prefactor-http==0.4.3", "prefactor-core==0.5.3", "prefactor-langchain==0.3.0", "langchain>=1,<2",
    "prefactor-livekit==0.1.5",
)  # fmt: skip
NPM_PACKAGES = ("@prefactor/core@0.2.9", "@prefactor/langchain@0.2.8", "langchain@^1", "zod@^4")


def python_command(folder: Path, program: str) -> list[str]:
    """Return the command that runs a program in Python. Installs its packages if they are missing."""
    python = folder / "python" / "bin" / "python"
    _once(
        folder / "python" / "installed.txt",
        PYTHON_PACKAGES,
        [sys.executable, "-m", "venv", "--clear", str(folder / "python")],
        [str(python), "-m", "pip", "install", "--quiet", *PYTHON_PACKAGES],
    )
    return [str(python), str(PROGRAMS / program)]


def node_command(folder: Path, program: str) -> list[str]:
    """Return the command that runs a program in Node.js. Installs its packages if they are missing."""
    modules = folder / "node"
    modules.mkdir(parents=True, exist_ok=True)
    _once(
        modules / "installed.txt",
        NPM_PACKAGES,
        ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(modules), *NPM_PACKAGES],
    )
    for file in PROGRAMS.glob("*.mjs"):  # imports are looked up beside the program's own file
        shutil.copy(file, modules)
    return ["node", str(modules / program)]


def _once(mark: Path, packages: tuple[str, ...], *commands: list[str]) -> None:
    """Run commands, unless a mark says that these packages are installed."""
    wanted = "\n".join(packages)
    if mark.exists() and mark.read_text() == wanted:
        return
    for command in commands:
        subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    mark.write_text(wanted)
