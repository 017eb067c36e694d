"""A storage that takes nothing while a program records: health tells how much waits, and when it is over."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from agentspan.journal.journal_folder import is_possible
from agentspan.storage.questions import Query, SpansOf
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.tuning import STANDARD
from tests.waiting import until

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs a journal")

WHY = "/the/file is damaged"


class Failing(SQLiteStorage):
    """A file that takes spans, or nothing."""

    fails = False

    def apply(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        if self.fails:
            raise agentspan.DatabaseUnusable(WHY)
        return super().apply(*args, **kwargs)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Failing]:
    made = Failing(tmp_path / "runs.db")
    yield made
    made.fails = False
    made.close()


@pytest.fixture
def tracer(storage: Failing) -> Iterator[agentspan.Tracer]:
    made = agentspan.Tracer(storage)
    yield made
    storage.fails = False
    made.shutdown()


def test_health_tells_how_much_waits_since_when_and_why(
    storage: Failing, tracer: agentspan.Tracer, caplog: pytest.LogCaptureFixture
) -> None:
    with tracer.run("a"):
        tracer.flush()
        assert tracer.health()[5:] == (0, 0.0, None)
        storage.fails = True
        for number in range(10):
            with tracer.span("tool", {"name": f"{number}" * 1000}):
                pass
        until(lambda: tracer.health().last_error == WHY)
        health = tracer.health()
        assert (health.recorded, health.failed, health.waiting) == (21, 0, 0)
        assert health.spooled_bytes > 10 * 1000
        until(lambda: tracer.health().oldest_s > health.oldest_s > 0)
        storage.fails = False
        assert tracer.flush()
        assert tracer.health() == (21, 0, 0, 0, 0, 0, 0.0, None)

    def warnings() -> list[str]:
        return sorted(record.message for record in caplog.records if record.levelno == logging.WARNING)

    until(lambda: len(warnings()) == 2)  # the thread that met the fault may log it after this one has flushed
    failed, again = warnings()
    assert WHY in failed
    assert "the storage takes records again" in again


def test_what_waits_in_memory_is_told_too(storage: Failing) -> None:
    tracer = agentspan.Tracer(storage, durability="commit")
    with tracer.run("a"):
        storage.fails = True
        with tracer.span("tool", {"name": "x"}):
            pass
        health = tracer.health()
        assert (health.waiting, health.spooled_bytes, health.last_error) == (2, 0, WHY)
        assert health.oldest_s >= 0
        until(lambda: tracer.health().oldest_s > 0)
        storage.fails = False
        assert tracer.flush()
        assert tracer.health()[5:] == (0, 0.0, None)
    tracer.shutdown()


@pytest.mark.full
def test_the_journal_does_not_grow_for_ever(storage: Failing, caplog: pytest.LogCaptureFixture) -> None:
    limit = 4 * 2**20
    tuning = STANDARD._replace(journal_calls_drain_bytes=limit // 2, journal_limit_bytes=limit, backlog_units=50)
    tracer = agentspan.Tracer(storage, tuning=tuning)
    folder = Path(f"{storage.path}.spool")
    with tracer.run("a"):
        tracer.flush()
        storage.fails = True
        for _ in range(400):
            with tracer.span("tool", {"name": "x" * 50_000}):
                pass
        health = tracer.health()
        assert health.waiting == 50
        assert health.failed > 0
        assert health.recorded + health.waiting + health.failed == 1 + 2 * 400
        kept = sum(file.stat().st_size for file in folder.iterdir())
        largest = 8 * 2**20  # of a segment: there may be a spare one, too
        assert limit - largest <= health.spooled_bytes <= kept <= limit + 3 * largest
        storage.fails = False
        until(lambda: tracer.flush())
        with tracer.span("tool", {"name": "after"}):
            pass
        tracer.flush()
    assert tracer.health().failed == health.failed
    assert tracer.health().waiting == 0
    assert sum("which the storage does not take" in record.message for record in caplog.records) == 1
    (run_row,) = storage.ask(Query("agent_instance")).rows
    assert "after" in {span.label for span in storage.ask(SpansOf(run_row.id))}
    tracer.shutdown()
