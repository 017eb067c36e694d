"""Sends requests of OTLP over HTTP, again and again until they are accepted, with growing pauses.

It is the only module outside of `serve` that imports the network, as a test checks.
"""

import gzip
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from agentspan.errors import AgentspanError, InvalidValue

_NOT_SERVED = frozenset({404, 405, 501})
_AGAIN = frozenset({429, 502, 503, 504})
"""Answers after which a request is sent again, as OTLP says."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


class ForwardingFailed(AgentspanError):
    """A target did not accept a request. Nothing is lost: forwarding goes on from there."""

    code = "unknown"


class NotServed(ForwardingFailed):
    """The target has no such address: it takes no requests of this kind."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Headers with a token go to the target that was named, and nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def address(to: str) -> str:
    """Return the address that traces are sent to: the target's with `/v1/traces`, unless it names that already.

    Raises:
        InvalidValue: it is no http or https address.
    """
    try:
        parts = urlsplit(to)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidValue("to", "must be an address such as http://127.0.0.1:4318")
    return to if parts.path.endswith("/v1/traces") else f"{to.rstrip('/')}/v1/traces"


class Sender:
    """Sends to one target.

    Args:
        to: the target; `/v1/traces` is appended unless it names that already.
        headers: sent with each request.
        tries: how often a request is sent at most; None for as long as it takes.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        to: str,
        headers: Mapping[str, str],
        *,
        tries: int | None = 8,
        timeout_s: float = 30.0,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self.to = address(to)
        self._logs_to = f"{self.to.removesuffix('/v1/traces')}/v1/logs"
        self._headers = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", **headers}
        self._tries, self._timeout_s, self._pause = tries, timeout_s, pause
        self._opener = urllib.request.build_opener(_NoRedirect)

    def send(self, body: bytes, *, are_logs: bool = False) -> None:
        """Send a request; return when the target has accepted it.

        Args:
            are_logs: whether it has log records instead of spans.

        Raises:
            ForwardingFailed: the target refused it, or could not be reached so many times.
            NotServed: the target has no such address.
        """
        to = self._logs_to if are_logs else self.to
        data, wait_s, tried = gzip.compress(body, 1), FIRST_PAUSE_S, 0
        while True:
            tried += 1
            why, asked_s = self._try(to, data)
            if why is None:
                return
            if self._tries is not None and tried >= self._tries:
                raise ForwardingFailed(f"{to} {why}; tried {tried} times")
            self._pause(min(max(wait_s, asked_s), LONGEST_PAUSE_S))
            wait_s = min(2 * wait_s, LONGEST_PAUSE_S)

    def _try(self, to: str, data: bytes) -> tuple[str | None, float]:
        """Send once; return why it was not accepted, and after how many seconds the target wants it again."""
        request = urllib.request.Request(to, data, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                answer.read()
                return None, 0.0
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in _AGAIN:
                    kind = NotServed if error.code in _NOT_SERVED else ForwardingFailed
                    raise kind(f"{to} refused it with {error.code}") from None
                asked = error.headers.get("Retry-After", "")
                return f"answered with {error.code}", float(asked) if asked.isdigit() else 0.0
        except ssl.SSLCertVerificationError as error:
            raise ForwardingFailed(f"{to} has no valid certificate: {error.verify_message}") from None
        except (TimeoutError, OSError, http.client.HTTPException) as error:
            return f"could not be reached ({type(error).__name__})", 0.0
