"""Failed spans by signature, and the steps that runs used, answered by the storage or span by span."""

from collections.abc import Collection, Iterable, Iterator

from agentspan import clock
from agentspan.model.rows import AgentSpanRow
from agentspan.model.status import OPEN
from agentspan.schemas.aggregates import built_in_part
from agentspan.schemas.meaning import returned_error
from agentspan.schemas.signatures import (
    Signature,
    ending_signature,
    error_parts,
    passes_on,
    signature,
    stop_reason,
)
from agentspan.storage.analytics import FailureSum, Progress, StepUse
from agentspan.storage.protocol import Storage


def failure_sums(storage: Storage, run_ids: Collection[str], *, progress: Progress | None = None) -> list[FailureSum]:
    """Return the failed spans of these runs by run and signature, in any order (see storage.analytics).

    Args:
        progress: called with how much is done, and of how much, while there is an index to be built.
    """
    analytics = storage.capabilities().analytics
    if analytics is not None:
        found = analytics.failure_sums(run_ids, progress=progress)
        if found is not None:
            return found
    return [each for run_id in run_ids for each in sums_of(run_id, storage.iter_spans(run_id))]


def step_uses(storage: Storage, run_ids: Collection[str], *, progress: Progress | None = None) -> list[StepUse]:
    """Return how often these runs used each type of steps, model and tool, in any order."""
    analytics = storage.capabilities().analytics
    if analytics is not None:
        found = analytics.step_uses(run_ids, progress=progress)
        if found is not None:
            return found
    return [each for run_id in run_ids for each in uses_of(run_id, storage.iter_spans(run_id))]


def ending_of(status: str, uses: Collection[StepUse]) -> Signature:
    """Return the signature of how a run ended.

    Args:
        status: the run's.
        uses: the steps that it used.
    """
    in_time = sorted(uses, key=lambda use: (use.last_at, use.schema_name, use.label or ""), reverse=True)
    step = in_time[0] if in_time else None
    tool = next((use for use in in_time if use.label and built_in_part(use.schema_name) == "tool"), None)
    model = next((use for use in in_time if use.reason is not None), None)
    return ending_signature(
        status,
        None if tool is None else tool.label,
        None if step is None else step.schema_name,
        None if model is None else model.reason,
    )


def leaves(spans: Iterable[AgentSpanRow]) -> list[AgentSpanRow]:
    """Return the failed ones of a run's spans, by id, without those that only pass on a child's error.

    A call that returned its error has failed, too, whatever its status.
    """
    failed = {span.id: span for span in spans if has_failed(span)}
    errors = {id: error_parts(span.result_payload) for id, span in failed.items()}
    passing = {
        span.parent_span_id
        for span in failed.values()
        if span.parent_span_id in failed and passes_on(errors[span.parent_span_id], errors[span.id])
    }
    return [failed[id] for id in sorted(failed) if id not in passing]


def uses_of(run_id: str, spans: Iterable[AgentSpanRow]) -> list[StepUse]:
    """Return how a run used its types and labels; spans that have not ended do not count."""
    found: dict[tuple[str, str], StepUse] = {}
    reasons: dict[tuple[str, str], tuple[int, str]] = {}
    for span in spans:
        if span.status in OPEN:
            continue
        key = (span.schema_name, span.label or "")
        use = found.get(key) or StepUse(run_id, span.schema_name, span.label or None, 0, 0, 0, None)
        at = _micros(span.started_at or span.inserted_at)
        reason = stop_reason(span)
        if reason is not None:
            reasons[key] = max(reasons.get(key, (0, "")), (at, reason))
        found[key] = use._replace(
            spans=use.spans + 1,
            failed=use.failed + has_failed(span),
            last_at=max(use.last_at, at),
            reason=reasons[key][1] if key in reasons else None,
        )
    return list(found.values())


def sums_of(run_id: str, spans: Iterable[AgentSpanRow]) -> Iterator[FailureSum]:
    """Yield the failed spans of a run by signature."""
    groups: dict[Signature, list[AgentSpanRow]] = {}
    for span in leaves(spans):
        groups.setdefault(signature(span), []).append(span)
    for found, failed in groups.items():
        times = [span.started_at or span.inserted_at for span in failed]
        yield FailureSum(run_id, found, len(failed), min(times), max(times), max(span.id for span in failed))


def has_failed(span: AgentSpanRow) -> bool:
    """Return whether a span failed, or returned an error."""
    return span.status == "failed" or (span.status == "complete" and returned_error(span))


def _micros(text: str) -> int:
    at = clock.to_datetime(text)
    return int(at.timestamp()) * 1_000_000 + at.microsecond
