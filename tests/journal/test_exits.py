"""Signals, forks and ends at any moment of the journal: appending, draining, rotating, adopting."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import agentspan
from tests.checkout import ROOT
from tests.journal.recorded import statuses
from tests.journal.segment_files import segments_of
from tests.tiers import every

START = """
import faulthandler, functools, logging, multiprocessing, os, signal, sys, threading, time, warnings
faulthandler.dump_traceback_later(90, exit=True)
warnings.simplefilter("ignore")
import agentspan
from dataclasses import replace
from agentspan import host
from agentspan.journal.log import Log
from agentspan.tuning import STANDARD
path = sys.argv[1]

def one(name="x"):
    with agentspan.span("tool", {"name": name}):
        pass
"""
SMALL = """
tuning = STANDARD._replace(journal_segment_bytes=16 * 1024, journal_segment_growth=1)  # rotate all the time
"""
AS_THE_FIRST = """
tuning = STANDARD._replace(journal_segment_growth=1)
"""


def run(path: Path, code: str, expected: str = "") -> None:
    command = [sys.executable, "-c", START + code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=100)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, expected, "")


def check(path: Path, spans: int) -> None:
    agentspan.open(path).close()
    assert segments_of(path) == []
    assert statuses(path) == ["complete"] * spans


@pytest.mark.full
@pytest.mark.parametrize("also", ["", "agentspan.flush()", "agentspan.open(path).agent_instances.list()"])
def test_a_signal_handler_may_record_and_read_while_its_thread_appends_and_rotates(tmp_path: Path, also: str) -> None:
    path = tmp_path / "runs.db"
    code = f"""
agentspan.configure(path, tuning=tuning)
left = {30 if "open" in also else 100}
total = 0
def handler(*_):
    global left, total
    left -= 1
    total += 1
    with agentspan.run("handler"):
        one("h" * 500)
    {also}
    if left > 0:
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
signal.signal(signal.SIGALRM, handler)
with agentspan.run("main"):
    signal.setitimer(signal.ITIMER_REAL, 0.0003)
    while left > 0:
        one("m" * 500)
        total += 1
assert agentspan.flush(20)
health = agentspan.health()
assert health.failed == 0, health
agentspan.shutdown()
open(path + ".count", "w").write(str(total))
"""
    # A handler that flushes in the middle of a rotation waits its whole 5 s for the thread that drains, which waits for
    # the rotation. So there are few rotations then.
    run(path, (AS_THE_FIRST if also else SMALL) + code)
    check(path, int((tmp_path / "runs.db.count").read_text()))


@pytest.mark.full
def test_ctrl_c_at_any_moment_leaves_the_journal_whole(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = """
agentspan.configure(path, tuning=tuning)
interrupted = 0
with agentspan.run("main"):
    one("first")  # with a segment, which takes longer than there is time below
    while interrupted < 100:
        try:
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, 0.003)
            while True:
                one("m" * 500)
        except KeyboardInterrupt:
            interrupted += 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
assert agentspan.flush(20)
assert agentspan.health().waiting == 0
"""
    run(path, SMALL + code)
    agentspan.open(path).close()
    assert segments_of(path) == []
    assert statuses(path).count("complete") > 10


@pytest.mark.full
def test_forks_while_others_rotate_drain_and_adopt(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = """
agentspan.configure(path, tuning=tuning)
stop = threading.Event()
counts = []
def work():
    count = 0
    with agentspan.run("thread"):
        while not stop.is_set():
            one("m" * 500)
            count += 1
            time.sleep(0.001)
    counts.append(count)
def read():
    with agentspan.open(path) as db:
        while not stop.is_set():
            db.agent_instances.list()
            time.sleep(0.001)
threads = [threading.Thread(target=work) for _ in range(2)] + [threading.Thread(target=read)]
for thread in threads: thread.start()
for _ in range(8):
    child = os.fork()
    if child == 0:
        faulthandler.register(signal.SIGALRM, chain=True)
        signal.alarm(20)  # faulthandler's own way waits for ever for its thread, which a child does not have
        with agentspan.run("child"):
            one("child")
        os._exit(agentspan.health().failed)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
open(path + ".count", "w").write(str(sum(counts) + 8))
"""
    run(path, SMALL + code)
    check(path, int((tmp_path / "runs.db.count").read_text()))


@pytest.mark.full
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_leave_nothing_behind(tmp_path: Path, method: str) -> None:
    path = tmp_path / "runs.db"
    program = tmp_path / "program.py"
    program.write_text("""
import multiprocessing, sys, warnings
warnings.simplefilter("ignore")
import agentspan

def work(path, number):
    agentspan.configure(path)
    with agentspan.run("child"), agentspan.span("tool", {"name": str(number)}):
        pass

if __name__ == "__main__":
    agentspan.configure(sys.argv[1])  # before the fork, as a server does that loads its program once
    with agentspan.run("parent"), agentspan.span("tool", {"name": "parent"}):
        context = multiprocessing.get_context(sys.argv[2])
        children = [context.Process(target=work, args=(sys.argv[1], number)) for number in range(4)]
        for child in children: child.start()
        for child in children: child.join()
        assert all(child.exitcode == 0 for child in children)
