"""The work on a journal besides appending: drain it, look for terminations, adopt journals of dead programs, fork.

The drain thread looks up runs that another process terminated; a run is notified when it records next. The span types
are stored beside the journal, for the process that recovers it, if some run was registered before one of the types
was. A journal overflows if no record can be appended, because the disk is full or the storage fails for too long.
"""

import sys
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentspan import disk, host
from agentspan.errors import AgentspanError, StorageError
from agentspan.host import Bell, Hold, Occupied, Thread, guard, is_mine, start, within
from agentspan.journal import spool, writers
from agentspan.journal.log import Log
from agentspan.journal.spool import bytes_of_others, keep_types, removal_marked_ns
from agentspan.recording.sinks.commit import CommitSink
from agentspan.recording.sinks.drain import Drain
from agentspan.recording.sinks.facts import Progress, RunListener
from agentspan.storage.patience import ENDLESS, Patience
from agentspan.storage.protocol import BesideJournals
from agentspan.tuning import STANDARD, Tuning

if TYPE_CHECKING:
    from agentspan.journal.adopting import Adoption


class Overflow:
    """The state in which transitions go to the storage or the backlog, because the log accepts no records.

    Args:
        name: the name of the storage, for messages.

    Attributes:
        is_on: whether the log overflows now.
        is_too_old: whether the records in the log have waited for so long that new transitions are dropped.
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
        """Begin the overflow, and report the reason to the listener."""
        self.is_on = self._log.alert = True
        self._commits.progress.try_later()
        self._commits.progress.listener.fault(StorageError(f"there can be no journal for {self._name} now: {why}"))

    def try_to_end(self) -> bool:
        """Drain the log and then the backlog. Return True, and end the overflow, if records may be appended again."""
        progress = self._commits.progress
        if not progress.may_try():
            return False
        if not self._drain.run(0.0) or not self._commits.flush(0.0):
            progress.try_later()
            return False
        self.is_on = False
        return True


class TypesFile:
    """The file of this process's span types beside its journal.

    Args:
        folder: the folder of the journal.
        writer_id: returns the writer id of this process.
        late_types: returns all span types as JSON text if a run of this process was registered before one of the types
            was; else None.

    Attributes:
        is_due: whether the file has to be written before the next record.
    """

    def __init__(self, folder: Path, writer_id: Callable[[], str], late_types: Callable[[], str | None]) -> None:
        self.is_due = False
        self._folder = folder
        self._writer_id = writer_id
        self._late_types = late_types

    def write(self) -> None:
        """Write the file, if a span type was registered after the first run."""
        self.is_due = False
        written: str | None = None
        with guard(OSError):  # full disk: if this program is killed, its journal is recovered without types
            while (types := self._late_types()) not in (None, written):  # another thread may have written newer ones
                keep_types(self._folder, self._writer_id(), types)
                written = types


LOOK_SHARE = 0.01
"""The share of the drain thread's time for looks for terminations. With thousands of runs, it looks less often."""


class Terminations:
    """The terminations that were found, and not passed on to their runs yet.

    Args:
        runs: finds and notifies the terminated runs of this process.
        every_s: seconds between two looks in the storage.

    Attributes:
        found: the reasons by the ids of the runs. Nearly always empty.
    """

    def __init__(self, runs: RunListener, every_s: float = STANDARD.termination_look_s) -> None:
        self.found: dict[str, str] = {}
        self._runs = runs
        self._every_s = every_s
        self._next_look_s = 0.0

    def add(self, instance_id: str, reason: str) -> None:
        """Add a termination of a run."""
        self.found = {**self.found, instance_id: reason}

    def look(self) -> None:
        """Look for terminations in the storage, if it is time."""
        began = disk.monotonic()
        if began < self._next_look_s:
            return
        try:
            found = self._runs.terminations()
            if found:
                self.found = {**self.found, **found}
        except StorageError:  # busy: the next look finds it
            pass
        ended = disk.monotonic()
        self._next_look_s = ended + max(self._every_s, (ended - began) / LOOK_SHARE)

    def pass_on(self) -> None:
        """Notify the runs, in the thread of a call that records."""
        found, self.found = self.found, {}
        self._runs.learn(found)


