"""Contract tests of groups and partitions. They also check how long a writer waits for another writer."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from agentspan import clock, ids
from agentspan.errors import DatabaseBusy, StorageError
from agentspan.model.changes import Applied, Key, Put, PutSpans, Refused, Unit
from agentspan.model.rows import AgentInstanceRow, RefusedChangeRow, ScoreRow, TagRow
from agentspan.storage.answers import KeyRow
from agentspan.storage.patience import Patience
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    Counts,
    DropPartitions,
    Find,
    MakePartitions,
    MissingPartitions,
    Partitions,
    PutKeys,
    Query,
    RemoveKeys,
    RemoveRuns,
    SpansOf,
    TablesState,
    Violations,
    WaitAtMost,
)
from agentspan.testing.contract.base import T0, T1, Base, finish, violation


class Grouping(Base):
    """Contract tests: groups of changes in one transaction."""

    long_s = 30.0
    """Seconds that no step of these tests takes: a step that is not done by then hangs."""

    def test_a_group_sees_what_it_wrote_and_is_whole_or_nothing(self, storage: Storage) -> None:
        """A group returns, or raises, what its function returns or raises."""
        instance = self.instance(storage)
        one, two = self.rows.span(instance), self.rows.span(instance)

        def work(group: Storage) -> str:
            assert group.apply([Unit((Put(one),), one.id)]) == [Applied(one)]
            assert group.ask(Find(one.id)).rows[one.id][1] == one
            assert group.apply([Unit((Put(one),))]) == [Refused("id_used", one)]
            assert group.apply([Unit((Put(two),))]) == [Applied()]
            assert list(group.ask(SpansOf(instance.id))) == [one, two]
            return "done"

        assert storage.group(work, 1.0) == "done"
        before = list(storage.ask(SpansOf(instance.id)))
        assert before == [one, two]
        key, raised = Key("create", "k", "h", T0), ZeroDivisionError()

        def fail(group: Storage) -> None:
            lost = self.rows.span(instance)
            units = [Unit((Put(lost),), lost.id, key), Unit((finish(one.id),)), Unit((Put(self.rows.agent("lost")),))]
            assert len(group.apply(units)) == 3
            raise raised

        with pytest.raises(ZeroDivisionError) as caught:
            storage.group(fail, 1.0)
        assert caught.value is raised
        assert list(storage.ask(SpansOf(instance.id))) == before
        assert storage.ask(Find(key=key)).key is None
        assert storage.apply([Unit((Put(self.rows.agent("lost")),))]) == [Applied()]

    def test_a_group_that_is_interrupted_is_taken_back(self, storage: Storage) -> None:
        """KeyboardInterrupt, SystemExit and any other BaseException roll the group back, and are raised."""
        run = self.instance(storage)
        for raised in (KeyboardInterrupt(), SystemExit(3), GeneratorExit(), _Interrupt()):

            def work(group: Storage, raised: BaseException = raised) -> None:
                self.put(group, self.rows.span(run), self.rows.agent("lost"))
                raise raised

            with pytest.raises(type(raised)) as caught:
                storage.group(work, 1.0)
            assert caught.value is raised
            assert list(storage.ask(SpansOf(run.id))) == []
        self.put(storage, self.rows.agent("lost"))

    def test_nobody_reads_what_a_group_takes_back(self, storage: Storage) -> None:
        """A reader in another thread waits, or reads no uncommitted row."""
        seen: list[int] = []
        lost = self.rows.agent("lost")
        reader = threading.Thread(target=lambda: seen.append(len(storage.ask(Query("agent")).rows)))

        def fail(group: Storage) -> None:
            self.put(group, lost)
            reader.start()
            reader.join(0.2)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            storage.group(fail, 1.0)
        reader.join(self.long_s)
        assert seen == [0]

    def test_a_writer_waits_for_another_one_as_long_as_it_may(self, storage: Storage) -> None:
        """Then it raises DatabaseBusy, and nothing of it is stored; where the other one is done in time, it is applied.

        A storage whose writers need not wait for each other applies at once.
        """
        instance = self.instance(storage)
        late, soon = self.rows.span(instance), self.rows.span(instance)
        with _group_under_way(storage, self.long_s):
            waited = _in_thread(lambda: storage.apply([Unit((Put(late),))], wait_s=0.05))
            waited.join(self.long_s)
            assert not waited.is_alive(), "apply waits longer than wait_s; it should raise DatabaseBusy"
            grouped = _in_thread(lambda: storage.group(_nothing, 0.05))
            grouped.join(self.long_s)
            assert not grouped.is_alive(), "group waits longer than wait_s; it should raise DatabaseBusy"
        assert isinstance(waited.result, DatabaseBusy) or waited.result == [Applied()], repr(waited.result)
        assert grouped.result is None or isinstance(grouped.result, DatabaseBusy), repr(grouped.result)
        stored = [late] if waited.result == [Applied()] else []
        assert list(storage.ask(SpansOf(instance.id))) == stored
        with _group_under_way(storage, self.long_s):
            waited = _in_thread(lambda: storage.apply([Unit((Put(soon),))], wait_s=self.long_s))
            waited.join(0.3)
        waited.join(self.long_s)
        assert waited.result == [Applied()], repr(waited.result)
        assert list(storage.ask(SpansOf(instance.id))) == [*stored, soon]

    def test_each_writer_waits_as_long_as_its_caller_says(self, storage: Storage) -> None:
        """Two writers wait for a third one. When the one with less time gives up, the other one still waits."""
        can, run = storage.capabilities(), self.rows.ids.new()
        writes: dict[str, Callable[[float], object]] = {
            "apply": lambda wait_s: storage.apply([Unit((Put(self.rows.agent()),))], wait_s=wait_s),
            "group": lambda wait_s: storage.group(_nothing, wait_s),
        }
        if RemoveRuns in can.answers:
            writes["remove_runs"] = lambda wait_s: storage.ask(RemoveRuns([run], wait_s))
            writes["remove_keys"] = lambda wait_s: storage.ask(RemoveKeys(T0, wait_s))
        if PutKeys in can.answers:
            writes["put_keys"] = lambda wait_s: storage.ask(PutKeys([KeyRow("op", "k", "h", run, T0)], wait_s))
        with _group_under_way(storage, self.long_s):
            patient = {name: _in_thread(partial(write, self.long_s)) for name, write in writes.items()}
            for name, write in writes.items():
                hasty = _in_thread(partial(write, 0.05))
                hasty.join(self.long_s)
                assert not hasty.is_alive(), f"{name} waits longer than wait_s"
            patient["apply"].join(0.1)  # writers that give up together with the hasty one have ended by then
            gave_up = [name for name, thread in patient.items() if isinstance(thread.result, Exception)]
            assert gave_up == [], "these do not wait for wait_s"
        for name, thread in patient.items():
            thread.join(self.long_s)
            assert not isinstance(thread.result, Exception), (name, thread.result)

    def test_reading_waits_no_longer_than_it_may(self, storage: Storage) -> None:
        """While another thread writes, a read answers or raises DatabaseBusy. Skipped if WaitAtMost is not answered."""
        self.answered(storage, WaitAtMost)
        instance = self.instance(storage)
        storage.ask(WaitAtMost(0.05))
        with _group_under_way(storage, self.long_s):
            reader = _in_thread(lambda: storage.ask(Query("agent_instance")).rows)
            reader.join(self.long_s)
            assert not reader.is_alive(), "reading waits longer than wait_at_most allows"
        assert reader.result == [instance] or isinstance(reader.result, DatabaseBusy), repr(reader.result)
        storage.ask(WaitAtMost(self.long_s))
        assert storage.ask(Query("agent_instance")).rows == [instance]

    def test_a_caller_waits_as_long_as_its_patience_and_others_wait_longer(self, storage: Storage) -> None:
        """A group holds a span. A caller with little patience gets a StorageError, another one still waits."""
        hurried, wait_s = self.patient(storage, Patience(answer_s=0.1)), 2 * self.long_s
        instance = self.instance(storage)
        span = self.rows.span(instance)
        self.put(storage, span)
        unit = Unit((finish(span.id),))
        with _group_under_way(storage, self.long_s, [unit]):
            hasty = _in_thread(lambda: hurried.apply([unit], wait_s=wait_s))
            hasty.join(self.long_s)
            assert not hasty.is_alive(), "apply waits longer than its caller's patience"
            other = _in_thread(lambda: storage.apply([unit], wait_s=wait_s))
            other.join(0.3)
            assert other.result is None, f"another caller does not wait for wait_s: {other.result!r}"
        other.join(self.long_s)
        assert isinstance(hasty.result, StorageError), repr(hasty.result)
        assert other.result == [Refused("status", storage.ask(Find(span.id)).rows[span.id][1])], repr(other.result)


def _nothing(group: Storage) -> None:
    pass


class _Interrupt(BaseException):
    pass


class _Thread(threading.Thread):
    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self.result: object = None

    def run(self) -> None:
        try:
            self.result = self._work()
        except Exception as error:
            self.result = error


def _in_thread(work: Callable[[], object]) -> _Thread:
    thread = _Thread(work)
    thread.start()
    return thread


@contextmanager
def _group_under_way(storage: Storage, long_s: float, units: Sequence[Unit] = ()) -> Iterator[None]:
    """Keep a group open in another thread, which has applied units, while the with-block runs."""
    began, ends = threading.Event(), threading.Event()

    def work(group: Storage) -> None:
        group.ask(Find("x"))
        group.apply(units)
        began.set()
        ends.wait(2 * long_s)

    holder = threading.Thread(target=lambda: storage.group(work, long_s), daemon=True)
    holder.start()
    assert began.wait(long_s)
    try:
        yield
    finally:
        ends.set()
        holder.join(long_s)


DAYS = 400
"""The age in days of the runs in an old partition."""


class Parting(Base):
    """Contract tests: partitions by time."""

    def test_partitions_are_made_ahead_once(self, storage: Storage) -> None:
        """Each partition has a range of times, the default one has the rest. A second MakePartitions creates none."""
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
        """Spans, violations, refused changes, tags, scores, unique values are removed; other partitions stay."""
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
        """A run may stay if it is open, has an open span, ended late, or was closed for a program that is not dead."""
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
        """Put an active run whose id has the time of some days ago."""
        at = datetime.now(UTC) - timedelta(days=days)
        id = ids.encode(int(at.timestamp() * 1000), *ids.decode(self.rows.ids.new())[1:])
        return self.instance(storage, id=id, external_identifier=name, **values)

    def _parted_run(self, storage: Storage, name: str, days: int = DAYS, **values: Any) -> AgentInstanceRow:
        """Put a finished run with two finished spans, of which the first has a violation."""
        ended = {"status": "complete", "finished_at": _ago(days), "updated_at": T1}
        run = self._old(storage, name, days, **{**ended, **values})
        spans = [self.rows.span(run, status="complete") for _ in range(2)]
        storage.apply([Unit((PutSpans(spans, [(spans[0].id, violation())]),))])
        return run


def _ago(days: int) -> str:
    return clock.parse(datetime.now(UTC) - timedelta(days=days))
