"""Stores OpenTelemetry spans of exporters and files. Spans may arrive in any order and any number of times.

Storing is idempotent: the ids of runs and spans are derived from OpenTelemetry's ids, so a span that is stored already
adds nothing. A stored span is updated when a later span or log record changes it: a call of a model turns out to be
recorded twice, the agent of a handoff begins, or the messages of a call come in log records. A run is updated when its
root span comes last.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import groupby, islice
from time import monotonic
from typing import Any, NamedTuple

from agentspan import clock
from agentspan.api.context import ATTEMPTS, Context
from agentspan.arriving.identity import span_id
from agentspan.arriving.stored import BATCH, about_of, object_of, put_rows, puts_of, refused_puts
from agentspan.errors import DatabaseBusy, InvalidValue
from agentspan.host import undoing
from agentspan.model.changes import Move, Remove, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, AgentVersionRow, OtelLogRow, ScoreRow, Value
from agentspan.otel import copies
from agentspan.otel.identity import caller_id, carried
from agentspan.otel.mapping.draft import JSON_STARTS, memory_of, values_in
from agentspan.otel.mapping.judgements import RESULT, score_in, scores_in
from agentspan.otel.mapping.mapped import Mapped, joins, map_span, with_logs
from agentspan.otel.placing import (
    Placing,
    RecentRun,
    RecentTrace,
    RecentTraces,
    Seen,
    look_at,
    matters,
    may_repeat,
    slim,
    stored_run,
    stored_step,
)
from agentspan.otel.span import Log, OtelSpan
from agentspan.otel.stored_rows import (
    Arrived,
    end_of,
    log_of,
    log_row,
    ns_of,
    rewritten,
    rows_of,
    score_rows,
    stored_mapped,
    times_of,
)
from agentspan.otel.traces import (
    RunName,
    Step,
    conversation,
    in_order,
    name_of_trace,
    order,
    rank_of,
    root_of,
    root_span,
    run_metadata,
    trace_key,
)
from agentspan.storage.questions import Find, Query, SpansOf
from agentspan.tuning import STANDARD, Tuning

FINISHED = frozenset({"active", "complete", "failed"})
"""The statuses of a run that the end of its root span replaces. A terminated run stays terminated."""


@dataclass
class TraceChanges:
    """The changes that new spans make to one trace and its run.

    Attributes:
        trace: the cached trace of the new spans.
        new: the new spans.
        rows: the rows of the new spans, by id; `add_rows` sets them.
        again: updates of stored spans whose records change.
        relevant: the new spans that the records of other spans may depend on.
        seen: the answer of placing.look_at about the relevant spans.
        run: the columns of the run that change, with their new values.
        before: the row of the run without these changes.
        end_ns: the latest known end of a span of the run; 0 if no span has ended.
        root: the rank of the run's root span (see traces.rank_of) if it is among the new spans; else 0.
    """

    trace: RecentTrace
    new: list[Arrived] = field(default_factory=list)
    rows: dict[str, AgentSpanRow] = field(default_factory=dict)
    again: list[Move] = field(default_factory=list)
    relevant: list[Step] = field(default_factory=list)
    seen: Seen = field(default_factory=lambda: Seen({}, {}))
    run: dict[str, Value] = field(default_factory=dict)
    end_ns: int = 0
    root: int = 0

    def __post_init__(self) -> None:
        self.before = self.trace.run.row

    @property
    def duplicates(self) -> set[str]:
        """The ids of the new spans that are duplicates of a call of a model."""
        return {id for id, look in self.seen.looks.items() if look.kept is not None and id in self.rows}

    @property
    def step_bytes(self) -> dict[str, int]:
        """The estimated size in memory of each relevant new span, by its id."""
        rows = (self.rows[step.span.span_id] for step in self.relevant)
        texts = ((row.id, row.payload + (row.result_payload or "")) for row in rows)
        return {id: 1000 + 2 * len(text) + 160 * values_in(text) for id, text in texts}  # of each value and its name

    def done(self, seen_s: float) -> None:
        """Apply these changes to the cached trace and run, at the monotonic time `seen_s`."""
        run = self.trace.run
        columns: dict[str, Any] = self.run
        run.row = run.row._replace(**columns)
        if "agent_id" in columns:
            run.named = None
        run.root = max(run.root, self.root)
        run.end_ns = max(run.end_ns, self.end_ns)
        run.start_ns = min([run.start_ns, *(step.span.start_ns for step in self.relevant)])
        run.seen_s = seen_s
        self.trace.seen.update([each.own[0] for each in self.new if each.span.end_ns is not None])
        self.trace.written.update(self.seen.looks)
        if self.trace.above is not None:  # another trace may repeat another call of the shared steps
            self.trace.steps.update({step.span.span_id: step for step in self.relevant})


def changes_of(ctx: Context, placing: Placing, trace: RecentTrace, steps: Sequence[Step], now: str) -> TraceChanges:
    """Return the changes that spans make to their trace and its run. Spans that are known to be stored are left out.

    Args:
        steps: the spans of the trace, sorted by start time.
        now: the current time as stored text.
    """
    run = trace.run
    new: list[tuple[Step, tuple[str, str | None]]] = []
    id_of = cache(partial(span_id, run.row.id, trace.id))  # each id is hashed once: siblings share their parent
    for step in steps:
        own, parent = id_of(step.span.span_id), step.span.parent_span_id
        if own not in trace.seen:
            above = trace.above if parent is None else id_of(parent)
            if step.span.trace_state:
                above = parent and caller_id(run.row.id, carried(step.span.trace_state), trace.id, parent)
            new.append((step, (own, above)))
    found = TraceChanges(trace)
    if not new:
        return found
    slimmed = (slim(step, *own) for step, own in new if matters(step.mapped) and own[0] not in trace.steps)
    found.relevant = [*slimmed]
    if found.relevant:
        found.seen = look_at(trace, found.relevant)
    ends = (step.span.end_ns for step, _ in new if step.span.end_ns is not None)
    found.end_ns = max([run.end_ns, *ends])
    looks = found.seen.mapped
    end_ns = found.end_ns or None
    found.new = [Arrived(step.span, looks.get(own[0], step.mapped), run.row, own, end_ns) for step, own in new]
    if looks:
        here = {own[0] for _, own in new}
        found.again = moves_of(ctx, trace, {id: mapped for id, mapped in looks.items() if id not in here}, now)
    _add_run(ctx, placing, found, [step for step, _ in new], now)
    return found


def add_rows(ctx: Context, found: Sequence[TraceChanges], now: str) -> None:
    """Set the rows of the new spans of traces."""
    rows = iter(rows_of(ctx, [each for changes in found for each in changes.new], now))
    for changes in found:
        changes.rows = {row.id: row for row in islice(rows, len(changes.new))}


def moves_of(ctx: Context, trace: RecentTrace, anew: Mapping[str, Mapped], now: str) -> list[Move]:
    """Return the updates that store new records of a trace's spans.

    Args:
        anew: the new records by the ids of their spans, which must be among the steps of the trace.
    """
    end_ns = trace.run.end_ns or None
    arrived: list[Arrived] = []
    for id, mapped in anew.items():
        span = trace.steps[id].span
        arrived.append(Arrived(span, mapped, trace.run.row, (id, span.parent_span_id), end_ns))
    return [*map(rewritten, rows_of(ctx, arrived, now))]


def _add_run(ctx: Context, placing: Placing, found: TraceChanges, new: Sequence[Step], now: str) -> None:
    """Set `found.run`: the columns of the run that its new spans change. A run that a program records is unchanged."""
    run = found.trace.run
    if run.is_recorded:
        return
    _add_scopes(run, new)
    first_ns = min(run.start_ns, new[0].span.start_ns)
    times = times_of(first_ns, found.end_ns or None)
    columns: dict[str, Value] = {"started_at": times.started_at}
    root = root_of(new) if run.is_own and found.trace.above is None else None
    if root is not None and rank_of(root.span) > run.root:
        found.root = rank_of(root.span)
        named = name_of_trace(root.span, root.mapped.run, is_own=root.mapped.run.is_own)
        columns |= placing.renamed(ctx, run, named, now)
        columns |= end_of(ctx, root.mapped, is_ended=root.span.end_ns is not None, times=times, now=now)
        scopes = sorted(run.scopes, key=lambda name: run.scopes[name])
        columns["metadata"] = object_of(ctx, run_metadata(root.span.resource, scopes, found.trace.id))
    elif run.row.status in ("complete", "failed"):
        columns |= {"finished_at": times.finished_at, "duration_ms": times.duration_ms}
    ordered = (root, *new) if found.root and root is not None else new
    for side, newest in zip(("session", "user"), conversation(ordered), strict=True):
        columns[side] = _about(run, getattr(run.row, side), about_of(ctx, newest), has_root=found.root > 0)
    run.start_ns = first_ns
    if not found.root:  # the end from a root is always written: another process may have closed the run meanwhile
        columns = {name: value for name, value in columns.items() if getattr(run.row, name) != value}
    found.run = columns


def _about(run: RecentRun, stored: Value, newest: str | None, *, has_root: bool) -> Value:
    """Return the new session or user of a run.

    In the run of one trace, the root's value wins over a stored value, and a stored value over that of another span. In
    the run of a process, the value becomes None if its traces differ.
    """
    if not run.is_own:
        return newest if stored == newest or not run.end_ns else None
    return newest if newest is not None and (stored is None or has_root) else stored


def _add_scopes(run: RecentRun, steps: Sequence[Step]) -> None:
    """Note the instrumentors of new steps, which are sorted by start time."""
    firsts = {step.span.scope.name: step.span.start_ns for step in reversed(steps)}
    for name, start_ns in firsts.items():
        if name:
            run.scopes[name] = min(start_ns, run.scopes.get(name, start_ns))


def units_of_run(run_id: str, columns: Mapping[str, Value], now: str) -> list[Unit]:
    """Return the units that set columns of a run. The storage copies a new agent to the run's spans."""
    if not columns:
        return []
    return [Unit((Move("agent_instance", run_id, FINISHED, {**columns, "updated_at": now}),))]


