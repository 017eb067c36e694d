"""Contract tests of finding damage, file sizes, backups, removal of runs and keys, and journals."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from agentspan.errors import InvalidValue
from agentspan.jsontext import LIST_TEXT, TextInParts, joined
from agentspan.model.changes import Applied, Key, Put, PutSpans, Refused, Replayed, Unit
from agentspan.model.rows import AgentInstanceRow, OtelTraceRow, RefusedChangeRow, ScoreRow, TagRow
from agentspan.storage.location import Location
from agentspan.storage.protocol import BesideJournals, Storage
from agentspan.storage.questions import (
    Account,
    BackUp,
    Compact,
    Counts,
    Damage,
    FileBytes,
    Find,
    Query,
    RemoveKeys,
    RemoveRuns,
    SpansOf,
    UsedBytes,
    Violations,
)
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.base import T0, T1, T2, Base, finish, violation


class Keeping(Base):
    """Contract tests: damage, file sizes, payloads in parts, backups, journals."""

    def damage(self, storage: Storage) -> None:
        """Damage stored rows, so that the question Damage must find something. Override it for a backend."""
        pytest.skip("the test class does not override damage(), so check is not proved to find any")

    def copy_at(self, storage: Storage, path: Path) -> str | Location:
        """Return the address that opens a backup at a path: the path for SQLite, NAME://PATH for another backend."""
        backend = storage.capabilities().backend
        return str(path) if backend == "sqlite" else f"{backend}://{path}"

    def test_a_sound_storage_has_no_problems(self, storage: Storage) -> None:
        """An empty storage and one with rows answer Damage with an empty list."""
        self.answered(storage, Damage)
        assert storage.ask(Damage()) == []
        self._filled(storage)
        assert storage.ask(Damage()) == []

    def test_damage_is_found(self, storage: Storage) -> None:
        """The answer to Damage names the damage without ids and values."""
        self.answered(storage, Damage)
        run = self._filled(storage)
        self.damage(storage)
        problems = storage.ask(Damage())
        assert problems
        assert not [problem for problem in problems if run.id in problem or "secret" in problem]

    def test_a_file_grows_and_shrinks(self, storage: Storage) -> None:
        """Fewer bytes are in use after removing, and the file is smaller after compacting; the rest stays."""
        self.answered(storage, Compact)
        self.answered(storage, RemoveRuns)
        stays, goes = self._filled(storage), self.instance(storage)
        before = storage.ask(UsedBytes()), storage.ask(FileBytes())
        assert 0 < before[0] <= before[1]
        spans = [self.rows.span(goes)._replace(status="complete", payload=f'"{"x" * 4000}"') for _ in range(250)]
        storage.apply([Unit((PutSpans(spans),))])
        full = storage.ask(UsedBytes()), storage.ask(FileBytes())
        assert full[0] > before[0] + 500_000
        assert full[1] >= full[0]
        self.end(storage, goes)
        assert storage.ask(RemoveRuns([goes.id], 5.0)) == (1, 250)
        assert storage.ask(UsedBytes()) < full[0] - 500_000
        storage.ask(Compact(5.0))
        assert storage.ask(FileBytes()) < full[1] - 500_000
        assert storage.ask(Counts([stays.id, goes.id]))[stays.id].total == 2
        self.put(storage, self.rows.span(stays))

    def test_a_payload_in_parts_is_read_as_its_text(self, storage: Storage) -> None:
        """Spans are put alone and together. A list element of a refused span is stored with the next span."""
        self.claimed(storage, "keeps_contents")
        run, other = self._filled(storage), self._filled(storage)
        elements = [f'{{"n":{number},"text":"{"x" * 300}"}}' for number in range(12)]
        elements += ['{"$contents":"1-2"}', f'{{"data":"{"QUJD" * 700}"}}', '{"n":1.0,"u":"\\u00e9"}', "{}"]
        payloads = [
            _in_parts('{"a":%s,"b":1,"c":%s}', elements[: number + 1], [elements[-1]] * number) for number in range(16)
        ]
        payloads += [_in_parts('{"b":{"d":1},"a":%s}', elements[::-1]), _in_parts('{"a":%s,"e":"y"}', [])]
        rows = [self.rows.span(run)._replace(payload=payload) for payload in payloads]
        self.put(storage, *rows[:3])
        fails = [Unit((Put(rows[3]), Put(rows[0]))), Unit((PutSpans([rows[4]._replace(id=rows[0].id)]),))]
        assert all(isinstance(outcome, Refused) for outcome in storage.apply(fails))
        outcomes = storage.apply([Unit((PutSpans(rows[3:10]),)), *fails, Unit((PutSpans(rows[10:]),))])
        assert [isinstance(outcome, Refused) for outcome in outcomes] == [False, True, True, False]
        elsewhere = self.rows.span(other)._replace(payload=payloads[9])
        self.put(storage, elsewhere)
        texts = {row.id: row.payload for row in (*storage.ask(SpansOf(run.id)), *storage.ask(SpansOf(other.id)))}
        for row in (*rows, elsewhere):
            assert texts[row.id] == row.payload
            assert type(texts[row.id]) is str

    def test_a_backup_has_everything_of_its_moment(self, storage: Storage) -> None:
        """The copy can be opened on its own. Rows that are written after the backup are not in it."""
        self.answered(storage, BackUp)
        run = self._filled(storage)
        spans = list(storage.ask(SpansOf(run.id)))
        with TemporaryDirectory() as folder:
            path = Path(folder) / "copy"
            assert storage.ask(BackUp(path)) == os.path.getsize(path) > 0
            self.put(storage, self.rows.span(run))
            copy = open_direct(self.copy_at(storage, path))
            try:
                assert copy.ask(Account()) == storage.ask(Account())
                assert list(copy.ask(SpansOf(run.id))) == spans
                assert copy.ask(Violations([spans[0].id]))[spans[0].id] == [violation()]
                self.put(copy, self.rows.span(run))
            finally:
                copy.close()
        assert len(list(storage.ask(SpansOf(run.id)))) == 3

    def test_a_backup_overwrites_nothing(self, storage: Storage) -> None:
        """BackUp raises InvalidValue if the file exists, or if its folder does not."""
        self.answered(storage, BackUp)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "mine"
            path.write_text("precious", encoding="utf-8")
            with pytest.raises(InvalidValue):
                storage.ask(BackUp(path))
            assert path.read_text(encoding="utf-8") == "precious"
            with pytest.raises(InvalidValue):
                storage.ask(BackUp(Path(folder) / "nowhere" / "copy"))
            assert os.listdir(folder) == ["mine"]

    def test_journals_are_looked_at_before_each_read(self, storage: Storage) -> None:
        """A storage of `seeing` calls `look` before each read, not before a write. Reads through `direct` never do."""
        journals: BesideJournals = self.claimed(storage, "journals")
        run = self._filled(storage)
        looks: list[None] = []
        seeing = journals.seeing(lambda: looks.append(None))
        again = seeing.capabilities().journals
        assert again is not None
        assert again.seeing(lambda: None) is seeing
        assert again.path == journals.path
        reads: list[Callable[[Storage], object]] = [
            lambda storage: storage.ask(Account()),
            lambda storage: storage.ask(Find(run.id)),
            lambda storage: storage.ask(Query("agent_span")),
            lambda storage: list(storage.ask(SpansOf(run.id))),
            lambda storage: storage.ask(Counts([run.id])),
            lambda storage: storage.ask(Violations(["x"])),
        ]
        for read in reads:
            before = len(looks)
            assert read(seeing) == read(again.direct)
            assert len(looks) == before + 1
        span = self.rows.span(run)
        before = len(looks)
        self.put(seeing, span)
        assert len(looks) == before
        assert self.stored(storage, span.id) == span

    def test_what_is_applied_after_the_file_was_deleted_is_in_a_new_one(self, storage: Storage) -> None:
        """One or two changes, at once after earlier ones, are stored in a new file at the path."""
        journals: BesideJournals = self.claimed(storage, "journals")
        for count in (1, 2, 1, 2):
            for file in journals.path.parent.glob(f"{journals.path.name}*"):
                file.unlink()
            agents = [self.rows.agent(f"agent {number}") for number in range(count)]
            journals.direct.apply([Unit((Put(agent, minted=True),)) for agent in agents])
            new = open_direct(self.copy_at(storage, journals.path))
            try:
                assert [row for row in new.ask(Query("agent")).rows if row in agents] == agents
            finally:
                new.close()

    def _filled(self, storage: Storage) -> AgentInstanceRow:
        """Put a run with two spans, of which the first has a violation."""
        run = self.instance(storage)
        spans = [self.rows.span(run)._replace(payload='{"text": "secret"}') for _ in range(2)]
        storage.apply([Unit((Put(spans[0], violations=(violation(),)),)), Unit((Put(spans[1]),))])
        self.move(storage, finish(spans[1].id))
        return run


