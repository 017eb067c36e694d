"""The data of a run's page as JSON values: facts about the run, its spans as columns, one span in full.

Spans are sent as columns, because 10,000 objects would repeat every name 10,000 times. Repeated values (span types,
labels, statuses) are listed once and referenced by index. Payloads are sent for one span at a time.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from agentspan import clock
from agentspan.analysis.budgets import budget_of, without_events
from agentspan.analysis.cases import CaseOfTrial, CaseRun, case_of
from agentspan.analysis.causes import verdicts_on
from agentspan.analysis.costs import prompts_of
from agentspan.analysis.runs import Rest, shorten, stats
from agentspan.analysis.tree import (
    closed_text,
    in_time,
    judge_text,
    judgement_text,
    own_ms,
    session_title,
    span_error,
    title_of,
    with_calls,
)
from agentspan.analysis.why import RunWhy, why_run
from agentspan.answers import why_run as reasons
from agentspan.answers.groups import version_text
from agentspan.blobs import described
from agentspan.journal.writers import Lives
from agentspan.model.changes import OPEN, SPAN_STATUSES
from agentspan.model.columns import other_facts
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSpanRow, AgentVersionRow, ScoreRow, Violation
from agentspan.schemas.signatures import error_parts, error_without_values, signature
from agentspan.schemas.span_types import fallback
from agentspan.schemas.templates import inline
from agentspan.storage import text_search
from agentspan.storage.access import outlines_of
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import ChangedSpans, Counts, Find, NewestScores, Outlines, SpansWith, Violations
from agentspan.storage.row_by_row import has_failed, labels_of
from agentspan.storage.sums import BOUNDS_MS, Stat
from agentspan.viewer import conversation
from agentspan.viewer.address import Address
from agentspan.viewer.conversation import linked

CHUNK = 20_000
"""The largest number of spans in one response; a larger run takes several responses."""
FIRST_CHUNK = 2000
"""The number of spans in the first response; it is small so that the page can show them early."""
ROWS = 60
"""The number of types and labels whose statistics are shown at first."""
MOST_HIDDEN = 500
"""The largest number of types and labels whose statistics are sent to be shown on request."""
MAX_ERROR = 300
MAX_INLINE = 160
MAX_EXPLAINED = 50_000
"""The largest number of spans of a run whose failure is explained: all its payloads are read for that."""
MOST_TRIALS = 20
"""The largest number of trials of a case, and of runs of its base, that the head of a run's page lists."""
MAX_FACT = 4000
"""The largest number of characters of a fact about a failure."""


def run_facts(storage: Storage, run: AgentInstanceRow, *, counted: bool = True) -> dict[str, Any]:
    """Return the facts that the head of a run's page shows.

    Args:
        counted: whether to count its spans, which takes 0.4 s for 250,000; else `spans` is None.
    """
    names = storage.ask(Find(run.agent_id, run.agent_version_id)).rows
    agent = names[run.agent_id][1] if run.agent_id in names else None
    version = names[run.agent_version_id][1] if run.agent_version_id in names else None
    label = version.external_identifier if isinstance(version, AgentVersionRow) else ""
    lives, labels = Lives(storage), labels_of(storage, [run.id])[run.id]
    budget, verdict = budget_of(storage, run), verdicts_on(storage, [run])[run.id]
    return {
        "id": run.id,
        "agent": agent.name if isinstance(agent, AgentRow) else run.agent_id,
        "version": "" if label == "default" else label,
        "external_identifier": run.external_identifier,
        "title": session_title(run),
        "status": run.status,
        "verdict": {"mark": verdict.status, "text": verdict.text},
        "purpose": run.purpose,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "inserted_at": run.inserted_at,
        "duration_ms": run.duration_ms,
        "termination_reason": run.termination_reason,
        "closed": closed_text(run),
        "left_open": run.status in OPEN and lives.of(run.writer_id) == "dead",
        "metadata": run.metadata and described(run.metadata),
        "result": run.result and described(run.result),
        "error": run.error,
        "quality": run.quality_payloads,
        "program": _program(lives, run.writer_id),
        "git_commit": run.git_commit and run.git_commit + (" with changes" if run.git_dirty else ""),
        "task": run.task,
        "case": None if (case := case_of(storage, run)) is None else _case(case),
        "session": run.session,
        "user": run.user,
        "tags": labels.tags,
        "scores": [score_facts(score) for score in without_events(run, labels.scores)],
        "budget": budget
        and {
            "text": budget.text().removeprefix("budget "),
            "limits": [limit.name for limit in budget.limits],
            "waits": budget.waits,
        },
        "spans": storage.ask(Counts([run.id]))[run.id]._asdict() if counted else None,
    }


