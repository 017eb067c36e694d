"""A score as a pydantic model, made from its row: what operations by id return."""

from typing import Literal

from pydantic import AwareDatetime

from agentspan.model.agent_resources import Resource
from agentspan.model.columns import values_of
from agentspan.model.rows import ScoreRow
from agentspan.model.scores import Source


class Score(Resource):
    """A judgement of a run or of a span.

    Attributes:
        type: always "score".
        id: PFID of the score.
        agent_instance_id: PFID of the run that is judged, or whose span is.
        target_type: what was judged: "agent_instance" or "agent_span".
        target_id: PFID of the run or span that is judged.
        name: what was judged, such as `reward`; `mark` and `note` are names for people.
        value: the number, or None.
        label: the word, such as `good`, or None.
        source: who judged: "human", "model" or "code".
        identifier: the judge, where several judge the same, or None.
        inserted_at: when it was given, UTC.
        explanation: why, or None.
    """

    type: Literal["score"] = "score"
    id: str
    agent_instance_id: str
    target_type: Literal["agent_instance", "agent_span"]
    target_id: str
    name: str
    value: float | None
    label: str | None
    source: Source
    identifier: str | None
    inserted_at: AwareDatetime
    explanation: str | None


def score(row: ScoreRow) -> Score:
    """Make a score from its row."""
    return Score(**values_of(row))
