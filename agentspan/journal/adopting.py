"""Adopts the journals of dead programs: before a storage is read, and while other programs record into it.

A run whose registration was damaged in a journal is registered again, so that the damage loses the name of the run and
not its spans.
"""

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import groupby, takewhile
from pathlib import Path

from agentspan import clock, disk, files, ids
from agentspan.errors import NotFound, StorageError
from agentspan.host import guard, log
from agentspan.ids import IdSource
from agentspan.journal.committer import Committer, Listener
from agentspan.journal.deriving import outdated
from agentspan.journal.names import StoredSpanTypes, run_of
from agentspan.journal.records import HISTORY, Elements, Gap, Record, read
from agentspan.journal.segments import START, Left, is_left, take_over
from agentspan.journal.spool import LOOK_EVERY_S, segments, tidy, types_of, writer_of
from agentspan.model import registration
from agentspan.model.changes import Applied, Put, Unit, unit_of
from agentspan.model.registration import DEFAULT, Registration, VersionFields, fields_of
from agentspan.model.rows import AgentRow, WriterRow
from agentspan.schemas.span_types import Registry, SpanType, from_schemas
from agentspan.storage.access import references, unique
from agentspan.storage.protocol import BesideJournals, FileReplaced, Storage
from agentspan.storage.questions import Account, Find
from agentspan.text import noun, size_text
from agentspan.tuning import STANDARD, Tuning

ATTEMPTS = 20


class LostRegistrations(Listener):
    """Registers the runs of one writer again, under the name of its program, if their registrations were damaged.

    Args:
        writer_id: the writer whose journal is recovered.
        ids: mints the ids of an agent and its versions.

    Attributes:
        is_damaged: whether a part of the journal was damaged. If not, a missing run was removed from the storage.
    """

    def __init__(self, storage: Storage, writer_id: str, ids: IdSource) -> None:
        self.is_damaged = False
        self._storage = storage
        self._writer_id = writer_id
        self._ids = ids

    def missing(self, storage: Storage, unit: Unit) -> Unit | None:
        """Register the run of a unit again if its registration was damaged, and return the unit; else None."""
        run_id = run_of(unit) if self.is_damaged else None
        if run_id is None or not ids.is_pfid(run_id):
            return None
        for _ in range(ATTEMPTS):
            if run_id in self._storage.ask(Find(run_id, instance_id=run_id)).rows or self._register(run_id):
                return unit
        return None

    def restore_writer(self) -> None:
        """Store a row for the writer if the record of its row was damaged: a dead process of this host.

        Raises:
            StorageError: the storage cannot store the row now.
        """
        if self.is_damaged and self._writer_id not in self._storage.ask(Find(self._writer_id)).rows:
            # A boot id that is not the current one: a process of an earlier boot counts as dead.
            row = WriterRow(self._writer_id, platform.node(), "damaged", 0, "", "unknown", clock.now())
            self._storage.apply([unit_of(Put(row, minted=True))])

    def _register(self, run_id: str) -> bool:
        located = self._storage.ask(Find(self._writer_id)).rows.get(self._writer_id)
        writer = None if located is None else located[1]
        wanted = Registration(
            run_id,
            writer.program if isinstance(writer, WriterRow) else DEFAULT,
            VersionFields(),
            fields_of(()),
            "live",
            None,
            started_at=clock.to_text(ids.decode(run_id)[0] * 1_000_000),
            writer_id=self._writer_id,
        )
        agent = unique(self._storage, AgentRow, external_identifier=wanted.agent)
        stored = references(self._storage, agent, wanted.version.external_identifier, wanted.schema.content_hash)
        changes = registration.register(wanted, stored, self._ids.new, clock.now())
        return isinstance(self._storage.apply([Unit(changes, run_id)])[0], Applied)


_HISTORY = HISTORY.encode()

Progress = Callable[[int, int], None]
"""A function that is called with the number of bytes read so far, and the number of all bytes."""


