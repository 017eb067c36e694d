"""Writers: identifies the processes that record, and checks whether a process is still alive.

On this host, the pid decides. A program on another host that records into a server has a lease: it renews the lease
while it has runs, and the lease ends by the server's clock. Which spans of a dead writer did not finish is known only
after its journal was adopted.
"""

import os
import platform
import sys
from collections.abc import Collection
from typing import Literal

from agentspan import clock, disk, files
from agentspan.errors import AgentspanError, StorageError
from agentspan.host import guard, log
from agentspan.journal.opening import adoption_beside
from agentspan.model.changes import without_nul
from agentspan.model.rows import WriterRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, Notes, PutNote
from agentspan.tuning import STANDARD, Tuning

RENEWALS = 3
"""The number of times that a program renews its lease within the duration of one lease."""
KEPT_S = 90 * 24 * 3600.0
"""Seconds for which the server keeps the note that a program had a lease. Without this note a program is never judged
as dead: programs of older versions have no lease."""
_LEASE, _LEASED = "lease/", "leased/"


def renew(storage: Storage, writer_id: str, lasts_s: float = STANDARD.lease_s) -> None:
    """Renew the lease of a program.

    Raises:
        StorageError: the storage cannot store it now.
    """
    storage.ask(PutNote(_LEASED + writer_id, "", lasts_s=KEPT_S))
    storage.ask(PutNote(_LEASE + writer_id, "", lasts_s=lasts_s))


def is_over(storage: Storage, writer_id: str) -> bool:
    """Return whether the lease of a program is over; False if it never had one, or the notes cannot be read."""
    try:
        found = storage.ask(Notes(_LEASED + writer_id, _LEASE + writer_id))
    except AgentspanError:  # a role that may not read notes
        return False
    return _LEASED + writer_id in found and _LEASE + writer_id not in found


def this_process(id: str) -> WriterRow:
    """Return the writer row of the running process."""
    return WriterRow(
        id=id,
        host=platform.node(),
        boot_id=_boot_id(),
        pid=os.getpid(),
        process_start=_start_ticks("self"),
        program=without_nul(program_name()),
        inserted_at=clock.now(),
    )


def program_name() -> str:
    """Return the name of this program: its script or module, without a suffix."""
    name = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    if name == "__main__.py":  # python -m package
        name = os.path.basename(os.path.dirname(sys.argv[0]))
    return name.removesuffix(".py") if name not in ("", "-c", "-") else "python"


Life = Literal["alive", "dead", "unknown"]

Unseen = Literal[
    "is on another host",
    "is in another container",
    "is in another time namespace",
    "has a process id that may be another program's by now",
]
"""The reasons why this process cannot find out whether a writer is alive."""


def life_of(writer: WriterRow, dead_hosts: Collection[str] = ()) -> Life:
    """Return whether the process of a writer row is alive or dead; "unknown" if this process cannot find out.

    Args:
        dead_hosts: hosts whose processes count as dead instead of unknown.
    """
    life = _seen(writer)
    if life == "alive" or life == "dead":
        return life
    return "dead" if writer.host in dead_hosts else "unknown"


def why_unknown(writer: WriterRow) -> str:
    """Return the reason why this process cannot find out whether a writer of unknown life is alive."""
    return _seen(writer)


class Lives:
    """Checks which writers are alive, and caches the answers.

    Args:
        dead_hosts: hosts whose programs are known to be dead.
    """

    def __init__(self, storage: Storage, dead_hosts: Collection[str] = ()) -> None:
        self._storage = storage
        self._dead_hosts = dead_hosts
        self._known: dict[str, tuple[WriterRow | None, Life]] = {}
        self._leased: set[str] = set()  # the writers whose life was decided by their lease
        can = storage.capabilities()
        self._has_leases = can.journals is None and Notes in can.answers  # programs that record into a file have none

    def writer(self, id: str | None) -> WriterRow | None:
        """Return the row of a writer; None if no row is stored. The id is None for spans written by id."""
        return self._look_up(id)[0]

    def of(self, id: str | None) -> Life:
        """Return whether a writer is alive, dead or unknown."""
        return self._look_up(id)[1]

    def look_again(self) -> None:
        """Forget the answers by leases: a program that was offline or stopped renews its lease when it continues."""
        for id in self._leased:
            self._known.pop(id, None)
        self._leased.clear()

    def _look_up(self, id: str | None) -> tuple[WriterRow | None, Life]:
        if id is None:
            return None, "unknown"
        if id not in self._known:
            located = self._storage.ask(Find(id)).rows.get(id)
            row = located[1] if located is not None else None
            self._known[id] = (row, self._life(row)) if isinstance(row, WriterRow) else (None, "unknown")
        return self._known[id]

    def _life(self, writer: WriterRow) -> Life:
        life = life_of(writer, self._dead_hosts)
        if life == "unknown" and self._has_leases:
            self._leased.add(writer.id)
            return "dead" if is_over(self._storage, writer.id) else life
        return life


