"""Spans of a program that has set no global provider: SDKs that trace themselves ask for the global one.

OpenTelemetry accepts one global provider, once, so agentspan never sets it. Until the program sets one, what asks for
the global provider gets one whose tracers look at each span: they use the program's provider from then on.
"""

from collections.abc import Callable
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import ProxyTracerProvider, Tracer, TracerProvider

_get_provider: Callable[[], TracerProvider] = trace.get_tracer_provider


class UntilSet(ProxyTracerProvider):
    """A provider of tracers that record into another provider as long as no global one is set.

    It is a ProxyTracerProvider, by which libraries such as Langfuse's SDK see that they may set theirs.
    """

    def __init__(self, other: TracerProvider) -> None:
        self._other = other

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        """See TracerProvider."""
        return _UntilSet(self._other, args, kwargs)


class _UntilSet(Tracer):
    def __init__(self, other: TracerProvider, args: Any, kwargs: Any) -> None:
        self._arguments = args, kwargs
        self._tracer = other.get_tracer(*args, **kwargs)
        self._is_global = False

    def _current(self) -> Tracer:
        if not self._is_global and _is_set():
            args, kwargs = self._arguments
            self._tracer, self._is_global = _get_provider().get_tracer(*args, **kwargs), True
        return self._tracer

    def start_span(self, *args: Any, **kwargs: Any) -> Any:
        """See Tracer."""
        return self._current().start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        """See Tracer."""
        return self._current().start_as_current_span(*args, **kwargs)


def _is_set() -> bool:
    return not isinstance(_get_provider(), ProxyTracerProvider)


def use(provider: TracerProvider) -> None:
    """Record into a provider what the program makes while it has set none."""
    fallback = UntilSet(provider)
    trace.get_tracer_provider = lambda: _get_provider() if _is_set() else fallback


def undo() -> None:
    """Undo `use`. Tracers that were made meanwhile stay."""
    trace.get_tracer_provider = _get_provider
