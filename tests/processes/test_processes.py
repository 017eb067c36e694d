"""Real processes on one file: races, first opens, many writers, kills, forks."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import ids
from tests.checkout import ROOT
from tests.processes.stored import check_integrity, recover
from tests.tiers import every, longer

# Enough to find a race that is there; the figures of the README were made with more (AGENTSPAN_TEST_ROUNDS=100).
WRITERS = longer("AGENTSPAN_TEST_WRITERS", 3, 8, 8)
ROUNDS = longer("AGENTSPAN_TEST_ROUNDS", 2, 6, 250)
BOTH = pytest.mark.parametrize("durability", every(2, ["journal", "commit"]))


_started: list["subprocess.Popen[str]"] = []


def start(*args: Any, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.processes.workers", *map(str, args)]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, **options)
    _started.append(process)
    return process


@pytest.fixture(autouse=True)
def _no_worker_outlives_its_test() -> Iterator[None]:
    yield
    while _started:
        process = _started.pop()
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def test_of_two_processes_that_finish_a_span_exactly_one_wins(tmp_path: Path) -> None:
    spans = 50 * ROUNDS
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a")
        names = ("one", "two")
        workers = [start("race", path, tmp_path, name, stdin=subprocess.PIPE) for name in names]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        wins: Counter[str] = Counter()
        for _ in range(spans):
            span = db.agent_spans.create(run.id, "tool", "active", {"name": "x"})
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write(f"{span.id}\n")
                worker.stdin.flush()
            answers = [worker.stdout.readline().strip() for worker in workers if worker.stdout is not None]
            assert sorted(answers) == ["invalid_action", "won"]
            winner = names[answers.index("won")]
            assert db.agent_spans.get(span.id).result_payload == {"output": winner}
            wins[winner] += 1
        for worker in workers:
            worker.communicate()
            assert worker.returncode == 0
    assert wins.total() == spans


@pytest.mark.full
def test_eight_processes_can_open_a_new_file_at_once(tmp_path: Path) -> None:
    workers = [start("first_open", ROUNDS, tmp_path, stderr=subprocess.PIPE) for _ in range(8)]
    for number in range(ROUNDS):
        (tmp_path / f"go-{number}").touch()
        while len(list(tmp_path.glob(f"done-{number}-*"))) < 8:
            assert all(worker.poll() in (None, 0) for worker in workers)
            time.sleep(0.002)
    for worker in workers:
        assert worker.communicate()[1] == ""
        assert worker.returncode == 0
    for number in range(ROUNDS):
        connection = sqlite3.connect(tmp_path / f"{number}.db")
        assert connection.execute("select count(*) from agent_instances").fetchone() == (8,)
        assert connection.execute("select count(*) from accounts").fetchone() == (1,)
        assert connection.execute("select count(*) from agents").fetchone() == (1,)
        connection.close()


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    path, gate = tmp_path / "runs.db", tmp_path / "go"
    workers = [start("record", path, gate, 4, 100, stderr=subprocess.PIPE) for _ in range(WRITERS)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    gate.touch()
    for worker in workers:
        out, err = worker.communicate()
        recorded, failed, waiting, *_ = map(int, out.split())
        # A writer's registration is a record, too, where the file was locked for longer than a recorder waits.
        assert 0 <= recorded - 4 * (2 + 2 * 100) <= 4, err
        assert (failed, waiting) == (0, 0), err
        assert "Traceback" not in err
    with agentspan.open(path, read_only=True) as db:
        found = db.agent_instances.list(page_size=100)
        assert [(run.status, run.span_counts.complete, run.span_counts.total) for run in found] == [
            ("complete", 100, 100)
        ] * (4 * WRITERS)
    check_integrity(path)


def killed_at_random(path: Path, threads: int, rounds: int, durability: str) -> list[list[str]]:
    """What programs acknowledged, in words, that were killed at random moments."""
    said: list[list[str]] = []
    for _ in range(rounds):
        worker = start("record_until_killed", path, threads, durability)
        assert worker.stdout is not None
        said.append(worker.stdout.readline().split())
        while len(said) <= 50:  # a busy machine may not get so far in a time that is fixed
            said.append(worker.stdout.readline().split())
        time.sleep(random.uniform(0.0, 0.15))
        worker.kill()
        lines = worker.stdout.read().splitlines(keepends=True)
        said += [line.split() for line in lines if line.endswith("\n")]
        worker.wait()
        worker.stdout.close()
    return said


@BOTH
@pytest.mark.parametrize("threads", [1, 4])
def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path, threads: int, durability: str) -> None:
    path = tmp_path / "runs.db"
    said = killed_at_random(path, threads, max(1, ROUNDS // 4), durability)
    recover(path)
    check_integrity(path)
    connection = sqlite3.connect(path)
    spans = dict(connection.execute("select id, status from agent_spans").fetchall())
    runs = dict(connection.execute("select id, status from agent_instances").fetchall())
    results = connection.execute(
        "select count(*) from agent_spans where status = 'complete' and result_payload is null"
    )
    assert results.fetchone() == (0,)
    assert connection.execute("select why, wanted from refused_changes").fetchall() == []
    connection.close()
    assert len(said) > 50
    finished = {id for word, id in said if word == "finished"}
    for word, id in said:
        match word:
            case "run":
                assert runs[id] == "active"
            case "started":
                assert spans[id] in (("complete",) if id in finished else ("active", "complete"))
            case "finished":
                assert spans[id] == "complete"


@BOTH
def test_a_forked_child_records_with_connections_and_ids_of_its_own(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "runs.db"
    code = f"""
