"""Reports changed files by inotify of Linux, through ctypes. On other systems there is none, and watchers poll."""

import os
import struct
import sys
from pathlib import Path
from typing import NamedTuple

from agentspan.ground import is_readable

_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_OVERFLOW, _IGNORED, _IS_FOLDER, _ONLY_FOLDERS = 0x4000, 0x8000, 0x40000000, 0x1000000
_MASK = _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLY_FOLDERS
_HEAD = struct.Struct("iIII")
_BUFFER = 65_536


class Changes(NamedTuple):
    """Changed files. All files must be looked at if folders came or went, or if events were lost."""

    files: frozenset[Path]
    is_unknown: bool


class Inotify:
    """Watches folders, not what lies below them. For one thread.

    Raises:
        OSError: the system has no inotify, or the user's limit of instances is reached.
        ImportError: Python was built without ctypes.
    """

    def __init__(self) -> None:
        if not sys.platform.startswith("linux"):
            raise OSError("inotify is part of Linux")
        import ctypes  # a few builds of Python are without it

        libc = ctypes.CDLL(None, use_errno=True)
        self._errno = ctypes.get_errno
        self._add, self._remove = libc.inotify_add_watch, libc.inotify_rm_watch
        self._number: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._number < 0:
            raise OSError(self._errno(), "inotify cannot be used")
        self._folders: dict[int, Path] = {}
        self._watched: dict[Path, int] = {}

    def close(self) -> None:
        """End all watches."""
        os.close(self._number)

    def watch(self, folder: Path) -> bool:
        """Watch a folder; return False if the user's limit of watches is reached. A missing folder is left out.

        A folder that is watched already may be another one by now: the old one was moved away.
        """
        watch: int = self._add(self._number, os.fsencode(folder), _MASK)  # of the same folder, it returns the same
        if watch < 0:
            return self._errno() != _NO_SPACE
        before = self._watched.get(folder, watch)
        if before != watch and self._folders.get(before) == folder:
            del self._folders[before]
            self._remove(self._number, before)
        self._folders[watch] = folder
        self._watched[folder] = watch
        return True

    def wait(self, seconds: float) -> Changes:
        """Wait for changes; return none after `seconds`."""
        files: set[Path] = set()
        is_unknown = False
        if not is_readable(self._number, seconds):
            return Changes(frozenset(), is_unknown)
        while True:
            try:
                found = os.read(self._number, _BUFFER)
            except BlockingIOError:
                return Changes(frozenset(files), is_unknown)
            is_unknown |= self._sort(found, files)

    def _sort(self, found: bytes, files: set[Path]) -> bool:
        """Add the names in a buffer of events to `files`; return whether folders changed, or events were lost."""
        at, is_unknown = 0, False
        while at < len(found):
            watch, mask, _, size = _HEAD.unpack_from(found, at)
            name = found[at + _HEAD.size : at + _HEAD.size + size].rstrip(b"\0")
            at += _HEAD.size + size
            if mask & _IGNORED:  # the folder was removed
                self._watched.pop(self._folders.pop(watch, Path()), None)
            is_unknown |= bool(mask & (_OVERFLOW | _IGNORED | _IS_FOLDER))
            if name and not mask & _IS_FOLDER and watch in self._folders:
                files.add(self._folders[watch] / os.fsdecode(name))
        return is_unknown


_NO_SPACE = 28
"""ENOSPC: the limit of watches (fs.inotify.max_user_watches)."""
