"""Adopts the journals of dead programs in a thread: on the event loop, 87 MB left everybody unanswered for 1.7 s."""

import asyncio
import threading
import time

from agentspan.recovery.adopting import LOOK_EVERY_S, Adoption
from agentspan.tuning import STANDARD

END_S = 1.0


class Adopting:
    """Looks for journals, at most once a second, before a request is answered.

    Args:
        adoption: of the journals beside the file; None if there can be none.
        answer_s: how long the request that found a journal waits for it.
    """

    def __init__(self, adoption: Adoption | None, answer_s: float = STANDARD.adoption_answer_s) -> None:
        self._adoption = adoption
        self._answer_s = answer_s
        self._next_s = 0.0 if adoption is not None else float("inf")
        self._thread: threading.Thread | None = None

    def is_due(self) -> bool:
        """Return whether to look before this request."""
        return time.monotonic() >= self._next_s

    async def look(self) -> None:
        """Look for journals, and wait for a moment while they are adopted."""
        self._next_s = time.monotonic() + LOOK_EVERY_S
        if self._adoption is None or (self._thread is not None and self._thread.is_alive()):
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        # Not of a pool: an interpreter that ends waits for those. What it left is adopted by the next program.
        self._thread = threading.Thread(target=self._adopt, args=(loop, done), name="agentspan-adopting", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system is at its limit
            self._thread = None
            return
        try:
            await asyncio.wait_for(done.wait(), self._answer_s)
        except TimeoutError:
            pass

    def _adopt(self, loop: asyncio.AbstractEventLoop, done: asyncio.Event) -> None:
        assert self._adoption is not None
        try:
            self._adoption.look(at_once=True)  # it logs its faults
        finally:
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:  # the loop is closed
                pass

    async def stop(self) -> None:
        """Stop looking, and wait until a look under way has ended, for a moment."""
        if self._adoption is not None:
            self._adoption.stop()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, END_S)