_KEY = trace_key("").partition(":")[0] + ":"


class _Outline(NamedTuple):
    """The part of a stored span that the end of its run needs: all payloads of a run may not fit into memory."""

    started_at: str
    id: str
    parent: str | None
    end_ns: int


def _row(ctx: Context, id: str, instance_id: str) -> AgentSpanRow:
    _, row = ctx.storage.ask(Find(id, instance_id=instance_id)).rows[id]
    assert isinstance(row, AgentSpanRow)
    return row


def is_to_end(run: RecentRun) -> bool:
    """Return whether a run is active and this receiver must end it, because no program records it."""
    return run.row.status == "active" and not run.is_recorded


def end(ctx: Context, placing: Placing, run: RecentRun) -> bool:
    """End an active run; return whether it was ended. A run that a program records itself goes on.

    A run whose root span is missing gets the end of its first span, a guess that the root replaces when it comes.
    """
    if not is_to_end(run):
        return False
    before, now = run.row, clock.now()
    has_spans = run.is_own or run.is_loaded
    rows = ctx.storage.ask(SpansOf(before.id)) if has_spans else ()
    spans = [_Outline(row.started_at or "", row.id, row.parent_span_id, ns_of(row.finished_at)) for row in rows]
    times = times_of(run.start_ns, max([run.end_ns, *(span.end_ns for span in spans)]) or None)
    columns: dict[str, Any] = {"finished_at": times.finished_at, "duration_ms": times.duration_ms}
    columns["status"] = "complete"
    ids = {span.id for span in spans}
    tops = [span for span in spans if span.parent not in ids] if run.is_own else []
    if tops:
        mapped = stored_mapped(_row(ctx, min(tops).id, before.id))
        columns |= placing.renamed(ctx, run, _named(ctx, run, mapped), now)
        columns |= end_of(ctx, mapped, is_ended=True, times=times, now=now)
        columns |= {"closed_by": "abandoned", "closed_at": now}
    ctx.storage.apply(units_of_run(before.id, columns, now), wait_s=ctx.wait_s)
    if "agent_id" in columns:
        placing.remove_unused(ctx, [before])
    run.row = before._replace(**columns)
    return True


