"""Plants each fault in a copy of the checkout, and runs the tests there until one fails.

    python -m tests.faults [NAME …] [--whole] [-- ARGUMENTS OF PYTEST]

Without a NAME, all faults are planted, one after the other. The exit code is 1 if the tests did not catch one of them.

The test that caught the fault when the list was made runs first; if it passes, the tests of its folder, and then all
tests. With `--whole`, all tests run from the beginning, as if nobody knew where to look. Arguments after `--` go to
each run of pytest: `python -m tests.faults --whole -- -n 2 --dist loadfile`.

A test catches a fault only if it passes without it: each one is run again in the unchanged copy. One that fails there
too is left out from then on.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.checkout import ROOT
from tests.faults.faults import FAULTS, Fault

LONGEST_S = 3600.0
"""The longest that one run of pytest may take. Tests that hang have not caught the fault."""
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py(?:::[^\s\[]+(?:\[.*?\])?)?)(?: - .*)?$", re.MULTILINE)
_SOME_FAILED, _INTERRUPTED, _WRONG_ARGUMENTS, _NONE_FOUND = 1, 2, 4, 5
"""Exit codes of pytest. A file that cannot be imported interrupts it; a test that is not there is a wrong argument."""


class Copy:
    """A copy of the checkout. Programs that its tests start import the package from it too."""

    def __init__(self, root: Path, arguments: Sequence[str]) -> None:
        self.root = root
        self._arguments = arguments
        self._sound: set[str] = set()
        self._broken: set[str] = set()
        # Before the packages of the environment, where agentspan may be installed from another folder.
        path = os.pathsep.join(filter(None, (str(root), os.environ.get("PYTHONPATH"))))
        self._environment = {**os.environ, "PYTHONPATH": path}

    def check_import(self) -> None:
        """Raise SystemExit if a program that is started elsewhere imports another agentspan than this copy."""
        command = [sys.executable, "-c", "import agentspan; print(agentspan.__file__)"]
        imported = subprocess.check_output(command, cwd=tempfile.gettempdir(), env=self._environment, text=True).strip()
        if not Path(imported).is_relative_to(self.root):
            raise SystemExit(f"the copy is in {self.root}, but programs import {imported}")

    @contextmanager
    def planted(self, fault: Fault) -> Iterator[None]:
        """The copy has the fault during the with-block."""
        path = self.root / fault.file
        source, status = path.read_bytes(), path.stat()
        path.write_text(fault.planted(source.decode()))
        try:
            yield
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # what Python compiled is valid again

    def catch(self, fault: Fault, *where: str) -> str | None:
        """Run these tests, or all, with the fault; return the id of one that fails, but not in the unchanged copy."""
        while True:
            with self.planted(fault):
                failed = self._first_failure(*where, *(f"--deselect={test}" for test in self._broken))
            if failed is None or failed in self._broken:  # such as a file that cannot be imported
                return None
            if failed in self._sound or self._first_failure(failed) is None:
                self._sound.add(failed)
                return failed
            self._broken.add(failed)

    def _first_failure(self, *where: str) -> str | None:
        """Run tests until one fails; return its id. None: they passed, or hung."""
        command = [sys.executable, "-m", "pytest", "--maxfail=1", "-rfE", "--tb=no", "-p", "no:cacheprovider"]
        command += ["--ignore=tests/faults", *self._arguments, *where]  # its own test fails at each fault
        process = subprocess.Popen(
            command, cwd=self.root, env=self._environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        failed, named = _FAILED.search(output), any(not each.startswith("-") for each in where)
        if process.returncode in (_SOME_FAILED, _INTERRUPTED) and failed:
            return failed[1]
        if process.returncode in (0, _NONE_FOUND) or (named and process.returncode == _WRONG_ARGUMENTS):
            return None
        raise SystemExit(f"pytest ended with {process.returncode}: {' '.join(command)}\n{output}")


def caught(fault: Fault, copy: Copy, *, whole: bool) -> str | None:
    """Return the id of the test that catches a fault; None if no test does."""
    if whole:
        return copy.catch(fault)
    folder = fault.caught_by.rpartition("/")[0]
    return copy.catch(fault, fault.caught_by) or copy.catch(fault, folder) or copy.catch(fault)


@contextmanager
def copy_of_checkout(arguments: Sequence[str]) -> Iterator[Copy]:
    """Copy the files that git has or would add; without git, all."""
    with tempfile.TemporaryDirectory(prefix="agentspan-faults-") as folder:
        root = Path(folder).resolve() / "checkout"
        for name in _files():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name, follow_symlinks=False)
        copy = Copy(root, arguments)
        copy.check_import()
        yield copy


def _files() -> list[str]:
    if not (ROOT / ".git").exists():
        return [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(listed, cwd=ROOT, text=True).split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def main(arguments: list[str]) -> int:
    """Plant the faults that are named, or all; return the exit code."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a fault of tests/faults/faults.py; without one, all")
    parser.add_argument("--whole", action="store_true", help="run all tests, instead of the likely ones first")
    options = parser.parse_args(arguments[:end])
    if unknown := set(options.names) - {fault.name for fault in FAULTS}:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    faults = [fault for fault in FAULTS if fault.name in options.names or not options.names]
    number = 0
    with copy_of_checkout(arguments[end + 1 :]) as copy:
        for fault in faults:
            began = time.monotonic()
            test = caught(fault, copy, whole=options.whole)
            number += test is not None
            result = f"caught by {test}" if test else f"NOT CAUGHT. {fault.says}"
            print(f"{fault.name}: {time.monotonic() - began:.1f} s, {result}", flush=True)
    print(f"{number} of {len(faults)} faults caught")
    return 0 if number == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
