"""agentspan: a flight recorder for AI agents. Every step becomes one row in one SQLite file.

    import agentspan

    @agentspan.span("tool")
    def search(query: str) -> list[str]: ...

    with agentspan.run("researcher"):
        search("cheap flights")

`agentspan show -` prints the run. Names that need pydantic's models (operations by id) are imported on first use.
"""

from typing import TYPE_CHECKING, Any

from agentspan.errors import (
    AgentspanError,
    AgentTerminated,
    DatabaseBusy,
    DatabaseUnusable,
    IdempotencyKeyAlreadyUsed,
    InDoubt,
    InvalidAction,
    InvalidValue,
    NotFound,
    NotPermitted,
    NotStorable,
    RequiredValue,
    SchemaError,
    StorageError,
    TemplateError,
    UnexpectedRefType,
    ValidationErrors,
)
from agentspan.recording.capture.cards import card_numbers
from agentspan.recording.capture.limits import Limits
from agentspan.recording.default import (
    configure,
    current_run,
    current_span,
    flush,
    get_tracer,
    health,
    propagate,
    run,
    shutdown,
    span,
    span_type,
)
from agentspan.recording.span_and_run import Run, Span
from agentspan.recording.tracer import Health, Tracer

if TYPE_CHECKING:
    from agentspan.analysis.reading import Reading, read
    from agentspan.database import Database, open
    from agentspan.model.agent_resources import Agent, AgentSchemaVersion, AgentVersion
    from agentspan.model.pages import Page
    from agentspan.model.resources import AgentInstance, AgentSpan, Control
    from agentspan.otel.instruments.turning_on import Instrumented, instrument, uninstrument
    from agentspan.storage.memory import MemoryStorage
    from agentspan.storage.sqlite import SQLiteStorage

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentInstance",
    "AgentSchemaVersion",
    "AgentSpan",
    "AgentTerminated",
    "AgentVersion",
    "AgentspanError",
    "Control",
    "Database",
    "DatabaseBusy",
    "DatabaseUnusable",
    "Health",
    "IdempotencyKeyAlreadyUsed",
    "InDoubt",
    "Instrumented",
    "InvalidAction",
    "InvalidValue",
    "Limits",
    "MemoryStorage",
    "NotFound",
    "NotPermitted",
    "NotStorable",
    "Page",
    "Reading",
    "RequiredValue",
    "Run",
    "SQLiteStorage",
    "SchemaError",
    "Span",
    "StorageError",
    "TemplateError",
    "Tracer",
    "UnexpectedRefType",
    "ValidationErrors",
    "__version__",
    "card_numbers",
    "configure",
    "current_run",
    "current_span",
    "flush",
    "get_tracer",
    "health",
    "instrument",
    "open",
    "propagate",
    "read",
    "run",
    "shutdown",
    "span",
    "span_type",
    "uninstrument",
]

_LAZY = {
    "Agent": "agentspan.model.agent_resources",
    "AgentInstance": "agentspan.model.resources",
    "AgentSchemaVersion": "agentspan.model.agent_resources",
    "AgentSpan": "agentspan.model.resources",
    "AgentVersion": "agentspan.model.agent_resources",
    "Control": "agentspan.model.resources",
    "Page": "agentspan.model.pages",
    "Reading": "agentspan.analysis.reading",
    "read": "agentspan.analysis.reading",
    "Database": "agentspan.database",
    "open": "agentspan.database",
    "Instrumented": "agentspan.otel.instruments.turning_on",
    "instrument": "agentspan.otel.instruments.turning_on",
    "uninstrument": "agentspan.otel.instruments.turning_on",
    "MemoryStorage": "agentspan.storage.memory",
    "SQLiteStorage": "agentspan.storage.sqlite",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'agentspan' has no attribute {name!r}")
    from importlib import import_module

    from agentspan import forks

    with forks.importing:
        value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
