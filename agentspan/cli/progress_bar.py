"""A progress bar on stderr for work before the output; only on a terminal, and only if the work reports progress."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function `update(done, total)` that draws the bar, or None if stderr is no terminal."""
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
