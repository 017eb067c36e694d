"""`agentspan open`: finds or starts a server of the file, prints the address of a page, opens it in a browser."""

import json
import os
import signal
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.journal.journal_folder import state_folder
from agentspan.serve.running import running
from agentspan.storage.location import Location, file
from tests.cli.calling import call, process
from tests.waiting import until

pytest.importorskip("uvicorn", reason="needs uvicorn")


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file with one run of two steps. Servers of it that run in the background are ended."""
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "AGENTSPAN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("a"):
        for number in range(2):
            with tracer.span("tool", {"name": f"t{number}"}):
                pass
    tracer.shutdown()
    yield path
    for server in running(file(path)):
        os.kill(server.process.pid, signal.SIGKILL)


def opened(db: Path, *args: str) -> dict[str, Any]:
    result = call(db, "open", *args, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def page(url: str) -> int:
    with urllib.request.urlopen(url, timeout=60) as answer:
        status: int = answer.status
        return status


def notes() -> list[Path]:
    return [*(state_folder() / "servers").glob("*.json")]


def test_a_server_is_started_found_again_and_stopped(db: Path) -> None:
    first = opened(db)
    assert first["started"]
    assert page(first["url"]) == 200
    with agentspan.open(db, read_only=True) as database:
        run = database.agent_instances.list()[0].id
        step = database.agent_spans.list(run)[1].id
    assert opened(db, "-") == {"url": f"{first['url']}runs/{run}", "started": False}
    assert opened(db, "-#2") == {"url": f"{first['url']}runs/{run}#span={step}", "started": False}
    (note,) = notes()
    assert stat.S_IMODE(note.stat().st_mode) == 0o600
    (server,) = running(file(db))
    assert server.in_background
    assert os.getsid(server.process.pid) == server.process.pid, "it outlives the terminal"
    assert f"{server.process.pid}" not in [str(os.getpid())]
    assert str(db) not in Path(f"/proc/{server.process.pid}/cmdline").read_text()
    assert opened(db, "--stop") == {"stopped": [first["url"].rstrip("/")]}
    until(lambda: not Path(f"/proc/{server.process.pid}/exe").exists())
    assert (notes(), opened(db, "--stop")) == ([], {"stopped": []})


def test_a_server_that_a_person_started_is_used_and_never_stopped(db: Path) -> None:
    server = process(db, "serve", "--port", "0", "--idle", "1h")
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split(" on ")[1].split(" ")[0]
        until(lambda: bool(notes()))
        assert opened(db) == {"url": f"{url}/", "started": False}
        assert opened(db, "--stop") == {"stopped": []}
        assert page(url) == 200
        assert [*running(file(db.with_name("other.db")))] == []
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    assert notes() == []


def test_an_idle_server_ends_by_itself(db: Path) -> None:
    server = process(db, "serve", "--port", "0", "--idle", "1s")
    out, errors = server.communicate(timeout=120)
    assert (server.returncode, errors) == (0, "")
    assert " on http://127.0.0.1:" in out
    assert notes() == []


def test_the_note_of_a_server_that_was_killed_or_is_anothers_is_not_used(db: Path) -> None:
    server = process(db, "serve", "--port", "0")
    assert server.stdout is not None
    server.stdout.readline()
    until(lambda: len([*running(file(db))]) == 1)
    (note,) = notes()
    text = note.read_text()
    note.write_text(text.replace(json.loads(text)["number"], "0" * 16))
    assert [*running(file(db))] == [], "another server answers at the address"
    assert notes(), "its process lives: it may only be busy"
    note.write_text(text.replace("http://", "https://"))
    assert [*running(file(db))] == []
    assert notes() == []
    note.write_text(text)
    note.chmod(0o666)
    assert [*running(file(db))] == [], "others may have written it"
    note.write_text(text)
    note.chmod(0o600)
    server.kill()
    server.communicate(timeout=60)
    assert [*running(file(db))] == []
    assert notes() == []


def test_the_address_is_opened_where_there_is_a_browser(db: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{seen}"\n')
    browser.chmod(0o755)
    result = call(db, "open", "-", BROWSER=f"{browser} %s")
    assert result.exit_code == 0, result.output
    address, note = result.output.splitlines()
    until(lambda: seen.exists() and seen.read_text() == f"{address}\n")
    assert "--stop" in note
    seen.unlink()
    (again,) = call(db, "open", "--no-browser", BROWSER=f"{browser} %s").output.splitlines()
    assert again.endswith("/  (open it in a browser)")
    assert not seen.exists()


def test_without_a_file_or_with_a_run_that_is_not_there_no_server_is_started(db: Path, tmp_path: Path) -> None:
    assert "does not exist" in call(tmp_path / "none.db", "open").output
    assert "no run or span has an id like 'zzz'" in call(db, "open", "zzz").output
    assert notes() == []


def test_why_a_server_does_not_start_is_told(db: Path) -> None:
    result = call(db, "open", AGENTSPAN_TOKEN="short")
    assert result.exit_code == 1
    assert "token" in result.output
    assert notes() == []


def test_no_module_of_the_current_folder_is_imported_by_the_server(db: Path, tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise SystemExit('taken over')\n")
    command = [sys.executable, "-P", "-m", "agentspan", "--db", str(db), "open", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["started"]


def test_a_place_that_is_no_file_has_a_note_of_its_own() -> None:
    assert [*running(Location("postgresql", "postgresql://localhost/none"))] == []
