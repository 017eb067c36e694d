"""The facts of a machine and a storage for a report of a bug: versions, sizes and counts."""

import os
import platform
import re
import sqlite3
import sys
from importlib.metadata import PackageNotFoundError, distributions, requires
from typing import Any

from agentspan import __version__
from agentspan.maintenance.doctor import UNREAD
from agentspan.model.rows import ResourceType
from agentspan.storage.access import count
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Damage, FileBytes, TablesState, UsedBytes

DISTRIBUTION = "agentspan-sqlite"
_STATUSES = ("pending", "active", "complete", "failed", "cancelled", "terminated")
_TYPES: tuple[ResourceType, ...] = (
    "agent", "agent_version", "agent_schema_version", "agent_instance", "agent_span", "score", "refused_change",
)  # fmt: skip
_RECORDING = ("openinference-", "opentelemetry-", "openllmetry", "traceloop-")
"""The starts of the names of distributions that record other frameworks."""


def machine() -> dict[str, Any]:
    """Return versions of agentspan, of Python, of the system, and of the packages that agentspan works with.

    No path, no name of a host or user, and no value of a variable of the environment is in it.
    """
    try:
        wanted = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # its folder is in the path, and it was not installed
        wanted = []
    ours = {_normal(re.split(r"[^\w.-]", each, maxsplit=1)[0]) for each in wanted}
    found = {_normal(each.name): each.version for each in distributions() if each.name}
    shown = {name for name in found if name in ours or name.startswith(_RECORDING)} - {DISTRIBUTION}
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return {
        "agentspan": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}{'' if gil else ' without the GIL'}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "sqlite": sqlite3.sqlite_version,
        "processors": os.cpu_count(),
        "packages": {name: found[name] for name in sorted(shown)},
        "variables": sorted(name for name in os.environ if name.startswith("AGENTSPAN_")),
    }


def contents(storage: Storage) -> dict[str, Any]:
    """Return the version of the tables, sizes in bytes, and the numbers of rows of a storage; nothing that a row says.

    Raises:
        AgentspanError: the storage cannot be read.
    """
    able = storage.capabilities()
    tables = storage.ask(TablesState()) if TablesState in able.answers else None
    sizes = {"file": FileBytes, "used": UsedBytes}
    return {
        "backend": able.backend,
        **({"tables": tables.version, "index_lacks": dict(tables.late)} if tables else {}),
        "bytes": {name: storage.ask(each()) for name, each in sizes.items() if each in able.answers},
        "rows": {name: count(storage, name) for name in _TYPES},
        "runs": {status: count(storage, "agent_instance", {"status": status}) for status in _STATUSES},
        "spans": {status: count(storage, "agent_span", {"status": status}) for status in _STATUSES},
        "unread": sum(count(storage, "refused_change", {"why": why}) for why in UNREAD),
        "damage": len(storage.ask(Damage())) if Damage in able.answers else None,
    }


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
