"""A file that others lock, a disk that is full: those who record execute nothing on the storage, and lose nothing.

AGENTSPAN_TEST_AWAY says for how many seconds; `pytest -s` prints what calls took meanwhile.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.checkout import ROOT
from tests.tiers import longer

SECONDS = longer("AGENTSPAN_TEST_AWAY", 0.5, 1.5, 20.0)
MOST_FULL_S = 10.0
"""How long the disk is full: where there is no room for a journal, 10,000 transitions wait in memory, and no more."""

FEW = 25
"""Calls a second of those whose runs go on: 440 where nothing waits, 8 where each waits 250 ms for the storage."""


def recorded(folder: Path, how: str, seconds: float) -> dict[str, Any]:
    """Record while the storage is away; return the figures."""
    command = [sys.executable, "-m", "tests.processes.away", str(folder), how, str(seconds)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds + 90)
    sys.stdout.write(f"\n{how} for {seconds:g} s: {done.stdout}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("needs a user who may mount file systems")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def nothing_is_lost(figures: dict[str, Any]) -> None:
    assert (figures["missing"], figures["waiting"], figures["refused"]) == (0, 0, 0)
    assert (figures["unrecorded"], figures["failed"]) == (0, 0)
    assert figures["flushed"]
    assert figures["spans"] > 100


@pytest.fixture(scope="module", params=["locked", "shut"])
def behind_a_lock(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return recorded(tmp_path_factory.mktemp("away"), request.param, SECONDS)


@pytest.mark.full
def test_behind_a_locked_file_spans_cost_their_callers_no_statement(behind_a_lock: dict[str, Any]) -> None:
    nothing_is_lost(behind_a_lock)
    assert behind_a_lock["span"]["calls"] > FEW * SECONDS
    assert behind_a_lock["span"]["statements"] == 0


@pytest.mark.full
def test_behind_a_locked_file_runs_begin_without_a_statement(behind_a_lock: dict[str, Any]) -> None:
    assert behind_a_lock["run"]["calls"] > 0
    assert behind_a_lock["run"]["statements"] == 0


@pytest.mark.full
def test_a_full_disk_costs_no_span(disk: Path) -> None:
    figures = recorded(disk, "full", min(SECONDS, MOST_FULL_S))
    nothing_is_lost(figures)
    assert figures["span"]["calls"] > FEW * min(SECONDS, MOST_FULL_S)
