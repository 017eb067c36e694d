"""`agentspan show --follow`: a run in another process, as it happens."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis import by_name
from agentspan.cli.tail import Follower
from agentspan.database import Database
from agentspan.storage.questions import SpansOf
from tests.cli.calling import call, lines, process

PROGRAM = """
import sys, agentspan
agentspan.configure(sys.argv[1], raise_errors=True)
for number in range(2):
    with agentspan.run("worker", version=str(number)):
        with agentspan.span("agent", {"name": "worker", "goal": "x"}):
            sys.stdin.readline()
            try:
                with agentspan.span("tool", {"name": "fetch"}):
                    raise TimeoutError("read timed out")
            except TimeoutError:
                pass
"""


def test_each_transition_is_told_once_and_in_order(db: Database) -> None:
    run = db.agent_instances.register("a")
    follower = Follower(db.storage, by_name.find_run(db.storage, run.id))

    def look() -> list[tuple[str, str, int]]:
        return [(t.row.id, t.status, t.depth) for t in follower.look()]

    assert look() == [(run.id, "pending", 0)]
    assert look() == []
    db.agent_instances.start(run.id)
    outer = db.agent_spans.create(run.id, "chain", "active", {"name": "outer"})
    inner = db.agent_spans.create(run.id, "tool", "pending", {"name": "inner"}, parent_span_id=outer.id)
    assert look() == [(run.id, "active", 0), (outer.id, "active", 0), (inner.id, "pending", 1)]
    db.agent_spans.start(inner.id)
    db.agent_spans.finish(inner.id, "failed")
    assert look() == [(inner.id, "active", 1), (inner.id, "failed", 1)]
    db.agent_spans.finish(outer.id)
    assert not follower.is_over()
    db.agent_instances.finish(run.id)
    assert look() == [(outer.id, "complete", 0), (run.id, "complete", 0)]
    assert follower.is_over()
    follower.leave()
    assert look() == []
    second, third = db.agent_instances.register("a"), db.agent_instances.register("a")
    assert look() == [(second.id, "pending", 0)]
    follower.leave()
    assert look() == [(third.id, "pending", 0)]


def test_a_look_at_a_run_in_which_nothing_moved_reads_no_span(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    run = db.agent_instances.register("a")
    db.agent_spans.create(run.id, "tool", "active", {"name": "x"})
    follower = Follower(db.storage, by_name.find_run(db.storage, run.id))
    assert len(follower.look()) == 2
    ask: Any = db.storage.ask
    with monkeypatch.context() as patch:
        patch.setattr(db.storage, "ask", lambda question: 1 / 0 if isinstance(question, SpansOf) else ask(question))
        assert follower.look() == []
    db.agent_spans.create(run.id, "tool", "active", {"name": "x"})
    assert len(follower.look()) == 1


@pytest.mark.full
def test_it_follows_another_process_and_goes_on_to_its_next_run(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    agentspan.SQLiteStorage(db).close()
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background may not
    tail = process(db, "show", "--follow", env={**os.environ, "COLUMNS": "100"}, preexec_fn=heed)
    assert tail.stderr is not None
    assert tail.stdout is not None
    assert tail.stderr.readline() == "waiting for the first run; Ctrl-C ends\n"
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(db)], stdin=subprocess.PIPE, text=True)
    assert program.stdin is not None
    for number in range(2):
        assert f"worker {number}" in tail.stdout.readline()
        assert "● " in (line := tail.stdout.readline())
        assert "Agent worker: x" in line  # told while it is still open
        program.stdin.write("go on\n")
        program.stdin.flush()
        rest = [tail.stdout.readline() for _ in range(4)]
        assert "●     Tool fetch()\n" in rest[0]  # no outcome yet
        assert "✗     Tool fetch() → TimeoutError: read timed out" in rest[1]
        assert "✓   Agent worker: x" in rest[2]
        assert "passed, 2 spans" in rest[3]
    program.stdin.close()
    program.wait()
    tail.send_signal(signal.SIGINT)
    printed, errors = tail.communicate(timeout=20)
    assert (printed, tail.returncode) == ("", 0), errors


def test_one_run_that_has_ended_is_told_and_that_is_all(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    tracer = agentspan.Tracer(db, raise_errors=True)
    with tracer.run("a") as run, tracer.span("tool", {"name": "x"}):
        pass
    tracer.shutdown()
    shown = lines(db, "show", "--follow", "-", "--one")
    assert [line.split()[1] for line in shown] == ["●", "●", "✓", "✓"]
    document = json.loads(call(db, "show", "--follow", run.id, "--json").output)
    assert [t["status"] for t in document["transitions"]] == ["active", "active", "complete", "complete"]
    assert (document["run"]["id"], document["total"]) == (run.id, 4)


def test_it_begins_with_now_and_the_last_lines_before(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    tracer = agentspan.Tracer(db, raise_errors=True)
    for name in ("first", "second"):
        with tracer.run(name):
            for number in range(20):
                with tracer.span("tool", {"name": f"{name}{number}"}):
                    pass
    tracer.shutdown()
    first = json.loads(call(db, "runs", "--json").output)["runs"][1]["id"]
    shown = lines(db, "show", "--follow", first, "--one")
    assert len(shown) == 1 + 1 + 10
    assert shown[0].split()[1:3] == ["●", "run"]
    assert shown[1].strip() == "… 31 earlier lines; --all prints each"
    assert "Tool first15()" in shown[2]
    assert "passed, 20 spans" in shown[-1]
    assert len(lines(db, "show", "--follow", first, "--one", "--all")) == 42
    assert len(lines(db, "show", "--follow", first, "--one", "--since", "1h")) == 42
    assert lines(db, "show", "--follow", first, "--one", "--since", "2999-01-01") == []
    assert call(db, "show", "--follow", first, "--all", "--since", "1h").exit_code == 2
    assert (
        "first0" in call(db, "show", "--follow", "--one", "--since", "1h").output
    )  # without RUN from the first one since then
    assert json.loads(call(db, "show", "--follow", first, "--json").output)["total"] == 42
    document = json.loads(call(db, "show", "--follow", first, "--json", "--since", "2999-01-01").output)
    assert (document["run"]["id"], document["total"]) == (first, 0)


def test_the_start_of_a_step_shows_no_outcome_although_it_has_ended_since(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    template = "Fetch {{url}}{{#size}}: {{size}} bytes{{/size}}"
    types = [{"name": "fetch", "params_schema": {"type": "object"}, "template": template}]
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a", agent_schema_version={"span_type_schemas": types})
        db.agent_instances.start(run.id)
        answer = {"text": "the answer", "input_tokens": 3, "output_tokens": 4}
        db.agent_spans.create(run.id, "llm", "complete", {"model": "m"}, answer)
        db.agent_spans.create(run.id, "fetch", "complete", {"url": "x"}, {"size": 7})
        error = {"type": "ValueError", "message": "no luck"}
        db.agent_spans.create(run.id, "tool", "failed", {"name": "t"}, {"error": error})
        db.agent_instances.finish(run.id)
    shown = [line[13:] for line in lines(path, "show", "--follow", "-", "--one", "--all")[1:-1]]
    starts = [line[1:].strip() for line in shown if line.startswith("●")]
    assert starts == ["LLM m", "Fetch x", "Tool t()"]
    ends = [line for line in shown if line.startswith(("✓", "✗"))]
    assert ['"the answer"' in ends[0], "7 bytes" in ends[1], "no luck" in ends[2]] == [True, True, True]
    told = json.loads(call(path, "show", "--follow", "-", "--json").output)["transitions"]
    assert [t["summary"] for t in told if t["status"] == "active"] == [None, *starts]


@pytest.mark.full
def test_of_the_runs_after_the_one_that_was_named_those_that_are_over_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        first, past, live = (db.agent_instances.register(name) for name in ("first", "past", "live"))
        for run in (first, past, live):
            db.agent_instances.start(run.id)
        for run in (first, past):
            db.agent_instances.finish(run.id)
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    tail = process(path, "show", "--follow", first.id, preexec_fn=heed)
    assert tail.stdout is not None
    told = [tail.stdout.readline().split() for _ in range(3)]
    assert [(line[1], line[3]) for line in told] == [("●", first.id), ("✓", first.id), ("●", live.id)]
    tail.send_signal(signal.SIGINT)
    tail.communicate(timeout=20)


@pytest.mark.full
def test_a_run_whose_program_died_does_not_hold_it_up(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    code = "import sys, os, agentspan; agentspan.configure(sys.argv[1]); agentspan.run('a').__enter__(); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, str(db)])
    shown = lines(db, "show", "--follow", "-", "--one", columns=120)
    assert f"its program died; `agentspan doctor --db {db}` closes what it left open" in shown[-1]


def test_it_says_what_it_waits_for_and_names_the_latest_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("agentspan.cli.tail.time.sleep", stop)
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        db.agents.create("worker")
        assert call(path, "show", "--follow").stderr == "waiting for the first run; Ctrl-C ends\n"
        run = db.agent_instances.register("worker")
        db.agent_instances.start(run.id)
        db.agent_instances.finish(run.id)
    told = call(path, "show", "--follow", columns=200)
    assert told.stdout == ""
    said = "waiting for the next run; Ctrl-C ends\nthe latest, of worker, is complete: "
    said += f"agentspan show {run.id[:10]} --follow"
    assert told.stderr.startswith(said)
    again = call(path, "show", "--follow", run.id)
    assert "passed, 0 spans" in again.stdout
    assert again.stderr == "waiting for the next run; Ctrl-C ends\n"
