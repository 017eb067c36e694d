"""The socket that a server listens on."""

import errno
import socket

from agentspan.errors import InvalidValue


def listening(host: str, port: int, backlog: int) -> socket.socket:
    """Return a socket that listens already: a client may connect as soon as its address is printed.

    Raises:
        InvalidValue: the port is in use, or cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=backlog)
    except OverflowError:
        raise InvalidValue("port", "must be a number from 0 to 65535") from None
    except OSError as error:
        why = f"cannot be listened on: {error.strerror}"
        if error.errno == errno.EADDRINUSE:
            why = "is in use; stop what listens there, or choose another"
        raise InvalidValue("port", f"{port} of {host} {why}") from None
