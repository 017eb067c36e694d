"""The `agentspan` command. `commands` declares the commands; a module of each command's name does its work."""

from agentspan.cli.app import main
from agentspan.cli.commands import changing, files, reading

__all__ = ["changing", "files", "main", "reading"]
