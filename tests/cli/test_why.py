"""`agentspan why`: failed runs in groups, what goes with failure, and the cause of one failure, as text and as JSON."""

import json
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from planted import plant

import agentspan
from agentspan import ids
from agentspan.cli import main
from tests.cli.calling import call, lines


class ToolFailed(Exception):
    """What the tool raises."""


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of each of eight tasks: the one that looks first passes, the other one fails to pay."""
    path = tmp_path_factory.mktemp("why") / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(16):
        try:
            with tracer.run("booking", version=str(1 + number % 4 // 2), task=f"t{number // 2}"):
                with tracer.span("llm", {"model": "m"}) as span:
                    span.set_result({"text": f"I will pay, number {number}. " * 5})
                if number % 2:
                    with tracer.span("tool", {"name": "look"}):
                        pass
                else:
                    for _ in range(2):
                        pay(tracer, 100 + number)
                    raise ToolFailed(f"total is {100 + number}, but paid 7")
        except ToolFailed:
            pass
    tracer.shutdown()
    return path


def pay(tracer: agentspan.Tracer, total: int) -> None:
    try:
        with tracer.span("tool", {"name": "pay", "arguments": {"total": total, "how": "a card " * 60}}):
            raise ToolFailed(f"total is {total}, but paid 7")
    except ToolFailed:
        pass


def document(db: Path, *args: str) -> Any:
    return json.loads(call(db, "why", *args, "--json").stdout)


def test_groups_and_findings(db: Path) -> None:
    shown = lines(db, "why")
    assert all(len(line) <= 80 for line in shown if not line.startswith("  agentspan "))
    text = "\n".join(shown)
    assert shown[0] == "8 of 16 runs failed (50%, 28–72%)"
    assert "  Tool pay: ToolFailed: total is <n>, but paid <n>" in text
    assert "      in 8 of 8 failed · in 0 of 8 passed · failed steps: 16\n" in text
    assert re.search(r"\n      by version 1: 4, 2: 4 · \d\d-\d\d \d\d:\d\d \S+\n", text), text
    assert re.search(r"      latest run [0-9a-z…]{10,15}\n", text), text
    said = "compared inside the 8 tasks that both passed and failed, of 1 tested thing (FDR\n10%)"
    assert f"\nWhat goes with failure\n{said}\n" in text
    assert (
        "    in 8 of 8 failed · in 0 of 8 passed · of 8 tasks\n    odds within a task ×∞ (1.7–∞) · q 0.0078\n" in text
    )
    assert any(line.startswith("q = the share of false findings") for line in shown)
    found = document(db)
    assert (found["runs"], found["failed"], found["silent"], found["unknown"]) == (16, 8, 0, 0)
    (group,) = found["groups"]
    assert shown[3].startswith(f"{group['signature'][:4]}  Tool pay")
    assert (group["runs"], group["spans"], group["text"]) == (8, 16, "Tool pay: ToolFailed: total is <n>, but paid <n>")
    finding = found["findings"][0]
    assert (finding["feature"], finding["effect"], finding["stratified"]) == ("Tool look not used", None, True)
    assert (finding["failed_with"], finding["passed_with"], finding["tasks"]) == (8, 0, 8)
    assert finding["interval"] == [pytest.approx(1.7, abs=0.05), None]
    assert finding["q"] < 0.1


def test_the_cause_of_one_failure_has_under_25_lines(db: Path) -> None:
    group = document(db)["groups"][0]
    shown = lines(db, "why", group["run_id"])
    text = "\n".join(shown)
    assert len(shown) < 25
    assert all(len(line) <= 80 for line in shown if "agentspan " not in line)
    assert shown[0] == f"run {group['run_id']} booking 2"
    assert shown[1] == "✗ failed · task t7 · 3 steps, 2 failed"
    assert "✗ step #2: Tool pay(total=114, how=" in text
    assert "error: ToolFailed: total is 114, but paid 7" in text
    assert "the model had said: I will pay, number 14." in text
    assert "after it: 1 failed attempt with the same arguments, and none that passed" in text
    assert re.search(
        r"#2 ├─✗ Tool pay.*\n.*but paid 7$", call(db, "show", group["run_id"], "--full").stdout, re.MULTILINE
    )
    assert "elsewhere: 14× in 7 other runs" in text
    assert "the passing run of task t7: " in text
    assert "passing   2 ✓ Tool look" in text
    found = document(db, group["run_id"])
    assert found["signature"]["id"] == group["signature"]
    assert found["nearest"]["divergence"]["same"] == 1


def test_the_runs_that_are_named_can_be_pasted_though_they_began_in_one_millisecond(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    same_time = [ids.encode(10**12, 1, random) for random in range(4)]
    with agentspan.open(path) as db:
        for number, id in enumerate(same_time):
            db.agent_instances.register("booking", id=id, task="t")
            db.agent_instances.start(id)
            result = {"output": "done"} if number else {"error": {"type": "E", "message": f"no seat {number}"}}
            db.agent_spans.create(id, "tool", "complete" if number else "failed", {"name": "pay"}, result)
            db.agent_instances.finish(id, "complete" if number else "failed")
    group = document(path)["groups"][0]
    (shown,) = re.findall(r"failed steps: 1\s(?: *|· )latest run (\S+)", "\n".join(lines(path, "why")))
    assert lines(path, "show", shown)[0].startswith(f"run {group['run_id']}")
    (diff,) = re.findall(r"^  agentspan (diff .*)", "\n".join(lines(path, "why", shown)), re.MULTILINE)
    assert lines(path, *diff.split())[2].startswith(f"B {group['run_id']}")


def test_what_came_after_a_failed_step_is_told(tmp_path: Path) -> None:
    """A success with other arguments is no recovery; that nothing passed is said; and a recovery names its step."""
    path = tmp_path / "runs.db"
    calls = {
        "upgrade": [("business", False), ("business", False), ("economy", True)],
        "retry": [("business", False), ("business", True)],
        "give up": [("business", False), ("first", False)],
    }
    tracer = agentspan.Tracer(path, raise_errors=True)
    for task, steps in calls.items():
        with tracer.run("booking", task=task):
            for cabin, passes in steps:
                with suppress(ToolFailed), tracer.span("tool", {"name": "update", "arguments": {"cabin": cabin}}):
                    if not passes:
                        raise ToolFailed("no seats")
    tracer.shutdown()
    runs = {run["task"]: run["id"] for run in json.loads(call(path, "runs", "--json").stdout)["runs"]}
    shown = {task: "\n".join(lines(path, "why", id)) for task, id in runs.items()}
    assert "✗ step #1: Tool update" in shown["upgrade"]
    assert "  after it: 1 failed attempt with the same arguments\n" in shown["upgrade"]
    assert "  later call: step 3 passed with other arguments: cabin business → economy\n" in shown["upgrade"]
    assert "recovered" not in shown["upgrade"]
    assert "  recovered: step 2 passed: the same call\n" in shown["retry"]
    assert "  after it: 1 failed attempt with other arguments, and none that passed\n" in shown["give up"]
    (step,) = [document(path, id)["step"] for task, id in runs.items() if task == "upgrade"]
    assert (step["passed_later"], step["changes"][0]["path"], step["changes"][0]["b"]) == (3, "cabin", "economy")


def test_the_status_decides_unless_a_score_is_named(db: Path) -> None:
    unknown = call(db, "why", "--outcome", "reward>=1")
    assert (unknown.exit_code, "is over a score that no run has" in unknown.stderr) == (2, True)
    assert call(db, "why", "--agent", "nobody").exit_code == 1
    assert call(db, "why", "--outcome", "reward").exit_code == 2
    assert call(db, "why", "nothing").exit_code == 1


def test_the_project_says_what_passed_means(db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "pyproject.toml"
    (tmp_path / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "inside")
    project.write_text('[tool.agentspan]\noutcome = "reward>=1"\n')
    assert "'reward>=1' is over a score that no run has" in call(db, "why").stderr
    assert document(db, "--outcome", "status")["outcome"] is None
    for wrong in ('[tool.agentspan]\noutcome = "reward"\n', "[tool.agentspan]\noutcome = 1\n", "tool = 1\n", "[tool"):
        project.write_text(wrong)
        failed = call(db, "why")
        assert failed.exit_code == 1
        assert f"cannot use [tool.agentspan] of {project}" in failed.stderr
    project.write_text("[project]\n")
    assert document(db)["failed"] == 8


def test_python_has_the_same(db: Path) -> None:
    with agentspan.open(db) as reading:
        found = reading.why(agent="booking")
        assert found.failed == 8
        assert reading.why(found.groups[0].run_id).signature.id == found.groups[0].signature
        assert reading.why(session="none").runs == 0


def test_a_score_that_runs_missed_is_named_where_none_failed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(4):
        with tracer.run("booking") as run:
            run.score("cost", number / 7, by="code")
            if number:
                run.score("is good", number % 2, by="code")
    tracer.shutdown()
    assert lines(path, "why", "--outcome", "status") == [
        "none of 4 runs failed by its status",
        "1 of 3 missed is good>=1:",
        f"  agentspan why --outcome 'is good>=1' --db {shlex.quote(str(path))}",
    ]
    assert document(path, "--outcome", "status")["missed"] == {"rule": "is good>=1", "missed": 1, "runs": 3}
    runs = [run["id"] for run in json.loads(call(path, "runs", "--json").stdout)["runs"]]
    shown = [lines(path, "why", run, "--outcome", "status")[1:4] for run in runs]
    missed = [second for _, second, _ in shown if second]
    assert [first for first, *_ in shown] == ["✓ passed · 0 steps, 0 failed"] * 4
    assert len(missed) == 1
    assert missed == ["it missed is good>=1:"]
    (again,) = [line for *_, line in shown if "agentspan why" in line]
    assert re.fullmatch(r"  agentspan why [0-9a-z…]{10,15} --outcome 'is good>=1' --db \S+", again)
    heads = [lines(path, "why", run)[1] for run in runs]
    assert sorted(heads) == ["≠ missed is good ≥ 1 · 0 steps, 0 failed", *["✓ passed · 0 steps, 0 failed"] * 3]
    judged, how, *_ = call(path, "why", columns=200).stdout.splitlines()
    assert judged.startswith("1 of 3 runs failed is good>=1 (33%")
    assert how.startswith("no run failed by its status, so is good>=1 decides: agentspan why --outcome status ")
    named, nothing, *_ = call(path, "why", "--outcome", "is good>=1", columns=200).stdout.splitlines()
    assert (named, nothing) == (judged, "")


def test_a_run_that_missed_a_score_is_marked_so_by_each_command(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    ids = []
    for number in range(2):
        with tracer.run("booking") as run, tracer.span("tool", {"name": "pay"}):
            run.score("reward", number)
        ids.append(run.id)
    tracer.shutdown()
    for words in (
        ["show", ids[0]],
        ["search", "pay", "--by-run"],
        ["diff", *ids],
        ["why", ids[0]],
        ["tail", ids[0], "--one"],
    ):
        (missed,) = [line for line in call(path, *words, columns=120).stdout.splitlines() if "≠ " in line]
        assert "missed reward ≥ 1" in missed
    assert "≠ missed " in call(path, "runs").stdout
    assert json.loads(call(path, "show", ids[0], "--json").stdout)["run"]["verdict"]["kind"] == "missed"
    with agentspan.open(path) as db:
        assert repr(db.run(ids[0])).splitlines()[1].startswith("≠ booking · missed reward ≥ 1")
    (passed, *_) = [line for line in lines(path, "show", ids[1]) if "booking" in line]
    assert passed.startswith("✓ booking · passed")


def test_a_filter_by_a_score_leaves_the_rule_known_and_failed_steps_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(6):
        with tracer.run("booking") as run:
            if number in (1, 3, 4):
                with pytest.raises(ToolFailed), tracer.span("tool", {"name": "pay"}):
                    raise ToolFailed("no money")
            run.score("reward", number % 2)
    tracer.shutdown()
    assert lines(path, "why", "--score", "reward<1", "--outcome", "status")[:3] == [
        "none of 3 runs failed by its status · 1 has a failed step",
        "3 of 3 missed reward>=1:",
        f"  agentspan why --score 'reward<1' --outcome 'reward>=1' --db {shlex.quote(str(path))}",
    ]
    said = "none of 3 runs failed by its status · 2 have a failed step; --outcome NAME>=VALUE says what failed means"
    assert call(path, "why", "--score", "reward==1", columns=120).stdout.splitlines()[0] == said


def test_the_command_for_a_score_that_runs_missed_keeps_the_filters(tmp_path: Path) -> None:
    path = tmp_path / "my runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(8):
        with tracer.run("booking", metadata={"trial": number % 2, "by": "two words"}) as run:
            run.score("reward", number < 4, by="code")
    tracer.shutdown()
    filters = ("--meta", "trial=0", "--meta", "by=two words", "--agent", "booking")
    by_status = ("--outcome", "status")
    (printed,) = [line for line in lines(path, "why", *filters, *by_status) if "agentspan " in line]
    program, *words = shlex.split(printed)
    assert program == "agentspan"
    assert words[-2:] == ["--db", str(path)]
    again = CliRunner().invoke(main, words)
    assert again.output.startswith("2 of 4 runs failed reward>=1")
    folder_of_db = CliRunner().invoke(main, ["why", *filters, *by_status], env={"AGENTSPAN_DB": str(path)})
    assert "--db" not in folder_of_db.output


def test_findings_of_runs_without_tasks_carry_the_warning(tmp_path: Path) -> None:
    """Hard tasks need the tool and fail: without tasks nothing tells the tool from them."""
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(40):
        with tracer.run("booking") as run:
            if number % 2:
                with tracer.span("tool", {"name": "pay"}):
                    pass
            run.score("reward", number % 2 == (number % 10 == 0), by="code")
    tracer.shutdown()
    shown = lines(path, "why", "--outcome", "reward>=1")
    warning = shown.index("pooled only, so that it may be the tasks:")
    assert shown[warning - 3] == "What goes with failure"
    assert shown[warning - 2] == "compared over all runs, because too few have a task in common, of 1 tested"
    assert shown[warning + 1].startswith("  Tool pay used")


@pytest.mark.parametrize(
    ("filter", "there"),
    [
        ("--task 999", "; tasks: 't"),
        ("--meta trial=7", ""),
        ("--since 2999-01-01", ""),
        ("--signature abcd", "; signatures: '"),
        ("--agent booking@7", "; versions: '"),
    ],
)
def test_a_filter_that_no_run_matches_is_named_with_what_there_is(db: Path, filter: str, there: str) -> None:
    name, _, value = filter.removeprefix("--").partition(" ")
    for command in ("why", "runs"):
        shown = " ".join(lines(db, command, *filter.split()))
        assert shown.startswith(f"no run matches {name}={value}{there}")
        assert there or shown.endswith(value)


def test_a_filter_does_not_select_a_run_that_is_named(db: Path) -> None:
    result = call(db, "why", "-", "--task", "t3")
    assert result.exit_code == 2
    assert "RUN and filters of runs exclude each other" in result.stderr


def scored(path: Path, tasks: str) -> None:
    """A run for each letter, its task: one in upper case fails. Each run of `a` has a step that fails."""
    tracer = agentspan.Tracer(path, raise_errors=True)
    for task in tasks:
        with tracer.run("booking", task=task.lower()) as run:
            for number in range(2 if task in "aA" else 0):
                with suppress(ToolFailed), tracer.span("tool", {"name": f"pay-{number}"}):
                    raise ToolFailed("off")
            run.score("reward", int(task.islower()), by="code")
    tracer.shutdown()


def test_a_reward_that_stands_in_the_result_is_no_score_and_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for reward in (0, 1):
        with tracer.run("shop") as run:
            run.set_result({"reward": reward})
    tracer.flush()
    said = 'the results of runs hold reward, which judges nothing: run.score("reward", …)'
    assert said in " ".join(lines(path, "why"))
    assert document(path)["in_result"] == "reward"
    for reward in (0, 1):
        with tracer.run("shop") as run:
            run.set_result({"reward": reward})
            run.score("reward", reward)
    tracer.shutdown()
    assert said not in " ".join(lines(path, "why"))


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ("aAA", "not tested; 3 runs are too few"),
        ("bbccddeeFFGG", "not tested; no task both passed and failed"),
        ("b" * 20 + "B" * 20, "not tested; these 40 runs are too few, or too much alike"),
    ],
)
def test_that_nothing_was_tested_is_said(tmp_path: Path, tasks: str, said: str) -> None:
    scored(tmp_path / "runs.db", tasks)
    assert said in lines(tmp_path / "runs.db", "why", "--outcome", "reward>=1")


def test_groups_say_of_how_many_runs_they_are_and_that_a_run_can_be_in_several(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    scored(path, "aAb")
    shown = lines(path, "why", "--outcome", "status")
    assert "Runs with a failed step, by what failed (a run can be in several)" in shown
    assert sum(line.startswith("      in 2 of 2 runs with a failed step · ") for line in shown) == 2
    assert "Failed runs, by what failed (a run can be in several)" in lines(path, "why", "--outcome", "reward>=1")


def test_a_run_that_passed_or_in_which_no_step_failed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    scored(path, "abA")
    runs = [run["id"] for run in json.loads(call(path, "runs", "--json").stdout)["runs"]]
    failed, quiet, passed = (lines(path, "why", run, "--outcome", "reward>=1") for run in runs)
    assert "this run passed all the same" in passed
    assert "this run passed all the same" not in failed
    signature = document(path, runs[1], "--outcome", "reward>=1")["signature"]["id"][:4]
    show, same = re.findall(r"agentspan (show .*|runs .*)", "\n".join(quiet))
    assert lines(path, *show.split())[0].startswith(f"run {runs[1]}")
    assert same.startswith(f"runs --signature {signature} --db ")
    assert lines(path, *same.split())[1].startswith(runs[1][:10])


def test_a_part_of_the_runs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        plant(db.storage, "argument", runs=900, seed=0, each=2)
    shown = lines(path, "why")
    assert re.fullmatch(
        r"looked at: arguments of 4\d\d of 900 runs", next(line for line in shown if "arguments of" in line)
    )
    assert any(line.startswith("  Tool pay with currency=EUR") for line in shown)
    compared = document(path)["compared"]
    assert (compared["drawn"], compared["stratified"]) == (900, True)
    assert 400 < compared["read"] < 500


@pytest.fixture
def recovered(tmp_path: Path) -> Path:
    """Four runs that retry a call until it passes; two of them fail later, with an error of their own."""
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(4):
        with suppress(ValueError), tracer.run("shop"):
            for attempt in range(2):
                with suppress(ConnectionError), tracer.span("tool", {"name": "fetch", "arguments": {"u": 1}}) as span:
                    if attempt == 0:
                        raise ConnectionError("reset")
                    span.set_result({"ok": 1})
            if number < 2:
                raise ValueError(f"bad final answer {number}")
    tracer.shutdown()
    return path


def test_an_error_of_the_run_itself_is_a_group_though_a_step_failed_and_was_recovered(recovered: Path) -> None:
    shown = lines(recovered, "why", columns=100)
    text = "\n".join(shown)
    assert shown[2] == "Failed runs, by what failed (a run can be in several)"
    assert shown[3] == "first what failed runs have more often than passed ones"
    assert shown[4].endswith("  Run: ValueError: bad final answer <n>")
    assert shown[5].strip().startswith("in 2 of 2 failed · in 0 of 2 passed · latest run ")
    assert shown[7].strip() == "latest: ValueError: bad final answer 1"
    assert "in 2 of 2 failed · in 2 of 2 passed · recovered in all · failed steps: 2" in text
    own, step = document(recovered)["groups"]
    assert (own["kind"], own["recovered"], step["kind"], step["recovered"]) == ("run", False, "step", True)
    found = json.loads(call(recovered, "runs", "--signature", own["signature"], "--json").stdout)
    assert found["total"] == 2


def test_an_error_that_a_step_raised_is_no_group_of_its_own(db: Path) -> None:
    assert [(group["kind"], group["recovered"]) for group in document(db)["groups"]] == [("step", False)]


def test_a_run_that_has_not_ended_says_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        run = db.agent_instances.register("shop").id
        db.agent_instances.start(run)
        assert "  still open: before its first step" in lines(path, "why", run)
        db.agent_spans.create(run, "tool", "complete", {"name": "find"}, {"output": "x"})
        assert "  still open: after step 1" in lines(path, "why", run)
        db.agent_spans.create(run, "tool", "active", {"name": "fetch", "arguments": {"u": 1}})
        shown = "\n".join(lines(path, "why", run))
    assert "  still open: in step 2, Tool fetch(u=1)\n" in shown
    assert re.search(rf"^read it:\s+agentspan show {run[:10]} --db {path}$", shown, re.MULTILINE)
    assert "it ended" not in shown
    assert "the same ending" not in shown
    assert document(path, run)["still_open"] == {"step": 2, "title": "Tool fetch(u=1)"}


def test_the_passing_run_is_the_nearest_of_the_latest(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(23):
        with suppress(ToolFailed), tracer.run("shop"):
            with tracer.span("llm", {"model": "m"}) as span:
                span.set_result({"text": f"word {number}"})
            with tracer.span("tool", {"name": "find" if number else "buy"}):
                if not number:
                    raise ToolFailed("no")
    tracer.shutdown()
    run = document(path)["groups"][0]["run_id"]
    shown = lines(path, "why", run)
    assert "nearest of the latest 20 of 22 passing runs of this agent:" in shown
    assert document(path, run)["nearest"]["passing"] == 22
    assert "≠ after 1 step that differs only in words: another step" in shown
    assert "  passing   2 ✓ Tool find" in "\n".join(shown)


def test_one_run_without_an_outcome_has_none(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        for status in ("failed", None):
            run = db.agent_instances.register("shop").id
            db.agent_instances.start(run)
            if status is not None:
                db.agent_instances.finish(run, "failed")
    assert " ".join(lines(path, "why")[:2]).startswith(
        "1 of 1 run failed (100%, 21–100%) · 1 of them without a failed step · 1 more is still open"
    )
    with agentspan.open(path) as db:
        ended = db.agent_instances.register("shop").id
        db.agent_instances.finish(ended, "cancelled")
    assert " · 2 more have no outcome" in " ".join(lines(path, "why")[:2])


def test_failed_steps_of_runs_that_are_still_open_are_counted_apart_and_versions_add_up(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        for agent, version, number in (("alpha", "1", 3), ("alpha", "2", 2), ("beta", None, 4), ("beta", "3", 1)):
            for place in range(number):
                given: Any = {} if version is None else {"agent_version": {"external_identifier": version}}
                run = db.agent_instances.register(agent, **given).id
                db.agent_instances.start(run)
                db.agent_spans.create(run, "tool", "failed", {"name": "look"}, {"error": {"type": "E"}})
                if place:
                    db.agent_instances.finish(run, "complete")
        text = "\n".join(shown := lines(path, "why"))
    said = "none of 6 runs failed by its status · 6 have a failed step; --outcome NAME>=VALUE says what failed means"
    assert " ".join(shown[:2]) == f"{said} · 4 more are still open, 4 with a failed step"
    assert "      in 10 of 10 runs with a failed step · failed steps: 10\n      latest run " in text
    assert "by agent alpha: 5, beta: 5 · by version none: 4, 1: 3 and 3 of 2 others" in text
    assert document(path)["groups"][0]["agents"] == {"alpha": 5, "beta": 5}


def test_a_run_that_its_dead_program_left_open_says_so(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    code = "import sys, os, agentspan; agentspan.configure(sys.argv[1]); agentspan.run('a').__enter__(); os._exit(1)"
    subprocess.run([sys.executable, "-c", code, str(path)])
    shown = lines(path, "why", "-", columns=200)
    assert shown[1].startswith("? left open · ")
    assert shown[2] == f"? its program died; this closes what it left open: agentspan doctor --db {path}"
    assert "  left open: before its first step" in shown
    assert document(path, "-")["abandoned"] is True


def test_of_what_differs_the_name_of_the_tool_comes_first_and_the_rest_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for name in ("find", "buy"):
        with suppress(ToolFailed), tracer.run("shop"):
            with tracer.span("llm", {"model": "m"}) as span:
                arguments = {"a": name, "b": name, "c": name}
                span.set_result({"tool_calls": [{"function": {"name": name, "arguments": arguments}}]})
            if name == "buy":
                raise ToolFailed("no")
    tracer.shutdown()
    shown = lines(path, "why", "-")
    at = shown.index("  what differs: passing → this one")
    assert shown[at + 1] == "    result.tool_calls.0.function.name: find → buy"
    assert shown[at + 3] == "2 more members; diff shows each"
    assert "≠ the first step already differs: another answer" in shown


def test_where_nothing_goes_with_failure_it_is_said_what_would_be_missed(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(40):
        with tracer.run("booking") as run:
            if number % 4 < 2:
                with tracer.span("tool", {"name": "pay"}):
                    pass
            run.score("reward", number % 2, by="code")
    tracer.shutdown()
    text = " ".join(lines(path, "why", "--outcome", "reward>=1"))
    said = r"of causes of ×[\d.]+, these runs find at best four in five"
    assert re.search(said, text)
    assert "q = " not in text


def test_bars_show_when_the_runs_of_a_group_began_and_a_signature_shows_one_group(tmp_path: Path) -> None:
    path = tmp_path / "days.db"
    with agentspan.open(path) as db:
        for day in (2, 3, 3, 9):
            run = db.agent_instances.register("booking", agent_version={"external_identifier": "1"})
            db.agent_instances.start(run.id, timestamp=f"2026-11-{day:02}T10:00:00Z")
            result = {"error": {"type": "Broken", "message": "even" if day % 2 else "odd"}}
            db.agent_spans.create(run.id, "tool", "failed", {"name": "pay"}, result)
            db.agent_instances.finish(run.id, "failed", timestamp=f"2026-11-{day:02}T10:00:09Z")
    text = "\n".join(lines(path, "why"))
    assert "      runs per 6 hours ▕    █" in text, text
    found = document(path)
    assert found["periods"] == {"first_at": "2026-11-02T06:00:00.000000Z", "seconds": 21600, "number": 29}
    assert sum(found["histogram"]) == 4
    odd = next(group["signature"] for group in found["groups"] if group["text"].endswith("odd"))
    shown = lines(path, "why", "--signature", odd)
    assert shown[0].startswith("4 of 4 runs failed")
    assert [line[:4] for line in shown if "Tool pay" in line] == [odd[:4]]
    assert [group["signature"] for group in document(path, "--signature", odd)["groups"]] == [odd]
