"""A progress bar for the index that a command wants: on stderr, on a terminal, and only where there is much to do."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click

from agentspan.storage.analytics import Progress


@contextmanager
def indexing() -> Iterator[Progress | None]:
    """Lend what is to be told how far an index is; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as ending:
        bars: list[Any] = []

        def update(done: int, total: int) -> None:
            if not bars:
                bars.append(ending.enter_context(click.progressbar(length=total, label="indexing", file=sys.stderr)))
            (bar,) = bars
            bar.length = total
            bar.update(done - bar.pos)

        yield update
