"""The work on a journal besides appending: drain it, look for terminations, adopt journals of dead programs, fork.

Runs that were terminated elsewhere are looked up in the drain thread, and told when they record next. The span types
are kept beside the journal, for whoever recovers it: some runs were registered without one of them. A journal to which
no record can be appended, because the disk is full or the storage takes nothing, is overflowing.
"""

import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentspan import forks
from agentspan.errors import AgentspanError, StorageError
from agentspan.forks import Hold
from agentspan.interrupts import guard
from agentspan.journal import spool, writers
from agentspan.journal.log import Log
from agentspan.journal.spool import bytes_of_others, keep_types, removal_told
from agentspan.locks import Occupied, is_mine, within
from agentspan.recording.sinks.commit import CommitSink
from agentspan.recording.sinks.drain import Drain, DrainThread, Ticks
from agentspan.recording.sinks.protocol import RunListener
from agentspan.storage.patience import answers_within
from agentspan.storage.protocol import BesideJournals
from agentspan.tuning import STANDARD, Tuning

if TYPE_CHECKING:
    from agentspan.journal.adopting import Adoption


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


class TypesFile:
    """The file of one journal.

    Args:
        folder: of the journal.
        writer_id: returns the id of this process.
        late_types: returns all span types as JSON text, if a run of this process is registered without one of them.

    Attributes:
        is_due: whether the file has to be written before the next record.
    """

    def __init__(self, folder: Path, writer_id: Callable[[], str], late_types: Callable[[], str | None]) -> None:
        self.is_due = False
        self._folder = folder
        self._writer_id = writer_id
        self._late_types = late_types

    def write(self) -> None:
        """Write the file, if there is a late type."""
        self.is_due = False
        written: str | None = None
        with guard(OSError):  # a full disk: what a killed program leaves is read without them
            while (types := self._late_types()) not in (None, written):  # another thread may have written newer ones
                keep_types(self._folder, self._writer_id(), types)
                written = types


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


LOOK_EVERY_S = 1.0
"""Seconds between two counts of the segments of other programs, while records wait."""
BURST = 100
"""Records within a tick that make a burst."""
SETTLE_S = 1.0
"""Seconds between two looks whether what was committed is found, where nothing is to be synced."""
PATIENCE_S = 3.0
"""How long the thread lets a burst pass: 300,000 spans, if there is room for them."""
FORK_WAIT_S = 5.0
SERVER_FORK_WAIT_S = 0.25
FIRST_PAUSE_S, MAX_PAUSE_S = 0.05, 1.0
"""Seconds until a server that is away is tried again, at first and at most."""
LEAST_ANSWER_S = 1.0
"""Seconds that a flush with less time waits for an answer: to give up a connection each time would keep a slow server
busy."""
SLOW_S = 0.5
"""Seconds that records may wait until nobody waits for them: a connection is made, or the server does not answer."""
LEASE_RETRY_S = 30.0
EXIT_S = 1.0
"""How long the end of a program may take over the journals of dead programs."""


