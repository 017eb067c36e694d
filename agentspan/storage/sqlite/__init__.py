"""SQLite: one file that anybody can open. The docstring of each module explains its design."""

from agentspan.storage.sqlite.storage import SQLiteStorage

__all__ = ["SQLiteStorage"]
