"""A sink that appends to a journal: a call costs 2 µs, and its record outlives the process.

A thread, which starts with the first record and ends when there are none, drains the journal every 20 ms. It lets a
burst pass, for up to three seconds: two threads that compute take turns of 5 ms. Where it falls behind, the disk grows;
from a bound on, the calls that record do a part of its work. Where no segment can be made, because the disk is full,
the sink commits instead.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentspan.interrupts import guard
from agentspan.journal.committer import Committer, Listener
from agentspan.journal.log import Log
from agentspan.journal.names import names_rows, spans_of
from agentspan.journal.parts import Parts, encode
from agentspan.journal.records import encode_registration, encode_unit
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow
from agentspan.recording.sinks import commit
from agentspan.recording.sinks.commit import CommitSink
from agentspan.recording.sinks.journal_work import JournalWork, ServerWork, TypesFile
from agentspan.recording.sinks.protocol import Counts, RunListener, SpanFacts
from agentspan.storage.protocol import Storage
from agentspan.tuning import STANDARD, Tuning

if TYPE_CHECKING:
    from agentspan.journal.adopting import Adoption

PORTION = 64 * 1024
"""Bytes that a call which records drains where the journal has grown too long: 1.5 ms."""
MOST_BEFORE_A_RUN = 2000
"""Records that may wait when a run begins; else its call drains a portion. Threads that only begin runs append faster
than is drained: without this, forks and reads, which wait for the drain, took a second each."""


class Surroundings(NamedTuple):
    """The parts of a recorder that its journal needs.

    Attributes:
        name: of the storage, for messages.
        folder: of the journal.
        writer_id: returns the id of this process.
        committer: makes a Committer for records.
        adoption: adopts the journals that dead programs have left.
        late_types: returns all span types, as a schema version has them, if some run of this process is registered
            without one of them.
        renew_lease: renews the lease of this process (see recovery.leases). None where the storage is a file of this
            host; else no call that records waits for it.
    """

    name: str
    folder: Path
    writer_id: Callable[[], str]
    committer: Callable[[Listener], Committer]
    adoption: "Adoption"
    late_types: Callable[[], str | None]
    renew_lease: Callable[[], None] | None


class JournalSink:
    """Appends each transition to a journal; see Sink.

    Args:
        storage: what the journal is drained to.
        listener: receives faults and outcomes, and looks after the runs of this process.
        tuning: sizes and times.

    Attributes:
        log: what records are appended to.
        commits: writes to the storage directly, where no record can be appended.
        work: drains the log.
    """

    def __init__(
        self, storage: Storage, listener: RunListener, surroundings: Surroundings, tuning: Tuning = STANDARD
    ) -> None:
        name, folder, writer_id, committer, adoption, late_types, renew_lease = surroundings
        self._is_server = renew_lease is not None
        self._wait_s, self._calls_drain_bytes = tuning.recording_wait_s, tuning.journal_calls_drain_bytes
        self.log = log = Log(folder, writer_id, tuning.journal_segment_bytes, growth=tuning.journal_segment_growth)
        self.commits = CommitSink(
            storage,
            committer,
            listener,
            before_keep=self._before_keep,
            put_aside=self.put_aside,
            tuning=tuning,
        )
        self._types = TypesFile(folder, writer_id, late_types)
        journals = None if self._is_server else storage.capabilities().journals
        parts = name, folder, log, self.commits, listener, adoption, self._types, journals, tuning
        self.work = JournalWork(*parts) if renew_lease is None else ServerWork(*parts, renew_lease=renew_lease)
        self._listener = listener
        self._terminations = self.work.terminations
        self._thread = self.work.thread
        self._drain = self.work.drain
        self._overflow = self.work.overflow
        self._begun = 0
        self._contents: set[tuple[int, str]] = set()  # of schema versions that a segment has, with its epoch

    def counts(self) -> Counts:
        """Return the state of the journal and of the storage behind it."""
        counts, journaled = self.commits.counts(), self._drain.journaled
        return counts._replace(
            recorded=counts.recorded + journaled,
            journaled=journaled,
            spooled_bytes=self.log.undrained_bytes,
            oldest_s=max(self._drain.oldest_s, counts.oldest_s),
        )

    def count_recorded(self) -> None:
        """Count a transition that the caller has committed itself."""
        self.commits.count_recorded()

    def created(self, span: SpanFacts, at_ns: int) -> None:
        """Append a new span."""
        if self._terminations.found:
            self._terminations.pass_on()
        instance: AgentInstanceRow = span.run.registered_row  # type: ignore[assignment]  # the run is recorded
        payload = span.payload
        if type(payload) is Parts:
            if self._append_in_parts(span, payload, at_ns):
                return
            payload = span.payload_text()
        # Records are written out here (see events), and appended without a method between: 0.3 µs less.
        body = (
            f"C\x1f{span.id}\x1f{instance.id}\x1f{instance.agent_id}\x1f{span.parent_span_id or ''}"
            f"\x1f{span.schema_name}\x1f{span.status}\x1f{at_ns}\x1f{payload}"
        ).encode()
        log = self.log
        if log.alert or not log.append(body):
            if not self._append(body):
                self._commit(commit.created(span, at_ns))
        elif log.alert:  # perhaps the thread ended, and did not see this one
            self._is_ready()

    def created_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int) -> None:
        """Append the text of a new span, which is read when it is drained."""
        if self._terminations.found:
            self._terminations.pass_on()
        instance: AgentInstanceRow = span.run.registered_row  # type: ignore[assignment]  # the run is recorded
        body = (
            f"N\x1f{span.id}\x1f{instance.id}\x1f{instance.agent_id}\x1f{span.parent_span_id or ''}"
            f"\x1f{at_ns}\x1f{reader}\x1f{text}"
        ).encode()
        log = self.log
        if log.alert or not log.append(body):
            if not self._append(body):
                self._commit(commit.created_raw(span, reader, text, at_ns))
        elif log.alert:
            self._is_ready()

    def started(self, span: SpanFacts) -> None:
        """Append that a pending span became active."""
        if not self._append(f"S\x1f{span.id}\x1f{span.started_ns}".encode()):
            self._commit(commit.started(span))

    def updated(self, span: SpanFacts, at_ns: int) -> None:
        """Append the changed payload of an open span."""
        if not self._append(f"U\x1f{span.id}\x1f{at_ns}\x1f{span.payload_text()}".encode()):
            self._commit(commit.updated(span, at_ns))

    def finished(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """Append the end of a span."""
        body = f"F\x1f{span.id}\x1f{span.status}\x1f{at_ns}\x1f{elapsed_ns}\x1f{result or ''}".encode()
        log = self.log
        if log.alert or not log.append(body):
            if not self._append(body):
                self._commit(commit.finished(span, result, at_ns, elapsed_ns))
        elif log.alert:
            self._is_ready()

    def finished_as(self, span: SpanFacts, result: str | None, at_ns: int, elapsed_ns: int) -> None:
        """Append the end of a span, with the type and the payload that were learnt then."""
        end = f"{span.status}\x1f{at_ns}\x1f{elapsed_ns}\x1f{result or ''}"
        if not self._append(f"T\x1f{span.id}\x1f{end}\x1f{span.schema_name}\x1f{span.payload_text()}".encode()):
            self._commit(commit.finished_as(span, result, at_ns, elapsed_ns))

    def finished_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int, elapsed_ns: int) -> None:
        """Append the text of the end of a span, which is read when it is drained."""
        body = f"W\x1f{span.id}\x1f{at_ns}\x1f{elapsed_ns}\x1f{reader}\x1f{text}".encode()
        log = self.log
        if log.alert or not log.append(body):
            if not self._append(body):
                self._commit(commit.finished_raw(span, reader, text, at_ns, elapsed_ns))
        elif log.alert:
            self._is_ready()

    def register(self, unit: Unit) -> None:
        """Append a unit that registers or renames a run.

        The first registration in a segment has the content of its schema version, which is long.
        """
        (content,) = [
            change.row.content_hash
            for change in unit.changes
            if isinstance(change, Put) and isinstance(change.row, AgentSchemaVersionRow)
        ]
        epoch = self.log.epoch
        is_there = (epoch, content) in self._contents
        if not self._append(encode_registration(unit, with_content=not is_there).encode()):
            self._register_without_record(unit)
        elif not is_there and epoch == self.log.epoch:
            self._contents = {each for each in self._contents if each[0] == epoch} | {(epoch, content)}
        progress = self.commits.progress
        keeps_up = self._is_server or self._drain.journaled <= MOST_BEFORE_A_RUN
        if not keeps_up and progress.last_error is None and progress.may_try():
            self._drain.run(self._wait_s, most=PORTION)

    def _register_without_record(self, unit: Unit) -> None:
        """Register a run whose record cannot be appended."""
        if self._drops():  # else a run whose end is dropped would stay open; one that goes on is registered again
            return
        if self._is_server or self._drain.journaled:
            self.commits.backlog.keep(unit)
        else:
            self.commits.register(unit)

    def restate(self, unit: Unit) -> None:
        """Append a unit that is no transition of this process."""
        encode = partial(encode_registration, with_content=True) if names_rows(unit) else encode_unit
        if self._append(encode(unit).encode()):
            with self.commits.progress.lock:
                self.commits.progress.recorded -= 1
        elif self._is_server or self._drain.journaled:
            self.commits.backlog.keep(unit)
        else:
            self.commits.restate(unit)

    def write(self, unit: Unit) -> None:
        """Append a unit that concerns something else than a span."""
        if not self._append(encode_unit(unit).encode()):
            self._commit(unit)

    def put_aside(self, unit: Unit, error: Exception) -> None:
        """Append a unit that the storage could not take."""
        if self._append(encode_unit(unit).encode()):
            self.commits.progress.storage_failed(error)
            self._listener.fault(error)
        else:
            self.commits.put_aside(unit, error)

    def hurry(self) -> None:
        """Drain the journal, if that takes but a moment."""
        self.work.hurry()

    def watch(self) -> None:
        """Have the thread look for terminations, so that no call that records touches the storage."""
        if self._thread.running is None:
            self._thread.start()

    def flush(self, wait_s: float) -> bool:
        """Drain the journal; return whether nothing waits any more."""
        return self.work.flush(wait_s)

    def flush_at_end(self, wait_s: float) -> None:
        """Drain the journal while the program ends."""
        self.work.flush_at_end(wait_s)

    def release(self, *, for_good: bool = False) -> None:
        """Close the files. A segment that has records stays, for good or until more are appended."""
        self.work.release(for_good=for_good)

    def leave(self) -> None:
        """In a forked child: drop the parent's files and threads without closing them."""
        self.work.leave()

    def _append(self, body: bytes) -> bool:
        """Append a record; return whether that was possible, in order."""
        if self.log.alert and not self._is_ready():
            return False
        if self.log.append(body):
            if self._thread.running is None:  # it ended meanwhile, and did not see this one
                self._thread.start()
            return True
        self._overflow.begin(getattr(self.log.error, "strerror", None))
        return False

    def _append_in_parts(self, span: SpanFacts, payload: Parts, at_ns: int) -> bool:
        """Append the record of a new span that refers to what the segment has; return whether that was possible."""
        instance: AgentInstanceRow = span.run.registered_row  # type: ignore[assignment]
        log = self.log
        head = (
            f"H\x1f{span.id}\x1f{instance.id}\x1f{instance.agent_id}\x1f{span.parent_span_id or ''}"
            f"\x1f{span.schema_name}\x1f{span.status}\x1f{at_ns}"
        )
        epoch = log.epoch
        for _ in range(2):
            if log.alert and not self._is_ready():
                return False
            encoded = encode(head, payload, epoch)
            if epoch and log.append(encoded.body, epoch):
                encoded.note()
                if log.alert or self._thread.running is None:
                    self._is_ready()
                return True
            epoch = log.begin(2 * payload.size)  # a new segment has no elements yet, and gets room for what follows
        return False

    def _is_ready(self) -> bool:
        """Do what is due before a record is appended; return whether one may be appended, in order."""
        self.log.alert = False  # first: what happens meanwhile is seen by the next one
        if self._thread.running is None:
            self._thread.start()
        else:
            self._thread.wake()  # it may wait for longer than a tick
        if self._begun != self.log.begun:
            self._begun = self.log.begun
            self._thread.wake()
            self._types.is_due = True  # it was not needed before, and may have been deleted
        if self._types.is_due:
            self._types.write()
        if self.work.is_full and not self._overflow.is_on:
            self._overflow.begin(f"it has {self.work.bytes:,} bytes already, which the storage does not take")
        elsewhere = self._overflow.keeps_order
        if self._is_server:
            self.log.alert = self.log.alert or elsewhere
            return not elsewhere
        if elsewhere or self.log.full_bytes >= self._calls_drain_bytes:
            self.log.alert = True
            with guard(report=self._thread.raised):  # about what was recorded before; this record comes first
                if elsewhere and not self._overflow.try_to_end():
                    return False
                if self.commits.progress.may_try():  # do a part of the thread's work: it does not keep up
                    self._drain.run(self._wait_s, most=PORTION)
                return True
            return not self._overflow.keeps_order
        return True

    def _drops(self) -> bool:
        """Return whether a transition is dropped, because those before it have waited for too long; count it then."""
        if self._overflow.is_too_old:
            with self.commits.progress.lock:
                self.commits.progress.failed += 1
        return self._overflow.is_too_old

    def _commit(self, unit: Unit) -> None:
        if self._drops():
            return
        # What it follows is in the journal still, or its run's agent is not known yet.
        if self._is_server or self._drain.journaled or "" in [span.agent_id for span in spans_of(unit)]:
            self.commits.backlog.keep(unit)
        else:
            self.commits.write(unit)

    def _before_keep(self) -> None:
        self.log.alert = True  # later transitions must not overtake it
