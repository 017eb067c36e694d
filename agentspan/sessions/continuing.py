"""The command that continues a session in the product that recorded it."""

import shlex

from agentspan import jsontext
from agentspan.model.rows import AgentInstanceRow

COMMANDS = {
    "claude": "claude --resume {}",
    "codex": "codex resume {}",
    "opencode": "opencode --session {}",
}
"""The command of each format; other products continue the latest session only, or none."""


def command_of(run: AgentInstanceRow) -> str | None:
    """Return the command that continues the session of a run, in its folder; None for a run of no such session."""
    format, _, id = (run.external_identifier or "").partition(":")
    if format not in COMMANDS or not id:
        return None
    command = COMMANDS[format].format(shlex.quote(id))
    metadata = None if run.metadata is None else jsontext.decode(run.metadata)
    folder = metadata.get("cwd") if type(metadata) is dict else None
    return f"cd {shlex.quote(folder)} && {command}" if type(folder) is str else command
