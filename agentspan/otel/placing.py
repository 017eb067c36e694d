"""Finds the run of each trace whose spans arrive, registers new runs, and keeps recent traces in memory.

The run of a trace is decided when its first span is stored, and kept in the table `otel_trace`. A trace whose root is
not among its first spans becomes a run of its own. Most exporters send the root last; the root then names the run.

Which span of a call is kept, and to which agent a handoff goes, depends on all spans of a trace. So calls of models,
agents and handoffs stay in memory while their trace is recent. When a new span changes the record of an earlier span,
the earlier span is stored again. A trace may also repeat a call of another trace: LiteLLM's own callback may record a
call in a trace of its own.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

from agentspan import clock
from agentspan.api.context import ATTEMPTS, Context
from agentspan.arriving.identity import run_id
from agentspan.arriving.stored import Registrar, about_of, name_of, object_of
from agentspan.errors import DatabaseBusy
from agentspan.model import registration
from agentspan.model.changes import Applied, Put, Refused, Remove, Unit
from agentspan.model.registration import DEFAULT, Registration, VersionFields
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSpanRow, OtelTraceRow, Value
from agentspan.otel import traces
from agentspan.otel.identity import carried, run_of_caller
from agentspan.otel.mapping.mapped import Mapped, is_of_framework, program_of
from agentspan.otel.mapping.sdks import LITELLM_SCOPE
from agentspan.otel.span import OtelSpan, Scope
from agentspan.otel.stored_rows import ns_of, stored_mapped
from agentspan.otel.traces import (
    Call,
    RunName,
    Step,
    call_of,
    conversation,
    in_order,
    name_of_process,
    name_of_trace,
    nearest,
    rank_of,
    root_of,
    run_metadata,
    trace_key,
    with_targets,
)
from agentspan.storage.access import unique
from agentspan.storage.questions import Query, SpansOf
from agentspan.tuning import STANDARD

MAX_BYTES = 64 * 2**20
"""The most bytes that all cached spans may take, estimated."""
MAX_CALLS = 2000
"""The most calls of a trace that are compared with each other: those that began last."""
MAX_STEPS = 2 * MAX_CALLS
"""The most spans of a trace that are cached; the spans that were added first are dropped."""
_MATTER = frozenset({"llm", "agent", "handoff"})


@dataclass(slots=True)
class RecentRun:
    """A run that receives spans.

    Attributes:
        row: the stored row of the run.
        is_own: True for the run of one trace, False for the run of a process.
        root: `traces.rank_of` the root span that ended the run; 0 if no root has come.
        start_ns, end_ns: the start of the first span and the end of the last span; `end_ns` is 0 if no end is known.
        scopes: the names of the instrumentors, each with the start of its first span.
        seen_s: the time of the last received span, on the monotonic clock.
        is_loaded: whether the run was read from the storage. Then it may have spans that ended after `end_ns`.
        named: the name that this process registered the run with; None if another process registered it.
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
        """True if a program records the run into this storage itself: then the program names and ends the run."""
        return self.row.writer_id is not None


