"""Contract of a storage that claims groups; they also show how long a writer waits for another one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from agentspan.errors import DatabaseBusy
from agentspan.model.changes import Applied, Key, Put, Refused, Unit
from agentspan.storage.protocol import Groups, Query, Storage, Waiting
from agentspan.testing.contract.base import Base
from agentspan.testing.contract.rows import T0, finish


class Grouping(Base):
    """Contract: groups."""

    long_s = 30.0
    """Longer than anything here takes: what is not done then never will be."""

    def test_a_group_sees_what_it_wrote_and_is_whole_or_nothing(self, storage: Storage) -> None:
        """A group returns, or raises, what its function returns or raises."""
        groups: Groups = self.claimed(storage, "groups")
        instance = self.instance(storage)
        one, two = self.rows.span(instance), self.rows.span(instance)

        def work(group: Storage) -> str:
            assert group.apply([Unit((Put(one),), one.id)]) == [Applied(one)]
            assert group.find(one.id).rows[one.id][1] == one
            assert group.apply([Unit((Put(one),))]) == [Refused("id_used", one)]
            assert group.apply([Unit((Put(two),))]) == [Applied()]
            assert list(group.iter_spans(instance.id)) == [one, two]
            return "done"

        assert groups.group(work, 1.0) == "done"
        before = list(storage.iter_spans(instance.id))
        assert before == [one, two]
        key, raised = Key("create", "k", "h", T0), ZeroDivisionError()

        def fail(group: Storage) -> None:
            lost = self.rows.span(instance)
            units = [Unit((Put(lost),), lost.id, key), Unit((finish(one.id),)), Unit((Put(self.rows.agent("lost")),))]
            assert len(group.apply(units)) == 3
            raise raised

        with pytest.raises(ZeroDivisionError) as caught:
            groups.group(fail, 1.0)
        assert caught.value is raised
        assert list(storage.iter_spans(instance.id)) == before
        assert storage.find(key=key).key is None
        assert storage.apply([Unit((Put(self.rows.agent("lost")),))]) == [Applied()]

    def test_nobody_reads_what_a_group_takes_back(self, storage: Storage) -> None:
        """Another thread waits, or sees nothing of it."""
        groups: Groups = self.claimed(storage, "groups")
        seen: list[int] = []
        lost = self.rows.agent("lost")
        reader = threading.Thread(target=lambda: seen.append(len(storage.page(Query("agent")).rows)))

        def fail(group: Storage) -> None:
            self.put(group, lost)
            reader.start()
            reader.join(0.2)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            groups.group(fail, 1.0)
        reader.join(self.long_s)
        assert seen == [0]

    def test_a_writer_waits_for_another_one_as_long_as_it_may(self, storage: Storage) -> None:
        """Then it raises DatabaseBusy, and nothing of it is stored; where the other one is done in time, it is applied.

        A storage whose writers need not wait for each other applies at once.
        """
        groups: Groups = self.claimed(storage, "groups")
        instance = self.instance(storage)
        late, soon = self.rows.span(instance), self.rows.span(instance)
        with _group_under_way(groups, self.long_s):
            waited = _in_thread(lambda: storage.apply([Unit((Put(late),))], wait_s=0.05))
            waited.join(self.long_s)
            assert not waited.is_alive(), "apply waits longer than wait_s; it should raise DatabaseBusy"
            grouped = _in_thread(lambda: groups.group(_nothing, 0.05))
            grouped.join(self.long_s)
            assert not grouped.is_alive(), "group waits longer than wait_s; it should raise DatabaseBusy"
        assert isinstance(waited.result, DatabaseBusy) or waited.result == [Applied()], repr(waited.result)
        assert grouped.result is None or isinstance(grouped.result, DatabaseBusy), repr(grouped.result)
        stored = [late] if waited.result == [Applied()] else []
        assert list(storage.iter_spans(instance.id)) == stored
        with _group_under_way(groups, self.long_s):
            waited = _in_thread(lambda: storage.apply([Unit((Put(soon),))], wait_s=self.long_s))
            waited.join(0.3)
        waited.join(self.long_s)
        assert waited.result == [Applied()], repr(waited.result)
        assert list(storage.iter_spans(instance.id)) == [*stored, soon]

    def test_reading_waits_no_longer_than_it_may(self, storage: Storage) -> None:
        """While another thread writes it answers, or raises DatabaseBusy. Where the storage claims waiting."""
        waiting: Waiting = self.claimed(storage, "waiting")
        groups: Groups = self.claimed(storage, "groups")
        instance = self.instance(storage)
        waiting.wait_at_most(0.05)
        with _group_under_way(groups, self.long_s):
            reader = _in_thread(lambda: storage.page(Query("agent_instance")).rows)
            reader.join(self.long_s)
            assert not reader.is_alive(), "reading waits longer than wait_at_most allows"
        assert reader.result == [instance] or isinstance(reader.result, DatabaseBusy), repr(reader.result)
        waiting.wait_at_most(self.long_s)
        assert storage.page(Query("agent_instance")).rows == [instance]


def _nothing(group: Storage) -> None:
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
def _group_under_way(groups: Groups, long_s: float) -> Iterator[None]:
    """Keep a group open in another thread."""
    began, ends = threading.Event(), threading.Event()

    def work(group: Storage) -> None:
        group.find("x")
        began.set()
        ends.wait(2 * long_s)

    holder = threading.Thread(target=lambda: groups.group(work, long_s), daemon=True)
    holder.start()
    assert began.wait(long_s)
    try:
        yield
    finally:
        ends.set()
        holder.join(long_s)
