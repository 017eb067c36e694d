"""Adds its name to the span of a LlamaIndex agent's run, which instrumentors leave out."""

from typing import Any

from opentelemetry.trace import get_current_span

from agentspan.otel.instruments.on_import import Wrapping, unharmed

AGENT = "agent.name"
_UNNAMED = "Agent"
"""The name of an agent that was given none."""


def _name(id_: str, bound_args: Any = None, instance: Any = None, *_: Any, **__: Any) -> None:
    """Name the run of an agent; the instrumentor has made its span the current one."""
    name = getattr(instance, "name", None)
    if id_.partition("-")[0].endswith(".run") and isinstance(name, str) and name != _UNNAMED:
        get_current_span().set_attribute(AGENT, name)


def _dispatcher(module: Any) -> None:
    def wrap(enter: Any) -> Any:
        def named(self: Any, *args: Any, **kwargs: Any) -> Any:
            entered = enter(self, *args, **kwargs)
            with unharmed():
                _name(*args, **kwargs)
            return entered

        return named

    WRAPPING.replace(module.Dispatcher, "span_enter", wrap)


WRAPPING = Wrapping({"llama_index_instrumentation.dispatcher": _dispatcher})
