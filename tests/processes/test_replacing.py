"""Backups that are renamed, moved and copied over a file while two programs record: nothing goes without a word."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.tiers import longer

CHANGES = longer("AGENTSPAN_TEST_REPLACEMENTS", 3, 10, 100)


@pytest.mark.full
@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_what_was_flushed_is_in_the_file_whatever_backup_comes_over_it(tmp_path: Path, durability: str) -> None:
    command = [sys.executable, "-m", "tests.processes.replacing", str(tmp_path), durability, str(CHANGES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["acknowledged"] > 0
    assert (figures["acknowledged, spans gone"], figures["acknowledged, runs gone"]) == (0, 0), done.stdout
    assert set(figures["without agent"].values()) == {0}, done.stdout
    assert (figures["integrity"], figures["problems"]) == (["ok"], []), done.stdout
