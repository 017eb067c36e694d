"""Models of requests that judge a run or a span."""

from pydantic import ConfigDict, Field

from agentspan.model.scores import MAX_EXPLANATION, MAX_NAME, Source
from agentspan.serve.bodies import Body


class RecordScore(Body):
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
        idempotency_key: the same request with the same key again answers with the same score.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=MAX_NAME)
    value: bool | float | None = None
    label: str | None = Field(None, max_length=MAX_NAME)
    explanation: str | None = Field(None, max_length=MAX_EXPLANATION)
    source: Source | None = None
    identifier: str | None = Field(None, max_length=MAX_NAME)
    withdraw: bool | None = None
    idempotency_key: str | None = Field(None, max_length=64)
