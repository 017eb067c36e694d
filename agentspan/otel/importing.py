"""Stores spans of OpenTelemetry that have come whole, such as those of a file: finished, with their own times.

Idempotent: the ids of runs and spans follow from those of OpenTelemetry, so spans that are stored already stay as they
are, in whatever order and by whatever file they come again.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from agentspan import clock, jsontext
from agentspan.errors import DatabaseBusy, InvalidValue
from agentspan.model import registration, schema_versions, spans
from agentspan.model.changes import Applied, Put, Refused, Unit
from agentspan.model.registration import DEFAULT, Registration, VersionFields
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSpanRow
from agentspan.model.spans import Times
from agentspan.operations.context import ATTEMPTS, Context
from agentspan.otel import duplicates
from agentspan.otel.identity import run_id, span_id
from agentspan.otel.mapping.mapped import Mapped, map_span
from agentspan.otel.mapping.resources import program_of
from agentspan.otel.span import Log, OtelSpan
from agentspan.otel.traces import Run, Step, process_key, root_of, runs_of, trace_key
from agentspan.schemas.meaning import describe
from agentspan.schemas.span_types import MAX_NAME, REGISTRY, title_of
from agentspan.storage.lookup import references, unique
from agentspan.storage.protocol import Query
from agentspan.text import one_line

BATCH = 500
PAGE = 1000


class Imported(NamedTuple):
    """The counts of an import.

    Attributes:
        runs, spans: how many are new.
        duplicates: how many of the new spans repeat a call of a model.
        known: how many spans were stored already.
        skipped: how many spans are no steps, such as the begin of a span that is sent as a span.
    """

    runs: int
    spans: int
    duplicates: int
    known: int
    skipped: int


def import_spans(ctx: Context, found: Iterable[OtelSpan], logs: Iterable[Log] = ()) -> Imported:
    """Store spans with their runs.

    Args:
        found: in any order. A span that comes twice counts once; the one that has ended is taken.
        logs: the log records of these spans.
    """
    steps, skipped = _steps(found, logs)
    return _Import(ctx).run(steps)._replace(skipped=skipped)


def _steps(found: Iterable[OtelSpan], logs: Iterable[Log]) -> tuple[list[Step], int]:
    joined: dict[tuple[str, str], list[Log]] = {}
    for log in logs:
        joined.setdefault((log.trace_id, log.span_id), []).append(log)
    once: dict[tuple[str, str], OtelSpan] = {}
    for span in found:
        id = (span.trace_id, span.span_id)
        if id not in once or once[id].end_ns is None:
            once[id] = span
    mapped = [Step(span, map_span(span, joined.get(id, ()))) for id, span in once.items()]
    steps = [step for step in mapped if step.mapped.is_step]
    return steps, len(mapped) - len(steps)


class _Import:
    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._stored = dict(_stored_runs(ctx))
        self._schema = schema_versions.fields_of(REGISTRY.items())
        self._runs = self._spans = self._duplicates = self._known = 0

    def run(self, steps: list[Step]) -> Imported:
        """Store all runs, each with its spans."""
        for run in runs_of(steps, self._known_traces(steps)):
            instance = self._stored.get(run.key) or self._register(run)
            self._put(run, instance)
        return Imported(self._runs, self._spans, self._duplicates, self._known, 0)

    def _known_traces(self, steps: list[Step]) -> dict[str, bool]:
        """Return which traces have spans in the storage already, and whether they are runs of their own."""
        if not self._stored:
            return {}
        traces: dict[str, list[Step]] = {}
        for step in steps:
            traces.setdefault(step.span.trace_id, []).append(step)
        known: dict[str, bool] = {}
        for trace_id, trace in traces.items():
            if trace_key(trace_id) in self._stored:
                known[trace_id] = True
                continue
            run = self._stored.get(process_key(program_of(root_of(trace).span.resource)))
            if run is not None and self._has_any(run.id, trace_id, trace):
                known[trace_id] = False
        return known

    def _has_any(self, run: str, trace_id: str, trace: list[Step]) -> bool:
        """Return whether a run has any span of a trace, or the parent of one."""
        which = {step.span.parent_span_id or "" for step in trace} | {step.span.span_id for step in trace}
        ids = iter([span_id(run, trace_id, each) for each in which])
        while batch := list(islice(ids, BATCH)):
            if self._ctx.storage.find(*batch, instance_id=run).rows:
                return True
        return False

    def _register(self, run: Run) -> AgentInstanceRow:
        """Store a run as it ended."""
        ctx, now = self._ctx, clock.now()
        wanted = Registration(
            run_id(run.key, run.start_ns, ctx.account.partition),
            _name(ctx, run.name),
            VersionFields(_name(ctx, run.version or DEFAULT)),
            self._schema,
            "live",
            _object(ctx, _metadata(run)),
            run.key,
            clock.to_text(run.start_ns),
            minted=False,
            session=_about(ctx, run.session),
            user=_about(ctx, run.user),
        )
        for _ in range(ATTEMPTS):
            agent = unique(ctx.storage, AgentRow, external_identifier=wanted.agent)
            stored = references(ctx.storage, agent, wanted.version.external_identifier, wanted.schema.content_hash)
            *changes, last = registration.register(wanted, stored, ctx.ids.new, now)
            assert isinstance(last, Put)
            assert isinstance(last.row, AgentInstanceRow)
            ended = last.row._replace(**_end(ctx, run, now))
            outcome = ctx.storage.apply([Unit((*changes, last._replace(row=ended)))], wait_s=ctx.wait_s)[0]
            if isinstance(outcome, Applied):
                self._runs += 1
                return ended
            if isinstance(outcome, Refused) and isinstance(outcome.stored, AgentInstanceRow):
                return outcome.stored  # another import was faster
        raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")

    def _put(self, run: Run, instance: AgentInstanceRow) -> None:
        rows = _rows(self._ctx, run, instance)
        while batch := list(islice(rows, BATCH)):
            outcomes = self._ctx.storage.apply([Unit((put,)) for put, _ in batch], wait_s=self._ctx.wait_s)
            for (_, is_duplicate), outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, Applied):
                    self._spans += 1
                    self._duplicates += is_duplicate
                elif isinstance(outcome, Refused) and isinstance(outcome.stored, AgentSpanRow):
                    self._known += 1
                else:
                    raise InvalidValue("run", f"{instance.id} was removed while its spans were imported")


def _stored_runs(ctx: Context) -> Iterator[tuple[str, AgentInstanceRow]]:
    """Yield the stored runs that came from OpenTelemetry, by their key."""
    after = ""
    while True:
        rows = ctx.storage.page(Query("agent_instance", limit=PAGE, after=after)).rows
        for row in rows:
            if isinstance(row, AgentInstanceRow) and (row.external_identifier or "").startswith("otel:"):
                yield row.external_identifier or "", row
        if len(rows) < PAGE:
            return
        after = rows[-1].id


def _rows(ctx: Context, run: Run, instance: AgentInstanceRow) -> Iterator[tuple[Put, bool]]:
    """Yield the rows of a run's spans, each with whether it is a duplicate."""
    by_id = {(step.span.trace_id, step.span.span_id): step for step in run.steps}
    twins: dict[tuple[str, str], list[Mapped]] = {}
    for (trace_id, twin), kept in run.duplicate_of.items():
        twins.setdefault((trace_id, kept), []).append(by_id[trace_id, twin].mapped)
    whole = {which: duplicates.merged(by_id[which].mapped, others) for which, others in twins.items()}
    now, end_ns = clock.now(), run.end_ns
    for span, mapped in run.steps:
        trace_id = span.trace_id
        kept_id = run.duplicate_of.get((trace_id, span.span_id))
        if kept_id is not None:
            id = span_id(instance.id, trace_id, kept_id)
            mapped = duplicates.marked(mapped, whole[trace_id, kept_id], id)
        else:
            mapped = whole.get((trace_id, span.span_id), mapped)
        yield _row(ctx, span, mapped, instance, end_ns, now), kept_id is not None


