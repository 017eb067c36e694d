"""A storage that is opened when it is used first."""

import pytest

from agentspan.errors import StorageError
from agentspan.storage.location import memory
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import Account
from agentspan.storage.registry import OpenedLater
from tests.impatient import elsewhere


def test_a_storage_that_is_closed_while_another_thread_opens_it_stays_closed() -> None:
    made = MemoryStorage()

    def opened() -> MemoryStorage:
        elsewhere(late.close)
        return made

    late = OpenedLater(memory(), opened, wait_s=1.0)
    for storage in (late, made):
        with pytest.raises(StorageError):
            storage.ask(Account())
