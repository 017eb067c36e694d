"""The logins of servers on several machines: the secret and the logouts are notes of the storage that they share.

A role that only reads rows may not read notes. And the secret alone makes no cookie: the token is part of the key.
"""

import logging
import os
import time

from agentspan.errors import NotPermitted, StorageError
from agentspan.interrupts import let_through
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import ForgetNotes, Notes, NotesCount, PutNote
from agentspan.tuning import STANDARD

log = logging.getLogger("agentspan")

_SECRET = "logins/secret"
_ENDED = "logins/ended/"
_BYTES = 32


class SharedLogins:
    """See LoginStore. Each check of a session asks the storage: a logout on one server holds on all of them at once.

    If the notes cannot be written, logins end with this process.

    Args:
        most: logouts that are kept; one more ends all sessions.

    Attributes:
        secret: what signs sessions; another one after `refresh` if a server has ended all sessions.
        waits: whether checking a session waits for a server.
    """

    waits = True

    def __init__(self, storage: Storage, most: int = STANDARD.kept_logouts) -> None:
        self._most = most
        self._storage: Storage | None = storage
        self._ended: set[str] = set()
        self.secret = os.urandom(_BYTES)
        try:
            stored = storage.ask(Notes(_SECRET)).get(_SECRET)
            self._adopt(storage.ask(PutNote(_SECRET, self.secret.hex(), replace=False)) if stored is None else stored)
        except (NotPermitted, StorageError) as error:
            let_through(error)
            log.warning("logins end with this process, since notes cannot be kept: %s", error)
            self._storage = None

    def refresh(self) -> bool:
        """Read the secret again; return whether it is another one."""
        return self._storage is not None and self._adopt(self._storage.ask(Notes(_SECRET)).get(_SECRET))

    def end(self, session: str, expires: int) -> None:
        """End a session before it expires, for all servers."""
        self._ended.add(session)
        if self._storage is None:
            return
        try:
            self._storage.ask(PutNote(_ENDED + session, "", lasts_s=max(1.0, expires - time.time())))
            if self._storage.ask(NotesCount(_ENDED)) > self._most:
                self._adopt(self._storage.ask(PutNote(_SECRET, os.urandom(_BYTES).hex())))
                self._storage.ask(ForgetNotes(_ENDED))
                log.warning("more than %d logouts: all login sessions have ended", self._most)
        except (NotPermitted, StorageError) as error:
            let_through(error)
            log.warning("a logout holds only until this process ends: %s", error)

    def has_ended(self, session: str, expires: int) -> bool:
        """Return whether a session was ended, or all of them were, by any server.

        Raises:
            StorageError: the storage does not answer; then nobody knows.
        """
        if session in self._ended or self._storage is None:
            return session in self._ended
        found = self._storage.ask(Notes(_SECRET, _ENDED + session))
        return self._adopt(found.get(_SECRET)) or _ENDED + session in found

    def _adopt(self, stored: str | None) -> bool:
        """Take a stored secret as this server's; return whether it was another one. None if somebody has deleted it."""
        if stored is None:
            assert self._storage is not None
            stored = self._storage.ask(PutNote(_SECRET, os.urandom(_BYTES).hex(), replace=False))
        secret = bytes.fromhex(stored)
        is_other, self.secret = secret != self.secret, secret
        return is_other
