"""Recovers the journals of killed programs before a command reads the file, with a progress bar."""

import sys
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import click

from agentspan.errors import StorageError
from agentspan.journal.journal_folder import folder_of, is_possible

LARGE = 4 * 2**20
"""Bytes of segments from which on a person may want to know what takes so long: a third of a second."""


def recover(path: Path) -> None:
    """Recover large journals beside a file, with a progress bar on a terminal. Opening the file recovers small ones."""
    if not is_possible() or not path.exists() or not sys.stderr.isatty() or _size_of(folder_of(path)) < LARGE:
        return
    from agentspan.recovery.adopting import Adoption
    from agentspan.storage.sqlite import SQLiteStorage

    with closing(SQLiteStorage(path)) as storage:
        bar = _Bar()
        try:
            records = Adoption(lambda: nullcontext(storage), folder_of(path)).adopt(bar)
        except StorageError:  # busy: what is in the file can be read all the same
            return
        finally:
            bar.end()
    if records:
        click.echo(f"{records:,} transitions of programs that were killed are in the file now", err=True)


def _size_of(folder: Path) -> int:
    try:
        return sum(each.stat().st_size for each in folder.iterdir())
    except OSError:  # there is none, or another process removes it
        return 0


class _Bar:
    """A progress bar that appears with the first progress: segments of living programs are not recovered."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._done = 0

    def __call__(self, done: int, size: int) -> None:
        if self._bar is None:
            self._bar = click.progressbar(length=size, label="reading journals", file=sys.stderr, width=30)
            self._bar.__enter__()
        self._bar.update(done - self._done)
        self._done = done

    def end(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.update(self._bar.length - self._done)
            self._bar.__exit__(None, None, None)
