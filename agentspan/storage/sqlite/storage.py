"""The storage in one SQLite file, and its views for draining journals.

The module `connections` opens and lends connections; `reads` and `writes` have the SQL.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from agentspan import host
from agentspan.errors import DatabaseUnusable, StorageError
from agentspan.model.changes import Applied, Move, Outcome, Put, Unit
from agentspan.storage.access import Look, Looking, Wrapper
from agentspan.storage.answers import Rows
from agentspan.storage.location import SQLITE, Location
from agentspan.storage.protocol import Capabilities, FileReplaced, Storage
from agentspan.storage.questions import (
    BackUp,
    Compact,
    Damage,
    FileBytes,
    Mend,
    PutKeys,
    Query,
    Question,
    RemoveKeys,
    RemoveRuns,
    Select,
    SpansOf,
    UsedBytes,
    WaitAtMost,
)
from agentspan.storage.sqlite import agent_pages
from agentspan.storage.sqlite.agent_pages import AgentPages
from agentspan.storage.sqlite.connections import Connections
from agentspan.storage.sqlite.driver import DRIVER_ERRORS, is_busy, storage_error, waiting
from agentspan.storage.sqlite.index import INDEXED
from agentspan.storage.sqlite.migrations import MIGRATIONS, Migration
from agentspan.storage.sqlite.reads import ANSWERS, Reads, page_of, terminated_in
from agentspan.storage.sqlite.writes import APPLIED, alone, apply_all, insert_late, refused_put
from agentspan.tuning import STANDARD, Tuning

if TYPE_CHECKING:
    from agentspan.storage.sqlite.index.answers import Index

T = TypeVar("T")


class Beside:
    """The methods that journals beside a file call, on its storage and its views (see BesideJournals)."""

    @property
    def direct(self) -> "SQLiteStorage":
        """The storage itself: its reads do not drain journals."""
        raise NotImplementedError

    @property
    def files(self) -> int:
        """The number of files that this process has opened at the path. It grows when the file is replaced."""
        return self.direct._connections.guard.files

    def draining(self) -> "Draining":
        """Return a view of this storage for draining a journal. From now on, the caller must call `sync`."""
        self.direct._connections.checkpoints.syncs = False
        return Draining(self.direct)

    def look_seldom(self) -> None:
        """Check every 250 ms only that the file is still at its path."""
        self.direct._connections.look_seldom()

    def has(self, ids: Sequence[str]) -> bool:
        """Return whether all these spans, runs and writers are in the file, read by a new connection."""
        return self.direct._connections.has(ids)

    def sync(self) -> None:
        """Flush all applied changes to the disk."""
        self.direct._connections.checkpoints.sync()


class SQLiteStorage(Reads, Beside):
    """A storage in one SQLite file (see `Storage` for the contract).

    Args:
        path: the file. If it does not exist, it is created with its tables. Its folder must exist, unless its name is
            `.agentspan`.
        read_only: never write, and create no file or tables. Writes raise NotPermitted.
        wait_s: how many seconds opening the file, and reading, may wait for other processes.
        later: if other processes lock the file, or its disk is full, open it at its first use.
        tuning: sizes and times, for tests; see agentspan/tuning.py.
        migrations: the migrations that create the tables; tests pass others.
        sqlite_version: the version of this Python's SQLite; tests pass others.

    Raises:
        DatabaseUnusable: the file is no database, or of another program, or of a newer agentspan; its folder cannot be
            used; or this Python's SQLite is too old.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        wait_s: float = 10.0,
        later: bool = False,
        tuning: Tuning = STANDARD,
        migrations: Sequence[Migration] = MIGRATIONS,
        sqlite_version: tuple[int, ...] = sqlite3.sqlite_version_info,
    ) -> None:
        connections = Connections(
            Path(path).absolute(),  # absolute: the program may change its current folder
            read_only=read_only,
            wait_s=wait_s,
            tuning=tuning,
            migrations=migrations,
            sqlite_version=sqlite_version,
        )
        super().__init__(connections.snapshot)
        self.path = connections.path
        self._connections = connections
        try:
            connections.open_now()
        except DatabaseUnusable:
            raise
        except StorageError:
            if not later:
                raise

    @cached_property
    def _agent_pages(self) -> AgentPages:
        return AgentPages()

    @cached_property
    def _index(self) -> "Index":
        with host.importing:
            from agentspan.storage.sqlite.index.answers import Index, parts_of

        connections = self._connections
        parts = parts_of(connections.tuning, connections.sqlite_version)
        return Index(self.path, parts, partial(_apart, connections), pause_s=connections.tuning.index_pause_s)

    def capabilities(self) -> Capabilities:
        """Return the abilities of this storage. They refer to it, so a cached value would keep the storage alive."""
        return Capabilities(
            backend=SQLITE,
            answers=_ANSWERED,
            location=Location(SQLITE, str(self.path)),
            journals=self,
            keeps_contents=True,
            page_rows=self._connections.tuning.page_rows,
        )

    def ask(self, question: Question[T]) -> T:
        """Answer a question from the index beside the file, else from the file, else row by row in Python."""
        kind = type(question)
        if kind is Query:
            return cast(T, self._page(cast(Query, question)))
        if kind in INDEXED:
            found = self._index.answer(question)
            return self.read_row_by_row(question) if found is None else found
        if kind is WaitAtMost:  # of each program that records: the other tasks take 40 million instructions to import
            self._connections.check_open()
            self._connections.wait_s = cast(WaitAtMost, question).wait_s
            return cast(T, None)
        if kind in _TASKS:
            with host.importing:
                from agentspan.storage.sqlite.upkeep import TASKS

            return cast(T, TASKS[kind](self._connections, question))
        return super().ask(question)

    def _page(self, query: Query) -> Rows:
        self._connections.check_file()
        with self.reading() as connection:
            is_of_spans = query.type == "agent_span" and agent_pages.answers(query)
            found = self._agent_pages.page(connection, query) if is_of_spans else None
            return page_of(connection, query) if found is None else found

    @property
    def direct(self) -> "SQLiteStorage":
        """The storage itself: its reads do not drain journals."""
        return self

    def seeing(self, look: Look, journals: Sized | None = None) -> "Seeing":
        """Return a view of this storage that calls `look` before each read."""
        return Seeing(self, look, journals)

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Apply units in one transaction. A single simple change needs no BEGIN and COMMIT, which would take 6 µs."""
        connections = self._connections
        try:
            if len(units) == 1:
                changes, subject, key = units[0]
                statement = alone(changes[0]) if subject is None and key is None and len(changes) == 1 else None
                if statement is not None:
                    change = cast(Put | Move, changes[0])
                    write = partial(self._execute_alone, change, statement, wait_s)
                    outcome = connections.written(write, wait_s)
                    if outcome is not None:
                        return [outcome]
            return connections.transact(lambda connection: apply_all(connection, units, stop_at_refusal), wait_s)
        except (UnicodeEncodeError, OverflowError) as error:
            raise storage_error(error, self.path) from error

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Run `work` in one transaction. It is rolled back if `work` or any `apply` of the group raises."""

        def grouped(connection: sqlite3.Connection) -> T:
            group = _Group(connection, self.path)
            done = work(group)
            if group.broken is not None:  # even if `work` caught it: the unit may be half applied
                raise group.broken
            return done

        return self._connections.transact(grouped, wait_s, once=True)

    def close(self) -> None:
        """Close all connections. Later calls raise StorageError."""
        self._connections.close()

    def _execute_alone(self, change: Put | Move, statement: tuple[str, Sequence[Any]], wait_s: float) -> Outcome | None:
        """Apply a change by one statement. None: a move changed no row, and only a transaction can find out why."""
        connections = self._connections
        cursor = connections.cursor or connections.writer().cursor()
        try:
            try:
                cursor.execute(*statement)
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                waiting(lambda: cursor.execute(*statement), self.path, wait_s)
            if cursor.rowcount == 1:
                connections.checkpoints.committed()
                return APPLIED
            if type(change) is Put:
                waiting(lambda: insert_late(cursor, change.row), self.path, wait_s)
                return Applied(None, terminated_in(connections.writer(), change.row))
            return None
        except sqlite3.IntegrityError as error:
            return refused_put(connections.writer(), cast(Put, change), error)


