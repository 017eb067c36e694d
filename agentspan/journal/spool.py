"""Creates, finds and deletes the segments in a journal folder; drains the journals of this process."""

import weakref
from contextlib import suppress
from pathlib import Path
from threading import get_ident
from typing import Protocol

from agentspan import disk, files, host
from agentspan.host import guard, page
from agentspan.journal.journal_folder import check, make_state_folder, refusal, state_folder, warn
from agentspan.journal.segments import NEW, SUFFIX, Segment, room_for, take_over

LOOK_EVERY_S = 1.0
"""The seconds between two looks for the journals of dead programs."""


class Journal(Protocol):
    """A journal that this process appends to."""

    folder: Path

    def drain_now(self) -> None:
        """Move the records of the journal to the storage."""
        ...

    def types_changed(self) -> None:
        """Note that a span type was registered."""
        ...

    def terminated(self, instance_id: str, reason: str) -> None:
        """Note that a run was terminated. The run may be one of another process."""
        ...


journals: weakref.WeakSet[Journal] = weakref.WeakSet()
"""The journals of this process; in a forked child, until `drain`, also its parent's."""


def register(journal: Journal) -> None:
    """Add a journal of this process. From now on it is drained before its storage is read."""
    journals.add(journal)


def forget(journal: Journal) -> None:
    """Remove a journal: in a forked child it belongs to the parent."""
    journals.discard(journal)


def drain(folder: Path) -> None:
    """Drain the journals of this process that are in a folder."""
    if not page[0]:
        host.renew()
    for journal in host.members(journals):
        if journal.folder == folder:
            journal.drain_now()


def types_changed() -> None:
    """Notify all journals that a span type was registered, which runs that began earlier do not have."""
    for journal in host.members(journals):
        journal.types_changed()


def terminated(instance_id: str, reason: str) -> None:
    """Notify all journals that this process terminated a run."""
    for journal in host.members(journals):
        journal.terminated(instance_id, reason)


_TYPES = ".v1.types"
_REMOVED = "removed.v1.mark"


def create(
    folder: Path, writer_id: str, number: int, sequence: int, length: int, size: int, *, is_mapped: bool = True
) -> Segment:
    """Create a segment that has room for a body of `length` bytes.

    Args:
        number: the number of the segment; the segments of a writer are read in the order of their numbers.
        sequence: the number of the first record in the segment.
        length: bytes of the body.
        size: bytes of the segment, unless the body needs more.
        is_mapped: append through a mapping (see Segment).

    Raises:
        OSError: there is no space, or no permission.
    """
    path = place(folder, writer_id, number)
    for _ in range(10):
        try:
            made = Segment(path, max(size, room_for(length)), is_mapped=is_mapped)
            made.begin(path, sequence)
            return made
        except FileNotFoundError:  # not there yet, or somebody has just tidied up
            make(folder)
    raise FileNotFoundError(f"{folder} is deleted again and again")


def place(folder: Path, writer_id: str, number: int) -> str:
    """Return the path of the writer's segment with this number."""
    return f"{folder}/{writer_id}-{number:08d}{SUFFIX}"


def make(folder: Path) -> None:
    """Create the journal folder, but not the folder of the storage's file: if a user deleted that, it stays deleted."""
    try:
        disk.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        if folder.parent != state_folder():  # only now: it imports modules, which a program that ends cannot
            raise
        make_state_folder()
        disk.makedirs(folder, 0o700, exist_ok=True)


def segments(folder: Path) -> list[Path]:
    """Return the segments of all writers in a folder, sorted by writer and number.

    Empty for a folder that must not be used (see journal_folder); the reason is logged.
    """
    why = refusal(folder)
    if why is not None:
        warn(why)
        return []
    with guard(OSError):
        return [folder / name for name in sorted(disk.listdir(folder)) if name.endswith(SUFFIX)]
    return []


def bytes_of_others(folder: Path, writer_id: str) -> int:
    """Return the total size of the segments of other writers, in bytes."""
    size = 0
    with guard(OSError), disk.scandir(folder) as found:  # another process may drain one now: the next look counts anew
        for each in found:
            if each.name.endswith(SUFFIX) and not each.name.startswith(writer_id):
                size += each.stat(follow_symlinks=False).st_size
    return size


def writer_of(path: Path) -> str:
    """Return the id of the writer of a segment, with which the file name begins."""
    return path.name.partition("-")[0]


def keep_types(folder: Path, writer_id: str, span_type_schemas: str) -> None:
    """Store a writer's span types beside its segments, for the process that recovers the segments of a killed writer.

    Raises:
        OSError: there is no space, or no permission.
    """
    make(folder)
    check(str(folder))
    path = f"{folder}/{writer_id}{_TYPES}"
    new = f"{path}.{get_ident()}{NEW}"
    if disk.lexists(new):  # the file of an earlier thread with this id, which ended during the write
        disk.unlink(new)
    with disk.fdopen(files.create(new), "w", encoding="utf-8") as kept:
        kept.write(span_type_schemas)
    disk.replace(new, path)


@guard(OSError)
def mark_removal(folder: Path) -> None:
    """Tell living writers that runs were removed from the storage, so that they keep no segment with some of them."""
    if refusal(folder) is None and disk.isdir(folder):
        path = folder / _REMOVED
        with suppress(FileNotFoundError):
            disk.unlink(path)
        disk.close(files.create(path))


def removal_marked_ns(folder: Path) -> int:
    """Return when the removal of runs was last marked for living writers, in ns since the epoch; 0 if never."""
    found = files.stat_of(folder / _REMOVED)
    return 0 if found is None else found.st_mtime_ns


def types_of(folder: Path, writer_id: str) -> str | None:
    """Return the span types that a writer has stored. None if there is no file: its runs were registered with all."""
    return files.text_of(folder / f"{writer_id}{_TYPES}")


@guard(OSError)
def tidy(folder: Path) -> None:
    """Delete files that no process needs any more, and the folder if it is empty.

    Such files are unfinished segments, and the span types of a writer without segments. A live writer stores its span
    types again with its next segment.
    """
    if refusal(folder) is not None:
        return
    names = disk.listdir(folder)
    writers = {name.partition("-")[0] for name in names if name.endswith(SUFFIX)}
    for name in names:
        if name.endswith(SUFFIX + NEW):
            left = take_over(folder / name)
            if left is not None:
                with left:
                    left.remove()
        elif (_TYPES in name and name.partition(".")[0] not in writers) or (name == _REMOVED and not writers):
            disk.unlink(folder / name)
    disk.rmdir(folder)
