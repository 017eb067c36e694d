"""File systems on which a copy shares its blocks: a full disk ends no program there, and nothing is lost."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from agentspan.journal import journal_folder
from agentspan.journal import log as log_module
from agentspan.journal.journal_folder import is_possible
from agentspan.journal.segments import Segment
from agentspan.storage.questions import Query
from tests.checkout import ROOT
from tests.journal.recorded import append_by_calls, sink_of
from tests.journal.segment_files import segments_of

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs a journal")

FILLED = """
import os, shutil, subprocess, sys, agentspan
from agentspan.recording.tracer import recorder_of
from pathlib import Path
disk = Path(sys.argv[1])
tracer = agentspan.Tracer(disk / "runs.db")
def step(number):
    with tracer.span("tool", {"name": str(number), "text": "x" * 2000}):
        pass
with tracer.run("a"):
    step(0)
    recorder_of(tracer).sink.work.thread.stop(5)  # what is appended stays in the journal
    recorder_of(tracer).sink.work.thread.start = lambda: None
    step(1)
    subprocess.run(["cp", "-r", "--reflink=always", disk / "runs.db.spool", disk / "copy"], check=True)
    filler, size = os.open(disk / "filler", os.O_CREAT | os.O_WRONLY), 2**20
    while size:
        try:
            os.write(filler, bytes(size))
            os.fsync(filler)
        except OSError:
            size //= 2
    os.close(filler)
    for number in range(2, 300):
        step(number)
    os.unlink(disk / "filler")
    assert tracer.flush(30), tracer.health()
    step(300)
assert tracer.flush(30)
print(*tracer.health()[:5])
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk with a file system that can share blocks."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("needs mkfs.xfs")
    image, folder = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(320 * 2**20)
    folder.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True, capture_output=True)
    if subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True).returncode != 0:
        pytest.skip("needs a user who may mount file systems")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_does_not_end_a_program_whose_journal_was_copied(disk: Path) -> None:
    assert journal_folder.shares_blocks(disk / "runs.db.spool")
    done = subprocess.run([sys.executable, "-c", FILLED, str(disk)], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout.split() == ["604", "0", "0", "0", "0"]
    with agentspan.open(disk / "runs.db") as db:
        assert [span.label for span in db.storage.ask(Query("agent_span")).rows] == [str(n) for n in range(301)]  # type: ignore[union-attr]


def test_where_no_blocks_are_shared_segments_are_mapped(tmp_path: Path) -> None:
    if journal_folder.shares_blocks(tmp_path / "runs.db.spool"):
        pytest.skip("needs a file system that shares no blocks")
    tracer = agentspan.Tracer(tmp_path / "runs.db")
    assert type(sink_of(tracer).log) in (log_module.Log, log_module.Guarded)
    tracer.shutdown()


def test_room_that_is_refused_once_costs_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db")
    append_by_calls(tracer)
    write, calls = Segment.write, []

    def refuse(segment: Segment, start: int, head: bytes, body: bytes) -> None:
        calls.append(start)
        if len(calls) % 7 == 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(segment, start, head, body)

    monkeypatch.setattr(Segment, "write", refuse)
    with tracer.run("a"):
        for number in range(50):
            with tracer.span("tool", {"name": str(number), "text": "x" * (number * 100)}):
                pass
    assert tracer.flush()
    assert len(calls) > 10
    assert tracer.health()[:5] == (102, 0, 0, 0, 0)
    tracer.shutdown()
    with agentspan.open(tmp_path / "runs.db") as db:
        assert len(db.storage.ask(Query("agent_span", {"status": "complete"})).rows) == 50


@pytest.mark.full
def test_what_a_killed_program_wrote_is_all_there(tmp_path: Path) -> None:
    code = """
import os, signal, sys, agentspan
from agentspan.journal import log
from agentspan.recording.tracer import recorder_of
from tests.journal.recorded import append_by_calls
tracer = agentspan.Tracer(sys.argv[1])
append_by_calls(tracer)
with tracer.run("a"):
    tracer.flush()
    recorder_of(tracer).sink.work.thread.stop(5)
    recorder_of(tracer).sink.work.thread.start = lambda: None
    for number in range(1000):
        with tracer.span("tool", {"name": str(number), "text": "x" * (number * 5)}):
            pass
    assert type(recorder_of(tracer).sink.log) is log.Written
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "runs.db"
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert len(segments_of(path)) > 1
    with agentspan.open(path) as db:
        assert len(db.storage.ask(Query("agent_span", {"status": "complete"})).rows) == 1000
        assert db.doctor().damage == []