import os, agentspan
agentspan.configure({str(path)!r}, raise_errors=True, durability={durability!r})
with agentspan.run("parent") as run:
    with agentspan.span("tool", {{"name": "before"}}):
        pass
    child = os.fork()
    for number in range(50):
        with agentspan.span("tool", {{"name": "child" if child == 0 else "parent"}}):
            pass
    if child == 0:
        with agentspan.run("child"):
            pass
        os._exit(0 if agentspan.health().failed == 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    connection = sqlite3.connect(path)
    rows = connection.execute(
        "select label, status, count(*), count(distinct writer_id) from agent_spans group by 1, 2"
    )
    assert sorted(rows.fetchall()) == [
        ("before", "complete", 1, 1),
        ("child", "complete", 50, 1),
        ("parent", "complete", 50, 1),
    ]
    assert connection.execute("select count(distinct pid) from writers").fetchone() == (2,)
    assert connection.execute("select count(*) from agents").fetchone() == (2,)
    connection.close()
    check_integrity(path)


@pytest.mark.full
def test_a_daemon_keeps_its_log_when_its_parent_has_gone_and_another_program_closes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = f"""
import os, signal, sqlite3, subprocess, sys, agentspan
agentspan.configure({str(path)!r}, raise_errors=True)
with agentspan.run("parent"), agentspan.span("tool", {{"name": "before"}}):
    pass
if os.fork():
    os._exit(0)
with agentspan.run("daemon"):
    with agentspan.span("tool", {{"name": "first"}}):
        pass
    other = "import sqlite3; c = sqlite3.connect({str(path)!r}); c.execute('create table t (x)'); c.close()"
    subprocess.run([sys.executable, "-c", other], check=True)
    for _ in range(3):
        with agentspan.span("tool", {{"name": "later"}}):
            pass
print(agentspan.health().failed, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    # The daemon keeps the pipe open: its end is that of the daemon.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
    recover(path)
    connection = sqlite3.connect(path)
    rows = connection.execute("select label, status, count(*) from agent_spans group by 1, 2 order by 1").fetchall()
    assert rows == [("before", "complete", 1), ("first", "complete", 1), ("later", "complete", 3)]
    connection.close()
    check_integrity(path)


@pytest.mark.full
def test_a_program_that_ends_inside_a_run_leaves_it_readable(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = f"""
import os, agentspan
agentspan.configure({str(path)!r})
with agentspan.run("a"), agentspan.span("llm", {{"model": "m"}}):
    os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    with agentspan.open(path, read_only=True) as db:
        (run,) = db.agent_instances.list()
        (span,) = db.agent_spans.list(run.id, include_summaries=True)
        assert (run.status, span.status, span.summary) == ("active", "active", "LLM m")


def test_ids_of_forked_processes_do_not_meet(tmp_path: Path) -> None:
    source = ids.IdSource(5)
    reader, writer = os.pipe()
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            os.write(writer, "".join(source.new() for _ in range(500)).encode())
            os._exit(0)
        children.append(child)
        os.waitpid(child, 0)
    os.close(writer)
    text = b""
    while chunk := os.read(reader, 65536):
        text += chunk
    os.close(reader)
    made = [text[start : start + 32] for start in range(0, len(text), 32)]
    assert len(made) == len(set(made)) == 2000


@BOTH
def test_a_forked_child_that_leaves_its_parents_blocks_finishes_nothing_of_it(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "runs.db"
    code = f"""
import os, sys, agentspan
agentspan.configure({str(path)!r}, raise_errors=True, durability={durability!r})
try:
    with agentspan.run("parent") as run:
        with agentspan.span("tool", {{"name": "open"}}) as span:
            child = os.fork()
            if child == 0:
                with agentspan.span("tool", {{"name": "of the child"}}):
                    pass
                sys.exit(3)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
            with agentspan.open({str(path)!r}) as db:
                assert db.agent_instances.get(run.id).status == "active"
                assert db.agent_spans.get(span.id).status == "active"
finally:
    agentspan.shutdown()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    connection = sqlite3.connect(path)
    assert sorted(connection.execute("select label, status from agent_spans").fetchall()) == [
        ("of the child", "complete"),
        ("open", "complete"),
    ]
    assert connection.execute("select status from agent_instances").fetchall() == [("complete",)]
    connection.close()


@pytest.mark.full
def test_memory_stays_as_it_is_after_the_first_ten_thousand_spans(tmp_path: Path) -> None:
    spans = longer("AGENTSPAN_TEST_SPANS", 20_000, 60_000, 1_000_000)
    worker = start("record_many", tmp_path / "runs.db", spans)
    out, _ = worker.communicate()
    early, late = map(float, out.split())
    assert abs(late - early) < 20, f"{early:.1f} MiB after 10,000 spans, {late:.1f} MiB after {spans:,}"


@pytest.mark.full
def test_what_a_killed_process_left_open_is_closed_by_the_doctor(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    for _ in range(max(1, ROUNDS // 2)):
        worker = start("record_until_killed", path, 4, "journal")
        assert worker.stdout is not None
        worker.stdout.readline()
        time.sleep(random.uniform(0.0, 0.15))
        worker.kill()
        worker.communicate()
    with agentspan.open(path) as db:
        report = db.doctor()
        assert report.problems == []
        assert all(run.life == "dead" for run in report.runs)
    connection = sqlite3.connect(path)
    assert connection.execute("select count(*) from agent_spans where status in ('pending', 'active')").fetchone() == (
        0,
    )
    assert connection.execute("select count(*) from agent_instances where status = 'active'").fetchone() == (0,)
    abandoned = connection.execute("select count(*) from agent_instances where closed_by = 'abandoned'").fetchone()
    assert abandoned[0] >= max(1, ROUNDS // 2)
    connection.close()


@pytest.mark.full
def test_forks_among_threads_that_record_do_not_hang(tmp_path: Path) -> None:
    forks = max(20, ROUNDS)
    command = [sys.executable, "-m", "tests.processes.forking", str(tmp_path / "runs.db"), str(forks)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    recover(tmp_path / "runs.db")
    connection = sqlite3.connect(tmp_path / "runs.db")
    children = connection.execute("select count(*) from agent_spans where label = 'child' and status = 'complete'")
    assert children.fetchone() == (forks,)
    connection.close()
    check_integrity(tmp_path / "runs.db")


@pytest.mark.full
def test_a_signal_handler_may_begin_runs_at_any_moment(tmp_path: Path) -> None:
    code = f"""
import faulthandler, logging, signal, agentspan
faulthandler.dump_traceback_later(60, exit=True)
logging.disable()  # a handler that finds its own thread writing is told of once
agentspan.configure({str(tmp_path / "runs.db")!r})
left = 300

def handler(*_):
    global left
    left -= 1
    with agentspan.run("handler"):
        pass
    if left:
        signal.setitimer(signal.ITIMER_REAL, 0.0005)

signal.signal(signal.SIGALRM, handler)
with agentspan.run("main"):
    pass
signal.setitimer(signal.ITIMER_REAL, 0.0005)
while left:
    with agentspan.run("main"):
        pass
assert agentspan.flush()
print(*agentspan.health()[1:3])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 0\n", "")
    connection = sqlite3.connect(tmp_path / "runs.db")
    assert connection.execute(
        "select count(*) from runs where agent = 'handler' and status = 'complete'"
    ).fetchone() == (300,)
    connection.close()
