"""What a signal handler raises around a fork: in the parent nothing stays held, and the child records."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT
from tests.tiers import longer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

# Of the points of an operation.
SAMPLE = longer("AGENTSPAN_TEST_POINTS", 6, 30, 10_000)
BEGIN = f"""
import faulthandler, logging, os, signal, sys, threading
from agentspan import Tracer, host
from agentspan.recording.tracer import recorder_of
from tests.processes.interrupting import Interrupt, Points
faulthandler.dump_traceback_later(100, exit=True)
sys.unraisablehook = lambda *_: None  # the interpreter drops what is raised in the middle of a fork
logging.disable()
path, durability = sys.argv[1:]
tracer = Tracer(path, durability=durability)
def one(name):
    with tracer.span("tool", {{"name": name}}):
        pass
def chosen(count):
    return range(1, count + 1, max(1, count // {SAMPLE}))
one("first")
"""
PARENT = """
problems = []
def other():
    sink = recorder_of(tracer).sink
    for name, lock in {
        "turn": host._turn,
        "connections": recorder_of(tracer).store._connections.lock,
        "gate": recorder_of(tracer).store._connections._gate._entrance,
        **({"draining": sink.work.drain.lock, "log": sink.log.lock} if durability == "journal" else {}),
    }.items():
        if lock.acquire(timeout=30):  # one that is kept is kept for ever
            lock.release()
        else:
            problems.append(name)
    if not problems:
        one("other")
        if not tracer.flush(30):
            problems.append("flush")
def fork(at):
    one("before")
    with Points(at) as points:
        child = os.fork()
        if not child:
            os._exit(0)
    os.waitpid(child, 0)
    if host._to_let_go and "_surely (call" in points.where:  # its very start, at which no signal waits: see _heard
        host._surely(host._let_go)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    if problems:
        sys.exit(f"{points.where}: {problems}")
    return points.count
for at in chosen(fork(0)):
    fork(at)
tracer.shutdown()
"""
CHILD = """
def fork(at):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] >> 8
    points, arrived = Points(at), False
    try:
        with points:
            host.renew()
    except Interrupt:
        arrived = True
    if not at:
        os.write(to_parent, str(points.count).encode())
    one("child")
    # Not every child comes to as many points; and the interpreter drops what is raised in a finalizer.
    is_raised = bool(points.where) and "__del__" not in points.where
    if arrived == is_raised and tracer.flush(30) and not tracer.health().failed:
        os._exit(0)
    sys.stderr.write(f"{points.where}: {arrived} {tracer.health()}\\n")
    os._exit(1)
from_child, to_parent = os.pipe()
bad = fork(0)
for at in chosen(int(os.read(from_child, 9))):
    bad = bad or fork(at)
sys.exit(bad)
"""


def run(path: Path, durability: str, code: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", BEGIN + code, str(path), durability]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_an_exception_at_any_point_around_a_fork_leaves_nothing_held(tmp_path: Path, durability: str) -> None:
    run(tmp_path / "runs.db", durability, PARENT)


@pytest.mark.full
@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_a_child_that_is_interrupted_at_its_first_use_records_from_the_next_on(tmp_path: Path, durability: str) -> None:
    run(tmp_path / "runs.db", durability, CHILD)
