"""`agentspan record`: programs that know nothing of agentspan, as real processes."""

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import termios
import urllib.request
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import installing
from agentspan.cli.record import Noted, command_line
from agentspan.otel.instruments.known import FRAMEWORKS, LIMITS
from tests.cli.calling import call
from tests.otel.fake_packages import packages_in

AGENT = """
import sys, openai
print(openai.ask(sys.stdin.read().strip()))
sys.exit(7)
"""
WAITS = """
import signal, sys, time, openai
def stop(number, frame):
    openai.ask("last words")
    sys.exit(5)
signal.signal(signal.SIGTERM, stop)
openai.ask("a")
print("ready", flush=True)
for _ in range(1200):  # a signal that comes just before a sleep begins does not end it
    time.sleep(0.05)
"""
LATE_WAIT = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/types.h>
#include <time.h>
pid_t waitpid(pid_t pid, int *status, int options)
{
    struct timespec pause = {20, 0};
    if (!options)
        nanosleep(&pause, 0);
    return ((pid_t (*)(pid_t, int *, int))dlsym(RTLD_NEXT, "waitpid"))(pid, status, options);
}
"""
"""A `waitpid` that begins after a signal has come: what happens where the process is held up at the wrong moment."""
IN_A_TERMINAL = """
import os, sys, time, openai
print([os.isatty(number) for number in (0, 1, 2)], flush=True)
print("hello", input("ready? "))
openai.ask("a")
try:
    print("ready", flush=True)
    for _ in range(1200):
        time.sleep(0.05)
except KeyboardInterrupt:
    time.sleep(0.2)
    openai.ask("b")
    sys.exit(4)
"""
APP = """
import openai
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": openai.ask("hi").encode()})
"""
OWN_PROVIDER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
provider = TracerProvider()
trace.set_tracer_provider(provider)
with trace.get_tracer("mine").start_as_current_span("own step"):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    packages_in(tmp_path / "packages")
    return tmp_path


def start(folder: Path, *arguments: str, **how: Any) -> "subprocess.Popen[str]":
    pipes = {**dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE), **how}
    command = [sys.executable, "-m", "agentspan", "--db", str(folder / "runs.db"), *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHONUNBUFFERED"))}
    environment = {**kept, "PYTHONPATH": str(folder / "packages"), "COLUMNS": "200"}
    return subprocess.Popen(command, text=True, env=environment, cwd=folder, **pipes)


def stored(folder: Path) -> list[tuple[Any, ...]]:
    agentspan.open(folder / "runs.db").close()
    with closing(sqlite3.connect(folder / "runs.db")) as connection:
        return connection.execute(
            "select schema_name, status, input_tokens from agent_spans order by started_at"
        ).fetchall()


@pytest.mark.full
def test_a_program_is_recorded_and_keeps_its_streams_and_its_exit_code(folder: Path) -> None:
    (folder / "agent.py").write_text(AGENT)
    for arguments in (["python", "agent.py"], ["agent.py"]):
        first = sys.executable if arguments[0] == "python" else arguments[0]
        with start(folder, "record", "--", first, *arguments[1:]) as process:
            out, err = process.communicate("hello\n", 60)
        assert (out, process.returncode) == ("HELLO\n", 7)
        (line,) = err.splitlines()
        assert line.startswith("agentspan: run ")
        assert "(agent) is in" in line
        assert "agentspan show" in line
    with start(folder, "record", "-m", "agent", "-m", "--list") as process:  # what follows MODULE is the module's
        assert process.communicate("module\n", 60)[0] == "MODULE\n"
    assert stored(folder) == [("llm", "complete", 5)] * 3


def terminated(folder: Path) -> int:
    """Send SIGTERM to `agentspan record` when its program prints `ready`; return its exit code."""
    with start(folder, "record", "--", sys.executable, "agent.py") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    return process.returncode


def test_a_signal_reaches_the_program(folder: Path) -> None:
    (folder / "agent.py").write_text(WAITS)
    assert terminated(folder) == 5
    assert stored(folder) == [("llm", "complete", 5)] * 2


@pytest.mark.full
@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_signal_is_passed_on_that_comes_just_before_the_wait_for_the_program(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "agent.py").write_text(WAITS.replace("1200", "200"))
    (folder / "late.c").write_text(LATE_WAIT)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "late.so", "late.c", "-ldl"], cwd=folder, check=True)
    monkeypatch.setenv("LD_PRELOAD", str(folder / "late.so"))
    assert terminated(folder) == 5


@pytest.mark.full
@pytest.mark.parametrize("full", [False, True])
def test_the_exit_code_is_the_programs_where_nothing_can_be_printed(folder: Path, *, full: bool) -> None:
    (folder / "agent.py").write_text(AGENT)
    where, other = (os.open("/dev/full", os.O_WRONLY), None) if full else reversed(os.pipe())
    if other is not None:
        os.close(other)
    with start(folder, "record", "--", "agent.py", stderr=where) as process:
        assert process.communicate("hello\n", 60)[0] == "HELLO\n"
    os.close(where)
    assert process.returncode == 7


def typed(folder: Path, program: str, *keys: bytes) -> tuple[str, int]:
    """Run a program in a terminal of its own, type keys, each when the program prints `ready`; return what is shown."""
    (folder / "agent.py").write_text(program)
    terminal, its = pty.openpty()
    how: dict[str, Any] = {"stdin": its, "stdout": its, "stderr": its, "start_new_session": True}
    with start(folder, "record", "--", "agent.py", **how, preexec_fn=take_terminal) as process:
        os.close(its)
        shown, waiting = b"", [*keys]
        with suppress(OSError):  # the end of a terminal
            while part := os.read(terminal, 4096):
                shown += part
                if waiting and shown.count(b"ready") > len(keys) - len(waiting):
                    os.write(terminal, waiting.pop(0))
        process.wait(60)
    os.close(terminal)
    return shown.decode(), process.returncode


def take_terminal() -> None:
    """Make stdin the terminal whose keys send signals; runs in the child, before the program."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.full
