"""The command that continues a session in its product is printed once, after the steps of its run."""

from pathlib import Path

import agentspan
from agentspan.sessions.continuing import command_of
from agentspan.viewer.address import Address
from agentspan.viewer.listing import listing
from tests.cli.calling import lines
from tests.sessions.steps import Told, arrive, runs_of


def test_show_ends_with_the_command_that_continues_a_session(tmp_path: Path) -> None:
    told = Told("s-1", metadata={"cwd": "/work/my shop"})
    told.ask("go")
    with agentspan.open(tmp_path / "a.db") as database:
        arrive(database, told, format="claude")
        arrive(database, told, format="toy")
        assert sorted(command_of(run) or "" for run in runs_of(database)) == [
            "",
            "cd '/work/my shop' && claude --resume s-1",
        ]
        run = next(run.id for run in runs_of(database) if command_of(run))
    assert "    continue it: cd '/work/my shop' && claude --resume s-1" in lines(tmp_path / "a.db", "show", run)


def test_a_session_is_shown_without_what_its_program_did_on_the_way(tmp_path: Path) -> None:
    told = Told("s-1", metadata={"cwd": "/work/shop"})
    told.ask("add a refund")
    told.tool("Bash", {"command": "make"}, "made", key="t1")
    told.step("hook", {"name": "PostToolUse:Bash", "command": "lint"}, parent="t1")
    told.step("event", {"name": "skill_listing", "content": "many"})
    told.step("event", {"name": "interrupted", "level": "warning", "content": "by the person"})
    with agentspan.open(tmp_path / "a.db") as database:
        (run,) = arrive(database, told, format="claude")
    shown = lines(tmp_path / "a.db", "show", run)
    assert [line for line in shown if "lint" in line or "skill_listing" in line] == []
    assert "    shop: add a refund" in shown
    steps = [line.partition(" ")[2] for line in shown if line.startswith("#")]
    assert [line[4:20].rstrip() for line in steps] == [
        "user: add a refu",
        "Tool Bash(comman",
        "interrupted: by",
    ]
    assert shown[-1] == "3 lines for 5 spans, without 2 hooks and events; --full shows each"
    whole = lines(tmp_path / "a.db", "show", run, "--full")
    assert len([line for line in whole if "lint" in line or "skill_listing" in line]) == 2


def test_the_list_of_runs_has_the_titles_of_sessions(tmp_path: Path) -> None:
    told = Told("s-1", metadata={"cwd": "/work/shop", "title": "Refunds"})
    with agentspan.open(tmp_path / "a.db") as database:
        arrive(database, told, format="claude")
        cells = listing(database.storage, Address())["runs"][0]["cells"]
    assert cells["about"] == "shop: Refunds"
    assert "  shop: Refunds" in lines(tmp_path / "a.db", "runs")