def _row(
    ctx: Context, span: OtelSpan, mapped: Mapped, instance: AgentInstanceRow, run_end_ns: int | None, now: str
) -> Put:
    """Return the row of a span. One that has not ended is closed as abandoned, at the end of its run."""
    times = _times(span.start_ns, span.end_ns or run_end_ns)
    result, status = mapped.result_payload, mapped.status
    if span.end_ns is None:
        status = "failed"
        error = {"type": "Abandoned", "message": "its end was never sent"}
        result = {**(result or {}), "error": (result or {}).get("error", error)}
    name = mapped.schema_name if mapped.type != "custom" else _name(ctx, mapped.schema_name)
    payload = ctx.admit(*jsontext.encode(mapped.payload))
    returned = None if result is None else ctx.admit(*jsontext.encode(result))
    span_type = REGISTRY.resolve(name)
    plain_result = None if returned is None else returned.plain
    meaning = describe(span_type, name, status, payload.plain, plain_result, times.duration_ms)
    parent = span.parent_span_id
    put = spans.created(
        span_id(instance.id, span.trace_id, span.span_id),
        instance.agent_id,
        instance.id,
        None if parent is None else span_id(instance.id, span.trace_id, parent),
        name,
        title_of(span_type, name),
        status,
        payload.text,
        None if returned is None else returned.text,
        times,
        meaning,
        now,
        minted=True,
        sensitive_encoding=payload.is_marked or (0 if returned is None else returned.is_marked),
    )
    if span.end_ns is None:
        closed: Any = put.row
        return put._replace(row=closed._replace(closed_by="abandoned", closed_at=now))
    return put