def _named(ctx: Context, run: RecentRun, mapped: Mapped) -> RunName:
    """Return the name of a run whose root is missing, taken from its first span."""
    version = ctx.row(AgentVersionRow, run.row.agent_version_id).external_identifier
    name = mapped.payload.get("name") if mapped.type == "agent" else mapped.payload.get("otel", {}).get("name")
    return RunName(run.row.external_identifier or "", name if type(name) is str else mapped.schema_name, version)


def open_runs(ctx: Context) -> Iterator[AgentInstanceRow]:
    """Yield the active runs that came from OpenTelemetry."""
    for row in ctx.storage.ask(Query("agent_instance", {"status": "active"})).rows:
        if isinstance(row, AgentInstanceRow) and (row.external_identifier or "").startswith(_KEY):
            yield row


END_TOGETHER = 20
"""The most runs that one commit ends. It takes 15 ms, in which no other program can write."""
KEEP_LOGS_S = 600.0
"""The seconds that log records are kept, while their span and other log records of the span may still come."""
Logs = Mapping[tuple[str, str], Sequence[Log]]
"""Log records, by the pair of trace id and span id."""


class Stored(NamedTuple):
    """The numbers of runs and spans that were stored.

    Attributes:
        runs, spans: the numbers of new runs and new spans.
        duplicates: the number of new spans that are duplicates of a call of a model.
        known: the number of spans that were stored already.
        skipped: the number of spans that are no steps, such as Logfire's spans for the begin of another span.
    """

    runs: int = 0
    spans: int = 0
    duplicates: int = 0
    known: int = 0
    skipped: int = 0


