"""The parts of the viewer's JavaScript that need no page, in Node.js: the tests are in the folder `javascript`."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.checkout import ROOT

TESTS = sorted((Path(__file__).parent / "javascript").glob("*.test.mjs"))
OLDEST = 18
"""The first Node.js that has a test runner."""


@pytest.fixture
def node() -> str:
    """The path of Node.js. Without it the tests are skipped on somebody's machine, and fail in CI."""
    path = shutil.which("node")
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout if path else "v0"
    if path is None or int(version[1:].split(".")[0]) < OLDEST:
        if os.environ.get("CI"):
            pytest.fail(f"needs Node.js {OLDEST}")
        pytest.skip("needs Node.js")
    return path


def test_the_parts_of_the_viewer_that_need_no_page(node: str) -> None:
    command = [node, "--test", "--test-reporter=spec", *map(str, TESTS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    _, _, failures = done.stdout.partition("failing tests:")
    assert done.returncode == 0, failures or done.stdout + done.stderr
    # A file without tests passes too.
    passed = re.search(r"^\S+ pass (\d+)$", done.stdout, re.MULTILINE)
    assert passed
    assert int(passed[1]) >= sum(path.read_text().count("\ntest(") for path in TESTS)
