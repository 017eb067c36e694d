"""Runs whose conversations are read."""

import pytest

from agentspan.database import Database
from tests.viewer.recorded import Recorded


@pytest.fixture
def recorded(db: Database) -> Recorded:
    return Recorded(db)
