"""The door to the disk: what the journal, its recovery and a file's guards do with files, and the clock of their waits.

In a program these names *are* the functions of `os`, `fcntl`, `mmap` and `time`, all but `sleep`. A test replaces a
name here, for all callers, to log operations, to make one fail, or to stop a thread there. So callers write
`disk.pwrite(…)`, and bind no name of their own. SQLite opens its files by itself.
"""

import contextlib
import time as _time
from io import open as stream  # makes a buffered file, as the builtin does
from mmap import mmap as map  # a subclass sees each store
from os import access, chmod, close, fdopen, fstat, fsync, ftruncate, link, listdir, lstat, makedirs, mkdir, open
from os import rename, replace, rmdir, scandir, stat, unlink
from os.path import exists, getsize, isdir, lexists
from time import monotonic, monotonic_ns, time, time_ns

with contextlib.suppress(ImportError):  # Windows
    from fcntl import fcntl, flock, ioctl, lockf
with contextlib.suppress(ImportError):  # Windows has none of these, macOS those of the first line
    from os import chown, pread, pwrite, pwritev
    from os import fdatasync, getxattr, posix_fallocate, setxattr


def sleep(seconds: float) -> None:
    """Sleep with the `time.sleep` of this moment: gevent may replace it after this module was imported."""
    _time.sleep(seconds)


DOORS = tuple(name for name in globals() if name != "contextlib" and not name.startswith("_"))
"""The names that a test may replace."""
