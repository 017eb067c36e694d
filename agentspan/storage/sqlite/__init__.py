"""The SQLite backend: a storage in one file that any SQLite program can open. Each module explains its design."""

from agentspan.storage.sqlite.storage import SQLiteStorage

__all__ = ["SQLiteStorage"]
