"""The `agentspan` command. `commands` declares what can be typed; the other modules do it, imported when they are."""

from agentspan.cli.app import main
from agentspan.cli.commands import changing, files, reading

__all__ = ["changing", "files", "main", "reading"]
