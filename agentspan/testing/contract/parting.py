"""Contract of a storage that claims partitions: they are made ahead, and old ones are removed with their runs."""

from datetime import UTC, datetime, timedelta
from typing import Any

from agentspan import clock, ids
from agentspan.model.changes import PutSpans, Unit
from agentspan.model.rows import AgentInstanceRow, RefusedChangeRow, ScoreRow, TagRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    Counts,
    DropPartitions,
    Find,
    MakePartitions,
    MissingPartitions,
    Partitions,
    Query,
    SpansOf,
    TablesState,
    Violations,
)
from agentspan.testing.contract.base import Base
from agentspan.testing.contract.rows import T0, T1, violation

DAYS = 400
"""The age of the runs of an old partition."""


class Parting(Base):
    """Contract: partitions."""

    def test_partitions_are_made_ahead_once(self, storage: Storage) -> None:
        """Each covers a time, and the default one the rest; a second program makes none."""
        self.answered(storage, Partitions)
        storage.ask(MakePartitions(ahead=6))
        made = storage.ask(Partitions())
        assert [each.is_default for each in made] == [False] * (len(made) - 1) + [True]
        assert storage.ask(MissingPartitions(ahead=6)) == 0
        assert storage.ask(MissingPartitions(ahead=8)) == 2
        assert len(storage.ask(MakePartitions(ahead=8)).names) == 2
        assert storage.ask(MakePartitions(ahead=8)) == ([], 0)
        now = clock.now()
        assert storage.ask(TablesState()).version >= 1
        assert sum(1 for each in storage.ask(Partitions()) if each.start is not None and each.start > now) == 8

    def test_an_old_partition_is_removed_with_all_that_belongs_to_its_runs(self, storage: Storage) -> None:
        """Spans, violations, refused changes, tags, scores, unique values; runs of other partitions stay."""
        self.answered(storage, Partitions)
        old, other, new = (
            self._parted_run(storage, "old"),
            self._parted_run(storage, "other"),
            self._parted_run(storage, "new", 0),
        )
        refused = RefusedChangeRow(self.rows.ids.new(), "x", old.id, "status", None, "{}", None, T0)
        tags = [TagRow(self.rows.ids.new(), run.id, "eval", T0) for run in (old, new)]
        score = ScoreRow(self.rows.ids.new(), old.id, "agent_instance", old.id, "r", 1.0, None, "code", None, T0, None)
        self.put(storage, refused, *tags, score)
        storage.ask(MakePartitions(since=_ago(DAYS + 40), width="month"))
        before, spans = len(storage.ask(Partitions())), list(storage.ask(SpansOf(new.id)))
        gone = [span.id for run in (old, other) for span in storage.ask(SpansOf(run.id))]
        done = storage.ask(DropPartitions(clock.now(), lambda writer: False, 5.0))
        assert (done.runs, done.spans) == (2, 4)
        assert done.partitions >= 1
        assert len(storage.ask(Partitions())) == before - done.partitions
        assert storage.ask(Query("agent_instance")).rows == [new]
        assert storage.ask(Find(*gone, refused.id, tags[0].id, score.id)).rows == {}
        assert storage.ask(Violations(gone)) == {id: [] for id in gone}
        assert storage.ask(Query("tag")).rows == [tags[1]]
        assert list(storage.ask(SpansOf(new.id))) == spans
        self._parted_run(storage, "old")  # its external_identifier is free again, and there is a place for it

    def test_a_partition_with_a_run_that_may_stay_is_not_removed(self, storage: Storage) -> None:
        """One that is open, has an open span, ended late, or was closed for a program that may go on in it."""
        self.answered(storage, Partitions)
        gone = self._parted_run(storage, "gone", DAYS + 40)
        is_open = self._old(storage, "open", DAYS)
        half = self._parted_run(storage, "half", DAYS - 40)
        self.put(storage, self.rows.span(half))
        before, writer = clock.now(), self.rows.ids.new()
        late = self._parted_run(storage, "late", DAYS - 80, finished_at=before)
        closed = self._parted_run(storage, "closed", DAYS - 120, closed_by="abandoned", writer_id=writer)
        storage.ask(MakePartitions(since=_ago(DAYS + 60), width="month"))
        asked: list[str] = []

        def asks(id: str) -> bool:
            asked.append(id)
            return False

        done = storage.ask(DropPartitions(before, asks, 5.0))
        assert (done.runs, asked) == (1, [writer])
        assert storage.ask(Find(gone.id)).rows == {}
        stay = (is_open, half, late, closed)
        assert set(storage.ask(Find(*(run.id for run in stay))).rows) == {run.id for run in stay}
        assert [storage.ask(Counts([run.id]))[run.id].total for run in stay] == [0, 3, 2, 2]
        assert storage.ask(DropPartitions(before, lambda id: id == writer, 5.0)).runs == 1
        assert storage.ask(Find(closed.id)).rows == {}

    def _old(self, storage: Storage, name: str, days: int, **values: Any) -> AgentInstanceRow:
        """Put an active run whose id says that it began so many days ago."""
        version, schema, run = self.rows.family(agent := self.rows.agent())
        at = datetime.now(UTC) - timedelta(days=days)
        id = ids.encode(int(at.timestamp() * 1000), *ids.decode(run.id)[1:])
        run = run._replace(id=id, external_identifier=name, **values)
        self.put(storage, agent, version, schema, run)
        return run

    def _parted_run(self, storage: Storage, name: str, days: int = DAYS, **values: Any) -> AgentInstanceRow:
        """Put a finished run with two finished spans, of which the first has a violation."""
        ended = {"status": "complete", "finished_at": _ago(days), "updated_at": T1}
        run = self._old(storage, name, days, **{**ended, **values})
        spans = [self.rows.span(run, status="complete") for _ in range(2)]
        storage.apply([Unit((PutSpans(spans, [(spans[0].id, violation())]),))])
        return run


def _ago(days: int) -> str:
    return clock.parse(datetime.now(UTC) - timedelta(days=days))
