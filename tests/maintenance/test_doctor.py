"""After a crash: what dead programs left open is closed, what others have open is left alone."""

import contextlib
import json
import os
import platform
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import clock
from agentspan.journal.writers import life_of, this_process
from agentspan.model.rows import WriterRow
from agentspan.storage.questions import SpansOf
from tests.checkout import ROOT
from tests.cli.calling import call
from tests.tiers import every

BOTH = pytest.mark.parametrize("durability", every(2, ["journal", "commit"]))


def die(path: Path, code: str, durability: str = "journal") -> None:
    """Run a program that records into the file and ends without finishing."""
    head = f"import os, agentspan\nagentspan.configure({str(path)!r}, raise_errors=True, durability={durability!r})\n"
    subprocess.run([sys.executable, "-c", head + textwrap.dedent(code)], cwd=ROOT, check=True)


def crash(path: Path, durability: str = "journal") -> None:
    die(
        path,
        """
        with agentspan.run("crawler") as run:
            with agentspan.span("llm", {"model": "m"}):
                pass
            run.create_span("retrieval", {"query": "later"})
            with agentspan.span("tool", {"name": "fetch"}):
                os._exit(0)
        """,
        durability,
    )


def test_the_doctor_gives_spans_the_agent_of_their_run_and_puts_missing_agents_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path)
    for name in ("a", "b"):
        with tracer.run(name), tracer.span("tool", {"name": "x"}):
            pass
    tracer.shutdown()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("update agent_spans set agent_id = 'gone' where agent_id = (select min(id) from agents)")
        connection.execute("delete from agents where id = (select max(id) from agents)")
    with agentspan.open(path, read_only=True) as db:
        problems = db.doctor(dry_run=True).problems
        assert "1 row of agent_spans with another agent than their run" in problems
        assert "a row of agent_instances refers to a row of agents that is not there" in problems
    with agentspan.open(path) as db:
        report = db.doctor()
        assert (report.mended_agents, report.mended_spans, report.problems) == (1, 1, [])
        report = db.doctor()
        assert (report.mended_agents, report.mended_spans, report.problems) == (0, 0, [])
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select count(*) from spans").fetchone() == (2,)
        assert connection.execute("select count(*) from runs").fetchone() == (2,)