QUIET_TICK_S = 0.1
"""The time between two ticks while nothing is recorded, in seconds."""
MAX_CALLS = 2
"""How many wake-ups in a row may replace a tick. With large records, every few records begin a segment, and wake it."""
RESTART_S = 0.05
MAX_RESTART_S = 5.0
"""Seconds until a thread that could not be started is tried again: RESTART_S at first, then doubled up to this."""


class Ticks:
    """The state that the thread keeps from one tick to the next.

    Args:
        most_quiet: the number of ticks without a record after which the thread is quiet.

    Attributes:
        seen: the number of the last record at the latest tick.
        quiet: the number of consecutive ticks without a record.
        burst: the number of consecutive ticks with many records.
    """

    def __init__(self, most_quiet: int) -> None:
        self.seen = self.quiet = self.burst = 0
        self._most_quiet = most_quiet

    @property
    def is_quiet(self) -> bool:
        """True if nothing was recorded for `most_quiet` ticks, about a second."""
        return self.quiet >= self._most_quiet


class DrainThread:
    """Starts, wakes and ends the thread that drains the journal of one sink.

    Args:
        work: the work of the sink. The thread keeps it alive only while it has records or runs.
        log: the log of the sink. Its `alert` makes the next record call the sink, which starts the thread again.
        progress: the counts of the sink.
        name: the name of the storage, for messages.
        before_start: called before a thread is started.
        tuning: times.

    Attributes:
        running: the thread, or None.
        bell: wakes the thread. Each thread has its own bell, so that two threads never wait for the same one.
    """

    def __init__(
        self,
        work: "JournalWork",
        log: Log,
        progress: Progress,
        name: str,
        before_start: Callable[[], None],
        *,
        tuning: Tuning = STANDARD,
    ) -> None:
        self.running: threading.Thread | None = None
        self.bell = Bell()
        self._work = weakref.ref(work)
        self._log = log
        self._progress = progress
        self._name = name
        self._before_start = before_start
        self._tuning = tuning
        self._start_s = self._pause_s = 0.0

    def wake(self) -> None:
        """Wake the thread before its next tick."""
        self.bell.ring()

    def start(self) -> None:
        """Start the thread. If a start failed a moment ago, do nothing now; a later call tries again."""
        if disk.monotonic() < self._start_s:
            self._log.alert = True
            return
        thread: threading.Thread | None = None
        try:
            with self._log.lock:
                # A thread that is started while the interpreter ends blocks its starter for ever (Python 3.11).
                if self.running is not None or sys.is_finalizing():
                    return
                self._before_start()
                self.bell = bell = Bell()
                arguments = self._work, bell, self._tuning
                thread = Thread(target=_run, args=arguments, name="agentspan-journal", daemon=True)
                self.running = thread
            start(thread)
            self._pause_s = 0.0
        except BaseException as error:  # also from a signal handler, at any point
            if thread is not None and self.running is thread:  # it may run, may be starting, or have broken off
                bell.is_last = True
                self.running = None
                self._log.alert = True
            if not isinstance(error, RuntimeError):
                raise
            self._cannot_start(error)

    def _cannot_start(self, error: RuntimeError) -> None:
        self._pause_s = min(2 * self._pause_s or RESTART_S, MAX_RESTART_S)
        self._start_s = disk.monotonic() + self._pause_s
        if "shutdown" in str(error):  # the interpreter ends: the next program that opens the file reads the journal
            return
        message = f"the thread that drains the journal of {self._name} cannot be started: {error}; it is tried again"
        self._progress.last_error = message
        try:
            self._progress.listener.fault(StorageError(message))
        except StorageError as fault:  # faults are to be raised, but what is being recorded comes first
            self._progress.deferred.raised = fault

    def stop(self, wait_s: float) -> None:
        """End the thread, and wait for its end up to `wait_s`. The next record starts a new thread."""
        with self._log.lock:
            thread, self.running = self.running, None
            self._log.alert = True
            bell, self.bell = self.bell, Bell()
        bell.is_last = True
        bell.ring()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(wait_s)

    def ended(self, bell: Bell) -> None:
        """Note that the thread with this bell has ended, and start a new one if a record was appended meanwhile."""
        work = self._work()
        if work is not None and self.bell is bell:
            self.running = None
            self._log.alert = True
            if work.has_records():  # the call that appended a record found the thread still running
                self.start()

    def raised(self, error: Exception) -> None:
        """Keep an exception of the thread; the next flush raises it."""
        self._progress.deferred.raised = error


