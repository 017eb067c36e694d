"""Mutants that claim transfer or notes, and do not do what it promises."""

import time
from collections.abc import Mapping
from typing import Any

from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Capabilities
from agentspan.storage.shared import Changed
from tests.storage.mutants.noting import found_by


@found_by("test_marks_tell_of_every_change_of_a_runs_spans")
class MarksTellOfNoLateEnds(MemoryStorage):
    def span_marks(self, instance_ids: Any) -> Any:
        marks = super().span_marks(instance_ids)
        return {id: frozenset(mark._replace(ended_late=0) for mark in some) for id, some in marks.items()}


@found_by("test_keys_are_read_in_order_and_stored_as_they_are")
class ReplacesKeys(MemoryStorage):
    def put_keys(self, keys: Any, wait_s: float) -> int:
        before = len(self._keys)
        for key in keys:
            self._keys.pop((key.operation, key.key), None)
        super().put_keys(keys, wait_s)
        return len(self._keys) - before


class Noting(MemoryStorage):
    """Sound notes in memory."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._notes: dict[str, tuple[str, float]] = {}

    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(notes=self)

    def notes(self, *names: str) -> Mapping[str, str]:
        with self._open():
            return {name: self._notes[name][0] for name in names if name in self._notes and self.holds(name)}

    def holds(self, name: str) -> bool:
        return self._notes[name][1] > time.monotonic()

    def note(self, name: str, text: str, *, lasts_s: float | None = None, replace: bool = True) -> str:
        with self._open():
            self._notes = {each: self._notes[each] for each in self._notes if self.holds(each)}
            if replace or name not in self._notes:
                self._notes[name] = text, float("inf") if lasts_s is None else time.monotonic() + lasts_s
            return self._notes[name][0]

    def count_notes(self, prefix: str) -> int:
        with self._open():
            return sum(name.startswith(prefix) and self.holds(name) for name in self._notes)

    def forget_notes(self, prefix: str) -> None:
        with self._open():
            self._notes = {name: note for name, note in self._notes.items() if not name.startswith(prefix)}


@found_by("test_notes_are_kept_by_name")
class KeepsNotesForEver(Noting):
    def holds(self, name: str) -> bool:
        return True


@found_by("test_programs_that_note_at_the_same_moment_are_given_the_same_text")
class LooksBeforeItNotes(Noting):
    def note(self, name: str, text: str, *, lasts_s: float | None = None, replace: bool = True) -> str:
        is_there = name in self._notes
        time.sleep(0.01)
        return super().note(name, text, lasts_s=lasts_s, replace=replace or not is_there)


@found_by("test_changes_since_a_cursor_are_read_in_whatever_order_they_are_committed")
class ReadsOnByTime(MemoryStorage):
    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(changes=self)

    def changed(self, instance_id: str, cursor: str, *, after: str = "", limit: int | None = None) -> Changed:
        rows = [row for row in self.iter_spans(instance_id) if row.updated_at > cursor and row.id > after]
        return Changed(rows[:limit], max((row.updated_at for row in rows), default=cursor), 0.0)
