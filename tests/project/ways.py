"""The files that a way through the house enters: those of which a function is called in this thread.

What is called while a module is imported does not count, so each way is gone twice, and the second time counts. The
process records nothing: a recorder's threads would add files.
"""

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from inspect import CO_NEWLOCALS, CO_OPTIMIZED
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

import agentspan
from agentspan.cli import main
from tests.sessions.claude_files import assistant, result, text, tool, user

PACKAGE = Path(agentspan.__file__).parent
_FUNCTION = CO_OPTIMIZED | CO_NEWLOCALS
"""The flags of the code of functions; the bodies of modules and classes lack one."""


def entered(call: Callable[[], object]) -> list[str]:
    """Call a function; return the files of agentspan of which this thread has called a function meanwhile."""
    found: set[str] = set()

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_flags & _FUNCTION == _FUNCTION:
            found.add(frame.f_code.co_filename)

    sys.setprofile(look)
    try:
        call()
    finally:
        sys.setprofile(None)
    return sorted(str(Path(each).relative_to(PACKAGE)) for each in found if each.startswith(f"{PACKAGE}/"))


def import_of_a_session(db: str) -> list[str]:
    """Return the files that `agentspan import FILE` enters: a session with a prompt, and a tool that a model called."""
    for number in range(2):
        path = Path(db).with_name(f"{number}{number:07}-2222-4333-8444-555555555555.jsonl")
        records = [
            user("u1", None, 0, "water the garden"),
            assistant("a1", "u1", 1, text("I look"), tool(f"toolu_{number}", command="ls")),
            result("u2", "a1", 2, f"toolu_{number}", "beds  pond"),
            assistant("a2", "u2", 3, text("It is watered."), id="msg_2", stop_reason="end_turn"),
        ]
        for each in records:
            each |= {"sessionId": path.stem, "uuid": f"{each['uuid']}{number}", "cwd": "/home/ada/garden"}
        path.write_text("".join(f"{json.dumps(each)}\n" for each in records), encoding="utf-8")
        arguments = ["import", str(path), "--db", db]
        with redirect_stdout(StringIO()):
            found = entered(lambda arguments=arguments: main(arguments, standalone_mode=False))  # type: ignore[misc]
    return found
