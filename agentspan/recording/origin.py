"""The origin of runs: the step of another service that asked for them, where a request told it (otel.trace_context)."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

origin: ContextVar[Mapping[str, str] | None] = ContextVar("agentspan_origin", default=None)
"""The `origin` in the metadata of runs that begin here; None where nothing is known."""


def with_origin(metadata: Mapping[str, Any] | None, said: Mapping[str, str] | None) -> Mapping[str, Any] | None:
    """Return a run's metadata with its origin, unless the program gave one itself."""
    return metadata if said is None else {"origin": dict(said), **(metadata or {})}
