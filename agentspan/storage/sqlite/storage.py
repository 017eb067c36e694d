"""The Storage protocol over one SQLite file: connections from one module, reads and writes from two others."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from agentspan.errors import DatabaseUnusable, InvalidValue, StorageError
from agentspan.model.changes import Applied, Move, Outcome, Put, Unit
from agentspan.storage.location import SQLITE, Location
from agentspan.storage.protocol import Answer, Capabilities, FileReplaced, Query, Rows, Storage
from agentspan.storage.sqlite import agent_pages
from agentspan.storage.sqlite.agent_pages import AgentPages
from agentspan.storage.sqlite.busy import is_busy, waiting
from agentspan.storage.sqlite.connections import Connections
from agentspan.storage.sqlite.driver_errors import DRIVER_ERRORS, is_damage, storage_error
from agentspan.storage.sqlite.index.analytics import IndexAnalytics, IndexParts
from agentspan.storage.sqlite.index.full_text import FullText
from agentspan.storage.sqlite.index.span_sums import SpanSums
from agentspan.storage.sqlite.lending import Lend
from agentspan.storage.sqlite.migrations import MIGRATIONS, Migration
from agentspan.storage.sqlite.reads import Reads, terminated_in
from agentspan.storage.sqlite.transfer import FileTransfer
from agentspan.storage.sqlite.upkeep import Upkeep
from agentspan.storage.sqlite.writes import APPLIED, alone, apply_all, insert_late, refused_put
from agentspan.tuning import STANDARD, Tuning

T = TypeVar("T")


Look = Callable[[], None]
"""Does what is due before a read; of a storage that sees journals, it drains and recovers them."""


class FileReads(Reads):
    """All that reads one file: what SQLiteStorage and Seeing share.

    Args:
        look: called before each read; None where nothing is due.
        pages: what is kept for pages of agents' spans.
        parts: those of the index beside the file.
    """

    def __init__(
        self, connections: Connections, look: Look | None = None, *, pages: AgentPages, parts: IndexParts
    ) -> None:
        super().__init__(connections.snapshot if look is None else partial(_after, look, connections.snapshot))
        self.path = connections.path
        self._connections = connections
        self._look = look
        self._agent_pages = pages
        self._transfer = FileTransfer(self.reading, connections)
        pause_s = connections.tuning.index_pause_s
        self._analytics = IndexAnalytics(connections.path, parts, partial(_apart, connections, look), pause_s=pause_s)

    def page(self, query: Query) -> Rows:
        """See Storage."""
        self._connections.check_file()
        if agent_pages.answers(query):
            with self.reading() as connection:
                found = self._agent_pages.page(connection, query)
            if found is not None:
                return found
        return super().page(query)

    def check(self) -> list[str]:
        """See Check."""
        from agentspan.storage.sqlite.checking import problems

        with self.reading() as connection:
            return problems(connection)

    def backup(self, path: str | os.PathLike[str]) -> int:
        """See Backup."""
        from agentspan.storage.sqlite import copying

        target = Path(path).absolute()
        copying.check_target(target)
        with self.reading() as connection:
            copying.copy(connection, target)
        return target.stat().st_size

    def select(self, query: str, values: Sequence[Any] = ()) -> Answer:
        """See Sql."""
        from agentspan.storage.sqlite.sql_shell import ask

        self._connections.check_open()
        if self._look is not None:
            self._look()
        try:
            return ask(self.path, query, tuple(values))
        except sqlite3.Error as error:
            if is_damage(error):
                raise storage_error(error, self.path) from error
            raise InvalidValue("query", f"SQLite says: {error}") from None


def _after(look: Look, lend: Lend) -> AbstractContextManager[sqlite3.Connection]:
    look()
    return lend()


def _apart(connections: Connections, look: Look | None) -> AbstractContextManager[object]:
    """Let a fork wait while the index, which answers reads, has connections of its own."""
    connections.check_open()
    if look is not None:
        look()
    return connections.no_fork()


class SQLiteStorage(FileReads):
    """One SQLite file (see Storage for the contract).

    Args:
        path: the file; made, with its tables, when it does not exist. Its folder must.
        read_only: never write, not even tables; writes raise NotPermitted.
        wait_s: how long opening the file, and reading, may wait for other processes.
        later: where others lock the file, or its disk is full, open it when it is used.
        tuning: sizes and times, for tests; see agentspan/tuning.py.
        migrations: those that make the tables; others are for tests.
        sqlite_version: that of this Python's SQLite; another one is for tests.

    Raises:
        DatabaseUnusable: no database, another program's, a newer version's, no such folder, SQLite too old.
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
            Path(path).absolute(),  # the same file after a change of folder
            read_only=read_only,
            wait_s=wait_s,
            tuning=tuning,
            migrations=migrations,
            sqlite_version=sqlite_version,
        )
        self._parts = IndexParts(
            SpanSums(tuning.index_numbers_batch_spans), FullText(tuning.index_words_batch_spans, sqlite_version)
        )
        super().__init__(connections, pages=AgentPages(), parts=self._parts)
        self._upkeep = Upkeep(self._connections, self._parts)
        try:
            self._connections.open_now()
        except DatabaseUnusable:
            raise
        except StorageError:
            if not later:
                raise

    def capabilities(self) -> Capabilities:
        """See Storage. Made at each call: one that is kept would keep the storage, whose __del__ may close it."""
        return Capabilities(
            backend=SQLITE,
            location=Location(SQLITE, str(self.path)),
            groups=self,
            removal=self._upkeep,
            outlines=self,
            analytics=self._analytics,
            check=self,
            waiting=self,
            file=self._upkeep,
            backup=self,
            sql=self,
            journals=self,
            sums=self,
            scores=self,
            keeps_contents=True,
            transfer=self._transfer,
            page_rows=self._connections.tuning.page_rows,
        )

    @property
    def direct(self) -> "SQLiteStorage":
        """See BesideJournals."""
        return self

    def seeing(self, look: Look) -> "Seeing":
        """See BesideJournals."""
        return Seeing(self, look)

    def draining(self) -> "Draining":
        """See BesideJournals."""
        self._connections.leave_sync_to_caller()
        return Draining(self)

    def look_seldom(self) -> None:
        """See BesideJournals."""
        self._connections.look_seldom()

    @property
    def files(self) -> int:
        """See BesideJournals."""
        return self._connections.files

    def has(self, ids: Sequence[str]) -> bool:
        """See BesideJournals."""
        return self._connections.has(ids)

    def sync(self) -> None:
        """See BesideJournals."""
        self._connections.sync()

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """See Storage. A unit of one plain change is one statement without BEGIN and COMMIT, which cost 6 µs."""
        if len(units) == 1:
            changes, subject, key = units[0]
            if subject is None and key is None and len(changes) == 1:
                statement = alone(changes[0])
                outcome = statement and self._apply_alone(cast(Put | Move, changes[0]), statement, wait_s)
                if outcome:
                    return [outcome]
        try:
            return self._connections.transact(lambda connection: apply_all(connection, units, stop_at_refusal), wait_s)
        except (UnicodeEncodeError, OverflowError) as error:
            raise storage_error(error, self.path) from error

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """See Groups."""

        def grouped(connection: sqlite3.Connection) -> T:
            group = _Group(connection, self.path)
            done = work(group)
            if group.broken is not None:  # whoever caught it cannot know what of its unit is there
                raise group.broken
            return done

        return self._connections.transact(grouped, wait_s, once=True)

    def close(self) -> None:
        """See Storage."""
        self._connections.close()

    def wait_at_most(self, wait_s: float) -> None:
        """See Waiting: a recorder has less time than its set-up."""
        self._connections.check_open()
        self._connections.wait_s = wait_s

    def _apply_alone(self, change: Put | Move, statement: tuple[str, Sequence[Any]], wait_s: float) -> Outcome | None:
        """Apply a change by its statement; None where that moved nothing, which takes a transaction to look into."""
        connections = self._connections
        try:
            with connections.writing(wait_s):
                connections.check_wanted()
                while True:
                    outcome = self._execute_alone(change, statement, wait_s)
                    if not connections.lost_its_file():
                        return outcome
                    connections.check_wanted()
        except DRIVER_ERRORS as error:
            raise connections.write_error(error) from error

    def _execute_alone(self, change: Put | Move, statement: tuple[str, Sequence[Any]], wait_s: float) -> Outcome | None:
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
                connections.committed()
                return APPLIED
            if type(change) is Put:
                waiting(lambda: insert_late(cursor, change.row), self.path, wait_s)
                return Applied(None, terminated_in(connections.writer(), change.row))
            return None
        except sqlite3.IntegrityError as error:
            return refused_put(connections.writer(), cast(Put, change), error)


