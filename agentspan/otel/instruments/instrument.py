"""Turns instrumentors on: `agentspan.instrument` and `uninstrument`, and `start` for programs without agentspan code.

Under `agentspan record`, `start` is called when the program imports its first framework.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import Any, NamedTuple

from agentspan import host
from agentspan.errors import InvalidValue
from agentspan.host import guard
from agentspan.installing import extra, needs_extra
from agentspan.otel.instruments import known
from agentspan.otel.instruments.known import Available
from agentspan.otel.instruments.wrapping import Waiting, Wrapping
from agentspan.recording.tracer import Tracer

log = logging.getLogger("agentspan")
_API = "opentelemetry.trace"
_AGENTS = "agentspan.sessions.openai_agents_live"
"""The module of the processor for OpenAI's Agents SDK: a layer below this one, which decodes its items."""


class Instrumented(NamedTuple):
    """A framework that is recorded, and the instrumentor that records it.

    Attributes:
        name: the name of the framework.
        package, version: the package and version of the instrumentor, or of the framework if it traces itself.
    """

    name: str
    package: str
    version: str


_lock = threading.RLock()
_on: dict[str, tuple[Instrumented, Callable[[], Any]]] = {}
_turning_on: dict[str, str] = {}
"""The frameworks that were turned on, each with the reason why that failed; "" if it has not failed."""
_provider: Any = None


def instrument(*names: str, provider: Any = None, tracer: Tracer | None = None) -> tuple[Instrumented, ...]:
    """Record the frameworks of this program with the installed OpenTelemetry instrumentors.

    Without names, every known framework that is installed with an instrumentor is recorded. If a framework has no
    instrumentor, a warning names the package to install. Call this before the program makes its clients and agents.

    Args:
        names: frameworks, such as "openai" and "langchain", or other instrumentors by their entry point.
        provider: a TracerProvider of the program, to which a processor of agentspan is added; agentspan's own provider,
            when left out. The global provider is never set.
        tracer: the tracer to record into; the one of `configure`, when left out.

    Returns:
        The instrumentors that were turned on. Instrumentors that were on before are not included, and stay on.

    Raises:
        InvalidValue: a name is unknown, or no instrumentor is installed for it; the message names the package.
        ImportError: the extra `otel` is not installed. The OpenAI Agents SDK does not need it.
    """
    chosen = [_named(name) for name in names]
    if not names:
        found = known.available()
        chosen = [each for each in found if each.can_record]
        for each in known.missing(found):
            log.warning("instrument: nothing records %s; %s", each.framework.name, known.advice(each))
        chosen = _without_sdk(chosen)
    with _lock:
        using = None
        if not chosen or any(each.needs_sdk for each in chosen):
            using = _provider_for(provider, tracer)
            _carry_context()
        turned_on = (_turn_on(each, using, tracer) for each in chosen)
        return tuple(each for each in turned_on if each is not None)


def uninstrument(*names: str) -> None:
    """Turn off the instrumentors of these frameworks; without names, of all frameworks."""
    with _lock:
        for name in [known_name for known_name in _on if not names or known_name in names]:
            _, undo = _on.pop(name)
            _turning_on.pop(name, None)
            with guard(report=partial(log.warning, "uninstrument: %s could not be turned off: %s", name)):
                undo()
        if not _on:
            _close()


def instrumented() -> list[Instrumented]:
    """Return the instrumentors that are turned on."""
    return [each for each, _ in _on.values()]


def _named(name: str) -> Available:
    found = known.named(name)
    if found is None:
        names = ", ".join(framework.name for framework in known.FRAMEWORKS)
        raise InvalidValue("names", f"{name!r} is neither a known framework ({names}) nor an installed instrumentor")
    if not found.can_record:
        raise InvalidValue("names", f"nothing records {found.framework.name}; {known.advice(found)}")
    return found


def _without_sdk(found: list[Available]) -> list[Available]:
    """Return the frameworks to record.

    Without OpenTelemetry's SDK: those that do not need it, or all if each needs it.
    """
    independent = [each for each in found if not each.needs_sdk]
    if not independent or known.is_importable(known.SDK):
        return found
    for each in found:
        if each.needs_sdk:
            log.warning("instrument: %s is not recorded; %s", each.framework.name, extra("otel"))
    return independent


def _provider_for(provider: Any, tracer: Tracer | None) -> Any:
    global _provider
    with host.importing:
        if not known.is_importable(known.SDK):
            raise ImportError(needs_extra("recording frameworks", "otel"))
        import_module("opentelemetry.trace")  # first: under `agentspan record`, this import calls this function again
        from agentspan.otel.instruments.provider import ask_for_content, new_provider, use_until_set
        from agentspan.otel.processor import SpanProcessor

    ask_for_content()
    if provider is not None:
        provider.add_span_processor(SpanProcessor(tracer))
        return provider
    if _provider is None:
        _provider = new_provider(SpanProcessor(tracer))
        use_until_set(_provider)
    return _provider


def _close() -> None:
    global _provider
    provider, _provider = _provider, None
    if provider is not None:
        from agentspan.otel.instruments.provider import stop_using

        stop_using()
        provider.shutdown()


def _turn_on(found: Available, provider: Any, tracer: Tracer | None) -> Instrumented | None:
    name = found.framework.name
    if name in _on or _turning_on.get(name) == "":  # an instrumentor imports its framework, which `record` waits for
        return None
    _turning_on[name] = ""
    with guard(report=partial(_refused, name)), host.importing:  # another package may not fit the installed framework
        if found.entry is None:
            turned_on = _OWN.get(name, _traces_itself(name))(provider, tracer)
        else:
            instrumentor = found.entry.load()()
            instrumentor.instrument(tracer_provider=provider, raise_exception_on_conflict=True)
            turned_on = Instrumented(name, found.package, found.version), instrumentor.uninstrument
        if found.needs_sdk and (found.has_own or not found.framework.own):
            from agentspan.otel.instruments.additions import ADDITIONS  # which imports OpenTelemetry

            if name in ADDITIONS:
                turned_on = turned_on[0], _with_additions(ADDITIONS[name], turned_on[1])
        _on[name] = turned_on
        return turned_on[0]
    return None


