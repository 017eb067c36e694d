"""Contract tests: many threads, a forked child, and closing."""

import os
import pickle
import signal
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import pytest

from agentspan.errors import StorageError
from agentspan.host import is_readable
from agentspan.model.changes import Applied, Put, Unit
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.patience import Patience, Unconnected, of_a_call
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, Query, SpansOf
from agentspan.testing.contract.base import Base, finish, racing

T = TypeVar("T")
WAIT_S = 30.0


def in_child(work: Callable[[], T]) -> T:
    """Return the result of a function in a forked child; fail if it raises, or takes longer than WAIT_S."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: other threads run, such as pytest-xdist's
        child = os.fork()
    if child == 0:
        try:
            sent = pickle.dumps((True, work()))
        except BaseException:
            sent = pickle.dumps((False, traceback.format_exc()))
        try:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(sent)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        try:
            answer = pipe.read() if is_readable(pipe, WAIT_S) else b""
        finally:
            if not is_readable(pipe):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert answer, f"the forked child was not done after {WAIT_S:.0f} s"
    is_done, result = pickle.loads(answer)
    assert is_done, f"in the forked child:\n{result}"
    done: T = result
    return done


class Using(Base):
    """Contract tests: use by many threads and by a forked child, and closing."""

    def test_of_many_threads_one_wins(self, storage: Storage) -> None:
        """Eight threads finish the same 50 spans, each at the same moment."""
        instance = self.instance(storage)
        spans = [self.rows.span(instance) for _ in range(50)]
        self.put(storage, *spans)
        wins: list[str] = []
        together = threading.Barrier(8)

        def work() -> None:
            for span in spans:
                together.wait(30)
                if isinstance(storage.apply([Unit((finish(span.id),))])[0], Applied):
                    wins.append(span.id)

        with racing(*[work] * 8, switch_s=1e-6):
            pass
        assert sorted(wins) == [span.id for span in spans]

    def test_reads_are_whole_while_others_write(self, storage: Storage) -> None:
        """Three threads read while one applies units of two spans: they see both spans of a unit, or none."""
        instance = self.instance(storage)
        is_done, faults = threading.Event(), list[object]()
        reads: list[Callable[[], int]] = [
            lambda: len(list(storage.ask(SpansOf(instance.id)))),
            lambda: len(storage.ask(Query("agent_span")).rows),
            lambda: storage.ask(Counts([instance.id]))[instance.id].total,
        ]

        def read(count: Callable[[], int]) -> None:
            before = 0
            try:
                while not is_done.is_set() and not faults:
                    before, number = count(), before
                    if before % 2 or before < number:
                        faults.append(f"{before} spans after {number}, of units of two")
            except Exception as error:
                faults.append(error)

        with racing(*(partial(read, count) for count in reads), switch_s=1e-5):
            try:
                for _ in range(60):
                    unit = Unit(tuple(Put(self.rows.span(instance)) for _ in range(2)))
                    assert storage.apply([unit]) == [Applied()]
            finally:
                is_done.set()
        assert faults == []
        assert [count() for count in reads] == [120, 120, 120]

    def test_a_storage_for_a_caller_with_a_patience_is_the_same_storage(self, storage: Storage) -> None:
        """It has the same rows, whatever work its caller does meanwhile, and is closed with the other one."""
        work = iter([True, False] * 1000)
        limited = self.patient(storage, Patience(answer_s=30.0, meanwhile=lambda: next(work, False)))
        assert limited.capabilities() == storage.capabilities()
        instance = self.instance(limited)
        one, two = self.rows.span(instance), self.rows.span(instance)
        self.put(storage, one)
        self.put(limited, two)
        hurried = self.patient(limited, of_a_call(30.0))
        for each in (storage, limited, hurried):
            with suppress(Unconnected):  # a recording call opens no connection
                assert list(each.ask(SpansOf(instance.id))) == [one, two]
        storage.close()
        for each in (limited, hurried):
            with pytest.raises(StorageError):
                each.ask(Query("agent"))

    def test_a_forked_child_goes_on(self, storage: Storage) -> None:
        """A forked child and its parent read and write, also if another thread was writing at the fork."""
        instance, other = self.instance(storage), self.instance(storage)
        first, *spans, last = (self.rows.span(instance) for _ in range(6))
        self.put(storage, first)
        has_one_place = storage.capabilities().location is not None
        is_forked, faults = threading.Event(), list[Exception]()

        def write() -> None:
            try:
                while not is_forked.is_set():
                    self.put(storage, self.rows.span(other))
            except Exception as error:
                faults.append(error)

        def go_on(number: int) -> list[AgentSpanRow]:
            assert storage.ask(Find(first.id)).rows[first.id] == ("agent_span", first)
            span = spans[number]
            assert storage.apply([Unit((Put(span),), span.id)]) == [Applied(span)]
            return list(storage.ask(SpansOf(instance.id)))

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for number in range(len(spans)):
                seen = spans[: number + 1] if has_one_place else [spans[number]]
                assert in_child(partial(go_on, number)) == [first, *seen]
        finally:
            is_forked.set()
            thread.join()
        assert faults == []
        self.put(storage, last)
        assert list(storage.ask(SpansOf(instance.id))) == [first, *(spans if has_one_place else []), last]
