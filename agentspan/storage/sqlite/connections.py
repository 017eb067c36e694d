"""The connections of a process to one file: a writer behind a lock, and a pool of readers."""

import atexit
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from agentspan import disk, host
from agentspan.errors import DatabaseBusy, DatabaseUnusable, NotPermitted, StorageError
from agentspan.host import Hold, Renewal, is_mine, page, undoing, within
from agentspan.storage.protocol import FileReplaced
from agentspan.storage.sqlite import file_watch, opening
from agentspan.storage.sqlite.contents import FileConnection
from agentspan.storage.sqlite.driver import DRIVER_ERRORS, Checkpoints, is_damage, storage_error, waiting, was_deleted
from agentspan.storage.sqlite.file_guard import FileGuard
from agentspan.storage.sqlite.file_watch import Inode, inode_of
from agentspan.storage.sqlite.migrations import MIGRATIONS, Migration, newest
from agentspan.tuning import STANDARD, Tuning

T = TypeVar("T")

ATTEMPTS = 20
"""The number of attempts to open a file that another program deletes each time it is opened."""
_FIND = (
    "select 1 from agent_spans where id = :id union all select 1 from agent_instances where id = :id "
    "union all select 1 from writers where id = :id"
)


class Connections:
    """The connections of one process to one file.

    Args:
        path: the file.
        read_only: never write.
        wait_s: how many seconds reading, and opening, may wait for other processes.
        tuning: sizes and times; see agentspan/tuning.py.
        migrations: the migrations to the newest version; tests pass others.
        sqlite_version: the version of this Python's SQLite; tests pass others.

    Attributes:
        guard: detects that the file was replaced or changed.
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
        self.sqlite_version = sqlite_version
        self.lock = threading.RLock()  # held by `writing`, which does not nest. An RLock knows its owner
        self._writer: FileConnection | None = None
        self.cursor: sqlite3.Cursor | None = None
        self._readers: list[sqlite3.Connection] = []
        self.guard = FileGuard(path, read_only=read_only, connect=self._connect, take_out=self._taken_out)
        self._generation = 0
        self._wanted = _Wanted()
        self._look_at = self._look_every_s = 0.0
        self._held = False
        self._closed = False
        self._writing: _Writing | None = None  # stateless, so it is reused: 0.3 µs
        self.checkpoints = Checkpoints(self.guard, self.lock, tuning)
        self._gate = Gate()
        _all.add(self)

    def writer(self) -> FileConnection:
        """Return the writer's connection; open it if it is not open. The caller holds the writers' lock."""
        if self._writer is None:
            self.check_open()
            self.guard.mend()
            if self.read_only:
                raise NotPermitted(f"{self.path} was opened with read_only=True")
            writer = self._open()
            self.cursor = writer.cursor()
            self._writer = writer
        elif self._writer.in_transaction:  # left by an interrupted call
            self._writer.rollback()
        return self._writer

    def writing(self, wait_s: float) -> within:
        """Return a with-block that holds the writers' lock.

        Raises:
            DatabaseBusy: another thread held the lock for `wait_s` seconds; or this thread holds it, and a signal
                handler or a finalizer that interrupted it also writes.
        """
        if not page[0]:
            host.renew()
        writing = self._writing
        if writing is None or writing.wait_s != wait_s:
            writing = self._writing = _Writing(self, wait_s)
        return writing

    def transact(self, work: Callable[[sqlite3.Connection], T], wait_s: float, *, once: bool = False) -> T:
        """Run `work` in one transaction, commit it, and return its result. Roll back if `work` raises (see written)."""
        return self.written(lambda: self._transact(work, wait_s), wait_s, once=once)

    def written(self, write: Callable[[], T], wait_s: float, *, once: bool = False) -> T:
        """Call `write` with the writers' lock, and return its result.

        Args:
            once: whether `write` may be called only once. If False, it is called again when the file was deleted or
                replaced meanwhile, and writes to the new file at the path.

        Raises:
            DatabaseBusy: other writers held the write lock for `wait_s` seconds.
            FileReplaced: the path has another file now.
            StorageError: nothing is stored, perhaps because the file was deleted or replaced.
        """
        try:
            with self.writing(wait_s):
                if once:
                    self.lost_its_file()
                while True:
                    files = self._wanted.files
                    if files and (self.guard.follow() or files != self.guard.files):
                        raise replaced_meanwhile(self.path)
                    done = write()
                    if not self.lost_its_file():
                        return done
                    if once:
                        raise replaced_meanwhile(self.path)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise self.write_error(error) from error

    def write_error(self, error: Exception) -> StorageError:
        """Convert a driver's error of a write into a StorageError.

        A connection that was opened on a read-only disk stays read-only. It is closed here, so that the next write
        opens a new one.
        """
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY and not is_mine(self.lock):
            with self.lock:
                if self.guard.watch.changed() is None:
                    self.guard.close()
        return storage_error(error, self.path)

    def _transact(self, work: Callable[[sqlite3.Connection], T], wait_s: float) -> T:
        # The driver's with-block ends in C, and rolls back without a commit. If it were Python code, an exception of a
        # signal handler could prevent its end, and leave the file locked.
        with self.writer() as connection:
            waiting(lambda: connection.execute("begin immediate"), self.path, wait_s)
            before = connection.total_changes
            connection.transaction += 1
            done = work(connection)
            connection.execute("commit")
            connection.recent.is_settled = True
            self.checkpoints.committed(connection.total_changes - before)
            return done

    def snapshot(self) -> AbstractContextManager[sqlite3.Connection]:
        """Return a with-block with a reader whose statements all read the same state. Readers block no writers."""
        if not page[0]:
            host.renew()
        return _Snapshot(self)

    def no_fork(self) -> AbstractContextManager[object]:
        """Return a with-block that forks wait for. It is for code that opens its own connection to the file."""
        if not page[0]:
            host.renew()
        opening.check_fork(self.path)
        return self._gate.inside()

    def check_open(self) -> None:
        """Check that `close` was not called. Calls that use no reader or writer of this object need this check.

        Raises:
            StorageError: `close` was called.
        """
        if self._closed:
            raise StorageError(f"{self.path} was closed here; open it again")

    def check_file(self) -> None:
        """Reopen the database if its file was deleted or replaced: writes to a deleted file succeed, and are lost."""
        if not page[0]:
            host.renew()
        # Not if this thread holds the lock: then a signal handler reads during a write.
        if self.guard.watch.changed() is not None and not is_mine(self.lock):
            with self.lock:
                self.guard.follow()

    def lost_its_file(self) -> bool:
        """Return whether the writer's file was deleted or replaced. If so, the next write opens the file at the path.

        The caller holds the lock. After `look_seldom`, most calls return False without a check.

        Raises:
            StorageError: something other than SQLite has written to the file, or deleted its log.
        """
        now = disk.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + self._look_every_s
        return self.guard.watch.changed() is not None and self.guard.follow()

    @contextmanager
    def only(self, files: int) -> Iterator[None]:
        """Within the block, let this thread write only while `guard.files` equals `files`: to the same file.

        It is no argument of `written`, because the method `apply` of a storage is between them.
        """
        self._wanted.files = files
        try:
            yield
        finally:
            self._wanted.files = 0

    def look_seldom(self) -> None:
        """Check the file from time to time and not after each commit. Never wait while a file is checked or copied."""
        self._look_every_s = self.tuning.file_look_s
        self.guard.waits = False

    def look(self) -> None:
        """Check now that the file, its log and its index are the opened ones; repair the file if necessary.

        Raises:
            StorageError: something other than SQLite has written to the file, or deleted its log.
        """
        if is_mine(self.lock):  # a signal handler called this during a write
            return
        with self.lock:
            self.guard.follow(waits=True)
            self.guard.mend(waits=True)
            self.guard.confirm()  # because the caller deletes journal records afterwards

    def has(self, ids: Sequence[str]) -> bool:
        """Return whether all these spans, runs and writers are in the file, read by a new connection without a cache.

        Raises:
            StorageError: the file cannot be read, or is not sound.
        """
        self.look()
        if not ids:
            return True
        try:
            if not self.read_only:
                with self.lock:
                    self.writer()  # opens the file if it was replaced
            with self.no_fork(), self.guard.fresh() as fresh:
                # Busy at times: another process may be recovering or restarting the log.
                found = [waiting(partial(_find, fresh, id), self.path, self.tuning.recording_wait_s) for id in ids]
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if is_damage(error):
                with self.lock:
                    self.guard.break_with("content")
            raise storage_error(error, self.path) from error
        return all(found)

    def close(self) -> None:
        """Close all connections. Later calls that need a connection raise StorageError."""
        if not page[0]:
            host.renew()
        with self.lock:
            self._closed = True
        self.checkpoints.wait()
        with self.lock:
            self.guard.leave()

    def _taken_out(self) -> list[sqlite3.Connection]:
        # The cursor, too: the thread that wrote last may still refer to it, and would finish its statement later.
        cursor, opened = self.cursor, [each for each in (self._writer, *self._readers) if each is not None]
        self._writer, self.cursor, self._readers = None, None, []
        self._generation += 1  # borrowed readers belong to the old generation
        if cursor is not None:
            with suppress(sqlite3.Error):
                cursor.close()
        return opened

    def is_in_use(self) -> bool:
        """In a forked child: return whether a thread of the parent was using SQLite at the fork."""
        is_locked = not self.lock.acquire(False)
        if not is_locked:
            self.lock.release()
        is_open = self._writer is not None and self._writer.in_transaction
        return is_locked or is_open or self._gate.has_others() or self.checkpoints.connection is not None

    def leave_behind(self) -> None:
        """In a forked child: drop the parent's open connections without closing them, because closing drops locks."""
        if self._writer is not None or self._readers or self.checkpoints.connection is not None:
            opened = (self._writer, self.cursor, self._readers, self.checkpoints.connection)
            file_watch.keep_open(self.path, self.guard.watch.file, opened)
        if (own := self.guard.take_own()) is not None:
            file_watch.keep_open(self.path, None, own)
        self._writer, self.cursor, self._readers = None, None, []
        self._generation += 1

    def renew(self) -> None:
        """In a forked child: replace the parent's locks, gate and checkpoint thread by new ones."""
        self._held = False
        self.lock = threading.RLock()
        self._writing = None
        self.checkpoints = Checkpoints(self.guard, self.lock, self.tuning)
        self._gate = Gate()

    def hold(self) -> None:
        """Before a fork: wait for a limited time until no other thread uses SQLite, and close the connections.

        SQLite remembers which files the process has locked. A child inherits that memory without the locks. So its
        connections would be unprotected, and another process that closes the file would delete the log under them.
        """
        wait_s = self.tuning.sqlite_fork_wait_s
        self.checkpoints.paused = True
        if is_mine(self.lock) and not self._held:  # a signal handler forks: see leave_behind
            self._gate.shut(wait_s)
            return
        self._held = True  # first: after an interruption right after `acquire`, `let_go` still releases the lock
        if self.lock.acquire(timeout=wait_s):  # now no writer is about to start a checkpoint thread
            self.lock.release()
        self._gate.shut(wait_s)
        self.checkpoints.wait(wait_s)
        if is_mine(self.lock) or self.lock.acquire(timeout=wait_s):
            self.guard.leave()

    def let_go(self) -> None:
        """In the parent after a fork: release the lock, and allow readers and checkpoints again."""
        if self._held:
            if is_mine(self.lock):
                self.lock.release()
            self._held = False
        self._gate.open()
        self.checkpoints.paused = False

    def _take_reader(self) -> tuple[sqlite3.Connection, int]:
        """Return a reader from the pool, or a new one, and its generation."""
        generation = self._generation  # first: another thread may drop all readers before the next line
        try:
            return self._readers.pop(), generation
        except IndexError:
            pass
        self.check_open()
        if self.guard.is_wrong:
            with self.lock:
                self.guard.mend()
        opened = self._open()  # may begin a new generation, if the file was replaced
        return opened, self._generation

    def _give_reader(self, connection: sqlite3.Connection, generation: int) -> None:
        if generation != self._generation:
            file_watch.close_one(connection)  # its file may be gone
            self.reader_closed()
        elif self._closed:
            connection.close()
            self.reader_closed()
        else:
            self._readers.append(connection)

    def reader_closed(self) -> None:
        """Stop watching the file if there is no writer: the closed reader may have been the last connection.

        SQLite deletes the log when the last connection is closed.
        """
        if self._writer is None:
            self.guard.watch.end()

    def open_now(self) -> None:
        """Open the file now, so that errors are raised now and not at the first use."""
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
        opening.check(self.path, read_only=self.read_only, sqlite_version=self.sqlite_version)
        file, watch = inode_of(self.path), self.guard.watch
        connection = opening.connect(self.path, read_only=self.read_only, tuning=self.tuning)
        if (
            file is None
            or watch.file not in (None, file)
            or inode_of(self.path) != file
            or file_watch.is_of_another(self.path)
        ):
            connection.close()  # harmless: it has read nothing, and opened no log
            if is_mine(self.lock) and self._writer is None:  # no write is under way
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
                file_watch.abandon([connection])
            raise
        if inode_of(self.path) != file:  # it may have mixed one file with the other's log
            if not file_watch.abandon([connection]) and (now := inode_of(self.path)) is not None:
                self.guard.distrust(now)
            raise FileNotFoundError(f"{self.path} was deleted or replaced while it was opened")
        if watch.file is None:  # the first connection; later ones were compared with its file above
            self.guard.opened(file)
        return connection

    def _connect(self, file: Inode | None = None) -> FileConnection:
        """Open another connection to the open file, or to the file with an inode. Nothing is read yet.

        Raises:
            FileReplaced: no file is open, or the path has another file, which must not be read with the old log.
        """
        connection = opening.connect(self.path, read_only=self.read_only, tuning=self.tuning)
        file = file or self.guard.watch.file
        if file is None or inode_of(self.path) != file:
            connection.close()
            raise replaced_meanwhile(self.path)
        return connection

    def _migrate_by_another(self, version: int) -> None:
        """Migrate an older file for a read-only connection, with temporary connections that can write."""
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
    """Return the error for work that was interrupted by a replaced file, and must not be repeated automatically."""
    return FileReplaced(f"{path} was deleted or replaced in the middle of this; try again")


