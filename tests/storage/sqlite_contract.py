"""The contract of storages over the SQLite backend."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentspan.storage.protocol import Storage
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing import StorageContract


class SQLiteContract(StorageContract):
    """In a file."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        made = SQLiteStorage(tmp_path / "runs.db")
        yield made
        made.close()

    def damage(self, storage: Storage) -> None:
        location = storage.capabilities().location
        assert location is not None
        connection = sqlite3.connect(location.text)
        with connection:
            connection.execute("update agent_spans set status = 'secret'")
        connection.close()
