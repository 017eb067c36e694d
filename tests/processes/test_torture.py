"""Sixty programs that are killed, two doctors, readers, somebody who terminates, one who prunes: an end is a fact.

What was acknowledged stands as its program said it, whoever closed it before the journal was read.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.checkout import ROOT
from tests.tiers import longer

# Enough to meet each race; AGENTSPAN_TORTURE=1000000 takes two and a half minutes of two processors.
TRANSITIONS = longer("AGENTSPAN_TORTURE", 2_000, 5_000, 1_000_000)
RACES = {"InvalidAction", "NotFound", "DatabaseBusy"}
"""What those may meet who work by id: somebody else was faster, or holds the file."""


def test_what_was_acknowledged_stands_whoever_is_killed_and_whoever_closes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.processes.torture", str(tmp_path), str(TRANSITIONS)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as torture:
        try:
            out = torture.communicate(timeout=600)[0]
        finally:
            torture.kill()  # which ends all its programs, too
    assert torture.returncode == 0, out
    figures = json.loads(out.splitlines()[-1])
    shown = out.rpartition("\n{")[0]
    assert figures["transitions"] >= TRANSITIONS
    assert figures["processes killed"] > 0
    assert figures["processes that ended by themselves"] > 0
    assert figures["wrong"] == {}, shown
    assert figures["refused"].get("missing", 0) == 0, shown
    assert (figures["integrity"], figures["problems"], figures["left over"]) == (["ok"], [], []), shown
    assert (figures["left open"], figures["of unknown programs"]) == (0, 0), shown
    assert figures["bugs"] == {}, shown
    assert {error.partition(": ")[2] for error in figures["errors of helpers"]} <= RACES, shown