class Adoption:
    """Adopts the journals that dead programs left in front of one storage.

    The segments of a writer are read in order, by one process at a time: the process that has locked the first segment.
    Other processes skip this writer, or wait.

    Args:
        lend: returns a context manager with the storage, for writing.
        folder: the folder of the journals.
        tuning: sizes of batches and caches.
        report: receives the error that changes were refused; None to log it.
    """

    def __init__(
        self,
        lend: Callable[[], AbstractContextManager[Storage]],
        folder: Path,
        *,
        tuning: Tuning = STANDARD,
        report: Callable[[Exception], None] | None = None,
    ) -> None:
        self._report = report or (lambda error: log.warning("%s", error))
        self._refused = 0
        self._lend = lend
        self._folder = folder
        self._tuning = tuning
        self._next_s = 0.0
        self._busy = False
        self._stopped = False
        self._said = ""
        self._is_cut = False

    def look(self, *, at_once: bool = False, most_s: float | None = None) -> None:
        """Adopt the journals of dead programs, at most once a second. A fault is logged, and retried at the next look.

        After a long look, the next one is later, so that looks take at most a fifth of the time.

        Args:
            at_once: adopt also if the last look was less than a second ago.
            most_s: seconds after which to stop; other processes adopt the rest.
        """
        now = disk.monotonic()
        if (now < self._next_s and not at_once) or self._busy or self._stopped:
            return
        with guard(report=self._warn):
            self.adopt(most_s=most_s)
            self._said = ""
        self._next_s = now + max(LOOK_EVERY_S, 5 * (disk.monotonic() - now))

    def see(self) -> None:
        """Look before a read, for a limited time, and log what waits after that."""
        self._is_cut = False
        self.look(most_s=self._tuning.read_adopts_s)
        if self._is_cut and (sentence := left_over(*self.waiting())):
            log.warning("%s", sentence)

    def waiting(self) -> tuple[int, int]:
        """Return how many dead programs have journals that no process adopts at present, and their size in bytes."""
        writers = [[*own] for _, own in groupby(segments(self._folder), writer_of)]
        left = [own for own in writers if is_left(own[0])]
        return len(left), sum(_size_of(path) for own in left for path in own)

    def _warn(self, error: Exception) -> None:
        if str(error) != self._said and not self._stopped:  # else it is the same as a second ago
            self._said = str(error)
            log.warning("a journal in %s could not be read now: %s", self._folder, error)

    def stop(self) -> None:
        """Turn later looks off. A look in another thread ends after its current batch, without a log line."""
        self._stopped = True

    def adopt(
        self,
        progress: Progress | None = None,
        *,
        writer_id: str | None = None,
        most_s: float | None = None,
        wait_s: float = 0.0,
    ) -> int:
        """Commit all records in the journals of dead programs; return the number of records.

        Args:
            writer_id: adopt only the journal of this writer.
            most_s: seconds after which to stop; other processes adopt the rest.
            wait_s: seconds to wait for another process that adopts the journal of the same writer.

        Raises:
            StorageError: the storage cannot commit now; no record is lost.
        """
        paths = [path for path in segments(self._folder) if writer_id is None or writer_of(path) == writer_id]
        if self._busy:
            return 0
        if not paths:
            tidy(self._folder)
            return 0
        self._busy = True  # a read during the adoption must not begin another adoption
        try:
            with ExitStack() as stack:
                records = self._adopt(paths, stack, progress or _unheard, most_s, wait_s)
            tidy(self._folder)
        finally:
            self._busy = False
            refused, self._refused = self._refused, 0
            if refused:
                sentence = f"{noun(refused, 'change')} of dead programs came too late, or their run is not stored"
                self._report(StorageError(f"{sentence}; `agentspan doctor` lists them"))
        return records

    def is_adopted(self, writer_id: str) -> bool:
        """Return whether all records of a dead writer are in the storage."""
        return all(writer_of(path) != writer_id for path in segments(self._folder))

    def _adopt(
        self,
        paths: list[Path],
        stack: ExitStack,
        progress: Progress,
        most_s: float | None,
        wait_s: float,
    ) -> int:
        storage: Storage | None = None
        until = float("inf") if most_s is None else disk.monotonic() + most_s
        records, before, size = 0, 0, sum(map(_size_of, paths))
        for writer_id, own in groupby(paths, writer_of):
            committer: Committer | None = None
            lost: LostRegistrations | None = None
            for path in own:
                if records and (self._stopped or disk.monotonic() > until):
                    self._is_cut = True
                    return records
                left = _taken(path, wait_s)
                if left is None and disk.exists(path):
                    break  # the owner is alive, or another process adopts the segment: later segments must wait
                if left is None:
                    continue
                with left:
                    storage = storage or stack.enter_context(self._lend())
                    journals = storage.capabilities().journals
                    if committer is None or lost is None:
                        ids = IdSource(storage.ask(Account()).partition)
                        lost = LostRegistrations(storage, writer_id, ids)
                        committer = self._committer(storage, writer_id, ids, lost)
                    is_over = lambda: self._stopped or disk.monotonic() > until  # noqa: E731
                    taking = _Taking(committer, lost, left, is_over, journals, self._tuning)
                    is_whole = taking.take(lambda done, before=before: progress(before + done, size))  # type: ignore[misc]
                    records += taking.records
                    self._refused += taking.refused
                    if not is_whole:
                        self._is_cut = True
                        return records
                before += len(left.data)
        return records

    def _committer(self, storage: Storage, writer_id: str, ids: IdSource, listener: Listener) -> Committer:
        tuning = self._tuning
        kept, stored, unknown = types_of(self._folder, writer_id), StoredSpanTypes(tuning.cached_runs), Registry()
        types = None if kept is None else from_schemas(kept)

        def resolve(instance_id: str, schema_name: str) -> SpanType:
            if types is not None:
                return types.resolve(schema_name)
            try:
                return stored.of(storage, instance_id).resolve(schema_name)
            except NotFound:  # its file was replaced
                return unknown.resolve(schema_name)

        return Committer(
            storage,
            lambda: writer_id,
            ids,
            resolve=resolve,
            stored_span_types=stored,
            listener=listener,
            tuning=tuning,
        )


