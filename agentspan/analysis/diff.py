"""The difference of two runs: their steps aligned level by level, and the first step at which the runs part.

Times and ids of calls are ignored. Free text of models and people is a small difference: two runs part at the first
step that differs in more than free text; only if there is no such step, at the first one that differs in free text.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from itertools import islice
from typing import Any, Literal

from agentspan import jsontext
from agentspan.analysis.baseline import Against, Alignment, Pair, against, align, place_of
from agentspan.analysis.differences import MAX_FIELDS, FieldChange, field_changes
from agentspan.analysis.filter_words import parse
from agentspan.analysis.step_keys import Step, StepKeys, cleaned
from agentspan.analysis.tree import Node, build, every, sums, title_of
from agentspan.blobs import described
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.access import instance
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf
from agentspan.storage.row_by_row import names_of

Kind = Literal[
    "same", "figures", "words", "answer", "arguments", "result", "status", "retries", "moved", "added", "removed"
]  # fmt: skip
SMALL: frozenset[Kind] = frozenset({"same", "figures", "words"})
"""Small kinds of changes: two runs part at one of these only if they have no other change."""
TITLE = 200


@dataclass(frozen=True, slots=True)
class DiffRun:
    """One of the two compared runs, with the sums over its spans."""

    run_id: str
    agent: str
    version: str
    status: str
    spans: int
    failed: int
    tokens: int | None
    cost_usd: float | None
    duration_ms: float | None
    task: str | None = None


@dataclass(frozen=True, slots=True)
class DiffStep:
    """A step of one run.

    Attributes:
        span_id: the id of the span of the last attempt.
        number: the place of the step in the run's tree, from 1 on, parents first.
        attempts: the number of attempts, one span each; all but the last failed.
        type, label, title, status: those of the span of the last attempt.
    """

    span_id: str
    number: int
    attempts: int
    type: str
    label: str | None
    title: str
    status: str


@dataclass(frozen=True, slots=True)
class StepChange:
    """A step that differs, or that only one run has; or several consecutive steps that are the same in both runs.

    Attributes:
        kind: `same`; `figures`: only numbers in a model's result differ, such as tokens; `words`: only free text of a
            model or a person differs; `answer`: free text differs after the runs have parted in more than free text,
            so that it may mean anything; `arguments`: the type, label or payload differs; `result`; `status`;
            `retries`: the number of attempts differs; `moved`: the step is at another place; `added`: only B has the
            step; `removed`: only A has it.
        count: the number of steps that the change covers: consecutive same steps, or an added or removed step with
            all steps inside it.
        depth: the number of steps around the step.
        a, b: the step in A and in B, the first one of several; None if the run does not have the step.
        follows: whether steps inside the step differ, so that its own result or status may be a consequence.
    """

    kind: Kind
    count: int
    depth: int
    a: DiffStep | None
    b: DiffStep | None
    follows: bool = False


@dataclass(frozen=True, slots=True)
class Divergence:
    """The step at which two runs part.

    Attributes:
        kind: the kind of the change (see `StepChange`).
        place: the index of the change in `RunDiff.steps`.
        same: the number of earlier steps that are the same; different free text or figures do not matter.
        other_words: the number of these earlier steps with different free text.
        other_figures: the number of these earlier steps with the same text but different figures, such as tokens.
        user_said: the numbers of the previous step in A and in B, if it is a user message whose text differs.
        depth: the number of steps around the step.
        a, b: the next step of A and of B at this place; None if the run has no more steps on this level.
        fields: the members that differ between `a` and `b`, if both have the same type and label.
    """

    kind: Kind
    place: int
    same: int
    other_words: int
    depth: int
    a: DiffStep | None
    b: DiffStep | None
    fields: tuple[FieldChange, ...]
    other_figures: int = 0
    user_said: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class RunDiff:
    """The difference of two runs.

    Attributes:
        a, b: the two runs.
        fields: the members of the runs' metadata, result and error that differ.
        first_divergence: the step at which the runs part; None if both have the same steps.
        steps: all steps; consecutive same steps are one entry.
        is_shortest: False if the runs have more than 2,000 edits on one level: then a shorter difference may exist.
        against: how other runs continue at the place where these two part; None without a baseline.
    """

    a: DiffRun
    b: DiffRun
    fields: tuple[FieldChange, ...]
    first_divergence: Divergence | None
    steps: tuple[StepChange, ...]
    is_shortest: bool
    against: Against | None = None

    @property
    def is_empty(self) -> bool:
        """True if both runs have the same steps with the same results, metadata and errors."""
        return self.first_divergence is None and not self.fields


def diff(storage: Storage, a: str, b: str, *, baseline: str | None = None, zone: tzinfo | None = UTC) -> RunDiff:
    """Return the difference of two runs.

    Args:
        a, b: the ids of the runs.
        baseline: a filter of other runs (see filter_words.parse); of the agent of run A, if the filter names no agent.
        zone: the zone of times in `baseline` without an offset; None for the machine's own zone.

    Raises:
        NotFound: a run does not exist.
        InvalidValue: `baseline` is not a filter.
    """
    if baseline is not None:
        parse(baseline, "against")  # report an invalid filter before the expensive work
    rows = [instance(storage, id) for id in (a, b)]
    names = names_of(storage, rows)
    spans_a, spans_b = ([*storage.ask(SpansOf(row.id))] for row in rows)
    runs = [
        DiffRun(row.id, *names[row.id], row.status, **sums(spans)._asdict(), duration_ms=row.duration_ms, task=row.task)
        for row, spans in zip(rows, (spans_a, spans_b), strict=True)
    ]
    steps, first, is_shortest = diff_spans(spans_a, spans_b)
    fields = tuple(islice(_run_fields(*rows), MAX_FIELDS))
    others = None
    if baseline is not None and first is not None:
        ids = [None if step is None else step.span_id for step in (first.a, first.b)]
        place = place_of(spans_a, spans_b, *ids, depth=first.depth)
        others = against(storage, baseline, place, agent=rows[0].agent_id, without=(a, b), zone=zone)
    return RunDiff(runs[0], runs[1], fields, first, steps, is_shortest, others)


def _run_fields(a: AgentInstanceRow, b: AgentInstanceRow) -> Iterator[FieldChange]:
    for name in ("metadata", "result", "error"):
        yield from _changes(name, getattr(a, name), getattr(b, name))


def _changes(name: str, a: str | None, b: str | None) -> Iterator[FieldChange]:
    try:
        values = [None if text is None else cleaned(described(text)) for text in (a, b)]
    except RecursionError:  # nested too deep to compare members
        values = [a, b]
    yield from field_changes(name, *values)


def diff_spans(
    a: Iterable[AgentSpanRow], b: Iterable[AgentSpanRow]
) -> tuple[tuple[StepChange, ...], Divergence | None, bool]:
    """Align the steps of two runs; return the changes, the divergence, and whether the alignment is the shortest."""
    comparison = _Comparison(build(a), build(b))
    entries = comparison.entries()
    _mark_consequences(entries)
    first = _first(entries)
    if first is not None and entries[first].kind not in SMALL:
        _pair_answers(entries, first)
        _mark_answers(entries[first + 1 :])
    steps, place = comparison.folded(entries, first)
    found = None if first is None else comparison.divergence(entries, first, place)
    return steps, found, comparison.is_shortest


@dataclass(slots=True)
class _Entry:
    """A pair of aligned steps, before same steps are folded; `next_a` and `next_b` are the next step of each run."""

    kind: Kind
    depth: int
    a: Step | None
    b: Step | None
    next_a: Step | None
    next_b: Step | None
    follows: bool = False


class _Comparison:
    def __init__(self, a: list[Node], b: list[Node]) -> None:
        self._roots = (a, b)
        self._keys = StepKeys()
        self._numbers = {
            node.span.id: number for roots in (a, b) for number, node in enumerate(every(roots), start=1)
        }  # two runs share no span, unless a run is compared with itself
        self.is_shortest = True

    def entries(self) -> list[_Entry]:
        """Return the aligned steps of both runs as pairs, parents first."""
        found: list[_Entry] = []
        differs = False
        levels = [self._level(*self._roots, worded=False)]
        while levels:
            alignment, pairs = levels[-1]
            pair = next(pairs, None)
            if pair is None:
                levels.pop()
                continue
            entry = _entry(alignment, pair, len(levels) - 1, differs)
            differs = differs or entry.kind not in ("same", "figures")
            found.append(entry)
            if entry.a is not None and entry.b is not None:
                below = (entry.a.node.children, entry.b.node.children)
                if below[0] or below[1]:
                    levels.append(self._level(*below, worded=differs))
        return found

    def _level(self, a: list[Node], b: list[Node], *, worded: bool) -> tuple[Alignment, Iterator[Pair]]:
        found = align([self._keys.step(node) for node in a], [self._keys.step(node) for node in b], worded=worded)
        self.is_shortest = self.is_shortest and found.is_shortest
        return found, iter(found.pairs)

    def folded(self, entries: Sequence[_Entry], first: int | None) -> tuple[tuple[StepChange, ...], int]:
        """Fold consecutive same entries into one change; return the changes, and the index of `first` among them."""
        steps: list[StepChange] = []
        place, start = 0, 0
        while start < len(entries):
            if start == first:
                place = len(steps)
            entry, end = entries[start], start + 1
            while entry.kind == "same" and end < len(entries) and entries[end].kind == "same":
                end += 1
            only = entry.a if entry.b is None else entry.b if entry.a is None else None
            count = end - start if only is None else sum(1 for _ in every([only.node]))
            steps.append(
                StepChange(entry.kind, count, entry.depth, self._step(entry.a), self._step(entry.b), entry.follows)
            )
            start = end
        return tuple(steps), place

    def divergence(self, entries: Sequence[_Entry], first: int, place: int) -> Divergence:
        """Return the divergence at the entry with the index `first`."""
        entry = entries[first]
        before = [each.kind for each in entries[:first] if each.kind in SMALL]
        is_pair = entry.a is not None and entry.b is not None and entry.kind != "moved"
        a, b = (entry.a, entry.b) if is_pair else (entry.next_a, entry.next_b)
        fields = tuple(islice(_step_fields(a, b), MAX_FIELDS))
        return Divergence(
            entry.kind, place, len(before), before.count("words"), entry.depth, self._step(a), self._step(b), fields,
            before.count("figures"), self._users_message(entries[first - 1]) if first else None,
        )  # fmt: skip

    def _users_message(self, entry: _Entry) -> tuple[int, int] | None:
        a, b = entry.a, entry.b
        if entry.kind != "words" or a is None or b is None or not _is_of_user(a) or not _is_of_user(b):
            return None
        return self._numbers[a.span.id], self._numbers[b.span.id]

    def _step(self, step: Step | None) -> DiffStep | None:
        if step is None:
            return None
        span = step.span
        number = self._numbers[span.id]
        return DiffStep(
            span.id, number, step.attempts, span.schema_name, span.label, title_of(span, TITLE), span.status
        )


def _entry(alignment: Alignment, pair: Pair, depth: int, differs: bool) -> _Entry:
    a = None if pair.a is None else alignment.a[pair.a]
    b = None if pair.b is None else alignment.b[pair.b]
    next_a = alignment.a[pair.next_a] if pair.next_a < len(alignment.a) else None
    next_b = alignment.b[pair.next_b] if pair.next_b < len(alignment.b) else None
    kind: Kind = "removed" if b is None else "added" if a is None else "moved"
    if a is not None and b is not None and not pair.moved:
        kind = kind_of(a, b, differs=differs)
    return _Entry(kind, depth, a, b, next_a, next_b)


def kind_of(a: Step, b: Step, *, differs: bool) -> Kind:
    """Return how two steps at the same place differ.

    Args:
        differs: whether earlier steps differ. Then a prompt that repeats them differs, too, and counts as `words`.
    """
    other_prompt = a.arguments != b.arguments and a.type == "llm" and not differs
    if a.fixed != b.fixed or a.span.label != b.span.label or a.span.schema_name != b.span.schema_name or other_prompt:
        return "arguments"
    if a.attempts != b.attempts:
        return "retries"
    if a.span.status != b.span.status:
        return "status"
    if a.calls != b.calls or (a.result != b.result and not a.says):
        return "result"
    if a.arguments == b.arguments:
        return "same" if a.result == b.result else "figures" if _differ_in_figures(a.span, b.span) else "words"
    return "words"


def _differ_in_figures(a: AgentSpanRow, b: AgentSpanRow) -> bool:
    """Return whether the results of two steps differ only in numbers, such as the tokens of the same answer."""
    try:
        values = [_without_figures(cleaned(span.result_payload or "null")) for span in (a, b)]
    except RecursionError:  # nested too deep to compare members
        return False
    return bool(values[0] == values[1])


def _without_figures(value: Any) -> Any:
    if type(value) is dict:
        return {key: _without_figures(item) for key, item in value.items()}
    if type(value) is list:
        return [_without_figures(item) for item in value]
    return 0 if type(value) in (int, float) else value


def _is_of_user(step: Step) -> bool:
    try:
        message = jsontext.decode(step.span.payload) if step.type == "message" else None
    except RecursionError:  # nested too deep to compare members
        return False
    return type(message) is dict and message.get("role") == "user"


def _mark_consequences(entries: Sequence[_Entry]) -> None:
    """Mark each step that contains a differing step: its own result or status may be a consequence."""
    around: list[_Entry] = []
    for entry in entries:
        del around[entry.depth :]
        if entry.kind != "same":
            for each in reversed(around):
                if each.follows:  # then all steps around it are marked already
                    break
                each.follows = True
        around.append(entry)


def _first(entries: Sequence[_Entry]) -> int | None:
    """Return the index of the entry at which the runs part; None if all steps are the same.

    The first entry that differs in more than words wins, then the first one in words, then the first one in figures.
    Entries whose difference may be a consequence of the steps inside them do not count.
    """
    kinds = [("same" if _is_consequence(each) else each.kind) for each in entries]
    for small in (SMALL, {"same", "figures"}, {"same"}):
        found = next((place for place, kind in enumerate(kinds) if kind not in small), None)
        if found is not None:
            return found
    return None


def _pair_answers(entries: list[_Entry], first: int) -> None:
    """Pair the two answers of a model at the place where the runs part.

    The alignment may have paired the answer of one run with a later answer of the other. Then an answer would be listed
    twice, and which one would depend on the order of the runs.
    """
    entry = entries[first]
    a, b = entry.next_a, entry.next_b
    if entry.kind not in ("added", "removed") or not _is_answer(a) or not _is_answer(b):
        return
    assert a is not None
    assert b is not None
    kind = kind_of(a, b, differs=True)
    after = ((place, entries[place]) for place in range(first + 1, len(entries)))
    later = next((place for place, entry in after if entry.a is a or entry.b is b), None)
    if later is None or entries[later].kind == "moved" or kind in SMALL:
        return
    other = entries[later]
    entries[first] = replace(entry, kind=kind, a=a, b=b)
    if other.a is not None and other.b is not None:
        only_a, only_b = (other.a, None) if entry.kind == "removed" else (None, other.b)
        entries[later] = replace(other, kind=entry.kind, a=only_a, b=only_b)
    else:
        del entries[later]


def _is_answer(step: Step | None) -> bool:
    return step is not None and step.type == "llm" and not step.node.children


def _mark_answers(entries: Sequence[_Entry]) -> None:
    """Mark different text after the divergence as `answer`: it is paired by place only, and may mean the opposite."""
    for entry in entries:
        if entry.kind == "words" and entry.a is not None and entry.b is not None and entry.a.says:
            is_other = entry.a.result != entry.b.result or entry.a.type == "message"
            entry.kind = "answer" if is_other else "words"


def _is_consequence(entry: _Entry) -> bool:
    return entry.follows and entry.kind in ("result", "status", "retries", "figures", "words", "answer")


def _step_fields(a: Step | None, b: Step | None) -> Iterator[FieldChange]:
    if a is None or b is None or a.key.sort != b.key.sort:
        return  # steps of another type or label: comparing their members is meaningless
    yield from field_changes("type", a.span.schema_name, b.span.schema_name)
    yield from field_changes("label", a.span.label, b.span.label)
    yield from field_changes("attempts", a.attempts, b.attempts)
    yield from _changes("payload", a.span.payload, b.span.payload)
    yield from field_changes("status", a.span.status, b.span.status)
    yield from _changes("result", a.span.result_payload, b.span.result_payload)
