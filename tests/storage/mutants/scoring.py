"""Mutants that keep tags and scores wrongly, or answer wrongly which scores count."""

from typing import Any

from agentspan.model.rows import ScoreRow, TagRow
from agentspan.storage import scores
from agentspan.storage.analytics import LatestScore
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Capabilities, Query
from agentspan.testing.contract.answering import RowByRow
from tests.storage.mutants.noting import found_by

KEPT = "test_tags_and_scores_belong_to_a_run_that_exists"
ANSWERED = "test_newest_scores_and_tags_are_those_of_reading_row_by_row"


@found_by(KEPT)
class KeepsATagTwice(MemoryStorage):
    def _put(self, put: Any, *more: Any) -> Any:
        if isinstance(put.row, TagRow):
            self._unique = {used: id for used, id in self._unique.items() if used[0] != "tag"}
        return super()._put(put, *more)


@found_by(KEPT)
class KeepsTheNewestScoreOnly(MemoryStorage):
    def _put(self, put: Any, *more: Any) -> Any:
        if isinstance(put.row, ScoreRow):
            for row in self.page(Query("score", {"target_id": put.row.target_id})).rows:
                if row.id != put.row.id:
                    self._drop(row)
        return super()._put(put, *more)


class AnswersAboutScores(MemoryStorage):
    """The memory backend with the capability, all of it right."""

    def capabilities(self) -> Capabilities:
        return super().capabilities()._replace(scores=self)

    def newest_scores(self, instance_ids: Any) -> Any:
        return scores.newest_scores(RowByRow(self), instance_ids)

    def latest_scores(self, name: str, source: str | None = None) -> Any:
        return scores.latest_scores(RowByRow(self), name, source)

    def tags(self, instance_ids: Any) -> Any:
        return scores.tags_of(RowByRow(self), instance_ids)


@found_by(ANSWERED)
class CountsWhatWasWithdrawn(AnswersAboutScores):
    def newest_scores(self, instance_ids: Any) -> Any:
        return [row for row in self.page(Query("score")).rows if row.agent_instance_id in instance_ids]  # type: ignore[union-attr]


@found_by(ANSWERED)
class CountsScoresOfSpansForTheirRun(AnswersAboutScores):
    def latest_scores(self, name: str, source: str | None = None) -> Any:
        rows = scores.newest_scores(RowByRow(self), [run.id for run in self.page(Query("agent_instance")).rows])
        named = [row for row in rows if row.name == name and source in (None, row.source)]
        return {row.agent_instance_id: LatestScore(row.value, row.label) for row in named}


@found_by(ANSWERED)
class TagsAreInOrderOfTheirIds(AnswersAboutScores):
    def tags(self, instance_ids: Any) -> Any:
        rows = self.page(Query("tag")).rows
        return {id: [row.tag for row in rows if row.agent_instance_id == id] for id in instance_ids}  # type: ignore[union-attr]
