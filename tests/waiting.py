"""Waiting for a condition that another thread or process will make true, or for sockets."""

import socket
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any, cast


def until(condition: Callable[[], Any], seconds: float = 30) -> Any:
    """Call `condition` every 10 ms until it returns something true, and return that; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not true within {seconds} s"
        time.sleep(0.01)
    return found


def readable(sockets: Sequence[socket.socket], seconds: float) -> list[socket.socket]:
    """Return the sockets that have something to read, or an end, within `seconds`. Their numbers may be above 1,023."""
    return cast(list[socket.socket], wait(sockets, seconds))
