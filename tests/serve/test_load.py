"""Many connections at once: what was acknowledged is in the file, each span finished once. Nothing here counts time."""

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.serve.servers import Api, Server, serving

CONNECTIONS = 24
SECONDS = 2.0
CREATE = {"schema_name": "tool", "status": "active", "payload": {"name": "search", "arguments": {"query": "x" * 250}}}
FINISH = {"result_payload": {"output": "y" * 280}}


class Worker(threading.Thread):
    """Works over one kept-alive connection until the time is over; notes what was answered."""

    def __init__(self, server: Server, work: Callable[["Worker"], None]) -> None:
        super().__init__()
        self.connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
        self.work = work
        self.statuses: Counter[int] = Counter()
        self.created: list[str] = []
        self.finished: list[str] = []

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send one request; again while the database is busy."""
        while True:
            data = None if body is None else json.dumps(body)
            self.connection.request(method, f"/api/v1{path}", data, {"Content-Type": "application/json"})
            response = self.connection.getresponse()
            answer = json.loads(response.read())
            self.statuses[response.status] += 1
            if response.status != 503:
                return response.status, answer

    def run(self) -> None:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            self.work(self)
        self.connection.close()


def at_once(server: Server, *work: Callable[[Worker], None]) -> list[Worker]:
    """Let workers work side by side; those that have finished."""
    workers = [Worker(server, each) for each in work]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    return workers


def spans_of(db: Path, instance: str) -> dict[str, str]:
    """The status of each of an instance's spans in the file."""
    connection = sqlite3.connect(db)
    found = dict(connection.execute("select id, status from agent_spans where agent_instance_id = ?", (instance,)))
    connection.close()
    return found


def recording(instance: str) -> Callable[[Worker], None]:
    """Create a span and finish it."""

    def work(worker: Worker) -> None:
        status, answer = worker.ask("POST", "/agent_spans", {"details": {"agent_instance_id": instance, **CREATE}})
        if status == 200:
            worker.created.append(answer["details"]["id"])
            status, answer = worker.ask("POST", f"/agent_spans/{worker.created[-1]}/finish", FINISH)
            if status == 200:
                worker.finished.append(answer["details"]["id"])

    return work


def pinging(worker: Worker) -> None:
    """Ask whether anybody is there."""
    worker.ask("GET", "/ping")


@pytest.mark.full
def test_every_span_that_many_connections_were_told_is_recorded_is_there_and_finished(
    server: Server, api: Api, agent: str
) -> None:
    instance = api.instance(agent)
    *workers, ping = at_once(server, *[recording(instance)] * CONNECTIONS, pinging)
    created = [id for worker in workers for id in worker.created]
    finished = [id for worker in workers for id in worker.finished]
    assert len(set(created)) == len(created) > CONNECTIONS
    assert sorted(finished) == sorted(created)
    assert spans_of(server.db, instance) == dict.fromkeys(created, "complete")
    assert set().union(*(worker.statuses for worker in workers)) <= {200, 503}
    assert set(ping.statuses) == {200}
    assert ping.statuses.total() > 1


@pytest.mark.full
def test_of_many_connections_that_finish_the_same_spans_one_wins_each(server: Server, api: Api, agent: str) -> None:
    instance = api.instance(agent)
    spans = [api.span(instance) for _ in range(40)]

    def work(worker: Worker) -> None:
        for id in spans:
            status, answer = worker.ask("POST", f"/agent_spans/{id}/finish", FINISH)
            assert status == 200 or answer["code"] == "invalid_action"
            worker.finished += [id] if status == 200 else []

    workers = at_once(server, *[work] * 8)
    assert sorted(id for worker in workers for id in worker.finished) == sorted(spans)
    assert spans_of(server.db, instance) == dict.fromkeys(spans, "complete")
    assert set().union(*(worker.statuses for worker in workers)) <= {200, 409, 503}


@pytest.mark.full
def test_while_another_program_holds_the_file_writes_wait_or_are_told_so_and_pings_are_answered(tmp_path: Path) -> None:
    with serving(tmp_path / "runs.db") as server, server.client() as client:
        instance = Api(client).instance("held")
        over = threading.Event()

        def hold() -> None:
            other = sqlite3.connect(server.db, isolation_level=None, timeout=10)
            while not over.is_set():
                other.execute("begin immediate")
                over.wait(0.4)
                other.execute("commit")
                over.wait(0.05)
            other.close()

        holder = threading.Thread(target=hold)
        holder.start()
        *workers, ping = at_once(server, *[recording(instance)] * CONNECTIONS, pinging)
        over.set()
        holder.join()
        created = [id for worker in workers for id in worker.created]
        assert spans_of(server.db, instance) == dict.fromkeys(created, "complete")
        assert set().union(*(worker.statuses for worker in workers)) <= {200, 503}
        assert set(ping.statuses) == {200}
        assert ping.statuses.total() > 30  # with the writes, they would have waited 0.4 s each
