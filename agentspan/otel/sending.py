"""Sends OTLP requests over HTTP and retries them with growing pauses until the target accepts them.

This is the only module outside of `serve` that imports network modules; a test checks this.
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
"""The HTTP statuses after which a request is retried, from OTLP's specification."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0


class ForwardingFailed(AgentspanError):
    """A target did not accept a request. Nothing is lost: the next `forward` sends the request's spans again."""

    code = "unknown"


class NotServed(ForwardingFailed):
    """The target does not serve the address of the request, such as `/v1/logs` (HTTP 404, 405 or 501)."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirects: headers with a token must go to the configured target only."""

    def redirect_request(self, *_: object) -> None:
        return None


def address(to: str) -> str:
    """Return the address for traces: the target's address, with `/v1/traces` appended unless it ends so.

    Raises:
        InvalidValue: `to` is no http or https address, or has a query or a fragment.
    """
    try:
        parts = urlsplit(to)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidValue("to", "must be an address such as http://127.0.0.1:4318")
    return to if parts.path.endswith("/v1/traces") else f"{to.rstrip('/')}/v1/traces"


class Sender:
    """Sends OTLP requests to one target.

    Args:
        to: the address of the target; `/v1/traces` is appended unless the address ends so.
        headers: HTTP headers to send with each request.
        tries: the most attempts for a request; None for no limit.
        timeout_s: the timeout of one attempt.
        pause: sleeps for a number of seconds.
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
        """Send a request in protobuf; return when the target has accepted it.

        Args:
            are_logs: whether the body has log records instead of spans.

        Raises:
            ForwardingFailed: the target refused the request, or all `tries` failed.
            NotServed: the target does not serve the address of the request.
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
        """Send a request once; return the reason of a failure or None, and the seconds of the target's Retry-After.

        Raises:
            ForwardingFailed: the failure is permanent, so a retry is useless.
        """
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