def _case(case: CaseOfTrial) -> dict[str, Any]:
    """Return the case of a trial as the head of its page shows it, with the addresses of the runs and of the cases."""
    every, of_base = Address(), {"agent": case.agent, "base": case.base, "head": case.version}
    return {
        **case.plain(),
        "text": case.text.removesuffix(case.evaluation),
        "trials": [_of_case(each) for each in case.trials[:MOST_TRIALS]],
        "base": case.base and version_text(case.base),
        "base_runs": [_of_case(each) for each in case.base_runs[:MOST_TRIALS]],
        "runs": every.link("", agent=case.agent, version=case.version, purpose="eval"),
        "versions": case.base and f"{every.link('versions', **of_base)}#cases",
    }


def _of_case(run: CaseRun) -> dict[str, Any]:
    return {"run": run.run_id, "number": run.number, "mark": run.verdict.status, "text": run.verdict.text}


def score_facts(score: ScoreRow) -> dict[str, Any]:
    """Return a score as a page shows it: text, judge and time; and the values that a request to remove it needs."""
    return {
        "target": score.target_id,
        "name": score.name,
        "source": score.source,
        "identifier": score.identifier,
        "text": judgement_text(score),
        "by": judge_text(score),
        "at": score.inserted_at,
    }


def why(storage: Storage, run: AgentInstanceRow) -> dict[str, Any]:
    """Return why a run failed, in the words of `agentspan why RUN`.

    Returns:
        `why`: None if the run did not fail, or has more than MAX_EXPLAINED spans; else an object, see types.d.ts. A run
        that passed by its status failed if it missed a rule over a score (see outcomes.missed_rule).
    """
    is_bad = verdicts_on(storage, [run])[run.id].kind in ("failed", "missed")
    if not is_bad or storage.ask(Counts([run.id]))[run.id].total > MAX_EXPLAINED:
        return {"why": None}
    return {"why": _why(why_run(storage, run))}


def _why(found: RunWhy) -> dict[str, Any]:
    step, nearest, other = found.step, found.nearest, found.elsewhere
    facts = [(fact.label, fact.text[:MAX_FACT]) for fact in reasons.step_facts(found)]
    return {
        "rule": found.outcome,
        "sentence": reasons.sentence(found),
        "error": found.error and found.error[:MAX_FACT],
        "step": step and step.span_id,
        "number": step and step.number,
        "facts": facts,
        "signature": found.signature.id,
        "elsewhere": reasons.elsewhere(found) if step else None,
        "others": other.runs if other else 0,
        "nearest": nearest and nearest.run_id,
        "nearest_text": reasons.nearest(found, nearest),
        "parting": nearest and reasons.parting(nearest),
    }


def own_times(storage: Storage, run_id: str) -> dict[str, Any]:
    """Return the own time in ms of each span of a run that has children and has ended, by id (see tree.own_ms).

    The own time of a span without children is its duration.
    """
    rows = in_time(outlines_of(storage, run_id, bare=True))
    children: dict[str, list[AgentSpanRow]] = defaultdict(list)
    for row in rows:
        if row.parent_span_id is not None:
            children[row.parent_span_id].append(row)
    own = {
        row.id: round(own_ms(row, children[row.id]), 3)
        for row in rows
        if row.duration_ms is not None and row.id in children
    }
    return {"own_ms": own}


def origin_of(run: AgentInstanceRow) -> str:
    """Return the time that all times on a run's page are relative to."""
    return run.started_at or run.inserted_at


