"""Opens one connection to a file: checks the file, configures the connection, and migrates the tables.

It uses the standard library's sqlite3, with WAL, synchronous=NORMAL and foreign keys on. Only the owner can read a new
file.
"""

import errno
import sqlite3
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from agentspan import disk, files, host
from agentspan.errors import DatabaseUnusable, StorageError
from agentspan.host import let_through, log, undoing
from agentspan.storage import protocol
from agentspan.storage.location import file
from agentspan.storage.sqlite import file_watch, joining
from agentspan.storage.sqlite.contents import FileConnection, RecentRuns
from agentspan.storage.sqlite.driver import MAX_FRAMES, waiting
from agentspan.storage.sqlite.migrations import (
    APPLICATION_ID,
    BEFORE,
    CURRENT,
    MIGRATIONS,
    Migration,
    migrate,
    missing,
    newest,
)
from agentspan.tuning import STANDARD, Tuning

_MINIMUM = (3, 38, 0)  # `->`


def _check_library(version: tuple[int, ...]) -> None:
    if version < _MINIMUM:
        found, needed = (".".join(map(str, each)) for each in (version, _MINIMUM))
        raise DatabaseUnusable(
            f"this Python's SQLite is {found}, agentspan needs {needed}; use a newer build of Python"
        )


def check_fork(path: Path) -> None:
    """Check that this process may use SQLite.

    Raises:
        StorageError: this process was forked while a thread was inside SQLite.
    """
    if host.is_cut_off:
        raise StorageError(
            f"{path} cannot be used in this process, which was forked while a thread was using SQLite; fork when "
            "nothing is recorded (agentspan.flush() waits for that), or configure agentspan in the child only"
        )


def _check_path(path: Path, read_only: bool) -> None:
    if disk.isdir(path):
        raise DatabaseUnusable(f"{path} is a folder; name a file, such as {path / 'agentspan.db'}")
    if not read_only:
        try:
            files.ensure_own_folder(path.parent)
        except OSError as raised:
            raise DatabaseUnusable(f"the folder {path.parent} cannot be created: {raised.strerror}") from raised
    if not disk.isdir(path.parent):
        raise DatabaseUnusable(f"the folder {path.parent} does not exist; create it, or choose another path")
    if read_only and not disk.exists(path):
        raise DatabaseUnusable(file(path).not_there)


def _check_logs(path: Path) -> None:
    """Raise DatabaseUnusable if another user owns a log beside the file, which SQLite would read as part of the file.

    If the file's permissions let other users write to it, their logs are accepted.
    """
    file = files.stat_of(path)
    if file is None or file.st_mode & 0o022:
        return
    owners = files.owners_of(path)
    for end in ("-wal", "-shm", "-journal"):
        found = files.stat_of(f"{path}{end}", follow_symlinks=False)
        why = None if found is None else files.why_others(found, owners)
        if why is not None:
            raise DatabaseUnusable(
                f"{path}{end} is not to be trusted: {why}, and SQLite would read it as a part of {path}; find out who "
                "put it there, then delete it, or give it to the owner of the file"
            )


@cache
def _uri(path: Path) -> str:
    """Return the URI of a file. Cached, because `as_uri` imports modules, which fails while the interpreter ends."""
    return path.as_uri()


def connect(path: Path, *, read_only: bool, tuning: Tuning = STANDARD) -> FileConnection:
    """Return an unconfigured connection to an existing file."""
    # Not "rwc": SQLite would create a file that other users can read.
    uri = _uri(path) + ("?mode=ro" if read_only else "?mode=rw")
    connection = sqlite3.connect(
        uri, uri=True, timeout=0, isolation_level=None, check_same_thread=False, factory=FileConnection
    )
    connection.recent = RecentRuns(tuning.known_content_runs, tuning.known_content_parts)
    joining.register(connection)
    return connection


