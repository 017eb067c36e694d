"""Connections to one file: a writer behind a lock, and a pool of readers. See opening.py, busy.py and file_guard.py."""

import atexit
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from agentspan import forks
from agentspan.errors import DatabaseBusy, DatabaseUnusable, NotPermitted, StorageError
from agentspan.forks import page
from agentspan.locks import is_mine, within
from agentspan.storage.protocol import FileReplaced
from agentspan.storage.sqlite import file_guard, file_watch, mending, opening
from agentspan.storage.sqlite.checkpoints import Checkpoints
from agentspan.storage.sqlite.contents.recent import FileConnection
from agentspan.storage.sqlite.driver_errors import DRIVER_ERRORS, is_damage, storage_error, waiting, was_deleted
from agentspan.storage.sqlite.file_guard import FileGuard, Gate
from agentspan.storage.sqlite.file_watch import Inode, inode_of
from agentspan.storage.sqlite.migrations import MIGRATIONS, Migration, newest
from agentspan.tuning import STANDARD, Tuning

T = TypeVar("T")

ATTEMPTS = 20
"""Attempts to open a file that somebody deletes at that moment, each time."""
_FIND = (
    "select 1 from agent_spans where id = :id union all select 1 from agent_instances where id = :id "
    "union all select 1 from writers where id = :id"
)


