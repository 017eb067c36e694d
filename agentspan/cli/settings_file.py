"""Changes a settings file of another program: the whole file at once, and only if nobody has changed it meanwhile."""

from pathlib import Path
from typing import NamedTuple

from agentspan import files
from agentspan.cli.output import Failed
from agentspan.sessions.formats import open_regular


class Change(NamedTuple):
    """A file that is to change.

    Attributes:
        path: its path, with links followed: a settings file may be a link into a repository.
        before, after: its text, with its line ends; None where there is no file.
    """

    path: Path
    before: str | None
    after: str | None


def read(path: Path) -> str | None:
    """Return the text of a file; None if there is none.

    Raises:
        Failed: it cannot be read, is no regular file, or no text in UTF-8.
    """
    try:
        with open_regular(path) as file:
            return file.read().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Failed(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'no UTF-8 text'}") from None


def write(change: Change) -> None:
    """Write a change, with the permissions that the file had.

    The file is compared last, when the new one is complete: the program that it belongs to may write it at any moment.

    Raises:
        Failed: the file has changed since it was read, or cannot be written.
    """
    path = change.path
    try:
        if change.after is None:
            _check(change)
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path, keeps_mode=True, encoding="utf-8", newline="") as file:
            file.write(change.after)
            file.flush()
            _check(change)
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}") from None


def _check(change: Change) -> None:
    if read(change.path) not in (change.before, change.after):  # another call may have made the same change
        raise Failed(f"{change.path} has changed meanwhile, and was left as it is; call the command again")