def test_a_program_keeps_its_terminal_and_is_interrupted_once(folder: Path) -> None:
    shown, code = typed(folder, IN_A_TERMINAL, b"mia\n", b"\x03")
    assert "[True, True, True]" in shown
    assert "hello mia" in shown
    assert "Traceback" not in shown, "one key is one KeyboardInterrupt"
    assert code == 4
    assert "agentspan: run " in shown.splitlines()[-1]
    assert stored(folder) == [("llm", "complete", 5)] * 2


@pytest.mark.full
def test_an_interrupt_that_no_terminal_sends_is_passed_on(folder: Path) -> None:
    (folder / "agent.py").write_text(WAITS.replace("SIGTERM", "SIGINT"))
    with start(folder, "record", "--", "agent.py", start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 5


@pytest.mark.full
def test_a_signal_that_is_ignored_stays_so(folder: Path) -> None:
    """As `nohup` starts programs."""
    (folder / "agent.py").write_text("import signal; print(signal.getsignal(signal.SIGHUP))")
    ignore = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
    with start(folder, "record", "--", "agent.py", preexec_fn=ignore) as process:
        assert process.communicate(timeout=60)[0] == "1\n"


@pytest.mark.full
def test_a_program_ends_where_the_signal_for_that_is_blocked(folder: Path) -> None:
    """As by a launcher that waits for its children with `sigwait`, and starts programs with its own signal mask."""
    (folder / "agent.py").write_text("import sys; sys.exit(3)")
    block = partial(signal.pthread_sigmask, signal.SIG_BLOCK, {signal.SIGCHLD})
    with start(folder, "record", "--", "agent.py", preexec_fn=block) as process:
        process.communicate(timeout=60)
    assert process.returncode == 3


@pytest.mark.skipif(not os.environ.get("AGENTSPAN_TEST_RECORD"), reason="opt-in: AGENTSPAN_TEST_RECORD=1 (15 s)")
def test_a_server_and_the_workers_of_a_test_run_are_recorded(folder: Path) -> None:
    (folder / "test_a.py").write_text("import openai\ndef test_a(): openai.ask('a')\ndef test_b(): openai.ask('b')\n")
    with start(folder, "record", "-m", "pytest", "-q", "-p", "xdist", "-n", "1", "test_a.py") as process:
        out, err = process.communicate(timeout=120)
    assert "2 passed" in out
    assert "agentspan: run " in err.splitlines()[-1]
    assert stored(folder) == [("llm", "complete", 5)] * 2
    (folder / "app.py").write_text(APP)
    with start(folder, "record", "-m", "uvicorn", "--port", "0", "app:app") as process:
        assert process.stderr is not None
        port = next(line for line in process.stderr if " on http://" in line).partition("127.0.0.1:")[2].split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            assert answer.read() == b"HI"
        process.send_signal(signal.SIGTERM)
        assert "agentspan: run " in process.communicate(timeout=60)[1].splitlines()[-1]
    assert stored(folder) == [("llm", "complete", 5)] * 3


def test_a_killed_program_leaves_every_started_step(folder: Path) -> None:
    (folder / "agent.py").write_text(WAITS.replace('print("ready", flush=True)', "import os; os.kill(os.getpid(), 9)"))
    with start(folder, "record", "--", sys.executable, "agent.py") as process:
        err = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGKILL
    assert "agentspan: run " in err
    assert stored(folder) == [("llm", "complete", 5)]


@pytest.mark.full
def test_spans_of_the_programs_own_provider_are_recorded(folder: Path) -> None:
    (folder / "agent.py").write_text(OWN_PROVIDER)
    with start(folder, "record", "--", sys.executable, "agent.py") as process:
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert stored(folder) == [("own step", "complete", None)]


@pytest.mark.full
def test_children_are_recorded_and_a_program_without_steps_says_so(folder: Path) -> None:
    (folder / "agent.py").write_text("import openai; openai.ask('a')")
    (folder / "parent.py").write_text("import subprocess, sys; subprocess.run([sys.executable, 'agent.py'])")
    with start(folder, "record", "--", sys.executable, "parent.py") as process:
        process.communicate(timeout=60)
    assert stored(folder) == [("llm", "complete", 5)]
    (folder / "nothing.py").write_text("")
    with start(folder, "record", "--", sys.executable, "nothing.py") as process:
        assert "nothing was recorded: no known framework was imported" in process.communicate(timeout=60)[1]
    with start(folder, "record", "--", "no-such-program") as process:
        err = process.communicate(timeout=60)[1]
    assert (process.returncode, err) == (1, "Error: cannot run no-such-program: No such file or directory\n")


def said(folder: Path, program: str, *arguments: str) -> tuple[list[str], int]:
    """Record a program; return what `agentspan record` says of it, and the exit code."""
    (folder / "agent.py").write_text(program)
    with start(
        folder, "record", "--", *(arguments or (sys.executable, "agent.py")), stdin=subprocess.DEVNULL
    ) as process:
        err = process.communicate(timeout=60)[1]
    lines = [line for line in err.splitlines() if "crewai could not be turned on" not in line]
    assert all(line.startswith("agentspan: ") for line in lines), err
    return [line.removeprefix("agentspan: ") for line in lines], process.returncode


def test_a_program_that_asks_whether_a_framework_is_there_is_recorded(folder: Path) -> None:
    (folder / "agent.py").write_text("from importlib.util import find_spec\nassert find_spec('openai')\n" + AGENT)
    with start(folder, "record", "--", sys.executable, "agent.py") as process:
        process.communicate("hello\n", 60)
    assert stored(folder) == [("llm", "complete", 5)]


def test_a_program_that_imports_no_framework_imports_nothing_of_agentspan(folder: Path) -> None:
    imported = "[name for name in sys.modules if name.partition('.')[0] in ('agentspan', 'opentelemetry')]"
    waited_for = "sorted(sys.meta_path[0].find_spec.__globals__['WANTED'])"
    with start(folder, "record", "--", sys.executable, "-c", f"import sys; print({imported}, {waited_for})") as process:
        out = process.communicate(timeout=60)[0]
    assert out == f"[] {sorted(['opentelemetry.trace', *(each.module for each in FRAMEWORKS)])}\n"
    assert not (folder / "runs.db").exists()


def test_what_was_imported_and_not_recorded_is_said_once_with_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # the path of pip is as seen from there
    (folder / "packages" / "crewai.py").write_text("import groq")
    (folder / "packages" / "langchain_groq.py").write_text("import mistralai")
    for name in ("groq", "mistralai"):
        (folder / "packages" / f"{name}.py").touch()
    lines, code = said(folder, "import dspy, openai, langchain_groq; openai.ask('a')\nraise SystemExit(3)")
    install = installing.command("openinference-instrumentation-dspy")
    assert lines[0] == f"dspy was imported and not recorded; {install}", "LangChain's own has the calls of its client"
    assert lines[1].startswith("run ")
    assert (len(lines), code) == (2, 3)
    (line,), code = said(folder, "import dspy, crewai\nraise SystemExit(3)")
    install += " openinference-instrumentation-groq"
    refused = "crewai was imported and not recorded: RuntimeError: does not fit"
    assert line == f"nothing was recorded: dspy, groq were imported and not recorded; {install}; {refused}", (
        "CrewAI's has no calls"
    )
    assert code == 3


TRACES_ITSELF = """
import openai  # with an instrumentor that records nothing of this import
from opentelemetry import trace
def ask(question):
    with trace.get_tracer("traces_itself.telemetry").start_as_current_span("chat m") as span:
        span.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"})
"""


def test_what_a_framework_recorded_itself_is_not_said_to_be_missing(folder: Path) -> None:
    (folder / "packages" / "openai.py").rename(folder / "packages" / "groq.py")
    (folder / "packages" / "traces_itself.py").write_text(TRACES_ITSELF.replace("openai", "groq"))
    lines, _ = said(folder, "import traces_itself; traces_itself.ask('a')")
    assert [line.partition(" ")[0] for line in lines] == ["run"]
    lines, _ = said(folder, "import groq, traces_itself; traces_itself.ask('a')")
    assert lines[0].startswith("groq was imported and not recorded"), "the program may call it, too"


def test_a_program_that_instruments_itself_is_recorded_once(folder: Path) -> None:
    """Its instrumentor imports the framework, and `record` turns instrumentors on at this import."""
    program = "import agentspan; agentspan.instrument('openai'); import openai; openai.ask('a')"
    said(folder, program)
    assert stored(folder) == [("llm", "complete", 5)]


@pytest.mark.full
def test_where_nothing_was_recorded_the_reason_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert said(folder, "import openai") == (["nothing was recorded: openai can be recorded here, and made no step"], 0)
    assert "no Python was started" in said(folder, "", "true")[0][0]
    assert "no Python was started" in said(folder, "", sys.executable, "-I", "-c", "")[0][0]
    (folder / "packages" / "opentelemetry.py").write_text("raise ModuleNotFoundError('no opentelemetry')")
    extra = f"{sys.executable} has no OpenTelemetry SDK; {installing.extra('otel')}"
    assert "no known framework was imported" in said(folder, "print('x')")[0][0]
    (line,), _ = said(folder, "import openai, dspy")
    assert line.startswith(
        f"nothing was recorded: dspy, openai were imported and not recorded; {extra}; {installing.command('open')}"
    )
    (folder / "packages" / "agentspan").mkdir()
    (folder / "packages" / "agentspan" / "__init__.py").write_text("raise ImportError('broken')")
    site = Path(agentspan.__file__).parent / "otel" / "site"
    note = folder / "notes"
    environment = {"PYTHONPATH": f"{site}:{folder / 'packages'}", "AGENTSPAN_RECORD_NOTES": str(note)}
    command = [sys.executable, "-c", "import openai, dspy"]
    for is_there in (False, True):  # `record` has deleted it where a process outlives it
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=True)
        assert (done.stderr, note.exists()) == ("", is_there)
        note.touch()
    told = [f"python {sys.executable}", f"without {sys.executable} cannot import agentspan: broken"]
    assert note.read_text().splitlines() == told


