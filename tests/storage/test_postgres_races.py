"""PostgreSQL with many writers at once: threads, processes, deadlocks, isolation levels. Nothing is lost, or twice."""

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentspan.errors import StorageError
from agentspan.model.changes import Applied, Key, Outcome, Put, PutSpans, Refused, Replayed, Unit
from agentspan.model.rows import AgentInstanceRow, Row
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, Select
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.base import T0, Rows, finish
from agentspan.tuning import STANDARD
from tests.postgres import Emptied
from tests.waiting import until

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

from agentspan.storage.postgres.connections import MOST  # noqa: E402  # needs psycopg

pytestmark = pytest.mark.full

PIDS = "select pid from pg_stat_activity where application_name = 'agentspan' order by pid"


@pytest.fixture
def storage(postgres_location: Location) -> Iterator[Storage]:
    made = open_direct(postgres_location)
    yield made
    made.close()


@pytest.fixture
def asked(postgres_server: Emptied) -> Iterator[Callable[[str], list[Any]]]:
    with psycopg.connect(postgres_server.url, autocommit=True, options="-csearch_path=shared") as connection:
        yield lambda sql: connection.execute(sql).fetchall()


def run_in(storage: Storage) -> AgentInstanceRow:
    rows = Rows()
    version, schema, run = rows.family(agent := rows.agent())
    begin: tuple[Row, ...] = (agent, version, schema, run)
    storage.apply([Unit((Put(row),)) for row in begin])
    return run


def in_threads(number: int, work: Callable[[int], object]) -> list[object]:
    """Call a function in so many threads at once; return what each returned, or raised."""
    done: list[object] = [None] * number
    begin = threading.Barrier(number)

    def one(which: int) -> None:
        begin.wait()
        try:
            done[which] = work(which)
        except Exception as error:
            done[which] = error

    threads = [threading.Thread(target=one, args=(which,)) for which in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def in_children(number: int, work: Callable[[int], object]) -> list[Any]:
    """Call a function in so many forked children at once; return what each returned, or the error's text."""
    pipes = []
    for which in range(number):
        reads, writes = os.pipe()
        if os.fork() == 0:
            try:
                done: object = work(which)
            except BaseException as error:
                done = repr(error)
            os.write(writes, pickle.dumps(done))
            os._exit(0)
        os.close(writes)
        pipes.append(reads)
    found = []
    for reads in pipes:
        with os.fdopen(reads, "rb") as pipe:
            found.append(pickle.loads(pipe.read()))
        os.wait()
    return found


def test_more_threads_than_connections_share_them(storage: Storage, asked: Callable[[str], list[Any]]) -> None:
    runs = [run_in(storage) for _ in range(4)]
    seen: list[int] = []

    def work(which: int) -> list[Outcome]:
        rows = Rows()
        outcomes = []
        for _ in range(3):
            span = rows.span(runs[which % 4])
            outcomes += storage.apply([Unit((Put(span, minted=True),)), Unit((finish(span.id),))], wait_s=30)
            assert storage.ask(Find(span.id)).rows
        if which == 0:
            seen.extend(pid for (pid,) in asked(PIDS))
        return outcomes

    assert in_threads(3 * MOST, work) == [[Applied()] * 6] * (3 * MOST)
    assert 1 < len(seen) <= MOST
    assert sum(counts.complete for counts in storage.ask(Counts([run.id for run in runs])).values()) == 9 * MOST


def test_a_forked_child_leaves_its_parents_connections_open(
    storage: Storage, asked: Callable[[str], list[Any]]
) -> None:
    """Idle ones, and one that another thread uses in the middle of a transaction."""
    run, rows = run_in(storage), Rows()
    began, goes_on = threading.Event(), threading.Event()
    inside = rows.span(run)

    def grouped(group: Storage) -> list[Outcome]:
        done = group.apply([Unit((Put(inside),))])
        began.set()
        assert goes_on.wait(30)
        return done

    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(storage.group(grouped, 30.0)))
    thread.start()
    assert began.wait(30)
    storage.ask(Find(run.id))
    before = asked(PIDS)

    def child(_: int) -> Any:
        span = Rows().span(run)
        done = storage.apply([Unit((Put(span),))], wait_s=30), storage.ask(Counts([run.id]))[run.id].total
        storage.close()
        return done

    done = in_children(2, child)
    assert [outcomes for outcomes, _ in done] == [[Applied()], [Applied()]]
    assert {number for _, number in done} <= {1, 2}  # of the children; the thread's is not committed
    assert set(before) <= set(asked(PIDS))
    goes_on.set()
    thread.join()
    assert outcomes == [[Applied()]]
    assert storage.ask(Counts([run.id]))[run.id].total == 3


