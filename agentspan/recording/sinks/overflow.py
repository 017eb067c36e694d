"""The state in which no record can be appended to a journal: the disk is full, or the storage takes nothing."""

from agentspan.errors import StorageError
from agentspan.journal.log import Log
from agentspan.recording.sinks.commit import CommitSink
from agentspan.recording.sinks.drain import Drain


class Overflow:
    """The state in which transitions go to the storage, or the backlog, instead of the log.

    Args:
        name: of the storage, for messages.

    Attributes:
        is_on: whether they do.
        is_too_old: whether what is in the log has waited for so long that new transitions are dropped.
    """

    def __init__(self, name: str, log: Log, drain: Drain, commits: CommitSink) -> None:
        self.is_on = self.is_too_old = False
        self._name = name
        self._log = log
        self._drain = drain
        self._commits = commits

    @property
    def keeps_order(self) -> bool:
        """True if a new transition must wait for earlier transitions that are not in the log."""
        return self.is_on or self.is_too_old or bool(self._commits.backlog.units)

    def begin(self, why: str | None) -> None:
        """Begin, and report why."""
        self.is_on = self._log.alert = True
        self._commits.progress.try_later()
        self._commits.progress.listener.fault(StorageError(f"there can be no journal for {self._name} now: {why}"))

    def try_to_end(self) -> bool:
        """Write all that waits, in order; return whether records may be appended again."""
        progress = self._commits.progress
        if not progress.may_try():
            return False
        if not self._drain.run(0.0) or not self._commits.flush(0.0):
            progress.try_later()
            return False
        self.is_on = False
        return True
