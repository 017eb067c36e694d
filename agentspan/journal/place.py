"""Where the segments of a file lie, and whether they may: told without anything that only Linux has.

They lie in `runs.db.spool` beside `runs.db`; SQLite deletes what is called `runs.db-journal`.
"""

import os
import sys
from pathlib import Path

_SOUND = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs", "overlay"})
"""File systems that keep the room which they have allocated, and share mapped pages with all who read the file. Others
copy on write (btrfs, zfs), where a full disk ends the process although there was room, or lie across a network."""


def folder_of(path: Path) -> Path:
    """Return the folder of the segments of a file: the same by whichever link to it, as SQLite's own log."""
    real = os.path.realpath(path)
    return Path(real + ".spool")


def is_possible() -> bool:
    """Tell whether there can be journals on this platform at all."""
    return sys.platform == "linux"


def why_not(path: Path) -> str | None:
    """Say why there can be no journal beside a file; None where there can be."""
    if not is_possible():
        return f"a journal needs Linux, this is {sys.platform}"
    folder = folder_of(path).parent
    kind = _file_system(folder)
    return None if kind in _SOUND else f"a journal cannot be trusted on the file system {kind} of {folder}"


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a folder lies on, as the kernel calls it."""
    real, best, kind = os.path.realpath(folder), "", "unknown"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                before, _, after = line.partition(" - ")
                place = before.split(" ")[4].replace("\\040", " ")
                if (real == place or real.startswith(place.rstrip("/") + "/")) and len(place) >= len(best):
                    best, kind = place, after.split(" ")[0]
    except OSError:  # a sandbox without /proc
        pass
    return kind
