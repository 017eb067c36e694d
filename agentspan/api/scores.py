"""Operations on scores: judge a run or a span by id, and read its scores."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from agentspan.api import checks, envelopes, from_rows
from agentspan.api.context import Context, Plan
from agentspan.api.envelopes import Envelope
from agentspan.api.from_rows import score
from agentspan.api.operation import Check, Operation, Route, Write
from agentspan.api.resources import Score
from agentspan.errors import InvalidValue, UnexpectedRefType
from agentspan.model.changes import Put, Ref, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ResourceType, ScoreRow
from agentspan.model.scores import MAX_EXPLANATION, MAX_NAME, Judgement, Source, counting, judgement, scored
from agentspan.storage.access import expect
from agentspan.storage.answers import Found
from agentspan.storage.questions import Find
from agentspan.storage.row_by_row import history

Target = AgentInstanceRow | AgentSpanRow
Word = Annotated[str | None, Check(None, {"max_length": MAX_NAME})]


class RecordScore(Write):
    """Judge an instance or a span, in any status. The newest score of a name counts; those before it are kept.

    Other fields are refused.

    Attributes:
        name: what is judged.
        value: the number; true is 1, false is 0.
        label: the word.
        explanation: why.
        source: who judged; `code` when left out.
        identifier: the judge, where several judge the same: of each the newest score counts.
        withdraw: take back the scores of this name and identifier; without value, label and explanation.
    """

    action = "scores/record"
    body_name = "RecordScore"
    others: ClassVar[Literal["ignore", "allow", "forbid"]] = "forbid"
    again = "answers with the same score"
    target_type: ClassVar[type[Target] | None] = None
    """The type that the id must name; None for either."""
    target: ClassVar[str]
    """The name of the field with the id of the judged run or span."""

    name: Annotated[str, Check(None, {"max_length": MAX_NAME})]
    value: bool | float | None = None
    label: Word = None
    explanation: Annotated[str | None, Check(None, {"max_length": MAX_EXPLANATION})] = None
    source: Source | None = None
    identifier: Word = None
    withdraw: bool | None = None

    @classmethod
    def of_json(cls, sent: Mapping[str, Any]) -> Self:
        """Return the operation of a request. Refuse unknown fields.

        If a judge in a wrong field, such as `by`, were ignored, the score would be one of another judge.

        Raises:
            InvalidValue: the request has an unknown field.
        """
        unknown = sent.keys() - {*cls.fields, "_type", "details"}
        if unknown:
            there = ", ".join(name for name in cls.fields if name not in cls.ids)
            raise InvalidValue(min(unknown), f"is no field of a score; there are {there}")
        return super().of_json(sent)

    def plan(self, ctx: Context) -> Plan:
        """Plan to add a score of a run or a span."""
        target_id = getattr(self, self.target)
        judged = judgement(
            self.name,
            self.value,
            label=self.label,
            explanation=self.explanation,
            source="code" if self.source is None else self.source,
            identifier=self.identifier,
            withdraw=checks.flag("withdraw", self.withdraw),
        )
        key = self.key({"target_id": target_id, **judged._asdict()})
        name, value, *texts, source, identifier = judged
        label, explanation, identifier = (text and ctx.admit_text(text) for text in (*texts, identifier))
        admitted = Judgement(ctx.admit_text(name), value, label, explanation, source, identifier)
        id = ctx.ids.new()

        def decide(found: Found, now: str) -> Unit:
            target = _target(found, self.target_type, target_id)
            refs: tuple[Ref, ...] = ()
            if isinstance(target, AgentSpanRow):
                refs = (Ref("agent_span", target.id, target.agent_instance_id),)
            return Unit((Put(scored(id, target, admitted, now), refs, minted=True),), id, key)

        return Plan((target_id,), key, decide)

    def __call__(self, ctx: Context) -> Envelope:
        """Add the score, and return its envelope."""
        row = self.run(ctx).row
        assert isinstance(row, ScoreRow)
        return envelopes.of_one(from_rows.plain(score(row)))


class ScoreInstance(RecordScore):
    """Judge an instance."""

    route = Route("POST", "/agent_instance/{agent_instance_id}/scores", "scores", Score)
    target, target_type = "agent_instance_id", AgentInstanceRow

    agent_instance_id: str


class ScoreSpan(RecordScore):
    """Judge a span."""

    route = Route("POST", "/agent_spans/{agent_span_id}/scores", "scores", Score)
    target, target_type = "agent_span_id", AgentSpanRow

    agent_span_id: str


class ScoreTarget(RecordScore):
    """Judge a run or a span: Python's form."""

    target = "target_id"

    target_id: str


class ListScores(Operation):
    """List the scores of a run, without those of its spans, or of a span."""

    scans = True
    envelope = "Many"
    target_type: ClassVar[type[Target] | None] = None
    target: ClassVar[str]

    include_history: bool = False

    def rows(self, ctx: Context) -> list[ScoreRow]:
        """Return the rows of the scores that count; with `include_history`, of all scores."""
        target_id = getattr(self, self.target)
        found = ctx.storage.ask(Find(*([target_id] if isinstance(target_id, str) else [])))
        target = _target(found, self.target_type, target_id)
        run_id = target.agent_instance_id if isinstance(target, AgentSpanRow) else target.id
        rows = [row for row in history(ctx.storage, run_id) if row.target_id == target.id]
        return rows if self.include_history else counting(rows)

    def __call__(self, ctx: Context) -> Envelope:
        """Return the envelope of the scores."""
        return envelopes.of_all([from_rows.plain(score(row)) for row in self.rows(ctx)])


class ListInstanceScores(ListScores):
    """List the scores of an instance."""

    route = Route("GET", "/agent_instance/{agent_instance_id}/scores", "scores", Score)
    target, target_type = "agent_instance_id", AgentInstanceRow

    agent_instance_id: str


class ListSpanScores(ListScores):
    """List the scores of a span."""

    route = Route("GET", "/agent_spans/{agent_span_id}/scores", "scores", Score)
    target, target_type = "agent_span_id", AgentSpanRow

    agent_span_id: str


class ListTargetScores(ListScores):
    """List the scores of a run or a span: Python's form."""

    target = "target_id"

    target_id: str


def _target(found: Found, target_type: type[Target] | None, id: Any) -> Target:
    """Return the run or span of an id.

    Raises:
        NotFound: nothing has this id.
        UnexpectedRefType: the id names a resource of another type.
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
