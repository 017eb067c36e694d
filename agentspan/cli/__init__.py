"""The `agentspan` command. `app.py` lists all commands, and the file of each, which has its options and its work."""

from agentspan.cli.app import main

__all__ = ["main"]
