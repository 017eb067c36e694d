"""The operations by id on scores: call `operations.scores`, return the API's models."""

import builtins

from agentspan.model.rows import ScoreRow
from agentspan.model.score_resources import Score, score
from agentspan.model.scores import Source
from agentspan.operations import scores
from agentspan.operations.context import Context


class Scores:
    """Operations on scores of runs and spans. Ids that name nothing raise NotFound; other ids, UnexpectedRefType."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def record(
        self,
        target_id: str,
        name: str,
        value: float | None = None,
        *,
        label: str | None = None,
        explanation: str | None = None,
        by: Source = "code",
        identifier: str | None = None,
        withdraw: bool = False,
        idempotency_key: str | None = None,
    ) -> Score:
        """Judge a run or a span, in any status. The newest score of a name counts; those before it are kept.

        Args:
            target_id: the run or the span.
            name: what is judged, such as `reward`; at most 200 characters, as label and identifier.
            value: a finite number, or True or False.
            label: a word, such as `good`.
            explanation: why; at most 10,000 characters.
            by: who judged: "code", "human" or "model".
            identifier: the judge, where several judge the same: of each the newest score counts.
            withdraw: take back the scores of this name and identifier; without value, label and explanation.
            idempotency_key: at most 64 characters; the same request again returns the same score.

        Raises:
            RequiredValue: there is no name; or no value, label or explanation, unless it withdraws.
            InvalidValue: a value is wrong.
            IdempotencyKeyAlreadyUsed: the key was used for another request.
        """
        done = scores.record(
            self._ctx,
            target_id,
            name=name,
            value=value,
            label=label,
            explanation=explanation,
            source=by,
            identifier=identifier,
            withdraw=withdraw,
            idempotency_key=idempotency_key,
        )
        assert isinstance(done.row, ScoreRow)
        return score(done.row)

    def list(self, target_id: str, *, history: bool = False) -> builtins.list[Score]:
        """Return the scores of a run, without those of its spans, or of a span; the oldest first.

        Args:
            target_id: the run or the span.
            history: all of them; else those that count.
        """
        return [score(row) for row in scores.of_target(self._ctx, target_id, with_history=history)]
