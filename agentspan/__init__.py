"""agentspan: a flight recorder for AI agents. Every step becomes one row in one SQLite file.

    import agentspan

    @agentspan.span("tool")
    def search(query: str) -> list[str]: ...

    with agentspan.run("researcher"):
        search("cheap flights")

`agentspan show -` prints the run. Each name is imported at its first use, so `import agentspan` costs a library next
to nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentspan.api.resources import (
        Agent,
        AgentInstance,
        AgentSchemaVersion,
        AgentSpan,
        AgentVersion,
        Control,
        Page,
    )
    from agentspan.database import Database, open
    from agentspan.errors import (
        AgentspanError,
        AgentTerminated,
        BudgetExceeded,
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
    from agentspan.evaluation.evaluating import evaluate
    from agentspan.otel.instruments.instrument import Instrumented, instrument, uninstrument
    from agentspan.recording.budgets import Budget
    from agentspan.recording.capture.redaction import card_numbers
    from agentspan.recording.capture.values import Limits
    from agentspan.recording.span_and_run import Run, Span
    from agentspan.recording.tracer import (
        Health,
        Tracer,
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
    from agentspan.storage.memory import MemoryStorage
    from agentspan.storage.sqlite import SQLiteStorage

__version__ = "0.2.0"

__all__ = [
    "Agent",
    "AgentInstance",
    "AgentSchemaVersion",
    "AgentSpan",
    "AgentTerminated",
    "AgentVersion",
    "AgentspanError",
    "Budget",
    "BudgetExceeded",
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
    "evaluate",
    "flush",
    "get_tracer",
    "health",
    "instrument",
    "open",
    "propagate",
    "run",
    "shutdown",
    "span",
    "span_type",
    "uninstrument",
]

_MODULES = {
    "api.resources": "Agent AgentInstance AgentSchemaVersion AgentSpan AgentVersion Control Page",
    "database": "Database open",
    "evaluation.evaluating": "evaluate",
    "otel.instruments.instrument": "Instrumented instrument uninstrument",
    "recording.budgets": "Budget",
    "recording.capture.redaction": "card_numbers",
    "recording.capture.values": "Limits",
    "recording.span_and_run": "Run Span",
    "recording.tracer": "Health Tracer configure current_run current_span flush get_tracer health propagate run "
    "shutdown span span_type",
    "storage.memory": "MemoryStorage",
    "storage.sqlite": "SQLiteStorage",
}
"""The public names by the module that defines them. A name that is not listed is an error of `agentspan.errors`."""
_LAZY = {name: module for module, names in _MODULES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'agentspan' has no attribute {name!r}")
    from importlib import import_module

    from agentspan import host

    with host.importing:
        value = getattr(import_module(f"agentspan.{_LAZY.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
