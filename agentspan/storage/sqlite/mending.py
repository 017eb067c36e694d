"""Puts a sound file in the place of one that was changed while it was open, so that recording can go on in it.

The new file is a copy, which is renamed over the path: it has another inode. Whoever has the other one open still, with
its log, writes to what has no name any more, and does no harm to the new one. Nothing is deleted but the index: the log
is renamed.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from agentspan import files
from agentspan.interrupts import guard
from agentspan.storage.sqlite import file_watch, tables
from agentspan.storage.sqlite.file_watch import Change, Watch

QUIET_S = 0.5
"""Seconds since the file was written to last: a copy over it may be under way."""
_keeping: list[object] = []


def mend(
    path: Path, watch: Watch, change: Change, own: sqlite3.Connection | None, *, is_first: bool = False
) -> str | None:
    """Put a sound copy at a path; return what was done, a sentence, or None where nothing sound is there yet.

    Where its log or index was deleted, the copy has all that a connection of before sees. Where something was copied
    over the file, it has that.

    Args:
        watch: says whether somebody else was first.
        own: a connection of before.
        is_first: whether it is tried for the first time. Where the log was deleted, another process may see what is in
            it, and is let go first.

    Raises:
        DatabaseBusy: another process is doing it.
        OSError: a file cannot be made or renamed.
    """
    real = Path(os.path.realpath(path))
    with file_watch.locked(real):
        if watch.is_replaced():
            return f"{path} was replaced"
        before = os.stat(real)
        with _aside(real) as name:
            is_whole = change == "log" and own is not None and _copy(own, name)
            if not is_whole:
                if change == "log" and is_first:
                    return None
                if _is_sound_with_its_log(real):  # others may go on in it: a copy without the log has nothing of theirs
                    return f"{path} is sound"
                if 0 <= time.time() - before.st_mtime < QUIET_S:
                    return None
                with closing(_alone(real)) as source:
                    if not _copy(source, name):
                        return None
            after = os.stat(real)
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                return None
            os.chmod(name, stat.S_IMODE(before.st_mode))
            with suppress(OSError, AttributeError):  # of another user, whose file root has put in order
                os.chown(name, before.st_uid, before.st_gid)
            log = file_watch.set_aside(real)
            os.rename(name, real)
    kept = "" if log is None else f"; its log of before is {log} now"
    return f"{path} is a sound copy now{kept}"


def is_sound(connection: sqlite3.Connection) -> bool:
    """Return whether SQLite finds no fault in what a connection sees."""
    try:
        return [*connection.execute("pragma integrity_check(1)")] == [("ok",)]
    except sqlite3.Error:
        return False


def abandon(connections: list[sqlite3.Connection]) -> bool:
    """Give up connections to a file that is not at its path any more; return whether they could be closed.

    The last one that is closed normally copies its log into the file, and deletes what has the log's path, which may
    belong to another file. Before Python 3.12 that cannot be turned off, so they stay open until the process ends.
    """
    forbid = getattr(sqlite3, "SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE", None)
    if forbid is None:
        for each in connections:
            _keep_for_ever(each)
        return False
    for each in connections:
        close_one(each)
    return True


def close_one(connection: sqlite3.Connection) -> None:
    """Close a connection to a file that may not be at its path any more, without a checkpoint.

    See abandon: where a checkpoint cannot be turned off, another connection is open still, and this is not the last.
    """
    forbid = getattr(sqlite3, "SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE", None)
    with suppress(sqlite3.Error):
        if forbid is not None:
            connection.setconfig(forbid, True)  # type: ignore[attr-defined]
        connection.close()


def _keep_for_ever(connection: sqlite3.Connection) -> None:
    """Keep an object from being freed, also when the interpreter ends, which frees what modules refer to."""
    _keeping.append(connection)
    with guard(ImportError, AttributeError):  # not CPython, or built without it
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def _alone(path: Path) -> sqlite3.Connection:
    """Return a connection to a file without its log."""
    return sqlite3.connect(path.as_uri() + "?mode=ro&immutable=1", uri=True, isolation_level=None)


def _is_sound_with_its_log(path: Path) -> bool:
    if not os.stat(path).st_size:  # to open it would delete its log
        return False
    try:
        with closing(sqlite3.connect(path.as_uri() + "?mode=ro", uri=True, isolation_level=None)) as connection:
            return _is_ours(connection) and is_sound(connection)  # one that cannot write makes no checkpoint
    except sqlite3.Error:
        return False


def _is_ours(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("pragma application_id").fetchone()[0] == tables.APPLICATION_ID)


def _copy(source: sqlite3.Connection, name: str) -> bool:
    """Copy what a connection sees; return whether that is a sound file of agentspan, or an empty one."""
    try:
        with closing(sqlite3.connect(name, isolation_level=None)) as target:
            source.backup(target)
            is_empty = target.execute("select 1 from sqlite_master").fetchone() is None
            return (_is_ours(target) or is_empty) and is_sound(target)
    except sqlite3.Error:
        return False


@contextmanager
def _aside(path: Path) -> Iterator[str]:
    number, name = files.aside(path)
    os.close(number)
    try:
        yield name
    finally:
        for end in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(name + end)
