"""Fixtures of these tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from agentspan.testing import deterministic


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """An empty file, to be copied: making one takes as long as fifty spans."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        with deterministic():
            agentspan.SQLiteStorage(path).close()
        yield path