def _run(reference: "weakref.ref[JournalWork]", bell: Bell, tuning: Tuning) -> None:
    """The loop of the thread: tick while there is work. Between ticks, the program may drop the sink."""
    ticks, is_over, kept, calls = Ticks(tuning.drain_quiet_ticks), False, reference(), 0
    tick_s = tuning.drain_tick_s
    while not is_over:
        is_called = bell.wait(QUIET_TICK_S if ticks.is_quiet else tick_s) and calls < MAX_CALLS
        calls = calls + 1 if is_called else 0
        if bell.is_last:
            return
        work = kept or reference()
        if work is None or work.thread.bell is not bell:  # another thread was started in this one's place
            return
        kept = work
        with guard(report=work.thread.raised):
            if is_called:
                ticks.quiet = 0
                work.prepare()
            else:
                is_over = work.tick(ticks)
            # A strong reference while there is work, so that a dropped tracer still drains its records.
            kept = work if work.is_needed() else None
        del work
    work = reference()
    if work is not None:
        work.thread.ended(bell)


LOOK_EVERY_S = 1.0
"""Seconds between two measurements of the segments of other programs, while the storage fails."""
BURST = 100
"""The number of records within one tick above which the tick belongs to a burst."""
SETTLE_S = 1.0
"""Seconds between two checks that committed records are in the file, if the file is not synced."""
PATIENCE_S = 3.0
"""Seconds that the drain thread waits for the end of a burst: 300,000 spans, if the journal has room for them."""
FORK_WAIT_S = 5.0
SERVER_FORK_WAIT_S = 0.25
FIRST_PAUSE_S, MAX_PAUSE_S = 0.05, 1.0
"""The pause before a failing server is tried again, in seconds, at first and at most."""
LEAST_ANSWER_S = 1.0
"""Seconds that a flush waits at least for an answer, even with a shorter limit: giving up a connection each time would
keep a slow server busy."""
SLOW_S = 0.5
"""The age of waiting records, in seconds, above which `hurry` does not wait: the thread is still connecting, or the
server does not answer."""
LEASE_RETRY_S = 30.0
EXIT_S = 1.0
"""Seconds that the end of a program may spend on adopting the journals of dead programs."""


