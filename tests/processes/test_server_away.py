"""PostgreSQL that is killed, or does not answer, under programs that record: nothing waits, is lost, or stored twice.

AGENTSPAN_TEST_SERVER_AWAY says for how many seconds (2 in the short form). Then 4 recorders with 2,000 spans a second
each see 5 kills, and a hole of that length; `pytest -s` prints what calls took.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer
from agentspan.journal import journal_folder
from agentspan.journal.journal_folder import is_possible, spool_of
from agentspan.otel import extract, inject
from agentspan.recording.span_and_run import state_of
from agentspan.recording.tracer import recorder_of
from agentspan.storage.location import parse
from agentspan.tuning import STANDARD
from tests import postgres
from tests.checkout import ROOT
from tests.processes.server_away import Hole
from tests.tiers import longer
from tests.waiting import until

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs a journal")

SECONDS = longer("AGENTSPAN_TEST_SERVER_AWAY", 1.0, 2.0, 60.0)
IS_LONG = SECONDS > 2
RECORDERS, RATE, KILLS = (4, 2000, 5) if IS_LONG else (2, 300, 2)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """A server whose commits outlive it."""
    made = postgres.Server(synchronous_commit="on", full_page_writes="on")
    try:
        made.start()
        yield made
    finally:
        made.remove()


def started(url: str, seconds: float, rate: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.processes.server_away", url, str(seconds), str(rate)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def ended(recorder: "subprocess.Popen[str]") -> dict[str, Any]:
    out, _ = recorder.communicate(timeout=400)
    figures: dict[str, Any] = json.loads(out)
    sys.stdout.write(f"\n{ {name: each for name, each in figures.items() if name != 'ids'} }")
    return figures


def rows(url: str, sql: str) -> list[Any]:
    import psycopg

    with psycopg.connect(url, options="-c search_path=agentspan") as connection:
        return connection.execute(sql.encode()).fetchall()


def all_are_stored_once(url: str, figures: list[dict[str, Any]]) -> None:
    ids = [id for each in figures for id in each["ids"]]
    assert [each["lost"] + each["waiting"] + each["touches"] for each in figures] == [0] * len(figures)
    assert all(each["flushed"] for each in figures)
    assert "" not in ids
    stored = [id for (id,) in rows(url, "select id from agent_spans where status = 'complete'")]
    assert sorted(set(ids) - set(stored)) == []
    assert len(stored) == len(set(stored))
    refused = "select why, stored_status, writer_id, count(*), min(wanted) from refused_changes group by 1, 2, 3"
    assert rows(url, refused) == []
    assert rows(url, "select count(*) from agent_instances where status <> 'complete'") == [(0,)]
    misplaced = "select count(*) from agent_spans s join agent_instances i on i.id = s.agent_instance_id"
    assert rows(url, f"{misplaced} where s.agent_id <> i.agent_id") == [(0,)]


@pytest.mark.full
def test_a_server_that_is_killed_costs_nothing(server: postgres.Server) -> None:
    recorders = [started(server.url, SECONDS + KILLS, RATE) for _ in range(RECORDERS)]
    until(lambda: _count(server.url) > 0)
    for _ in range(KILLS):
        server.kill()
        time.sleep(0.3)
        server.start()
        time.sleep(0.5)
    all_are_stored_once(server.url, [ended(each) for each in recorders])


def _count(url: str) -> int:
    try:
        return int(rows(url, "select count(*) from agent_spans")[0][0])
    except Exception:  # no tables yet
        return 0


@pytest.mark.full
def test_a_server_that_does_not_answer_is_waited_for_by_nobody_who_records(server: postgres.Server) -> None:
    hole = Hole(server.port)
    url = server.url.replace(f":{server.port}/", f":{hole.port}/")
    try:
        before = started(url, SECONDS + 2, RATE)
        until(lambda: hole.accepted > 0 and _count(server.url) > 0)
        time.sleep(0.2)
        hole.is_open = False
        during = started(url, SECONDS / 2, RATE)  # a program that starts in the hole
        time.sleep(SECONDS)
        hole.is_open = True
        all_are_stored_once(server.url, [ended(before), ended(during)])
    finally:
        hole.is_open = True
        hole.close()


KILLED = """
import agentspan, os, sys
agentspan.configure(sys.argv[1])
with agentspan.run("killed", version="1"), agentspan.span("tool", {"name": "n"}):
    pass