def columns(
    storage: Storage,
    run: AgentInstanceRow,
    *,
    after: str = "",
    limit: int | None = CHUNK,
    since: str | None = None,
    cursor: str | None = None,
) -> dict[str, Any]:
    """Return spans of a run as columns, in the order of their creation.

    Args:
        after: only spans with a greater id: the `next` of the previous response.
        limit: the largest number of spans; None for all.
        since: only spans that changed at this time or later: the greatest `latest` so far, minus some seconds.
        cursor: only spans that were committed after the response with this cursor; "" for all spans, None for no
            cursor. Storages that do not support ChangedSpans ignore it.

    Returns:
        `columns`: lists by name, None for a column without values. `types`, `labels`, `statuses` and `failures`
        (signatures with the error, without variable values): lists that the columns `type`, `label`, `status` and
        `failure` index. `errors`, `left_open`, `abandoned` (closed because their programs died) and `aggregates` (spans
        that sum up others): by index of the span. `origin`: the time that `start_ms` is relative to. `next`: the id to
        continue after; None at the end. `latest`: the time of the last change. `cursor` (None if unsupported) and
        `stalled_s`: see Changed.
    """
    if cursor is None or ChangedSpans not in storage.capabilities().answers:
        rows, cursor, stalled_s = _outlines(storage, run.id, after, limit, since), None, 0.0
    else:
        rows, cursor, stalled_s = storage.ask(ChangedSpans(run.id, cursor, after, limit))
    rows = with_calls(run, rows)
    place = {row.id: number for number, row in enumerate(rows)}
    types: dict[str, int] = {}
    labels: dict[str, int] = {}
    failures: dict[tuple[str, str], int] = {}
    origin = clock.to_datetime(origin_of(run))
    lives = Lives(storage)
    return {
        "origin": origin_of(run),
        "columns": {
            "id": [row.id for row in rows],
            "parent": _column(place.get(row.parent_span_id or "", row.parent_span_id) for row in rows),
            "type": [types.setdefault(row.schema_name, len(types)) for row in rows],
            "label": _column(_number(labels, row.label) for row in rows),
            "status": [SPAN_STATUSES.index(row.status) for row in rows],
            "summary": [title_of(row, MAX_INLINE) for row in rows],
            "start_ms": [_since(origin, row.started_at or row.inserted_at) for row in rows],
            "duration_ms": [row.duration_ms for row in rows],
            "input_tokens": _column(row.input_tokens for row in rows),
            "output_tokens": _column(row.output_tokens for row in rows),
            "cost_usd": _column(row.cost_usd for row in rows),
            "failure": _column(_failure(failures, row) for row in rows),
        },
        "types": _types(types, rows),
        "labels": list(labels),
        "failures": [{"signature": id, "error": text} for id, text in failures],
        "statuses": list(SPAN_STATUSES),
        "errors": {number: text for number, row in enumerate(rows) if (text := _error(row))},
        "aggregates": [number for number, row in enumerate(rows) if row.is_aggregate],
        "left_open": [n for n, row in enumerate(rows) if row.status in OPEN and lives.of(row.writer_id) == "dead"],
        "abandoned": [n for n, row in enumerate(rows) if row.closed_by == "abandoned" and not row.ended_late],
        "next": rows[-1].id if limit is not None and len(rows) == limit else None,
        "latest": max((row.updated_at for row in rows), default=since),
        "cursor": cursor,
        "stalled_s": stalled_s,
    }


def statistics(storage: Storage, run_id: str) -> dict[str, Any]:
    """Return the statistics of a run per span type and label, with the lower bounds of the histogram buckets.

    `left` tells why a row is shown only on request: "once" or "more" (see shorten); else it is "". `rests` has the
    number of such rows of each type, of which at most 500 are sent. `prompts` has the use of each prompt.
    """
    found = stats(storage, run=run_id)
    short = shorten(found, ROWS)
    shown = {(each.schema_name, each.label) for each in short if not isinstance(each, Rest)}
    rows, hidden = [], 0
    for stat in found:
        is_shown = (stat.schema_name, stat.label) in shown
        hidden += not is_shown
        if is_shown or hidden <= MOST_HIDDEN:
            left = "" if is_shown else "once" if stat.count == 1 and stat.label is not None else "more"
            kind = fallback(stat.schema_name).name
            rows.append({"kind": kind, "left": left, **{name: getattr(stat, name) for name in Stat.__slots__}})
    return {
        "bounds_ms": BOUNDS_MS,
        "stats": rows,
        "rests": [each._asdict() for each in short if isinstance(each, Rest)],
        "prompts": [
            {"name": each.name, "span": each.span_id, **asdict(each.spent)} for each in prompts_of(storage, run_id)
        ],
    }