class Connections:
    """The connections of one process to one file.

    Args:
        migrations, sqlite_version: see opening.prepare and opening.check.

    Attributes:
        guard: looks after the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        wait_s: float,
        tuning: Tuning = STANDARD,
        migrations: Sequence[Migration] = MIGRATIONS,
        sqlite_version: tuple[int, ...] = sqlite3.sqlite_version_info,
    ) -> None:
        self.path = path
        self.read_only = read_only
        self.wait_s = wait_s
        self.tuning = tuning
        self._migrations = migrations
        self._sqlite_version = sqlite_version
        self.lock = threading.RLock()  # held by `writing`, which does not nest; its owner must be known
        self._writer: FileConnection | None = None
        self.cursor: sqlite3.Cursor | None = None
        self._readers: list[sqlite3.Connection] = []
        self.guard = FileGuard(path, read_only=read_only, connect=self._connect, take_out=self._taken_out)
        self._generation = 0
        self._wanted = threading.local()
        self._look_at = self._look_every_s = 0.0
        self._held = False
        self._closed = False
        self._writing: _Writing | None = None  # it has no state of its own, so one serves all: 0.3 µs
        self._checkpoints = self._new_checkpoints()
        self._gate = Gate()
        file_guard.enrol(self)
        _all.add(self)

    def committed(self, rows: int = 1) -> None:
        """Count a commit of the writer, whose lock the caller holds; now and then a checkpoint is due."""
        self._checkpoints.committed(rows)

    def _new_checkpoints(self) -> Checkpoints:
        return Checkpoints(self._connect, self.lock, self._is_as_it_was, lambda: self.guard.watch, self.tuning)

    def writer(self) -> FileConnection:
        """Return the writer's connection, opening it first if need be; the caller holds the lock."""
        if self._writer is None:
            self.check_open()
            self.guard.mend()
            if self.read_only:
                raise NotPermitted(f"{self.path} was opened with read_only=True")
            writer = self._open()
            self.cursor = writer.cursor()
            self._writer = writer
        elif self._writer.in_transaction:  # nobody's: whoever begins one asks for the connection first
            self._writer.rollback()
        return self._writer

    def writing(self, wait_s: float) -> within:
        """Hold the writers' lock in a with-block.

        Raises:
            DatabaseBusy: another thread kept it for so long; or this one has it, and a signal handler or a finalizer
                that interrupts it wants to write as well.
        """
        if not page[0]:
            forks.renew()
        writing = self._writing
        if writing is None or writing.wait_s != wait_s:
            writing = self._writing = _Writing(self, wait_s)
        return writing

    def transact(self, work: Callable[[sqlite3.Connection], T], wait_s: float, *, once: bool = False) -> T:
        """Do work in one transaction, and commit it; roll it back if the work raises.

        Args:
            once: `work` may be called once only. Else it is called again if the file was deleted or replaced meanwhile,
                and is done in the file that has the path then.

        Raises:
            DatabaseBusy: other writers did not let go within `wait_s` seconds.
            FileReplaced: the path has another file now.
            StorageError: nothing is stored, perhaps because the file was deleted or replaced.
        """
        try:
            with self.writing(wait_s):
                if once:
                    self.lost_its_file()
                self.check_wanted()
                while True:
                    done = self._transact(work, wait_s)
                    if not self.lost_its_file():
                        return done
                    if once:
                        raise replaced_meanwhile(self.path)
                    self.check_wanted()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self.write_error(error) from error

    def write_error(self, error: Exception) -> StorageError:
        """Turn a driver's error of a write into ours.

        A connection that was opened while the disk was read-only stays so: the next write opens another one.
        """
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY and not is_mine(self.lock):
            with self.lock:
                if self.guard.watch.changed() is None:
                    self.guard.close()
        return storage_error(error, self.path)

    def _transact(self, work: Callable[[sqlite3.Connection], T], wait_s: float) -> T:
        # The blocks end in C: the end of a with-block in Python can be kept from running by an exception of a signal
        # handler, and would leave the file locked. The driver rolls back what is not committed.
        with self.writer() as connection:
            waiting(lambda: connection.execute("begin immediate"), self.path, wait_s)
            before = connection.total_changes
            connection.transaction += 1
            done = work(connection)
            connection.execute("commit")
            connection.recent.settle()
            self.committed(connection.total_changes - before)
            return done

    def snapshot(self) -> AbstractContextManager[sqlite3.Connection]:
        """Lend a reader whose statements all see the same state; no lock is held and no writer waits."""
        if not page[0]:
            forks.renew()
        return _Snapshot(self)

    def no_fork(self) -> AbstractContextManager[object]:
        """Make a fork wait while the block has a connection of its own open."""
        if not page[0]:
            forks.renew()
        opening.check_fork(self.path)
        return self._gate.inside()

    def check_open(self) -> None:
        """Check that this was not closed; for what opens a connection of its own, or none.

        Raises:
            StorageError: it was closed.
        """
        if self._closed:
            raise StorageError(f"{self.path} was closed here; open it again")

    def check_file(self) -> None:
        """Reopen the database if its file was deleted or replaced: writes to a deleted file succeed, and are lost."""
        if not page[0]:
            forks.renew()
        # Not where a signal handler reads in the middle of a write.
        if self.guard.watch.changed() is not None and not is_mine(self.lock):
            with self.lock:
                self.guard.follow()

    def lost_its_file(self) -> bool:
        """Return whether the writer's file was deleted or replaced. Then the next write opens the one at the path.

        The caller holds the lock. A file that is looked for seldom may be gone all the same.

        Raises:
            StorageError: something else than SQLite has written to the file, or deleted its log.
        """
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + self._look_every_s
        return self.guard.follow()

    @contextmanager
    def only(self, files: int) -> Iterator[None]:
        """Let this thread write to the file with a number only; see `files`."""
        wanted = self._wanted
        wanted.files = files
        try:
            yield
        finally:
            wanted.files = 0

    def check_wanted(self) -> None:
        """Check that the path has the file that this thread may write to. The caller holds the lock.

        Raises:
            FileReplaced: it has another one.
        """
        files = getattr(self._wanted, "files", 0)
        if files and (self.guard.follow() or files != self.files):
            raise replaced_meanwhile(self.path)

    def look_seldom(self) -> None:
        """Look for the file from time to time, and no more after each commit; wait for nothing that takes long."""
        self._look_every_s = self.tuning.file_look_s
        self.guard.waits = False

    def look(self) -> None:
        """Look at once whether the file, its log and its index are those that were opened.

        Raises:
            StorageError: something else than SQLite has written to the file, or deleted its log.
        """
        if is_mine(self.lock):  # a signal handler comes in the middle of a write
            return
        with self.lock, self.guard.patience():
            self.guard.follow()
            self.guard.mend()
            self.guard.confirm()  # what is looked for leaves a journal then

    def has(self, ids: Sequence[str]) -> bool:
        """Return whether a new connection finds all these spans, runs and writers in a sound file.

        Raises:
            StorageError: the file cannot be read, or is not sound.
        """
        self.look()
        if not ids:
            return True
        try:
            if not self.read_only:
                with self.lock:
                    self.writer()  # where the file was replaced, nothing is open yet
            with self.no_fork(), self.guard.fresh() as fresh:
                # Others may read the log anew, or begin it anew, at this moment.
                found = [waiting(partial(_find, fresh, id), self.path, self.tuning.recording_wait_s) for id in ids]
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if is_damage(error):
                with self.lock:
                    self.guard.break_with("content")
            raise storage_error(error, self.path) from error
        return all(found)

    def sync(self) -> None:
        """Have the log on the disk: what was committed survives a power failure then.

        Raises:
            OSError: the disk does not take it.
        """
        self._checkpoints.sync()

    def leave_sync_to_caller(self) -> None:
        """From now on, the caller has the log on the disk when that is due."""
        self._checkpoints.syncs = False

    def _is_as_it_was(self) -> bool:
        """Return whether the file may be used, and nothing but SQLite has changed it, which a checkpoint would hide.

        What takes long is done here. A recording call that comes meanwhile waits as for another writer, 250 ms at most.
        """
        with self.lock, self.guard.patience():
            try:
                has_changed = self.guard.watch.changed() is not None
                self.guard.follow()
                self.guard.mend()
            except StorageError:
                return False
            return not has_changed

    @property
    def files(self) -> int:
        """The number of files that this process has seen at the path."""
        return self.guard.files

    def close(self) -> None:
        """Close all connections; nothing can be opened any more."""
        if not page[0]:
            forks.renew()
        with self.lock:
            self._closed = True
        self._checkpoints.wait()
        with self.lock:
            self.guard.leave()

    def drop_if_changed(self) -> None:
        """Give up the connections if the path has another file, or this one is not as it was."""
        has_changed = self.guard.is_wrong or self.guard.watch.changed() is not None
        if has_changed and not is_mine(self.lock):
            with self.lock:
                self.guard.leave()

    def _taken_out(self) -> list[sqlite3.Connection]:
        # The cursor, too: the thread that wrote last may hold it still, and would end its statement after the lock.
        cursor, opened = self.cursor, [each for each in (self._writer, *self._readers) if each is not None]
        self._writer, self.cursor, self._readers = None, None, []
        self._generation += 1  # a reader that is out now belongs to the file of before
        if cursor is not None:
            with suppress(sqlite3.Error):
                cursor.close()
        return opened

    def is_in_use(self) -> bool:
        """In a forked child: return whether another thread was inside SQLite, or any thread in a commit."""
        is_locked = not self.lock.acquire(False)
        if not is_locked:
            self.lock.release()
        is_open = self._writer is not None and self._writer.in_transaction
        return is_locked or is_open or self._gate.has_others() or self._checkpoints.connection is not None

    def leave_behind(self) -> None:
        """In a forked child: drop connections that are still open, without closing them: closing would drop locks."""
        if self._writer is not None or self._readers or self._checkpoints.connection is not None:
            opened = (self._writer, self.cursor, self._readers, self._checkpoints.connection)
            file_guard.keep_open(self.path, self.guard.watch.file, opened)
        if (own := self.guard.take_own()) is not None:
            file_guard.keep_open(self.path, None, own)
        self._writer, self.cursor, self._readers = None, None, []
        self._generation += 1

    def renew(self) -> None:
        """In a forked child: make new locks, and start no thread yet."""
        self._held = False
        self.lock = threading.RLock()
        self._writing = None
        self._checkpoints = self._new_checkpoints()
        self._gate = Gate()

    def hold(self) -> None:
        """Before a fork: wait for a while until no thread is inside SQLite; close the connections.

        SQLite remembers which files the process has locked. A child inherits that memory without the locks: what it
        opened would be unprotected, and who closes the file later would take its write-ahead log away.
        """
        wait_s = self.tuning.sqlite_fork_wait_s
        self._checkpoints.paused = True
        if is_mine(self.lock) and not self._held:  # a signal handler forks; the child leaves behind what is open
            self._gate.shut(wait_s)
            return
        self._held = True  # first: who is interrupted right after it is acquired lets go of it all the same
        if self.lock.acquire(timeout=wait_s):  # whoever was about to start one has
            self.lock.release()
        self._gate.shut(wait_s)
        self._checkpoints.wait(wait_s)
        if is_mine(self.lock) or self.lock.acquire(timeout=wait_s):
            self.guard.leave()

    def let_go(self) -> None:
        """Undo `hold`, in the parent after the fork."""
        if self._held:
            if is_mine(self.lock):
                self.lock.release()
            self._held = False
        self._gate.open()
        self._checkpoints.paused = False

    def _take_reader(self) -> tuple[sqlite3.Connection, int]:
        """Return a reader, and the generation that it belongs to at least."""
        generation = self._generation  # first: a thread that drops them all may come before the next line
        try:
            return self._readers.pop(), generation
        except IndexError:
            pass
        self.check_open()
        if self.guard.is_wrong:
            with self.lock:
                self.guard.mend()
        opened = self._open()  # perhaps after a look at the file, which another one had replaced
        return opened, self._generation

    def _give_reader(self, connection: sqlite3.Connection, generation: int) -> None:
        if generation != self._generation:
            mending.close_one(connection)  # its file may be gone
            self.reader_closed()
        elif self._closed:
            connection.close()
            self.reader_closed()
        else:
            self._readers.append(connection)

    def reader_closed(self) -> None:
        """Note that a reader was closed. Where it was the last connection, SQLite has deleted the log."""
        if self._writer is None:
            self.guard.watch.end()

    def open_now(self) -> None:
        """Open the file once, so that errors are raised now."""
        try:
            if self.read_only:
                self._readers.append(self._open())
            else:
                with self.lock:
                    self.writer()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise storage_error(error, self.path) from error

    def _open(self) -> FileConnection:
        for _ in range(ATTEMPTS):
            try:
                return self._open_once()
            except (sqlite3.OperationalError, FileNotFoundError) as error:
                if not was_deleted(error, self.path):
                    raise
        raise StorageError(f"{self.path} is deleted again and again while it is opened; find out by which program")

    def _open_once(self) -> FileConnection:
        opening.check(self.path, read_only=self.read_only, sqlite_version=self._sqlite_version)
        file, watch = inode_of(self.path), self.guard.watch
        connection = opening.connect(self.path, read_only=self.read_only, tuning=self.tuning)
        if (
            file is None
            or watch.file not in (None, file)
            or inode_of(self.path) != file
            or file_watch.is_of_another(self.path)
        ):
            connection.close()  # nothing was read, and no log opened
            if is_mine(self.lock) and self._writer is None:  # nothing is being written
                self.guard.follow()
            else:
                self.check_file()
            raise FileNotFoundError(f"{self.path} was deleted or replaced while it was opened")
        try:
            opening.prepare(
                connection,
                self.path,
                read_only=self.read_only,
                wait_s=self.wait_s,
                is_checked=watch.file is not None,
                migrate_by_another=self._migrate_by_another,
                migrations=self._migrations,
                reported_bytes=self.tuning.reported_migration_bytes,
            )
        except BaseException:
            if inode_of(self.path) == file:
                connection.close()
            else:
                mending.abandon([connection])
            raise
        if inode_of(self.path) != file:  # it may have read the log of one as that of the other
            if not mending.abandon([connection]) and (now := inode_of(self.path)) is not None:
                self.guard.distrust(now)
            raise FileNotFoundError(f"{self.path} was deleted or replaced while it was opened")
        if watch.file is None:  # else it is compared with the file that was opened first
            self.guard.opened(file)
        return connection

    def _connect(self, file: Inode | None = None) -> FileConnection:
        """Open a connection to a certain file, or another one to the file that is open already; nothing is read.

        Raises:
            FileReplaced: none is open, or the path has another one. Read with the log of before, that would be damaged.
        """
        connection = opening.connect(self.path, read_only=self.read_only, tuning=self.tuning)
        file = file or self.guard.watch.file
        if file is None or inode_of(self.path) != file:
            connection.close()
            raise replaced_meanwhile(self.path)
        return connection

    def _migrate_by_another(self, version: int) -> None:
        """Migrate an older file before it is opened read-only, with connections that may write."""
        if not version:
            raise DatabaseUnusable(f"{self.path} has no agentspan tables yet; record into it, or open it once to write")
        writing = Connections(
            self.path, read_only=False, wait_s=self.wait_s, tuning=self.tuning, migrations=self._migrations
        )
        try:
            writing.open_now()
        except StorageError as error:
            raise DatabaseUnusable(
                f"{self.path} was made by an older agentspan (file version {version}, this one reads "
                f"{newest(self._migrations)}), and cannot be brought up to date from here: {error}"
            ) from error
        finally:
            writing.close()


