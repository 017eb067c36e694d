"""The command that continues a session in the product that recorded it."""

import shlex

from agentspan import jsontext
from agentspan.model.rows import AgentInstanceRow


def command_of(run: AgentInstanceRow) -> str | None:
    """Return the command that continues the session of a run, in its folder; None for a run of no such session."""
    format, _, id = (run.external_identifier or "").partition(":")
    metadata = jsontext.decode(run.metadata) if id and run.metadata else None
    if type(metadata) is not dict or metadata.get("session_id") != id:
        return None
    from agentspan.sessions.formats import resume_command  # few runs are sessions

    command, folder = resume_command(format, id), metadata.get("cwd")
    return f"cd {shlex.quote(folder)} && {command}" if command and type(folder) is str and folder else command
