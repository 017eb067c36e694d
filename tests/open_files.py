"""Programs with many open files: limits, and numbers above 1,023, which `select` refuses."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def may_open(number: int) -> Iterator[None]:
    """Let this process open more files, which a shell, and macOS, keeps at 256 at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        pytest.skip(f"needs {number:,} open files (ulimit -n)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (number if soft < number else soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def many_open() -> Iterator[None]:
    """Hold so many files open that those which are opened next have numbers above 1,023."""
    held: list[int] = []
    with may_open(2048):
        try:
            while not held or held[-1] < 1024:
                held.append(os.open(os.devnull, os.O_RDONLY))
            yield
        finally:
            for number in held:
                os.close(number)
