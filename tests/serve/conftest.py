"""Fixtures: a server for all tests that need nothing special of it; an application in this process; an agent."""

from collections.abc import Iterator

import pytest

from agentspan.serve import create_app
from agentspan.storage.memory import MemoryStorage
from tests.serve.asgi import Client
from tests.serve.servers import Api, Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server without a token."""
    with serving(tmp_path_factory.mktemp("serve") / "runs.db") as running:
        yield running
        assert "Traceback" not in running.stderr


@pytest.fixture(scope="session")
def api(server: Server) -> Iterator[Api]:
    """Its API."""
    with server.client() as client:
        yield Api(client)


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants the token `s3cret-token`."""
    db = tmp_path_factory.mktemp("guarded") / "runs.db"
    with serving(db, AGENTSPAN_TOKEN="s3cret-token") as running:
        yield running
        assert "s3cret-token" not in running.stderr


@pytest.fixture
def stored() -> MemoryStorage:
    """A storage in memory."""
    return MemoryStorage()


@pytest.fixture
def client(stored: MemoryStorage) -> Iterator[Client]:
    """A client of an application over that storage, in this process."""
    with Client(create_app(stored)) as client:
        yield client


@pytest.fixture
def agent(request: pytest.FixtureRequest) -> str:
    """The name of an agent that no other test uses."""
    name: str = request.node.name
    return name[:60]
