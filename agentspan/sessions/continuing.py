"""The command that continues a session in the product that recorded it."""

import shlex

from agentspan.ground import AgentInstanceRow, jsontext


def command_of(run: AgentInstanceRow) -> str | None:
    """Return the command that continues the session of a run, in its folder; None for a run that is no session."""
    format, _, id = (run.external_identifier or "").partition(":")
    metadata = jsontext.decode(run.metadata) if id and run.metadata is not None else None
    if type(metadata) is not dict or metadata.get("session_id") != id:
        return None
    from agentspan.sessions.registry import resume_command  # few runs are sessions

    command, folder = resume_command(format, id), metadata.get("cwd")
    return f"cd {shlex.quote(folder)} && {command}" if command and folder and type(folder) is str else command
