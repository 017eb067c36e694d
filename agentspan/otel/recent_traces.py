"""Recent traces: remembers of earlier spans as much as the records of later ones depend on.

Which span of a call is kept, and to which agent a handoff goes, depends on all spans of a trace. So the spans on which
that depends stay in memory while their trace is recent. Those that look different after a new one are stored anew.
A trace may only repeat a call of another one: LiteLLM's own callback may record it in a trace of its own.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from agentspan.model.rows import AgentInstanceRow
from agentspan.otel import duplicates
from agentspan.otel.duplicates import Call, call_of, nearest
from agentspan.otel.mapping.mapped import Mapped
from agentspan.otel.mapping.sdks import LITELLM_SCOPE
from agentspan.otel.span import OtelSpan
from agentspan.otel.traces import RunName, Step, in_order, with_targets
from agentspan.tuning import STANDARD

MAX_BYTES = 64 * 2**20
"""Bytes of the attributes of remembered spans, about."""
MAX_CALLS = 2000
"""Calls of a trace that a new one is compared with, the latest ones."""
MAX_STEPS = 2 * MAX_CALLS
"""Spans of a trace that are remembered because others may depend on them, the ones that came last."""
_MATTER = frozenset({"llm", "agent", "handoff"})


@dataclass(slots=True)
class RecentRun:
    """A run that gets spans.

    Attributes:
        row: as it is stored.
        is_own: whether it is one trace; else it is a process.
        root: how sure it is that its root has come, which it has ended with: 0 for not, else traces.rank_of.
        start_ns, end_ns: when its first span began, and its last one ended; 0 if no end is known.
        scopes: its instrumentors, with when each began first.
        seen_s: when it got its last span, on the monotonic clock.
        is_loaded: whether it has spans of before, which may have ended later than those that are known.
        named: what it was registered with, if it was here.
    """

    row: AgentInstanceRow
    is_own: bool
    root: int
    start_ns: int
    end_ns: int
    scopes: dict[str, int] = field(default_factory=dict)
    seen_s: float = 0.0
    is_loaded: bool = False
    named: RunName | None = None

    @property
    def is_recorded(self) -> bool:
        """True if a program records it into this storage itself: then it also names and ends it."""
        return self.row.writer_id is not None


class CallsOfTrace:
    """The calls of models in a trace, as far as it takes to see that none can repeat another.

    That is so in most traces: one instrumentor recorded all calls, and none of them is in another.
    """

    __slots__ = ("_above", "_ids", "_scope", "are_apart")

    def __init__(self) -> None:
        self.are_apart = True
        self._scope: str | None = None
        self._ids: set[str] = set()
        self._above: set[str | None] = set()

    def add(self, steps: Sequence[Step]) -> bool:
        """Add new steps; return whether each of all steps so far is recorded as it is, whatever the others are."""
        if self.are_apart:
            for span, mapped in steps:
                if mapped.type == "llm":
                    self._ids.add(span.span_id)
                    self._above.add(span.parent_span_id)
                    self._scope = span.scope.name if self._scope is None else self._scope
                if mapped.type == "handoff" or (mapped.type == "llm" and span.scope.name != self._scope):
                    self.are_apart = False
            self.are_apart = self.are_apart and self._ids.isdisjoint(self._above)
        return self.are_apart


@dataclass(slots=True)
class RecentTrace:
    """A trace of which spans are stored.

    Attributes:
        steps: the spans on which others depend, by their id in agentspan. Their ids and their parents' are agentspan's.
        written: the Look of each of them in the storage, by the same id.
        seen: the spans that are stored, as far as it is known.
        bytes: what it takes in memory, about.
        sizes: what each of its steps takes of that.
        calls: tells whether steps can depend on others at all.
        above: the id of the call that it tells of again, which is in another trace; None of nearly all.
    """

    id: str
    run: RecentRun
    steps: dict[str, Step] = field(default_factory=dict)
    written: dict[str, "Look"] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    bytes: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    calls: CallsOfTrace = field(default_factory=CallsOfTrace)
    above: str | None = None

    def beside(self, id: str, above: str) -> "RecentTrace":
        """Return a trace that tells of a call of this one again: the steps of both depend on each other."""
        return replace(self, id=id, seen=set(), bytes=0, above=above)


class Look(NamedTuple):
    """The part of a span's record that depends on other spans.

    Attributes:
        kept: the id of the span that it repeats, or None.
        twins: the ids of the spans that repeat it.
        target: the agent that it hands over to, or None.
    """

    kept: str | None = None
    twins: tuple[str, ...] = ()
    target: str | None = None


ALONE = Look()
_NOTHING: Mapping[str, Any] = {}
"""Stands for all that such a span does not keep: to make a dict for each takes as long as all the rest of it."""


def slim(step: Step, id: str, parent: str | None) -> Step:
    """Return a step by its ids in agentspan, without its attributes."""
    span = step.span
    about = span.trace_id, id, parent, span.name, span.start_ns, span.end_ns
    bare = OtelSpan(*about, "INTERNAL", "UNSET", None, _NOTHING, (), (), span.scope, _NOTHING, "", _NOTHING)
    return Step(bare, step.mapped)


def matters(mapped: Mapped) -> bool:
    """Return whether the record of other spans may depend on a span."""
    return mapped.type in _MATTER


class Seen(NamedTuple):
    """The steps of a trace that matter, each as it is to be recorded.

    Attributes:
        looks: of all of them, by id; of the new ones if none depends on another.
        mapped: of those whose look is not what is stored.
    """

    looks: dict[str, Look]
    mapped: dict[str, Mapped]


def look_at(trace: RecentTrace, new: Sequence[Step], anew: Iterable[str] = ()) -> Seen:
    """Return the steps of a trace that are to be stored, or stored anew, after new ones have come.

    Args:
        new: slim steps.
        anew: the ids of steps that are stored anew in any case.
    """
    if trace.calls.add(new) and not anew:
        return Seen({step.span.span_id: ALONE for step in new}, {})
    known = {**trace.steps, **{step.span.span_id: step for step in new}}
    ordered = with_targets(in_order(known.values()))
    by_id = {step.span.span_id: step.mapped for step in ordered}
    calls: list[Call] = [call for step in ordered if (call := call_of(*step)) is not None][-MAX_CALLS:]
    kept_of = duplicates.duplicates(calls) if len(calls) > 1 else {}
    twins = duplicates.twins_of(kept_of)
    looks = {id: Look(kept_of.get(id), tuple(sorted(twins.get(id, ()))), _target(by_id[id])) for id in by_id}
    again = set(anew)
    changed = {id for id, look in looks.items() if id in again or trace.written.get(id) != look}
    return Seen(looks, duplicates.as_recorded(by_id, kept_of, changed))


def _target(mapped: Mapped) -> str | None:
    target = mapped.payload.get("to_agent") if mapped.type == "handoff" else None
    return target if type(target) is str else None


class RecentTraces:
    """The recent traces, by their ids; the ones that got no span for longest are forgotten first.

    Args:
        most: traces that are remembered.
    """

    def __init__(self, most: int = STANDARD.otel_traces) -> None:
        self._most = most
        self._traces: OrderedDict[str, RecentTrace] = OrderedDict()
        self.runs: dict[str, RecentRun] = {}
        self.processes: dict[str, RecentRun] = {}
        self._bytes = 0

    def get(self, trace_id: str) -> RecentTrace | None:
        """Return a trace, if it is remembered."""
        found = self._traces.get(trace_id)
        if found is not None:
            self._traces.move_to_end(trace_id)
        return found

    def all(self) -> list[RecentTrace]:
        """Return the traces that are remembered."""
        return [*self._traces.values()]

    def has(self, trace_ids: Iterable[str]) -> bool:
        """Return whether all of these traces are remembered."""
        return all(id in self._traces for id in trace_ids)

    def add(self, trace: RecentTrace) -> None:
        """Remember a trace."""
        self._traces[trace.id] = trace
        self.runs[trace.run.row.id] = trace.run
        if not trace.run.is_own:
            self.processes[trace.run.row.external_identifier or ""] = trace.run

    def keep(self, trace: RecentTrace, steps: Iterable[Step], sizes: Mapping[str, int], size: int) -> None:
        """Remember steps of a trace.

        Args:
            sizes: bytes of each step, by its id.
            size: bytes of all else that is remembered of the trace since the last time.
        """
        before = trace.bytes
        for step in steps:
            id = step.span.span_id
            trace.steps[id] = step
            trace.sizes[id] = sizes[id]
        trace.bytes += sum(sizes.values()) + size
        while trace.steps and (len(trace.steps) > MAX_STEPS or trace.bytes > MAX_BYTES):
            id = next(iter(trace.steps))
            del trace.steps[id]
            trace.written.pop(id, None)
            trace.bytes -= trace.sizes.pop(id, 0)
        if trace.bytes > MAX_BYTES:  # the storage says which spans it has, which takes longer
            trace.seen.clear()
        self._bytes += trace.bytes - before
        while len(self._traces) > self._most or (self._bytes > MAX_BYTES and len(self._traces) > 1):
            _, gone = self._traces.popitem(last=False)
            self._bytes -= gone.bytes

    def forget(self) -> None:
        """Forget all traces: they are in the storage."""
        self._traces.clear()
        self.runs.clear()
        self.processes.clear()
        self._bytes = 0

    def idle(self, before_s: float) -> Iterator[RecentRun]:
        """Yield the runs that got no span since then, and forget them."""
        for id, run in list(self.runs.items()):
            if run.seen_s <= before_s:
                del self.runs[id]
                self.processes.pop(run.row.external_identifier or "", None)
                yield run


_SECOND = 1_000_000_000


class Original(NamedTuple):
    """A call that was told first.

    Attributes:
        trace: the trace that it is in.
        call: by its id in agentspan.
    """

    trace: RecentTrace
    call: Call


def is_repetition(steps: Sequence[Step]) -> bool:
    """Return whether a trace may only repeat a call of another one."""
    return all(duplicates.only_repeats(step.span.scope.name, step.span.kind) for step in steps)


class Originals:
    """The calls of other instrumentors, by their answer, and by their model and time.

    Args:
        known: traces of which spans are stored.
    """

    def __init__(self, known: Iterable[RecentTrace]) -> None:
        self._by_answer: dict[str, list[Original]] = defaultdict(list)
        self._by_time: dict[tuple[str, int], list[Original]] = defaultdict(list)
        self._repeated: set[str | None] = set()
        for trace in known:
            for step in trace.steps.values():
                self._add(trace, step)

    def _add(self, trace: RecentTrace, step: Step) -> None:
        call = call_of(*step)
        if call is None:
            return
        if call.scope == LITELLM_SCOPE:
            self._repeated.add(call.parent)
            return
        original = Original(trace, call)
        if call.response is not None:
            self._by_answer[call.response].append(original)
        for model in call.models:
            self._by_time[model, call.start_ns // _SECOND].append(original)

    def of(self, steps: Sequence[Step]) -> Original | None:
        """Return the call that a trace repeats; each is returned once."""
        call = next((call for step in steps if (call := call_of(*step)) is not None), None)
        found = None if call is None else nearest(call, ((each.call, each) for each in self._like(call)))
        if found is not None:
            self._repeated.add(found.call.id)
        return found

    def _like(self, call: Call) -> Iterator[Original]:
        second = call.start_ns // _SECOND
        keys = [(model, at) for model in call.models for at in (second - 1, second, second + 1)]
        for group in (self._by_answer.get(call.response or "", ()), *(self._by_time.get(key, ()) for key in keys)):
            yield from (each for each in group if each.call.id not in self._repeated)
