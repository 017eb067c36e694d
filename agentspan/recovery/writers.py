"""Writers: identifies a process that records, and checks whether it is still alive."""

import os
import platform
import sys
from collections.abc import Collection
from typing import Literal

from agentspan import clock
from agentspan.interrupts import let_through
from agentspan.model.rows import WriterRow
from agentspan.model.texts import without_nul
from agentspan.recovery import leases
from agentspan.storage.protocol import Storage


def this_process(id: str) -> WriterRow:
    """Describe the running process."""
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


def life_of(writer: WriterRow, dead_hosts: Collection[str] = ()) -> Life:
    """Return whether the process of a row still runs: alive or dead; unknown for other hosts and other containers.

    Args:
        dead_hosts: hosts whose processes are known to be dead, where that cannot be seen from here.
    """
    life = _seen_life(writer)
    return "dead" if life == "unknown" and writer.host in dead_hosts else life


class Lives:
    """Checks which writers are alive, each once, or once more after look_again.

    Args:
        dead_hosts: hosts whose programs are known to be dead.
    """

    def __init__(self, storage: Storage, dead_hosts: Collection[str] = ()) -> None:
        self._storage = storage
        self._dead_hosts = dead_hosts
        self._known: dict[str, tuple[WriterRow | None, Life]] = {}
        self._leased: set[str] = set()  # those whose life the lease says
        can = storage.capabilities()
        self._notes = can.notes if can.journals is None else None  # programs that record into a file have no leases

    def writer(self, id: str | None) -> WriterRow | None:
        """Return the row of a writer; None if it is unknown, or the id is None (written by id)."""
        return self._look_up(id)[0]

    def of(self, id: str | None) -> Life:
        """Return whether a writer is alive, dead or unknown."""
        return self._look_up(id)[1]

    def look_again(self) -> None:
        """Forget what leases said: a program that was cut off, or stopped, renews its lease when it goes on."""
        for id in self._leased:
            self._known.pop(id, None)
        self._leased.clear()

    def _look_up(self, id: str | None) -> tuple[WriterRow | None, Life]:
        if id is None:
            return None, "unknown"
        if id not in self._known:
            located = self._storage.find(id).rows.get(id)
            row = located[1] if located is not None else None
            self._known[id] = (row, self._life(row)) if isinstance(row, WriterRow) else (None, "unknown")
        return self._known[id]

    def _life(self, writer: WriterRow) -> Life:
        life = life_of(writer, self._dead_hosts)
        if life == "unknown" and self._notes is not None:
            self._leased.add(writer.id)
            return "dead" if leases.is_over(self._notes, writer.id) else life
        return life


def _seen_life(writer: WriterRow) -> Life:
    if writer.host != platform.node():
        return "unknown"
    boot, _, namespace = writer.boot_id.partition(" ")
    boot_now, _, namespace_now = _boot_id().partition(" ")
    if boot != boot_now:
        return "dead"  # the machine was started anew since
    if namespace != namespace_now:
        return "unknown"  # pids of another container mean nothing here
    if not _exists(writer.pid):
        return "dead"
    start = _start_ticks(str(writer.pid))
    if not start or not writer.process_start:
        return "unknown"  # not Linux: the pid may be another process's by now
    return "alive" if start == writer.process_start else "dead"


def _boot_id() -> str:
    """Return the boot's id and the namespace that pids are of: containers of one host have their own."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError as raised:
        let_through(raised)
        namespace = ""
    return f"{_read('/proc/sys/kernel/random/boot_id').strip()} {namespace}".strip()


def _exists(pid: int) -> bool:
    if os.name != "posix":
        return True  # there, os.kill would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError as raised:
        let_through(raised)
        return True
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] == ["Z"]


def _start_ticks(pid: str) -> str:
    # The 22nd field; the second one, the name, may hold blanks and parentheses.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as raised:
        let_through(raised)
        return ""
