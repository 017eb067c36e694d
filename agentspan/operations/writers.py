"""Who writes: what tells this process from every other one, also after it has died, and whether it has."""

import os
import platform
import sys
from collections.abc import Collection
from typing import Literal

from agentspan import clock
from agentspan.model.rows import WriterRow


def this_process(id: str) -> WriterRow:
    """Describe the running process."""
    return WriterRow(
        id=id,
        host=platform.node(),
        boot_id=_boot_id(),
        pid=os.getpid(),
        process_start=_start_ticks("self"),
        program=program_name(),
        inserted_at=clock.now(),
    )


def program_name() -> str:
    """Return what this program is called: its script or module, without a suffix."""
    name = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    if name == "__main__.py":  # python -m package
        name = os.path.basename(os.path.dirname(sys.argv[0]))
    return name.removesuffix(".py") if name not in ("", "-c", "-") else "python"


Life = Literal["alive", "dead", "unknown"]


def life_of(writer: WriterRow, dead_hosts: Collection[str] = ()) -> Life:
    """Tell whether the process that a row describes still runs; unknown of other hosts, and of other containers.

    Args:
        dead_hosts: hosts whose processes are known to be dead, where that cannot be seen from here.
    """
    life = _seen_life(writer)
    return "dead" if life == "unknown" and writer.host in dead_hosts else life


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
    except OSError:
        namespace = ""
    return f"{_read('/proc/sys/kernel/random/boot_id').strip()} {namespace}".strip()


def _exists(pid: int) -> bool:
    if os.name != "posix":
        return True  # there, os.kill would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
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
    except OSError:
        return ""
