"""Copies everything of one storage to another one, of whatever backends, and follows it from then on.

Rows are copied as they are. The target is asked first what it has, so a copy can be repeated, broken off at any moment,
and go on. Nothing is removed there. The account stays the target's own: it names that storage.

How far a copy has come is noted in the target if it keeps notes, else in a file beside it. That only saves time:
without it, a copy that goes on compares the runs from the beginning.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from agentspan import clock, files
from agentspan.errors import DatabaseBusy, InvalidValue
from agentspan.interrupts import guard
from agentspan.maintenance.copying_rows import RunSender, Sender
from agentspan.model.rows import ROWS, AgentInstanceRow, OtelLogRow, ResourceType, Row
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, Find, ForgetNotes, Notes, PutKeys, PutNote, Query, StoredKeys
from agentspan.storage.scanning import count, pages
from agentspan.tuning import STANDARD, Tuning

_SUFFIX = "-copies"


class Place(NamedTuple):
    """The place that a copy has come to.

    Attributes:
        began: when it began, as stored text.
        after: the id of the last run that was sent.
    """

    began: str
    after: str


def cursor_of(source: Storage, target: Storage, since: str | None) -> "Cursor":
    """Return the cursor of the copy of a source to a target, of the runs since a time."""
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
    """A JSON file `NAME-copies` beside the target's file, replaced whole; nothing where the target has no file."""

    def __init__(self, beside: Path | None, name: str) -> None:
        self._path = None if beside is None else beside.with_name(beside.name + _SUFFIX)
        self._name = name

    def read(self) -> Place | None:
        return None if self._path is None else _place(self._all(self._path).get(self._name))

    def write(self, place: Place | None) -> None:
        if self._path is None:
            return
        notes = {name: text for name, text in self._all(self._path).items() if name != self._name}
        if place is not None:
            notes[self._name] = json.dumps(place)
        with guard(OSError):  # the rows are there; only the next copy takes longer
            if not notes:
                self._path.unlink(missing_ok=True)
                return
            with files.replacing(self._path, encoding="utf-8") as file:
                json.dump(notes, file)

    def _all(self, path: Path) -> dict[str, str]:
        with guard(OSError, ValueError):
            notes = json.loads(path.read_text(encoding="utf-8"))
            return {n: t for n, t in notes.items() if isinstance(t, str)} if isinstance(notes, dict) else {}
        return {}


Cursor = _Noted | _InFile
"""The place of one copy, which is noted when it has moved, and is None when the copy is done."""


def _place(text: str | None) -> Place | None:
    try:
        began, after = json.loads(text or "null")
    except (TypeError, ValueError):
        return None
    return Place(began, after) if isinstance(began, str) and isinstance(after, str) else None


SHARE = 4
"""The pause between two looks at what is new, in times of what a look takes."""
SHARE_OF_WHOLE = 20
"""The same for comparing all runs again."""
OVERLAP = timedelta(minutes=2)
"""The time that a look goes back behind the last one: a row has the time at which it was recorded, not stored."""
PAGE = 500
PATIENCE_S = 60.0
SHOWN = 5
"""Rows that cannot be copied whose ids are named."""
_FIRST: tuple[ResourceType, ...] = ("agent", "agent_version", "agent_schema_version", "writer")
_LAST: tuple[ResourceType, ...] = ("tag", "score", "refused_change", "otel_trace", "otel_log")
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
        left_out: how many rows cannot be in the target; `examples` has the first ones.
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
    wait_s: float = PATIENCE_S,
    tuning: Tuning = STANDARD,
) -> Copied:
    """Copy what the target lacks, or has in an earlier state.

    Args:
        since: only runs that began at this time or later, as stored text, and what belongs to them.
        follow: go on with what is stored later, until `stop` returns True.
        stop: called between batches.
        progress: called with how many runs were looked at, and of how many.
        wait_s: how long each commit may wait for other writers of the target.
        tuning: sizes and times, for tests; see agentspan/tuning.py.

    Raises:
        InvalidValue: both are the same storage.
        DatabaseBusy: other writers of the target did not let go; what was copied so far is there.
    """
    where = source.capabilities().location
    if source is target or (where is not None and where == target.capabilities().location):
        raise InvalidValue("DST", "is SRC itself")
    copying = _Copying(source, target, since, stop, wait_s, tuning)
    copying.whole(progress)
    if follow:
        copying.follow()
    return copying.counts()


class _Copying:
    def __init__(
        self,
        source: Storage,
        target: Storage,
        since: str | None,
        stop: Callable[[], bool],
        wait_s: float,
        tuning: Tuning,
    ) -> None:
        self._source, self._target, self._since, self._stop = source, target, since, stop
        self._wait_s = wait_s
        self._tuning = tuning
        self._sender = Sender(source, target, wait_s)
        self._runs = RunSender(self._sender, tuning.copy_commit_rows)
        self._keys = 0

    def counts(self) -> Copied:
        """Return the counts so far."""
        new = self._sender.new
        runs, spans = new["agent_instance"], new["agent_span"]
        others = new.total() - runs - spans + self._keys
        sender = self._sender
        examples = tuple(LeftOut(*each) for each in islice(sender.left_out.items(), SHOWN))
        return Copied(runs, spans, others, sender.changed, len(sender.left_out), examples)

    def whole(self, progress: Progress | None) -> None:
        """Compare all runs, and send what differs. One that was broken off goes on where it ended."""
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
        # What was recorded before the place since the copy began, perhaps long ago, was not looked at.
        self.recent(_before(place.began if is_resumed else began))
        cursor.write(None)

    def follow(self) -> None:
        """Send what is new, again and again, and compare all runs from time to time."""
        looked, compared, took_s = clock.now(), time.monotonic(), 0.0
        while not self._stop():
            began, at = time.monotonic(), clock.now()
            try:
                if began - compared >= max(self._tuning.copy_compare_s, SHARE_OF_WHOLE * took_s):
                    self.whole(None)
                    compared = time.monotonic()
                    took_s = compared - began
                else:
                    self.recent(_before(looked))
                looked = at
            except DatabaseBusy:
                pass  # the next look sends it
            self._sleep(max(self._tuning.copy_look_s, SHARE * (time.monotonic() - began)))

    def _sleep(self, rest_s: float) -> None:
        until = time.monotonic() + rest_s
        while not self._stop() and (left_s := until - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.1))

    def recent(self, at: str) -> None:
        """Send the runs that were open at the last look, or have changed since a time, and what belongs to them."""
        for type_ in _FIRST[:-1]:
            for rows in self._since_time(type_, "updated_at", at):
                self._sender.send(rows)
        for rows in self._since_time("writer", "inserted_at", at):
            self._sender.send(rows)
        known = [*self._runs.open]
        seen: set[str] = set()
        for start in range(0, len(known), PAGE):
            found = self._source.ask(Find(*known[start : start + PAGE])).rows.values()
            self._send_runs([row for _, row in found], seen)
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
        """Yield the rows whose column is not before a time, the latest first, in pages."""
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
        """Send rows that belong to runs; those of runs that the target does not have stay."""
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
            self._keys += self._target.ask(PutKeys(renamed, self._wait_s))
            keys = self._source.ask(StoredKeys((keys[-1].operation, keys[-1].key), PAGE, since))


def _before(at: str) -> str:
    """Return a time with the overlap before it."""
    return clock.parse(clock.to_datetime(at) - OVERLAP)
