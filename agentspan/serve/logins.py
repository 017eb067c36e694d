"""The token of a server, and login sessions of the viewer: a cookie, signed by a stored secret and that token.

Only the viewer's own pages accept the cookie. The API accepts the token alone, so that no other site's page can use a
session that a browser holds.

The secret that signs sessions, and the list of sessions that a logout has ended, are stored beside a file or, for
servers on several machines, as notes of the storage that they share. Both are kept together: deleting only the list
would make cookies valid again that were logged out. They are not in the database file, because people copy it, export
it and pass it to others, who could then log in. A role that only reads rows may not read notes; and the secret
alone makes no cookie: the token is part of the key.
"""

import hashlib
import hmac
import logging
import math
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from agentspan import files
from agentspan.errors import InvalidValue, NotPermitted, StorageError
from agentspan.host import guard
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import ForgetNotes, Notes, NotesCount, PutNote
from agentspan.tuning import STANDARD

LEAST = 12
"""The least characters of a token. With 1,000 guesses a second, 12 random letters are found after a million years."""
DIFFERENT = 5
"""The least number of different characters of a token."""
REMEMBERED = 10_000
"""The most addresses and wrong tokens, each, that are remembered. The oldest are dropped."""


class Limit(NamedTuple):
    """A rate limit: `at_once` guesses in a row, then one guess in `then_every_s` seconds."""

    at_once: int
    then_every_s: float


OF_AN_ADDRESS: Final = Limit(10, 3)


def check(token: str) -> None:
    """Check that a token cannot be guessed easily.

    Raises:
        InvalidValue: it is too short, or repeats few characters.
    """
    if len(token) < LEAST or len(set(token)) < DIFFERENT:
        raise InvalidValue(
            "token",
            f"must have at least {LEAST} characters, {DIFFERENT} of them different; make one with: "
            "python -c 'import secrets; print(secrets.token_urlsafe())'",
        )


class AccessToken:
    """The token of a server, and who sent too many wrong ones. Only the thread of the event loop may use it.

    Wrong tokens never keep the right one out: several clients may share an address.

    Args:
        token: the token, which must satisfy `check`.

    Raises:
        InvalidValue: the token can be guessed easily.
    """

    def __init__(self, token: str) -> None:
        check(token)
        self._token = token.encode()
        self._guesses = _Guesses(OF_AN_ADDRESS)
        self._wrong: dict[tuple[str, bytes], None] = {}

    @property
    def remembered(self) -> int:
        """The number of entries in memory: addresses, and wrong tokens."""
        return len(self._wrong) + len(self._guesses.due)

    def wait_s(self, token: bytes, client: Sequence[Any] | None) -> int | None:
        """Return None if a sent token is right, which is compared in constant time. Else count it.

        Args:
            client: the address and the port of the connection's other end; None where it has none.

        Returns:
            None, or the seconds that the client of a wrong token should wait; 0 before it sent too many.
        """
        if hmac.compare_digest(token, self._token):
            return None
        address = _address(client)
        guess = (address, sha256(token).digest())
        wait_s = self._guesses.wait_s(address)
        if not wait_s and guess not in self._wrong:
            _remember(self._wrong, guess)
            self._guesses.add(address)
        return math.ceil(wait_s)

    def key(self, *, secret: bytes, purpose: bytes) -> bytes:
        """Return a key derived from the token, a secret and a purpose, from which none of them can be computed."""
        return hmac.digest(secret, purpose + b"\0" + self._token, "sha256")


class _Guesses:
    """Limits the rate of wrong guesses for each address.

    Each guess moves the time `due` of its address on by `then_every_s` seconds. The address must wait while `due` is
    more than `at_once` - 1 such steps ahead.
    """

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self.due: dict[str, float] = {}

    def add(self, address: str) -> None:
        now = monotonic()
        due = max(self.due.pop(address, now), now) + self._limit.then_every_s
        _remember(self.due, address, due)

    def wait_s(self, address: str) -> float:
        ahead = self.due.get(address, 0.0) - monotonic()
        return max(0.0, ahead - (self._limit.at_once - 1) * self._limit.then_every_s)


def _remember(where: dict[Any, Any], what: object, value: object = None) -> None:
    if len(where) >= REMEMBERED:
        for oldest in where:  # no call in between, as with next(iter(where)): another thread may add one
            where.pop(oldest, None)
            break
    where[what] = value


