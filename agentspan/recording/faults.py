"""Counts and logs the faults of a recorder. None reaches the program that is recorded."""

import logging
import threading
import time

from agentspan.errors import DatabaseUnusable, StorageError
from agentspan.interrupts import let_through
from agentspan.recording.capture.capture import Capture

log = logging.getLogger("agentspan")

QUIET_NS = 60_000_000_000
"""How long a storage that fails and recovers again and again is not logged anew."""
_STORAGE_FAULTS = {StorageError.__name__, DatabaseUnusable.__name__}


class Faults:
    """The faults of one recorder. Each kind is logged once.

    Args:
        capture: makes the text of an exception, without secrets.
        are_raised: raise faults instead; for tests.
        are_counted: False where recording is disabled: faults are ignored.

    Attributes:
        lost: transitions that could not be recorded.
    """

    def __init__(self, capture: Capture, *, are_raised: bool, are_counted: bool) -> None:
        self.lost = 0
        self._capture = capture
        self._are_raised = are_raised
        self._are_counted = are_counted
        self._logged: set[str] = set()
        self._quiet_until_ns = 0
        self._lock = threading.Lock()

    def count_lost(self) -> None:
        """Count a transition that is not recorded."""
        with self._lock:
            self.lost += self._are_counted

    def lose(self, error: Exception, *, reraise: bool = True) -> None:
        """Count a transition that a fault, or a misuse, kept from being recorded."""
        let_through(error)
        self.count_lost()
        self.add(error, reraise=reraise)

    def add(self, error: Exception, *, reraise: bool = True) -> None:
        """Log a fault once per kind; raise it only for tests.

        Args:
            reraise: False where the caller could not bear an exception.
        """
        let_through(error)
        if not self._are_counted:
            return
        if self._are_raised and reraise:
            raise error
        kind = type(error).__name__
        if kind not in self._logged:
            self._logged.add(kind)
            message = self._capture.error(error)["message"]  # it may be somebody else's: with secrets, or unreadable
            log.warning("recording: %s: %s (more of this kind are only counted, see agentspan.health())", kind, message)

    def storage_recovered(self) -> None:
        """Log that the storage takes records again, and log its next fault: once a minute."""
        if self._logged & _STORAGE_FAULTS and time.monotonic_ns() >= self._quiet_until_ns:
            self._quiet_until_ns = time.monotonic_ns() + QUIET_NS
            self._logged -= _STORAGE_FAULTS
            log.warning("recording: the storage takes records again (see agentspan.health())")

    def renew(self) -> None:
        """In a forked child: make the lock anew."""
        self._lock = threading.Lock()