def matches(storage: Storage, run_id: str, text: str) -> list[str]:
    """Return the ids of the spans of a run that contain all words of a text (see analysis.search), sorted by id."""
    words = text_search.terms(text)
    return storage.ask(SpansWith(run_id, words)) if words else []


def detail(storage: Storage, span: AgentSpanRow) -> dict[str, Any]:
    """Return one span in full, with base64 data replaced by short texts (see conversation.linked).

    Payloads stay JSON text, because numbers in a browser would round large integers.
    """
    (found,) = details(storage, [span], Lives(storage))
    return found


def details(storage: Storage, spans: Sequence[AgentSpanRow], lives: Lives) -> Iterator[dict[str, Any]]:
    """Yield spans of one run in full, with their violations and scores."""
    run_id = spans[0].agent_instance_id
    violations = storage.ask(Violations([span.id for span in spans], instance_id=run_id))
    scores: dict[str, list[dict[str, Any]]] = {}
    for score in storage.ask(NewestScores([run_id])):
        scores.setdefault(score.target_id, []).append(score_facts(score))
    return (_detail(linked(span), lives, violations[span.id], scores.get(span.id, [])) for span in spans)


def _detail(
    span: AgentSpanRow, lives: Lives, violations: Sequence[Violation], scores: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "id": span.id,
        "schema_name": span.schema_name,
        "summary": span.summary,
        "started_at": span.started_at,
        "finished_at": span.finished_at,
        "inserted_at": span.inserted_at,
        "closed": closed_text(span),
        "program": _program(lives, span.writer_id),
        "payload": span.payload,
        "result_payload": span.result_payload,
        "messages": conversation.of_span(span),
        "facts": {name: str(value) for name, value in other_facts(span).items() if name != "label"},
        "scores": [*scores],
        "violations": [violation._asdict() for violation in violations],
    }


def _outlines(storage: Storage, run_id: str, after: str, limit: int | None, since: str | None) -> list[AgentSpanRow]:
    if limit is not None or after:
        return storage.ask(Outlines(run_id, after, limit, since))
    rows = outlines_of(storage, run_id, since=since)  # a title is derived from the payload if there is no summary
    return [row if row.summary else row._replace(summary=title_of(row, MAX_INLINE), payload="{}") for row in rows]


def _column(values: Iterable[Any]) -> list[Any] | None:
    column = list(values)
    return column if any(value is not None for value in column) else None


def _number(known: dict[str, int], text: str | None) -> int | None:
    return None if text is None else known.setdefault(text, len(known))


def _failure(known: dict[tuple[str, str], int], row: AgentSpanRow) -> int | None:
    if not has_failed(row):
        return None
    error = inline(error_without_values(error_parts(row.result_payload)), MAX_ERROR)
    return known.setdefault((signature(row).id, error), len(known))


def _types(numbers: dict[str, int], rows: Sequence[AgentSpanRow]) -> list[dict[str, str]]:
    titles = {row.schema_name: row.schema_title for row in rows}
    return [{"name": name, "kind": fallback(name).name, "title": titles[name]} for name in numbers]


def _since(origin: datetime, time: str) -> float:
    return round((clock.to_datetime(time) - origin).total_seconds() * 1000, 3)


def _error(row: AgentSpanRow) -> str | None:
    text = span_error(row)
    return inline(text, MAX_ERROR) if text else None


def _program(lives: Lives, writer_id: str | None) -> str | None:
    writer = lives.writer(writer_id)
    return None if writer is None else f"{writer.program} (pid {writer.pid} on {writer.host})"
