"""The `agentspan` command. `app.py` lists all commands; the module of a command has its options and its function."""

from agentspan.cli.app import main

__all__ = ["main"]
