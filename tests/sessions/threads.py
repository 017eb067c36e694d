"""Threads of Codex as files, and the formats of the files that tests mix."""

import os
from pathlib import Path
from typing import Any

from agentspan.sessions import codex
from agentspan.sessions.claude import FORMATS as CLAUDE
from tests.sessions import codex_rollouts as rollouts
from tests.sessions.installed import text_of

FORMATS = {format.name: format for format in (*CLAUDE, *codex.FORMATS)}


def thread(id: str, begins: float, **more: Any) -> list[Any]:
    """Return the records of a thread of Codex with one question."""
    return [
        rollouts.header(id, begins, **more), rollouts.context(begins + 1), rollouts.turn(begins + 1),
        *rollouts.prompt(begins + 2, f"what does {begins} do?"), *rollouts.said(begins + 3, "Nothing."),
        rollouts.tokens(begins + 4, rollouts.usage(100, 10)), rollouts.done(begins + 4),
    ]  # fmt: skip


def put(folder: Path, name: str, lines: list[Any]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(lines))
    os.utime(path, (1_700_000_000, 1_700_000_000))
