"""SQLite: one file that anybody can open. The idea of each part stands at the top of its module."""

from agentspan.storage.sqlite.storage import SQLiteStorage

__all__ = ["SQLiteStorage"]
