"""Who writes: what tells this process from every other one, also after it has died."""

import os
import platform
import sys

from agentspan import clock
from agentspan.model.rows import WriterRow


def this_process(id: str) -> WriterRow:
    """Describe the running process."""
    return WriterRow(
        id=id,
        host=platform.node(),
        boot_id=_read("/proc/sys/kernel/random/boot_id").strip(),
        pid=os.getpid(),
        process_start=_start_ticks(),
        program=program_name(),
        inserted_at=clock.now(),
    )


def program_name() -> str:
    """Return what this program is called: its script or module, without a suffix."""
    name = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else ""
    if name == "__main__.py":  # python -m package
        name = os.path.basename(os.path.dirname(sys.argv[0]))
    return name.removesuffix(".py") if name not in ("", "-c", "-") else "python"


def _start_ticks() -> str:
    # The 22nd field; the second one, the name, may hold blanks and parentheses.
    fields = _read("/proc/self/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