os.kill(os.getpid(), 9)
"""


@pytest.mark.full
def test_a_reader_recovers_what_a_killed_program_had_in_front_of_a_server_that_was_away(
    server: postgres.Server,
) -> None:
    url = f"{server.url}?schema=recovered"
    server.kill()
    done = subprocess.run([sys.executable, "-c", KILLED, url], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    folder = spool_of(parse(url.replace(":sesame@", "@")))  # the password is not part of its name
    assert folder is not None
    assert folder.parent == journal_folder.state_folder()
    assert [path.suffix for path in folder.iterdir()] == [".segment"]
    server.start()
    with agentspan.open(url) as db:
        (run,) = db.agent_instances.list()
        assert (run.status, run.span_counts.complete) == ("complete", 1)
    assert not folder.exists()


@pytest.mark.full
def test_what_was_recorded_here_is_read_here_at_once(server: postgres.Server) -> None:
    url = f"{server.url}?schema=own"
    tracer = Tracer(url)
    with tracer.run("a"), tracer.span("tool", {"name": "n"}):
        pass
    with agentspan.open(url) as reading:
        assert [stat.count for stat in reading.stats() if stat.label == "n"] == [1]
    with agentspan.open(tracer.storage) as db:
        assert db.agent_instances.list()[0].status == "complete"
    assert tracer.flush()
    tracer.shutdown()


def test_what_is_wrong_for_good_is_raised_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg", reason="needs psycopg")
    with pytest.raises(agentspan.InvalidValue):
        Tracer("postgresql://host/db?no_such_parameter=1")
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nothing")
    with pytest.raises(agentspan.DatabaseUnusable, match="XDG_STATE_HOME"):
        Tracer("postgresql://agentspan@127.0.0.1:1/db")


def test_past_its_age_a_journal_takes_nothing_more_and_counts_it() -> None:
    pytest.importorskip("psycopg", reason="needs psycopg")
    tuning = STANDARD._replace(server_away_s=0.2)
    tracer = Tracer("postgresql://agentspan@127.0.0.1:1/db", tuning=tuning)  # nobody listens there
    run = tracer.run("a")
    with run:
        until(lambda: recorder_of(tracer).sink.work.overflow.is_on)  # type: ignore[union-attr]
        kept = tracer.health()
        with tracer.span("tool", {"name": "late"}):
            pass
        assert tracer.health()[:3] == (kept.recorded, kept.failed + 2, 0)
        assert tracer.health().oldest_s > 0.2
        assert "cannot be reached" in (tracer.health().last_error or "")
    tracer.shutdown(0.1)


@pytest.mark.full
def test_a_program_of_another_host_is_dead_when_its_lease_is_over_and_its_own_end_stands(
    server: postgres.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    url = f"{server.url}?schema=leased"
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "elsewhere")
        patch.setenv("XDG_STATE_HOME", str(tmp_path))
        tracer = Tracer(url)
        block = tracer.run("far away")
        run = block.__enter__()
        span = run.create_span("tool", {"name": "n"}, status="active")
        assert tracer.flush()

    def statuses() -> list[Any]:
        sql = "select status, closed_by from agent_spans union all select status, closed_by from agent_instances"
        with psycopg.connect(server.url, options="-c search_path=leased") as connection:
            return connection.execute(sql.encode()).fetchall()

    with psycopg.connect(server.url, options="-c search_path=leased", autocommit=True) as connection:
        until(lambda: connection.execute("select 1 from notes where name like 'lease/%'").fetchone())
        with agentspan.open(url) as db:
            assert [each.life for each in db.doctor().runs] == ["unknown"]
        assert statuses() == [("active", None)] * 2
        connection.execute("update notes set expires_at = now() - interval '1 s' where name like 'lease/%'")
    with agentspan.open(url) as db:
        assert [each.life for each in db.doctor().runs] == ["dead"]
    assert statuses() == [("failed", "abandoned")] * 2
    span.finish("complete", {"output": 1})
    block.__exit__(None, None, None)
    assert tracer.flush()
    assert statuses() == [("complete", "abandoned")] * 2
    tracer.shutdown()


def test_a_request_from_a_service_is_not_kept_waiting_by_a_server_that_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("psycopg", reason="needs psycopg")
    tracer = Tracer("postgresql://agentspan@127.0.0.1:1/db")  # nobody listens there
    with tracer.run("a") as run:
        headers = inject({}, tracer=tracer)
        until(lambda: tracer.health().last_error is not None)
    with extract(headers, tracer=tracer), tracer.run("b") as other:
        pass
    assert other.id != run.id
    row = state_of(other).registered_row
    assert row is not None
    assert f'"run":"{run.id}"' in (row.metadata or "")  # as its origin
    assert tracer.health().failed == 0
    until(lambda: "does not answer at present" in caplog.text)  # the thread says it a moment later
    tracer.shutdown(0.1)
