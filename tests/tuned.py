"""Other sizes and times for the storages of a test."""

from typing import Any

import pytest

from agentspan.tuning import STANDARD


def tuned(**values: Any) -> pytest.MarkDecorator:
    """Give the fixture `tuning`, and so the storages of a test, these sizes and times."""
    return pytest.mark.parametrize("tuning", [STANDARD._replace(**values)], ids=["tuned"])
