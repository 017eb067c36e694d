"""The steps of other runs at the place where two runs part: whether the difference is noise, or seldom.

A run of the baseline reaches the place if its steps before are the same, whatever the words.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from itertools import islice
from typing import Literal

from agentspan.analysis.agent_names import resolved
from agentspan.analysis.filter_words import parse
from agentspan.analysis.runs import find_runs
from agentspan.analysis.sibling_alignment import in_groups
from agentspan.analysis.step_keys import Step, StepKeys, tools_of
from agentspan.analysis.tree import Node, build
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf

MAX_RUNS = 500
"""Runs of a baseline that are read, the latest ones: all of their spans are."""


By = Literal["step", "arguments", "attempts", "status", "result"]
"""In what the steps of A and B differ, and so what is compared: `step` is whatever the words, all others are not."""
Does = Literal["call", "answer", "message", "step", "end"]
"""A step calls tools, is a model's answer without a call, a message, or another one; or there is none."""


@dataclass(frozen=True, slots=True)
class Against:
    """A baseline, and how its runs go on where A and B part.

    Attributes:
        filter: the text of the filter.
        runs: how many runs were read: A and B are none of them, and there are at most 500.
        reached: how many of those have the same steps before the place.
        a, b: how many of those go on like A, and like B.
        a_tool, b_tool: how many of the others call the tool of A's step, or else of B's, with other arguments.
        by: what of the steps there is compared.
        a_does, b_does: what the step of A, and of B, is.
        a_failed, b_failed: of those that call the tool as A does, and as B does, how many failed in that step.
        calls_before: how many of the steps before the place call a tool. Words of those steps are not compared.
    """

    filter: str
    runs: int
    reached: int
    a: int
    b: int
    a_tool: int = 0
    b_tool: int = 0
    by: By = "step"
    a_does: Does = "step"
    b_does: Does = "step"
    a_failed: int = 0
    b_failed: int = 0
    calls_before: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """The place where two runs part.

    Attributes:
        before: the steps before it, with their depths.
        depth: how many steps are around it.
        a, b: the step of each run there; None where it has no more steps on this level.
    """

    before: Sequence[tuple[int, Step]]
    depth: int
    a: Step | None
    b: Step | None


def place_of(
    a: Sequence[AgentSpanRow], b: Sequence[AgentSpanRow], a_id: str | None, b_id: str | None, *, depth: int
) -> Place:
    """Return the place at which a run goes on with one span, and another run with another one.

    Args:
        a, b: the spans of the runs.
        a_id, b_id: the spans there; None where a run has no more.
        depth: how many steps are around it.
    """
    keys = StepKeys()
    outlines = [[*_outline(build(spans), keys)] for spans in (a, b)]
    at = [
        next((place for place, (_, step) in enumerate(outline) if step.span.id == id), None)
        for outline, id in zip(outlines, (a_id, b_id), strict=True)
    ]
    steps = [None if place is None else outline[place][1] for outline, place in zip(outlines, at, strict=True)]
    before = outlines[0][: at[0]] if at[0] is not None else outlines[1][: at[1]]
    return Place(before, depth, *steps)


def against(
    storage: Storage, text: str, place: Place, *, agent: str, without: Sequence[str], zone: tzinfo | None = UTC
) -> Against:
    """Return how the runs of a baseline go on at a place.

    Args:
        text: see `filter_words.parse`.
        agent: the id of the agent whose runs they are, if the filter names none.
        without: ids of runs that do not count.
        zone: see `filter_words.parse`.
    """
    filter = resolved(storage, parse(text, "against", zone=zone))
    filter = replace(filter, agent=filter.agent or agent)
    found = [run.run.id for run in find_runs(storage, filter, limit=MAX_RUNS + len(without)).runs]
    ids = [id for id in found if id not in without][:MAX_RUNS]
    by, token = _token(place)
    wanted = [None if step is None else token(step) for step in (place.a, place.b)]
    reached, counts, alike, failed = 0, [0, 0], [0, 0], [0, 0]
    for id in ids:
        came, step = _next(storage, id, place)
        if not came:
            continue
        reached += 1
        goes_on = None if step is None else token(step)
        is_failed = step is not None and step.type == "tool" and step.span.status == "failed"
        for side in (0, 1):
            counts[side] += goes_on == wanted[side]
            failed[side] += is_failed and goes_on == wanted[side]
        if step is not None and goes_on not in wanted:
            like = next((side for side, own in enumerate((place.a, place.b)) if _is_other_call(step, own)), None)
            if like is not None:
                alike[like] += 1
    return Against(
        text,
        len(ids),
        reached,
        a=counts[0],
        b=counts[1],
        a_tool=alike[0],
        b_tool=alike[1],
        by=by,
        a_does=_does(place.a),
        b_does=_does(place.b),
        a_failed=failed[0],
        b_failed=failed[1],
        calls_before=sum(bool(tools_of(step)) for _, step in place.before),
    )


def _does(step: Step | None) -> Does:
    if step is None:
        return "end"
    if tools_of(step):
        return "call"
    return "answer" if step.type == "llm" else "message" if step.type == "message" else "step"


def _is_other_call(step: Step, own: Step | None) -> bool:
    """Return whether a step calls the same tools as another one, with other arguments."""
    if own is None or step.type != own.type or step.key.course == own.key.course:
        return False
    tools = tools_of(step)
    return bool(tools) and tools == tools_of(own)


def _next(storage: Storage, run_id: str, place: Place) -> tuple[bool, Step | None]:
    """Return whether a run reaches a place, and its step there."""
    outline = _outline(build(storage.ask(SpansOf(run_id))), StepKeys())
    before = [*islice(outline, len(place.before))]
    same = len(before) == len(place.before) and all(
        depth == other_depth and step.key.course == other.key.course
        for (depth, step), (other_depth, other) in zip(before, place.before, strict=True)
    )
    if not same:
        return False, None
    depth, step = next(outline, (-1, None))
    if depth > place.depth:  # one step more in the last one
        return False, None
    return True, step if depth == place.depth else None


def _outline(roots: list[Node], keys: StepKeys) -> Iterator[tuple[int, Step]]:
    """Yield the steps of a run with their depths, parents first, as they are aligned (see sibling_alignment)."""
    levels = [iter(in_groups([keys.step(node) for node in roots]))]
    while levels:
        step = next(levels[-1], None)
        if step is None:
            levels.pop()
            continue
        yield len(levels) - 1, step
        if step.node.children:
            levels.append(iter(in_groups([keys.step(node) for node in step.node.children])))


_TOKENS: Sequence[tuple[By, Callable[[Step], Hashable]]] = (
    ("step", lambda step: step.key.course),
    ("arguments", lambda step: (step.key.course, step.span.label, step.fixed)),
    ("arguments", lambda step: (step.key.course, step.arguments)),
    ("attempts", lambda step: (step.key.course, step.attempts)),
    ("status", lambda step: (step.key.course, step.span.status)),
    ("result", lambda step: (step.key.course, step.result)),
)


def _token(place: Place) -> tuple[By, Callable[[Step], Hashable]]:
    """Return the loosest of the ways to look at a step in which those of A and B differ, and its name."""
    if place.a is None or place.b is None:
        return _TOKENS[0]
    a, b = place.a, place.b
    return next((each for each in _TOKENS if each[1](a) != each[1](b)), _TOKENS[-1])
