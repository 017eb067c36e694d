"""Mutants that answer what a copy of a storage needs, or keep notes, and do not do what they promise."""

import time
from collections.abc import Mapping
from typing import Any, ClassVar

from agentspan.storage import row_by_row
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import ChangedSpans, ForgetNotes, Notes, NotesCount, PutNote, SpanMarks, SpansOf
from agentspan.storage.sums import Changed
from tests.storage.mutants.noting import Claiming, Own, found_by


@found_by("test_marks_tell_of_every_change_of_a_runs_spans")
class MarksTellOfNoLateEnds(Claiming):
    own: ClassVar[Own] = {SpanMarks: "span_marks"}

    def span_marks(self, asked: SpanMarks) -> Any:
        marks = row_by_row.answer(self, asked)
        return {id: frozenset(mark._replace(ended_late=0) for mark in some) for id, some in marks.items()}


@found_by("test_keys_are_read_in_order_and_stored_as_they_are")
class ReplacesKeys(MemoryStorage):
    def _put_keys(self, asked: Any) -> int:
        before = len(self._keys)
        for key in asked.keys:
            self._keys.pop((key.operation, key.key), None)
        super()._put_keys(asked)
        return len(self._keys) - before


class Noting(Claiming):
    """Sound notes in memory."""

    own: ClassVar[Own] = {
        Notes: "texts",
        PutNote: "note",
        NotesCount: "count_notes",
        ForgetNotes: "forget_notes",
    }

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._notes: dict[str, tuple[str, float]] = {}

    def texts(self, asked: Notes) -> Mapping[str, str]:
        with self._open():
            return {name: self._notes[name][0] for name in asked.names if name in self._notes and self.holds(name)}

    def holds(self, name: str) -> bool:
        return self._notes[name][1] > time.monotonic()

    def note(self, asked: PutNote) -> str:
        name, lasts_s = asked.name, asked.lasts_s
        with self._open():
            self._notes = {each: self._notes[each] for each in self._notes if self.holds(each)}
            if asked.replace or name not in self._notes:
                self._notes[name] = asked.text, float("inf") if lasts_s is None else time.monotonic() + lasts_s
            return self._notes[name][0]

    def count_notes(self, asked: NotesCount) -> int:
        with self._open():
            return sum(name.startswith(asked.prefix) and self.holds(name) for name in self._notes)

    def forget_notes(self, asked: ForgetNotes) -> None:
        with self._open():
            self._notes = {name: note for name, note in self._notes.items() if not name.startswith(asked.prefix)}


@found_by("test_notes_are_kept_by_name")
class KeepsNotesForEver(Noting):
    def holds(self, name: str) -> bool:
        return True


@found_by("test_programs_that_note_at_the_same_moment_are_given_the_same_text")
class LooksBeforeItNotes(Noting):
    def note(self, asked: PutNote) -> str:
        is_there = asked.name in self._notes
        time.sleep(0.01)
        return super().note(asked.changed(replace=asked.replace or not is_there))


@found_by("test_changes_since_a_cursor_are_read_in_whatever_order_they_are_committed")
class ReadsOnByTime(Claiming):
    own: ClassVar[Own] = {ChangedSpans: "changed"}

    def changed(self, asked: ChangedSpans) -> Changed:
        spans = self.ask(SpansOf(asked.instance_id))
        rows = [row for row in spans if row.updated_at > asked.cursor and row.id > asked.after]
        return Changed(rows[: asked.limit], max((row.updated_at for row in rows), default=asked.cursor), 0.0)
