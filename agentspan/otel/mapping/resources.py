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
        resource: the attributes of the process.
    """

    name: str
    version: str | None
    resource: Mapping[str, Any]

    @property
    def is_named(self) -> bool:
        """False if nobody named it, and the SDK put `unknown_service:python` in place of a name."""
        return not (text(self.resource.get(_NAME)) or _UNKNOWN).startswith(_UNKNOWN)

    @property
    def key(self) -> str:
        """A text that can be stored as a name, and tells the process from others if its resource says which it is."""
        resource = self.resource
        instance = text(resource.get(_INSTANCE))
        which = instance or "/".join(str(resource[each]) for each in _PROCESS if resource.get(each) is not None)
        said = f"{self.name}:{which}"
        if len(said) <= _LONGEST and said.isprintable():
            return said
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


def program_of(resource: Mapping[str, Any]) -> Program:
    """Return the process that a resource describes."""
    said = text(resource.get(_NAME)) or _UNKNOWN
    name = said.removeprefix(_UNKNOWN).removeprefix(":") or "opentelemetry"
    return Program(name, text(resource.get(_VERSION)), resource)