def _find(connection: sqlite3.Connection, id: str) -> bool:
    return connection.execute(_FIND, {"id": id}).fetchone() is not None


def replaced_meanwhile(path: Path) -> FileReplaced:
    """Return the error for what must not be repeated in another file by itself."""
    return FileReplaced(f"{path} was deleted or replaced in the middle of this; try again")


_all: weakref.WeakSet[Connections] = weakref.WeakSet()


def _abandon_changed() -> None:
    """At the end of the program, which frees and so closes what is open: not where the path has another file."""
    for each in list(_all):
        each.drop_if_changed()


atexit.register(_abandon_changed)


class _Writing(within):
    """Holds the lock of all writers while a with-block writes (Connections.writing returns it)."""

    __slots__ = ("_path",)

    def __init__(self, connections: Connections, wait_s: float) -> None:
        lock = self._lock = connections.lock  # not by super().__init__: 0.2 µs
        self.__exit__ = lock.__exit__
        self.wait_s = wait_s
        self._path = connections.path

    def _refusal(self, is_mine: bool) -> Exception:
        if is_mine:
            return DatabaseBusy(f"this thread is writing to {self._path} already")
        return DatabaseBusy(f"another thread kept {self._path} for {self.wait_s:g} s; try again")


class _Snapshot:
    """Lends a reader for a with-block, in one transaction (Connections.snapshot returns it)."""

    __slots__ = ("_connection", "_connections", "_generation", "_inside")

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._connection: sqlite3.Connection | None = None
        self._generation = 0
        self._inside = connections._gate.inside()

    def __enter__(self) -> sqlite3.Connection:
        connections = self._connections
        try:
            self._inside.__enter__()
            connection, self._generation = connections._take_reader()
            self._connection = connection
            waiting(lambda: connection.execute("begin"), connections.path, connections.wait_s)
            return connection
        except BaseException as error:
            self._end()
            if isinstance(error, DRIVER_ERRORS):
                raise storage_error(error, connections.path) from error
            raise

    def __exit__(
        self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._end()
        except sqlite3.Error as failed:
            error = error or failed
        if isinstance(error, DRIVER_ERRORS):
            raise storage_error(error, self._connections.path) from error

    def _end(self) -> None:
        """End the transaction, and return the reader to the pool; after an exception from a signal handler, too."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                try:
                    connection.commit()
                except BaseException:
                    connection.close()
                    self._connections.reader_closed()
                    raise
                self._connections._give_reader(connection, self._generation)
        finally:
            self._inside.leave()
