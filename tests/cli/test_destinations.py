"""Files that commands write: devices, pipes, links and folders stay what they are."""

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import agentspan
from agentspan.errors import InvalidValue
from agentspan.maintenance import copying
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import SpansOf
from tests.cli.calling import call, named

EXPORTS = [["export", "all", "--format", form, "-o"] for form in ("jsonl", "markdown", "html")]
COMMANDS = [*EXPORTS, ["backup"]]
all_commands = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("a"), tracer.span("tool", {"name": "é"}):
        pass
    tracer.shutdown()
    return path


def expected(db: Path, command: list[str]) -> Callable[[bytes], bool]:
    """Return a check of what a command writes."""
    if command == ["backup"]:
        return lambda written: written.startswith(b"SQLite format 3\0")
    text = call(db, *command[:-1]).output.encode()
    return lambda written: written == text


def is_whole(result: str, written: bytes) -> bool:
    return result.endswith(f": {len(written):,} bytes\n")


@all_commands
def test_a_pipe_is_written_to(db: Path, tmp_path: Path, command: list[str]) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    result = call(db, *command, str(pipe))
    reader.join(20)
    assert result.exit_code == 0, result.output
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert expected(db, command)(read[0])
    assert is_whole(result.output, read[0])


@all_commands
def test_a_device_is_written_to(db: Path, tmp_path: Path, command: list[str]) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError:
        pytest.skip("needs root, and a file system that has devices")
    link = tmp_path / "link"
    link.symlink_to(device)
    for path in (device, link):
        result = call(db, *command, str(path))
        assert result.exit_code == 0, result.output
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert link.is_symlink()
    assert sorted(file.name for file in tmp_path.iterdir() if not file.name.startswith("runs.db")) == ["link", "null"]


@all_commands
def test_a_link_stays_and_its_target_is_made(db: Path, tmp_path: Path, command: list[str]) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    assert call(db, *command, str(link)).exit_code == 0
    assert link.is_symlink()
    assert expected(db, command)(target.read_bytes())
    assert target.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("command", EXPORTS, ids=" ".join)
def test_the_target_of_a_link_is_replaced_and_keeps_its_mode(db: Path, tmp_path: Path, command: list[str]) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    assert call(db, *command, str(link)).exit_code == 0
    assert link.is_symlink()
    assert expected(db, command)(target.read_bytes())
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_backup_replaces_no_file_behind_a_link_either(db: Path, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("precious")
    link.symlink_to(target)
    result = call(db, "backup", str(link))
    assert (result.exit_code, "exists already" in result.output) == (1, True)
    assert target.read_text() == "precious"
    with agentspan.open(db, read_only=True) as opened, pytest.raises(InvalidValue):
        copying.backup(opened.storage, link)


@all_commands
def test_where_nothing_can_be_written_one_line_says_so(db: Path, tmp_path: Path, command: list[str]) -> None:
    closed = Path("/proc")  # where root cannot write either
    if os.geteuid():
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o500)
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (closed / "x", folder, tmp_path / "none" / "x", tmp_path / ("x" * 300)):
        result = call(db, *command, str(path))
        assert result.exit_code == 1
        assert result.output.startswith("Error: ")
        assert result.output.count("\n") == 1, result.output
    assert list(folder.iterdir()) == []
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix == "" and file.name[0] == ".") == []


@pytest.mark.full
def test_dev_stdout_is_appended_to_and_messages_go_to_stderr(db: Path, tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"before\n")
    for command in (EXPORTS[0], ["backup"]):  # into a file, and into a pipe
        with file.open("ab") as appended:
            done = subprocess.run(
                [sys.executable, "-m", "agentspan", "--db", str(db), *command, "/dev/stdout"],
                stdout=subprocess.PIPE if command == ["backup"] else appended,
                stderr=subprocess.PIPE,
            )
        assert done.returncode == 0, done.stderr
        if command != ["backup"]:
            assert file.read_bytes().startswith(b"before\n")
        written = done.stdout if command == ["backup"] else file.read_bytes().removeprefix(b"before\n")
        assert expected(db, command)(written)
        assert is_whole(done.stderr.decode(), written)


class Ended(MemoryStorage):
    """A storage of a program that is told to end when it reads the spans of a run."""

    is_exported = False

    def ask(self, question: Any, **how: Any) -> Any:
        if self.is_exported and isinstance(question, SpansOf):
            os.kill(os.getpid(), signal.SIGTERM)
        return super().ask(question, **how)


def test_an_export_that_is_ended_leaves_no_unfinished_file(tmp_path: Path) -> None:
    storage = Ended()
    with agentspan.open(storage) as opened:
        opened.agent_instances.register("a")
        storage.is_exported = True
        result = CliRunner().invoke(named("export"), ["all", "-o", str(tmp_path / "copy")], obj=opened)
    assert (result.exit_code, list(tmp_path.iterdir())) == (128 + signal.SIGTERM, [])


def test_a_backup_names_the_disk_that_is_full(db: Path, tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs a user who may mount file systems")
    try:
        result = call(db, "backup", str(folder / "copy.db"))
        assert (result.exit_code, list(folder.iterdir())) == (1, [])
        assert f"{folder / 'copy.db'} cannot be written: database or disk is full" in result.output
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
