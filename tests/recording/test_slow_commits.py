"""`durability="commit"` into a server that does not answer: a call waits a moment, nothing is lost or stored twice.

A call may wait 250 ms. The tests count what it waits for, because a machine is slow at times: the seconds that it gives
the server for an answer, and its pauses of a millisecond.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

import agentspan
from agentspan import Tracer, disk
from agentspan.model.changes import Put
from agentspan.recording import tracer as tracing
from agentspan.recording.sinks.commit import LOOK_S
from agentspan.storage.access import Wrapper
from agentspan.storage.location import Location
from agentspan.storage.postgres import connection
from agentspan.storage.postgres.storage import PostgresStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, Select, SpansOf
from agentspan.tuning import STANDARD
from tests import postgres
from tests.postgres_proxy import Proxy, proxy
from tests.processes.server_away import Touches
from tests.waiting import until

CALL_S = STANDARD.recording_wait_s
PAUSES = int(CALL_S / LOOK_S) + 1
"""The most pauses of a call that waits for the thread which writes."""


@pytest.fixture
def between(postgres_location: Location) -> Iterator[Proxy]:
    """A proxy in front of an empty schema, whose URL names it."""
    with proxy(postgres_location.text) as made:
        yield made


class Asked(Wrapper[Storage]):
    """Counts the questions for the account."""

    accounts = 0

    def ask(self, question: Any) -> Any:
        self.accounts += type(question) is Account
        return super().ask(question)


def test_a_call_reads_the_account_with_its_own_patience() -> None:
    """Where the server was opened later. The plain storage waits 30 s for each answer."""
    tracer = Tracer(":memory:")
    destination = tracing.recorder_of(tracer).destination
    destination._is_account_read = False
    call = Asked(destination.store)
    destination.identity_now(call)
    assert call.accounts == 2, "the account, and whether it is still that of the server"
    tracer.shutdown()


@pytest.fixture
def tracer(between: Proxy) -> Iterator[Tracer]:
    made = Tracer(between.url, durability="commit")
    yield made
    between.is_silent = between.refuses = False
    made.shutdown()


class Waits:
    """What the calls of this thread wait for.

    Attributes:
        answers_s: how long each wait for an answer of the server may be.
        pauses: how many times this thread slept.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers_s: list[float] = []
        self.pauses = 0
        here, limited, sleep = threading.get_ident(), connection._limited, time.sleep

        def noting(gen: Any, socket: int, within_s: float, *how: Any) -> Any:
            if threading.get_ident() == here:
                self.answers_s.append(within_s)
            return limited(gen, socket, within_s, *how)

        def counting(seconds: float) -> None:
            self.pauses += threading.get_ident() == here
            sleep(seconds)

        monkeypatch.setattr(connection, "_limited", noting)
        monkeypatch.setattr(disk, "sleep", counting)
        monkeypatch.setattr(time, "sleep", counting)

    def of(self, call: Callable[[], Any]) -> tuple[list[float], int]:
        """Return what one call waits for."""
        self.answers_s, self.pauses = [], 0
        call()
        return self.answers_s, self.pauses


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    return Waits(monkeypatch)


def step(tracer: Any, name: str = "n") -> Any:
    with tracer.span("tool", {"name": name}) as span:
        pass
    return span


def stored(url: str) -> list[tuple[str, str, str]]:
    """Return label, status and payload of all spans; nothing may have been refused."""
    with agentspan.open(url) as db:
        assert db.storage.ask(Select("select count(*) from refused_changes")).rows == [(0,)]
        found = [span for run in db.agent_instances.list() for span in db.storage.ask(SpansOf(run.id))]
        assert len({span.id for span in found}) == len(found)
        return [(span.label or "", span.status, span.payload) for span in found]


def test_a_server_that_falls_silent_costs_one_call_a_moment_and_the_next_ones_nothing(
    tracer: Tracer, between: Proxy, waits: Waits
) -> None:
    with tracer.run("a"):
        step(tracer, "before")
        until(lambda: not tracer.health().waiting)  # on a slow machine, its answer came too late
        between.is_silent = True
        answers_s, pauses = waits.of(lambda: step(tracer, "first"))
        assert answers_s
        assert max(answers_s) <= CALL_S
        assert pauses <= PAUSES
        touches = Touches()
        assert waits.of(lambda: [step(tracer, str(number)) for number in range(200)]) == ([], 0)
        assert touches.count == 0
        health = tracer.health()
        assert (health.failed, health.waiting) == (0, 2 * 201)
        between.is_silent = False
        until(lambda: not tracer.health().waiting)  # a thread writes them
        assert touches.count == 0
        step(tracer, "after")
        assert touches.count >= 1
        until(lambda: not tracer.health().waiting)
    assert tracer.health()[:3] == (2 + 2 * 203, 0, 0)
    labels = sorted(label for label, status, _ in stored(between.url) if status == "complete")
    assert labels == sorted(["before", "first", *map(str, range(200)), "after"])


