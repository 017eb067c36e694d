"""Finds the run of each trace whose spans arrive, and registers new runs.

The run of a trace is decided when its first span is stored, and kept in the table `otel_trace`. A trace whose root is
not among its first spans becomes a run of its own. Most exporters send the root last; the root then names the run.
"""

from collections.abc import Mapping, Sequence
from itertools import islice

from agentspan import clock
from agentspan.api.context import ATTEMPTS, Context
from agentspan.errors import DatabaseBusy
from agentspan.model import registration, schema_versions
from agentspan.model.changes import Applied, Change, Put, Refused, Remove, Unit
from agentspan.model.registration import DEFAULT, References, Registration, VersionFields
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSpanRow, OtelTraceRow, Value
from agentspan.otel.identity import carried, run_id
from agentspan.otel.mapping.mapped import program_of
from agentspan.otel.recent_traces import (
    Original,
    Originals,
    RecentRun,
    RecentTrace,
    RecentTraces,
    is_repetition,
    look_at,
)
from agentspan.otel.span import OtelSpan, Scope
from agentspan.otel.stored_rows import about_of, name_of, ns_of, object_of, stored_mapped
from agentspan.otel.traces import (
    RunName,
    Step,
    conversation,
    name_of_process,
    name_of_trace,
    rank_of,
    root_of,
    run_metadata,
    trace_key,
)
from agentspan.schemas.span_types import REGISTRY
from agentspan.storage.access import references, unique
from agentspan.storage.questions import Query, SpansOf

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
        self._schema = schema_versions.fields_of(REGISTRY.items())
        self._references: dict[tuple[str, str], References] = {}
        self.registered = 0

    def place(
        self, ctx: Context, traces: Mapping[str, Sequence[Step]], now: str, *, is_whole: bool
    ) -> list[RecentTrace]:
        """Return the traces of new spans, with their runs. Registers the runs that are not stored yet.

        Args:
            ctx: the context of one transaction.
            traces: the new spans of each trace by its id, sorted by start time.
            now: the current time as stored text.
            is_whole: whether no more spans of these traces will come, so that a missing root stays missing.
        """
        for id in traces:
            if self._recent.get(id) is None:
                self.known(ctx, id)
        calls: Originals | None = None
        for id, steps in traces.items():
            if self._recent.get(id) is None:
                first = None
                if is_repetition(steps):
                    calls = calls or Originals(self._recent.all())
                    first = calls.of(steps)
                self._new(ctx, id, steps, now, is_whole=is_whole, first=first)
        return [trace for id in traces if (trace := self._recent.get(id)) is not None]

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
        self._references.clear()

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
        trace = RecentTrace(trace_id, run) if first is None else first.trace.beside(trace_id, first.call.id)
        row = OtelTraceRow(trace_id, run.row.id, now)
        outcome = ctx.storage.apply([Unit((Put(row, minted=True),))])[0]
        if isinstance(outcome, Refused) and isinstance(outcome.stored, OtelTraceRow):  # stored by another process
            instance = ctx.row(AgentInstanceRow, outcome.stored.agent_instance_id)
            trace = self._loaded(ctx, trace_id, instance)
        self._recent.add(trace)

    def _carried(self, ctx: Context, steps: Sequence[Step]) -> RecentRun | None:
        """Return the stored run that called the service of a trace, named in its `tracestate`; None without one."""
        named = carried(next((step.span.trace_state for step in steps if step.span.trace_state), "")).run
        row = None if named is None else unique(ctx.storage, AgentInstanceRow, id=named)
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
            self._schema,
            "live",
            object_of(ctx, run_metadata(first.resource, scopes, trace_id)),
            named.key,
            clock.to_text(first.start_ns),
            minted=True,  # the id has 80 bits of a hash, so only the table of runs is searched for it
            session=about_of(ctx, session),
            user=about_of(ctx, user),
        )
        for _ in range(ATTEMPTS):
            changes, row = self._changes(ctx, wanted, now)
            outcome = ctx.storage.apply([Unit(changes)], wait_s=ctx.wait_s)[0]
            if isinstance(outcome, Applied):
                self.registered += 1
                return RecentRun(row, trace_id is not None, 0, first.start_ns, 0, named=named)
            if isinstance(outcome, Refused) and isinstance(outcome.stored, AgentInstanceRow):
                return stored_run(outcome.stored)  # another process has registered the run
            self._references.clear()
        raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")

    def _changes(self, ctx: Context, wanted: Registration, now: str) -> tuple[tuple[Change, ...], AgentInstanceRow]:
        which = wanted.agent, wanted.version.external_identifier
        known = self._references.get(which)
        if known is None:
            agent = unique(ctx.storage, AgentRow, external_identifier=wanted.agent)
            known = references(ctx.storage, agent, which[1], wanted.schema.content_hash)
        changes = registration.register(wanted, known, ctx.ids.new, now)
        put = changes[-1]  # tags would come after the run, but spans of OpenTelemetry give a run no tags
        assert isinstance(put, Put)
        assert isinstance(put.row, AgentInstanceRow)
        self._references.pop(which, None)
        if None not in known:
            self._references[which] = known
        return changes, put.row

    def renamed(self, ctx: Context, run: RecentRun, named: RunName, now: str) -> dict[str, Value]:
        """Store the agent and version of `named`, and return the columns of the run that then change, if any."""
        if run.named == named:
            return {}
        version = VersionFields(name_of(ctx, named.version or DEFAULT))
        wanted = Registration(run.row.id, name_of(ctx, named.agent), version, self._schema, "live", None, None, now)
        before = run.row
        self._references.clear()  # if all rows are cached, nothing is put, and a removed row would not be noticed
        for _ in range(ATTEMPTS):
            changes, row = self._changes(ctx, wanted, now)
            if (row.agent_id, row.agent_version_id) == (before.agent_id, before.agent_version_id):
                return {}
            if len(changes) == 1 or isinstance(ctx.storage.apply([Unit(changes[:-1])])[0], Applied):
                schema = row.agent_schema_version_id
                return {
                    "agent_id": row.agent_id,
                    "agent_version_id": row.agent_version_id,
                    "agent_schema_version_id": schema,
                }
            self._references.clear()
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
            self._references.clear()


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
