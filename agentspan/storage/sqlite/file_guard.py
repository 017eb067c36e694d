"""Guards an open file: follows the path to a new file, and checks or repairs a changed file."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from agentspan import disk
from agentspan.errors import StorageError
from agentspan.host import guard, log
from agentspan.storage.protocol import NotTrustedYet
from agentspan.storage.sqlite import file_watch
from agentspan.storage.sqlite.file_watch import Change, Inode, Watch, close_deleted

MEND_EVERY_S = 1.0
"""The time between two attempts to repair a file that another program changed."""
DOUBT_S = 3.0
"""The time after which a file that was overwritten and found sound is checked again. Until then, another program may
still write pages from its cache to it (it checks the file every 0.25 s), or replace it by a copy without its log (twice
MEND_EVERY_S). With 0.75 s, 15 of 952 flushed runs of two programs were lost to such copies; with 3 s none."""


class _Wrong(NamedTuple):
    """A changed file, which is not used until it is found sound or a sound file is at its path.

    Attributes:
        change: the kind of the change.
        own: if the log was deleted: a connection from before, which still reads all rows.
        watch: the watch of the file.
        try_at: the monotonic time of the next attempt to repair it.
    """

    change: Change
    own: sqlite3.Connection | None
    watch: Watch
    try_at: float = 0.0


class FileGuard:
    """Watches the file of a Connections object, which must hold its lock during each call.

    Args:
        connect: opens a connection to the file with an inode; for None, to the file that is open.
        take_out: removes all connections from their owner and returns them. The writer is the first, if there is one.

    Attributes:
        watch: the watch of the open file.
        waits: whether callers wait while a file is checked or copied, which may take seconds. If False, the checkpoint
            thread does this work.
        files: the number of files that were opened at the path (see BesideJournals).
    """

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool,
        connect: Callable[[Inode | None], sqlite3.Connection],
        take_out: Callable[[], list[sqlite3.Connection]],
    ) -> None:
        self.path = path
        self.watch = Watch(path)
        self.files = 1
        self.waits = True
        self._read_only = read_only
        self._connect = connect
        self._take_out = take_out
        self._wrong: _Wrong | None = None
        self._accepted_at: float | None = None

    @property
    def is_wrong(self) -> bool:
        """True if another program changed the file, and it is not used at present."""
        return self._wrong is not None

    def confirm(self) -> None:
        """Check a file for the second time, DOUBT_S after it was overwritten and found sound.

        Raises:
            NotTrustedYet: it is too early for the second check.
            StorageError: the file is not sound any more.
        """
        if self._accepted_at is None:
            return
        if disk.monotonic() < self._accepted_at + DOUBT_S:
            raise NotTrustedYet(
                f"{self.path} was overwritten a moment ago; it is looked through again before it is trusted"
            )
        self._accepted_at = None
        if self._wrong is None and self.watch.file is not None and not self._is_sound(self.watch):
            self.break_with("content")
            raise StorageError(self._why())

    def opened(self, file: Inode) -> None:
        """Watch the file that the first connection has opened, and mark its log as belonging to this file."""
        self.watch.begin(file)
        file_watch.mark(self.path, file, self.watch.log)

    def distrust(self, file: Inode) -> None:
        """Stop using a file until it is checked or repaired: it may have been read with the log of another file."""
        if self._wrong is None:
            watch = Watch(self.path)
            watch.begin(file)
            self._wrong = _Wrong("content", None, watch)

    def follow(self, *, waits: bool = False) -> bool:
        """Drop all connections if the path has another file now, and return whether it has.

        Args:
            waits: check a changed file, even if `self.waits` is False.

        Raises:
            StorageError: something other than SQLite has changed the file, and it is not known to be sound.
        """
        change = self.watch.changed()
        if change is None:
            return False
        if change == "replaced":
            self.abandon()
            return True
        if change == "content" and self.watch.is_empty:
            change = "log"
        if change == "content" and (waits or self.waits) and self._is_sound(self.watch):
            self._accept()
            self.close()  # their caches may have pages of the old content
            return False
        self.break_with(change)
        raise StorageError(self._why())

    def break_with(self, change: Change) -> None:
        """Stop using the file until it is found sound, or a sound file is at the path."""
        watch, opened = self.watch, self.end()
        own = opened.pop(0) if opened and change == "log" else None
        self._wrong = _Wrong(change, own, watch)
        self.files += 1
        file_watch.abandon(opened)

    def mend(self, *, waits: bool = False) -> None:
        """Repair the file if it is marked as wrong: check it again, or replace it by a sound copy.

        Args:
            waits: check or copy the file, even if `self.waits` is False.

        Raises:
            StorageError: the file cannot be repaired now.
        """
        wrong = self._wrong
        if wrong is None:
            return
        done = self._mended(wrong, waits or self.waits)
        if done is None:
            raise StorageError(self._why())
        if wrong.own is not None:
            file_watch.abandon([wrong.own])
        self._wrong = None
        if not wrong.watch.is_replaced():
            self._accept()
        if done:
            log.warning("%s, after it was changed while it was open; recording goes on in it", done)

    def _mended(self, wrong: _Wrong, may_wait: bool) -> str | None:
        """Return a sentence about the repair, "" if none was needed, or None if the file is still wrong."""
        if wrong.watch.is_replaced():
            return f"{self.path} was replaced"
        now = disk.monotonic()
        if now < wrong.try_at or not may_wait:
            return None
        self._wrong = wrong._replace(try_at=now + MEND_EVERY_S)
        if wrong.change == "content" and wrong.watch.is_whole() and self._is_sound(wrong.watch):
            return ""
        if self._read_only:
            return None
        with guard(OSError, StorageError):
            return file_watch.mend(self.path, wrong.watch, wrong.change, wrong.own, is_first=not wrong.try_at)
        return None

    def is_as_it_was(self) -> bool:
        """Return whether only SQLite has changed the file. Call it before a checkpoint, which would hide other changes.

        This may take long, because it checks and repairs a changed file. Meanwhile a recording call waits as long as
        it would wait for another writer, 250 ms at most.
        """
        has_changed = self.watch.changed() is not None
        try:
            self.follow(waits=True)
            self.mend(waits=True)
        except StorageError:
            return False
        return not has_changed

    def leave(self) -> None:
        """Close all connections. If the file was changed, try to repair it, and drop them without a checkpoint."""
        if self._wrong is None and self.watch.changed() is None:
            self.close()
            return
        with suppress(StorageError):
            self.follow(waits=True)
        if self._wrong is not None:
            if self._wrong.try_at:
                self._wrong = self._wrong._replace(try_at=1.0)  # now: a last chance to save the rows of `own`
            with suppress(StorageError):
                self.mend(waits=True)
        self.abandon()

    def take_own(self) -> sqlite3.Connection | None:
        """Return the connection that still reads all rows of a file whose log was deleted, and drop it here."""
        wrong = self._wrong
        if wrong is None:
            return None
        self._wrong = wrong._replace(own=None)
        return wrong.own

    def end(self) -> list[sqlite3.Connection]:
        """Stop watching the file, and return the connections that were open. The next connection gets a new watch."""
        opened = self._take_out()
        self.watch = Watch(self.path)
        return opened

    def close(self) -> None:
        """Close all connections. SQLite copies the log into the file, and deletes it unless another process uses it."""
        for each in self.end():
            with suppress(sqlite3.Error):  # a full disk: the commits stay in the log
                each.close()
        close_deleted()

    def abandon(self) -> None:
        """Drop all connections without a checkpoint, because the file was replaced or changed."""
        self.files += 1
        file_watch.abandon(self.end())

    @contextmanager
    def fresh(self, file: Inode | None = None) -> Iterator[sqlite3.Connection]:
        """Lend a new connection with an empty cache, to the open file or to the file with an inode."""
        connection = self._connect(file)
        try:
            yield connection
        finally:
            file_watch.close_one(connection)

    def _is_sound(self, watch: Watch) -> bool:
        try:
            with self.fresh(watch.file) as connection:
                return file_watch.is_sound(connection)
        except sqlite3.Error:
            return False

    def _accept(self) -> None:
        self._accepted_at = disk.monotonic()
        self.files += 1  # it counts as a new file: the latest commits may be missing in it
        log.info("something else has written to %s while it was open; it is sound, and used as it is", self.path)

    def _why(self) -> str:
        what = "left without its log" if self._wrong is not None and self._wrong.change == "log" else "overwritten"
        return (
            f"{self.path} was {what} while it was open; what is recorded waits until a sound file is there: rename one "
            f"over it (cp BACKUP {self.path}.new && mv {self.path}.new {self.path})"
        )
