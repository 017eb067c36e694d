"""The files that a way through the house enters: those of which a function is called in this thread.

What is called while a module is imported does not count, so each way is gone twice, and the second time counts. The
process records nothing: a recorder's threads would add files.
"""

import json
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from functools import partial
from inspect import CO_NEWLOCALS, CO_OPTIMIZED
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import Any

import agentspan
from agentspan.cli import main
from agentspan.serve import create_app
from tests.serve.asgi import Client
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


def finish_over_http(db: str) -> list[str]:
    """Return the files that a request enters which finishes a call of a tool."""
    with agentspan.open(db) as database:
        run = database.agent_instances.register("a")
        database.agent_instances.start(run.id)
        payload = {"name": "t", "arguments": {"a": 1}}
        spans = [database.agent_spans.create(run.id, "tool", "active", payload) for _ in range(2)]
    with Client(create_app(db)) as client:
        for each in spans:
            path, body = f"/api/v1/agent_spans/{each.id}/finish", {"result_payload": {"output": "y"}}
            found = entered(partial(client.post, path, json=body))
    return found


def show_of_a_run(db: str) -> list[str]:
    """Return the files that `agentspan show -` enters: a run with two steps, without a budget."""
    with agentspan.open(db) as database:
        run = database.agent_instances.register("a")
        database.agent_instances.start(run.id)
        steps: dict[str, dict[str, Any]] = {
            "llm": {"model": "gpt-4.1", "messages": [{"role": "user", "content": "x"}]},
            "tool": {"name": "t"},
        }
        for schema_name, payload in steps.items():
            span = database.agent_spans.create(run.id, schema_name, "active", payload)
            database.agent_spans.finish(span.id, result_payload={"output": "y", "input_tokens": 80})
        database.agent_instances.finish(run.id)
    for _ in range(2):
        with redirect_stdout(StringIO()), chdir(Path(db).parent):
            found = entered(lambda: main(["show", "-", "--db", db], standalone_mode=False))
    return found


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