""")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(program), str(path), method]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert segments_of(path) == []  # the parent has brought them in when it ended
    check(path, 5)


@pytest.mark.parametrize("durability", every(2, ["journal", "commit"]))
@pytest.mark.parametrize("end", ["os._exit(0)", "os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(0)", "pass"])
def test_however_a_program_ends(tmp_path: Path, end: str, durability: str) -> None:
    path = tmp_path / "runs.db"
    code = f"{START}\nagentspan.configure(path, durability={durability!r})\nfor _ in range(20): one()\n{end}"
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=100)
    assert done.stderr == ""
    assert (segments_of(path) == []) == (durability == "commit" or end in ("sys.exit(0)", "pass"))
    check(path, 20)


@pytest.mark.full
def test_a_signal_handler_that_records_does_not_wait_for_ever_for_a_fork_that_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = """
from agentspan.journal import segments
agentspan.configure(path)
def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
def handler(*_):
    forking.start()
    time.sleep(0.2)  # it has come to its hooks
    one("from the handler")
signal.signal(signal.SIGUSR1, handler)
forking = threading.Thread(target=fork)
taken_over = segments._taken_over
def interrupted(path):
    segments._taken_over = taken_over
    left = taken_over(path)
    signal.raise_signal(signal.SIGUSR1)
    return left
with agentspan.run("a"):
    one("first")
    segments._taken_over = interrupted
    assert segments.take_over(path + ".none") is None
forking.join()
"""
    run(path, code)
    check(path, 2)


@pytest.mark.full
def test_a_record_that_comes_while_the_thread_goes_is_not_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = """
from agentspan.recording.tracer import recorder_of
tracer = agentspan.configure(path, tuning=STANDARD._replace(drain_quiet_ticks=5))
class Late(Log):  # what a switch of threads between the look around and the append does
    def append(self, body):
        self.__class__ = Log
        while sink.work.thread.running is not None:
            time.sleep(0.01)
        return Log.append(self, body)
with agentspan.run("a"):
    one("first")
    sink = recorder_of(tracer).sink
    agentspan.flush()
    sink.work._runs.has_runs = lambda: False  # else the thread stays, to look whether they are terminated
    sink.log.__class__ = Late
    late = agentspan.span("tool", {"name": "late"}).__enter__()
    deadline = time.monotonic() + 60
    while sink.work.drain.journaled and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not sink.work.drain.journaled
    late.__exit__(None, None, None)
"""
    run(path, code)
    check(path, 2)


@pytest.mark.full
def test_the_thread_drains_however_often_it_is_called_to_make_a_segment(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = """
from agentspan.recording.tracer import recorder_of
tracer = agentspan.configure(path)
with agentspan.run("a"):
    one("first")
    sink = recorder_of(tracer).sink
    deadline = time.monotonic() + 60
    while sink.work.drain.journaled and time.monotonic() < deadline:
        sink.work.thread.wake()
        time.sleep(0.001)
    assert not sink.work.drain.journaled
"""
    run(path, code)
    check(path, 1)


@pytest.mark.full
@pytest.mark.parametrize("late_s", [0.0, 0.004, 0.008, 0.012])
def test_a_program_that_ends_while_a_segment_is_made_leaves_none(tmp_path: Path, late_s: float) -> None:
    path = tmp_path / "runs.db"
    code = f"""
agentspan.configure(path)
with agentspan.run("a"):
    for _ in range(300):
        one("m" * 300)
    time.sleep({late_s})
"""
    run(path, code)
    assert [each.name for each in tmp_path.iterdir()] == ["runs.db"]


@pytest.mark.full
@pytest.mark.parametrize("what", ["os.fork() or os._exit(0)", "agentspan.flush()", "agentspan.shutdown()"])
def test_a_signal_handler_may_fork_or_shut_down_while_the_thread_is_called(tmp_path: Path, what: str) -> None:
    path = tmp_path / "runs.db"
    code = f"""
agentspan.configure(path, tuning=tuning)
def handler(*_):
    {what}
    done.append(True)
done = []
signal.signal(signal.SIGUSR1, handler)
ring = host.Bell.ring
def interrupted(bell):
    host.Bell.ring = ring
    ring(bell)
    signal.raise_signal(signal.SIGUSR1)
    ring(bell)
with agentspan.run("a"):
    one("first")
    host.Bell.ring = interrupted
    for _ in range(300):
        one("m" * 10_000)  # each begins a segment, for which the thread is called
assert done
"""
    run(path, SMALL + code)
    if "shutdown" not in what:  # after which nothing is recorded
        check(path, 301)


@pytest.mark.full
@pytest.mark.parametrize("durability", ["journal", "commit"])
@pytest.mark.parametrize("handler", ["raises", "none"])
def test_sigterm_ends_a_span_where_a_handler_raises_and_leaves_it_open_else(
    tmp_path: Path, durability: str, handler: str
) -> None:
    path = tmp_path / "runs.db"
    code = f"""
import os, signal, sys, agentspan
agentspan.configure(sys.argv[1], durability={durability!r})
if {handler!r} == "raises":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(3))
with agentspan.run("a"), agentspan.span("tool", {{"name": "x"}}):
    os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == (3 if handler == "raises" else -signal.SIGTERM)
    with agentspan.open(path) as db:
        (run,) = db.agent_instances.list()
        (span,) = db.agent_spans.list(run.id)
    assert {run.status, span.status} == ({"failed"} if handler == "raises" else {"active"})
    assert handler == "none" or (span.result_payload or {})["error"]["type"] == "SystemExit"
