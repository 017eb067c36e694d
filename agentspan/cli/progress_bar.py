"""A progress bar for what a command has to do first: on stderr, on a terminal, and only where there is much of it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Lend what is to be told how much is done, and of how much; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as ending:
        bars: list[Any] = []

        def update(done: int, total: int) -> None:
            if not bars:
                bars.append(ending.enter_context(click.progressbar(length=total, label=label, file=sys.stderr)))
            (shown,) = bars
            shown.length = total
            shown.update(done - shown.pos)

        yield update
