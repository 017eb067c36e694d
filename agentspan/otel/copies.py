"""Stores runs that another agentspan forwarded, with unchanged ids. Module `writing` encodes the requests.

Every span carries the facts about its run in its resource, so the first span registers the run. The root span for the
run itself comes last and ends the run.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from agentspan import clock, ids, jsontext
from agentspan.api.context import ATTEMPTS, Context
from agentspan.arriving.stored import Registrar, about_of, name_of, put_rows, puts_of, refused_puts, span_row
from agentspan.errors import DatabaseBusy
from agentspan.model.changes import FINISH_STATUSES, PURPOSES, Applied, Move, Refused, Unit
from agentspan.model.registration import DEFAULT, MAX_TAGS, Registration, VersionFields
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ScoreRow
from agentspan.otel.mapping.draft import values_in
from agentspan.otel.mapping.judgements import RESULT, SCORE_RUN, SCORE_SPAN, score_in, scores_in
from agentspan.otel.span import Log, OtelSpan
from agentspan.otel.stored_rows import content_of, score_rows, times_of
from agentspan.storage.questions import Find

_RUN, _SCOPE = "agentspan.run.", "agentspan"
_ENDS = frozenset({*FINISH_STATUSES, "terminated"})
MAX_PARTS = 300_000
"""The most texts, objects and lists of a payload that is parsed; a payload with more is stored as a text.

Requests over HTTP have the same limit.
"""
MAX_NUMBERS = 3_000_000
"""The most values of a payload that is parsed. A body of 10 MiB has at most as many."""


def is_copy(span: OtelSpan) -> bool:
    """Return whether a span was forwarded by another agentspan."""
    return span.scope.name == _SCOPE and ids.is_pfid(span.resource.get(f"{_RUN}id"))


def is_score(log: Log) -> bool:
    """Return whether a log record is a score that another agentspan forwarded after the score's span."""
    return log.event.name == RESULT and ids.is_pfid(log.event.attributes.get(SCORE_RUN))


def store_sent_scores(ctx: Context, found: Iterable[Log]) -> None:
    """Store forwarded scores of stored runs and their spans. Scores of runs that are not stored are dropped."""
    rows: list[ScoreRow] = []
    for log in found:
        id, span = log.event.attributes[SCORE_RUN], log.event.attributes.get(SCORE_SPAN)
        score = score_in(log.event)
        _, stored = ctx.storage.ask(Find(id, instance_id=id)).rows.get(id, (None, None))
        if score is not None and isinstance(stored, AgentInstanceRow):
            own = span if ids.is_pfid(span) else None
            rows += score_rows([score], id, own, ctx.account.partition, ctx.admit_text)
    put_rows(ctx, rows)


def store(ctx: Context, found: Iterable[OtelSpan]) -> tuple[int, int, int]:
    """Store forwarded spans with their runs.

    Returns:
        The numbers of new runs, of new spans, and of spans that were stored already.
    """
    by_run: dict[str, list[OtelSpan]] = {}
    for span in found:
        by_run.setdefault(span.resource[f"{_RUN}id"], []).append(span)
    runs = new = known = 0
    for id, of_run in by_run.items():
        instance, is_new = _instance(ctx, id, of_run[0])
        runs += is_new
        if instance is None:
            continue  # the id belongs to a row that is no run
        rows = [row for span in of_run if (row := _row(ctx, instance, span)) is not None]
        before = sum(1 for _ in refused_puts(ctx, puts_of(rows)))
        new, known = new + len(rows) - before, known + before
        put_rows(ctx, [score for span in of_run for score in _scores(ctx, instance, span)])
        for span in of_run:
            if span.attributes.get(f"{_RUN}status") in _ENDS:
                ctx.storage.apply([Unit((_end(ctx, instance, span),))], wait_s=ctx.wait_s)
    return runs, new, known


def _instance(ctx: Context, id: str, span: OtelSpan) -> tuple[AgentInstanceRow | None, int]:
    about = {name.removeprefix(_RUN): value for name, value in span.resource.items() if name.startswith(_RUN)}
    registrar = Registrar()
    wanted = Registration(
        id,
        name_of(ctx, _text(about, "agent") or DEFAULT),
        VersionFields(name_of(ctx, _text(about, "version") or DEFAULT)),
        registrar.schema,
        _text(about, "purpose") if about.get("purpose") in PURPOSES else PURPOSES[0],  # type: ignore[arg-type]
        _json(ctx, about.get("metadata")),
        about_of(ctx, _text(about, "external_identifier")),
        _time(about.get("started_at")) or clock.to_text(span.start_ns),
        minted=False,
        git_commit=_text(about, "git_commit"),
        session=about_of(ctx, _text(about, "session")),
        user=about_of(ctx, _text(about, "user")),
        task=about_of(ctx, _text(about, "task")),
        tags=_tags(ctx, about.get("tags")),
        git_dirty=about["git_dirty"] if type(about.get("git_dirty")) is bool else None,
    )
    for _ in range(ATTEMPTS):
        stored = ctx.storage.ask(Find(id, instance_id=id)).rows.get(id)
        if stored is not None:
            return (stored[1] if isinstance(stored[1], AgentInstanceRow) else None), 0
        row, outcome = registrar.register(ctx, wanted)
        if isinstance(outcome, Applied):
            return row, 1
        if isinstance(outcome, Refused) and isinstance(outcome.stored, AgentInstanceRow) and outcome.stored.id != id:
            wanted = wanted._replace(external_identifier=None)  # another stored run has this identifier
    raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")


