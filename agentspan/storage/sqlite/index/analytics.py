"""SQLite's own answers about many runs (see Analytics), in its SQL, from the index beside the file."""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, TypeVar

from agentspan.errors import StorageError
from agentspan.interrupts import let_through
from agentspan.storage.analytics import FailureSum, FoundSpan, Progress, RunBrief, RunList, RunSum, Stat, StepUse
from agentspan.storage.run_filter import RunFilter, RunSort
from agentspan.storage.sqlite.driver_errors import is_damage, storage_error
from agentspan.storage.sqlite.index import failures, full_text, index_file, run_groups, run_list
from agentspan.storage.sqlite.index.full_text import FullText
from agentspan.storage.sqlite.index.span_sums import SpanSums
from agentspan.storage.sqlite.index.statistics import statistics

T = TypeVar("T")

# A general error, too: another program may have dropped a table of the index. After a rebuild it is agentspan's bug.
_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR})
_SURROUNDINGS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    }
)


class IndexParts(NamedTuple):
    """The parts of the index beside a file."""

    sums: SpanSums
    texts: FullText


class IndexAnalytics:
    """See Analytics.

    Args:
        path: the recorded file.
        parts: those of its index.
        no_fork: lets a fork wait while a connection is open that is closed soon. Raises StorageError where the
            storage is closed, and is called before anything is opened.
        pause_s: see index_file.current.
    """

    def __init__(
        self, path: Path, parts: IndexParts, no_fork: Callable[[], AbstractContextManager[object]], *, pause_s: float
    ) -> None:
        self._path = path
        self._sums, self._texts = parts
        self._pause_s = pause_s
        self._no_fork = no_fork

    def find_runs(
        self,
        filter: RunFilter,
        *,
        limit: int | None,
        offset: int,
        sort: RunSort = "started",
        progress: Progress | None = None,
    ) -> RunList | None:
        """See Analytics."""

        def answer(connection: sqlite3.Connection) -> RunList:
            return run_list.find_runs(connection, filter, limit=limit, offset=offset, sort=sort)

        return self._asked(self._sums, answer, progress, or_in_memory=True)

    def run_briefs(self, filter: RunFilter, *, progress: Progress | None = None) -> list[RunBrief] | None:
        """See Analytics."""
        return self._asked(
            self._sums, lambda connection: run_list.run_briefs(connection, filter), progress, or_in_memory=True
        )

    def span_stats(
        self,
        *,
        since: str | None,
        until: str | None,
        runs: Collection[str] | None = None,
        progress: Progress | None = None,
    ) -> list[Stat] | None:
        """See Analytics."""
        return self._asked(
            self._sums, lambda connection: statistics(connection, since, until, runs), progress, or_in_memory=True
        )

    def run_sums(self, runs: Collection[str], progress: Progress | None = None) -> list[RunSum] | None:
        """See Analytics."""
        return self._asked(
            self._sums, lambda connection: run_groups.run_sums(connection, runs), progress, or_in_memory=True
        )

    def search_spans(
        self,
        words: Sequence[str],
        *,
        limit: int,
        offset: int,
        runs: Collection[str] | None = None,
        progress: Progress | None,
    ) -> tuple[list[FoundSpan], int] | None:
        """See Analytics."""
        return self._asked(
            self._texts, lambda connection: full_text.search(connection, words, limit, offset, runs), progress
        )

    def failure_sums(self, run_ids: Collection[str], *, progress: Progress | None = None) -> list[FailureSum] | None:
        """See Analytics."""
        return self._asked(
            self._sums, lambda connection: failures.failure_sums(connection, run_ids), progress, or_in_memory=True
        )

    def step_uses(self, run_ids: Collection[str], *, progress: Progress | None = None) -> list[StepUse] | None:
        """See Analytics."""
        return self._asked(
            self._sums, lambda connection: failures.step_uses(connection, run_ids), progress, or_in_memory=True
        )

    def _asked(
        self,
        part: index_file.Part,
        answer: Callable[[sqlite3.Connection], T],
        progress: Progress | None = None,
        *,
        or_in_memory: bool = False,
    ) -> T | None:
        """Answer from a part of the index. If it cannot be written, use one in memory, or return None."""
        for attempt, in_memory in enumerate((False, False, True) if or_in_memory else (False, False)):
            no_fork = self._no_fork()
            try:
                with (
                    no_fork,
                    index_file.opened(self._path, in_memory=in_memory) as connection,
                    index_file.current(connection, part, progress, pause_s=self._pause_s),
                ):
                    return answer(connection)
            except (OSError, StorageError) as raised:  # it cannot be written, or others kept it locked
                let_through(raised)
                continue
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in _DAMAGED and attempt == 0:
                    index_file.discard(self._path)
                    continue
                is_text = is_damage(error) and code == 0  # of the recorded file
                if is_text or (code not in _SURROUNDINGS and "no such module: fts5" not in str(error)):
                    raise storage_error(error, self._path) from error
        return None
