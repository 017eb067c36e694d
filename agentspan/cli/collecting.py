"""Pauses Python's cyclic garbage collector while one question about many runs is answered.

The collector looks through all rows again and again while they are read, and finds nothing: a fifth of the time.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Collect no cycles in the block. Whatever nothing refers to is freed as always."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
