"""Ends the span of an agent of smolagents whose run raises: OpenInference's instrumentor leaves it open, and current.

The run would end as abandoned when the program does, and all that the program does meanwhile would be inside of it.
"""

from typing import Any

from opentelemetry import context
from opentelemetry.trace import StatusCode, get_current_span

from agentspan.otel.instruments.on_import import Wrapping, unharmed


def _end(before: Any, error: BaseException) -> None:
    """End the span that became current, unless the instrumentor did, and make the context of before current again."""
    span = get_current_span()
    if span is not get_current_span(before) and span.is_recording():
        if not isinstance(error, Exception):  # others have been noted
            span.record_exception(error)
            span.set_status(StatusCode.ERROR)
        span.end()
    context.attach(before)


def _agents(module: Any) -> None:
    def wrap(run: Any) -> Any:
        def ended(self: Any, *args: Any, **kwargs: Any) -> Any:
            before = context.get_current()
            try:
                return run(self, *args, **kwargs)
            except BaseException as error:
                with unharmed():
                    _end(before, error)
                raise

        return ended

    WRAPPING.replace(module.MultiStepAgent, "run", wrap)


WRAPPING = Wrapping({"smolagents.agents": _agents})