class Seeing(FileReads):
    """A storage that calls `look` before each read, and before a group. It writes through another one, `direct`."""

    def __init__(self, direct: SQLiteStorage, look: Look) -> None:
        super().__init__(direct._connections, look, pages=direct._agent_pages, parts=direct._parts)
        self._direct = direct
        self._before_reading = look

    def capabilities(self) -> Capabilities:
        """See Storage: what reads looks first; the rest is of the other storage."""
        return self._direct.capabilities()._replace(
            groups=self,
            outlines=self,
            analytics=self._analytics,
            check=self,
            backup=self,
            sql=self,
            journals=self,
            sums=self,
            scores=self,
            transfer=self._transfer,
        )

    @property
    def direct(self) -> SQLiteStorage:
        """See BesideJournals."""
        return self._direct

    def seeing(self, look: Look) -> "Seeing":
        """See BesideJournals."""
        return self

    def draining(self) -> "Draining":
        """See BesideJournals."""
        return self._direct.draining()

    def look_seldom(self) -> None:
        """See BesideJournals."""
        self._direct.look_seldom()

    @property
    def files(self) -> int:
        """See BesideJournals."""
        return self._direct.files

    def has(self, ids: Sequence[str]) -> bool:
        """See BesideJournals."""
        return self._direct.has(ids)

    def sync(self) -> None:
        """See BesideJournals."""
        self._direct.sync()

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """See Storage."""
        return self._direct.apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)

    def group(self, work: Callable[[Storage], T], wait_s: float) -> T:
        """See Groups."""
        self._before_reading()
        return self._direct.group(work, wait_s)

    def close(self) -> None:
        """See Storage."""
        self._direct.close()