def test_an_answer_that_did_not_come_is_looked_up_and_nothing_is_sent_twice(
    tracer: Tracer, between: Proxy, postgres_location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    send = PostgresStorage._sent

    def noting(storage: PostgresStorage, units: Any, *args: Any) -> Any:
        sent.extend(units)
        return send(storage, units, *args)

    monkeypatch.setattr(PostgresStorage, "_sent", noting)
    with tracer.run("a"):
        step(tracer)
        until(lambda: not tracer.health().waiting)
        between.delay_s = 60.0
        late = step(tracer, "late")
        assert tracer.health().waiting
        until(lambda: "late" in [label for label, *_ in stored(postgres_location.text)])  # its answer is on the way
        before = len(sent)
        between.delay_s = 0.0
        until(lambda: not tracer.health().waiting)
    puts = [unit.changes[0].row.id for unit in sent[before:] if isinstance(unit.changes[0], Put)]
    assert late.id not in puts
    assert [label for label, *_ in stored(between.url)] == ["n", "late"]


@pytest.mark.full
def test_what_is_still_on_its_way_to_the_server_is_not_stored_after_what_came_later(
    tracer: Tracer, between: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psycopg._preparing.PrepareManager.prepare_threshold", None)
    with tracer.run("a"), tracer.span("tool", {"name": "n"}) as span:
        span.update_payload({"number": 0})
        between.held = threading.Event()  # as a router may: what comes now goes on when all is over
        span.update_payload({"number": 1})
        span.update_payload({"number": 2})
        held, between.held = between.held, None
        until(lambda: not tracer.health().waiting)
        held.set()
        time.sleep(0.2)
    ((_, status, payload),) = stored(between.url)
    assert (status, payload) == ("complete", '{"name":"n","number":2}')


@pytest.mark.parametrize("away", ["is_silent", "refuses"])
def test_the_very_first_call_waits_a_moment_and_is_stored_when_the_server_is_there(
    between: Proxy, waits: Waits, away: str
) -> None:
    agentspan.configure(between.url, durability="commit")  # which would raise where the server is away
    agentspan.shutdown()
    setattr(between, away, True)

    def first() -> None:
        with agentspan.run("a"):
            step(agentspan, "first")

    try:
        answers_s, pauses = waits.of(first)
        assert answers_s == [], "a thread of agentspan connects"
        assert pauses <= PAUSES
        assert agentspan.health().failed == 0
    finally:
        setattr(between, away, False)
    until(lambda: agentspan.flush(1))
    assert [(label, status) for label, status, _ in stored(between.url)] == [("first", "complete")]


def test_a_call_that_needs_a_connection_returns_when_its_span_is_stored(between: Proxy) -> None:
    tracer = Tracer(between.url, durability="commit", tuning=STANDARD._replace(recording_wait_s=9.0))
    with tracer.run("a") as run:
        threads = [threading.Thread(target=lambda: run.create_span("tool", {"name": "n"})) for _ in range(4)]
        tracer.storage.direct._connections._idle.clear()  # type: ignore[attr-defined]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tracer.health().waiting == 0
        assert len(stored(between.url)) == 4
    tracer.shutdown()


@pytest.mark.full
def test_a_transaction_that_is_not_answered_is_waited_for_as_long_as_a_statement(between: Proxy, waits: Waits) -> None:
    """Its second attempt finds no connection. The call does not wait once more, for the thread that makes one."""
    tracer = Tracer(between.url, durability="commit", tuning=STANDARD._replace(recording_wait_s=2.0))
    with tracer.run("a") as run:
        between.is_silent = True
        answers_s, pauses = waits.of(lambda: run.score("reward", 1))
        assert max(answers_s) <= 2.0
        assert pauses == 0
        between.is_silent = False
        until(lambda: not tracer.health().waiting)
    assert tracer.health()[:3] == (3, 0, 0)
    tracer.shutdown()


@pytest.mark.full
def test_a_forked_child_connects_without_its_parents_thread(tracer: Tracer, between: Proxy) -> None:
    with tracer.run("a"):
        between.is_silent = True
        step(tracer, "parent")
        child = os.fork()
        if child == 0:
            between.is_silent = False
            step(tracer, "child")
            os._exit(0 if tracer.flush(20) else 1)
        between.is_silent = False
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert tracer.flush(20)
    assert sorted(label for label, *_ in stored(between.url)) == ["child", "parent"]


@pytest.mark.full
def test_a_server_that_is_stopped_and_goes_on_has_everything_once(waits: Waits) -> None:
    server = postgres.Server()
    server.start()
    try:
        tracer = Tracer(server.url, durability="commit")
        longest_s, most, count = 0.0, 0, 0
        with tracer.run("a"):
            for _ in range(3):
                ends = threading.Timer(0.7, server.signal, (signal.SIGCONT,))
                stops = threading.Timer(0.1, server.signal, (signal.SIGSTOP,))
                for each in (stops, ends):
                    each.start()
                until_s = time.monotonic() + 1.5
                while time.monotonic() < until_s:
                    answers_s, pauses = waits.of(partial(step, tracer, str(count)))
                    longest_s, most = max(longest_s, *answers_s, 0.0), max(most, pauses)
                    count += 1
                    time.sleep(0.001)
                ends.join()
        assert longest_s <= CALL_S
        assert most <= 2 * PAUSES  # of two calls
        assert tracer.flush(30)
        assert tracer.health()[:3] == (2 + 2 * count, 0, 0)
        found = stored(server.url)
        assert sorted(label for label, *_ in found) == sorted(map(str, range(count)))
        assert {status for _, status, _ in found} == {"complete"}
        tracer.shutdown()
    finally:
        server.signal(signal.SIGCONT)
        server.remove()
    tracing.forget()
