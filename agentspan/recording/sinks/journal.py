"""A sink that appends to a journal: a call costs 2 µs, and its record outlives the process.

A thread drains the journal every 20 ms. It starts with the first record, and ends when no record is left. It waits
until a burst is over, for up to three seconds, because two computing threads take turns of 5 ms. If the thread falls
behind, the journal grows; above a limit, recording calls drain a part of it. If no segment can be created, because the
disk is full, the sink commits to the storage instead.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentspan.host import guard
from agentspan.journal.committer import Committer, Listener
from agentspan.journal.log import Log
from agentspan.journal.names import names_rows, spans_of
from agentspan.journal.records import Parts, encode, encode_registration, encode_unit
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow
from agentspan.recording.sinks import commit
from agentspan.recording.sinks.commit import CommitSink
from agentspan.recording.sinks.facts import Counts, RunListener, SpanFacts
from agentspan.recording.sinks.journal_work import JournalWork, ServerWork, TypesFile
from agentspan.storage.protocol import Storage
from agentspan.tuning import STANDARD, Tuning

if TYPE_CHECKING:
    from agentspan.journal.adopting import Adoption

PORTION = 64 * 1024
"""The number of bytes that a recording call drains if the journal is too long: 1.5 ms."""
MOST_BEFORE_A_RUN = 2000
"""The number of records that may wait when a run begins; above it, the call that begins the run drains a portion.
Threads that only begin runs append faster than the drain thread drains. Without this limit, forks and reads, which wait
for the drain, took a second each."""


class Surroundings(NamedTuple):
    """The parts of a recorder that its journal needs.

    Attributes:
        name: the name of the storage, for messages.
        folder: the folder of the journal.
        writer_id: returns the writer id of this process.
        committer: makes a Committer for records.
        adoption: adopts the journals of dead programs.
        late_types: returns all span types as JSON text if a run of this process was registered before one of the types
            was; else None.
        renew_lease: renews the lease of this process (see journal.writers); None for a file on this host. If it is not
            None, the storage is a server, and no recording call waits for it.
    """

    name: str
    folder: Path
    writer_id: Callable[[], str]
    committer: Callable[[Listener], Committer]
    adoption: "Adoption"
    late_types: Callable[[], str | None]
    renew_lease: Callable[[], None] | None


class JournalSink:
    """A Sink that appends each transition to a journal.

    Args:
        storage: the storage that the journal is drained to.
        listener: receives faults and outcomes, and finds the terminated runs of this process.
        tuning: sizes and times.

    Attributes:
        log: the log that records are appended to.
        commits: commits to the storage directly while no record can be appended.
        work: drains the log. Its methods `flush`, `flush_at_end`, `hurry`, `release` and `leave` are also the sink's.
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
        self.flush, self.flush_at_end, self.hurry = self.work.flush, self.work.flush_at_end, self.work.hurry
        self.release, self.leave = self.work.release, self.work.leave
        self.count_recorded = self.commits.count_recorded
        self._listener = listener
        self._terminations = self.work.terminations
        self._thread = self.work.thread
        self._drain = self.work.drain
        self._overflow = self.work.overflow
        self._begun = 0
        self._contents: set[tuple[int, str]] = set()  # epochs of segments, with the schema contents in them

    def counts(self) -> Counts:
        """Return the state of the journal and of the storage behind it."""
        counts, journaled = self.commits.counts(), self._drain.journaled
        return counts._replace(
            recorded=counts.recorded + journaled,
            journaled=journaled,
            spooled_bytes=self.log.undrained_bytes,
            oldest_s=max(self._drain.oldest_s, counts.oldest_s),
        )

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
        # The record is formatted inline (fields: see journal.records), and appended without a helper: 0.3 µs less.
        body = (
            f"C\x1f{span.id}\x1f{instance.id}\x1f{instance.agent_id}\x1f{span.parent_span_id or ''}"
            f"\x1f{span.schema_name}\x1f{span.status}\x1f{at_ns}\x1f{payload}"
        ).encode()
        log = self.log
        if log.alert or not log.append(body):
            if not self._append(body):
                self._commit(commit.created(span, at_ns))
        elif log.alert:  # perhaps the thread has ended before it saw this record
            self._is_ready()

    def created_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int) -> None:
        """Append a new span as a raw text, which `reader` parses when the record is drained."""
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
        """Append the end of a span whose type and payload became known at its end."""
        end = f"{span.status}\x1f{at_ns}\x1f{elapsed_ns}\x1f{result or ''}"
        if not self._append(f"T\x1f{span.id}\x1f{end}\x1f{span.schema_name}\x1f{span.payload_text()}".encode()):
            self._commit(commit.finished_as(span, result, at_ns, elapsed_ns))

    def finished_raw(self, span: SpanFacts, reader: str, text: str, at_ns: int, elapsed_ns: int) -> None:
        """Append the end of a span as a raw text, which `reader` parses when the record is drained."""
        body = f"W\x1f{span.id}\x1f{at_ns}\x1f{elapsed_ns}\x1f{reader}\x1f{text}".encode()
        log = self.log
        if log.alert or not log.append(body):
            if not self._append(body):
                self._commit(commit.finished_raw(span, reader, text, at_ns, elapsed_ns))
        elif log.alert:
            self._is_ready()

    def register(self, unit: Unit) -> None:
        """Append a unit that registers or renames a run.

        Only the first registration in a segment has the content of its schema version, which is long.
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
        """Register a run whose record cannot be appended, through the backlog or a commit."""
        if self._drops():  # a run whose end is dropped would stay open; a run that goes on is registered again
            return
        if self._is_server or self._drain.journaled:
            self.commits.backlog.keep(unit)
        else:
            self.commits.register(unit)

    def restate(self, unit: Unit) -> None:
        """Append a unit that is no transition of this process, without counting it."""
        encode = partial(encode_registration, with_content=True) if names_rows(unit) else encode_unit
        if self._append(encode(unit).encode()):
            with self.commits.progress.lock:
                self.commits.progress.recorded -= 1
        elif self._is_server or self._drain.journaled:
            self.commits.backlog.keep(unit)
        else:
            self.commits.restate(unit)

    def write(self, unit: Unit) -> None:
        """Append any other unit: not of a span, and not the registration of a run."""
        if not self._append(encode_unit(unit).encode()):
            self._commit(unit)

    def put_aside(self, unit: Unit, error: Exception) -> None:
        """Append a unit that the storage failed to apply."""
        if self._append(encode_unit(unit).encode()):
            self.commits.progress.storage_failed(error)
            self._listener.fault(error)
        else:
            self.commits.put_aside(unit, error)

    def watch(self) -> None:
        """Start the drain thread, which checks for terminated runs, so that no recording call reads the storage."""
        if self._thread.running is None:
            self._thread.start()

    def _append(self, body: bytes) -> bool:
        """Append a record behind all earlier transitions. Return False if that is not possible."""
        if self.log.alert and not self._is_ready():
            return False
        if self.log.append(body):
            if self._thread.running is None:  # the thread has ended before it saw this record
                self._thread.start()
            return True
        self._overflow.begin(getattr(self.log.error, "strerror", None))
        return False

    def _append_in_parts(self, span: SpanFacts, payload: Parts, at_ns: int) -> bool:
        """Append the record of a new span that refers to list elements in the segment. Return False if not possible."""
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
            epoch = log.begin(2 * payload.size)  # a new segment has no elements yet, and needs space for later records
        return False

    def _is_ready(self) -> bool:
        """Do the due checks before a record is appended. Return False if earlier transitions are not in the log."""
        self.log.alert = False  # first: the next record then finds an alert that is set meanwhile
        if self._thread.running is None:
            self._thread.start()
        else:
            self._thread.wake()  # a quiet thread waits longer than a tick
        if self._begun != self.log.begun:
            self._begun = self.log.begun
            self._thread.wake()
            self._types.is_due = True  # without a segment the file is not needed, and may have been deleted
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
                if self.commits.progress.may_try():  # the thread does not keep up, so the call drains a portion
                    self._drain.run(self._wait_s, most=PORTION)
                return True
            return not self._overflow.keeps_order
        return True

    def _drops(self) -> bool:
        """Return whether a transition must be dropped, because earlier ones wait for too long. Count it as failed."""
        if self._overflow.is_too_old:
            with self.commits.progress.lock:
                self.commits.progress.failed += 1
        return self._overflow.is_too_old

    def _commit(self, unit: Unit) -> None:
        if self._drops():
            return
        # It must wait if earlier transitions are still in the journal, or the agent of its run is not known yet.
        if self._is_server or self._drain.journaled or "" in [span.agent_id for span in spans_of(unit)]:
            self.commits.backlog.keep(unit)
        else:
            self.commits.write(unit)

    def _before_keep(self) -> None:
        self.log.alert = True  # later transitions must not overtake the kept unit