class Draining(FileReads):
    """A storage for who applies in order what a journal holds: nothing is applied to another file than what was before.

    See BesideJournals.draining.
    """

    def __init__(self, direct: SQLiteStorage) -> None:
        super().__init__(direct._connections, pages=direct._agent_pages, parts=direct._parts)
        self._direct = direct
        self._files = direct.files

    def capabilities(self) -> Capabilities:
        """See Storage."""
        return self._direct.capabilities()

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """See Storage.

        Raises:
            FileReplaced: the path has another file than at the last call. The next call applies to that.
        """
        try:
            with self._connections.only(self._files):
                return self._direct.apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)
        except FileReplaced:
            self._files = self._direct.files
            raise

    def close(self) -> None:
        """Do nothing: the storage is not this one's to close."""


class _Group(Reads):
    """The storage within one transaction: sees what it has written, and commits nothing by itself."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        super().__init__(partial(_lent, connection, path))
        self._connection = connection
        self._path = path
        self.broken: Exception | None = None

    def capabilities(self) -> Capabilities:
        """See Storage."""
        return Capabilities(backend=SQLITE, outlines=self, sums=self, scores=self)

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        """See Storage; durable when the group is committed, which it is not after an error in here."""
        try:
            return apply_all(self._connection, units, stop_at_refusal)
        except DRIVER_ERRORS as error:
            self.broken = storage_error(error, self._path)
            raise self.broken from error
        except Exception as error:
            self.broken = error
            raise

    def close(self) -> None:
        """Do nothing: the storage is not this one's to close."""


@contextmanager
def _lent(connection: sqlite3.Connection, path: Path) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    except DRIVER_ERRORS as error:
        raise storage_error(error, path) from error
