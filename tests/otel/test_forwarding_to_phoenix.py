"""Forwarding to Phoenix: it has each span once, below its parent, whatever kills the sender.

`AGENTSPAN_TEST_PHOENIX` names a Python in whose environment `arize-phoenix` is installed; without it this is skipped.
Phoenix answers before it stores, so it is not killed itself.
"""

import os
import random
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

import agentspan
from agentspan.otel.identity import span_id_of
from agentspan.storage.questions import Query, SpansOf
from tests.cli.calling import call, process
from tests.otel.made_runs import record
from tests.waiting import until

PYTHON = os.environ.get("AGENTSPAN_TEST_PHOENIX", "")
RUNS, STEPS = 10, 10

pytestmark = pytest.mark.skipif(not PYTHON, reason="opt-in: AGENTSPAN_TEST_PHOENIX names a Python")


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@pytest.fixture
def phoenix(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a Phoenix, and its file."""
    port = free_port()
    said = {"PHOENIX_WORKING_DIR": str(tmp_path), "PHOENIX_PORT": str(port), "PHOENIX_GRPC_PORT": str(free_port())}
    said |= {"PHOENIX_TELEMETRY_ENABLED": "false", "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false"}
    with (tmp_path / "log").open("wb") as log:
        command = [PYTHON, "-m", "phoenix.server.main", "serve"]
        server = subprocess.Popen(command, env={**os.environ, **said}, stdout=log, stderr=log)

    def answers() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    until(answers, 180)
    yield f"http://127.0.0.1:{port}", tmp_path / "phoenix.db"
    server.kill()
    server.wait()


def stored(file: Path) -> list[tuple[str, str | None, str]]:
    """Each span that Phoenix has: its id, its parent's, its kind."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)) as connection:
        return connection.execute("select span_id, parent_id, span_kind from spans").fetchall()


def test_phoenix_has_each_span_once(tmp_path: Path, phoenix: tuple[str, Path]) -> None:
    path, (url, file) = tmp_path / "runs.db", phoenix
    record(path, RUNS, STEPS)
    chance = random.Random(7)
    for _ in range(5):
        sender = process(path, "copy", url, "--follow")
        time.sleep(chance.uniform(0.6, 1.2))
        sender.kill()
        sender.communicate()
    assert call(path, "copy", url).exit_code == 0
    expected: dict[str, str | None] = {}
    with agentspan.open(path, read_only=True) as db:
        for run in db.storage.ask(Query("agent_instance")).rows:
            expected[span_id_of(run.id)] = None
            for span in db.storage.ask(SpansOf(run.id)):
                expected[span_id_of(span.id)] = span_id_of(span.parent_span_id or run.id)
    assert len(expected) == RUNS * STEPS * 4 + RUNS
    until(lambda: len(stored(file)) >= len(expected), 600)
    found = stored(file)
    assert len(found) == len(expected)
    assert {id: parent for id, parent, _ in found} == expected
    assert {kind for _, _, kind in found} == {"AGENT", "LLM", "TOOL", "UNKNOWN"}
