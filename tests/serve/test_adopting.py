"""A server beside a dead program's journal: it is adopted in a thread, in steps, and nobody waits for all of it."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

import agentspan
from agentspan.journal.committer import Committer, Tally
from agentspan.journal.deriving import BatchInSteps
from agentspan.serve.app import create_app
from agentspan.tuning import STANDARD
from tests.journal.recorded import leave
from tests.journal.segment_files import segments_of
from tests.serve.servers import details

SPANS = 40
WAIT_S = 10


class Commits:
    """Watches the commits of an adoption; the second one waits until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: set[str] = set()
        self.sizes: list[int] = []
        self.reached, self.go_on = threading.Event(), threading.Event()
        commits, original = self, Committer.commit

        def commit(self: Committer, begun: BatchInSteps, *args: Any, **options: Any) -> Tally:
            commits.threads.add(threading.current_thread().name)
            commits.sizes.append(sum(map(len, begun.bodies)))
            if len(commits.sizes) == 2:
                commits.reached.set()
                commits.go_on.wait(WAIT_S)
            return original(self, begun, *args, **options)

        monkeypatch.setattr(Committer, "commit", commit)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file beside which a dead program has left its journal."""
    path = tmp_path / "runs.db"
    leave(path, SPANS, monkeypatch, 1024 * 1024)
    assert segments_of(path)
    return path


def visit(path: Path, scene: Any, **tuning: Any) -> None:
    """Let a scene talk to a server of the file, from its start to its end."""

    async def main() -> None:
        app = create_app(path, tuning=STANDARD._replace(**tuning))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost/api/v1") as client,
        ):
            await scene(client)

    asyncio.run(main())


async def listed(client: httpx.AsyncClient) -> int:
    (run,) = (await client.get("/agent_instance")).json()["summaries"]
    found = (await client.get("/agent_spans", params={"agent_instance_id": run["id"]})).json()
    return int(found["pagination"]["item_count"])


def test_what_a_dead_program_left_is_in_the_first_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = Commits(monkeypatch)
    commits.go_on.set()

    async def scene(client: httpx.AsyncClient) -> None:
        assert await listed(client) == SPANS

    visit(path, scene, adoption_answer_s=WAIT_S)
    assert segments_of(path) == []
    assert commits.threads == {"agentspan-adopting"}


def test_others_are_answered_while_much_is_adopted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = Commits(monkeypatch)

    async def scene(client: httpx.AsyncClient) -> None:
        assert (await client.get("/ping")).status_code == 200
        assert await asyncio.to_thread(commits.reached.wait, WAIT_S)
        made = details(await client.post("/agent_instance/register", json={"agent_id": "other"}))
        assert details(await client.get(f"/agent_instance/{made['id']}"))["status"] == "pending"
        assert len(commits.sizes) == 2
        commits.go_on.set()
        while segments_of(path):
            await asyncio.sleep(0.01)
        runs = (await client.get("/agent_instance")).json()["summaries"]
        assert len(runs) == 2

    visit(path, scene, recovery_batch_records=10)
    assert commits.threads == {"agentspan-adopting"}
    with agentspan.open(path) as db:
        left, _ = db.agent_instances.list()
        assert db.agent_spans.list(left.id).pagination.item_count == SPANS


def test_a_server_that_ends_leaves_the_rest_for_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commits = Commits(monkeypatch)

    async def scene(client: httpx.AsyncClient) -> None:
        assert (await client.get("/ping")).status_code == 200
        assert await asyncio.to_thread(commits.reached.wait, WAIT_S)
        threading.Timer(0.2, commits.go_on.set).start()

    visit(path, scene, recovery_batch_records=10)
    assert len(commits.sizes) == 2
    assert segments_of(path)
    assert caplog.text == ""
    with agentspan.open(path) as db:
        (run,) = db.agent_instances.list()
        assert db.agent_spans.list(run.id).pagination.item_count == SPANS


def test_records_are_committed_in_steps_of_few_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = Commits(monkeypatch)
    commits.go_on.set()
    with agentspan.open(path, tuning=STANDARD._replace(recovery_batch_bytes=2000)) as db:
        (run,) = db.agent_instances.list()
        assert db.agent_spans.list(run.id).pagination.item_count == SPANS
    assert len(commits.sizes) > 4
    assert sorted(commits.sizes)[-2] <= 2000  # one is that of the registration, with all span types
