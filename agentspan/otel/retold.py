"""Finds the call of a model that a trace tells of again: LiteLLM's own callback may record it in a trace of its own."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from agentspan.otel.duplicates import Call, call_of, distance
from agentspan.otel.live_traces import LiveTrace
from agentspan.otel.mapping.litellm import SCOPE
from agentspan.otel.traces import Step

_SECOND = 1_000_000_000


class First(NamedTuple):
    """A call that was told first.

    Attributes:
        trace: the trace that it is in.
        call: by its id in agentspan.
    """

    trace: LiveTrace
    call: Call


def tells_again(steps: Sequence[Step]) -> bool:
    """Return whether a trace may only tell of a call again."""
    return all(step.span.scope.name == SCOPE and step.span.kind != "SERVER" for step in steps)


class Calls:
    """The calls of other instrumentors, by what they are found by.

    Args:
        known: traces of which spans are stored.
    """

    def __init__(self, known: Iterable[LiveTrace]) -> None:
        self._by_answer: dict[str, list[First]] = defaultdict(list)
        self._by_time: dict[tuple[str, int], list[First]] = defaultdict(list)
        self._told: set[str | None] = set()
        for trace in known:
            for step in trace.steps.values():
                self._add(trace, step)

    def _add(self, trace: LiveTrace, step: Step) -> None:
        call = call_of(*step)
        if call is None:
            return
        if call.scope == SCOPE:
            self._told.add(call.parent)
            return
        first = First(trace, call)
        if call.response is not None:
            self._by_answer[call.response].append(first)
        for model in call.models:
            self._by_time[model, call.start_ns // _SECOND].append(first)

    def first(self, steps: Sequence[Step]) -> First | None:
        """Return the call that a trace tells of again; each is returned once."""
        call = next((call for step in steps if (call := call_of(*step)) is not None), None)
        if call is None:
            return None
        near = [(found, first) for first in self._like(call) if (found := distance(call, first.call)) is not None]
        if not near:
            return None
        first = min(near, key=lambda each: each[0])[1]
        self._told.add(first.call.id)
        return first

    def _like(self, call: Call) -> Iterator[First]:
        second = call.start_ns // _SECOND
        keys = [(model, at) for model in call.models for at in (second - 1, second, second + 1)]
        for group in (self._by_answer.get(call.response or "", ()), *(self._by_time.get(key, ()) for key in keys)):
            yield from (first for first in group if first.call.id not in self._told)
