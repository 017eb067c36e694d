"""Fixtures: both storage backends behind the same names."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from agentspan.operations.database import Database
from agentspan.schemas.span_types import REGISTRY
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.sqlite import SQLiteStorage


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    """One storage of each kind."""
    made = MemoryStorage() if request.param == "memory" else SQLiteStorage(tmp_path / "runs.db")
    yield made
    made.close()


@pytest.fixture
def db(storage: Storage) -> Database:
    """The operations by id over each storage."""
    return agentspan.open(storage)


@pytest.fixture
def tracer(storage: Storage) -> Iterator[agentspan.Tracer]:
    """A tracer over each storage that raises agentspan's own faults."""
    made = agentspan.Tracer(storage, raise_errors=True)
    yield made
    made.shutdown()


@pytest.fixture(autouse=True)
def _same_span_types() -> Iterator[None]:
    """What a test registers is gone after it."""
    types = dict(REGISTRY._types)
    yield
    if types != REGISTRY._types:
        REGISTRY._types, REGISTRY._resolved = types, {}
        REGISTRY.version += 1


@pytest.fixture(autouse=True)
def _fresh_default_tracer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test records into another's file, or into the checkout."""
    from agentspan.recording import default

    monkeypatch.setenv("AGENTSPAN_DB", str(tmp_path / "default.db"))
    monkeypatch.setattr(default, "_given", {})
    yield
    agentspan.shutdown()
