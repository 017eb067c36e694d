"""A real server process, and what the tests say to it by HTTP."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from agentspan.host import is_readable
from tests.checkout import ROOT

START_S = 30
END_S = 30
"""How long a server may take to end once it is asked to: 3 s for requests in flight. A slow client has 90 s for one."""


class Server:
    """A running `agentspan serve`.

    Attributes:
        db: the file that it serves.
        said: its first line.
        url: where it is.
    """

    def __init__(self, db: Path, *args: str, **env: str) -> None:
        self.db = db
        self.log = db.with_name(f"{db.name}-{time.monotonic_ns()}.log")
        self.start(str(db), *args, **env)

    @classmethod
    def over(cls, url: str, log: Path, *args: str, **env: str) -> "Server":
        """Start one over a URL."""
        server = cls.__new__(cls)
        server.log = log
        server.start(url, *args, **env)
        return server

    def start(self, db: str, *args: str, **env: str) -> None:
        """Start the process, and wait until it answers."""
        command = [sys.executable, "-m", "agentspan", "serve", "--db", db, "--port", "0", "--create", *args]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTSPAN_")}
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**kept, **env}, text=True, stdout=subprocess.PIPE, stderr=file
            )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().rstrip() if is_readable(self.process.stdout, START_S) else ""
        if " on http://" not in self.said:
            self.kill()
            raise AssertionError(self.stderr)
        self.url = self.said.split(" on ")[1].split(" ")[0]
        self.port = int(self.url.rpartition(":")[2])

    @property
    def stderr(self) -> str:
        """What it has logged."""
        return self.log.read_text()

    def client(self, token: str | None = None, **options: Any) -> httpx.Client:
        """A client of its API."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=f"{self.url}/api/v1", headers=headers, timeout=30, **options)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, and return its exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        try:
            return self.process.wait(END_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """Leave no process behind."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def serving(db: Path, *args: str, **env: str) -> Iterator[Server]:
    """Start a server; end it as a service manager does, and see that it does so in time, with exit code 0."""
    server = Server(db, *args, **env)
    try:
        yield server
        if server.process.poll() is None:
            assert server.end() == 0, server.stderr
    finally:
        server.kill()


def refusal(response: httpx.Response) -> tuple[int, str]:
    """The status and the code of an error in the API's envelope."""
    answer = response.json()
    assert answer["status"] == "error", answer
    assert set(answer) <= {"status", "code", "message", "errors", "control"}
    assert isinstance(answer["message"], str)
    assert answer["message"]
    assert ("errors" in answer) == (answer["code"] == "validation_errors")
    return response.status_code, answer["code"]


def details(response: httpx.Response) -> dict[str, Any]:
    """The resource of a success."""
    answer = response.json()
    assert (response.status_code, answer["status"]) == (200, "success"), answer
    found: dict[str, Any] = answer["details"]
    return found


class Api:
    """What most tests begin with, as requests."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """POST a JSON body, or an empty one; also such as httpx would refuse to write (NaN, lone surrogates)."""
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **options.pop("headers", {})}
        return self.client.post(path, content=content, headers=headers, **options)

    def get(self, path: str, **params: Any) -> httpx.Response:
        """GET with query parameters."""
        return self.client.get(path, params=params)

    def instance(self, agent: str, **fields: Any) -> str:
        """A started instance's id."""
        body = {"agent_id": agent, "agent_version": {"name": "1"}, **fields}
        id: str = details(self.post("/agent_instance/register", body))["id"]
        details(self.post(f"/agent_instance/{id}/start"))
        return id

    def create(self, instance: str, status: str = "active", **fields: Any) -> httpx.Response:
        """Create a span."""
        span = {"agent_instance_id": instance, "schema_name": "step", "status": status, "payload": {}, **fields}
        return self.post("/agent_spans", {"details": span})

    def span(self, instance: str, status: str = "active", **fields: Any) -> str:
        """A span's id."""
        id: str = details(self.create(instance, status, **fields))["id"]
        return id

    def finish(self, span: str, **fields: Any) -> httpx.Response:
        """Finish a span."""
        return self.post(f"/agent_spans/{span}/finish", fields)
