"""What another user has put beside a file, where they may write: it is not read, not written to, and named."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import agentspan
from agentspan.errors import DatabaseUnusable
from agentspan.journal import journal_folder
from agentspan.journal.journal_folder import folder_of, is_possible
from agentspan.storage.questions import Query
from agentspan.storage.sqlite.index import index_file
from tests.cli.calling import call
from tests.journal.segment_files import segments_of

NOBODY, SOMEBODY = 65534, 65533

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs a journal")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")

KILLED = """
import os, signal, sys, agentspan
agentspan.configure(sys.argv[1])
with agentspan.run("killed"):
    agentspan.flush()
    with agentspan.span("tool", {"name": "left"}):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def _said_anew() -> None:
    journal_folder.warn.cache_clear()
    index_file._warn.cache_clear()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a program that was killed."""
    folder = tmp_path_factory.mktemp("killed") / "files"
    folder.mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder / "runs.db")])
    assert done.returncode == -signal.SIGKILL
    return folder


@pytest.fixture
def path(tmp_path: Path, killed: Path) -> Path:
    """A file with the journal of a program that was killed."""
    return Path(shutil.copytree(killed, tmp_path / "files")) / "runs.db"


def spans(path: Path) -> int:
    with agentspan.open(path) as db:
        return len(db.storage.ask(Query("agent_span")).rows)


def linked(found: Path) -> None:
    moved = found.rename(found.with_name("elsewhere"))
    found.symlink_to(moved)


def copied_over_a_file(found: Path) -> None:
    shutil.rmtree(found)
    found.touch(mode=0o600)


CHANGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda found: found.chmod(0o770), "others may write to it"),
    (linked, "it is a symbolic link"),
    pytest.param(  # type: ignore[list-item]
        lambda found: os.chown(found, NOBODY, NOBODY), "it belongs to another user", marks=as_root
    ),
]


@pytest.mark.parametrize(("change", "why"), [*CHANGES, (copied_over_a_file, "it is not a folder")])
def test_a_folder_that_may_be_another_users_is_not_used(
    path: Path, change: Callable[[Path], object], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    change(folder_of(path))
    before = segments_of(path)
    assert spans(path) == 0
    assert [record.message for record in caplog.records if f"{folder_of(path)} is not used: {why}" in record.message]
    with caplog.at_level("WARNING"):
        tracer = agentspan.Tracer(path)
        with tracer.run("recorded"), tracer.span("tool", {"name": "x"}):
            pass
        assert tracer.health().failed == 0
        tracer.shutdown()
    assert any("recording by commits" in record.message and why in record.message for record in caplog.records)
    assert spans(path) == 1
    assert segments_of(path) == before


@pytest.mark.parametrize(
    ("change", "why"), [*CHANGES, (lambda found: os.link(found, f"{found}.too"), "it has another name, too")]
)
def test_a_segment_that_may_be_another_users_is_not_read(
    path: Path, change: Callable[[Path], object], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    (segment,) = segments_of(path)
    change(segment)
    assert spans(path) == 0
    assert [record.message for record in caplog.records if f"{segment}" in record.message and why in record.message]
    assert os.path.lexists(segment)


def test_a_pipe_in_the_place_of_a_segment_is_not_waited_for(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (segment,) = segments_of(path)
    segment.unlink()
    os.mkfifo(segment, 0o600)
    assert spans(path) == 0
    assert "neither a file nor a folder" in caplog.text


@pytest.mark.full
def test_a_reading_command_says_what_it_did_not_read(path: Path) -> None:
    folder_of(path).chmod(0o777)
    command = [sys.executable, "-m", "agentspan", "--db", str(path), "runs"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert f"the journal {folder_of(path)} is not used: others may write to it" in done.stderr


def test_a_folder_that_is_made_while_a_program_records_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path)
    folder = folder_of(path)
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with tracer.run("recorded"), tracer.span("tool", {"name": "x"}):
        pass
    assert (tracer.health().recorded, tracer.health().failed) == (4, 0)
    assert list(folder.iterdir()) == []
    assert "there can be no journal" in caplog.text
    assert "others may write to it" in caplog.text
    tracer.shutdown()
    assert spans(path) == 1


def test_a_file_in_the_place_of_the_folder_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path)
    folder = folder_of(path)
    with tracer.run("recorded"):
        for number in range(30):
            with tracer.span("tool", {"name": "x"}):
                time.sleep(0.01)  # the thread looks after its segments meanwhile
            if number == 5:
                shutil.rmtree(folder)
                folder.touch()
            if number == 20:
                folder.unlink()
    assert tracer.flush()
    assert tracer.health()[:3] == (62, 0, 0)
    tracer.shutdown()
    assert spans(path) == 30


@as_root
@pytest.mark.parametrize(("owner", "seen"), [(NOBODY, 1), (SOMEBODY, 0)])
def test_root_reads_what_the_owner_of_the_file_has_left(path: Path, owner: int, seen: int) -> None:
    for each in (path, *path.parent.glob("runs.db-*")):
        os.chown(each, NOBODY, NOBODY)
    for each in (folder_of(path), *segments_of(path)):
        os.chown(each, owner, owner)
    assert spans(path) == seen
    assert bool(segments_of(path)) == (not seen)


@pytest.mark.parametrize(
    ("change", "why"), [*CHANGES, (lambda found: os.link(found, f"{found}.too"), "it has another name, too")]
)
def test_an_index_that_may_be_another_users_is_not_written_to(
    tmp_path: Path, change: Callable[[Path], object], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, other = tmp_path / "runs.db", tmp_path / "runs.db-index"
    with agentspan.open(path) as db:
        db.agent_spans.create(db.agent_instances.register("a").id, "tool", "active", {"name": "x"})
    sqlite3.connect(other).execute("create table mine (a)").connection.close()
    other.chmod(0o600)
    change(other)
    before = other.read_bytes()
    for command in ("runs", "stats", "search x"):
        assert call(path, *command.split()).exit_code == 0
    assert other.read_bytes() == before
    assert [record.message for record in caplog.records if f"{other} is not used: {why}" in record.message]


def test_a_link_that_names_no_index_yet_makes_none(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    index_file.path_of(path).symlink_to(tmp_path / "elsewhere")
    assert call(path, "runs").exit_code == 0
    assert not (tmp_path / "elsewhere").exists()


@as_root
@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_a_log_of_another_user_is_not_read_as_a_part_of_the_file(tmp_path: Path, end: str) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    log = Path(f"{path}{end}")
    log.touch()
    os.chown(log, NOBODY, NOBODY)
    for read_only in (True, False):
        with pytest.raises(DatabaseUnusable, match=f"{log} is not to be trusted: it belongs to another user"):
            agentspan.open(path, read_only=read_only)
    os.chown(path, NOBODY, NOBODY)
    agentspan.open(path).close()
