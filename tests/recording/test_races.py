"""Threads of one program that record at the same moment: none gets in the way of another."""

import threading
from collections.abc import Callable
from typing import Any

import pydantic_core
import pytest

from agentspan import forks
from agentspan.recording.capture import credentials
from agentspan.schemas import keywords


@pytest.mark.parametrize("search", [credentials.search, keywords.compile_pattern], ids=["credentials", "schemas"])
def test_a_fork_waits_for_a_thread_that_makes_a_validator(
    search: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """pydantic makes the first one of a process under a lock. A child that inherits it held waits for ever."""
    made = pydantic_core.SchemaValidator
    held: list[bool] = []

    def watched(schema: Any) -> Any:
        held.append(threading.get_ident() in forks._importing)
        return made(schema)

    monkeypatch.setattr(pydantic_core, "SchemaValidator", watched)
    monkeypatch.setattr(credentials, "SchemaValidator", watched)
    search("a+b")
    assert held == [True]
