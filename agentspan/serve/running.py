"""The servers of this user that run on this machine: `serve` notes its own, and `open` finds one for a storage.

A note is a file in the user's state folder, which only this user can write to: a file beside the database could be
another user's, who would then choose the page that opens. A note of a dead server is recognised by its process, and by
a request that the server answers with a number from the note.
"""

import http.client
import json
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from agentspan import files
from agentspan.host import guard
from agentspan.journal.journal_folder import state_folder
from agentspan.journal.writers import life_of, this_process
from agentspan.model.rows import WriterRow
from agentspan.storage.location import Location

HEADER = "x-agentspan-server"
"""The header of answers with the number of the server. It is no secret: it only tells servers apart."""
ANSWER_S = 3.0
"""Seconds within which a running server answers: one that works at a large page is still found."""


class RunningServer(NamedTuple):
    """A server that `serve` has noted.

    Attributes:
        url: its address, for a browser on this machine.
        number: the number that its answers have in HEADER.
        in_background: whether `open` has started it.
        process: its process.
    """

    url: str
    number: str
    in_background: bool
    process: WriterRow

    def answers(self) -> bool:
        """Return whether the server runs: its process lives, and its address is this server's."""
        if life_of(self.process) == "dead":
            return False
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=ANSWER_S)
        try:
            connection.request("GET", "/login")  # no token is needed, and no row is read
            return connection.getresponse().headers.get(HEADER) == self.number
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@contextmanager
def noted(location: Location, url: str, *, number: str, in_background: bool) -> Iterator[None]:
    """Note the server of this process while the block runs. Without a folder to write to, it is not noted."""
    made = RunningServer(url, number, in_background, this_process(""))
    path: Path | None = None
    with guard(OSError, RuntimeError):  # RuntimeError: this user has no home
        path = _folder() / f"{location.key}-{os.getpid()}.json"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.check(path.parent, _OURS)
        with files.replacing(path, encoding="utf-8") as file:
            json.dump(made._asdict() | {"process": made.process._asdict()}, file)
    try:
        yield
    finally:
        with guard(OSError):
            if path is not None:
                path.unlink(missing_ok=True)


def running(location: Location) -> Iterator[RunningServer]:
    """Yield the servers of a storage that answer, the newest first; remove the notes of those that are dead."""
    with guard(OSError, RuntimeError):
        folder = _folder()
        files.check(folder, _OURS)
        for path in sorted(folder.glob(f"{location.key}-*.json"), key=os.path.getmtime, reverse=True):
            found = _read(path)
            if found is not None and found.answers():
                yield found
            elif found is None or life_of(found.process) == "dead":
                path.unlink(missing_ok=True)


def new_number() -> str:
    """Return a number for a server."""
    return secrets.token_hex(8)


_OURS = frozenset({os.geteuid()}) if hasattr(os, "geteuid") else frozenset[int]()


def _folder() -> Path:
    return state_folder() / "servers"


def _read(path: Path) -> RunningServer | None:
    """Return the server of a note; None if the file is not trusted, or is no note."""
    try:
        files.check(path, _OURS)
        plain = json.loads(path.read_text(encoding="utf-8"))
        process = WriterRow(**plain.pop("process"))
        found = RunningServer(**plain, process=process)
        is_http = urlsplit(found.url).scheme == "http" and process.host == platform.node()
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None
    return found if is_http else None
