"""Copies a storage to a new file, or into a pipe or device, while other processes write to it."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

from agentspan.errors import InvalidValue, StorageError
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import BackUp


def backup(storage: Storage, path: str | os.PathLike[str]) -> int:
    """Copy all committed data to a new file. A pipe or device at the path is written to, never replaced.

    Returns:
        The size of the copy, in bytes.

    Raises:
        StorageError: the storage cannot make a backup.
        InvalidValue: the file exists, or its folder does not, or the copy cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise InvalidValue("path", f"{target} is a folder; name a file in it")
    if not target.exists() or target.is_file():
        # A link may point to a file that does not exist yet: the copy is made there.
        return _backup(storage, Path(os.path.realpath(target)) if target.is_symlink() else target)
    try:
        with target.open("wb") as file:
            return pour(storage, file)
    except OSError as error:
        raise InvalidValue("path", f"{target} cannot be written: {error.strerror}") from error


def pour(storage: Storage, file: IO[bytes]) -> int:
    """Copy all committed data into an open file, which may be a pipe; return the size in bytes.

    Raises:
        StorageError: the storage cannot make a backup.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        size = _backup(storage, copy)
        with copy.open("rb") as source:
            shutil.copyfileobj(source, file)
        file.flush()
    return size


def _backup(storage: Storage, path: Path) -> int:
    can = storage.capabilities()
    if BackUp not in can.answers:
        to_file = "`agentspan copy` writes all runs to a file"
        instead = f"use pg_dump; {to_file}" if can.backend == "postgresql" else to_file
        raise StorageError(f"the storage {can.backend!r} cannot make a backup; {instead}")
    return storage.ask(BackUp(path))
