"""Where rows live: the protocol, and two backends that are peers, SQLite and memory."""

import os

from agentspan import forks
from agentspan.errors import InvalidValue
from agentspan.storage.protocol import Storage


def open_storage(
    db: str | os.PathLike[str] | Storage | None, *, read_only: bool = False, wait_s: float = 10.0
) -> Storage:
    """Return the storage that `db` names (see open); opening a file waits at most `wait_s` for other processes."""
    if db is None:
        db = default_path()
    if isinstance(db, (str, os.PathLike)):
        if os.fspath(db) == ":memory:":
            with forks.importing:
                from agentspan.storage.memory import MemoryStorage

            if read_only:
                raise InvalidValue("read_only", "a new database in memory has nothing to read")

            return MemoryStorage()
        with forks.importing:
            from agentspan.storage.sqlite import SQLiteStorage

        return SQLiteStorage(db, read_only=read_only, wait_s=wait_s)
    if not hasattr(db, "apply"):
        raise InvalidValue("db", f"must be a path or a Storage, not a value of type {type(db).__name__}")
    return db


def default_path() -> str:
    """Return the file that is used when none is named: AGENTSPAN_DB, else agentspan.db in the current folder."""
    return os.environ.get("AGENTSPAN_DB") or "agentspan.db"
