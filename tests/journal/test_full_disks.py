"""Disks that are full, folders that may not be written to, files that stay locked: the host lives, nothing is lost."""

import os
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentspan import MemoryStorage, Tracer
from agentspan.recording.sinks.journal_work import DrainThread
from agentspan.tuning import STANDARD
from tests.journal.recorded import sink_of, statuses
from tests.journal.segment_files import segments_of
from tests.recording.stored import spans_of
from tests.tiers import every
from tests.waiting import until

SEGMENT = 256 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a file system of some size, or changes that."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def size(wanted: str) -> Path:
        options = ["-o", f"remount,size={wanted}"] if folder.is_mount() else ["-t", "tmpfs", "-o", f"size={wanted}"]
        done = subprocess.run(["mount", *options, "tmpfs", folder], capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip("needs a user who may mount file systems")
        return folder

    yield size
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", folder], check=True)


def steps(tracer: Tracer, number: int) -> None:
    for _ in range(number):
        with tracer.span("tool", {"name": "x", "arguments": {"text": "y" * 1000}}) as span:
            span.set_result({"output": "z" * 1000})


def size_of(file: Path) -> int:
    """Its bytes; none where somebody has deleted it."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("size", every(3, ["1m", "3m", "9m", "12m"]))
def test_a_full_disk_costs_nothing_and_when_there_is_room_recording_goes_on(
    disk: Callable[[str], Path], size: str
) -> None:
    """No room for a segment at all; for the file, but no segment; for one, and the file; for a few."""
    path = disk(size) / "runs.db"
    tracer = Tracer(path)
    with tracer.run("full"):
        steps(tracer, 3000)
        assert tracer.health().failed == 0
        disk("200m")
        assert tracer.flush(30)
        spans = 3000

        def has_journal() -> bool:
            nonlocal spans
            steps(tracer, 1)
            spans += 1
            return sink_of(tracer).log._segment is not None

        until(has_journal)
    assert tracer.flush()
    assert tracer.health()[:3] == (2 + 2 * spans, 0, 0)
    tracer.shutdown()
    assert statuses(path) == ["complete"] * spans
    assert segments_of(path) == []


def test_what_a_full_disk_costs_after_all_is_counted(disk: Callable[[str], Path]) -> None:
    path = disk("1m") / "runs.db"
    tracer = Tracer(path, tuning=STANDARD._replace(backlog_units=100))
    with tracer.run("full"):
        steps(tracer, 1000)
        disk("200m")
        assert tracer.flush(30)
    health = tracer.health()
    assert health.recorded + health.failed + health.refused == 2 + 2000
    assert health.failed > 0
    tracer.shutdown()


def test_a_folder_that_may_not_be_written_to_has_no_journal_and_records_by_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, flags: int, *args: object, **how: object) -> int:
        if ".segment" in str(path):
            raise PermissionError(13, "Permission denied")
        return real(path, flags, *args, **how)  # type: ignore[arg-type]

    real = os.open
    tracer = Tracer(tmp_path / "runs.db")
    monkeypatch.setattr("agentspan.disk.open", refuse)
    with tracer.run("a"):
        steps(tracer, 5)
        assert statuses(tmp_path / "runs.db") == ["complete"] * 5
        monkeypatch.undo()
        sink_of(tracer).commits.progress.retry_ns = 0
        steps(tracer, 5)
        assert len(segments_of(tmp_path / "runs.db")) == 1
    tracer.shutdown()
    assert tracer.health()[:3] == (22, 0, 0)
    assert statuses(tmp_path / "runs.db") == ["complete"] * 10


@pytest.mark.full
def test_behind_a_locked_file_the_disk_grows_and_not_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path)
    other = sqlite3.connect(path, isolation_level=None)
    with tracer.run("locked"):
        other.execute("begin immediate")
        steps(tracer, 12_000)  # 25 MB
        assert tracer.health()[:5] == (1 + 24_000, 0, 0, 0, 0)
        assert tracer.health().waiting == 0
        assert len(segments_of(path)) >= 3
        other.execute("rollback")
    other.close()
    assert tracer.flush(60)
    tracer.shutdown()
    assert statuses(path) == ["complete"] * 12_000
    assert segments_of(path) == []


@pytest.mark.full
def test_beyond_the_cap_callers_do_the_work_and_nothing_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cap = tmp_path / "runs.db", 16 * 2**20
    monkeypatch.setattr(DrainThread, "start", lambda thread: None)
    tracer = Tracer(path, tuning=STANDARD._replace(journal_calls_drain_bytes=cap))
    most = 0
    with tracer.run("behind"):

        def work() -> None:
            nonlocal most
            for _ in range(20):
                steps(tracer, 200)
                most = max(most, sum(map(size_of, segments_of(path))))

        threads = [threading.Thread(target=tracer.propagate(work)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert cap < most <= 2 * cap
    assert tracer.flush(60)
    assert tracer.health()[:3] == (2 + 16_000, 0, 0)
    tracer.shutdown()
    assert statuses(path) == ["complete"] * 8_000


def test_where_there_can_be_no_journal_each_transition_is_committed_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In memory, and on a file system that keeps no room: of that the log has a line."""
    folder = tmp_path / "other"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "ramfs", "ramfs", folder], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs a user who may mount file systems")
    try:
        for db in (MemoryStorage(), folder / "runs.db"):
            tracer = Tracer(db)
            for _ in range(2):
                with tracer.run("a"):
                    steps(tracer, 3)
                    assert {span.status for span in spans_of(tracer)} == {"complete"}
            assert segments_of(folder / "runs.db") == []
            tracer.shutdown()
        assert [record.message for record in caplog.records if "file system ramfs" in record.message] != []
        assert len(caplog.records) == 1
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
