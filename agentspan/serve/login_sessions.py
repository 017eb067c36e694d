"""Login sessions of the viewer: a signed cookie. Its key is made of a stored secret and of the server's token.

Only the viewer's own pages take the cookie. The API takes the token alone, so that no other site's page can use a
session that a browser holds.
"""

import hashlib
import hmac
import secrets
import time
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from agentspan.serve.access_token import AccessToken
from agentspan.serve.cookies import cookie
from agentspan.serve.login_store import Logins, LoginStore
from agentspan.serve.shared_logins import SharedLogins
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Notes
from agentspan.tuning import STANDARD

DAYS = 30


class LoginSessions:
    """The login sessions of a server with a token; with None, every request is allowed.

    A session and a logout outlive a restart of the server, if the storage is a file, or keeps notes. A session ends
    with the token.

    Args:
        storage: what is served. The logins are notes of it, if it keeps notes, else in files beside its file.
        most_logouts: how many are kept; one more ends all sessions.
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

    def wait_s(self, request: Request) -> int:
        """Return the seconds after which the token may be given again; 0 for at once (see AccessToken)."""
        return 0 if self._token is None else self._token.wait_s(request.scope.get("client"))

    def is_token(self, given: object, request: Request) -> bool:
        """Return whether a request gives the token, in constant time; always where there is none."""
        if self._token is None:
            return True
        text = given if isinstance(given, str) else ""
        return self._token.is_right(text.encode("utf-8", "surrogatepass"), request.scope.get("client"))

    def begin(self, request: Request, response: Response) -> None:
        """Set the cookie of a new session."""
        expires = int(time.time()) + DAYS * 86_400
        said = f"{expires}.{secrets.token_hex(16)}"
        response.set_cookie(
            self.cookie,
            f"{said}.{self._sign(said)}",
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
        said, _, signature = value.rpartition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), self._sign(said).encode()):
            return None
        expires, _, name = said.partition(".")
        session = name, int(expires)
        return None if int(expires) <= time.time() or self._store.has_ended(*session) else session

    def _sign(self, said: str) -> str:
        return hmac.new(self._key, said.encode("utf-8", "surrogatepass"), "sha256").hexdigest()


def is_own_page(request: Request) -> bool:
    """Return whether a request comes from a page of this server, by headers that pages cannot set."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()


def _is_encrypted(request: Request) -> bool:
    """Return whether the browser came by TLS; where a proxy ended that, only the page's Origin still says so."""
    return request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")


def _path(request: Request) -> str:
    return f"{request.scope.get('root_path', '')}/"
