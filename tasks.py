"""Tasks of a checkout: `python -m tasks NAME …`, with a Python that has `.[ci]`. Without a NAME, they are listed.

Each task is a list of commands. Arguments after `--` are added to the last command:
`python -m tasks tests -- -k journal -x`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent
PYTEST = [sys.executable, "-m", "pytest"]
JAVASCRIPT = [
    "npx", "--yes", "--prefer-offline", "--package=typescript@7.0.2", "tsc", "--project", "tsconfig.json",
]  # fmt: skip
"""npx keeps the package in its own cache: the checkout needs no package.json and no node_modules."""
DOCS = ["tests/test_docs.py", "tests/project/test_links.py"]

TASKS: dict[str, tuple[str, list[list[str]]]] = {
    "tests": ("the quick tests, as in the README: each behaviour once", [PYTEST]),
    "full": ("the tests that CI runs, too: long forms, browsers, PostgreSQL", [[*PYTEST, "--tier", "full"]]),
    "faults": (
        "plant each fault of tests/faults, and see that a test fails (5 minutes)",
        [[sys.executable, "-m", "tests.faults"]],
    ),
    "lint": (
        "ruff, mypy and js; js is skipped where Node.js is missing, but not in CI",
        [
            [sys.executable, "-m", "ruff", "check", "."],
            [sys.executable, "-m", "ruff", "format", "--check", "."],
            [sys.executable, "-m", "mypy"],
            JAVASCRIPT,
        ],
    ),
    "js": ("check the types of the viewer's JavaScript; needs Node.js, and the network the first time", [JAVASCRIPT]),
    "reference": (
        "write the generated parts of docs/reference from the code (needs griffe, as `.[ci]` has it)",
        [[sys.executable, "docs/make_reference.py"]],
    ),
    "docs": ("run the examples of the documentation, and follow its links", [[*PYTEST, *DOCS]]),
    "site": (
        "make build/site of the documentation, and follow its links (needs `.[site]`)",
        [[sys.executable, "docs/make_site.py"]],
    ),
    "measures": (
        "how much there is to read, in each room and in all",
        [[sys.executable, "-m", "tests.project.measures"]],
    ),
    "bench": (
        "what a recorded call costs, and the import (about 5 minutes; needs `.[bench]`)",
        [[sys.executable, f"benchmarks/bench_{name}.py"] for name in ("import", "span")],
    ),
    "wheel": ("build the wheel, and use it in an environment that has nothing else", [[".ci/wheel", sys.executable]]),
}
ALL = ("lint", "full", "wheel")


def main(arguments: list[str]) -> int:
    """Run tasks in the order in which they are named; return the exit code of the first command that fails."""
    names, extra = arguments, []
    if "--" in arguments:
        split = arguments.index("--")
        names, extra = arguments[:split], arguments[split + 1 :]
    names = [each for name in names for each in (ALL if name == "all" else (name,))]
    unknown = [name for name in names if name not in TASKS]
    if unknown or not names:
        lines = [f"  {name:9} {what}" for name, (what, _) in TASKS.items()]
        lines += [f"  {'all':9} {', '.join(ALL)}", *(f"unknown task: {name}" for name in unknown)]
        sys.stderr.write("\n".join(("python -m tasks NAME … [-- ARGUMENTS]", *lines, "")))
        return 2
    commands = [list(command) for name in names for command in TASKS[name][1]]
    commands[-1] += extra
    for command in commands:
        if command[0] == "npx" and shutil.which("npx") is None:
            if "js" in names or "CI" in os.environ:
                sys.stderr.write("npx is missing: install Node.js (Debian: apt-get install npm)\n")
                return 1
            sys.stderr.write("js: skipped, because npx is missing; install Node.js to check the JavaScript here\n")
            continue
        sys.stderr.write(f"$ {' '.join(command)}\n")
        sys.stderr.flush()
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
