"""For tests: the contract that every storage backend keeps, as a class of pytest tests to inherit.

    from agentspan.testing import StorageContract

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self):
            yield agentspan.open("mine://…").storage

Each capability that the storage claims is tested. The tests of other capabilities are skipped, with that reason.
"""

import pytest

PARTS = (
    "agreeing", "answering", "base", "changing", "closing", "groups", "keeping", "parting", "reading", "removing",
    "reopening", "rows", "scoring", "transferring", "units", "using",
)  # fmt: skip
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in PARTS))  # before they are imported

from agentspan.testing.contract.agreeing import Agreeing  # noqa: E402
from agentspan.testing.contract.answering import Answering, Scoring  # noqa: E402
from agentspan.testing.contract.base import T0, Rows  # noqa: E402
from agentspan.testing.contract.closing import Closing, Reopening  # noqa: E402
from agentspan.testing.contract.groups import Grouping, Parting  # noqa: E402
from agentspan.testing.contract.keeping import Keeping, Removing  # noqa: E402
from agentspan.testing.contract.reading import Reading  # noqa: E402
from agentspan.testing.contract.transferring import Transferring  # noqa: E402
from agentspan.testing.contract.units import Changing, Units  # noqa: E402
from agentspan.testing.contract.using import Using  # noqa: E402

__all__ = ["T0", "Rows", "StorageContract"]


class StorageContract(
    Changing,
    Units,
    Reading,
    Using,
    Closing,
    Agreeing,
    Reopening,
    Grouping,
    Removing,
    Answering,
    Keeping,
    Scoring,
    Transferring,
    Parting,
):
    """The contract tests as one class to inherit. Add a fixture `storage` that yields an empty storage.

    Override `copy_at` if `agentspan.open(path)` does not open a backup, and `damage` to test that `check` finds damage.
    """
