"""What a format of session files is: where they lie, which files belong to a session, and how they are decoded."""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from agentspan.arriving import Record

_READING = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_BINARY", "O_CLOEXEC"))


class Source(NamedTuple):
    """The files of one session, or one file of many sessions.

    Attributes:
        format: the name of the format.
        path: the main file.
        parts: further files of the session, such as those of its sub-agents, in a fixed order.
        project: the folder that the sessions are about, as far as the path says; None if it does not.
    """

    format: str
    path: Path
    parts: tuple[Path, ...] = ()
    project: str | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files, the main one first."""
        return (self.path, *self.parts)


class About(NamedTuple):
    """A session in a file that holds many: its folder, or None, and the times of its first and last record."""

    project: str | None
    first_ns: int
    last_ns: int


class LineDecoder:
    """Decodes files of lines, in which a session only grows. One decoder decodes one source, line by line.

    A subclass keeps what later lines need: open steps, not the whole session. All lines of the main file are fed first,
    then those of each part. While a file grows, `rest` and more lines take turns.
    """

    def feed(self, file: Path, line: bytes) -> Iterable[Record]:
        """Decode one line; return the steps that ended with it. Never raises for what a line contains.

        Args:
            file: the file of the line.
            line: the line without its line end. It may be no JSON.
        """
        raise NotImplementedError

    def rest(self) -> Iterable[Record]:
        """Return the steps that have not ended, as they are now, and the Session. More lines may follow."""
        raise NotImplementedError


class Format(NamedTuple):
    """A format of session files.

    Attributes:
        name: its short name on the command line, such as `claude`.
        title: the name of the product for people.
        roots: returns the folders or files in which sessions lie on this machine, from the environment variables.
        sources: returns the sources in a folder, or of a file. Of a folder, only files with the right names are
            returned; of a file, only those with the right content. Never raises for files that vanish.
        lines: makes the decoder of a source whose files are lines; None if `decode` reads them whole. A format with
            both decodes its `.json` files whole.
        decode: decodes a file that is read whole, such as a database. `after` is what `position` returned when the file
            was read the last time, or None: sessions that have not changed since may be left out.
        position: returns a text that says how far a file was decoded, before it is decoded; None without.
        version: a number that grows when the decoder decodes the same bytes differently. Files that were read with
            another number are read again.
        keeps_days: days after which the product deletes a session file, from the environment variables; None for never.
        resume: returns the command that continues a session, from its id in the source, which may be any text; None
            without such a command.
        about: lists the sessions of a file that holds many, without decoding them; None for a file of one session.
    """

    name: str
    title: str
    roots: Callable[[Mapping[str, str]], Sequence[Path]]
    sources: Callable[[Path], Iterable[Source]]
    lines: Callable[[Source], LineDecoder] | None = None
    decode: Callable[[Path, str | None], Iterable[Record]] | None = None
    position: Callable[[Path], str] | None = None
    version: int = 1
    keeps_days: Callable[[Mapping[str, str]], int | None] | None = None
    resume: Callable[[str], str] | None = None
    about: Callable[[Path], Iterable[About]] | None = None


def home(environment: Mapping[str, str]) -> Path:
    """Return the user's home folder."""
    return Path(environment.get("HOME") or os.path.expanduser("~"))


def walk(folder: Path, *endings: str) -> Iterator[Path]:
    """Yield the regular files below a folder whose names have one of the endings, in order of their paths.

    Links to folders are not followed, links to files are. A folder that vanishes or cannot be read is left out.
    """
    for at, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith(endings) and os.path.isfile(os.path.join(at, name)):
                yield Path(at, name)


def head_of(path: Path, size: int = 65_536) -> bytes:
    """Return the first bytes of a file; none if it cannot be read, or is no regular file."""
    try:
        with open_regular(path) as file:
            return file.read(size)
    except OSError:
        return b""


def open_regular(path: Path, buffer: int = -1) -> IO[bytes]:
    """Open a regular file for reading. A pipe or device is not waited for, and not read.

    Args:
        buffer: the bytes of its buffer; -1 for Python's own size.

    Raises:
        OSError: the file cannot be read, or is no regular file.
    """
    number = os.open(path, _READING)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(number, "rb", buffer)