class _Gone(Exception):
    """A cached run is no longer in the storage."""


class Receiver:
    """Stores the spans of requests in one storage. Threads may share a receiver; one thread stores at a time.

    Args:
        ctx: the context of the storage.
        tuning: sizes and times, which tests change.
    """

    def __init__(self, ctx: Context, *, tuning: Tuning = STANDARD) -> None:
        self._ctx = ctx
        self._tuning = tuning
        self._ends = False
        self._lock = threading.Lock()
        self._recent = RecentTraces(tuning.otel_traces)
        self._placing = Placing(self._recent)
        self._has_looked = False

    def store(self, found: Iterable[OtelSpan], logs: Iterable[Log] = (), *, is_whole: bool = False) -> Stored:
        """Store spans with their runs, and log records. Returns when all are committed.

        Args:
            found: spans in any order. Of two spans with the same id, the one that has ended is stored.
            logs: log records of these or other spans. Only messages of calls and scores are used.
            is_whole: whether no more spans of these traces will come, as for a file. Then their runs end at once.

        Raises:
            DatabaseBusy: other writers held the write lock for too long, or `stop` was called. Part of the spans may
                be stored: send them again.
            NotPermitted: the storage is read only.
            InvalidValue: another process removed the runs again and again while their spans were stored.
        """
        spans, records = _once(found), [*logs]
        copied = [span for span in spans if copies.is_copy(span)]
        spans = [span for span in spans if not copies.is_copy(span)] if copied else spans
        copied_scores = [log for log in records if copies.is_score(log)]
        records = [log for log in records if not copies.is_score(log)] if copied_scores else records
        with self._lock, undoing(self._forget):  # the cache may differ from the storage
            runs, new, known = copies.store(self._ctx, copied)
            copies.store_sent_scores(self._ctx, copied_scores)
            done = self._store(spans, records, is_whole=is_whole)
        return done._replace(runs=done.runs + runs, spans=done.spans + new, known=done.known + known)

    def stop(self) -> None:
        """Let a `store` that runs in another thread, and all later ones, raise DatabaseBusy before the next commit."""
        self._ends = True

    def end_idle(self, idle_s: float, most: int | None = None) -> int:
        """End the runs that received no span for `idle_s` seconds; return their number. Also remove old log records.

        Args:
            idle_s: the seconds without a span after which a run ends.
            most: the most runs to end in this call; a request may leave 3,000.
        """
        with self._lock:
            if not self._has_looked:  # another server may have left runs open
                for row in open_runs(self._ctx):
                    self._recent.runs.setdefault(row.id, stored_run(row, monotonic()))
                self._has_looked = True
            self._remove_old_logs()
            idle = filter(is_to_end, self._recent.idle(monotonic() - idle_s))
            ended = 0
            while ended != most and not self._ends:
                runs = [*islice(idle, END_TOGETHER if most is None else min(END_TOGETHER, most - ended))]
                if not runs:
                    break
                ended += self._ended(runs)
            return ended

    def _ended(self, runs: Sequence[RecentRun]) -> int:
        """End runs in one commit; return how many of them were active."""
        count = 0

        def work(ctx: Context) -> None:
            nonlocal count
            count = sum(end(ctx, self._placing, run) for run in runs)

        with undoing(self._forget):  # then the next `end_idle` searches the storage for active runs
            self._grouped(work)
        return count

    def _forget(self) -> None:
        self._recent.forget()
        self._placing.forget()
        self._has_looked = False

    def _store(self, spans: Sequence[OtelSpan], records: Sequence[Log], *, is_whole: bool) -> Stored:
        logs = _by_span(records) if is_whole else self._with_stored_logs(spans, records)
        judged, logs = _parted(logs)
        done = Stored()
        for portion in [spans] if is_whole else portions(spans, self._tuning.otel_portion_bytes):
            more = self._store_portion(portion, logs, is_whole=is_whole)
            done = Stored(*map(sum, zip(done, more, strict=True)))
        self._add_scores(spans, judged)
        if logs:
            here = {(span.trace_id, span.span_id) for span in spans}
            self._add_messages({which: found for which, found in logs.items() if which not in here})
        if is_whole:
            idle = filter(is_to_end, self._recent.idle(monotonic() + 1.0))
            while runs := [*islice(idle, END_TOGETHER)]:
                self._ended(runs)
        return done

    def _store_portion(self, spans: Sequence[OtelSpan], logs: Logs, *, is_whole: bool) -> Stored:
        """Map and store one portion of spans. Mapped spans take many times the memory of their texts."""
        if logs:
            mapped = [Step(span, map_span(span, logs.get((span.trace_id, span.span_id), ()))) for span in spans]
        else:
            mapped = [Step(span, map_span(span)) for span in spans]
        steps = [step for step in mapped if step.mapped.is_step]
        traces: dict[str, list[Step]] = {}
        for step in in_order(steps):
            traces.setdefault(step.span.trace_id, []).append(step)
        before = self._placing.registered
        for attempt in range(ATTEMPTS):
            try:
                new, repeated = self._store_traces(traces, is_whole=is_whole)
                break
            except _Gone:
                self._forget()
                if attempt == ATTEMPTS - 1:
                    raise InvalidValue("run", "it was removed while its spans were stored") from None
        return Stored(
            self._placing.registered - before, new, repeated, len(steps) - new, skipped=len(mapped) - len(steps)
        )

    def _store_traces(self, traces: Mapping[str, list[Step]], *, is_whole: bool) -> tuple[int, int]:
        """Store the spans of traces; return the number of new spans, and how many of the new spans are duplicates."""
        new = repeated = 0
        for batch in _batches(traces):
            if self._ends:
                raise DatabaseBusy("the server ends; send it again")
            now = clock.now()
            if not self._recent.has(batch):  # if all traces are cached, the transaction would be empty
                self._grouped(partial(self._placing.place, traces=batch, now=now, is_whole=is_whole))
            found: list[TraceChanges] = []
            for trace_id, steps in batch.items():
                trace = self._recent.get(trace_id)
                assert trace is not None
                found.append(changes_of(self._ctx, self._placing, trace, steps, now))
                found[-1].done(monotonic())
            add_rows(self._ctx, found, now)
            known = self._apply(found, now)
            for changes in found:
                new += len(changes.rows.keys() - known)
                repeated += len(changes.duplicates - known)
                self._recent.keep(changes.trace, changes.relevant, changes.step_bytes, 120 * len(changes.rows))
        return new, repeated

    def _grouped(self, work: Callable[[Context], object]) -> None:
        """Run a function whose writes are all in one commit."""
        self._ctx.storage.group(lambda lent: work(self._ctx.within(lent)), self._ctx.wait_s)

    def _apply(self, found: Sequence[TraceChanges], now: str) -> set[str]:
        """Commit the changes of traces; return the ids of the spans that were stored already."""
        rows = {row.id: row for changes in found for row in changes.rows.values()}
        waiting = puts_of([*rows.values()])
        for changes in found:
            waiting += [Unit((move,)) for move in changes.again]
            waiting += units_of_run(changes.before.id, changes.run, now)
        known: set[str] = set()
        for put, stored in refused_puts(self._ctx, waiting):
            if not isinstance(stored, AgentSpanRow):
                raise _Gone
            known.add(put.id)
            if stored.closed_by == "abandoned" and rows[put.id].closed_by is None:  # the end of the span has come
                waiting.append(Unit((rewritten(rows[put.id]),)))
        self._placing.remove_unused(self._ctx, [changes.before for changes in found if "agent_id" in changes.run])
        return known

    def _with_stored_logs(self, spans: Iterable[OtelSpan], records: Iterable[Log]) -> Logs:
        """Store log records; return all stored log records of the traces of these spans and records."""
        storage, now = self._ctx.storage, clock.now()
        new = [log_row(self._ctx, log, now) for log in records if joins(log.event.name) or log.event.name == RESULT]
        put_rows(self._ctx, new)
        if not storage.ask(Query("otel_log", limit=1)).rows:
            return {}
        found: list[Log] = []
        for trace_id in {span.trace_id for span in spans} | {row.trace_id for row in new}:
            rows = storage.ask(Query("otel_log", {"trace_id": trace_id})).rows
            found += [log_of(row) for row in rows if isinstance(row, OtelLogRow)]
        return _by_span(found)

    def _add_scores(self, spans: Iterable[OtelSpan], logs: Logs) -> None:
        """Store the scores in spans, and the scores in log records of stored traces."""
        scores = {(span.trace_id, span.span_id): found for span in spans if (found := scores_in(span))}
        for which, of_span in logs.items():
            found = [each for log in of_span if (each := score_in(log.event)) is not None]
            scores[which] = [*scores.get(which, ()), *found]
        rows: list[ScoreRow] = []
        for (trace_id, span), found in scores.items():
            trace = self._placing.known(self._ctx, trace_id)
            if trace is not None:  # without a trace, its spans will come later, and read the stored log records
                run_id = trace.run.row.id
                own = span_id(run_id, trace_id, span) if span else None
                rows += score_rows(found, run_id, own, self._ctx.account.partition, self._ctx.admit_text)
        put_rows(self._ctx, rows)

    def _remove_old_logs(self) -> None:
        storage = self._ctx.storage
        before = clock.to_text(clock.wall_ns() - int(KEEP_LOGS_S * 1e9))
        while rows := [
            row
            for row in storage.ask(Query("otel_log", limit=BATCH)).rows
            if isinstance(row, OtelLogRow) and row.inserted_at < before
        ]:
            storage.apply([Unit((Remove("otel_log", row.id),)) for row in rows], wait_s=self._ctx.wait_s)

    def _add_messages(self, logs: Logs) -> None:
        """Update stored spans by the messages of log records that came after the spans."""
        for trace_id, of_trace in groupby(sorted(logs), key=lambda which: which[0]):
            trace = self._placing.known(self._ctx, trace_id)
            if trace is None:
                continue  # the spans will come later, and read the stored log records
            anew = [id for _, span in of_trace if (id := self._with_messages(trace, span, logs[trace_id, span]))]
            if anew:
                seen = look_at(trace, (), anew)
                units = [Unit((move,)) for move in moves_of(self._ctx, trace, seen.mapped, clock.now())]
                self._ctx.storage.apply(units, wait_s=self._ctx.wait_s)
                trace.written.update(seen.looks)

    def _with_messages(self, trace: RecentTrace, span: str, logs: Sequence[Log]) -> str | None:
        """Add the messages of log records to a cached step, and return its id in agentspan.

        Returns None if the span is not stored, or has the messages already.
        """
        id = span_id(trace.run.row.id, trace.id, span)
        step = trace.steps.get(id)
        if step is None:
            _, row = self._ctx.storage.ask(Find(id, instance_id=trace.run.row.id)).rows.get(id, (None, None))
            if not isinstance(row, AgentSpanRow):
                return None
            step = stored_step(trace.id, row)
        mapped = with_logs(step.mapped, logs)
        if mapped == step.mapped:
            return None
        trace.steps[id] = Step(step.span, mapped)
        return id


