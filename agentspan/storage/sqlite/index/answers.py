"""SQLite's own answers about many runs, in its SQL, from the index beside the file."""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from agentspan.errors import StorageError
from agentspan.interrupts import let_through
from agentspan.storage.answers import Progress
from agentspan.storage.questions import (
    BriefsWhere,
    FailureSums,
    Question,
    RunSums,
    RunsWhere,
    Search,
    SpanStats,
    StepUses,
)
from agentspan.storage.sqlite.driver_errors import is_damage, storage_error
from agentspan.storage.sqlite.index import failures, full_text, index_file, run_groups, run_list
from agentspan.storage.sqlite.index.full_text import FullText
from agentspan.storage.sqlite.index.span_sums import SpanSums
from agentspan.storage.sqlite.index.statistics import span_stats

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


class Index:
    """Answers questions about many runs from the index beside a file.

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
        self._parts = parts
        self._pause_s = pause_s
        self._no_fork = no_fork

    def answer(self, question: Question[T]) -> T | None:
        """Answer a question of ANSWERS. If the index cannot be written, use one in memory, or return None."""
        answer = ANSWERS[type(question)]
        or_in_memory = not isinstance(question, Search)
        part = self._parts.sums if or_in_memory else self._parts.texts
        progress: Progress | None = question.progress  # type: ignore[attr-defined]
        for attempt, in_memory in enumerate((False, False, True) if or_in_memory else (False, False)):
            no_fork = self._no_fork()
            try:
                with (
                    no_fork,
                    index_file.opened(self._path, in_memory=in_memory) as connection,
                    index_file.current(connection, part, progress, pause_s=self._pause_s),
                ):
                    return cast(T, answer(connection, question))
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


ANSWERS: Mapping[type[Question[Any]], Callable[[sqlite3.Connection, Any], Any]] = {
    RunsWhere: run_list.runs_where,
    BriefsWhere: run_list.briefs_where,
    SpanStats: span_stats,
    RunSums: run_groups.run_sums,
    FailureSums: failures.failure_sums,
    StepUses: failures.step_uses,
    Search: full_text.search,
}
"""What answers a question over a connection to the index, which is current, with the recorded file attached."""