class JournalWork:
    """The work on one journal. The thread of the journal, a reader in this process, or a fork calls it.

    Args:
        name: of the storage, for messages.
        folder: of the journal.
        log: what records are appended to.
        commits: writes to the storage.
        runs: looks after the runs of this process.
        adoption: adopts the journals that dead programs have left.
        types: the file of late span types.
        journals: the file; None for a server.
        tuning: sizes and times.

    Attributes:
        is_server: whether the storage is none of this host.
        drain: moves records to the storage.
        thread: drains.
        overflow: whether no record can be appended.
        terminations: of runs that have not been told.
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
        self._removal_told = removal_told(folder)
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
        while drained < self.drain.last_drained < target:  # however much there is, as long as it gets less
            drained = self.drain.last_drained
            if self.drain.run(wait_s):
                break
        if self._commits.backlog.units:
            self._commits.flush(wait_s)

    @property
    def bytes(self) -> int:
        """The bytes of full segments in the folder: those of this process, and all of others."""
        return self._log.full_bytes + self._bytes_of_others

    @property
    def is_full(self) -> bool:
        """True if nothing more may be appended. Records of others count only where the storage takes nothing."""
        takes_nothing, limit = self._commits.progress.last_error is not None, self._tuning.journal_limit_bytes
        return self._log.full_bytes >= limit or (takes_nothing and self.bytes >= limit)

    def _look_at_others(self) -> None:
        """Count what other programs have in the folder, if it is time."""
        now = time.monotonic()
        if now >= self._next_look_s:
            self._next_look_s = now + LOOK_EVERY_S
            self._bytes_of_others = bytes_of_others(self.folder, self._log.writer_id())
            self._log.alert = self._log.alert or self.is_full

    def has_records(self) -> bool:
        """Return whether records are in the journal that are not in the storage."""
        return bool(self.drain.journaled) or self.drain.has_given

    def is_needed(self) -> bool:
        """Return whether there are such records, or runs that will add some."""
        return self.has_records() or self._runs.has_runs()

    def prepare(self) -> None:
        """Make the next segment: one was begun."""
        self._log.prepare()

    def tick(self, ticks: Ticks) -> bool:
        """Do what is due; return whether the thread may end."""
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
        self._adoption.look()
        self._log.look_after_files()
        return False

    def _settle(self) -> None:
        """Let records go that are in the storage for good, if it is time; have the others on this disk."""
        now = time.monotonic()
        if now >= self._next_settle_s:
            self._next_settle_s = now + self._settle_every_s
            self.drain.settle(self._wait_s, keeps_latest=True)
            told = removal_told(self.folder)
            if told != self._removal_told:
                self._removal_told = told
                self._log.begin_anew()

    def _rest(self) -> bool:
        """Do what is due where nothing was recorded for a second; return whether the thread may end."""
        self._log.alert = True  # the next record wakes the thread
        self.terminations.look()
        if self.drain.has_given:
            self.drain.settle(self._wait_s)
        if self._runs.has_runs() or self.drain.has_given:
            return False
        self._log.rest()
        return True

    def _lets_pass(self, ticks: Ticks) -> bool:
        """Return whether to drain later: there is a burst, and room for it."""
        tuning = self._tuning
        has_room = self._log.full_bytes < tuning.journal_calls_drain_bytes // 2
        return 0 < ticks.burst * tuning.drain_tick_s < PATIENCE_S and has_room

    def hurry(self) -> None:
        """Move what is in the journal to the storage, if that takes but a moment and the storage took the last."""
        if self._commits.progress.last_error is None:
            self.drain.run(self._wait_s)

    def flush(self, wait_s: float) -> bool:
        """Move all records to the storage, and then what waits in memory; return whether that is all."""
        deadline = time.monotonic() + wait_s
        is_drained = self.drain.run(wait_s)
        while not is_drained and self.drain.makes_way and time.monotonic() < deadline:  # it made way for a fork
            is_drained = self.drain.run(deadline - time.monotonic())
        self._commits.progress.deferred.raise_kept()
        return is_drained and self._commits.flush(wait_s) and self.drain.settle(wait_s)

    def flush_at_end(self, wait_s: float) -> None:
        """Do the same while the program ends."""
        self.flush(wait_s)

    def release(self, *, for_good: bool) -> None:
        """End the thread, close files. A segment that has records stays, for good or until more are appended."""
        self.thread.stop(self._wait_s)  # it may be making a segment; the next record starts it again
        with suppress(Occupied), within(self.drain.lock, self._wait_s):
            self._log.release(for_good=for_good)
        # Forked children end without a flush. Others may have left many journals, which this program does not wait for.
        self._adoption.look(at_once=True, most_s=EXIT_S)
        if for_good:
            self._adoption.stop()

    def leave(self) -> None:
        """In a forked child: drop the parent's files without closing them."""
        _works.discard(self)
        spool.forget(self)
        self._log.leave()

    def hold(self) -> None:
        """Before a fork: end the thread (Python 3.12 warns of one), and take the locks."""
        self._hold(FORK_WAIT_S, self._wait_s)

    def _hold(self, most_s: float, drain_s: float | None = None) -> None:
        self.drain.makes_way = True  # a fork waits for the batch under way, not for all that there is
        self.thread.stop(most_s)
        if drain_s is not None:
            self.drain.run(drain_s)
            if self.drain.has_given:  # so that no thread is needed after the fork
                self.drain.settle(drain_s)
        for lock in (self.drain.lock, self._log.lock):
            if not is_mine(lock):  # else a signal handler forks in the middle of what its thread does
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
    """The work on a journal in front of a server. A fork, and the end of the program, wait for it as little as may be.

    A connection that is in use while the process forks is left to the parent (see storage.opened_later).

    Args:
        renew_lease: renews the lease of this process.
    """

    is_server = True

    def __init__(self, *parts: Any, renew_lease: Callable[[], None]) -> None:
        super().__init__(*parts)
        self._renew_lease = renew_lease
        self._is_hurried = False
        self._pause_s = self._try_s = self._lease_s = 0.0

    def drain_now(self) -> None:
        """Move the records of the journal to the storage."""
        with answers_within(self._tuning.server_answer_s):
            super().drain_now()

    def flush(self, wait_s: float) -> bool:
        """Do it again until the time is over: a server that was away may be back, and has new connections then."""
        deadline, pause_s = time.monotonic() + wait_s, FIRST_PAUSE_S
        with answers_within(min(max(wait_s, LEAST_ANSWER_S), self._tuning.server_answer_s)):
            while not super().flush(max(deadline - time.monotonic(), 0.0)):
                left_s = deadline - time.monotonic()
                if left_s <= 0 or is_mine(self.drain.lock):  # a signal handler in the middle of a drain
                    return False
                time.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, MAX_PAUSE_S)
        return True

    def hurry(self) -> None:
        """Let the thread move at once what is in the journal; wait for that a moment, unless the server is slow."""
        target, deadline = self._log.sequence, time.monotonic() + self._wait_s
        self._is_hurried = True
        self.thread.wake()
        while self.drain.last_drained < target and time.monotonic() < deadline:
            if self._commits.progress.last_error is not None or self.drain.oldest_s > SLOW_S:
                return
            time.sleep(0.001)

    def prepare(self) -> None:
        """Make the next segment: one was begun."""
        self._drain_if_hurried()
        super().prepare()

    def _drain_if_hurried(self) -> None:
        if self._is_hurried:
            self._is_hurried = False
            with answers_within(self._tuning.server_answer_s):
                self.drain.run(self._wait_s)

    def flush_at_end(self, wait_s: float) -> None:
        """Do it once: the journal stays for others."""
        with answers_within(wait_s):
            super().flush(wait_s)

    def tick(self, ticks: Ticks) -> bool:
        """Do what is due; return whether the thread may end. A server that is away is tried later and later."""
        with answers_within(self._tuning.server_answer_s):
            return self._tick(ticks)

    def _tick(self, ticks: Ticks) -> bool:
        if time.monotonic() < self._try_s:
            self._log.prepare()
            return False
        self._drain_if_hurried()
        is_over = super().tick(ticks)
        is_away = self._commits.progress.last_error is not None
        self._pause_s = min(2 * self._pause_s or FIRST_PAUSE_S, MAX_PAUSE_S) if is_away else 0.0
        self._try_s = time.monotonic() + self._pause_s
        self._note_age()
        if not is_away and self.drain.last_drained and time.monotonic() >= self._lease_s:
            self._lease_s = time.monotonic() + self._tuning.lease_s / writers.RENEWALS
            try:
                self._renew_lease()
            except AgentspanError:  # it went away meanwhile, or this role may not write notes
                self._lease_s = time.monotonic() + LEASE_RETRY_S
        return is_over

    def _note_age(self) -> None:
        """Begin, or end, to drop what is new: the server has taken nothing for too long."""
        away_s = self._tuning.server_away_s
        was_too_old, self.overflow.is_too_old = self.overflow.is_too_old, self.drain.oldest_s > away_s
        if self.overflow.is_too_old and not was_too_old:
            self.overflow.begin(f"nothing could be moved to the storage for {away_s:,.0f} s")

    def release(self, *, for_good: bool) -> None:
        """Close the files. The journals of dead programs are left to others where the server does not answer."""
        if self._commits.progress.last_error is not None:
            self._adoption.stop()
        super().release(for_good=for_good)

    def hold(self) -> None:
        """Before a fork: end the thread, and take the locks if they are free soon."""
        self._hold(SERVER_FORK_WAIT_S)


_works: weakref.WeakSet[JournalWork] = weakref.WeakSet()
_holding: list[JournalWork] = []


def _hold_all() -> None:
    for interrupted in list(_holding):
        interrupted.hold()
    while fresh := [each for each in forks.members(_works) if each not in _holding]:  # some may be made meanwhile
        for work in fresh:
            _holding.append(work)
            work.hold()


def _let_go_of_all() -> None:
    while _holding:
        _holding[-1].let_go()
        _holding.pop()


forks.hold(Hold.THREADS, _hold_all, _let_go_of_all)
forks.forget(_holding.clear)
