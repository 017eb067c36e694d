"""Output where it is not UTF-8, names with control characters, and the pager: nothing raises, nothing is raw."""

import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import agentspan
from agentspan.cli import main
from agentspan.cli.output import adapt_output, is_ascii
from agentspan.host import is_readable

COMMANDS = [
    ["runs"],
    ["show", "-"],
    ["show", "-", "--payloads"],
    ["search", "Zoë"],
    ["stats"],
    ["doctor"],
    ["doctor", "--schemas"],
    ["export", "all"],
    ["export", "all", "--format", "markdown"],
]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run("Zoë 中"):
        for number in range(60):
            with tracer.span("tool", {"name": f"zoë{number}", "text": "Zoë → 中 😀"}):
                pass
    tracer.shutdown()
    return tmp_path / "runs.db"


@pytest.mark.full
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp437", "utf-8"])
def test_each_command_prints_what_the_encoding_has(db: Path, encoding: str, command: list[str]) -> None:
    result = CliRunner(charset=encoding).invoke(main, ["--db", str(db), *command], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output
    if command[:1] == ["export"]:
        assert "Zo" in result.stdout_bytes.decode()  # a file for elsewhere: UTF-8


def test_a_closed_stream_drops_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    adapt_output()
    with sys.stdout as opened:
        print("nobody reads this", file=opened)


def test_marks_have_a_form_in_ascii_and_accents_stay_where_they_can(db: Path) -> None:
    runner = CliRunner(charset="latin-1")
    shown = runner.invoke(main, ["--db", str(db), "show", "-"], catch_exceptions=False).stdout_bytes.decode("latin-1")
    assert "+ " in shown
    assert "Zoë ?" in shown
    assert "|" in shown


@pytest.mark.parametrize("command", [["runs"], ["doctor"], ["backup", "x"], ["export", "all", "-o", "x"]])
def test_the_name_of_a_file_is_printed_without_its_control_characters(tmp_path: Path, command: list[str]) -> None:
    result = CliRunner().invoke(main, ["--db", str(tmp_path / "a\x1b[31mb.db"), *command])
    assert result.exit_code == 1
    assert "\x1b" not in result.output
    assert "a�[31mb.db" in result.output


EVIL = "e\x1b[31mv\x07\u202e\r"
WRONG = [
    [EVIL],
    [f"--{EVIL}"],
    ["runs", EVIL],
    ["runs", f"--{EVIL}"],
    ["runs", "--status", EVIL],
    ["runs", "--limit", EVIL],
    ["runs", "--since", EVIL],
    ["show", EVIL],
    ["show", "-", f"--slow={EVIL}"],
    ["show", EVIL, "--around"],
    ["sql", f"select {EVIL}"],
    ["search", "x", "--run", EVIL],
    ["export", "-", "--format", EVIL],
    ["export", "-", "-o", f"/none/{EVIL}"],
    ["import", f"/none/{EVIL}"],
    ["backup", f"/none/{EVIL}"],
    ["prune", "--max-size", EVIL],
    ["doctor", "--idle", EVIL],
    ["serve", "--port", EVIL],
    ["serve", "--token-file", f"/none/{EVIL}"],
]


@pytest.mark.full
@pytest.mark.parametrize("command", WRONG, ids=ascii)
def test_an_error_repeats_no_control_character_of_an_argument(db: Path, command: list[str]) -> None:
    result = CliRunner().invoke(main, ["--db", str(db), *command], color=True)
    assert result.exit_code in (1, 2)
    assert not set(EVIL) & set(result.output) - set("ev[31m")


def test_what_is_to_be_copied_is_quoted_and_has_no_control_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"a b {EVIL}").mkdir()
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"a b {EVIL}" / "runs.db"
    result = CliRunner().invoke(main, ["--db", str(path), "demo"], color=True)
    assert result.exit_code == 0
    assert not set(EVIL) & set(result.output) - set("ev[31m")
    assert f"agentspan runs --db '{tmp_path}/a b e\ufffd[31mv\ufffd\ufffd\ufffd/runs.db'" in result.output


@pytest.mark.full
@pytest.mark.skipif(shutil.which("less") is None, reason="needs less")
def test_less_shows_colours_and_not_their_codes(db: Path) -> None:
    environment = {**os.environ, "TERM": "xterm-256color", "PAGER": "less", "COLUMNS": "80", "LINES": "24"}
    environment |= {"LESSCHARSET": "utf-8", "LC_ALL": "C.UTF-8"}  # whatever the locale is
    for name in ("LESS", "NO_COLOR", "LESSOPEN"):
        environment.pop(name, None)
    main_end, other_end = pty.openpty()
    command = [sys.executable, "-m", "agentspan", "--db", str(db), "show", "-", "--full"]
    process = subprocess.Popen(command, stdin=other_end, stdout=other_end, stderr=other_end, env=environment)
    os.close(other_end)
    shown, until = b"", time.monotonic() + 60
    while b"zo\xc3\xab5" not in shown and time.monotonic() < until:
        if is_readable(main_end, 0.1):
            shown += os.read(main_end, 65536)
    os.write(main_end, b"q")
    while is_readable(main_end, 0.5):
        try:
            if not os.read(main_end, 65536):
                break
        except OSError:  # the other end is closed
            break
    process.wait(60)
    os.close(main_end)
    assert b"zo\xc3\xab5" in shown
    assert b"ESC[" not in shown
    assert b"\x1b[3" in shown  # colours


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ({"LANG": "C"}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),  # as Python leaves it
        ({"LC_ALL": "POSIX", "LANG": "de_DE.UTF-8"}, True),
        ({}, False),
        ({"LANG": "C.UTF-8"}, False),
        ({"LC_ALL": "de_DE.UTF-8", "LANG": "C"}, False),
        ({"LANG": "C", "PYTHONUTF8": "1"}, False),
    ],
)
def test_a_locale_of_ascii_is_recognised(locale: dict[str, str], expected: bool) -> None:
    assert is_ascii(locale) == expected


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_terminal_of_ascii_gets_ascii_and_a_pipe_gets_all(db: Path, locale: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "PYTHON"))}
    environment |= {"LANG": locale, "TERM": "xterm", "COLUMNS": "80", "LINES": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "agentspan", "--db", str(db), "show", "-#1"]
    assert "Zoë → 中" in subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode()
    main_end, other_end = pty.openpty()
    with subprocess.Popen(command, env=environment, stdin=other_end, stdout=other_end, stderr=other_end):
        os.close(other_end)
        shown = b""
        try:
            while part := os.read(main_end, 65536):
                shown += part
        except OSError:  # Linux says so when the other end is closed
            pass
    os.close(main_end)
    assert shown.isascii() == (locale == "C")
    assert shown.startswith(b"+ Tool zo" if locale == "C" else "✓ Tool zoë".encode())
