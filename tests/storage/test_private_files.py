"""Nobody but its owner may open a file of ours, at no moment: whoever polls for it gets no descriptor.

Modes are not set afterwards: the programs here run with a umask that forbids nothing, and with os.chmod and os.fchmod
that do nothing, so a file that is private at the end was private when it was made.
"""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import agentspan
from agentspan import files
from agentspan.journal.journal_folder import is_possible
from tests.cli.calling import call

PROGRAM = """
import os, signal, sys
os.umask({umask})
os.chmod = os.fchmod = lambda *args, **kwargs: None
import agentspan
from agentspan.cli import main
agentspan.configure("runs.db")
agentspan.span_type("lookup", payload={{"type": "object"}}, template="{{{{city}}}}")
with agentspan.run("a"), agentspan.span("tool", {{"name": "x"}}):
    agentspan.span_type("later", payload={{"type": "object"}})
    with agentspan.span("later", {{"city": "Paris"}}):
        pass
agentspan.flush()
for command in (
    "export all -o out.jsonl", "export all --format markdown -o out.md", "backup copy.db", "search Paris", "runs",
    "import out.jsonl --db new.db",
):
    main(command.split(), standalone_mode=False)
with agentspan.run("killed"), agentspan.span("tool", {{"name": "x"}}):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not is_possible(), reason="needs a journal")
@pytest.mark.parametrize("umask", [0, 0o077])
def test_every_file_is_made_for_its_owner_only(tmp_path: Path, umask: int) -> None:
    code = PROGRAM.format(umask=umask)
    environment = {**os.environ, "AGENTSPAN_DB": "runs.db", "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    expected = {"runs.db", "runs.db-wal", "runs.db-shm", "runs.db-index", "out.jsonl", "out.md", "copy.db", "new.db"}
    assert modes.pop("runs.db.spool") == 0o700
    assert modes.keys() >= expected
    assert {re.split(r"[.]v[0-9]+[.]", name)[-1] for name in modes} >= {"segment", "types"}
    assert modes == dict.fromkeys(modes, 0o600)


def test_a_link_to_a_file_that_is_still_to_be_made_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "runs.db")
    before = os.umask(0)
    try:
        agentspan.SQLiteStorage(tmp_path / "link.db").close()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "runs.db").stat().st_mode) == 0o600


def test_sqlite_itself_never_makes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ensure", lambda path: None)  # as if somebody had deleted it in between
    with pytest.raises(agentspan.DatabaseUnusable, match="cannot be opened"):
        agentspan.SQLiteStorage(tmp_path / "runs.db")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    path, out = tmp_path / "runs.db", tmp_path / "out.jsonl"
    with agentspan.open(path) as db:
        db.agent_instances.register("a")
    out.touch(mode=0o644)
    out.chmod(0o644)
    call(path, "export", "all", "-o", str(out))
    assert out.read_text() != ""
    assert stat.S_IMODE(out.stat().st_mode) == 0o644
    assert not list(tmp_path.glob(".out*"))


def test_an_output_that_is_no_file_stays_what_it_is(tmp_path: Path) -> None:
    path, pipe = tmp_path / "runs.db", tmp_path / "pipe"
    with agentspan.open(path) as db:
        db.agent_instances.register("a")
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    call(path, "export", "all", "-o", str(pipe))
    read, _ = reader.communicate(timeout=60)
    assert read.startswith(b"{")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
