"""The command that continues a session in its product is printed once, after the steps of its run."""

from pathlib import Path

import agentspan
from tests.cli.calling import lines
from tests.sessions.steps import Told, arrive


def test_show_ends_with_the_command_that_continues_a_session(tmp_path: Path) -> None:
    told = Told("s-1", metadata={"cwd": "/work/my shop"})
    told.ask("go")
    with agentspan.open(tmp_path / "a.db") as database:
        (claude,) = arrive(database, told, format="claude")
        (toy,) = arrive(database, told, format="toy")
    command = "cd '/work/my shop' && claude --resume s-1"
    shown = lines(tmp_path / "a.db", "show", claude)
    assert shown[-1] == f"go on with this session: {command}"
    assert "\n".join(shown).count("--resume") == 1
    assert "resume" not in "\n".join(lines(tmp_path / "a.db", "show", toy))
