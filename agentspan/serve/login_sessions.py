"""Login sessions of the viewer: a signed cookie. Its key is derived from the server's token, which it does not reveal.

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

DAYS = 30
MAX_REVOKED = 10_000


class LoginSessions:
    """The login sessions of a server with a token; with None, every request is allowed.

    The key is derived from the token, so a session outlives a restart of the server, and ends with the token.
    """

    def __init__(self, token: AccessToken | None) -> None:
        self._token = token
        self._key = b"" if token is None else token.key(secret=b"agentspan", purpose=b"viewer session")
        # Cookies do not know ports: servers with other tokens on this machine must not overwrite this one's.
        self.cookie = f"agentspan_{hashlib.sha256(self._key).hexdigest()[:8]}"
        self._revoked: dict[str, None] = {}

    @property
    def is_asked(self) -> bool:
        """Whether the viewer requires a login."""
        return self._token is not None

    def allows(self, request: Request) -> bool:
        """Return whether a request may see the viewer."""
        return not self.is_asked or self._is_valid(request.cookies.get(self.cookie, ""))

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
        """Delete the cookie, and revoke the session in this process."""
        value = request.cookies.get(self.cookie, "")
        if self._is_valid(value):
            if len(self._revoked) >= MAX_REVOKED:
                del self._revoked[next(iter(self._revoked))]
            self._revoked[value] = None
        response.delete_cookie(self.cookie, path=_path(request), httponly=True, samesite="strict")

    def _is_valid(self, value: str) -> bool:
        said, _, signature = value.rpartition(".")
        expires, _, _ = said.partition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), self._sign(said).encode()):
            return False
        return int(expires) > time.time() and value not in self._revoked

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
