"""What signal handlers raise, at any point: no lock and no transaction is left, nothing acknowledged is lost."""

import json
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from agentspan.host import Occupied, is_mine, within
from agentspan.storage.questions import RemoveKeys
from tests.checkout import ROOT
from tests.processes import interrupting
from tests.processes.interrupting import OPERATIONS, Interrupt, Points, World, interrupted
from tests.tiers import longer

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX signals")

# Of each operation. All are 7,000 points, five minutes.
SAMPLE = longer("AGENTSPAN_TEST_POINTS", 4, 9, 10_000)
SIGNALS = longer("AGENTSPAN_TEST_SIGNALS", 10, 60, 1000)

# The end of a block is a function in Python, whose start is a point: then the span stays open, and active.
KNOWN = {("Block.__exit__ (call None)", "what was active is so still")}


class Late(Exception):
    """Like what a handler for a timeout raises: an Exception."""


def chosen(count: int) -> range:
    return range(1, count + 1, max(1, count // SAMPLE))


@pytest.mark.parametrize("durability", ["commit", "journal"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a finalizer's goes nowhere
def test_an_exception_at_any_point_of_an_operation_leaves_everything_in_order(
    tmp_path: Path, operation: Any, durability: str
) -> None:
    if operation is interrupting.adopt and durability == "commit":
        pytest.skip("needs a journal")
    result = interrupted(tmp_path, durability, operation, chosen, keep=True)
    assert result.tried > 1  # how many points there are varies with what other threads do
    assert [each for each in result.problems if (each[0].partition(" ")[2], each[1]) not in KNOWN] == []
    assert [where for where in result.swallowed if "segments.py" not in where] == []  # a __del__: see docs


@pytest.mark.parametrize("error", [Interrupt, Late])
def test_an_exception_at_any_point_of_a_write_leaves_no_transaction_and_no_lock(
    tmp_path: Path, error: type[BaseException]
) -> None:
    world = World(tmp_path, "commit")
    storage: Any = world.tracer.storage
    lock = storage.direct._connections.lock

    def write() -> None:
        storage.ask(RemoveKeys("2020-01-01", 1.0))

    write()  # the first one makes what the others use
    with Points() as points:
        write()
    assert points.count > 10
    other = sqlite3.connect(world.path, isolation_level=None, timeout=0)
    for number in range(1, points.count + 1):
        with pytest.raises(error), Points(number, error):
            write()
        other.execute("begin immediate")
        other.execute("rollback")
        assert not is_mine(lock)
    other.close()
    world.close()


def test_a_lock_is_let_go_whenever_an_exception_comes() -> None:
    lock = threading.RLock()

    def hold() -> None:
        with within(lock, 1.0):
            lock._is_owned()  # type: ignore[attr-defined]

    with Points() as points:
        hold()
    assert points.count >= 4
    for number in range(1, points.count + 1):
        with pytest.raises(Interrupt), Points(number):
            hold()
        assert not is_mine(lock)


def test_a_lock_that_is_held_is_refused() -> None:
    lock, entered, leave = threading.RLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with within(lock, 0):
            entered.set()
            leave.wait()

    with within(lock, 0), pytest.raises(Occupied, match="this thread"), within(lock, 0):
        pass
    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    with pytest.raises(Occupied, match="another thread"), within(lock, 0.001):
        pass
    assert not is_mine(lock)
    leave.set()
    thread.join()


PROGRAM = """
import json, random, signal, subprocess, sys, agentspan
path, durability, number = sys.argv[1], sys.argv[2], int(sys.argv[3])

OTHER = '''
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
for _ in sys.stdin:
    try:
        connection.execute("begin immediate")
        connection.execute("rollback")
        print("ok", flush=True)
    except sqlite3.OperationalError as error:
        print(error, flush=True)
'''

class Alarm(Exception):
    pass

raised = arrived = locked = 0
acknowledged = []

def handler(*_):
    global raised
    raised += 1
    raise Alarm

@agentspan.span
def call(number):
    return number

def work(before):
    while raised == before:
        with agentspan.run("a"):
            with agentspan.span("tool", {"name": "x"}) as span:
                call(1)
            acknowledged.append(span.id)

agentspan.configure(path, durability=durability)
call(0)
other = subprocess.Popen([sys.executable, "-c", OTHER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
signal.signal(signal.SIGALRM, handler)
while raised < number:
    before = raised
    try:
        most = 0.1 if raised % 5 == 4 else 0.002  # a commit to a slow disk takes longer than 2 ms
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00001, most))
        while raised == before:
            work(before)
    except Alarm:
        arrived += 1
    other.stdin.write("x\\n")
    other.stdin.flush()
    locked += other.stdout.readline() != "ok\\n"
other.stdin.close()
other.wait()
flushed = agentspan.flush(30)
health = agentspan.health()
print(json.dumps([raised, arrived, locked, flushed, health.failed, health.waiting, acknowledged]))
"""


@pytest.mark.parametrize("durability", ["commit", "journal"])
def test_signals_whose_handlers_raise_lock_nothing_lose_nothing_and_arrive(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "runs.db"
    command = [sys.executable, "-c", PROGRAM, str(path), durability, str(SIGNALS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60 + SIGNALS / 5, check=False)
    assert done.returncode == 0, done.stderr  # threading itself prints something where its `start` is interrupted
    raised, arrived, locked, *rest, acknowledged = json.loads(done.stdout)
    assert (raised, locked, rest) == (SIGNALS, 0, [True, 0, 0])
    # The interpreter itself drops 1 in 10,000, in finalizers and in the callbacks of weak references; 3.13 some more.
    assert raised - arrived <= 1 + SIGNALS // 1000
    connection = sqlite3.connect(path)
    there = {id for (id,) in connection.execute("select id from agent_spans where status = 'complete'")}
    assert connection.execute("select count(*) from refused_changes").fetchone() == (0,)
    connection.close()
    assert len(acknowledged) > 0
    assert set(acknowledged) <= there
