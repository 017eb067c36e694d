"""`agentspan versions`, `session` and `search --by-run`, as text and as JSON."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import agentspan
from tests.cli.calling import call, lines


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 runs of two versions of an agent, the first three of one session; and a run of another agent."""
    path = tmp_path_factory.mktemp("versions") / "runs.db"
    at = datetime(2026, 11, 20, tzinfo=UTC)
    with agentspan.open(path) as db:
        for number in range(32):
            at += timedelta(hours=1)
            about: Any = {
                "agent_version": {"external_identifier": "1.0" if number < 16 else "2.0"},
                "session": "chat one" if number < 3 else None,
                "external_identifier": f"ticket-{number}",
            }
            run = db.agent_instances.register("booking", **about)
            db.agent_instances.start(run.id, timestamp=at)
            end = at + timedelta(seconds=2)
            said = {"role": "user", "content": f"book flight {number}"}
            db.agent_spans.create(run.id, "message", "complete", said, started_at=at, finished_at=end)
            for step in range(4 if number == 31 else 1):
                result = {"output": f"gate {step}"}
                db.agent_spans.create(
                    run.id, "tool", "complete", {"name": "pay"}, result, started_at=at, finished_at=end
                )
            failed = number >= 16 and number % 8
            db.agent_instances.finish(run.id, "failed" if failed else "complete", timestamp=end)
        db.agent_instances.register("triage")
    return path


def document(db: Path, *args: str) -> Any:
    return json.loads(call(db, *args, "--json").stdout)


def test_versions_stand_side_by_side_with_a_verdict(db: Path) -> None:
    shown = lines(db, "versions", columns=100)
    assert shown[0].startswith("2.0 is worse than 1.0: 13% passed instead of 100%")
    beside = shown[shown.index("booking has 2 versions") + 1 :]
    assert beside[0].split() == ["version", "runs", "failed", "95%", "took", "tok", "cost", "first", "run"]
    assert beside[1].split()[:5] == ["2.0", "16", "88%", "64–97%", "2.0"]
    assert lines(db, "versions", "booking", columns=100) == shown
    assert max(map(len, lines(db, "versions", columns=40))) <= 40
    found = document(db, "versions", "booking")
    assert [each["version"] for each in found["versions"]] == ["2.0", "1.0"]
    assert (found["comparison"]["verdict"], found["comparison"]["base"]) == ("worse", "1.0")
    same = lines(db, "versions", "booking", "--base", "1.0", "--head", "1.0")
    assert "each also matches head 1.0, so nothing is left" in " ".join(same)


def test_agents_with_several_versions_are_listed(db: Path, tmp_path: Path) -> None:
    assert [each["agent"] for each in document(db, "versions")["agents"]] == ["booking", "triage"]
    assert lines(db, "versions", "--version", "1.0")[0].startswith("1 agent, none with several versions")
    assert lines(db, "versions", "triage")[0] == "triage has 1 version"
    assert call(db, "versions", "nobody").exit_code == 1
    path = tmp_path / "empty.db"
    assert call(path, "init").exit_code == 0
    assert lines(path, "versions")[0].startswith("nothing has been recorded here yet")


def test_a_session_is_shown_in_order(db: Path) -> None:
    shown = lines(db, "show", "--session", "chat one")
    assert shown[:2] == ["session chat one", "3 runs · 6 steps · 6.0 s"]
    assert [line for line in shown if "book flight" in line] == [f"✓ {n + 1}. book flight {n}" for n in range(3)]
    assert (
        lines(db, "show", "--session", "chat one", "--limit", "1", "--offset", "1")[-1]
        == "1 of 3 runs; --offset 2 goes on"
    )
    found = document(db, "show", "--session", "chat one")
    assert [each["prompt"] for each in found["runs"]] == [f"book flight {n}" for n in range(3)]
    assert (found["total"], found["totals"]["spans"], found["runs"][0]["verdict"]["kind"]) == (3, 6, "passed")
    unknown = call(db, "show", "--session", "chat")
    assert (unknown.exit_code, "no run has the session 'chat'" in unknown.stderr) == (1, True)
    assert call(db, "show", "--session", "chat one", "--session", "x").exit_code == 2


def test_a_search_can_be_grouped_by_run(db: Path) -> None:
    shown = lines(db, "search", "gate", "--by-run", "-n", "2")
    assert shown[0] == "✗ booking 2.0"
    assert shown[1].startswith("  run ")
    assert shown[1].endswith(" · 11-21 08:00:00 UTC · 4 steps")
    steps = [re.search(r"^    step \w+(#\d) · ", line) for line in shown]
    assert [step[1] for step in steps if step][:3] == ["#5", "#4", "#3"]
    more = shown.index("  1 more:")
    assert shown[more + 1].startswith("    agentspan search gate --run ")
    assert shown[-1] == "35 steps in 32 runs; 2 of them are listed"
    found = document(db, "search", "gate", "--by-run")
    assert (found["total"], found["examined"], found["found"], len(found["runs"])) == (35, 35, 32, 20)
    assert [len(each["hits"]) for each in found["runs"][:2]] == [3, 1]
    run = found["runs"][1]["run_id"]
    assert [each["run_id"] for each in document(db, "search", "gate", "--by-run", "--run", run)["runs"]] == [run]
    assert document(db, "search", run, "--by-run")["named"] == run
    assert lines(db, "search", "ticket-30", "--by-run")[0].startswith("ticket-30 names a run")
    assert lines(db, "search", "nowhere", "--by-run")[0].startswith("nothing found")
    assert set(document(db, "search", "gate")) == {"hits", "total"}
