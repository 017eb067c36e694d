"""The command that continues a session is printed with its run."""

from pathlib import Path

import agentspan
from agentspan.sessions.continuing import command_of
from tests.cli.calling import lines
from tests.sessions.steps import Told, arrive, runs_of


def test_the_command_that_continues_a_session_is_shown(tmp_path: Path) -> None:
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
