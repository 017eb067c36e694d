"""Copies all rows of one storage to another, of any two backends, and can follow later changes of the source; backups.

Rows are copied unchanged. A copy sends only rows that the target lacks or has in an earlier state, so it can be stopped
at any moment and repeated. It removes nothing from the target. The target keeps its own account, which identifies it.

The position of a copy is noted in the target if the target keeps notes, else in a file beside it. The note only saves
time: without it, a repeated copy compares the runs from the beginning.

A backup is a copy of the file itself, also into a pipe or device, while other processes write to it.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from agentspan import clock, files
from agentspan.errors import NOT_NOW, DatabaseBusy, InvalidValue, NotStorable, StorageError
from agentspan.host import guard
from agentspan.maintenance.copying_rows import RunSender, Sender
from agentspan.model.rows import ROWS, AgentInstanceRow, OtelLogRow, ResourceType, Row
from agentspan.storage.access import count, pages
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, BackUp, Find, ForgetNotes, Notes, PutKeys, PutNote, Query, StoredKeys
from agentspan.tuning import STANDARD, Tuning

_SUFFIX = "-copies"


class Place(NamedTuple):
    """The position that a copy has reached.

    Attributes:
        began: when the copy began, as stored text.
        after: the id of the last run that was sent.
    """

    began: str
    after: str


def cursor_of(source: Storage, target: Storage, since: str | None) -> "Cursor":
    """Return the cursor of a copy from a source to a target. Copies with different `since` have different cursors."""
    name = f"copy/{source.ask(Account()).id}/{target.ask(Account()).id}/{since or ''}"
    can = target.capabilities()
    if Notes in can.answers:
        return _Noted(target, name)
    return _InFile(None if can.journals is None else can.journals.path, name)


class _Noted:
    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name

    def read(self) -> Place | None:
        return _place(self._storage.ask(Notes(self._name)).get(self._name))

    def write(self, place: Place | None) -> None:
        if place is None:
            self._storage.ask(ForgetNotes(self._name))
        else:
            self._storage.ask(PutNote(self._name, json.dumps(place)))


class _InFile:
    """A cursor in a JSON file `NAME-copies` beside the target's file, replaced whole. Without a file, does nothing."""

    def __init__(self, beside: Path | None, name: str) -> None:
        self._path = None if beside is None else beside.with_name(beside.name + _SUFFIX)
        self._name = name

    def read(self) -> Place | None:
        return _place(self._notes().get(self._name))

    def write(self, place: Place | None) -> None:
        notes = {name: text for name, text in self._notes().items() if name != self._name}
        if place is not None:
            notes[self._name] = json.dumps(place)
        with guard(OSError):  # the rows are there; only the next copy takes longer
            if self._path is not None and not notes:
                self._path.unlink(missing_ok=True)
            elif self._path is not None:
                with files.replacing(self._path, encoding="utf-8") as file:
                    json.dump(notes, file)

    def _notes(self) -> dict[str, str]:
        with guard(OSError, ValueError):
            notes = json.loads(self._path.read_text(encoding="utf-8")) if self._path is not None else None
            return {n: t for n, t in notes.items() if isinstance(t, str)} if isinstance(notes, dict) else {}
        return {}


Cursor = _Noted | _InFile
"""Reads and writes the position of one copy; None means that no copy is under way."""


def _place(text: str | None) -> Place | None:
    try:
        began, after = json.loads(text or "null")
    except (TypeError, ValueError):
        return None
    return Place(began, after) if isinstance(began, str) and isinstance(after, str) else None


SHARE = 4
"""The pause between two polls for new rows, as a multiple of the time that a poll takes."""
SHARE_OF_WHOLE = 20
"""The pause between two comparisons of all runs, as a multiple of the time that a comparison takes."""
OVERLAP = timedelta(minutes=2)
"""How far a poll goes back before the last poll: a row has the time at which it was recorded, not stored."""
PAGE = 500
PATIENCE_S = 60.0
"""How long each commit may wait for other writers of the target."""
SHOWN = 5
"""How many of the rows that could not be copied are reported with id and reason."""
_FIRST: tuple[ResourceType, ...] = ("agent", "agent_version", "agent_schema_version", "writer")
_LAST: tuple[ResourceType, ...] = (
    "tag", "score", "refused_change", "otel_trace", "otel_log", "session_file", "session_entry", "session_summary",
)  # fmt: skip
Progress = Callable[[int, int], None]


class LeftOut(NamedTuple):
    """A row that could not be copied, and the reason."""

    id: str
    why: str