def _refused(name: str, error: Exception) -> None:
    _turning_on[name] = f"{type(error).__name__}: {error}"
    log.warning("instrument: %s could not be turned on: %s", name, _turning_on[name])


def _carry_context() -> None:
    """Let new threads inherit the current span, if the instrumentor for threads is installed."""
    found = known.named(known.CARRIES_CONTEXT)
    if found is not None and found.entry is not None and known.CARRIES_CONTEXT not in _on:
        with guard():
            instrumentor = found.entry.load()()
            instrumentor.instrument()
            about = Instrumented(known.CARRIES_CONTEXT, found.package, found.version)
            _on[known.CARRIES_CONTEXT] = about, instrumentor.uninstrument


def _pydantic_ai(provider: Any, tracer: Tracer | None) -> tuple[Instrumented, Callable[[], Any]]:
    agents = import_module("pydantic_ai")
    settings = import_module("pydantic_ai.models.instrumented").InstrumentationSettings
    agents.Agent.instrument_all(settings(tracer_provider=provider))
    about = Instrumented("pydantic-ai", "pydantic-ai", getattr(agents, "__version__", ""))
    return about, lambda: agents.Agent.instrument_all(False)


def _openai_agents(provider: Any, tracer: Tracer | None) -> tuple[Instrumented, Callable[[], Any]]:
    """Add a processor to the SDK's own tracing, now or when the program imports the SDK."""
    processor = import_module(_AGENTS).PROCESSOR
    processor.turn_on(tracer)
    if not processor.is_added:
        Waiting({"agents.tracing": processor.add_to})
    return Instrumented("openai-agents", "openai-agents", version("openai-agents")), processor.turn_off


def _traces_itself(name: str) -> "_TurnsOn":
    """Return the function that turns on an SDK that traces itself with the global provider.

    The function changes nothing, because `use_until_set` has already replaced the global provider.
    """
    return lambda provider, tracer: (Instrumented(name, name, version(name)), lambda: None)


def _with_additions(wrapping: Wrapping, undo: Callable[[], Any]) -> Callable[[], Any]:
    """Turn a Wrapping on; return a function that turns it off and then calls `undo`."""
    wrapping.turn_on()

    def undo_both() -> None:
        wrapping.turn_off()
        undo()

    return undo_both


_TurnsOn = Callable[[Any, Tracer | None], tuple[Instrumented, Callable[[], Any]]]
_OWN: dict[str, _TurnsOn] = {"pydantic-ai": _pydantic_ai, "openai-agents": _openai_agents}
"""The functions that turn on frameworks that trace themselves, by the name of the framework."""


def start() -> Waiting:
    """Turn on each instrumentor when its framework is imported, and record the provider that the program sets."""
    has_sdk = known.is_importable(known.SDK)
    if not has_sdk:
        note("without", f"{sys.executable} has no OpenTelemetry SDK; {extra('otel')}")
    wanted: dict[str, Any] = {}
    for each in known.available():
        if each.can_record and (has_sdk or not each.needs_sdk):
            wanted[each.framework.module] = _instrument(each.framework.name)
        elif known.is_missing(each) or (each.is_installed and not has_sdk):
            wanted[each.framework.module] = _miss(each)
    return Waiting({**wanted, _API: _record_global_provider} if has_sdk else wanted)


def _instrument(name: str) -> Any:
    def turn_on(module: ModuleType) -> None:
        with guard(report=partial(log.warning, "record: %s is not recorded: %s", name)):
            instrument(name)
        why = _turning_on.get(name)
        note("refused" if why else "recorded", f"{name} {why}" if why else name)

    return turn_on


def _miss(found: known.Available) -> Any:
    def tell(module: ModuleType) -> None:
        importer = _importer()
        if known.needs_its_own(found.framework, importer):
            package = "" if found.can_record else found.framework.package
            note("missing", f"{found.framework.name} {package} {importer}")

    return tell


def _importer() -> str:
    """Return the top-level package of the module whose import statement is being executed."""
    frame = sys._getframe(2)
    while frame.f_back is not None and (
        frame.f_code.co_filename.startswith("<frozen importlib") or frame.f_globals.get("__name__") in _HERE
    ):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


_HERE = frozenset({__name__, Waiting.__module__, "importlib"})


def _record_global_provider(api: Any) -> None:
    """Record the program's OpenTelemetry spans as long as it has set no provider, and then its provider's."""
    with _lock:
        _provider_for(None, None)
    set_provider = api.set_tracer_provider

    def set_tracer_provider(tracer_provider: Any) -> None:
        set_provider(tracer_provider)
        with guard(report=partial(log.warning, "record: spans of the program's own provider are not recorded: %s")):
            from agentspan.otel.processor import SpanProcessor

            if api.get_tracer_provider() is tracer_provider and hasattr(tracer_provider, "add_span_processor"):
                tracer_provider.add_span_processor(SpanProcessor())

    api.set_tracer_provider = set_tracer_provider


def note(kind: str, text: str) -> None:
    """Append a line to the file of notes, from which `agentspan record` prints the missing instrumentors at the end."""
    if path := os.environ.get(known.NOTES):
        with guard(), open(os.open(path, os.O_WRONLY | os.O_APPEND), "a") as file:  # never made again: see `site`
            file.write(f"{kind} {text}\n")