def _address(client: Sequence[Any] | None) -> str:
    """Return the address under which guesses count; for IPv6 the /64 network, which one machine may have whole."""
    host = str(client[0]) if client else ""
    if ":" not in host:
        return host
    try:
        return str(ip_network((host.partition("%")[0], 64), strict=False))
    except ValueError:  # not an IP address
        return host


log = logging.getLogger("agentspan")
_warn_of_logout = partial(log.warning, "a logout holds only until this process ends: %s")

_SUFFIX = "-logins"
_SECRET = "secret"
_BYTES = 32


class LoginStore:
    """The secret and the logouts of one file's servers, in the folder `NAME-logins` beside it.

    A logout is an empty file whose name has the session and its expiry, so that several servers create and find it
    without locks. Deleting the folder ends all sessions.

    Without a database file, or if the folder cannot be written, secret and logouts are in memory: then sessions end
    with the process, and no logout is dropped.

    Args:
        path: the database file; None if the storage has none.
        most: logouts that are kept; one more ends all sessions.

    Attributes:
        secret: the key that signs sessions.
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
            log.warning("logins end with this process, since %s cannot be used: %s", folder, error.strerror or error)
            return
        self._folder = folder
        self._forget_expired()

    def refresh(self) -> bool:
        """Return whether another server has changed the secret: never, since each server of a file keeps its secret."""
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
        with guard(OSError, report=_warn_of_logout), suppress(FileExistsError):  # another server was faster
            os.close(files.create(self._folder / _name(session, expires)))
            if self._forget_expired() > self._most:
                self._end_all()

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
        """End all sessions by a new secret. Other servers of the file keep the old one until they end."""
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
        path.unlink(missing_ok=True)  # the process that made it died before writing the secret
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


_SECRET_NOTE = "logins/secret"
_ENDED = "logins/ended/"


class SharedLogins:
    """The secret and the logouts as notes of a storage.

    Each check of a session asks the storage: a logout on one server holds on all of them at once.

    If the notes cannot be written, logins end with this process.

    Args:
        most: logouts that are kept; one more ends all sessions.

    Attributes:
        secret: the key that signs sessions; `refresh` replaces it if a server has ended all sessions.
        waits: whether checking a session waits for a server.
    """

    waits = True

    def __init__(self, storage: Storage, most: int = STANDARD.kept_logouts) -> None:
        self._most = most
        self._storage: Storage | None = None
        self._ended: set[str] = set()
        self.secret = os.urandom(_BYTES)
        warn = partial(log.warning, "logins end with this process, since notes cannot be kept: %s")
        with guard(NotPermitted, StorageError, report=warn):
            stored = storage.ask(Notes(_SECRET_NOTE)).get(_SECRET_NOTE)
            self._adopt(
                storage.ask(PutNote(_SECRET_NOTE, self.secret.hex(), replace=False)) if stored is None else stored
            )
            self._storage = storage

    def refresh(self) -> bool:
        """Read the secret from the storage again; return whether it has changed."""
        return self._storage is not None and self._adopt(self._storage.ask(Notes(_SECRET_NOTE)).get(_SECRET_NOTE))

    def end(self, session: str, expires: int) -> None:
        """End a session before it expires, for all servers."""
        self._ended.add(session)
        if self._storage is None:
            return
        with guard(NotPermitted, StorageError, report=_warn_of_logout):
            self._storage.ask(PutNote(_ENDED + session, "", lasts_s=max(1.0, expires - time.time())))
            if self._storage.ask(NotesCount(_ENDED)) > self._most:
                self._adopt(self._storage.ask(PutNote(_SECRET_NOTE, os.urandom(_BYTES).hex())))
                self._storage.ask(ForgetNotes(_ENDED))
                log.warning("more than %d logouts: all login sessions have ended", self._most)

    def has_ended(self, session: str, expires: int) -> bool:
        """Return whether a session was ended, or all of them were, by any server.

        Raises:
            StorageError: the storage does not answer, so it is unknown whether the session has ended.
        """
        if session in self._ended or self._storage is None:
            return session in self._ended
        found = self._storage.ask(Notes(_SECRET_NOTE, _ENDED + session))
        return self._adopt(found.get(_SECRET_NOTE)) or _ENDED + session in found

    def _adopt(self, stored: str | None) -> bool:
        """Use a stored secret, or store a new one if it is None (deleted); return whether the secret has changed."""
        if stored is None:
            assert self._storage is not None
            stored = self._storage.ask(PutNote(_SECRET_NOTE, os.urandom(_BYTES).hex(), replace=False))
        secret = bytes.fromhex(stored)
        is_other, self.secret = secret != self.secret, secret
        return is_other


Logins = LoginStore | SharedLogins
"""The secret of a server, and the sessions that were ended; usable from any thread."""


DAYS = 30


class LoginSessions:
    """The login sessions of the viewer. If the server has no token, every request is allowed.

    A session and a logout outlive a restart of the server, if the storage is a file, or keeps notes. A session ends
    with the token.

    Args:
        storage: the served storage. The logins are its notes, if it keeps notes, else files beside its file.
        most_logouts: the most logouts that are kept; one more ends all sessions.
    """

    def __init__(self, token: AccessToken | None, storage: Storage, most_logouts: int = STANDARD.kept_logouts) -> None:
        self._token = token
        can = storage.capabilities()
        if token is None or Notes not in can.answers:
            path = None if token is None or can.journals is None else can.journals.path
            self._store: Logins = LoginStore(path, most_logouts)
        else:
            self._store = SharedLogins(storage, most_logouts)

    @property
    def cookie(self) -> str:
        """The name of the cookie. Cookies do not know ports: other servers of this machine have names of their own."""
        return f"agentspan_{hashlib.sha256(self._key).hexdigest()[:8]}"

    @property
    def waits(self) -> bool:
        """True if `allows` and `end` wait for a server."""
        return self._store.waits

    @property
    def _key(self) -> bytes:
        return b"" if self._token is None else self._token.key(secret=self._store.secret, purpose=b"viewer session")

    @property
    def is_asked(self) -> bool:
        """True if the viewer requires a login."""
        return self._token is not None

    def allows(self, request: Request) -> bool:
        """Return whether a request may see the viewer."""
        if not self.is_asked or self._session_of(request) is not None:
            return True
        return self._store.refresh() and self._session_of(request) is not None

    def wait_s(self, token: object, request: Request) -> int | None:
        """Return None if a sent token is right, or the server has none; else as `AccessToken.wait_s`."""
        if self._token is None:
            return None
        text = token if isinstance(token, str) else ""
        return self._token.wait_s(text.encode("utf-8", "surrogatepass"), request.scope.get("client"))

    def begin(self, request: Request, response: Response) -> None:
        """Set the cookie of a new session."""
        expires = int(time.time()) + DAYS * 86_400
        signed = f"{expires}.{secrets.token_hex(16)}"
        response.set_cookie(
            self.cookie,
            f"{signed}.{self._sign(signed)}",
            max_age=DAYS * 86_400,
            path=_path(request),
            secure=_is_encrypted(request),
            httponly=True,
            samesite="strict",
        )

    def end(self, request: Request, response: Response) -> None:
        """Delete the cookie, and end the session for every server of this storage."""
        session = self._session_of(request)
        if session is not None:
            self._store.end(*session)
        response.delete_cookie(self.cookie, path=_path(request), httponly=True, samesite="strict")

    def _session_of(self, request: Request) -> tuple[str, int] | None:
        return self._session(cookie(request, self.cookie))

    def _session(self, value: str) -> tuple[str, int] | None:
        """Return the name of a cookie's session and when it expires; None if it is not valid."""
        signed, _, signature = value.rpartition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), self._sign(signed).encode()):
            return None
        expires, _, name = signed.partition(".")
        session = name, int(expires)
        return None if int(expires) <= time.time() or self._store.has_ended(*session) else session

    def _sign(self, signed: str) -> str:
        return hmac.new(self._key, signed.encode("utf-8", "surrogatepass"), "sha256").hexdigest()


def is_own_page(request: Request) -> bool:
    """Return whether a request comes from a page of this server, by headers that pages cannot set."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()


def _is_encrypted(request: Request) -> bool:
    """Return whether the browser uses TLS. Behind a proxy that ends TLS, only the header Origin shows it."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")


def _path(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/"


def cookie(request: Request, name: str) -> str:
    """Return the value of a cookie as it was sent; empty if there is none. The last of several counts.

    Starlette's parser is not used: it unquotes all cookies, for which Python before 3.12.6 takes 10 s for 60 kB.
    """
    found = ""
    for header in request.headers.getlist("cookie"):
        for each in header.split(";"):
            key, _, value = each.partition("=")
            if key.strip() == name:
                found = value.strip()
    return found