def _parted(logs: Logs) -> tuple[Logs, Logs]:
    """Split log records into those that are scores and the others."""
    if not any(log.event.name == RESULT for found in logs.values() for log in found):
        return {}, logs
    records = [log for found in logs.values() for log in found]
    scores = [log for log in records if log.event.name == RESULT]
    return _by_span(scores), _by_span(log for log in records if log.event.name != RESULT)


def _once(found: Iterable[OtelSpan]) -> list[OtelSpan]:
    """Return the spans without repetitions. Of two spans with the same id, the one that has ended is kept."""
    once: dict[tuple[str, str], OtelSpan] = {}
    for span in found:
        id = (span.trace_id, span.span_id)
        if id not in once or once[id].end_ns is None:
            once[id] = span
    return [*once.values()]


def _by_span(logs: Iterable[Log]) -> Logs:
    joined: dict[tuple[str, str], list[Log]] = {}
    for log in logs:
        joined.setdefault((log.trace_id, log.span_id), []).append(log)
    return joined


def portions(spans: Sequence[OtelSpan], most_bytes: int) -> Iterator[Sequence[OtelSpan]]:
    """Split spans into portions, each of which takes about `most_bytes` or less in memory when it is mapped.

    Nearly every request is one portion. Otherwise traces come in the order of their starts, and a trace that is too
    large comes with its root first. Such a trace is stored as if each portion had come in a request of its own.
    """
    sizes = {id(span): _mapped_bytes(span) for span in spans}
    if sum(sizes.values()) <= most_bytes:
        yield spans
        return
    traces: dict[str, list[OtelSpan]] = {}
    for span in sorted(spans, key=order):
        traces.setdefault(span.trace_id, []).append(span)
    portion: list[OtelSpan] = []
    room = most_bytes
    for trace in traces.values():
        size = sum(sizes[id(span)] for span in trace)
        if size > most_bytes:
            root = root_span(trace)
            trace = [root, *(span for span in trace if span is not root)]
        for group in [trace] if size <= most_bytes else [[span] for span in trace]:
            size = sum(sizes[id(span)] for span in group)
            if portion and size > room:
                yield portion
                portion, room = [], most_bytes
            portion += group
            room -= size
    yield portion


