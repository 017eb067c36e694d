"""Which test of the contract must find which mutant, and the memory backend with more answers of its own."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Capabilities, Storage
from agentspan.storage.questions import Question

MUTANTS: dict[type[Storage], str] = {}

M = TypeVar("M", bound=type[Storage])


def found_by(test: str) -> Callable[[M], M]:
    def note(mutant: M) -> M:
        MUTANTS[mutant] = test
        return mutant

    return note


T = TypeVar("T")
Own = Mapping[type[Question[Any]], str]
"""Questions, and the method that answers each; where a class has none, it is answered row by row."""


class Claiming(MemoryStorage):
    """The memory backend that answers more questions by itself."""

    own: ClassVar[Own] = {}

    def capabilities(self) -> Capabilities:
        can = super().capabilities()
        return can._replace(answers=can.answers | self.own.keys())

    def ask(self, question: Question[T]) -> T:
        method = getattr(self, self.own.get(type(question), ""), super().ask)
        answer: T = method(question)
        return answer