def _times(start_ns: int, end_ns: int | None) -> Times:
    """Return the times of a span. A clock that went back makes no negative duration."""
    end_ns = max(start_ns, end_ns or start_ns)
    return Times(clock.to_text(start_ns), clock.to_text(end_ns), (end_ns - start_ns) / 1_000_000)


def _end(ctx: Context, run: Run, now: str) -> dict[str, Any]:
    """Return the columns of a run's end. It ends as its root did; the run of a process is complete."""
    root, times = run.root, _times(run.start_ns, run.end_ns)
    columns: dict[str, Any] = {"status": "complete", "finished_at": times.finished_at, "duration_ms": times.duration_ms}
    if root is None:
        return columns
    result = root.mapped.result_payload or {}
    if root.mapped.status == "failed":
        columns |= {"status": "failed", "error": _object(ctx, result.get("error", {}))}
    if result.get("output") is not None:
        columns["result"] = _object(ctx, {"output": result["output"]})
    if root.span.end_ns is None:
        error = {"type": "Abandoned", "message": "its end was never sent"}
        columns |= {"status": "failed", "closed_by": "abandoned", "closed_at": now, "error": _object(ctx, error)}
    return columns


def _metadata(run: Run) -> dict[str, Any]:
    scopes = dict.fromkeys(step.span.scope.name for step in run.steps if step.span.scope.name)
    resource: Mapping[str, Any] = run.steps[0].span.resource
    found: dict[str, Any] = {"otel": {"resource": dict(resource), "scopes": [*scopes]}}
    if run.root is not None:
        found["otel"]["trace_id"] = run.root.span.trace_id
    return found


def _name(ctx: Context, text: str) -> str:
    return one_line(ctx.admit_text(text), MAX_NAME) or DEFAULT


def _about(ctx: Context, text: str | None) -> str | None:
    return None if text is None else one_line(ctx.admit_text(text), MAX_NAME) or None


def _object(ctx: Context, value: Mapping[str, Any]) -> str:
    return ctx.admit(*jsontext.encode(value)).text