class _Wanted(threading.local):
    """The file to which the current thread may write (see Connections.only); 0 for any file."""

    files = 0


class _Writing(within):
    """A with-block that holds the writers' lock. `Connections.writing` returns it."""

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
    """A with-block that borrows a reader and keeps it in one transaction. `Connections.snapshot` returns it."""

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
        """End the transaction, and return the reader to the pool, even after an exception from a signal handler."""
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


class Gate:
    """Tracks the threads that read. Before a fork the gate is shut: no thread enters, and the readers inside leave."""

    def __init__(self) -> None:
        self._entrance = threading.RLock()  # reentrant: a signal handler may read while its own thread is in here
        self._inside: dict[int, tuple[weakref.ref[Inside], int]] = {}
        """Each with-block inside, with its thread. If a signal handler raises at the start of `__exit__`, the entry
        stays, but its weak reference is dead and does not count. A counter would stay too high, and a `__del__` would
        swallow exceptions of signal handlers."""
        self._shut = False

    def inside(self) -> "Inside":
        """Return a with-block that a fork waits for."""
        return Inside(self)

    def shut(self, wait_s: float) -> None:
        """Block new readers, and wait at most `wait_s` seconds until the readers of other threads have left."""
        if not is_mine(self._entrance):
            self._shut = True  # first: a thread that is interrupted right after `acquire` still releases the lock
            self._entrance.acquire(timeout=wait_s)
        slept = 0.0
        while slept < wait_s and self.has_others():
            disk.sleep(0.0005)
            slept += 0.0005

    def has_others(self) -> bool:
        """Return whether other threads are inside the gate."""
        own = threading.get_ident()
        return any(thread != own and block() is not None for block, thread in list(self._inside.values()))

    def open(self) -> None:
        """Allow new readers again, after `shut`."""
        if self._shut:
            if is_mine(self._entrance):
                self._entrance.release()
            self._shut = False


