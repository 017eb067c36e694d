"""Both backends keep the same contract."""

import pytest

from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.testing import StorageContract
from tests.storage.sqlite_contract import SQLiteContract


class TestMemory(StorageContract):
    """In dictionaries."""

    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


class TestSQLite(SQLiteContract):
    """In a file."""