def left_over(journals: int, size: int) -> str:
    """Return a sentence about journals of dead programs that wait; "" if there are none."""
    those = f"{noun(journals, 'journal')} of dead programs ({size_text(size)})"
    return f"{those} could not be recovered in time; `agentspan doctor` recovers more of them" if journals else ""


def _taken(path: Path, wait_s: float) -> Left | None:
    """Lock a segment of a dead writer, and wait up to `wait_s` for its lock; None if it cannot be locked."""
    left, slept = take_over(path), 0.0
    while left is None and slept < wait_s and disk.exists(path):
        disk.sleep(0.01)
        slept += 0.01
        left = take_over(path)
    return left


class _Taking:
    """The adoption of one segment.

    Args:
        lost: registers runs whose registration was damaged.
        is_over: returns whether to stop; other processes adopt the rest.
        journals: the file that receives the records; None if each commit is on the disk at once.
        tuning: sizes of batches.

    Attributes:
        records: the number of records that were committed, or stored in refused_changes.
        refused: the number of those in refused_changes.
    """

    def __init__(
        self,
        committer: Committer,
        lost: LostRegistrations,
        left: Left,
        is_over: Callable[[], bool],
        journals: BesideJournals | None,
        tuning: Tuning,
    ) -> None:
        self._journals = journals
        self._files = 0 if journals is None else journals.files
        self._committer = committer
        self._lost = lost
        self._left = left
        self.records = self.refused = 0
        self._is_over = is_over
        self._tuning = tuning

    def take(self, progress: Callable[[int], None]) -> bool:
        """Commit the records of the segment, and delete it; return False if the time was over before the end."""
        left = self._left
        found = [] if left.is_blank else list(read(left.data, left.start, after=left.after))
        self._report([each for each in found if isinstance(each, Gap)])
        records = [each for each in found if isinstance(each, Record)]
        passed_over = outdated([each.body for each in records])
        elements = self._elements_before(are_needed=any(each.body[:1] == _HISTORY for each in records))
        for start, batch in self._batches(records):
            if start and self._is_over():
                self._settle()
                left.trim(records[start - 1].end, records[start].sequence)
                return False
            bodies = [each.body for number, each in enumerate(batch, start) if number not in passed_over]
            tally = self._committer.commit(self._committer.begin(bodies, elements))
            self.refused += tally.refused + tally.failed
            self.records += len(batch)
            if self._journals is None:
                left.trim(batch[-1].end, batch[-1].sequence + 1)
            progress(batch[-1].end)
        self._lost.restore_writer()
        if records:
            self._settle()
        left.remove()
        return True

    def _settle(self) -> None:
        """Flush the committed records to the disk before they are removed from the journal.

        Raises:
            StorageError: the flush failed, or the path has another file now. All records are committed again later.
        """
        journals = self._journals
        if journals is None:
            return
        if self._tuning.sync_every_s is not None:
            with guard(OSError, report=_unsynced):
                journals.sync()
        journals.has(self._committer.newest)
        if journals.files != self._files:
            raise FileReplaced("the file was deleted or replaced while a journal was recovered; it is recovered again")

    def _batches(self, records: Sequence[Record]) -> Iterator[tuple[int, Sequence[Record]]]:
        """Yield the records in batches for one commit each, with the index of the batch's first record."""
        most, most_bytes = self._tuning.recovery_batch_records, self._tuning.recovery_batch_bytes
        start = size = 0
        for number, record in enumerate(records):
            more = len(record.body)
            if number > start and (number - start == most or size + more > most_bytes):
                yield start, records[start:number]
                start, size = number, 0
            size += more
        if start < len(records):
            yield start, records[start:]

    def _elements_before(self, *, are_needed: bool) -> Elements:
        """Return the list elements in records that are in the storage already, because later records refer to them."""
        elements, left = self._committer.new_elements(), self._left
        if are_needed and left.start > START:
            before = takewhile(lambda each: each.end <= left.start, read(left.data, START))
            elements.note_stored(each.body for each in before if isinstance(each, Record))
        return elements

    def _report(self, gaps: list[Gap]) -> None:
        name = self._left.path.name
        damage = [] if self._left.damaged is None else [f"{name}: {self._left.damaged}"]
        damage += [f"{name}: {_described(gap)}" for gap in gaps]
        self._lost.is_damaged = self._lost.is_damaged or bool(damage)
        for sentence in damage:
            log.warning("journal: %s", sentence)
            self._committer.note(name, "damaged", {"said": sentence})


def _unsynced(error: Exception) -> None:
    raise StorageError(f"what was recovered may not be on the disk, which does not take it: {error}") from error


def _unheard(done: int, size: int) -> None:
    """Ignore progress."""


def _size_of(path: Path) -> int:
    found = files.stat_of(path)  # none where somebody else was faster
    return 0 if found is None else found.st_size


def _described(gap: Gap) -> str:
    if gap.missing is None:
        return f"damaged from byte {gap.start} on; what follows could not be read"
    records = "1 record is" if gap.missing == 1 else f"{gap.missing} records are"
    return f"{records} missing at byte {gap.start}, damaged"
