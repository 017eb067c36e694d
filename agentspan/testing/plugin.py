"""The pytest plugin: the fixture `captured_runs`.

Every run of pytest loads this where agentspan is installed, as `_agentspan_pytest`, a copy outside the package
(importing that takes 0.1 s). So it imports nothing before a test asks for the fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentspan.testing.runs import CapturedRuns


@pytest.fixture
def captured_runs() -> "Iterator[CapturedRuns]":
    """What the test records through agentspan's functions: kept in memory, with counted ids and a ticking clock.

    See agentspan.testing.capture.
    """
    from agentspan.testing.capturing import capture

    with capture() as runs:
        yield runs
