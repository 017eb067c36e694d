"""Programs and doctors in namespaces of their own, as in containers: only what can be compared is judged."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import agentspan
from tests.checkout import ROOT

pytestmark = pytest.mark.full  # rows as such programs leave them are in maintenance/test_doctor.py

PROGRAM = """
import os, sys, agentspan
path, durability = sys.argv[1:]
agentspan.configure(path, durability=durability, raise_errors=True)
with agentspan.run("lives"), agentspan.span("tool", {"name": "x"}):
    agentspan.flush()
    print("open", flush=True)
    sys.stdin.read()
    os._exit(0)
"""
TIME = ("unshare", "--time", "--boottime", "100000", "--fork")
PIDS = ("unshare", "--pid", "--fork")


def needs(namespace: tuple[str, ...]) -> None:
    """Skip a test where this user, or this kernel, cannot make such a namespace."""
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("needs namespaces (Linux 5.6, root)")


@contextmanager
def open_in(namespace: tuple[str, ...], path: Path, durability: str = "commit") -> Iterator[None]:
    """For the length of a block, a program that has a run and a span open; then it dies."""
    command = [*namespace, sys.executable, "-c", PROGRAM, str(path), durability]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "open\n"
        yield


def doctor_in(namespace: tuple[str, ...], path: Path) -> Any:
    """Return what a doctor in a namespace says of the one run that is open."""
    command = [*namespace, sys.executable, "-m", "agentspan", "--db", str(path), "doctor", "--json"]
    said = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout)
    return [(run["life"], run["closed_run"], run["closed_spans"], run["left_open"]) for run in said["runs"]]


def statuses(path: Path) -> list[str]:
    with agentspan.open(path) as db:
        (run,) = db.agent_instances.list()
        return [run.status, *(span.status for span in db.agent_spans.list(run.id))]


@pytest.mark.parametrize("durability", ["commit", "journal"])
def test_a_program_in_another_time_namespace_is_judged_when_it_is_gone(tmp_path: Path, durability: str) -> None:
    """There, the times since the boot at which processes began are others."""
    needs(TIME)
    path = tmp_path / "runs.db"
    with open_in(TIME, path, durability), agentspan.open(path) as db:
        (found,) = db.doctor().runs
        assert (found.life, found.closed_run, found.closed_spans, found.left_open) == ("unknown", False, 0, 1)
        ((writer, why),) = found.not_judged
        assert (writer, why) == (found.writer, "is in another time namespace")
    assert statuses(path) == ["active", "active"]
    with agentspan.open(path) as db:
        (found,) = db.doctor().runs
        assert (found.life, found.closed_run, found.not_judged) == ("dead", True, [])


def test_a_doctor_in_another_time_namespace_closes_nothing_of_a_living_program(tmp_path: Path) -> None:
    needs(TIME)
    path = tmp_path / "runs.db"
    with open_in((), path):
        assert doctor_in(TIME, path) == [("unknown", False, 0, 1)]
        assert doctor_in((), path) == [("alive", False, 0, 1)]
    assert doctor_in(TIME, path) == [("dead", True, 1, 0)]


def test_a_doctor_in_the_programs_time_namespace_sees_that_it_lives(tmp_path: Path) -> None:
    needs(TIME)
    path = tmp_path / "runs.db"
    with open_in(TIME, path), agentspan.open(path) as db:
        (found,) = db.doctor(dry_run=True).runs
        assert found.writer is not None
        same = ("nsenter", "--time", "--target", str(found.writer.pid))
        assert doctor_in(same, path) == [("alive", False, 0, 1)]


def test_a_doctor_whose_proc_has_other_process_ids_closes_nothing_of_a_living_program(tmp_path: Path) -> None:
    """A namespace of process ids without a /proc of its own: there, a process id is another process's."""
    needs(PIDS)
    path, said = tmp_path / "runs.db", tmp_path / "said.json"
    script = f"""
    {sys.executable} -c "$1" {path} commit < /dev/zero > {tmp_path}/open &
    until [ -s {tmp_path}/open ]; do sleep 0.01; done
    {sys.executable} -m agentspan --db {path} doctor --json > {said}
    """
    program = PROGRAM.replace("sys.stdin.read()", "import time; time.sleep(600)")
    subprocess.run([*PIDS, "--kill-child", "sh", "-c", script, "sh", program], cwd=ROOT, check=True)
    (run,) = json.loads(said.read_text())["runs"]
    assert (run["life"], run["closed_run"], run["left_open"]) == ("unknown", False, 1)
    assert [each["why"] for each in run["not_judged"]] == ["has a process id that may be another program's by now"]
    assert statuses(path) == ["active", "active"]