class JournalWork:
    """The work on one journal. Called by the journal's thread, by readers in this process, and before and after forks.

    Args:
        name: the name of the storage, for messages.
        folder: the folder of the journal.
        log: the log that records are appended to.
        commits: commits to the storage directly.
        runs: finds and notifies the terminated runs of this process.
        adoption: adopts the journals of dead programs.
        types: the file of this process's span types.
        journals: the file that the journal is drained to; None for a server.
        tuning: sizes and times.

    Attributes:
        is_server: whether the storage is a server.
        drain: moves records to the storage.
        thread: the thread that drains.
        overflow: the state in which no record can be appended.
        terminations: the terminations that were not passed on to their runs yet.
    """

    is_server = False

    def __init__(
        self,
        name: str,
        folder: Path,
        log: Log,
        commits: CommitSink,
        runs: RunListener,
        adoption: "Adoption",
        types: TypesFile,
        journals: BesideJournals | None,
        tuning: Tuning,
    ) -> None:
        self.folder = folder
        self.drain = Drain(
            log, commits.committer, commits.progress, is_server=self.is_server, journals=journals, tuning=tuning
        )
        self.thread = DrainThread(self, log, commits.progress, name, self.drain.note_empty, tuning=tuning)
        self.overflow = Overflow(name, log, self.drain, commits)
        self.terminations = Terminations(runs, tuning.termination_look_s)
        self._log = log
        self._commits = commits
        self._runs = runs
        self._adoption = adoption
        self._types = types
        self._tuning = tuning
        self._wait_s = tuning.recording_wait_s
        self._held: list[threading.RLock] = []
        self._bytes_of_others = 0
        self._next_look_s = self._next_settle_s = 0.0
        self._settle_every_s = tuning.sync_after_s or SETTLE_S
        self._removal_told = removal_marked_ns(folder)
        _works.add(self)
        spool.register(self)

    def types_changed(self) -> None:
        """Note that a span type was registered."""
        self._types.is_due = self._log.alert = True

    def terminated(self, instance_id: str, reason: str) -> None:
        """Note that a run was terminated. The run may be one of another process."""
        self.terminations.add(instance_id, reason)

    def drain_now(self) -> None:
        """Move the records of the journal to the storage."""
        target, drained, wait_s = self._log.sequence, -1, self._tuning.read_drains_s
        while drained < self.drain.last_drained < target:  # repeat as long as each round drains something
            drained = self.drain.last_drained
            if self.drain.run(wait_s):
                break
        if self._commits.backlog.units:
            self._commits.flush(wait_s)

    @property
    def bytes(self) -> int:
        """The total size of the full segments of this process and of all segments of other processes, in bytes."""
        return self._log.full_bytes + self._bytes_of_others

    @property
    def is_full(self) -> bool:
        """True if the journal has reached its size limit. Segments of others count only while the storage fails."""
        takes_nothing, limit = self._commits.progress.last_error is not None, self._tuning.journal_limit_bytes
        return self._log.full_bytes >= limit or (takes_nothing and self.bytes >= limit)

    def _look_at_others(self) -> None:
        """Measure the segments of other programs in the folder, at most every LOOK_EVERY_S."""
        now = disk.monotonic()
        if now >= self._next_look_s:
            self._next_look_s = now + LOOK_EVERY_S
            self._bytes_of_others = bytes_of_others(self.folder, self._log.writer_id())
            self._log.alert = self._log.alert or self.is_full

    def has_records(self) -> bool:
        """Return whether the journal has records that are not in the storage yet, or not yet for certain."""
        return bool(self.drain.journaled) or self.drain.has_committed

    def is_needed(self) -> bool:
        """Return whether the journal has records to move, or active runs that will append some."""
        return self.has_records() or self._runs.has_runs()

    def prepare(self) -> None:
        """Create the next segment in advance, because a segment was begun."""
        self._log.prepare()

    def tick(self, ticks: Ticks) -> bool:
        """Drain, and do the other due work of the thread. Return True if the thread may end."""
        new, ticks.seen = self._log.sequence - ticks.seen, self._log.sequence
        if self._commits.progress.last_error is not None or self._bytes_of_others:
            self._look_at_others()
        if self.overflow.keeps_order:
            self.overflow.try_to_end()
        self._log.prepare()
        self._settle()
        if not self.drain.journaled:
            self.drain.note_empty()
            ticks.quiet += 1
            ticks.burst = 0
            return ticks.is_quiet and self._rest()
        ticks.quiet = 0
        ticks.burst = ticks.burst + 1 if new > BURST else 0
        if self._lets_pass(ticks):
            return False
        ticks.burst = 0
        self.drain.run(self._wait_s)
        self.terminations.look()
        self._adoption.look(most_s=LOOK_EVERY_S)
        self._log.look_after_files()
        return False

    def _settle(self) -> None:
        """Remove records that are safe in the storage from the journal, and flush the others to disk, if it is time."""
        now = disk.monotonic()
        if now >= self._next_settle_s:
            self._next_settle_s = now + self._settle_every_s
            self.drain.settle(self._wait_s, keeps_latest=True)
            removed_ns = removal_marked_ns(self.folder)
            if removed_ns != self._removal_told:
                self._removal_told = removed_ns
                self._log.begin_anew()

    def _rest(self) -> bool:
        """Do the due work after a second without records. Return True if the thread may end."""
        self._log.alert = True  # the next record wakes the thread
        self.terminations.look()
        if self.drain.has_committed:
            self.drain.settle(self._wait_s)
        if self._runs.has_runs() or self.drain.has_committed:
            return False
        self._log.rest()
        return True

    def _lets_pass(self, ticks: Ticks) -> bool:
        """Return whether to drain later, because there is a burst and the journal has room for it."""
        tuning = self._tuning
        has_room = self._log.full_bytes < tuning.journal_calls_drain_bytes // 2
        return 0 < ticks.burst * tuning.drain_tick_s < PATIENCE_S and has_room

    def hurry(self) -> None:
        """Drain the journal, unless the latest attempt failed."""
        if self._commits.progress.last_error is None:
            self.drain.run(self._wait_s)

    def flush(self, wait_s: float, patience: Patience = ENDLESS) -> bool:
        """Move all records to the storage, then the units in memory. Return True if nothing waits any more."""
        deadline = disk.monotonic() + wait_s
        is_drained = self.drain.run(wait_s, patience=patience)
        while not is_drained and self.drain.makes_way and disk.monotonic() < deadline:  # a fork interrupted the drain
            is_drained = self.drain.run(deadline - disk.monotonic(), patience=patience)
        self._commits.progress.deferred.raise_kept()
        if not (is_drained and self._commits.flush(wait_s, patience) and self.drain.settle(wait_s)):
            return False
        self._commits.progress.storage_took()  # the thread may have noted a file that was not trusted yet
        return True

    def flush_at_end(self, wait_s: float) -> None:
        """Move everything to the storage at the end of the program."""
        self.flush(wait_s)

    def release(self, *, for_good: bool = False) -> None:
        """End the thread and close the files. Segments with needed records stay on disk."""
        self.thread.stop(self._wait_s)  # it may be making a segment; the next record starts it again
        with suppress(Occupied), within(self.drain.lock, self._wait_s):
            self._log.release(for_good=for_good)
        # Forked children end without a flush, so their journals are adopted here. The limit is for folders with many.
        self._adoption.look(at_once=True, most_s=EXIT_S)
        if for_good:
            self._adoption.stop()

    def leave(self) -> None:
        """In a forked child: drop the parent's files without closing them."""
        _works.discard(self)
        spool.forget(self)
        self._log.leave()

    def hold(self) -> None:
        """Before a fork: end the thread, because Python 3.12 warns if a process with threads forks; take the locks."""
        self._hold(FORK_WAIT_S, self._wait_s)

    def _hold(self, most_s: float, drain_s: float | None = None) -> None:
        self.drain.makes_way = True  # a fork waits for the current batch, not for all records
        self.thread.stop(most_s)
        if drain_s is not None:
            self.drain.run(drain_s)
            if self.drain.has_committed:  # settled now, so that no thread is needed after the fork
                self.drain.settle(drain_s)
        for lock in (self.drain.lock, self._log.lock):
            if not is_mine(lock):  # a signal handler may fork while its thread holds the lock
                self._held.append(lock)  # first: an exception right after `acquire` leads to a release all the same
                lock.acquire(timeout=most_s)

    def let_go(self) -> None:
        """After a fork, in the parent: release the locks."""
        self.drain.makes_way = False
        while self._held:
            if is_mine(self._held[-1]):
                self._held[-1].release()
            self._held.pop()
        if self.drain.journaled:  # else the next record starts it: Python 3.12 warns of a fork that leaves threads
            self.thread.start()