def _seen(writer: WriterRow) -> Literal["alive", "dead"] | Unseen:
    """Return "alive" or "dead"; if neither is certain, the reason."""
    if writer.host != platform.node():
        return "is on another host"
    boot, pids, times = _parts(writer.boot_id)
    boot_now, pids_now, times_now = _parts(_boot_id())
    if boot != boot_now:
        return "dead"  # the machine was started anew since
    if pids != pids_now:
        return "is in another container"
    shows_pids = _shows_our_pids()
    if not _exists(writer.pid) or (shows_pids and _is_zombie(writer.pid)):
        return "dead"
    if times != times_now:  # the starts of processes are counted from other moments
        return "is in another time namespace"
    start = _start_ticks(str(writer.pid)) if shows_pids else ""
    if not start or not writer.process_start:  # not Linux, for one
        return "has a process id that may be another program's by now"
    return "alive" if start == writer.process_start else "dead"


_TIMES = " time:["
_TIME_OF_THE_HOST = "time:[4026531834]"
"""The time namespace of the host. Linux gives it this number everywhere (PROC_TIME_INIT_INO). It is not stored, because
most rows would have it."""


def _boot_id() -> str:
    """Return the id of the boot, the pid namespace (each container has its own), and the time namespace."""
    times = _link("/proc/self/ns/time")
    parts = _read("/proc/sys/kernel/random/boot_id").strip(), _link("/proc/self/ns/pid"), times
    return " ".join(part for part in parts if part and part != _TIME_OF_THE_HOST)


def _parts(boot_id: str) -> tuple[str, str, str]:
    """Split a stored boot id into the boot, the pid namespace and the time namespace; a missing part is empty."""
    place, separator, times = boot_id.partition(_TIMES)
    boot, _, pids = place.partition(" ")
    return boot, pids, separator + times


def _link(path: str) -> str:
    with guard(OSError):
        return os.readlink(path)
    return ""


def _shows_our_pids() -> bool:
    """Return whether the pids in /proc belong to this process's pid namespace, and not to another one."""
    return _link("/proc/self") == str(os.getpid())


def _exists(pid: int) -> bool:
    if os.name != "posix":
        return True  # there, os.kill would end it
    with guard(OSError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


def _is_zombie(pid: int) -> bool:
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] == ["Z"]


def _start_ticks(pid: str) -> str:
    # The 22nd field; the second one, the name, may hold blanks and parentheses.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _read(path: str) -> str:
    return files.text_of(path, errors="replace") or ""


class DeadWriters:
    """Checks whether a writer is dead, and adopts the journal of a dead writer, once for each writer.

    A dead program records nothing more. So once its journal is adopted, the storage has everything that it recorded.

    Args:
        dead_hosts: hosts whose programs are known to be dead.
        wait_s: seconds, in all, for the adoption of journals, also by other processes; 0: do not wait for others, and
            adopt without a limit.
        tuning: sizes of batches and caches.

    Attributes:
        lives: checks which writers are alive.
    """

    def __init__(
        self,
        storage: Storage,
        dead_hosts: Collection[str] = (),
        *,
        wait_s: float = 0.0,
        tuning: Tuning = STANDARD,
    ) -> None:
        self.lives = Lives(storage, dead_hosts)
        self._until = disk.monotonic() + wait_s
        self._is_limited = wait_s > 0
        self._adoption = adoption_beside(storage, tuning)
        self._adopted: dict[str, bool] = {}

    def has(self, writer_id: str | None) -> bool:
        """Return whether a writer is dead and all its records are in the storage."""
        if writer_id is None or self.lives.of(writer_id) != "dead":
            return False
        if self._adoption is None:
            return True
        if writer_id not in self._adopted:
            left_s = self._until - disk.monotonic()
            try:
                if left_s > 0 or not self._is_limited or not self._adopted:
                    most_s = left_s if self._is_limited else None
                    self._adoption.adopt(writer_id=writer_id, wait_s=max(0.0, left_s), most_s=most_s)
            except StorageError as error:
                log.warning("the journal of writer %s could not be read now: %s", writer_id, error)
            self._adopted[writer_id] = self._adoption.is_adopted(writer_id)
        return self._adopted[writer_id]

    def waiting(self) -> tuple[int, int]:
        """Return how many dead writers have journals that are not adopted, and their size in bytes."""
        return (0, 0) if self._adoption is None else self._adoption.waiting()
