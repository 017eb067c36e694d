"""Copies a file while others write to it, under another name until the copy is whole."""

import os
import sqlite3
from pathlib import Path

from agentspan import files
from agentspan.errors import InvalidValue
from agentspan.interrupts import let_through


def check_target(path: Path) -> None:
    """Check that a copy may be made at a path.

    Raises:
        InvalidValue: there is a file already, or no folder.
    """
    if path.exists():
        raise _exists(path)
    if not path.parent.is_dir():
        raise InvalidValue("path", f"the folder {path.parent} does not exist; create it")


def copy(source: sqlite3.Connection, path: Path) -> None:
    """Copy what a connection sees to a new file, by SQLite's own way.

    Raises:
        InvalidValue: a file has come there meanwhile, or the copy cannot be written.
    """
    source.execute("select 1 from sqlite_master").fetchone()  # the snapshot begins here
    try:
        number, name = files.aside(path)
        os.close(number)
        try:
            target = sqlite3.connect(name)
            try:
                source.backup(target)
            finally:
                target.close()
            os.link(name, path)  # unlike a rename it fails where a file has come meanwhile
        finally:
            for end in ("", "-wal", "-shm", "-journal"):
                if os.path.exists(name + end):
                    os.unlink(name + end)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        let_through(error)
        raise InvalidValue("path", f"{path} cannot be written: {error.strerror}") from error


def _exists(path: Path) -> InvalidValue:
    return InvalidValue("path", f"{path} exists already; choose another name, or move it away")
