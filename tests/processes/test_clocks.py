"""Hosts whose clocks are up to an hour off, and programs that are stopped for longer than their lease, on one server.

AGENTSPAN_TEST_CLOCKS=60 lets 16 hosts record for so many seconds and stops programs all the time; the short form has 5
hosts, two of which are stopped once.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.journal.journal_folder import is_possible
from tests import postgres
from tests.checkout import ROOT
from tests.tiers import longer
from tests.waiting import until

pytestmark = [pytest.mark.full, pytest.mark.skipif(not is_possible(), reason="needs a journal")]

SECONDS = longer("AGENTSPAN_TEST_CLOCKS", 0.0, 0.0, 100.0)
IS_LONG = SECONDS > 0
HOSTS, STOPPED, LEASE_S = (16, 5, 4.0) if IS_LONG else (5, 2, 3.0)


_END_IDLE = """
select pg_terminate_backend(pid) from pg_stat_activity
where xact_start is not null and wait_event = 'ClientRead' and state_change < clock_timestamp() - interval '1 s'
"""


class Hosts:
    """The programs of all hosts, and what they have acknowledged."""

    def __init__(self, url: str, folder: Path) -> None:
        self._folder = folder
        command = [sys.executable, "-m", "tests.processes.clocks", url, str(folder), str(HOSTS), str(LEASE_S)]
        self._started = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
        assert self._started.stdout is not None
        self.pids = [int(pid) for pid in self._started.stdout.readline().split()]

    def said(self, number: int) -> list[dict[str, Any]]:
        """Return what a host's program has acknowledged."""
        path = self._folder / f"host-{number}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def writers(self) -> dict[str, int]:
        """Return the number of each writer's host."""
        return {each["id"]: host for host in range(HOSTS) for each in self.said(host) if each["what"] == "writer"}

    def end(self) -> None:
        """Let all come to their end, and wait for that."""
        (self._folder / "stop").touch()
        self._started.wait(180)

    def kill(self) -> None:
        """End what still runs, stopped or not."""
        if self._started.poll() is None:
            for pid in [*self.pids, self._started.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._started.communicate()


class Judge:
    """A doctor on another host, which notes whom it found dead."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.dead: Counter[str] = Counter()

    def look(self) -> None:
        """Examine everything once."""
        with agentspan.open(self._url) as db:
            report = db.doctor()
        assert report.problems == []
        for run in report.runs:
            if run.life == "dead":
                assert run.writer is not None
                self.dead[run.writer.id] += 1
            assert run.life != "alive"  # they are all on other hosts


def rows(url: str, sql: str) -> list[Any]:
    import psycopg

    with psycopg.connect(url, options="-c search_path=agentspan") as connection:
        return connection.execute(sql.encode()).fetchall()


def leased(url: str) -> set[str]:
    """Return the writers whose lease runs, by the server's clock. End transactions of programs that were stopped."""
    rows(url, _END_IDLE)  # a server does so after 300 s
    found = rows(url, "select name from notes where name like 'lease/%' and expires_at > clock_timestamp()")
    return {name.partition("/")[2] for (name,) in found}


def test_what_hosts_with_any_clock_acknowledged_stands_also_of_a_program_that_was_stopped_for_longer_than_its_lease(
    tmp_path: Path,
) -> None:
    server = postgres.Server()
    try:
        server.start()
        agentspan.open(server.url).close()
        hosts, judge = Hosts(server.url, tmp_path), Judge(server.url)
        try:
            stopped = _stop_some(server.url, hosts, judge)
            hosts.end()
        finally:
            hosts.kill()
        judge.look()
        _check(server.url, hosts, judge, stopped)
    finally:
        server.remove()


def _stop_some(url: str, hosts: Hosts, judge: Judge) -> set[str]:
    """Stop programs for longer than their lease, again and again in the long form; return their writers."""
    numbers = until(lambda: (found := hosts.writers()) and len(found) == HOSTS and found)
    open_spans = "select count(*) from agent_spans where status = 'active' and label = 'open'"
    until(lambda: leased(url) >= set(numbers) and rows(url, open_spans) == [(HOSTS,)])
    choice = random.Random(1)
    stopped: set[str] = set()
    began, rounds = time.monotonic(), 0
    while not stopped or time.monotonic() < began + SECONDS:
        rounds += 1
        chosen = choice.sample(sorted(numbers), STOPPED)
        pids = [hosts.pids[numbers[writer]] for writer in chosen]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        stopped |= set(chosen)
        time.sleep(0.2)
        until(lambda chosen=chosen: not leased(url) & set(chosen))  # type: ignore[misc]
        for _ in range(2):
            judge.look()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for _ in range(3):
            judge.look()
        until(lambda chosen=chosen: leased(url) >= set(chosen))  # type: ignore[misc]
        time.sleep(0.5)
    sys.stdout.write(f"\n{len(stopped)} programs were stopped, in {rounds} rounds")
    return stopped


def _check(url: str, hosts: Hosts, judge: Judge, stopped: set[str]) -> None:
    assert set(judge.dead) == stopped
    stored = {id: each for id, *each in rows(url, "select id, status, closed_by, result_payload from agent_spans")}
    runs = {id: each for id, *each in rows(url, "select id, status, closed_by from agent_instances")}
    numbers = hosts.writers()
    of_stopped = {numbers[writer] for writer in stopped}
    spans, abandoned = 0, Counter[str]()
    for number in range(HOSTS):
        said = hosts.said(number)
        over = said[-1]
        assert (over["flushed"], over["failed"], over["waiting"], over["refused"]) == (True, 0, 0, 0), over
        begun = {each["id"] for each in said if each["what"] == "started"}
        finished = {each["id"]: each["output"] for each in said if each["what"] == "finished"}
        assert begun == set(finished)
        spans += len(begun)
        for id, output in finished.items():
            status, closed_by, result = stored[id]
            assert (status, json.loads(result)) == ("complete", {"output": output}), (number, id)
            assert closed_by in ((None, "abandoned") if number in of_stopped else (None,)), (number, id)
            abandoned["spans"] += closed_by is not None
        for id in {each["id"] for each in said if each["what"] == "ended"}:
            assert runs[id][0] == "complete"
            assert runs[id][1] in ((None, "abandoned") if number in of_stopped else (None,))
            abandoned["runs"] += runs[id][1] is not None
    assert spans == len(stored)  # nothing twice, nothing else
    assert abandoned["spans"] >= len(stopped)
    assert abandoned["runs"] >= 1
    assert rows(url, "select count(*) from refused_changes") == [(0,)]
    sys.stdout.write(f"\n{spans} spans of {HOSTS} hosts, {len(runs)} runs, abandoned for a while: {dict(abandoned)}")
