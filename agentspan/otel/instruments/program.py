"""Instruments a program that knows nothing of agentspan: what `agentspan record` runs in it before its first line."""

import logging
import os
from types import ModuleType
from typing import Any

from agentspan.interrupts import let_through
from agentspan.otel.instruments import known
from agentspan.otel.instruments.on_import import Waiting
from agentspan.otel.instruments.turning_on import instrument, record_unset_provider

log = logging.getLogger("agentspan")

_API = "opentelemetry.trace"


def start() -> None:
    """Turn each instrumentor on when its framework has been imported, and record a provider that the program sets."""
    wanted: dict[str, Any] = {
        each.framework.module: _instrument(each.framework.name) for each in known.available() if each.can_record
    }
    Waiting({**wanted, _API: _record_global_provider})


def _instrument(name: str) -> Any:
    def turn_on(module: ModuleType) -> None:
        try:
            instrument(name)
        except Exception as error:  # the program goes on without
            let_through(error)
            log.warning("record: %s is not recorded: %s", name, error)

    return turn_on


def _record_global_provider(api: Any) -> None:
    record_unset_provider()
    set_provider = api.set_tracer_provider

    def set_tracer_provider(tracer_provider: Any) -> None:
        set_provider(tracer_provider)
        try:
            from agentspan.otel.live.processor import SpanProcessor

            if api.get_tracer_provider() is tracer_provider and hasattr(tracer_provider, "add_span_processor"):
                tracer_provider.add_span_processor(SpanProcessor())
        except Exception as error:
            let_through(error)
            log.warning("record: spans of the program's own provider are not recorded: %s", error)

    api.set_tracer_provider = set_tracer_provider


MARK = "AGENTSPAN_RECORD"
"""Set in the environment of a program that is recorded: the folder that was put before its PYTHONPATH."""


def is_recorded() -> bool:
    """Return whether this program was started by `agentspan record`."""
    return bool(os.environ.get(MARK))