@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_processes_that_race_for_a_finish_have_one_winner_each(
    storage: Storage, postgres_location: Location, isolation: str
) -> None:
    """With keys, the others are answered with the winner's row."""
    run, rows = run_in(storage), Rows()
    spans = [rows.span(run) for _ in range(12)]
    storage.apply([Unit((PutSpans(spans),))])
    options = f"options=-cdefault_transaction_isolation%3D{isolation.replace(' ', '%5C%20')}"
    url = f"{postgres_location.text}&{options}"

    def race(_: int) -> list[Outcome]:
        racing = open_direct(url)
        outcomes = []
        for number, span in enumerate(spans):
            if number % 3 == 0:
                unit = Unit((finish(span.id),))
            elif number % 3 == 1:
                unit = Unit((finish(span.id),), span.id, Key("finish", span.id, "h", T0))
            else:  # no statement of its own
                unit = Unit((finish(span.id), Put(Rows().agent())), span.id, Key("finish", span.id, "h", T0))
            outcomes += racing.apply([unit], wait_s=30)
        return outcomes

    found = in_children(4, race)
    for number, outcomes in enumerate(zip(*found, strict=True)):
        assert [type(outcome) for outcome in outcomes].count(Applied) == 1, found
        rest = Refused if number % 3 == 0 else Replayed
        assert [type(outcome) for outcome in outcomes].count(rest) == 3
    assert storage.ask(Counts([run.id]))[run.id].complete == 12


def test_a_request_that_waits_for_the_same_request_is_answered_with_its_row(
    storage: Storage, asked: Callable[[str], list[Any]]
) -> None:
    """The key was not there when it was looked at, and the span is finished when the lock is free."""
    run, rows = run_in(storage), Rows()
    span = rows.span(run)
    storage.apply([Unit((Put(span),))])

    def unit() -> Unit:
        return Unit((finish(span.id), Put(Rows().agent())), span.id, Key("finish", "k", "h", T0))

    outcomes: list[Any] = []
    waiting = threading.Thread(target=lambda: outcomes.extend(storage.apply([unit()], wait_s=30)))

    def first(group: Storage) -> list[Outcome]:
        done = group.apply([unit()])
        waiting.start()
        until(lambda: asked("select 1 from pg_stat_activity where wait_event_type = 'Lock'"))
        return done

    (applied,) = storage.group(first, 30.0)
    waiting.join()
    assert isinstance(applied, Applied)
    assert applied.row is not None
    assert outcomes == [Replayed(applied.row)]


def test_a_deadlock_is_resolved_by_doing_the_transaction_again(
    storage: Storage, postgres_location: Location, postgres_server: Emptied, asked: Callable[[str], list[Any]]
) -> None:
    """Agentspan's own writers lock runs in one order; a person's transaction may not."""
    runs, rows = sorted(run_in(storage) for _ in range(2)), Rows()
    victim = open_direct(f"{postgres_location.text}&options=-cdeadlock_timeout%3D50ms")
    lock = "select 1 from shared.agent_instances where id = %s for update"
    outcomes: list[Any] = []
    with psycopg.connect(postgres_server.url) as other:
        other.execute(lock, (runs[1].id,))
        units = [Unit((Put(rows.span(run)),)) for run in runs]
        thread = threading.Thread(target=lambda: outcomes.extend(victim.apply(units, wait_s=30)))
        thread.start()
        until(lambda: asked("select 1 from pg_stat_activity where wait_event_type = 'Lock'"))
        other.execute("set deadlock_timeout = '30s'")
        other.execute(lock, (runs[0].id,))
        other.commit()
    thread.join()
    victim.close()
    assert outcomes == [Applied(), Applied()]
    assert [storage.ask(Counts([run.id]))[run.id].total for run in runs] == [1, 1]


def test_every_wait_of_a_session_has_a_limit(storage: Storage) -> None:
    settings = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    assert (
        "0" not in storage.ask(Select("select " + ", ".join(f"current_setting('{name}')" for name in settings))).rows[0]
    )


def test_a_table_that_is_locked_does_not_stop_a_reader_for_ever(storage: Storage, postgres_server: Emptied) -> None:
    run = run_in(storage)
    storage.close()
    reader = open_direct(storage.capabilities().location, tuning=STANDARD._replace(postgres_lock_s=0.1))
    with psycopg.connect(postgres_server.url) as other:
        other.execute("lock table shared.agent_instances in access exclusive mode")
        with pytest.raises(StorageError, match="try again"):
            reader.ask(Find(run.id))
    assert reader.ask(Find(run.id)).rows
    reader.close()
