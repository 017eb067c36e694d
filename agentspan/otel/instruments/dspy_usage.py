"""Adds tokens and cost to the spans of DSPy's calls, which OpenInference's instrumentor leaves out.

DSPy has them in its history, which is written inside of the call's span. A program that turns it off has no tokens.
"""

from typing import Any

from opentelemetry.trace import get_current_span

from agentspan.otel.instruments.on_import import Wrapping, unharmed

_COUNTS = {
    "llm.token_count.prompt": ("prompt_tokens", "input_tokens"),
    "llm.token_count.completion": ("completion_tokens", "output_tokens"),
}
_DETAILS = {
    "llm.token_count.prompt_details.cache_read": ("prompt_tokens_details", "cached_tokens"),
    "llm.token_count.completion_details.reasoning": ("completion_tokens_details", "reasoning_tokens"),
}


def _attributes(entry: dict[str, Any]) -> dict[str, int | float]:
    """Return the attributes of an entry of DSPy's history; none of an answer of its cache, which has no usage."""
    usage = entry.get("usage") or {}
    found: dict[str, Any] = {
        name: next((usage[key] for key in keys if usage.get(key) is not None), None) for name, keys in _COUNTS.items()
    }
    for name, (group, key) in _DETAILS.items():
        of = usage.get(group)
        found[name] = of.get(key) if isinstance(of, dict) else getattr(of, key, None)
    if usage:
        found["llm.cost.total"] = entry.get("cost")
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _history(module: Any) -> None:
    def wrap(update: Any) -> Any:
        def recorded(self: Any, entry: Any) -> Any:
            with unharmed():
                get_current_span().set_attributes(_attributes(entry))
            return update(self, entry)

        return recorded

    WRAPPING.replace(module.BaseLM, "update_history", wrap)


WRAPPING = Wrapping({"dspy.clients.base_lm": _history})
