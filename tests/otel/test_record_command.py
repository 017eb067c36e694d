"""`agentspan record` and `agentspan instrument --list`: programs that know nothing of agentspan, as real processes."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import agentspan
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
time.sleep(60)
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
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-m", "agentspan", "--db", str(folder / "runs.db"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder / "packages"), "COLUMNS": "200"}
    return subprocess.Popen(command, text=True, env=environment, cwd=folder, **pipes, **how)  # type: ignore[call-overload]


def stored(folder: Path) -> list[tuple[Any, ...]]:
    agentspan.open(folder / "runs.db").close()
    with closing(sqlite3.connect(folder / "runs.db")) as connection:
        return connection.execute(
            "select schema_name, status, input_tokens from agent_spans order by started_at"
        ).fetchall()


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
        assert "agentspan --db" in line
    with start(folder, "record", "-m", "agent") as process:
        assert process.communicate("module\n", 60)[0] == "MODULE\n"
    assert stored(folder) == [("llm", "complete", 5)] * 3


def test_a_signal_reaches_the_program(folder: Path) -> None:
    (folder / "agent.py").write_text(WAITS)
    with start(folder, "record", "--", sys.executable, "agent.py") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 5
    assert stored(folder) == [("llm", "complete", 5)] * 2


def test_a_killed_program_leaves_every_started_step(folder: Path) -> None:
    (folder / "agent.py").write_text(WAITS.replace('print("ready", flush=True)', "import os; os.kill(os.getpid(), 9)"))
    with start(folder, "record", "--", sys.executable, "agent.py") as process:
        err = process.communicate(timeout=60)[1]
    assert process.returncode == -signal.SIGKILL
    assert "agentspan: run " in err
    assert stored(folder) == [("llm", "complete", 5)]


def test_spans_of_the_programs_own_provider_are_recorded(folder: Path) -> None:
    (folder / "agent.py").write_text(OWN_PROVIDER)
    with start(folder, "record", "--", sys.executable, "agent.py") as process:
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert stored(folder) == [("own step", "complete", None)]


def test_children_are_recorded_and_a_program_without_steps_says_so(folder: Path) -> None:
    (folder / "agent.py").write_text("import openai; openai.ask('a')")
    (folder / "parent.py").write_text("import subprocess, sys; subprocess.run([sys.executable, 'agent.py'])")
    with start(folder, "record", "--", sys.executable, "parent.py") as process:
        process.communicate(timeout=60)
    assert stored(folder) == [("llm", "complete", 5)]
    (folder / "nothing.py").write_text("")
    with start(folder, "record", "--", sys.executable, "nothing.py") as process:
        assert "nothing was recorded" in process.communicate(timeout=60)[1]
    with start(folder, "record", "--", "no-such-program") as process:
        err = process.communicate(timeout=60)[1]
    assert (process.returncode, err) == (1, "Error: cannot run no-such-program: No such file or directory\n")


def test_the_list_names_what_is_recorded_and_what_is_missing(folder: Path) -> None:
    with start(folder, "instrument", "--list") as process:
        lines = process.communicate(timeout=60)[0].splitlines()
    by_name = {line.split()[0]: line for line in lines}
    assert "openinference-instrumentation-openai 9.9" in by_name["openai"]
    assert "pip install openinference-instrumentation-dspy" in by_name["dspy"]
    with start(folder, "instrument", "--list", "--json") as process:
        found = {each["name"]: each for each in json.loads(process.communicate(timeout=60)[0])["frameworks"]}
    assert (found["openai"]["records"], found["dspy"]["records"], found["dspy"]["installed"]) == (True, False, True)
