"""Instruments a program that knows nothing of agentspan: what `agentspan record` runs in it at its first framework."""

import logging
import os
import sys
from types import ModuleType
from typing import Any

from agentspan.interrupts import let_through
from agentspan.otel.instruments import known
from agentspan.otel.instruments.on_import import Waiting
from agentspan.otel.instruments.turning_on import EXTRA, SDK, instrument, record_unset_provider

log = logging.getLogger("agentspan")

_API = "opentelemetry.trace"


def start() -> Waiting:
    """Turn each instrumentor on when its framework has been imported, and record a provider that the program sets."""
    has_sdk = known.is_importable(SDK)
    if not has_sdk:
        note("without", f"{sys.executable} has no OpenTelemetry SDK; {EXTRA}")
    wanted: dict[str, Any] = {}
    for each in known.available():
        if each.can_record and has_sdk:
            wanted[each.framework.module] = _instrument(each.framework.name)
        elif known.is_missing(each) or (each.is_installed and not has_sdk):
            wanted[each.framework.module] = _miss(each)
    return Waiting({**wanted, _API: _record_global_provider} if has_sdk else wanted)


def _instrument(name: str) -> Any:
    def turn_on(module: ModuleType) -> None:
        note("recorded", name)
        try:
            instrument(name)
        except Exception as error:  # the program goes on without
            let_through(error)
            log.warning("record: %s is not recorded: %s", name, error)

    return turn_on


def _miss(found: known.Available) -> Any:
    def tell(module: ModuleType) -> None:
        if known.needs_its_own(found.framework.name, _importer()):
            package = "" if found.can_record else found.framework.package
            note("missing", f"{found.framework.name} {package}")

    return tell


def _importer() -> str:
    """Return the package of the module whose import statement runs."""
    frame = sys._getframe(2)
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith("<frozen importlib") or frame.f_globals.get("__name__") in _HERE
    ):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


_HERE = frozenset({__name__, Waiting.__module__, "importlib"})


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


def note(kind: str, text: str) -> None:
    """Append a line for `agentspan record`, which prints at the end of the program what is missing."""
    if path := os.environ.get(known.NOTES):
        try:
            with open(path, "a") as file:
                file.write(f"{kind} {text}\n")
        except OSError as error:
            let_through(error)


def is_recorded() -> bool:
    """Return whether this program was started by `agentspan record`."""
    return bool(os.environ.get(known.MARK))
