"""Fixtures: one server for all tests that need nothing special of it, each with agents of its own."""

from collections.abc import Iterator

import pytest

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
def agent(request: pytest.FixtureRequest) -> str:
    """The name of an agent that no other test uses."""
    name: str = request.node.name
    return name[:60]
