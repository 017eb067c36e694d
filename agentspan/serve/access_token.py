"""The token of a server: how strong it must be, its comparison, and a limit on the guesses of it.

A guess is a wrong token that its address did not give before, so a program with an old token, which tries again for
ever, costs nobody anything. After too many guesses an address is answered with 429, and its token is not looked at:
were right tokens let through, the answer would tell a guess from the token, and there would be no limit. A connection
that gave the right token before is not affected, so programs that work go on working beside guesses from their address.
"""

import hmac
import math
from collections.abc import Sequence
from hashlib import sha256
from ipaddress import ip_network
from time import monotonic
from typing import Any, Final, NamedTuple

from agentspan.errors import InvalidValue

LEAST = 12
"""Characters of a token. At most 28,800 guesses a day from an address then take longer than anybody waits."""
DIFFERENT = 5
"""Different characters of a token."""
REMEMBERED = 10_000
"""Addresses, connections and wrong tokens that are remembered, each; the oldest are forgotten."""


class Limit(NamedTuple):
    """So many guesses at once, then one in so many seconds."""

    at_once: int
    then_every_s: float


OF_AN_ADDRESS: Final = Limit(10, 3)
OF_ALL: Final = Limit(100, 0.5)
"""For all addresses together, except those that gave the right token before."""


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
    """The token of a server, and what was given in its place. For one thread: that of the event loop.

    Args:
        token: see check.

    Raises:
        InvalidValue: the token can be guessed easily.
    """

    def __init__(self, token: str) -> None:
        check(token)
        self._token = token.encode()
        self._guesses = _Guesses(OF_AN_ADDRESS)
        self._all = _Guesses(OF_ALL)
        self._wrong: dict[tuple[str, bytes], None] = {}
        self._right_connections: dict[object, None] = {}
        self._right_addresses: dict[str, None] = {}

    @property
    def remembered(self) -> int:
        """Number of entries that are remembered of clients."""
        right = len(self._right_connections) + len(self._right_addresses)
        return right + len(self._wrong) + len(self._guesses.due)

    def wait_s(self, client: Sequence[Any] | None) -> int:
        """Return the seconds after which a client may give a token again; 0 for at once.

        Args:
            client: the address and the port of the connection's other end; None where it has none.
        """
        connection = _connection(client)
        if connection in self._right_connections or not self._all.due:
            return 0
        address = _address(connection)
        wait_s = self._guesses.wait_s(address)
        if address not in self._right_addresses:
            wait_s = max(wait_s, self._all.wait_s(""))
        return math.ceil(wait_s)

    def is_right(self, given: bytes, client: Sequence[Any] | None) -> bool:
        """Return whether the token is right, in constant time, and count it if it is not. Call wait_s before."""
        connection = _connection(client)
        if hmac.compare_digest(given, self._token):
            if connection not in self._right_connections:
                _remember(self._right_connections, connection)
                _remember(self._right_addresses, _address(connection))
            return True
        self._right_connections.pop(connection, None)
        address = _address(connection)
        guess = (address, sha256(given).digest())
        if guess not in self._wrong:
            _remember(self._wrong, guess)
            self._guesses.add(address)
            self._all.add("")
        return False

    def key(self, *, secret: bytes, purpose: bytes) -> bytes:
        """Return a key that is another for another token, secret or purpose, and tells of none of them."""
        return hmac.digest(secret, purpose + b"\0" + self._token, "sha256")


class _Guesses:
    """The times at which each address would have made its guesses, had it made them at the rate of the limit."""

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


def _connection(client: Sequence[Any] | None) -> tuple[Any, ...]:
    return () if client is None else tuple(client)


def _address(connection: tuple[Any, ...]) -> str:
    """Return the address that guesses are counted for: of IPv6 the network, which one machine has whole."""
    host = str(connection[0]) if connection else ""
    if ":" not in host:
        return host
    try:
        return str(ip_network((host.partition("%")[0], 64), strict=False))
    except ValueError:  # no server says such
        return host