def _mapped_bytes(span: OtelSpan) -> int:
    """Return the estimated upper limit of the bytes that a span takes in memory when it is mapped."""
    size = 1000
    for attributes in (span.attributes, *[event.attributes for event in span.events]):
        for value in attributes.values():
            if value[:1] in JSON_STARTS if type(value) is str else type(value) in (list, dict):
                size += memory_of(value)
    return size


def _batches(traces: Mapping[str, list[Step]]) -> Iterator[dict[str, list[Step]]]:
    """Yield whole traces, about BATCH spans at a time: of each BATCH, those that may repeat calls come after others.

    Traces of LiteLLM's callback come after all others: each begins just before the call that it repeats.
    """
    ranks = {trace_id: int(may_repeat(steps)) for trace_id, steps in traces.items()}
    for are_last in (False, True):
        batch: tuple[dict[str, list[Step]], ...] = ({}, {})
        count = 0
        for trace_id, steps in traces.items():
            if (ranks[trace_id] == 2) is not are_last:
                continue
            if count and count + len(steps) > BATCH:
                yield from filter(None, batch)
                batch, count = ({}, {}), 0
            batch[ranks[trace_id] % 2][trace_id] = steps
            count += len(steps)
        yield from filter(None, batch)


def import_spans(ctx: Context, found: Iterable[OtelSpan], logs: Iterable[Log] = ()) -> Stored:
    """Store the spans of a file with their runs, which end at once. Spans that are stored already stay unchanged.

    Args:
        found: spans in any order. Of two spans with the same id, the one that has ended is stored.
        logs: the log records of these spans.
    """
    return Receiver(ctx).store(found, logs, is_whole=True)
