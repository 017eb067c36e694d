"""The runs of a storage as a sequence to make assertions on. Loads runs from a file; returns a run as text."""

import os
from collections.abc import Iterator, Sequence
from typing import Literal, Self, overload

from agentspan.journal.opening import see_journals
from agentspan.storage.access import count
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Query
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing.run import CapturedRun
from agentspan.text import noun

MAX_LISTED = 20


class CapturedRuns(Sequence[CapturedRun]):
    """The runs of a storage, in order of creation. Each access reads the storage again.

    As a with-block it closes the storage at the end.

    Args:
        storage: the storage that is read: `CapturedRuns(tracer.storage)`.

    Attributes:
        storage: the storage that is read; `agentspan.open(runs.storage)` returns the operations by id on it.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def __repr__(self) -> str:
        return f"<CapturedRuns {', '.join(f'{run.name} {run.status}' for run in self._latest()) or '(none)'}>"

    def __len__(self) -> int:
        return count(self.storage, "agent_instance")

    def __iter__(self) -> Iterator[CapturedRun]:
        return iter(self._page(Query("agent_instance")))

    @overload
    def __getitem__(self, index: int) -> CapturedRun: ...
    @overload
    def __getitem__(self, index: slice) -> list[CapturedRun]: ...
    def __getitem__(self, index: int | slice) -> CapturedRun | list[CapturedRun]:
        return list(self)[index]

    @property
    def last(self) -> CapturedRun:
        """The run that was created last.

        Raises:
            AssertionError: the storage has no run.
        """
        __tracebackhide__ = True
        latest = self._page(Query("agent_instance", descending=True, limit=1))
        if not latest:
            raise AssertionError("no run was recorded")
        return latest[0]

    def one(self) -> CapturedRun:
        """Return the only run.

        Raises:
            AssertionError: the storage has no run, or more than one; the message lists them.
        """
        __tracebackhide__ = True
        count = len(self)
        if count > 1:
            lines = [f"  {run.name}: {run.status}, {noun(len(run.spans), 'span')}" for run in self._latest()]
            more = [f"  and {count - len(lines)} before them"] if count > len(lines) else []
            raise AssertionError("\n".join([f"{count} runs were recorded, not one:", *lines, *more]))
        return self.last

    def close(self) -> None:
        """Close the storage. The storage of `capture` stays open."""
        self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> Literal[False]:
        self.close()
        return False

    def _page(self, query: Query) -> list[CapturedRun]:
        return [CapturedRun(self.storage, row.id) for row in self.storage.ask(query).rows]

    def _latest(self) -> list[CapturedRun]:
        return self._page(Query("agent_instance", descending=True, limit=MAX_LISTED))[::-1]


def snapshot(run: CapturedRun, *, payloads: bool = False) -> str:
    """Return a run as text: a line for the run, and one for each span with status, type, summary and type of error.

        ✓ researcher 1.2
        ├─✓ tool · Tool search(query=flights) → ["a page about flights"]
        └─✗ llm · LLM gpt-4.1 → TimeoutError

    Two recordings of the same behaviour have the same text. Times, durations, error messages and stack traces are left
    out. Ids are replaced by `<run>`, `<span 2>` (the second span of the tree) and `<id 1>` (another resource of the
    storage), and addresses of objects by `at 0x…`. Spans are in the order in which they began, which can differ if
    threads race.

    Args:
        run: the run; in pytest `captured_runs.one()`.
        payloads: add payloads and results as JSON with sorted keys. They contain error messages.
    """
    return run.text(payloads=payloads)


class _File(SQLiteStorage):
    """A file that closes when its last reference is gone: Python 3.13 warns of connections that were not closed."""

    def __del__(self) -> None:
        if hasattr(self, "_connections"):
            self.close()


def load(path: str | os.PathLike[str]) -> CapturedRuns:
    """Open a file for reading only, to make assertions on its runs.

    Args:
        path: the file. Other processes may record into it at the same time.

    Returns:
        Its runs. `with load("runs.db") as runs:` closes the file at the end; else garbage collection closes it.

    Raises:
        DatabaseUnusable: the file does not exist, or is not a database of agentspan.
    """
    return CapturedRuns(see_journals(_File(path, read_only=True), read_only=True))