@pytest.mark.parametrize(("name", "value"), [("AGENTSPAN_DISABLED", "1"), ("OTEL_SDK_DISABLED", "true")])
def test_a_variable_that_turns_recording_off_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert Noted.of(["recorded openai", "python x"]).why_nothing() == "openai can be recorded here, and made no step"
    monkeypatch.setenv(name, value)
    assert Noted.of(["recorded openai", "python x"]).why_nothing() == f"{name} is set in the environment"


def test_python_is_the_one_beside_agentspan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python3").touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "agentspan")])
    assert command_line(["python3", "a.py"]) == [str(tmp_path / "python3"), "a.py"]
    assert command_line(["python", "a.py"]) == ["python", "a.py"], "PATH resolves it"
    assert command_line(["/usr/bin/python3", "a.py"]) == ["/usr/bin/python3", "a.py"]
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "__main__.py")])
    assert command_line(["python3", "-c", ""])[0] == str(Path(sys.executable).with_name("python3"))


def test_the_list_ends_with_a_command_that_installs(tmp_path: Path) -> None:
    shown = call(tmp_path / "runs.db", "record", "--list").output
    assert re.search(
        r"^(to record what is not|what is installed lacks nothing; for [a-z-]+):\s+\S*pip install .*\n\Z", shown, re.M
    )


@pytest.mark.full
def test_the_list_names_what_is_recorded_what_is_missing_and_known_limits(folder: Path) -> None:
    (folder / "packages" / "semantic_kernel.py").touch()
    with start(folder, "record", "--list") as process:
        lines = process.communicate(timeout=60)[0].splitlines()
    by_name = {line.split()[0]: line for line in lines}
    assert "openinference-instrumentation-openai 9.9" in by_name["openai"]
    assert by_name["dspy"].endswith("needs openinference-instrumentation-dspy")
    limits = [at for at, line in enumerate(lines) if ": " in line and line.split(":")[0] in LIMITS]
    assert [lines[at] for at in limits] == [f"semantic-kernel: {LIMITS['semantic-kernel']}"], "of what is recorded here"
    assert lines[limits[0] + 1].startswith("to record what is not:")
    assert " openinference-instrumentation-dspy" in lines[-1]
    with start(folder, "record", "--list", "--json") as process:
        found = {each["name"]: each for each in json.loads(process.communicate(timeout=60)[0])["frameworks"]}
    assert (found["openai"]["records"], found["dspy"]["records"], found["dspy"]["installed"]) == (True, False, True)
    assert {name: each["limit"] for name, each in found.items() if each["limit"]} == LIMITS
