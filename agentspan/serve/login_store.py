"""The files of login sessions: the secret that signs them, and which of them have ended by a logout.

Both are in the folder `NAME-logins` beside the file. The file itself does not have them, because it is copied, exported
and handed to others, who could then log in. They are kept together, because deleting one without the other would make
cookies valid again that were logged out; without the folder all sessions have ended. A logout is an empty file, whose
name has its session and expiry: several servers of one file create and find it without locks.
"""

import logging
import os
import time
from pathlib import Path
from typing import Protocol

from agentspan import files
from agentspan.interrupts import let_through
from agentspan.tuning import STANDARD

log = logging.getLogger("agentspan")

_SUFFIX = "-logins"
_SECRET = "secret"
_BYTES = 32


class Logins(Protocol):
    """The secret of a server, and the sessions that were ended: LoginStore for a file, SharedLogins for a storage.

    Its methods may be called in any thread.
    """

    secret: bytes

    @property
    def waits(self) -> bool:
        """True if checking a session waits for a server."""
        ...

    def refresh(self) -> bool:
        """Look whether the secret is another one now; return whether it is."""
        ...

    def end(self, session: str, expires: int) -> None:
        """End a session before it expires, in seconds of Unix time."""
        ...

    def has_ended(self, session: str, expires: int) -> bool:
        """Return whether a session was ended."""
        ...


class LoginStore:
    """The secret and the logouts of one file's servers.

    Without a file, or if its folder cannot be written, they are in memory: then sessions end with the process, and no
    logout is forgotten.

    Args:
        path: the file; None if the storage has none.
        most: logouts that are kept; one more ends all sessions.

    Attributes:
        secret: what signs sessions.
        waits: whether checking a session waits for a server.
    """

    waits = False

    def __init__(self, path: Path | None, most: int = STANDARD.kept_logouts) -> None:
        self._most = most
        self._folder: Path | None = None
        self._ended: set[str] = set()
        self.secret = os.urandom(_BYTES)
        if path is None:
            return
        folder = Path(os.path.realpath(path) + _SUFFIX)
        try:
            self.secret = _secret_in(folder, files.owners_of(path))
        except OSError as error:
            let_through(error)
            log.warning("logins end with this process, since %s cannot be used: %s", folder, error.strerror or error)
            return
        self._folder = folder
        self._forget_expired()

    def refresh(self) -> bool:
        """Return whether the secret is another one than before: it is not, until the process ends."""
        return False

    def end(self, session: str, expires: int) -> None:
        """End a session before it expires.

        Args:
            session: its name, of letters and digits.
            expires: when it would expire, in seconds of Unix time.
        """
        self._ended.add(session)
        if self._folder is None:
            return
        try:
            os.close(files.create(self._folder / _name(session, expires)))
            if self._forget_expired() > self._most:
                self._end_all()
        except FileExistsError:  # another server was faster
            pass
        except OSError as error:
            let_through(error)
            log.warning("a logout holds only until this process ends: %s", error)

    def has_ended(self, session: str, expires: int) -> bool:
        """Return whether a session was ended, by this server or another one of the same file."""
        if session in self._ended:
            return True
        return self._folder is not None and (self._folder / _name(session, expires)).exists()

    def _forget_expired(self) -> int:
        """Delete the logouts of sessions that have expired since; return how many are left."""
        assert self._folder is not None
        left, now = 0, time.time()
        for name in os.listdir(self._folder):
            expires, _, _ = name.partition(".")
            if expires.isdigit() and int(expires) < now:
                (self._folder / name).unlink(missing_ok=True)
            else:
                left += name != _SECRET
        return left

    def _end_all(self) -> None:
        """Replace the secret; other servers of the file keep theirs, and the logouts, until they end."""
        assert self._folder is not None
        (self._folder / _SECRET).unlink(missing_ok=True)
        self.secret = _secret_in(self._folder, files.owners_of(self._folder))
        log.warning("more than %d logouts: all login sessions have ended", self._most)


def _secret_in(folder: Path, owners: frozenset[int]) -> bytes:
    """Return the secret in a folder; make both if they are missing.

    Raises:
        OSError: the folder cannot be used, or others may change what is in it.
    """
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        files.check(folder, owners)
    path = folder / _SECRET
    for _ in range(2):
        try:
            made, secret = files.create(path), os.urandom(_BYTES)
        except FileExistsError:
            files.check(path, owners)
        else:
            try:
                os.write(made, secret)
            finally:
                os.close(made)
            return secret
        found = _read(path)
        if len(found) == _BYTES:
            return found
        path.unlink(missing_ok=True)  # whoever made it died before it was written
    raise OSError(f"{path} is no secret")


def _read(path: Path) -> bytes:
    for _ in range(20):
        found = path.read_bytes()
        if len(found) >= _BYTES:
            break
        time.sleep(0.01)  # another server is about to write it
    return found


def _name(session: str, expires: int) -> str:
    return f"{expires}.{session}"