@BOTH
def test_what_a_dead_program_left_open_is_closed_as_abandoned(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "runs.db"
    crash(path, durability)
    with agentspan.open(path) as db:
        report = db.doctor()
        assert report.problems == []
        (found,) = report.runs
        assert (found.life, found.closed_run, found.closed_spans, found.left_open) == ("dead", True, 2, 0)
        (run,) = db.agent_instances.list()
        assert run.status == "failed"
        spans = {span.schema_name: span for span in db.agent_spans.list(run.id, include_summaries=True)}
        assert {name: span.status for name, span in spans.items()} == {
            "llm": "complete",
            "retrieval": "cancelled",
            "tool": "failed",
        }
        assert (spans["tool"].result_payload or {})["error"]["type"] == "Abandoned"
        assert "Abandoned" in (spans["tool"].summary or "")
        # Its end is the last time at which anything is known to have happened, not the doctor's.
        assert run.finished_at == max(span.updated_at for span in spans.values() if span.status == "complete") or (
            run.finished_at is not None and run.finished_at <= spans["tool"].updated_at
        )
        rows = list(db.storage.ask(SpansOf(run.id)))
        assert [row.closed_by for row in rows] == [None, "abandoned", "abandoned"]
        assert db.doctor().runs == []


@pytest.mark.full
def test_a_dry_run_says_the_same_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    crash(path)
    with agentspan.open(path, read_only=True) as db:
        (found,) = db.doctor(dry_run=True).runs
        assert (found.closed_run, found.closed_spans) == (True, 2)
        assert db.agent_instances.list()[0].status == "active"


def test_what_a_living_program_has_open_is_left_alone(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run("alive"), tracer.span("tool", {"name": "x"}) as span, agentspan.open(tmp_path / "runs.db") as db:
        (found,) = db.doctor().runs
        assert (found.life, found.closed_run, found.closed_spans, found.left_open) == ("alive", False, 0, 1)
        assert db.agent_spans.get(span.id).status == "active"


def test_what_was_made_by_id_is_left_alone(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        run = db.agent_instances.register("by-id")
        db.agent_spans.create(run.id, "tool", "active")
        (found,) = db.doctor().runs
        assert (found.writer, found.closed_run, found.left_open) == (None, False, 1)


@BOTH
def test_a_dead_childs_spans_are_closed_in_a_run_that_goes_on(tmp_path: Path, durability: Any) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True, durability=durability)
    with tracer.run("parent") as run:
        child = os.fork()
        if child == 0:
            tracer.span("tool", {"name": "child"}).__enter__()
            os._exit(0)
        os.waitpid(child, 0)
        with agentspan.open(tmp_path / "runs.db") as db:
            (found,) = db.doctor().runs
            assert (found.closed_run, found.closed_spans) == (False, 1)
            assert db.agent_instances.get(run.id).status == "active"
    assert run.status == "complete"


def test_a_run_is_not_closed_while_a_living_program_records_into_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    die(path, 'agentspan.run("parent").__enter__(); os._exit(0)')
    with agentspan.open(path) as db:
        (run,) = db.agent_instances.list()
        db.agent_spans.create(run.id, "tool", "active")
        (found,) = db.doctor().runs
        assert (found.life, found.closed_run, found.left_open) == ("dead", False, 1)


def test_a_file_that_is_not_sound_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    connection = sqlite3.connect(path)
    connection.execute("insert into schema_violations values (1, 'no such span', 'payload', '$', 'type', 'x')")
    connection.commit()
    connection.close()
    with agentspan.open(path) as db:
        assert db.doctor().problems == [
            "a row of schema_violations refers to a row of agent_spans that is not there",
        ]


HERE = this_process("0" * 32)


@pytest.mark.parametrize(
    ("changed", "life"),
    [
        ({}, "alive"),
        ({"host": "elsewhere"}, "unknown"),
        ({"boot_id": "another-boot pid:[1]"}, "dead"),
        ({"boot_id": HERE.boot_id.partition(" ")[0] + " pid:[1]"}, "unknown"),
        ({"boot_id": f"{HERE.boot_id} time:[1]"}, "unknown"),
        ({"boot_id": f"{HERE.boot_id} time:[1]", "pid": 2**22 - 1}, "dead"),
        ({"boot_id": "another-boot pid:[1] time:[1]"}, "dead"),
        ({"pid": 2**22 - 1}, "dead"),
        ({"process_start": "1"}, "dead"),
        ({"process_start": ""}, "unknown"),
    ],
)
def test_only_what_is_sure_counts_as_dead(changed: dict[str, Any], life: str) -> None:
    writer: WriterRow = HERE._replace(**changed)
    assert life_of(writer) == life
    assert life_of(writer, {platform.node(), "elsewhere"}) == ("alive" if life == "alive" else "dead")


@pytest.mark.parametrize(
    ("changed", "why", "hint"),
    [
        ("boot_id = boot_id || ' time:[1]'", "another time namespace", f"nsenter --time --target {os.getpid()}"),
        ("boot_id = substr(boot_id, 1, 36) || ' pid:[1]'", "another container", f"--dead-host {platform.node()}"),
        ("host = 'elsewhere'", "another host", "--dead-host elsewhere"),
    ],
    ids=["time namespace", "container", "host"],
)
@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_a_program_that_cannot_be_judged_keeps_what_it_has_open_and_is_named(
    tmp_path: Path, durability: Any, changed: str, why: str, hint: str
) -> None:
    """Also beside one that is dead: its spans in the run of that one."""
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, durability=durability, raise_errors=True)
    with tracer.run("a") as run, tracer.span("tool", {"name": "x"}):
        assert tracer.flush()
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            other.execute("insert into writers select 'dead', host, 'old', pid, process_start, 'gone', '' from writers")
            other.execute(f"update writers set {changed} where id <> 'dead'")
            other.execute("update agent_instances set writer_id = 'dead'")
        said = call(path, "doctor", columns=120).output
        assert f"left alone 1 open span of run {run.id}" in said
        assert f"{why}, and cannot be judged from here; to " in said
        assert hint in said
        (found,) = json.loads(call(path, "doctor", "--json").output)["runs"]
        assert (found["life"], found["closed_run"], found["left_open"]) == ("dead", False, 1)
        (each,) = found["not_judged"]
        assert each["writer"]["pid"] == os.getpid()
        assert each["why"].endswith(why)
    assert tracer.flush()
    assert run.status == "complete"
    tracer.shutdown()


def test_a_zombie_is_dead(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody took note
    try:
        assert life_of(HERE._replace(pid=child)) == "dead"
    finally:
        os.waitpid(child, 0)


def by_id(db: agentspan.Database, at: str, *, status: str = "active", spans: int = 0) -> str:
    """A run that was made by id at some time, as clients of the API do."""
    with clock.replaced(lambda: int(clock.to_datetime(at).timestamp() * 1e9), clock.monotonic_ns):
        run = db.agent_instances.register("remote").id
        if status == "active":
            db.agent_instances.start(run)
        for _ in range(spans):
            db.agent_spans.create(run, "tool", "active", {"name": "x"})
            db.agent_spans.create(run, "tool", "pending", {"name": "x"})
    return run


EARLY, LATER, SINCE = "2026-01-01T00:00:00.000000Z", "2026-01-01T03:00:00.000000Z", "2026-01-01T02:00:00Z"


def test_runs_made_by_id_are_closed_only_if_they_are_idle(db: agentspan.Database) -> None:
    idle = [by_id(db, EARLY), by_id(db, EARLY, status="pending"), by_id(db, EARLY, spans=2)]
    busy = [by_id(db, LATER), by_id(db, EARLY)]
    with clock.replaced(lambda: int(clock.to_datetime(LATER).timestamp() * 1e9), clock.monotonic_ns):
        db.agent_spans.create(busy[1], "tool", "complete")  # the run itself has not changed
    assert not any(run.closed_run for run in db.doctor().runs)
    report = db.doctor(idle_since=SINCE, dry_run=True)
    assert {run.run.id for run in report.runs if run.closed_run} == set(idle)
    assert db.agent_instances.get(idle[0]).status == "active"
    assert {run.run.id: run.closed_spans for run in db.doctor(idle_since=SINCE).runs if run.closed_run} == {
        idle[0]: 0,
        idle[1]: 0,
        idle[2]: 4,
    }
    closed = [db.agent_instances.get(run) for run in idle]
    assert [run.status for run in closed] == ["failed", "cancelled", "failed"]
    assert {run.closed_by for run in closed} == {"abandoned"}
    assert closed[0].error == {
        "type": "Abandoned",
        "message": f"it has not changed since {EARLY}, and its program is not known",
    }
    assert closed[0].finished_at == clock.to_datetime(EARLY)
    assert [span.status for span in db.agent_spans.list(idle[2])] == ["failed", "cancelled"] * 2
    assert [db.agent_instances.get(run).status for run in busy] == ["active", "active"]
    ended = db.agent_instances.finish(idle[0])  # a close is a guess
    assert (ended.status, ended.ended_late) == ("complete", True)


def test_an_idle_run_of_a_living_program_is_not_closed(tmp_path: Path) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run("alive"), tracer.span("tool", {"name": "x"}), agentspan.open(tmp_path / "runs.db") as db:
        (found,) = db.doctor(idle_since="2099-01-01T00:00:00Z").runs
        assert (found.closed_run, found.closed_spans, found.left_open) == (False, 0, 1)
    tracer.shutdown()


@pytest.mark.parametrize("wrong", ["noon", 5, "2026-01-01T00:00:00"])
def test_a_time_that_is_none_is_refused(db: agentspan.Database, wrong: Any) -> None:
    with pytest.raises(agentspan.InvalidValue):
        db.doctor(idle_since=wrong)


def test_the_command_closes_idle_runs(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        run = by_id(db, EARLY)
    said = call(path, "doctor").output
    assert "--idle 2h" in said
    assert f"would close run {run}" in call(path, "doctor", "--idle", "2h", "--dry-run", columns=120).output
    assert call(path, "doctor", "--idle", "1000000000d").exit_code == 2
    assert f"closed run {run}" in call(path, "doctor", "--idle", "2h", columns=120).output
    with agentspan.open(path) as db:
        assert db.agent_instances.get(run).status == "failed"


@pytest.mark.full
def test_until_the_doctor_comes_runs_and_show_mark_what_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    crash(path)
    (line,) = [line for line in call(path, "runs").output.splitlines() if "crawler" in line]
    assert "?" in line
    assert "left open" in call(path, "show", "-").output
    call(path, "doctor")
    assert "left open" not in call(path, "show", "-").output
    (line,) = [line for line in call(path, "runs").output.splitlines() if "crawler" in line]
    assert "?" not in line


def test_in_a_terminated_run_all_open_spans_are_closed(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        run = db.agent_instances.start(db.agent_instances.register("a").id)
        db.agent_instances.terminate(run.id, "enough")
        late = db.agent_spans.create(run.id, "tool", "active")
        planned = db.agent_spans.create(run.id, "tool", "pending")
        assert db.doctor().runs != []
        found = [db.agent_spans.get(span.id) for span in (late, planned)]
    assert [(span.status, span.closed_by) for span in found] == [("failed", "terminated"), ("cancelled", "terminated")]


@pytest.mark.full
def test_a_host_is_declared_dead(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    crash(path)
    agentspan.open(path).close()  # recovers the journal, which is on this host
    connection = sqlite3.connect(path)
    connection.execute("update writers set host = 'far', boot_id = 'other'")
    connection.commit()
    connection.close()
    with agentspan.open(path) as db:
        assert [run.status for run in db.agent_instances.list()] == ["active"]
        assert [run.closed_run for run in db.doctor(dead_hosts=["near"]).runs] == [False]
    call(path, "doctor", "--dead-host", "far")
    with agentspan.open(path) as db:
        (run,) = db.agent_instances.list()
        assert run.status == "failed"
        assert {span.closed_by for span in db.agent_spans.list(run.id)} == {None, "abandoned"}
