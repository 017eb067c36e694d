"""Operations on scores: judge a run or a span by id, and read how it was judged."""

from typing import Any

from agentspan.errors import UnexpectedRefType
from agentspan.model.changes import Put, Ref, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ResourceType, ScoreRow
from agentspan.model.scores import Judgement, counting, judgement, scored
from agentspan.operations import request
from agentspan.operations.context import Context, Done
from agentspan.storage.answers import Found
from agentspan.storage.lookup import expect
from agentspan.storage.questions import Find
from agentspan.storage.scores import history

Target = AgentInstanceRow | AgentSpanRow


def record(
    ctx: Context,
    target_id: Any,
    *,
    target_type: type[Target] | None = None,
    name: Any = None,
    value: Any = None,
    label: Any = None,
    explanation: Any = None,
    source: Any = None,
    identifier: Any = None,
    withdraw: Any = None,
    idempotency_key: Any = None,
) -> Done:
    """Add a score of a run or a span (see Scores.record).

    Args:
        target_type: what the id must name; None for either.
    """
    judged = judgement(
        name,
        value,
        label=label,
        explanation=explanation,
        source="code" if source is None else source,
        identifier=identifier,
        withdraw=request.flag("withdraw", withdraw),
    )
    said = {"target_id": target_id, **judged._asdict()}
    key = request.idempotency_key("scores/record", idempotency_key, said)
    name, value, label, explanation, source, identifier = judged
    label, explanation, identifier = (text and ctx.admit_text(text) for text in (label, explanation, identifier))
    judged = Judgement(ctx.admit_text(name), value, label, explanation, source, identifier)
    id = ctx.ids.new()

    def decide(found: Found, now: str) -> Unit:
        target = _target(found, target_type, target_id)
        refs: tuple[Ref, ...] = ()
        if isinstance(target, AgentSpanRow):
            refs = (Ref("agent_span", target.id, target.agent_instance_id),)
        return Unit((Put(scored(id, target, judged, now), refs, minted=True),), id, key)

    return ctx.commit((target_id,), key, decide)


def of_target(
    ctx: Context, target_id: Any, *, target_type: type[Target] | None = None, with_history: bool = False
) -> list[ScoreRow]:
    """Return the scores of a run or a span (see Scores.list)."""
    target = _target(
        ctx.storage.ask(Find(*([target_id] if isinstance(target_id, str) else []))), target_type, target_id
    )
    run_id = target.agent_instance_id if isinstance(target, AgentSpanRow) else target.id
    rows = [row for row in history(ctx.storage, run_id) if row.target_id == target.id]
    return rows if with_history else counting(rows)


def _target(found: Found, target_type: type[Target] | None, id: Any) -> Target:
    """Return the run or span of an id.

    Raises:
        NotFound: nothing has this id.
        UnexpectedRefType: it names something else.
    """
    if target_type is not None:
        return expect(found, target_type, id)
    located = found.rows.get(id) if isinstance(id, str) else None
    if located is None or isinstance(located[1], AgentInstanceRow):
        return expect(found, AgentInstanceRow, id)
    if not isinstance(located[1], AgentSpanRow):
        type_: ResourceType = located[0]
        raise UnexpectedRefType(f"{id!r} is the id of an {type_.replace('_', ' ')}, not of a run or a span")
    return located[1]
