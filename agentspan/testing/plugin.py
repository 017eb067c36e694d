"""The pytest plugin: the fixture `captured_runs`.

If agentspan is installed, every run of pytest loads this as `_agentspan_pytest`, a copy outside the package, because
importing the package takes 0.1 s. So it imports nothing before a test uses the fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from agentspan.testing.runs import CapturedRuns


@pytest.fixture
def captured_runs() -> "Iterator[CapturedRuns]":
    """The runs that the test records through agentspan's functions: in memory, with counted ids and a counted clock.

    See agentspan.testing.capture.
    """
    from agentspan.testing.capturing import capture

    with capture() as runs:
        yield runs
