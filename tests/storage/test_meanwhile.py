"""How long a storage waits for a server, and the work that its thread does until then."""

import gc
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from typing import Any

import pytest

from agentspan.errors import StorageError
from agentspan.host import is_interrupt
from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.patience import ENDLESS, Patience, Unconnected, of_a_call, waiting
from agentspan.storage.postgres.connection import Connection, pipelined
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.questions import Query, Select
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.using import in_child


@pytest.fixture
def connection(postgres_location: Location) -> Iterator[Connection]:
    with (
        closing(Connections(postgres_location, read_only=False, wait_s=10)) as connections,
        connections.lent(10) as one,
    ):
        yield one


@pytest.fixture
def release(postgres_location: Location) -> Iterator[Callable[[], object]]:
    """Hold what WAITS waits for; yield how to release it."""
    with (
        closing(Connections(postgres_location, read_only=False, wait_s=10)) as connections,
        connections.lent(10) as one,
    ):
        one.execute("select pg_advisory_lock(20261124)")
        yield lambda: one.execute("select pg_advisory_unlock(20261124)")


WAITS = "pg_advisory_xact_lock(20261124)"
"""An expression that waits until the test releases it."""


def test_of_two_patiences_the_shorter_limits_hold_and_the_work_of_the_inner_one() -> None:
    outer, inner = Patience(answer_s=5, until=7.0, meanwhile=bool), Patience(answer_s=30, until=6.0)
    assert inner.within(outer) == outer.within(inner) == Patience(5, 6.0, bool)
    assert (Patience(answer_s=5).may_connect, inner.may_connect, ENDLESS.most_s()) == (True, False, float("inf"))
    assert (of_a_call(0.0).left_s(), Patience(answer_s=5).most_s()) == (0.0, 5)
    assert 0.1 < of_a_call(60).within(Patience(answer_s=90)).most_s() <= 60


def test_a_server_is_the_same_with_a_limit_and_what_never_waits_is_itself(postgres_location: Location) -> None:
    with closing(MemoryStorage()) as memory, closing(open_direct(postgres_location)) as server:
        assert waiting(memory, of_a_call(0.0)) is memory
        limited = waiting(server, Patience(answer_s=0.3))
        with pytest.raises(StorageError, match=r"no answer within 0\.3 s"):
            limited.ask(Select("select pg_sleep(5)"))
        with pytest.raises(Unconnected):  # it needs a connection of its own
            waiting(limited, of_a_call(60)).ask(Select("select 1"))
        assert server.ask(Select("select pg_sleep(0.4)::text")).rows == [("",)]
        assert limited.capabilities() == server.capabilities()
        server.close()
        with pytest.raises(StorageError, match="is closed"):
            limited.ask(Query("agent"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_copy_for_a_caller_that_is_kept_alone_has_connections_of_its_own_in_a_forked_child(
    postgres_location: Location,
) -> None:
    def backends() -> set[Any]:
        limited.ask(Query("agent"))
        return {each.backend for each in limited._connections._idle}

    limited: Any = waiting(open_direct(postgres_location), Patience(answer_s=30))
    gc.collect()
    with closing(limited):
        ours = backends()
        theirs = in_child(backends)
        assert theirs
        assert not theirs & ours
        assert backends() == ours


def test_a_storage_that_is_opened_later_is_not_opened_by_a_recording_call(postgres_location: Location) -> None:
    with closing(open_direct(postgres_location, later=True)) as server:
        hurried, patient = waiting(server, of_a_call(60)), waiting(server, Patience(answer_s=60))
        with pytest.raises(Unconnected, match="not open yet"):
            hurried.ask(Query("agent"))
        assert patient.ask(Query("agent")).rows == hurried.ask(Query("agent")).rows == []


@pytest.mark.full
@pytest.mark.parametrize("has_poll", [True, False])
def test_a_connection_does_it_until_the_answer_is_there(
    connection: Connection, release: Callable[[], object], monkeypatch: pytest.MonkeyPatch, *, has_poll: bool
) -> None:
    if not has_poll:  # as on Windows
        monkeypatch.delattr(select, "poll")
    count = 0

    def work() -> bool:
        nonlocal count
        count += 1
        if count == 6:
            release()
        time.sleep(0.05)
        return True

    connection.patience = Patience(meanwhile=work)
    connection.execute(f"select {WAITS}")
    during = count
    connection.execute("select 1")
    assert 6 <= during <= 6 + 5  # within five steps, a quarter of a second, the answer is there
    assert count - during <= 5


def test_an_error_of_the_server_comes_after_it(connection: Connection, release: Callable[[], object]) -> None:
    count = 0

    def work() -> bool:
        nonlocal count
        count += 1
        if count == 3:
            release()
        return count < 3

    connection.patience = Patience(meanwhile=work)
    with pytest.raises(Exception, match="division by zero"):
        connection.execute(f"select {WAITS}, 1 / (random() * 0)::int")
    assert count == 3


def test_an_interrupt_in_it_ends_the_statement(connection: Connection) -> None:
    def work() -> bool:
        raise KeyboardInterrupt

    connection.patience = Patience(meanwhile=work)
    with pytest.raises(KeyboardInterrupt):
        connection.execute("select pg_sleep(5)")


@pytest.mark.parametrize("is_pipeline", [False, True])
def test_what_a_signal_handler_raises_in_a_wait_is_told_from_a_fault(
    connection: Connection, *, is_pipeline: bool
) -> None:
    def handler(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(TimeoutError) as raised, pipelined(connection) if is_pipeline else nullcontext():
            connection.execute("select pg_sleep(5)")
        assert is_interrupt(raised.value)
    finally:
        signal.signal(signal.SIGALRM, before)
