"""The process that a span comes from, as its resource describes it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from agentspan.otel.mapping.values import text

_NAME, _VERSION, _INSTANCE = "service.name", "service.version", "service.instance.id"
_UNKNOWN = "unknown_service"
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
    return Program(name, text(resource.get(_VERSION)), f"{name}:{which}")