def _in_parts(text: str, *lists: Sequence[str]) -> TextInParts:
    """Return a payload made of a text, in which each `%s` is replaced by a list."""
    payload = TextInParts(joined(text.split("%s"), lists))
    payload.rest, payload.lists = text.replace("%s", LIST_TEXT), lists
    return payload


class Removing(Base):
    """Contract tests: removal of runs and keys."""

    def test_runs_are_removed_with_all_that_belongs_to_them(self, storage: Storage) -> None:
        """Spans, violations, refused changes, traces, tags, scores, unique values; a key of theirs answers nothing."""
        self.answered(storage, RemoveRuns)
        gone, stays = self._ended(storage, "same"), self._ended(storage, "other")
        refused = [
            RefusedChangeRow(self.rows.ids.new(), "x", run.id, "status", None, "{}", None, T0) for run in (gone, stays)
        ]
        traces = [OtelTraceRow(name * 32, run.id, T0) for name, run in (("a", gone), ("b", stays))]
        tags = [TagRow(self.rows.ids.new(), run.id, "eval", T0) for run in (gone, stays)]
        judged = ("reward", 1.0, None, "code", None, T0, "why")
        scores = [ScoreRow(self.rows.ids.new(), run.id, "agent_instance", run.id, *judged) for run in (gone, stays)]
        self.put(storage, *refused, *traces, *tags, *scores)
        before = {run.id: list(storage.ask(SpansOf(run.id))) for run in (gone, stays)}
        key = Key("create", "k", "h", T0)
        span = self.rows.span(gone)._replace(status="complete")
        create = Unit((Put(span),), span.id, key)
        assert storage.apply([create]) == [Applied(span)]
        assert storage.ask(RemoveRuns([gone.id, self.rows.ids.new()], 1.0)) == (1, 3)
        of_gone = (refused[0].id, traces[0].id, tags[0].id, scores[0].id, span.id)
        gone_ids = [gone.id, *of_gone, *(each.id for each in before[gone.id])]
        assert storage.ask(Find(*gone_ids)).rows == {}
        assert list(storage.ask(SpansOf(gone.id))) == []
        assert storage.ask(Counts([gone.id]))[gone.id].total == 0
        assert storage.ask(Violations([before[gone.id][0].id]))[before[gone.id][0].id] == []
        assert storage.apply([create]) == [Refused("missing")]
        assert storage.ask(Query("agent_instance")).rows == [stays]
        assert storage.ask(Query("refused_change")).rows == [refused[1]]
        assert storage.ask(Query("otel_trace")).rows == [traces[1]]
        assert storage.ask(Query("tag")).rows == [tags[1]]
        assert storage.ask(Query("score")).rows == [scores[1]]
        assert list(storage.ask(SpansOf(stays.id))) == before[stays.id]
        assert storage.ask(Violations([before[stays.id][0].id]))[before[stays.id][0].id] == [violation()]
        self.put(storage, gone._replace(id=self.rows.ids.new()))  # its external_identifier is free again
        assert storage.ask(RemoveRuns([gone.id], 1.0)) == (0, 0)

    def test_a_run_with_anything_open_in_it_is_not_removed(self, storage: Storage) -> None:
        """A run stays if it is open, or has an active or pending span. Finished runs are removed."""
        self.answered(storage, RemoveRuns)
        ended = self._ended(storage, "ended")
        is_open = self.instance(storage)
        stay = [is_open]
        for status in ("active", "pending"):
            run = self.instance(storage)
            self.put(
                storage, self.rows.span(run)._replace(status="complete"), self.rows.span(run)._replace(status=status)
            )
            stay.append(self.end(storage, run))
        ids = [*(run.id for run in stay), ended.id]
        assert storage.ask(RemoveRuns(ids, 1.0)) == (1, 2)
        assert storage.ask(Query("agent_instance")).rows == stay
        assert [storage.ask(Counts([run.id]))[run.id].total for run in stay] == [0, 2, 2]

    def test_old_keys_are_removed(self, storage: Storage) -> None:
        """RemoveKeys removes keys from before a time; with `dry_run` it counts them. A removed key is usable again."""
        self.answered(storage, RemoveRuns)
        agents = [self.rows.agent() for _ in range(3)]
        keys = [Key("create", f"k{time}", "h", time) for time in (T0, T1, T2)]
        units = [Unit((Put(agent),), agent.id, key) for agent, key in zip(agents, keys, strict=True)]
        storage.apply(units)
        assert storage.ask(RemoveKeys(T1, 1.0, dry_run=True)) == 1
        assert storage.ask(Find(key=keys[0])).key == ("h", agents[0].id)
        assert storage.ask(RemoveKeys(T1, 1.0)) == 1
        assert [storage.ask(Find(key=key)).key for key in keys] == [None, ("h", agents[1].id), ("h", agents[2].id)]
        assert storage.apply(units) == [Refused("id_used", agents[0]), Replayed(agents[1]), Replayed(agents[2])]
        assert storage.ask(RemoveKeys(T1, 1.0)) == 0
        assert len(storage.ask(Find(*(agent.id for agent in agents))).rows) == 3

    def _ended(self, storage: Storage, name: str) -> AgentInstanceRow:
        """Put a finished run with two finished spans, of which the first has a violation."""
        run = self.instance(storage, external_identifier=name)
        spans = [self.rows.span(run) for _ in range(2)]
        storage.apply([Unit((Put(spans[0], violations=(violation(),)),)), Unit((Put(spans[1]),))])
        for span in spans:
            self.move(storage, finish(span.id))
        return self.end(storage, run)
