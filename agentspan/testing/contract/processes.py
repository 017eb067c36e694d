"""Calls a function in a forked child of this process, for tests."""

import os
import pickle
import select
import signal
import traceback
import warnings
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")
WAIT_S = 30.0


def in_child(work: Callable[[], T]) -> T:
    """Return what a function returns in a forked child; fail where it raises there, or takes longer than WAIT_S."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: other threads run, such as pytest-xdist's
        child = os.fork()
    if child == 0:
        try:
            said = pickle.dumps((True, work()))
        except BaseException:
            said = pickle.dumps((False, traceback.format_exc()))
        try:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(said)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        try:
            ready, _, _ = select.select([pipe], [], [], WAIT_S)
            answer = pipe.read() if ready else b""
        finally:
            if not select.select([pipe], [], [], 0)[0]:
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert answer, f"the forked child was not done after {WAIT_S:.0f} s"
    is_done, result = pickle.loads(answer)
    assert is_done, f"in the forked child:\n{result}"
    done: T = result
    return done
