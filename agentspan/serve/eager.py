"""Runs an awaitable until it has to wait, so that a result that is there already needs no timeout."""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Eager(Generic[T]):
    """An awaitable that has run until it had to wait. Await it in the same task.

    A server has the whole body of a small request when it calls the application. Then `asyncio.timeout` around the
    first `receive` costs 5 µs for nothing.

    Attributes:
        is_done: True if it did not have to wait; `await` returns its result without waiting.
    """

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self._steps = awaitable.__await__()
        self._result: Any = None
        self._waits_for: Any = None
        self.is_done = False
        self._step(next, self._steps)

    def __await__(self) -> Generator[Any, Any, T]:
        while not self.is_done:
            try:
                sent = yield self._waits_for
            except BaseException as error:
                self._step(self._steps.throw, error)
            else:
                self._step(self._steps.send, sent)
        result: T = self._result
        return result

    def _step(self, go_on: Callable[[Any], Any], with_what: Any) -> None:
        try:
            self._waits_for = go_on(with_what)
        except StopIteration as end:
            self._result, self.is_done = end.value, True