_TASKS = frozenset({BackUp, Compact, Damage, FileBytes, Mend, PutKeys, RemoveKeys, RemoveRuns, Select, UsedBytes})
_ANSWERED: frozenset[type[Question[Any]]] = frozenset({SpansOf, WaitAtMost, *ANSWERS, *INDEXED, *_TASKS})


def _apart(connections: Connections) -> AbstractContextManager[object]:
    """Return a block in which no fork can happen, for the index, which opens its own connections."""
    connections.check_open()
    return connections.no_fork()


class Seeing(Looking[SQLiteStorage], Beside):
    """A view of a file that drains the journals beside it before each read."""

    def capabilities(self) -> Capabilities:
        """Return the capabilities of the wrapped storage, with `journals` set to this view."""
        return self.direct.capabilities()._replace(journals=self)

    @property
    def path(self) -> Path:
        """The path of the storage's file."""
        return self.direct.path

    def seeing(self, look: Look, journals: Sized | None = None) -> "Seeing":
        """Return this view, which drains journals already. `look` is ignored."""
        return self


class Draining(Wrapper[SQLiteStorage]):
    """A view of a file for draining a journal. It notices, before units are applied, that the file was replaced.

    `BesideJournals.draining` returns it.
    """

    def __init__(self, direct: SQLiteStorage) -> None:
        super().__init__(direct)
        self._files = direct.files

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Apply units, but only to the same file as the previous call.

        Raises:
            FileReplaced: the path has another file than at the previous call. The next call applies to the new file.
        """
        try:
            with self.direct._connections.only(self._files):
                return self.direct.apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)
        except FileReplaced:
            self._files = self.direct.files
            raise

    def close(self) -> None:
        """Do nothing: the owner closes the storage."""


class _Group(Reads):
    """The storage within the transaction of a group: its reads include its own writes, and it never commits."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        super().__init__(partial(_lent, connection, path))
        self._connection = connection
        self._path = path
        self.broken: Exception | None = None

    def capabilities(self) -> Capabilities:
        """Return the abilities within a group: only questions that one connection can answer."""
        return Capabilities(backend=SQLITE, answers=frozenset({SpansOf, *ANSWERS}))

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """Apply units in the group's transaction. An error here rolls back the whole group, even if it is caught."""
        try:
            return apply_all(self._connection, units, stop_at_refusal)
        except DRIVER_ERRORS as error:
            self.broken = storage_error(error, self._path)
            raise self.broken from error
        except Exception as error:
            self.broken = error
            raise

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """Run `work` as a part of this group."""
        return work(self)

    def close(self) -> None:
        """Do nothing: the owner closes the storage."""


@contextmanager
def _lent(connection: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    except DRIVER_ERRORS as error:
        raise storage_error(error, path) from error
