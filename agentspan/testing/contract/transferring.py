"""Contract tests of the capabilities transfer, notes and changes."""

import threading
from functools import partial

from agentspan.model.changes import Key, Put, Unit
from agentspan.storage.answers import KeyRow, SpanMark
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    ChangedSpans,
    Find,
    ForgetNotes,
    Notes,
    NotesCount,
    PutKeys,
    PutNote,
    SpanMarks,
    StoredKeys,
)
from agentspan.storage.sums import Changed
from agentspan.testing.contract.base import T0, T1, T2, Base, finish, racing

WAIT_S = 10.0


class Transferring(Base):
    """Contract tests: transfer between storages, notes, changes since a cursor."""

    def test_marks_tell_of_every_change_of_a_runs_spans(self, storage: Storage) -> None:
        """A mark has the number of spans of the run in a status, their latest change, and their late ends."""
        self.answered(storage, StoredKeys)
        run, other, empty = (self.instance(storage) for _ in range(3))
        spans = [self.rows.span(run) for _ in range(3)]
        self.put(storage, *spans, self.rows.span(other, updated_at=T2))
        unknown = self.rows.ids.new()
        marks = storage.ask(SpanMarks([run.id, empty.id, unknown]))
        assert marks == {run.id: {SpanMark("active", 3, T0, 0)}, empty.id: frozenset(), unknown: frozenset()}
        self.move(storage, finish(spans[0].id))
        self.put(storage, self.rows.span(run, status="complete", updated_at=T0, ended_late=1))
        assert storage.ask(SpanMarks([run.id])) == {
            run.id: {SpanMark("active", 2, T0, 0), SpanMark("complete", 2, T1, 1)},
        }
        assert storage.ask(SpanMarks([])) == {}

    def test_keys_are_read_in_order_and_stored_as_they_are(self, storage: Storage) -> None:
        """StoredKeys obeys `after`, `since` and `limit`. PutKeys leaves a key that is stored already unchanged."""
        self.answered(storage, StoredKeys)
        agents = [self.rows.agent() for _ in range(3)]
        keys = [Key("create", "b", "h", T1), Key("create", "é", "h", T2), Key("Create", "z", "h", T0)]
        storage.apply([Unit((Put(agent),), agent.id, key) for agent, key in zip(agents, keys, strict=True)])
        rows = [KeyRow(*key[:3], agent.id, key.inserted_at) for key, agent in zip(keys, agents, strict=True)]
        assert storage.ask(StoredKeys()) == [rows[2], rows[0], rows[1]]
        assert storage.ask(StoredKeys(limit=1)) == [rows[2]]
        assert storage.ask(StoredKeys(after=("Create", "z"), limit=1)) == [rows[0]]
        assert storage.ask(StoredKeys(after=("create", "b"))) == [rows[1]]
        assert storage.ask(StoredKeys(since=T1)) == [rows[0], rows[1]]
        more = KeyRow("finish", "b", "g", self.rows.ids.new(), T1)
        assert storage.ask(PutKeys([more, rows[0]._replace(request_hash="other", subject=more.subject)], 1.0)) == 1
        assert storage.ask(StoredKeys()) == [rows[2], rows[0], rows[1], more]
        assert storage.ask(PutKeys([], 1.0)) == 0
        assert storage.ask(Find(key=Key("finish", "b", "g", T0))).key == ("g", more.subject)

    def test_notes_are_kept_by_name(self, storage: Storage) -> None:
        """A note replaces the stored text unless `replace` is False. An expired note is absent."""
        self.answered(storage, Notes)
        assert storage.ask(Notes("a")) == {}
        assert storage.ask(PutNote("a", "1")) == "1"
        assert storage.ask(PutNote("a", "2", replace=False)) == "1"
        assert storage.ask(PutNote("a", "3")) == "3"
        assert storage.ask(PutNote("a/b", "ü", lasts_s=60.0)) == "ü"
        assert storage.ask(PutNote("a/c", "gone", lasts_s=0.0)) == "gone"
        assert storage.ask(Notes("a", "a/b", "a/c", "none")) == {"a": "3", "a/b": "ü"}
        storage.ask(PutNote("x", ""))
        assert storage.ask(NotesCount("a/")) == 1
        assert storage.ask(NotesCount("%")) == 0
        storage.ask(ForgetNotes("a/"))
        assert storage.ask(Notes("a", "a/b", "x")) == {"a": "3", "x": ""}

    def test_programs_that_note_at_the_same_moment_are_given_the_same_text(self, storage: Storage) -> None:
        """Four threads store a note with `replace=False`: all of them receive the one stored text."""
        self.answered(storage, Notes)
        start, texts = threading.Barrier(4), []

        def note(text: str) -> None:
            start.wait()
            texts.append(storage.ask(PutNote("secret", text, replace=False)))

        with racing(*(partial(note, str(number)) for number in range(4))):
            pass
        assert texts == [storage.ask(Notes("secret"))["secret"]] * 4

    def test_changes_since_a_cursor_are_read_in_whatever_order_they_are_committed(self, storage: Storage) -> None:
        """Spans of a transaction older than the cursor are read once it commits; until then `stalled_s` is above 0."""
        self.answered(storage, ChangedSpans)
        run, other = self.instance(storage), self.instance(storage)
        slow, fast, after = (self.rows.span(run) for _ in range(3))
        written, may_end = threading.Event(), threading.Event()

        def write_slowly(group: Storage) -> None:
            self.put(group, slow)
            written.set()
            may_end.wait(WAIT_S)

        thread = threading.Thread(target=storage.group, args=(write_slowly, WAIT_S))
        thread.start()
        try:
            assert written.wait(WAIT_S)
            for span in (fast, self.rows.span(other)):
                storage.apply([Unit((Put(span),))], wait_s=1.0)
            first = storage.ask(ChangedSpans(run.id, ""))
            assert ids_of(first) == [fast.id]
            second = storage.ask(ChangedSpans(run.id, first.cursor))
            assert second.stalled_s >= first.stalled_s == 0.0
            assert storage.ask(ChangedSpans(run.id, second.cursor)).stalled_s > 0.0
        finally:
            may_end.set()
            thread.join()
        third = storage.ask(ChangedSpans(run.id, second.cursor))
        assert slow.id in ids_of(third)
        assert ids_of(storage.ask(ChangedSpans(run.id, third.cursor))) == []
        self.move(storage, finish(fast.id, updated_at=T0))
        self.put(storage, after)
        fourth = storage.ask(ChangedSpans(run.id, third.cursor))
        assert ids_of(fourth) == [fast.id, after.id]
        assert fourth.rows[0].status == "complete"
        assert fourth.stalled_s == 0.0
        assert ids_of(storage.ask(ChangedSpans(run.id, third.cursor, after=fast.id))) == [after.id]
        assert ids_of(storage.ask(ChangedSpans(run.id, "", limit=2))) == [slow.id, fast.id]
        assert ids_of(storage.ask(ChangedSpans(run.id, "no cursor"))) == [slow.id, fast.id, after.id]


def ids_of(changed: Changed) -> list[str]:
    """Return the ids of the spans in an answer."""
    return [row.id for row in changed.rows]
