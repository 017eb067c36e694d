"""Aligns the steps of two runs, and counts how the runs of a baseline continue where the two part.

The counts distinguish a rare difference from noise. A run of the baseline reaches the place of the divergence if its
earlier steps are the same; free text is not compared.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from itertools import islice
from typing import Literal, NamedTuple

from agentspan.analysis.by_name import resolved
from agentspan.analysis.differences import match
from agentspan.analysis.filter_words import parse
from agentspan.analysis.runs import find_runs
from agentspan.analysis.step_keys import Step, StepKeys, tools_of
from agentspan.analysis.tree import Node, build
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf
from agentspan.storage.row_by_row import has_failed


class Pair(NamedTuple):
    """An aligned pair: a step of A and a step of B, or only one of them.

    Attributes:
        a, b: the indexes in `Alignment.a` and `Alignment.b`; None if the run does not have the step.
        next_a, next_b: the indexes of the next step of A and of B at this pair; the number of steps at the end.
        moved: True if the step is at different places in A and B.
    """

    a: int | None
    b: int | None
    next_a: int
    next_b: int
    moved: bool = False


class Alignment(NamedTuple):
    """The aligned steps of one level of two runs.

    Each step of A and of B is in exactly one pair. Without moved steps, the pairs keep the order of A and of B.

    Attributes:
        a, b: the steps of A and of B, with concurrent steps sorted.
        pairs: the aligned pairs, in the order of the runs.
        is_shortest: True if no alignment has fewer edits (see step_keys.Matches).
    """

    a: Sequence[Step]
    b: Sequence[Step]
    pairs: list[Pair]
    is_shortest: bool


def collapse(steps: Sequence[Step]) -> list[Step]:
    """Merge attempts into one step: consecutive equal steps of which all but the last failed."""
    found: list[Step] = []
    for step in steps:
        before = found[-1] if found else None
        if before is not None and has_failed(before.span) and before.key.exact == step.key.exact:
            found[-1] = step._replace(attempts=before.attempts + 1)
        else:
            found.append(step)
    return found


def align(a: Sequence[Step], b: Sequence[Step], *, worded: bool = False) -> Alignment:
    """Align the steps of one level of A and B, which must be in order of start.

    Args:
        worded: whether earlier steps differ, so that prompts, which repeat them, differ too.
    """
    a, groups_a = _in_groups(collapse(a))
    b, groups_b = _in_groups(collapse(b))
    matching = _Matching(a, b)
    matching.same_start(worded)
    matching.anchors()
    moved = matching.moves()
    matching.within_gaps(lambda step: step.key.course)
    matching.within_gaps(lambda step: step.key.sort)
    in_order = [(x, y) for x, y in enumerate(matching.b_of) if y is not None]
    concurrent = {pair for pair in moved if _is_concurrent(pair, in_order, groups_a, groups_b)}
    return Alignment(a, b, _merged(len(a), len(b), in_order, moved, concurrent), matching.is_shortest)


def in_groups(steps: Sequence[Step]) -> list[Step]:
    """Return the steps of one level in the form for alignment: attempts merged, concurrent steps sorted."""
    return _in_groups(collapse(steps))[0]


def _in_groups(steps: list[Step]) -> tuple[list[Step], list[tuple[int, int]]]:
    """Sort the steps of each concurrent group; return all steps, and for each step the index range of its group."""
    ordered: list[Step] = []
    ranges: list[tuple[int, int]] = []
    start, latest = 0, ""
    for place in range(len(steps) + 1):
        span = steps[place].span if place < len(steps) else None
        if span is not None and place > start and span.started_at is not None and span.started_at < latest:
            latest = max(latest, span.finished_at or "")
            continue
        group = steps[start:place]
        ordered += sorted(group, key=_in_group) if len(group) > 1 else group
        ranges += [(start, place)] * len(group)
        start, latest = place, (span.finished_at or "") if span is not None else ""
    return ordered, ranges


def _in_group(step: Step) -> tuple[str, str, bytes]:
    type_, label, arguments = step.key.exact
    return (type_, label or "", arguments)


class _Matching:
    """An alignment under construction. `b_of` holds for each step of A the index of its matched step of B, or None."""

    def __init__(self, a: Sequence[Step], b: Sequence[Step]) -> None:
        self.a, self.b = a, b
        self.b_of: list[int | None] = [None] * len(a)
        self.is_shortest = True
        self._taken: set[int] = set()
        self._moved: tuple[set[int], set[int]] = (set(), set())
        self._in_a, self._in_b = (Counter(step.key.exact for step in steps) for steps in (a, b))

    def same_start(self, worded: bool) -> None:
        """Match steps from the start on, as long as they differ only in free text."""
        for place, (one, other) in enumerate(zip(self.a, self.b, strict=False)):
            same = one.key.exact == other.key.exact
            if one.key.course != other.key.course or not (same or self._only_words(one, other, worded)):
                return
            worded = worded or not same or one.result != other.result
            self._take(place, place)

    def _only_words(self, one: Step, other: Step, worded: bool) -> bool:
        if one.type == "message":
            return True
        elsewhere = self._is_unique(one.key.exact) or self._is_unique(other.key.exact)
        return not elsewhere and (worded or not one.says)

    def _is_unique(self, key: Hashable) -> bool:
        """Return whether each run has exactly one step with this key."""
        return self._in_a[key] == self._in_b[key] == 1  # type: ignore[index]

    def anchors(self) -> None:
        """Match steps with the same arguments. A message counts only if each run has it exactly once."""
        for start_a, start_b, end_a, end_b in self._gaps():
            keys_a = [self._anchor(self.a[place], place, "a") for place in range(start_a, end_a)]
            keys_b = [self._anchor(self.b[place], place, "b") for place in range(start_b, end_b)]
            self._match(keys_a, keys_b, start_a, start_b)

    def _anchor(self, step: Step, place: int, side: str) -> Hashable:
        if step.says and not self._is_unique(step.key.exact) and step.type == "message":
            return (side, place)
        return step.key.exact

    def within_gaps(self, key: Callable[[Step], Hashable]) -> None:
        """Match steps between already matched ones by a looser key; moved steps are left out."""
        for start_a, start_b, end_a, end_b in self._gaps():
            in_a, in_b = range(start_a, end_a), range(start_b, end_b)
            keys_a = [("a", x) if x in self._moved[0] else key(self.a[x]) for x in in_a]
            keys_b = [("b", y) if y in self._moved[1] else key(self.b[y]) for y in in_b]
            self._match(keys_a, keys_b, start_a, start_b)

    def _match(self, keys_a: list[Hashable], keys_b: list[Hashable], start_a: int, start_b: int) -> None:
        found = match(keys_a, keys_b)
        self.is_shortest = self.is_shortest and found.is_shortest
        for x, y in found.pairs:
            self._take(start_a + x, start_b + y)

    def _take(self, x: int, y: int) -> None:
        self.b_of[x] = y
        self._taken.add(y)

    def _gaps(self) -> list[tuple[int, int, int, int]]:
        """Return the gaps between matched steps in which both runs have steps: (start A, start B, end A, end B)."""
        gaps, last_a, last_b = [], 0, 0
        for x, y in [*((x, y) for x, y in enumerate(self.b_of) if y is not None), (len(self.a), len(self.b))]:
            if x > last_a and y > last_b:
                gaps.append((last_a, last_b, x, y))
            last_a, last_b = x + 1, y + 1
        return gaps

    def moves(self) -> list[tuple[int, int]]:
        """Return pairs of unmatched equal steps that both runs have at different places; messages are left out."""
        left: dict[Hashable, list[int]] = defaultdict(list)
        for y, step in enumerate(self.b):
            if y not in self._taken and step.type != "message":
                left[step.key.exact].append(y)
        found = []
        for x, step in enumerate(self.a):
            places = left.get(step.key.exact)
            if self.b_of[x] is None and places:
                found.append((x, places.pop(0)))
        self._moved = ({x for x, _ in found}, {y for _, y in found})
        return found


def _is_concurrent(
    pair: tuple[int, int],
    in_order: Sequence[tuple[int, int]],
    groups_a: Sequence[tuple[int, int]],
    groups_b: Sequence[tuple[int, int]],
) -> bool:
    """Return whether a moved step only changed places with steps that ran concurrently in A or in B."""
    x, y = pair
    for of_this, (start, end), place in ((1, groups_a[x], y), (0, groups_b[y], x)):
        at = bisect_left(in_order, place, key=lambda both: both[of_this])
        other = 1 - of_this
        before = in_order[at - 1][other] if at else -1
        after = in_order[at][other] if at < len(in_order) else len(groups_a if other == 0 else groups_b)
        if end - start > 1 and before < end and after >= start:
            return True
    return False


def _merged(
    number_a: int,
    number_b: int,
    in_order: Sequence[tuple[int, int]],
    moved: Sequence[tuple[int, int]],
    concurrent: set[tuple[int, int]],
) -> list[Pair]:
    """Return all pairs in the order of the runs; a moved step stands at the earlier of its two places."""
    moved_a, moved_b = dict(moved), {y: x for x, y in moved}
    pairs: list[Pair] = []
    done: set[int] = set()
    last_a = last_b = 0
    for x, y in [*in_order, (number_a, number_b)]:
        for place in range(last_a, x):
            if place not in done:
                other = moved_a.get(place)
                done.add(place)
                pairs.append(Pair(place, other, place, last_b, _is_moved(place, other, concurrent)))
        for place in range(last_b, y):
            source = moved_b.get(place)
            if source is None or source not in done:
                pairs.append(Pair(source, place, x, place, _is_moved(source, place, concurrent)))
                if source is not None:
                    done.add(source)
        if x < number_a:
            pairs.append(Pair(x, y, x, y))
        last_a, last_b = x + 1, y + 1
    return pairs


def _is_moved(x: int | None, y: int | None, concurrent: set[tuple[int, int]]) -> bool:
    return x is not None and y is not None and (x, y) not in concurrent


MAX_RUNS = 500
"""The number of latest runs of a baseline that are read, with all their spans."""


By = Literal["step", "arguments", "attempts", "status", "result"]
"""The aspect in which the steps of A and B differ, and which is compared. For `step`, free text is not compared."""
Does = Literal["call", "answer", "message", "step", "end"]
"""The kind of a step: it calls tools, is a model's answer without a call, a message, or another step; or no step."""


