"""Writes the file that a command was told to: replaces a regular file when the new one is whole, and writes to others.

Pipes, terminals and devices are not replaced: `/dev/null` would become a file. Of a link, its target is replaced.
"""

import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agentspan import files
from agentspan.cli.output import Failed

_AS_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "newline": "\n"}


def is_stdout(path: str | os.PathLike[str]) -> bool:
    """Return whether a path names the standard output, as /dev/stdout does: messages then go to stderr."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(sys.stdout.fileno()))
    except (OSError, ValueError):  # ValueError: a stdout without a file, as in tests
        return False


def write(path: Path, parts: Iterable[str]) -> int:
    """Write a text as UTF-8; return its bytes. A new file has mode 0600; an existing one keeps its mode.

    Raises:
        Failed: the file cannot be written.
    """
    try:
        if is_stdout(path):  # it may be a file that is appended to
            size = sum(sys.stdout.buffer.write(part.encode("utf-8", "replace")) for part in parts)
            sys.stdout.buffer.flush()
            return size
        if path.exists() and not path.is_file():  # asked of the path itself: that of a pipe resolves to no path
            with path.open("wb") as file:
                return sum(file.write(part.encode("utf-8", "replace")) for part in parts)
        return _replace(Path(os.path.realpath(path)), parts)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}") from None


def _replace(target: Path, parts: Iterable[str]) -> int:
    number, name = files.aside(target)
    try:
        with os.fdopen(number, "w", **_AS_TEXT) as file:
            file.writelines(parts)
            file.flush()
            size = os.fstat(number).st_size
            if target.exists():
                os.chmod(name, stat.S_IMODE(target.stat().st_mode))
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    return size
