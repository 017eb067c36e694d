"""For tests: the contract that every storage backend keeps, as a class of pytest tests to inherit.

from agentspan.testing import StorageContract

class TestMyStorage(StorageContract):
    @pytest.fixture
    def storage(self):
        yield MyStorage(...)
"""

from agentspan.testing.contract.changing import Changing
from agentspan.testing.contract.groups import GroupsContract
from agentspan.testing.contract.reading import Reading
from agentspan.testing.contract.units import Units
from agentspan.testing.contract.using import Using

__all__ = ["StorageContract"]


class StorageContract(Changing, Units, Reading, Using, GroupsContract):
    """Inherit it, and give it a `storage` fixture that yields an empty storage."""
