"""Looks up whether runs of this process were terminated, in the drain thread, and tells them when they record next."""

import time

from agentspan.errors import StorageError
from agentspan.recording.sinks.protocol import RunListener
from agentspan.tuning import STANDARD

LOOK_SHARE = 0.01
"""The share of the thread's time that this may take: with thousands of runs, it looks less often."""


class Terminations:
    """Terminations that were found, and not passed on yet.

    Args:
        runs: the runs of this process.
        every_s: how often the storage is asked.

    Attributes:
        found: reasons by the ids of runs. Empty nearly always.
    """

    def __init__(self, runs: RunListener, every_s: float = STANDARD.termination_look_s) -> None:
        self.found: dict[str, str] = {}
        self._runs = runs
        self._every_s = every_s
        self._next_look_s = 0.0

    def add(self, instance_id: str, reason: str) -> None:
        """Add a termination by this process."""
        self.found = {**self.found, instance_id: reason}

    def look(self) -> None:
        """Look for terminations in the storage, if it is time."""
        began = time.monotonic()
        if began < self._next_look_s:
            return
        try:
            found = self._runs.terminations()
            if found:
                self.found = {**self.found, **found}
        except StorageError:  # busy: the next look finds it
            pass
        ended = time.monotonic()
        self._next_look_s = ended + max(self._every_s, (ended - began) / LOOK_SHARE)

    def pass_on(self) -> None:
        """Notify the runs, in the thread of a call that records."""
        found, self.found = self.found, {}
        self._runs.learn(found)