def _row(ctx: Context, instance: AgentInstanceRow, span: OtelSpan) -> AgentSpanRow | None:
    """Return the row of a forwarded span; None for the root span for the run, and for a span without usable ids."""
    attributes = span.attributes
    id, parent, status = (
        attributes.get("agentspan.id"),
        attributes.get("agentspan.parent_span_id"),
        attributes.get("agentspan.status"),
    )
    if type(id) is not str or not ids.is_pfid(id) or type(status) is not str or span.end_ns is None:
        return None
    if status not in FINISH_STATUSES:
        return None
    sent = _parsed(attributes.get("input.value")) or {}
    if type(sent) is str:
        sent = {"input.value": sent}
    name = name_of(ctx, _text(attributes, "agentspan.schema_name") or "custom")
    times = times_of(span.start_ns, span.end_ns)
    if type(elapsed := attributes.get("agentspan.duration_ms")) is float:
        times = times._replace(duration_ms=elapsed)
    known: dict[str, Any] = {}
    cost: Any = attributes.get("agentspan.cost_usd")
    if type(cost) in (int, float):
        known["cost_usd"] = float(cost)
    if (summary := _text(attributes, "agentspan.summary")) is not None:
        known["summary"] = ctx.admit_text(summary)
    own, title = (id, parent if ids.is_pfid(parent) else None), _text(attributes, "agentspan.schema_title")
    returned = _parsed(attributes.get("output.value"))
    payload, result = ctx.admit_all([content_of(sent), content_of(returned)])
    row = span_row(instance, own, name, status, (payload, result), times, clock.now(), title=title, known=known)
    closed = attributes.get("agentspan.closed_by")
    return row._replace(closed_by=closed, closed_at=row.finished_at) if closed in ("terminated", "abandoned") else row


def _scores(ctx: Context, instance: AgentInstanceRow, span: OtelSpan) -> list[ScoreRow]:
    """Return the scores in a forwarded span: of the span, or of the run if the span is the root span for the run.

    Scores without an id are left out: they are in recorded attributes, and the sender forwards them with an id, too.
    """
    scores = [each for each in scores_in(span) if each.id is not None]
    if not scores:
        return []
    id = span.attributes.get("agentspan.id")
    own = id if ids.is_pfid(id) else None
    return score_rows(scores, instance.id, own, ctx.account.partition, ctx.admit_text)


def _tags(ctx: Context, tags: Any) -> tuple[str, ...]:
    texts = [about_of(ctx, tag) for tag in tags[:MAX_TAGS] if type(tag) is str] if isinstance(tags, list) else []
    return tuple(dict.fromkeys(tag for tag in texts if tag))


def _end(ctx: Context, instance: AgentInstanceRow, span: OtelSpan) -> Move:
    about = {name.removeprefix(_RUN): value for name, value in span.attributes.items() if name.startswith(_RUN)}
    times = times_of(span.start_ns, span.end_ns)
    values: dict[str, Any] = {
        "status": about["status"],
        "finished_at": _time(about.get("finished_at")) or times.finished_at,
        "duration_ms": about.get("duration_ms") if type(about.get("duration_ms")) is float else times.duration_ms,
        "result": _json(ctx, about.get("result")),
        "error": _json(ctx, about.get("error")),
        "termination_reason": about_of(ctx, _text(about, "termination_reason")),
        "closed_by": about.get("closed_by") if about.get("closed_by") in ("terminated", "abandoned") else None,
        "closed_at": _time(about.get("closed_at")),
        "updated_at": clock.now(),
    }
    return Move("agent_instance", instance.id, frozenset({"active"}), values)


def _text(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    return value if type(value) is str and value else None


def _time(value: Any) -> str | None:
    try:
        return clock.parse(value) if type(value) is str else None
    except ValueError:
        return None


def _parsed(text: Any) -> Any:
    """Return the value of a JSON text; the text itself if it is too large to parse, None if it is no JSON."""
    if type(text) is not str:
        return None
    return text if _is_too_large(text) else jsontext.decoded(text)


def _is_too_large(text: str) -> bool:
    """Return whether a JSON text has more than MAX_PARTS parts or MAX_NUMBERS values."""
    if text.count('"') // 2 + values_in(text) <= MAX_PARTS:  # a cheap upper bound, which also counts inside texts
        return False
    parts = values = 0
    for texts, outside in jsontext.structure(text):
        parts += texts + outside.count("{") + outside.count("[")
        values += outside.count(",")
        if parts > MAX_PARTS or values > MAX_NUMBERS:
            return True
    return False


def _json(ctx: Context, text: Any) -> str | None:
    value = _parsed(text)
    return ctx.admit(*jsontext.encode(value)).text if isinstance(value, dict) else None
