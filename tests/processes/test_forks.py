"""Forks in whole programs: of several threads at once, during late imports, out of Python's sight, under gunicorn."""

import importlib.util
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import host
from tests.checkout import ROOT
from tests.tiers import longer
from tests.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SPANS = longer("AGENTSPAN_TEST_FORKS", 100, 300, 10_000)
BEGIN = """
import ctypes, faulthandler, logging, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")  # Python 3.12 and later warn of forks among threads
import agentspan
faulthandler.register(signal.SIGALRM, chain=True)  # its own way waits in a child for a thread that is not there
signal.alarm(60)
path, durability = sys.argv[1:3]
def one(name):
    with agentspan.span("tool", {"name": name}):
        pass
def end(*children):
    bad = [child for child in children if os.waitpid(child, 0)[1]]
    assert not bad, bad
def in_child(work):
    signal.alarm(30)
    try:
        work()
        agentspan.shutdown(30)
        os._exit(0)
    finally:
        os._exit(1)
"""


def run(path: Path, durability: str, code: str) -> None:
    command = [sys.executable, "-c", BEGIN + code, str(path), durability]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=70)
    assert (done.returncode, done.stderr) == (0, "")


def rows(path: Path, sql: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


@pytest.mark.full
def test_threads_that_fork_at_once_wait_for_each_other_and_all_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    run(
        path,
        "journal",
        """
logging.disable()  # of a file that is busy
agentspan.configure(path)
from agentspan import host
inside, most = [], []
def begin():
    inside.append(threading.get_ident())
    time.sleep(0.001)
    most.append(len(inside))
host.hold(host.Hold.SQLITE, begin, lambda: inside.remove(threading.get_ident()))
host.forget(inside.clear)
stop, counts = threading.Event(), []
def record():
    count = 0
    with agentspan.run("recording"):
        while not stop.is_set():
            one("recorded")
            count += 1
            if count % 20 == 0:
                time.sleep(0.001)
    counts.append(count)
def fork():
    for _ in range(15):
        child = os.fork()
        if child == 0:
            in_child(lambda: one("child"))
        end(child)
recording = [threading.Thread(target=record) for _ in range(2)]
forking = [threading.Thread(target=fork) for _ in range(3)]
for thread in recording + forking: thread.start()
for thread in forking: thread.join()
stop.set()
for thread in recording: thread.join()
one("after")
assert (max(most), inside, agentspan.health().failed) == (1, [], 0), (most, inside)
agentspan.shutdown()
open(path + ".count", "w").write(str(sum(counts)))
""",
    )
    agentspan.open(path).close()  # children may leave a part of it in their journals
    count = int((tmp_path / "runs.db.count").read_text())
    assert rows(path, "select label, count(*) from agent_spans where status = 'complete' group by 1 order by 1") == [
        ("after", 1),
        ("child", 45),
        ("recorded", count),
    ]


def test_a_child_may_store_its_spans_before_its_parent_could_store_the_run(tmp_path: Path) -> None:
    """The run waits in the parent's memory, as the file is busy twice: also when the child tries."""
    path = tmp_path / "runs.db"
    run(
        path,
        "commit",
        """
from agentspan.errors import DatabaseBusy
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.sqlite import SQLiteStorage
logging.disable()
agentspan.configure(path, durability=durability)
one("before")
assert agentspan.flush(30)
times, real = [1, 2], SQLiteStorage.apply
def apply(storage, units, **how):
    rows = [change.row for unit in units for change in unit.changes if hasattr(change, "row")]
    if times and AgentInstanceRow in map(type, rows):
        raise DatabaseBusy(f"for the time being ({times.pop()})")
    return real(storage, units, **how)
SQLiteStorage.apply = apply
with agentspan.run("a"):
    child = os.fork()
    if child == 0:
        in_child(lambda: one("child"))
    end(child)
    one("parent")
assert agentspan.flush(30)
assert agentspan.health()[:3] == (8, 0, 0), agentspan.health()
agentspan.shutdown()
""",
    )
    assert rows(path, "select label, status from agent_spans order by id") == [
        (label, "complete") for label in ("before", "child", "parent")
    ]
    assert rows(path, "select count(*) from refused_changes") == [(0,)]


@pytest.mark.full
@pytest.mark.parametrize("module", ["jsonschema", "jsonschema.validators", "referencing.jsonschema"])
def test_a_fork_waits_for_a_late_import_of_another_thread(tmp_path: Path, module: str) -> None:
    path = tmp_path / "runs.db"
    run(
        path,
        "commit",
        f"""
import importlib.machinery
reached = threading.Event()
class Slow(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == "{module}":
            reached.set()
            time.sleep(0.2)
        return None
sys.meta_path.insert(0, Slow)
agentspan.configure(path, durability=durability)
def record(name):
    with agentspan.span("llm", {{"model": 1, "messages": name}}):  # matches no schema: they are checked by jsonschema
        pass
one("first")
thread = threading.Thread(target=record, args=("thread",))
thread.start()
assert reached.wait(20)
child = os.fork()
if child == 0:
    in_child(lambda: record("child"))
end(child)
thread.join()
agentspan.shutdown()
""",
    )
    assert rows(path, "select count(*) from agent_spans where schema_name = 'llm' and status = 'complete'") == [(2,)]


def test_a_handler_that_forks_in_the_middle_of_a_fork_waits_for_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    run(
        path,
        "journal",
        """
from agentspan import host
agentspan.configure(path)
one("first")
def fork(*_):
    child = os.fork()
    if child == 0:
        in_child(lambda: one("child"))
    end(child)
signal.signal(signal.SIGUSR1, fork)
raised = []
def interrupt():
    if not raised:
        raised.append(1)
        signal.raise_signal(signal.SIGUSR1)
host.hold(host.Hold.SQLITE, interrupt, lambda: None)
fork()
fork()
one("last")
agentspan.shutdown()
""",
    )
    assert rows(path, "select count(*) from agent_spans where status = 'complete'") == [(5,)]


@pytest.mark.full
@pytest.mark.skipif(not host.SEES_ALL, reason="needs Linux 4.14")
@pytest.mark.parametrize("durability", ["journal", "commit"])
@pytest.mark.parametrize("library", ["PyDLL", "CDLL"])
def test_children_that_c_has_forked_record_as_writers_of_their_own(
    tmp_path: Path, durability: str, library: str
) -> None:
    path = tmp_path / "runs.db"
    run(
        path,
        durability,
        f"""
from agentspan.recording.tracer import recorder_of
fork = ctypes.{library}(None).fork
logging.disable()  # of commits: the file may be busy for a while
agentspan.configure(path, durability=durability)
def work(name):
    with agentspan.run(name) as entered:
        for number in range({SPANS}):
            if number % 3:
                one(f"{{name}} {{number}}")
            else:
                span = entered.create_span("tool", {{"name": f"{{name}} {{number}}"}})
                span.start()
                span.finish()
def child(name):
    work(name)
    assert agentspan.flush(30)
    health = agentspan.health()
    assert (health.recorded, health.failed, health.waiting, health.refused) == (RECORDED, 0, 0, 0), health
RECORDED = 2 + {SPANS} * 2 + ({SPANS} + 2) // 3
children = []
with agentspan.run("outer"), agentspan.span("tool", {{"name": "outer"}}):
    assert agentspan.flush()
    if durability == "journal":
        thread = recorder_of(agentspan.get_tracer()).sink.work.thread
        thread.stop(20)  # it may look into the file: the children would be kept out
    for number in range(2):
        process = fork()
        if process == 0:
            in_child(lambda: child(f"child {{number}}"))
        children.append(process)
    work("parent")
end(*children)
assert agentspan.flush(30) and agentspan.health().failed == 0
agentspan.shutdown()
""",
    )
    names = "count(*), count(distinct label), count(distinct writer_id)"
    assert rows(path, f"select {names} from agent_spans where status = 'complete'") == [(3 * SPANS + 1,) * 2 + (3,)]
    assert rows(path, "select count(*) from agent_instances where status = 'complete'") == [(4,)]
    assert rows(path, "select count(*) from refused_changes") == [(0,)]
    assert rows(path, "pragma integrity_check") == [("ok",)]


@pytest.mark.full
@pytest.mark.skipif(not host.SEES_ALL, reason="needs Linux 4.14")
def test_a_child_that_c_has_forked_holds_the_file_when_its_parent_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    run(
        path,
        "commit",
        """
agentspan.configure(path, durability=durability)
with agentspan.run("parent"):
    one("parent")
ours, theirs = os.pipe()
sys.setswitchinterval(60)  # a child waits for ever for a thread that asked for the interpreter at the fork
if ctypes.PyDLL(None).fork():
    os.close(theirs)
    assert os.read(ours, 10) == b"ended", "the child failed"
    sys.exit()
def child():
    one("child")
    inodes = (os.stat(path).st_ino, os.stat(path + "-shm").st_ino)
    mine = [line.split() for line in open("/proc/locks") if f" {os.getpid()} " in line]
    assert {inode for inode in inodes if any(line[5].endswith(f":{inode}") for line in mine)} == set(inodes), mine
    os.write(theirs, b"ended")
in_child(child)
""",
    )
    assert rows(path, "select label from agent_spans order by 1") == [("child",), ("parent",)]


@pytest.mark.full
@pytest.mark.skipif(not host.SEES_ALL, reason="needs Linux 4.14")
@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_a_child_that_c_has_forked_while_a_thread_was_in_a_transaction_leaves_its_spans_to_others(
    tmp_path: Path, durability: str
) -> None:
    path = tmp_path / "runs.db"
    run(
        path,
        durability,
        """
logging.disable()  # of the file that cannot be used
tracer = agentspan.configure(path, durability=durability)
one("parent")
begun, forked = threading.Event(), threading.Event()
def write():
    tracer.storage.group(lambda group: (begun.set(), forked.wait()), 5)
thread = threading.Thread(target=write)
thread.start()
begun.wait()
sys.setswitchinterval(60)  # a child waits for ever for a thread that asked for the interpreter at the fork
child = ctypes.PyDLL(None).fork()
if child == 0:
    signal.alarm(30)
    with agentspan.run("child"):
        one("child")
    try:
        agentspan.open(path)
    except agentspan.StorageError as error:
        assert "forked while a thread was using SQLite" in str(error), error
        os._exit(agentspan.health().failed or agentspan.flush(1))
    os._exit(9)
forked.set()
thread.join()
end(child)
""",
    )
    agentspan.open(path).close()
    assert rows(path, "select label, status from agent_spans order by 1") == [
        ("child", "complete"),
        ("parent", "complete"),
    ]


@pytest.mark.full
def test_a_handler_that_forks_while_its_thread_writes_does_not_wait_for_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    run(
        path,
        "journal",
        """
from dataclasses import replace
from agentspan.tuning import STANDARD
tracer = agentspan.configure(path, tuning=STANDARD._replace(sqlite_fork_wait_s=1000))  # the alarm comes first
one("parent")
assert agentspan.flush()
def work(group):
    child = os.fork()
    if child == 0:
        logging.disable()
        one("child")
        os._exit(agentspan.health().failed)
    return child
end(tracer.storage.group(work, 5))
""",
    )
    agentspan.open(path).close()
    assert rows(path, "select label from agent_spans order by 1") == [("child",), ("parent",)]


@pytest.mark.full
@pytest.mark.skipif(not importlib.util.find_spec("gunicorn"), reason="needs gunicorn")
@pytest.mark.skipif(not importlib.util.find_spec("gevent"), reason="needs gevent")
@pytest.mark.parametrize("worker", ["gevent", "gthread"])
def test_workers_of_gunicorn_that_were_forked_from_a_recording_master_record(tmp_path: Path, worker: str) -> None:
    path, requests = tmp_path / "runs.db", 60
    (tmp_path / "served.py").write_text(f"""
import time
import agentspan
agentspan.configure({str(path)!r})
with agentspan.run("loading"), agentspan.span("tool", {{"name": "load"}}):
    pass
def app(environ, start_response):
    with agentspan.run("request"), agentspan.span("tool", {{"name": environ["PATH_INFO"]}}):
        time.sleep(0.01)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served"]
""")
    # gunicorn loses a signal that comes before a worker heeds signals.
    (tmp_path / "told.py").write_text('def post_worker_init(worker):\n    open(f"ready-{worker.pid}", "w").close()\n')
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    command = [sys.executable, "-W", "ignore", "-m", "gunicorn", "-k", worker, "--preload", "--workers", "2"]
    command += ["--threads", "4", "--bind", f"127.0.0.1:{port}", "--no-control-socket", "-c", "told.py", "served:app"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        get(port, "/0")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: get(port, f"/{number}"), range(1, requests)))
        until(lambda: len([*tmp_path.glob("ready-*")]) == 2)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            _, said = server.communicate(timeout=60)
        finally:
            server.kill()
            server.wait()
    assert "Traceback" not in said, said
    assert said.count("Worker exiting") == 2, said  # it is killed after 30 s otherwise
    names = "count(*), count(distinct label), count(distinct id)"
    assert rows(path, f"select {names} from agent_spans where status = 'complete'") == [(requests + 1,) * 3], said


def get(port: int, path: str) -> None:
    """Ask once the server listens; a worker that hangs lets this wait in vain."""
    for _ in range(200):
        connection = HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            connection.request("GET", path)
        except ConnectionRefusedError:
            time.sleep(0.1)
            continue
        with connection.getresponse() as response:
            assert response.read() == b"served"
        connection.close()
        return
    raise AssertionError("the server never listened")