class Copied(NamedTuple):
    """The counts of a copy.

    Attributes:
        runs, spans: how many are new in the target.
        others: how many other rows and keys are new: agents, versions, tags, scores …
        changed: how many rows the target had in an earlier state.
        left_out: how many rows could not be copied; `examples` has the first of them.
    """

    runs: int
    spans: int
    others: int
    changed: int
    left_out: int
    examples: tuple[LeftOut, ...]


def copy(
    source: Storage,
    target: Storage,
    *,
    since: str | None = None,
    follow: bool = False,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
    on_failure: Callable[[Exception], object] = lambda _: None,
    tuning: Tuning = STANDARD,
) -> Copied:
    """Copy the rows that the target lacks, or has in an earlier state.

    Args:
        since: copy only runs that began at this time or later, as stored text, and the rows that belong to them.
        follow: go on with rows that are stored later, until `stop` returns True. After the first copy of all rows, a
            storage that fails, or cannot be reached, is tried again and again.
        stop: called between batches; the copy ends when it returns True.
        progress: called with the number of runs compared so far, and of all runs.
        on_failure: called with the error of an attempt that will be repeated, unless the attempt before had it, too.
        tuning: sizes and times, for tests; see agentspan/tuning.py.

    Raises:
        InvalidValue: both are the same storage.
        DatabaseBusy: other writers of the target kept a lock; the rows copied so far stay in the target.
    """
    where = source.capabilities().location
    if source is target or (where is not None and where == target.capabilities().location):
        raise InvalidValue("DST", "is SRC itself")
    copying = _Copying(source, target, since, stop, tuning)
    copying.whole(progress)
    if follow:
        copying.follow(on_failure)
    return copying.counts()


class _Copying:
    def __init__(
        self, source: Storage, target: Storage, since: str | None, stop: Callable[[], bool], tuning: Tuning
    ) -> None:
        self._source, self._target, self._since, self._stop = source, target, since, stop
        self._tuning = tuning
        self._sender = Sender(source, target, PATIENCE_S)
        self._runs = RunSender(self._sender, tuning.copy_commit_rows)
        self._keys = 0

    def counts(self) -> Copied:
        """Return the counts so far."""
        sender, new = self._sender, self._sender.new
        runs, spans = new["agent_instance"], new["agent_span"]
        others = new.total() - runs - spans + self._keys
        examples = tuple(LeftOut(*each) for each in islice(sender.left_out.items(), SHOWN))
        return Copied(runs, spans, others, sender.changed, len(sender.left_out), examples)

    def whole(self, progress: Progress | None) -> None:
        """Compare all runs, and send the differences. A copy that was stopped goes on at its noted position."""
        cursor = cursor_of(self._source, self._target, self._since)
        place = cursor.read()
        began = clock.now()
        is_resumed = place is not None
        if place is None:
            place = Place(began, "")
        for type_ in _FIRST:
            for rows in pages(self._source, ROWS[type_]):
                self._sender.send(rows)
        total = count(self._source, "agent_instance") if progress is not None else 0
        done, noted = 0, time.monotonic()
        for runs in pages(self._source, AgentInstanceRow, after=place.after):
            self._runs.send([run for run in runs if self._is_wanted(run)], is_thorough=True)
            place = place._replace(after=runs[-1].id)
            if time.monotonic() - noted >= self._tuning.copy_cursor_s:
                cursor.write(place)
                noted = time.monotonic()
            if progress is not None:
                done += len(runs)
                progress(min(done, total), total)
            if self._stop():
                cursor.write(place)
                return
        if progress is not None:
            progress(total, total)
        for type_ in _LAST:
            for some in pages(self._source, ROWS[type_]):
                self._send_last(type_, some)
        self._send_keys(self._since or "")
        # Runs before the noted position may have changed since the copy began, perhaps long ago.
        self.recent(_before(place.began if is_resumed else began))
        cursor.write(None)

    def follow(self, on_failure: Callable[[Exception], object]) -> None:
        """Send new rows again and again, until `stop` returns True, and compare all runs from time to time."""
        looked, compared, took_s = clock.now(), time.monotonic(), 0.0
        failure = ""
        while not self._stop():
            began, at = time.monotonic(), clock.now()
            try:
                if began - compared >= max(self._tuning.copy_compare_s, SHARE_OF_WHOLE * took_s):
                    self.whole(None)
                    compared = time.monotonic()
                    took_s = compared - began
                else:
                    self.recent(_before(looked))
                looked, failure = at, ""
            except DatabaseBusy:
                pass  # the next poll sends the rows
            except NOT_NOW as error:
                if isinstance(error, NotStorable):
                    raise
                if failure != (failure := str(error)):
                    on_failure(error)
            self._sleep(max(self._tuning.copy_look_s, SHARE * (time.monotonic() - began)))

    def _sleep(self, rest_s: float) -> None:
        until = time.monotonic() + rest_s
        while not self._stop() and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.1))

    def recent(self, at: str) -> None:
        """Send the runs that were open when last sent or changed since a time, and the rows that belong to them."""
        for type_ in _FIRST:
            for rows in self._since_time(type_, "inserted_at" if type_ == "writer" else "updated_at", at):
                self._sender.send(rows)
        known = iter([*self._runs.open])
        seen: set[str] = set()
        while some := [*islice(known, PAGE)]:
            self._send_runs([row for _, row in self._source.ask(Find(*some)).rows.values()], seen)
        for rows in self._since_time("agent_instance", "updated_at", at):
            self._send_runs(rows, seen)
        for type_ in _LAST:
            for rows in self._since_time(type_, "inserted_at", at):
                self._send_last(type_, rows)
        self._send_keys(max(at, self._since or ""))

    def _send_runs(self, rows: Sequence[Row], seen: set[str]) -> None:
        runs = [row for row in rows if isinstance(row, AgentInstanceRow) and row.id not in seen]
        seen.update(run.id for run in runs)
        self._runs.send([run for run in runs if self._is_wanted(run)], is_thorough=False)

    def _since_time(self, type_: ResourceType, column: str, at: str) -> Iterator[list[Row]]:
        """Yield the rows whose `column` has a time of `at` or later, the latest first, in pages."""
        query = Query(type_, order=column, descending=True, limit=PAGE)
        while True:
            rows = self._source.ask(query).rows
            new = [row for row in rows if getattr(row, column) >= at]
            if new:
                yield new
            if len(new) < PAGE:
                return
            query = query.changed(offset=query.offset + PAGE)

    def _send_last(self, type_: ResourceType, rows: Sequence[Row]) -> None:
        """Send rows that belong to runs, such as scores. Rows whose run the target does not have are not sent."""
        runs = {run for row in rows if (run := getattr(row, "agent_instance_id", None)) is not None}
        there = self._target.ask(Find(*runs)).rows if runs else {}
        wanted = [row for row in rows if self._has_place(row, there)]
        if wanted:
            self._sender.send(wanted)

    def _has_place(self, row: Row, there: Mapping[str, object]) -> bool:
        run = getattr(row, "agent_instance_id", None)
        if run is not None:
            return run in there
        return not isinstance(row, OtelLogRow) or self._since is None or row.inserted_at >= self._since

    def _is_wanted(self, run: AgentInstanceRow) -> bool:
        return self._since is None or (run.started_at or run.inserted_at) >= self._since

    def _send_keys(self, since: str) -> None:
        if StoredKeys not in self._source.capabilities().answers or PutKeys not in self._target.capabilities().answers:
            return
        keys = self._source.ask(StoredKeys(None, PAGE, since))
        while keys:
            renamed = [key._replace(subject=self._sender.target_id(key.subject)) for key in keys]
            self._keys += self._target.ask(PutKeys(renamed, PATIENCE_S))
            keys = self._source.ask(StoredKeys((keys[-1].operation, keys[-1].key), PAGE, since))