@dataclass(frozen=True, slots=True)
class Against:
    """Counts of how the runs of a baseline continue at the place where A and B part.

    Attributes:
        filter: the text of the filter of the baseline.
        runs: the number of runs that were read, without A and B; at most 500.
        reached: the number of these runs that have the same steps before the place.
        a, b: the number of runs that reached the place and continue like A, and like B.
        a_tool, b_tool: the number of other runs that call the tool of A's step, or else of B's, with other arguments.
        by: the aspect of the step that is compared.
        a_does, b_does: the kind of the step of A, and of B.
        a_failed, b_failed: the number of runs that continue like A, and like B, with a tool call that failed.
        calls_before: the number of steps before the place that call a tool. Free text of earlier steps is not compared.
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
        before: the earlier steps, each with its depth.
        depth: the number of steps around the place.
        a, b: the next step of A and of B; None if the run has no more steps on this level.
    """

    before: Sequence[tuple[int, Step]]
    depth: int
    a: Step | None
    b: Step | None


def place_of(
    a: Sequence[AgentSpanRow], b: Sequence[AgentSpanRow], a_id: str | None, b_id: str | None, *, depth: int
) -> Place:
    """Return the place at which run A continues with one span and run B with another one.

    Args:
        a, b: the spans of the two runs.
        a_id, b_id: the ids of the spans at the place; None if the run has no more steps on this level.
        depth: the number of steps around the place.
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
    """Count how the runs of a baseline continue at a place.

    Args:
        text: the filter of the baseline (see `filter_words.parse`).
        agent: the id of the agent of the baseline, if the filter names no agent.
        without: the ids of runs to leave out.
        zone: the zone of times in the filter without an offset; None for the machine's own zone.
    """
    filter = resolved(storage, parse(text, "against", zone=zone))
    filter = filter._replace(agent=filter.agent or agent)
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
        is_failed = step is not None and step.type == "tool" and has_failed(step.span)
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
    """Return whether a step calls the same tools as the step `own`, with other arguments."""
    if own is None or step.type != own.type or step.key.course == own.key.course:
        return False
    tools = tools_of(step)
    return bool(tools) and tools == tools_of(own)


def _next(storage: Storage, run_id: str, place: Place) -> tuple[bool, Step | None]:
    """Return whether a run reaches a place, and its step at the place; None if it has no more steps on this level."""
    outline = _outline(build(storage.ask(SpansOf(run_id))), StepKeys())
    before = [*islice(outline, len(place.before))]
    same = len(before) == len(place.before) and all(
        depth == other_depth and step.key.course == other.key.course
        for (depth, step), (other_depth, other) in zip(before, place.before, strict=True)
    )
    if not same:
        return False, None
    depth, step = next(outline, (-1, None))
    if depth > place.depth:  # the previous step has a further child, so the run differs before the place
        return False, None
    return True, step if depth == place.depth else None


def _outline(roots: list[Node], keys: StepKeys) -> Iterator[tuple[int, Step]]:
    """Yield the depth and step of each step of a run, parents first, in the form for alignment (see in_groups)."""
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
    """Return the loosest aspect in which the steps of A and B differ, and the function that extracts it."""
    if place.a is None or place.b is None:
        return _TOKENS[0]
    a, b = place.a, place.b
    return next((each for each in _TOKENS if each[1](a) != each[1](b)), _TOKENS[-1])