class Inside:
    """A with-block of one thread. A fork waits until the thread has left it."""

    __slots__ = ("__weakref__", "_gate")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __enter__(self) -> None:
        with undoing(self.leave), self._gate._entrance:
            self._gate._inside[id(self)] = weakref.ref(self), threading.get_ident()

    def __exit__(self, *exc_info: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Leave the gate, so that forks no longer wait for this block. Leaving twice is fine."""
        self._gate._inside.pop(id(self), None)


_all: weakref.WeakSet[Connections] = weakref.WeakSet()


def _leave_all_behind() -> None:
    if any(connections.is_in_use() for connections in host.members(_all)):
        host.cut_off()
    for connections in host.members(_all):
        connections.leave_behind()


def _abandon_changed() -> None:
    """At exit: drop connections to replaced files, because a normal close could damage the new file's log."""
    for connections in list(_all):
        guard = connections.guard
        if (guard.is_wrong or guard.watch.changed() is not None) and not is_mine(connections.lock):
            with connections.lock:
                guard.leave()


# Before a fork no other thread is inside SQLite: a child that inherits a locked mutex would hang.
host.hold_each(Hold.SQLITE, _all, Connections.hold, Connections.let_go)
host.forget(_leave_all_behind)
host.renewal(Renewal.LOCKS, host.for_each(_all, Connections.renew))
atexit.register(_abandon_changed)