class CallsOfTrace:
    """A cheap check whether any record of a trace can depend on another span of the trace.

    In most traces none can: one instrumentor recorded all calls of models, no call is inside another call, and there is
    no handoff. Then `are_apart` is true and nothing need be compared.
    """

    __slots__ = ("_above", "_ids", "_scope", "are_apart")

    def __init__(self) -> None:
        self.are_apart = True
        self._scope: str | None = None
        self._ids: set[str] = set()
        self._above: set[str | None] = set()

    def add(self, steps: Sequence[Step]) -> bool:
        """Add new steps; return whether still no step's record depends on another step."""
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
    """A cached trace: some of its spans are in the storage.

    Attributes:
        steps: the calls of models, agents and handoffs of the trace, by their ids in agentspan. Their `span_id` and
            `parent_span_id` are ids of agentspan, too.
        written: the stored Look of each span in `steps`, by the same id.
        seen: the ids of spans that are known to be stored; others may be stored, too.
        bytes: the estimated size of the trace in memory.
        sizes: the share of each step in `bytes`.
        calls: checks whether the records of steps can depend on other steps at all.
        above: the id of the call in another trace that this trace repeats; None for nearly all traces.
        process: the key of the process that made the trace; "" for a trace that was read from the storage.
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
    process: str = ""

    def beside(self, id: str, above: str) -> "RecentTrace":
        """Return a second trace, which repeats the call `above` of this one, in the same run.

        Both traces have the same dict of steps, because a step of one may change the record of a step of the other.
        """
        return replace(self, id=id, seen=set(), bytes=0, above=above)


class Look(NamedTuple):
    """The part of a span's record that depends on other spans.

    Attributes:
        kept: of a duplicate, the id of the kept span; else None.
        twins: of a kept span, the ids of its duplicates.
        target: of a handoff, the name of the agent that it hands over to; else None.
    """

    kept: str | None = None
    twins: tuple[str, ...] = ()
    target: str | None = None


ALONE = Look()
_NOTHING: Mapping[str, Any] = {}
"""The shared empty dict of slim spans: to make a dict for each span takes as long as the rest of `slim`."""


def slim(step: Step, id: str, parent: str | None) -> Step:
    """Return a step whose span has its ids in agentspan and no attributes, events or links, to save memory."""
    span = step.span
    about = span.trace_id, id, parent, span.name, span.start_ns, span.end_ns
    bare = OtelSpan(*about, "INTERNAL", "UNSET", None, _NOTHING, (), (), span.scope, _NOTHING, "", _NOTHING)
    return Step(bare, step.mapped)


def matters(mapped: Mapped) -> bool:
    """Return whether the records of other spans may depend on this span: a call of a model, an agent or a handoff."""
    return mapped.type in _MATTER


class Seen(NamedTuple):
    """The result of `look_at`: the looks of a trace's steps, and the records that must be stored.

    Attributes:
        looks: the look of each step that matters, by id; only of the new steps if no step depends on another.
        mapped: the records of the steps whose look differs from the stored one, by id.
    """

    looks: dict[str, Look]
    mapped: dict[str, Mapped]


def look_at(trace: RecentTrace, new: Sequence[Step], anew: Iterable[str] = ()) -> Seen:
    """Return the looks of a trace's steps after new steps have come, and the records that differ from the storage.

    Args:
        new: the new steps, from `slim`.
        anew: the ids of steps whose records are returned in any case.
    """
    if trace.calls.add(new) and not anew:
        return Seen({step.span.span_id: ALONE for step in new}, {})
    known = {**trace.steps, **{step.span.span_id: step for step in new}}
    ordered = with_targets(in_order(known.values()))
    by_id = {step.span.span_id: step.mapped for step in ordered}
    calls: list[Call] = [call for step in ordered if (call := call_of(*step)) is not None][-MAX_CALLS:]
    kept_of = traces.duplicates(calls) if len(calls) > 1 else {}
    twins = traces.twins_of(kept_of)
    looks = {id: Look(kept_of.get(id), tuple(sorted(twins.get(id, ()))), _target(by_id[id])) for id in by_id}
    again = set(anew)
    changed = {id for id, look in looks.items() if id in again or trace.written.get(id) != look}
    return Seen(looks, traces.as_recorded(by_id, kept_of, changed))


def _target(mapped: Mapped) -> str | None:
    target = mapped.payload.get("to_agent") if mapped.type == "handoff" else None
    return target if type(target) is str else None


class RecentTraces:
    """A cache of recent traces by their ids. It evicts the least recently used trace first.

    Args:
        most: the most traces that are kept.
    """

    def __init__(self, most: int = STANDARD.otel_traces) -> None:
        self._most = most
        self._traces: OrderedDict[str, RecentTrace] = OrderedDict()
        self.runs: dict[str, RecentRun] = {}
        self.processes: dict[str, RecentRun] = {}
        self.with_frameworks: dict[str, None] = {}  # the keys of processes that made calls of a framework, as a set
        self._bytes = 0

    def get(self, trace_id: str) -> RecentTrace | None:
        """Return a cached trace, which becomes the most recently used; None if it is not cached."""
        found = self._traces.get(trace_id)
        if found is not None:
            self._traces.move_to_end(trace_id)
        return found

    def all(self) -> list[RecentTrace]:
        """Return all cached traces."""
        return [*self._traces.values()]

    def has(self, trace_ids: Iterable[str]) -> bool:
        """Return whether all of these traces are cached."""
        return all(id in self._traces for id in trace_ids)

    def add(self, trace: RecentTrace) -> None:
        """Add a trace and its run to the cache."""
        self._traces[trace.id] = trace
        self.runs[trace.run.row.id] = trace.run
        if not trace.run.is_own:
            self.processes[trace.run.row.external_identifier or ""] = trace.run

    def keep(self, trace: RecentTrace, steps: Iterable[Step], sizes: Mapping[str, int], size: int) -> None:
        """Add steps to a cached trace, then evict old steps and traces until the cache is within its limits.

        Args:
            sizes: the bytes of each step, by its id.
            size: the bytes that the trace grew by apart from these steps, such as the ids in `seen`.
        """
        before = trace.bytes
        for step in steps:
            id = step.span.span_id
            trace.steps[id] = step
            trace.sizes[id] = sizes[id]
            if step.mapped.type == "llm" and is_of_framework(step.span.scope.name):
                self.with_frameworks[trace.process] = None
        trace.bytes += sum(sizes.values()) + size
        while trace.steps and (len(trace.steps) > MAX_STEPS or trace.bytes > MAX_BYTES):
            id = next(iter(trace.steps))
            del trace.steps[id]
            trace.written.pop(id, None)
            trace.bytes -= trace.sizes.pop(id, 0)
        if trace.bytes > MAX_BYTES:  # without `seen`, the storage must refuse spans that it has, which takes longer
            trace.seen.clear()
        self._bytes += trace.bytes - before
        while len(self._traces) > self._most or (self._bytes > MAX_BYTES and len(self._traces) > 1):
            _, gone = self._traces.popitem(last=False)
            self._bytes -= gone.bytes
        if len(self.with_frameworks) > self._most:
            del self.with_frameworks[next(iter(self.with_frameworks))]

    def forget(self) -> None:
        """Empty the cache. Nothing is lost: all traces are in the storage."""
        self._traces.clear()
        self.runs.clear()
        self.processes.clear()
        self.with_frameworks.clear()
        self._bytes = 0

    def idle(self, before_s: float) -> Iterator[RecentRun]:
        """Remove and yield the runs whose last span came at or before this time on the monotonic clock."""
        for id, run in list(self.runs.items()):
            if run.seen_s <= before_s:
                del self.runs[id]
                self.processes.pop(run.row.external_identifier or "", None)
                yield run


_SECOND = 1_000_000_000
LONGEST_S = 600
"""The seconds after its start for which a call of a model is searched for by time."""


class Original(NamedTuple):
    """A call of a model that another instrumentor recorded, and that a trace of its own may repeat.

    Attributes:
        trace: the trace that the call is in.
        call: the call, whose `id` is its id in agentspan.
    """

    trace: RecentTrace
    call: Call


def may_repeat(steps: Sequence[Step]) -> int:
    """Return whether a trace may repeat a call of another trace.

    Returns:
        2 if it has only spans of LiteLLM's callback. 1 if a call of a client begins it: LangChain's instrumentor makes
        no span current, so the call of the client in a call of the framework begins a trace. Else 0.
    """
    if all(traces.only_repeats(step.span.scope.name, step.span.kind) for step in steps):
        return 2
    return any(
        step.mapped.type == "llm" and step.span.parent_span_id is None and not is_of_framework(step.span.scope.name)
        for step in steps
    )


class Originals:
    """An index of the calls that a trace may repeat, by the id of the answer and by model and time.

    Args:
        known: the cached traces to search.
        since_ns: calls that ended before are left out.
    """

    def __init__(self, known: Iterable[RecentTrace], since_ns: int) -> None:
        self._since_ns = since_ns
        self._by_answer: dict[str, list[Original]] = defaultdict(list)
        self._by_time: dict[tuple[str, int], list[Original]] = defaultdict(list)
        self._repeated: set[tuple[str | None, str]] = set()
        for trace in known:
            for step in trace.steps.values():
                if step.mapped.type == "llm":
                    self._add(trace, step)

    def _add(self, trace: RecentTrace, step: Step) -> None:
        span = step.span
        self._repeated.add((span.parent_span_id, span.scope.name))
        has_ended = (span.end_ns or 0) < self._since_ns and "time_to_first_token_ms" not in (
            step.mapped.result_payload or ()
        )
        call = None if has_ended or span.scope.name == LITELLM_SCOPE else call_of(*step)
        if call is None:
            return
        original = Original(trace, call)
        if call.response is not None:
            self._by_answer[call.response].append(original)
        first, last = call.start_ns // _SECOND, call.end_ns // _SECOND
        for second in range(first, min(last, first + LONGEST_S) + 1):
            for model in call.models:
                self._by_time[model, second].append(original)

    def of(self, steps: Sequence[Step], process: str) -> Original | None:
        """Return the call that a trace of a process repeats, or None. A call is returned once for each instrumentor."""
        call = next((call for step in steps if (call := call_of(*step)) is not None), None)
        if call is None:
            return None
        like = self._like(call)
        if call.scope != LITELLM_SCOPE:  # a client, which repeats only a call of its process's framework around it
            call = call._replace(beside=call.id)
            like = (each for each in like if each.trace.process == process and is_of_framework(each.call.scope))
        found = nearest(call, ((each.call, each) for each in like))
        if found is not None:
            self._repeated.add((found.call.id, call.scope))
        return found

    def _like(self, call: Call) -> Iterator[Original]:
        second = call.start_ns // _SECOND
        keys = [(model, at) for model in call.models for at in (second - 1, second, second + 1)]
        for group in (self._by_answer.get(call.response or "", ()), *(self._by_time.get(key, ()) for key in keys)):
            yield from (each for each in group if (each.call.id, call.scope) not in self._repeated)


MOST_LOADED = 5000
"""The most spans of a run that are read when a trace goes on that is no longer in the cache."""


class Placing:
    """Finds and registers the runs of traces in one storage.

    Each method gets the context as an argument and does not keep it: the context may belong to a transaction.

    Args:
        live: the cache of recent traces, to which new traces are added.
    """

    def __init__(self, live: RecentTraces) -> None:
        self._recent = live
        self._registrar = Registrar()
        self.registered = 0

    def place(self, ctx: Context, traces: Mapping[str, Sequence[Step]], now: str, *, is_whole: bool) -> None:
        """Add the traces of new spans to the cache, with their runs. Registers the runs that are not stored yet.

        Args:
            ctx: the context of one transaction.
            traces: the new spans of each trace by its id, sorted by start time.
            now: the current time as stored text.
            is_whole: whether no more spans of these traces will come, so that a missing root stays missing.
        """
        calls: Originals | None = None
        for id, steps in traces.items():
            if (known := self._recent.get(id) or self.known(ctx, id)) is None:
                first, may = None, may_repeat(steps)
                process = program_of(steps[0].span.resource).key if may else ""
                if may and (may == 2 or process in self._recent.with_frameworks):
                    calls = calls or Originals(
                        self._recent.all(), min(each[0].span.start_ns for each in traces.values())
                    )
                    first = calls.of(steps, process)
                self._new(ctx, id, steps, now, is_whole=is_whole, first=first)
            elif not known.process:
                known.process = program_of(steps[0].span.resource).key

    def known(self, ctx: Context, trace_id: str) -> RecentTrace | None:
        """Return a trace that has a run, from the cache or the storage; None if no span of the trace is stored."""
        trace = self._recent.get(trace_id)
        if trace is None:
            row = unique(ctx.storage, OtelTraceRow, id=trace_id)  # `Find` would search every table
            if row is not None:
                instance = ctx.row(AgentInstanceRow, row.agent_instance_id)
                trace = self._loaded(ctx, trace_id, instance)
                self._recent.add(trace)
        return trace

    def forget(self) -> None:
        """Empty the cache of agents and versions: some of them may have been removed from the storage."""
        self._registrar.forget()

    def _new(
        self,
        ctx: Context,
        trace_id: str,
        steps: Sequence[Step],
        now: str,
        *,
        is_whole: bool,
        first: Original | None = None,
    ) -> None:
        root = root_of(steps)
        is_root = rank_of(root.span) > 0
        program = program_of(root.span.resource)
        caller = self._carried(ctx, steps)
        if first is not None:
            run = first.trace.run
        elif caller is not None:
            run = caller
        elif root.mapped.run.is_own or not (is_root or is_whole):
            named = name_of_trace(root.span, root.mapped.run, is_own=is_root and root.mapped.run.is_own)
            run = self._registered(ctx, named, steps, trace_id, now)
        else:
            named = name_of_process(program)
            run = self._process(ctx, named) or self._registered(ctx, named, steps, None, now)
        trace = RecentTrace(trace_id, run, process=program.key)
        trace = trace if first is None else first.trace.beside(trace_id, first.call.id)
        row = OtelTraceRow(trace_id, run.row.id, now)
        outcome = ctx.storage.apply([Unit((Put(row, minted=True),))])[0]
        if isinstance(outcome, Refused) and isinstance(outcome.stored, OtelTraceRow):  # stored by another process
            instance = ctx.row(AgentInstanceRow, outcome.stored.agent_instance_id)
            trace = self._loaded(ctx, trace_id, instance)
        self._recent.add(trace)

    def _carried(self, ctx: Context, steps: Sequence[Step]) -> RecentRun | None:
        """Return the stored run that called the service of a trace, named in its `tracestate`; None without one."""
        named = carried(next((step.span.trace_state for step in steps if step.span.trace_state), ""))
        row = None if named.run is None else run_of_caller(ctx.storage, named, steps[0].span.trace_id)
        return None if row is None else self._recent.runs.get(row.id) or stored_run(row)

    def _process(self, ctx: Context, named: RunName) -> RecentRun | None:
        known = self._recent.processes.get(named.key)
        if known is not None:
            return known
        agent = unique(ctx.storage, AgentRow, external_identifier=name_of(ctx, named.agent))
        if agent is None:
            return None
        row = unique(ctx.storage, AgentInstanceRow, agent_id=agent.id, external_identifier=named.key)
        return None if row is None else stored_run(row)

    def _loaded(self, ctx: Context, trace_id: str, instance: AgentInstanceRow) -> RecentTrace:
        """Return a trace read from the storage. If its run is one trace, the spans that others depend on are loaded."""
        run = self._recent.runs.get(instance.id) or stored_run(instance)
        trace = RecentTrace(trace_id, run)
        if not run.is_own:
            return trace
        for row in islice(ctx.storage.ask(SpansOf(instance.id)), MOST_LOADED):
            if row.schema_name in ("llm", "agent", "handoff"):
                trace.steps[row.id] = stored_step(trace_id, row)
        trace.calls.are_apart = not trace.steps
        trace.written = look_at(trace, ()).looks
        return trace

    def _registered(
        self, ctx: Context, named: RunName, steps: Sequence[Step], trace_id: str | None, now: str
    ) -> RecentRun:
        """Register a run with the status `active`, and return it."""
        first = steps[0].span
        scopes = dict.fromkeys(step.span.scope.name for step in steps if step.span.scope.name)
        session, user = conversation(steps)
        wanted = Registration(
            run_id(named.key, first.start_ns, ctx.account.partition),
            name_of(ctx, named.agent),
            VersionFields(name_of(ctx, named.version or DEFAULT)),
            self._registrar.schema,
            "live",
            object_of(ctx, run_metadata(first.resource, scopes, trace_id)),
            named.key,
            clock.to_text(first.start_ns),
            minted=True,  # the id has 80 bits of a hash, so only the table of runs is searched for it
            session=about_of(ctx, session),
            user=about_of(ctx, user),
        )
        for _ in range(ATTEMPTS):
            row, outcome = self._registrar.register(ctx, wanted)
            if isinstance(outcome, Applied):
                self.registered += 1
                return RecentRun(row, trace_id is not None, 0, first.start_ns, 0, named=named)
            if isinstance(outcome, Refused) and isinstance(outcome.stored, AgentInstanceRow):
                return stored_run(outcome.stored)  # another process has registered the run
        raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")

    def renamed(self, ctx: Context, run: RecentRun, named: RunName, now: str) -> dict[str, Value]:
        """Store the agent and version of `named`, and return the columns of the run that then change, if any."""
        if run.named == named:
            return {}
        version = VersionFields(name_of(ctx, named.version or DEFAULT))
        schema = self._registrar.schema
        wanted = Registration(run.row.id, name_of(ctx, named.agent), version, schema, "live", None, None, now)
        self._registrar.forget()  # if all rows are known, nothing is put, and a removed row would not be noticed
        for _ in range(ATTEMPTS):
            changes, referred = registration.references(wanted, self._registrar.known(ctx, wanted), ctx.ids.new, now)
            ids = [row.id for row in referred]
            if ids[:2] == [run.row.agent_id, run.row.agent_version_id]:
                return {}
            if not changes or isinstance(ctx.storage.apply([Unit(tuple(changes))])[0], Applied):
                return dict(zip(("agent_id", "agent_version_id", "agent_schema_version_id"), ids, strict=True))
            self._registrar.forget()
        raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")

    def remove_unused(self, ctx: Context, before: Sequence[AgentInstanceRow]) -> None:
        """Remove the agents and versions of these former rows of runs that no run uses any more.

        Runs were registered with them before their root spans came.
        """
        named = {(row.agent_id, row.agent_version_id, row.agent_schema_version_id) for row in before}
        for agent, version, schema in named:
            # Nearly always a run is found: to remove a version, the storage reads all runs (6 ms for 20,000).
            of_version: dict[str, Value] = {"agent_id": agent, "agent_version_id": version}
            if ctx.storage.ask(Query("agent_instance", of_version, limit=1)).rows:
                continue
            unused = (Remove("agent_schema_version", schema), Remove("agent", agent))
            ctx.storage.apply([Unit((Remove("agent_version", version),)), Unit(unused)], wait_s=ctx.wait_s)
        if named:
            self._registrar.forget()


def stored_step(trace_id: str, row: AgentSpanRow) -> Step:
    """Return a stored span as a step, whose span has its ids in agentspan."""
    mapped = stored_mapped(row)
    scope = Scope(str(mapped.payload.get("otel", {}).get("scope", "")))
    start_ns, end_ns = (ns_of(row.started_at), ns_of(row.finished_at))
    span = OtelSpan(trace_id, row.id, row.parent_span_id, row.schema_name, start_ns, end_ns, scope=scope)
    return Step(span, mapped)


def stored_run(row: AgentInstanceRow, seen_s: float = 0.0) -> RecentRun:
    """Return the RecentRun of a stored row of a run."""
    is_own = (row.external_identifier or "").startswith(trace_key(""))
    root = 2 if is_own and row.status != "active" and row.closed_by is None else 0
    return RecentRun(row, is_own, root, ns_of(row.started_at), ns_of(row.finished_at), seen_s=seen_s, is_loaded=True)