def _before(at: str) -> str:
    """Return the time that lies OVERLAP before a time."""
    return clock.parse(clock.to_datetime(at) - OVERLAP)


def backup(storage: Storage, path: str | os.PathLike[str]) -> int:
    """Copy all committed data to a new file. A pipe or device at the path is written to, never replaced.

    Returns:
        The size of the copy, in bytes.

    Raises:
        StorageError: the storage cannot make a backup.
        InvalidValue: the file exists, or its folder does not, or the copy cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise InvalidValue("path", f"{target} is a folder; name a file in it")
    if not target.exists() or target.is_file():
        # A link may point to a file that does not exist yet: the copy is made there.
        return _backup(storage, Path(os.path.realpath(target)) if target.is_symlink() else target)
    try:
        with target.open("wb") as file:
            return pour(storage, file)
    except OSError as error:
        raise InvalidValue("path", f"{target} cannot be written: {error.strerror}") from error


def pour(storage: Storage, file: IO[bytes]) -> int:
    """Copy all committed data into an open file, which may be a pipe; return the size in bytes.

    Raises:
        StorageError: the storage cannot make a backup.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        size = _backup(storage, copy)
        with copy.open("rb") as source:
            shutil.copyfileobj(source, file)
        file.flush()
    return size


def _backup(storage: Storage, path: Path) -> int:
    can = storage.capabilities()
    if BackUp not in can.answers:
        to_file = "`agentspan copy` writes all runs to a file"
        instead = f"use pg_dump; {to_file}" if can.backend == "postgresql" else to_file
        raise StorageError(f"the storage {can.backend!r} cannot make a backup; {instead}")
    return storage.ask(BackUp(path))
