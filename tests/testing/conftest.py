"""The plugin's fixture, also where the checkout's own entry point is not installed; and an agent to look at."""

from collections.abc import Callable

import pytest

import agentspan
from agentspan.testing.plugin import captured_runs

__all__ = ["captured_runs"]


@agentspan.span("tool")
def search(query: str, limit: int = 3) -> list[str]:
    if query == "broken":
        raise TimeoutError("read timed out")
    return [f"a page about {query}"]


@agentspan.span("chain")
def plan(goal: str) -> list[str]:
    return goal.split()


@agentspan.run("researcher", version="1.2", metadata={"goal": "fly"})
def research() -> dict[str, str]:
    """Plan, search twice (the second time in vain), ask a model, and leave one step out."""
    plan("find flights")
    with agentspan.span("agent", {"name": "scout"}):
        search("flights")
        try:
            search("broken", limit=1)
        except TimeoutError:
            pass
    with agentspan.span("llm", {"model": "gpt-4.1", "temperature": 0}) as span:
        span.set_result({"text": "On a Tuesday.", "input_tokens": 40, "output_tokens": 2, "cost_usd": 0.25})
    run = agentspan.current_run()
    assert run is not None
    run.create_span("refund", {"cents": 450}).cancel()
    return {"answer": "On a Tuesday."}


@pytest.fixture
def agent() -> Callable[[], dict[str, str]]:
    """An agent that records a run with seven spans."""
    return research
