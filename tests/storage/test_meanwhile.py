"""The work that a thread does while it waits for a server."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext

import pytest

from agentspan.host import is_interrupt
from agentspan.storage import patience
from agentspan.storage.location import Location
from agentspan.storage.postgres.connection import Connection, pipelined
from agentspan.storage.postgres.connections import Connections


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


def test_a_thread_without_work_has_none_to_do() -> None:
    assert not patience.step()


def test_it_is_done_in_steps_until_none_is_left() -> None:
    left = [True, True, False, True]
    with patience.doing(lambda: left.pop(0)):
        assert [patience.step() for _ in range(5)] == [True, True, False, False, False]
    assert left == [True]


def test_it_ends_with_its_block() -> None:
    done: list[bool] = []

    def fail() -> None:
        with patience.doing(lambda: True):
            done.append(patience.step())
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        fail()
    assert done == [True]
    assert not patience.step()


def test_what_waits_within_the_work_has_none_to_do() -> None:
    within: list[bool] = []

    def work() -> bool:
        within.append(patience.step())
        return True

    with patience.doing(work):
        assert patience.step()
        assert patience.step()
    assert within == [False, False]


def test_it_is_that_of_one_thread() -> None:
    found: list[bool] = []
    with patience.doing(lambda: True):
        other = threading.Thread(target=lambda: found.append(patience.step()))
        other.start()
        other.join()
    assert found == [False]


@pytest.mark.full
def test_a_connection_does_it_until_the_answer_is_there(connection: Connection, release: Callable[[], object]) -> None:
    count = 0

    def work() -> bool:
        nonlocal count
        count += 1
        if count == 6:
            release()
        time.sleep(0.05)
        return True

    with patience.doing(work):
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

    with patience.doing(work), pytest.raises(Exception, match="division by zero"):
        connection.execute(f"select {WAITS}, 1 / (random() * 0)::int")
    assert count == 3


def test_an_interrupt_in_it_ends_the_statement(connection: Connection) -> None:
    def work() -> bool:
        raise KeyboardInterrupt

    with patience.doing(work), pytest.raises(KeyboardInterrupt):
        connection.execute("select pg_sleep(5)")
    assert not patience.step()


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
