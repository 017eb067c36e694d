"""A storage that is opened when it is used first."""

import gc
import os
import threading

import pytest

from agentspan.errors import StorageError
from agentspan.storage.location import memory
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.patience import Patience, waiting
from agentspan.storage.questions import Account, Query
from agentspan.storage.registry import OpenedLater
from agentspan.testing.contract.using import in_child
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_copy_for_a_caller_that_is_kept_alone_opens_in_a_forked_child() -> None:
    """Another thread is opening the storage at the fork."""
    is_opening, ends = threading.Event(), threading.Event()
    parent = os.getpid()

    def opened() -> MemoryStorage:
        if os.getpid() == parent:
            is_opening.set()
            ends.wait(30)
        return MemoryStorage()

    late = waiting(OpenedLater(memory(), opened, wait_s=0.2), Patience(answer_s=30.0))
    opening = threading.Thread(target=lambda: late.ask(Account()))
    opening.start()
    assert is_opening.wait(30)
    gc.collect()
    try:
        assert in_child(lambda: late.ask(Query("agent")).rows) == []
    finally:
        ends.set()
        opening.join()
