"""The `agentspan` command. `app.py` lists all commands, `group.py` calls them, each has a module of its own."""

from agentspan.cli.group import main

__all__ = ["main"]