class ServerWork(JournalWork):
    """The work on a journal in front of a server. A fork and the end of the program hardly wait for the server.

    A connection that is in use while the process forks stays with the parent.

    Args:
        renew_lease: renews the lease of this process.
    """

    is_server = True

    def __init__(self, *parts: Any, renew_lease: Callable[[], None]) -> None:
        super().__init__(*parts)
        self._renew_lease = renew_lease
        self._is_hurried = False
        self._pause_s = self._try_s = self._lease_s = 0.0

    def flush(self, wait_s: float, patience: Patience = ENDLESS) -> bool:
        """Move everything to the storage. Retry until the time is over: an offline server may come back meanwhile."""
        deadline, pause_s = disk.monotonic() + wait_s, FIRST_PAUSE_S
        patience = Patience(answer_s=max(wait_s, LEAST_ANSWER_S))
        while not super().flush(max(deadline - disk.monotonic(), 0.0), patience):
            left_s = deadline - disk.monotonic()
            if left_s <= 0 or is_mine(self.drain.lock):  # a signal handler in the middle of a drain
                return False
            disk.sleep(min(pause_s, left_s))
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
        return True

    def hurry(self) -> None:
        """Have the thread drain the journal at once. Wait a moment for it, unless the server is slow."""
        target, deadline = self._log.sequence, disk.monotonic() + self._wait_s
        self._is_hurried = True
        self.thread.wake()
        while self.drain.last_drained < target and disk.monotonic() < deadline:
            if self._commits.progress.last_error is not None or self.drain.oldest_s > SLOW_S:
                return
            disk.sleep(0.001)

    def prepare(self) -> None:
        """Create the next segment in advance, because a segment was begun. First drain if `hurry` was called."""
        self._drain_if_hurried()
        super().prepare()

    def _drain_if_hurried(self) -> None:
        if self._is_hurried:
            self._is_hurried = False
            self.drain.run(self._wait_s)

    def flush_at_end(self, wait_s: float) -> None:
        """Try once to move everything to the storage. The journal stays, and another process can adopt it."""
        super().flush(wait_s, Patience(answer_s=wait_s))

    def tick(self, ticks: Ticks) -> bool:
        """Do the due work. Return True if the thread may end. The pauses between attempts at a failing server grow."""
        if disk.monotonic() < self._try_s:
            self._log.prepare()
            return False
        self._drain_if_hurried()
        is_over = super().tick(ticks)
        is_away = self._commits.progress.last_error is not None
        self._pause_s = min(2 * self._pause_s or FIRST_PAUSE_S, MAX_PAUSE_S) if is_away else 0.0
        self._try_s = disk.monotonic() + self._pause_s
        self._note_age()
        if not is_away and self.drain.last_drained and disk.monotonic() >= self._lease_s:
            self._lease_s = disk.monotonic() + self._tuning.lease_s / writers.RENEWALS
            try:
                self._renew_lease()
            except AgentspanError:  # it went away meanwhile, or this role may not write notes
                self._lease_s = disk.monotonic() + LEASE_RETRY_S
        return is_over

    def _note_age(self) -> None:
        """Begin to drop new transitions if the server has failed for too long; end it when it works again."""
        away_s = self._tuning.server_away_s
        was_too_old, self.overflow.is_too_old = self.overflow.is_too_old, self.drain.oldest_s > away_s
        if self.overflow.is_too_old and not was_too_old:
            self.overflow.begin(f"nothing could be moved to the storage for {away_s:,.0f} s")

    def release(self, *, for_good: bool = False) -> None:
        """End the thread and close the files. If the server fails, do not adopt the journals of dead programs."""
        if self._commits.progress.last_error is not None:
            self._adoption.stop()
        super().release(for_good=for_good)

    def hold(self) -> None:
        """Before a fork: end the thread, and take the locks, waiting only a moment for each."""
        self._hold(SERVER_FORK_WAIT_S)


_works: weakref.WeakSet[JournalWork] = weakref.WeakSet()
host.hold_each(Hold.THREADS, _works, lambda work: work.hold(), lambda work: work.let_go())
