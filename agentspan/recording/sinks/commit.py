"""A sink that commits each unit to the storage before it returns.

A call waits at most `recording_wait_s`. What the storage has not taken by then waits in memory: a thread writes it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from agentspan.errors import NOT_NOW, NotStorable
from agentspan.interrupts import let_through
from agentspan.model.changes import Outcome, Unit
from agentspan.recording.sinks import span_units
from agentspan.recording.sinks.backlog import Backlog
from agentspan.recording.sinks.progress import Progress, until_trusted
from agentspan.recording.sinks.protocol import Counts, SpanFacts
from agentspan.recovery.committer import TAKEN, Committer, Listener
from agentspan.storage.patience import Unconnected, answers_within, in_a_call
from agentspan.storage.protocol import BesideJournals, Storage
from agentspan.tuning import STANDARD, Tuning


class CommitSink:
    """Commits each unit. What the storage cannot take (locked, disk full, away) waits in a backlog, and goes first.

    Args:
        storage: takes the units.
        committer: makes a Committer whose outcomes a listener receives. It settles what was refused.
        listener: receives faults and outcomes.
        before_keep: called before a unit is kept in the backlog.
        put_aside: keeps a unit that the storage could not take; in the backlog, when left out.
        journals: the file that takes the units; None where a flush has nothing to look at.
        is_server: the storage answers over a connection. A call waits for no answer longer than in all, and a thread
            connects.
        has_thread: whether the backlog has a thread of its own.
        tuning: sizes and times.
    """

    def __init__(
        self,
        storage: Storage,
        committer: Callable[[Listener], Committer],
        listener: Listener,
        *,
        before_keep: Callable[[], None] | None = None,
        put_aside: Callable[[Unit, Exception], None] | None = None,
        journals: BesideJournals | None = None,
        is_server: bool = False,
        has_thread: bool = False,
        tuning: Tuning = STANDARD,
    ) -> None:
        self.progress = Progress(listener)
        self.committer = committer(self.progress.deferred)
        keeping = [] if before_keep is None else [before_keep]
        self.backlog = Backlog(self.committer, self.progress, *keeping, has_thread=has_thread, tuning=tuning)
        self._call_s = tuning.recording_wait_s
        # A server's answer that a lock was not free takes a moment; so does giving up a connection.
        self._wait_s, self._answers_s = self._call_s, self._call_s * 0.9
        if is_server:
            self._wait_s *= 0.7
        self._is_server = is_server
        self._storage = storage
        self._journals = journals
        self._listener = listener
        self._put_aside = put_aside or self.put_aside

    def counts(self) -> Counts:
        """Return the state of this sink."""
        progress, backlog = self.progress, self.backlog
        return Counts(
            progress.recorded,
            len(backlog.units),
            progress.refused,
            progress.failed,
            0,
            0,
            backlog.oldest_s,
            progress.last_error,
        )

    def count_recorded(self) -> None:
        """Count a transition that the caller has committed itself."""
        self.progress.recorded += 1

    def created(self, span: SpanFacts, at_ns: int) -> None:
        """Commit a new span."""
        self.write(span_units.created(span, at_ns))

    def created_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int) -> None:
        """Read a new span from a text, and commit it."""
        self.write(span_units.created_raw(span, reader, text, at_ns))

    def started(self, span: SpanFacts) -> None:
        """Commit that a pending span became active."""
        self.write(span_units.started(span))

    def updated(self, span: SpanFacts, at_ns: int) -> None:
        """Commit the changed payload of an open span."""
        self.write(span_units.updated(span, at_ns))

    def finished(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """Commit the end of a span."""
        self.write(span_units.finished(span, result, at_ns, elapsed_ns))

    def finished_as(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """Commit the end of a span, with the type and the payload that were learnt then."""
        self.write(span_units.finished_as(span, result, at_ns, elapsed_ns))

    def finished_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int, elapsed_ns: int) -> None:
        """Read the end of a span from a text, and commit it."""
        self.write(span_units.finished_raw(span, reader, text, at_ns, elapsed_ns))

    def register(self, unit: Unit) -> None:
        """Commit a unit that registers or renames a run."""
        self._apply(unit, is_counted=True)

    def restate(self, unit: Unit) -> None:
        """Commit a unit that is no transition of this process."""
        self._apply(unit, is_counted=False)

    def _apply(self, unit: Unit, *, is_counted: bool) -> None:
        """Write a unit whose names are resolved first; after what waits."""
        if self.backlog.units:
            self.backlog.put(unit, self._call_s)
            return
        try:
            with self._in_time():
                tally = self.committer.apply((unit,), self._wait_s)
        except NOT_NOW as error:
            let_through(error)
            self._put_aside(unit, error)
            return
        if is_counted:
            self.progress.count(tally)
        self.progress.deferred.raise_kept()

    def write(self, unit: Unit) -> None:
        """Commit a unit that concerns something else than a span."""
        progress, backlog = self.progress, self.backlog
        if backlog.units:
            backlog.put(unit, self._call_s)
            return
        try:
            if self._is_server:
                outcome = self._apply_in_time(unit)
            else:
                outcome = self._storage.apply((unit,), wait_s=self._wait_s)[0]
        except Exception as error:
            let_through(error)
            if isinstance(error, NOT_NOW) and not isinstance(error, NotStorable):
                self._put_aside(unit, error)
                return
            progress.failed += 1  # by a bug of ours or of the backend's: the same unit would fail again
            self._listener.fault(error)
            return
        if outcome == TAKEN:
            progress.recorded += 1  # no lock (0.2 µs): CPython switches threads at calls and jumps, and here is neither
            return
        try:
            with self._in_time():
                tally = self.committer.settle(unit, outcome)
        except NOT_NOW as error:
            let_through(error)
            self._put_aside(unit, error)
            return
        progress.count(tally)
        progress.deferred.raise_kept()

    def put_aside(self, unit: Unit, error: Exception) -> None:
        """Keep a unit that the storage could not take, and commit it later."""
        if isinstance(error, Unconnected):
            self.backlog.put_unreported(unit, self._call_s)
            return
        self.progress.storage_failed(error)
        self.backlog.put(unit, 0.0)
        self._listener.fault(error)

    def _in_time(self) -> AbstractContextManager[None]:
        """Return a block in which all answers together are waited for as long as a call may wait."""
        return in_a_call(self._answers_s) if self._is_server else nullcontext()

    def _apply_in_time(self, unit: Unit) -> Outcome:
        with in_a_call(self._answers_s):
            return self._storage.apply((unit,), wait_s=self._wait_s)[0]

    def flush(self, wait_s: float) -> bool:
        """Commit what waits; return whether nothing waits any more.

        Also False where the file is not as it was left, which may have cost what was committed.
        """
        self.progress.deferred.raise_kept()
        with answers_within(max(wait_s, self._call_s)):
            return self.backlog.flush(wait_s, max(wait_s, self._wait_s)) and self._is_sound(wait_s)

    def _is_sound(self, wait_s: float) -> bool:
        journals = self._journals
        try:
            return journals is None or until_trusted(lambda: journals.has(()), wait_s)
        except NOT_NOW as error:
            let_through(error)
            self.progress.storage_failed(error)
            self._listener.fault(error)
            return False

    def flush_at_end(self, wait_s: float) -> None:
        """Commit what waits while the program ends."""
        self.flush(wait_s)

    def hurry(self) -> None:
        """Do nothing: there is no journal."""

    def watch(self) -> None:
        """Do nothing: each commit returns whether its run is terminated."""

    def release(self, *, for_good: bool = False) -> None:
        """End the thread. The owner closes the storage."""
        self.backlog.stop(self._call_s)

    def leave(self) -> None:
        """Do nothing: there are no files and no threads to drop."""
