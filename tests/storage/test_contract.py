"""All backends keep the same contract."""

from collections.abc import Iterator

import pytest

from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.registry import open_direct
from agentspan.testing import StorageContract
from tests.storage.sqlite_contract import SQLiteContract


class TestMemory(StorageContract):
    """In dictionaries."""

    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


class TestSQLite(SQLiteContract):
    """In a file."""

    @pytest.mark.full  # 2 s; the lives of an index are short in the quick tier (test_index.py)
    def test_answers_about_many_runs_are_those_of_reading_row_by_row(self, storage: Storage) -> None:
        super().test_answers_about_many_runs_are_those_of_reading_row_by_row(storage)


class TestPostgres(StorageContract):
    """In a schema of a server."""

    @pytest.mark.full
    def test_answers_about_many_runs_are_those_of_reading_row_by_row(self, storage: Storage) -> None:
        super().test_answers_about_many_runs_are_those_of_reading_row_by_row(storage)

    @pytest.fixture
    def storage(self, postgres_location: Location) -> Iterator[Storage]:
        made = open_direct(postgres_location)
        yield made
        made.close()

    def damage(self, storage: Storage) -> None:
        import psycopg

        location = storage.capabilities().location
        assert location is not None
        url, _, schema = location.text.partition("?schema=")
        with psycopg.connect(url, options=f"-csearch_path={schema}") as connection:
            connection.execute("update open_spans set status = 'secret'")
