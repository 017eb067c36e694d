"""Which test of the contract must find which mutant."""

from collections.abc import Callable
from typing import TypeVar

from agentspan.storage.protocol import Storage

MUTANTS: dict[type[Storage], str] = {}

M = TypeVar("M", bound=type[Storage])


def found_by(test: str) -> Callable[[M], M]:
    def note(mutant: M) -> M:
        MUTANTS[mutant] = test
        return mutant

    return note
