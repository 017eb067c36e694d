"""The process that a span comes from, as its resource describes it."""

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from agentspan.otel.mapping.values import text

_NAME, _VERSION, _INSTANCE = "service.name", "service.version", "service.instance.id"
_UNKNOWN = "unknown_service"
_LONGEST = 200
_PROCESS = ("host.name", "host.id", "container.id", "process.pid", "process.creation.time")


class Program(NamedTuple):
    """A process.

    Attributes:
        name, version: of its program; `name` is `opentelemetry` where nobody said so.
        key: tells it from other processes of the same program, if its resource says which it is.
    """

    name: str
    version: str | None
    key: str


def program_of(resource: Mapping[str, Any]) -> Program:
    """Return the process that a resource describes."""
    said = text(resource.get(_NAME)) or _UNKNOWN
    name = said.removeprefix(_UNKNOWN).removeprefix(":") or "opentelemetry"
    instance = text(resource.get(_INSTANCE))
    which = instance or "/".join(str(resource[each]) for each in _PROCESS if resource.get(each) is not None)
    return Program(name, text(resource.get(_VERSION)), _key(f"{name}:{which}"))


def _key(said: str) -> str:
    """Return a text that can be stored as a name, and tells this process from others."""
    if len(said) <= _LONGEST and said.isprintable():
        return said
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()
