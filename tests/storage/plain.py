"""A storage without answers of its own, so that another one is read through it row by row."""

from typing import TypeVar

from agentspan.storage import row_by_row
from agentspan.storage.protocol import Capabilities, Storage
from agentspan.storage.questions import BASIC, Question

T = TypeVar("T")


class Plain:
    """Passes the basic questions on, and has no other answers."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.apply, self.group, self.close = storage.apply, storage.group, storage.close

    def capabilities(self) -> Capabilities:
        return Capabilities("plain")

    def ask(self, question: Question[T]) -> T:
        return self._storage.ask(question) if type(question) in BASIC else row_by_row.answer(self, question)
