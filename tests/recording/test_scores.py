"""Scores that a program gives its runs and spans: what is stored, how durable it is, and what goes wrong with them."""

import json
import math
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.errors import InvalidValue, RequiredValue
from agentspan.journal.journal_folder import folder_of, is_possible
from agentspan.model.rows import RefusedChangeRow, ScoreRow
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import LatestScores, NewestScores, RemoveRuns
from agentspan.storage.row_by_row import history
from tests.checkout import ROOT


def said(row: ScoreRow) -> tuple[Any, ...]:
    return row.name, row.value, row.label, row.source, row.identifier, row.explanation


def test_a_run_and_its_spans_are_judged_while_they_run_and_afterwards(tracer: agentspan.Tracer) -> None:
    with tracer.run("a") as run:
        with tracer.span("tool", name="x") as span:
            span.score("correct", True)
        run.score("reward", 0.5, label="half", explanation="one of\ntwo", by="model", identifier="judge-1")
        span.score("correct", False, by="human")
    run.score("mark", label="bad", by="human")
    tracer.flush()
    found = history(tracer.storage, run.id)
    assert [(row.target_type, row.target_id) for row in found] == [
        ("agent_span", span.id),
        ("agent_instance", run.id),
        ("agent_span", span.id),
        ("agent_instance", run.id),
    ]
    assert [said(row) for row in found] == [
        ("correct", 1.0, None, "code", None, None),
        ("reward", 0.5, "half", "model", "judge-1", "one of\ntwo"),
        ("correct", 0.0, None, "human", None, None),
        ("mark", None, "bad", "human", None, None),
    ]
    assert tracer.storage.ask(NewestScores([run.id])) == found[1:]


def test_of_each_judge_the_newest_counts_until_it_is_withdrawn(tracer: agentspan.Tracer) -> None:
    with tracer.run("a") as run:
        run.score("reward", 1, identifier="a")
        run.score("reward", 0, identifier="b")
        run.score("reward", 0.25, identifier="b")
    tracer.flush()
    assert [row.value for row in tracer.storage.ask(NewestScores([run.id]))] == [1, 0.25]
    run.score("reward", identifier="b", withdraw=True)
    tracer.flush()
    assert [row.value for row in tracer.storage.ask(NewestScores([run.id]))] == [1]
    assert len(history(tracer.storage, run.id)) == 4


@pytest.mark.parametrize("value", ["1", math.nan, math.inf, 10**400, object(), [1]])
def test_what_is_no_number_is_a_fault_and_no_score(tracer: agentspan.Tracer, value: Any) -> None:
    with tracer.run("a") as run, pytest.raises(InvalidValue, match="finite number"):
        run.score("reward", value)
    tracer.flush()
    assert history(tracer.storage, run.id) == []


@pytest.mark.parametrize("more", [{}, {"label": ""}, {"by": "robot", "value": 1}, {"value": 1, "withdraw": True}])
def test_a_score_says_something_or_withdraws(tracer: agentspan.Tracer, more: Any) -> None:
    with tracer.run("a") as run, pytest.raises((RequiredValue, InvalidValue)):
        run.score("reward", **more)


def test_a_fault_reaches_no_program_that_did_not_ask_for_it(storage: Storage) -> None:
    tracer = agentspan.Tracer(storage)
    with tracer.run("a") as run:
        run.score("reward", math.nan)
        run.score("", 1)
    assert tracer.health().failed == 2
    tracer.shutdown()
    run.score("reward", 1)
    assert tracer.health().failed == 3


def test_texts_are_redacted_and_cut(tracer: agentspan.Tracer) -> None:
    secret = "sk-" + "a1B2" * 12
    with tracer.run("a") as run:
        run.score("n" * 300, 1, label="one\ntwo", explanation=f"{secret} {'x' * 20_000}")
    tracer.flush()
    (row,) = history(tracer.storage, run.id)
    assert (len(row.name), row.label) == (200, "one two")
    assert row.explanation is not None
    assert secret not in row.explanation
    assert len(row.explanation) == 10_000


def test_what_is_not_recorded_is_not_judged() -> None:
    disabled = agentspan.Tracer(enabled=False)
    with disabled.run("a") as run, disabled.span("tool", name="x") as span:
        run.score("reward", 1)
        span.score("reward", 1)
    assert disabled.health().failed == 0


@pytest.mark.skipif(not is_possible(), reason="needs a journal")
def test_a_score_outlives_its_program_and_is_stored_once_however_often_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = f"""
import os, signal, sqlite3, agentspan
tracer = agentspan.Tracer({str(path)!r})
with tracer.run("killed") as run:
    tracer.flush()
    lock = sqlite3.connect({str(path)!r}, isolation_level=None)
    lock.execute("begin immediate")
    with tracer.span("tool", name="x") as span:
        span.score("correct", False)
        run.score("reward", 0.5)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert killed.returncode == -9
    journal = folder_of(path)
    shutil.copytree(journal, tmp_path / "again")
    for _ in range(2):
        with agentspan.open(path) as db:
            assert [row.name for row in scan(db.storage, ScoreRow)] == ["correct", "reward"]
            assert [*scan(db.storage, RefusedChangeRow)] == []
        shutil.rmtree(journal, ignore_errors=True)
        shutil.copytree(tmp_path / "again", journal)


def test_a_score_of_a_run_that_was_removed_is_kept_as_refused(storage: Storage) -> None:
    tracer = agentspan.Tracer(storage)
    with tracer.run("a") as run:
        pass
    tracer.flush()
    assert storage.ask(RemoveRuns([run.id], 1.0)) == (1, 0)
    run.score("reward", 1)
    tracer.flush()
    assert tracer.health().refused == 1
    (refused,) = scan(storage, RefusedChangeRow)
    assert (refused.agent_instance_id, refused.why) == (run.id, "missing")
    assert json.loads(refused.wanted)["value"] == 1


def _add_scores(path: Path, run_id: str, judge: str) -> None:
    with agentspan.open(path) as db:
        for number in range(25):
            db.scores.record(run_id, "reward", number, identifier=judge)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_eight_processes_add_scores_and_none_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        run_id = db.agent_instances.register("a").id
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=_add_scores, args=(path, run_id, str(number))) for number in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 8
    with agentspan.open(path) as db:
        found = history(db.storage, run_id)
        assert sorted((row.identifier, row.value) for row in found) == sorted(
            (str(worker), float(number)) for worker in range(8) for number in range(25)
        )
        assert [row.value for row in db.storage.ask(NewestScores([run_id]))] == [24.0] * 8
        assert db.storage.ask(LatestScores("reward"))[run_id].value == 24.0