def check(path: Path, *, read_only: bool, sqlite_version: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
    """Check that the file at a path can be opened. Create it if it is missing, unless `read_only`.

    A log beside it that belongs to another file is renamed.

    Args:
        sqlite_version: the version of this Python's SQLite.

    Raises:
        DatabaseUnusable: the path, its folder, a file beside it, or this Python's SQLite cannot be used. The message
            contains the remedy.
        StorageError: the disk is full, or this process was forked while a thread was inside SQLite.
    """
    _check_library(sqlite_version)
    check_fork(path)
    _check_path(path, read_only)
    _check_logs(path)
    if not read_only:
        try:
            files.ensure(path)
        except OSError as raised:  # not raised: SQLite fails next, and storage_error adds a remedy
            let_through(raised)
            if raised.errno in (errno.ENOSPC, errno.EDQUOT):  # SQLite would report a missing file
                raise StorageError(f"the disk of {path} is full; make room, recording goes on by itself") from raised
    name = file_watch.set_aside_foreign(path)  # last: the file must exist to be compared with its log
    if name is not None:
        log.warning("the log beside %s was of another file that had this path before; it is %s now", path, name)


def prepare(
    connection: sqlite3.Connection,
    path: Path,
    *,
    read_only: bool,
    wait_s: float,
    is_checked: bool,
    migrate_by_another: Callable[[int], None],
    migrations: Sequence[Migration] = MIGRATIONS,
    reported_bytes: int = STANDARD.reported_migration_bytes,
) -> None:
    """Configure a new connection, and migrate the tables.

    Args:
        is_checked: whether an earlier connection has checked the tables of this file.
        migrate_by_another: called with the version of an older file if this connection is read-only; migrates the file.
        migrations: the migrations to the newest version.
        reported_bytes: the migration of a larger file is logged.

    Raises:
        DatabaseUnusable: the file is from another program, a newer agentspan, or before the first release; or it lacks
            a table or column.
    """

    def execute(sql: str) -> Any:
        return waiting(lambda: connection.execute(sql).fetchone(), path, wait_s)

    current = newest(migrations)
    # The tables are read before the version: another process that creates them sets both in one transaction.
    has_tables = execute("select 1 from sqlite_master limit 1")
    version: int = execute("pragma user_version")[0]
    if not version and has_tables:  # checked before any pragma that writes
        raise DatabaseUnusable(f"{path} has tables of another program; choose another path")
    if version > current:
        raise DatabaseUnusable(
            f"{path} was written by a newer agentspan (file version {version}, this one knows {current}); "
            "install a newer agentspan"
        )
    if version and execute("pragma application_id")[0] != APPLICATION_ID:
        raise DatabaseUnusable(f"{path} is the database of another program; choose another path")
    if 0 < version <= BEFORE:
        raise protocol.refused(str(path), "file", version)
    if not read_only:
        if not has_tables:  # only an empty file can switch to this mode
            execute("pragma auto_vacuum = incremental")
        # `journal_mode` does not wait by itself: 32 of 100 rounds of eight first opens failed without a retry.
        execute("pragma journal_mode = wal")
        execute("pragma synchronous = normal")
        execute("pragma foreign_keys = on")
        execute(f"pragma wal_autocheckpoint = {MAX_FRAMES}")
    if version < current:
        if read_only:
            migrate_by_another(version)
        else:
            _migrate(connection, path, wait_s, migrations, reported_bytes)
    elif not is_checked:  # else the first connection has checked the tables
        _check_tables(connection, path)


def _migrate(
    connection: sqlite3.Connection, path: Path, wait_s: float, migrations: Sequence[Migration], reported_bytes: int
) -> None:
    with host.importing:
        import sqlite_utils  # noqa: F401 (100 ms and more, which the others that open the file need not wait for)

    waiting(lambda: connection.execute("begin immediate"), path, wait_s)
    with undoing(partial(connection.execute, "rollback")):
        version: int = connection.execute("pragma user_version").fetchone()[0]  # another process may have migrated
        if version < newest(migrations):
            size = disk.stat(path).st_size
            if version and size > reported_bytes:
                log.warning(
                    "%s is brought up to date once (from file version %d to %d), for which its %d MB are read",
                    path, version, newest(migrations), size // 2**20,
                )  # fmt: skip
            _migrate_from(connection, path, version, migrations)
        _check_tables(connection, path)
        connection.execute("commit")


def _migrate_from(connection: sqlite3.Connection, path: Path, version: int, migrations: Sequence[Migration]) -> None:
    try:
        migrate(connection, version, migrations)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_ERROR:  # the surroundings: busy, full …
            raise
        raise DatabaseUnusable(
            f"{path} says that it is an agentspan file of version {version}, but its tables are others "
            f"({error}); restore a copy of it, or choose another path"
        ) from error


def _check_tables(connection: sqlite3.Connection, path: Path) -> None:
    lacking = missing(connection)
    if lacking is not None:
        raise DatabaseUnusable(
            f"{path} says that it is an agentspan file of version {CURRENT}, but has no {lacking}; "
            "restore a copy of it, or choose another path"
        )
