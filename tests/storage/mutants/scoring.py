"""Mutants that keep tags and scores wrongly, or answer wrongly which scores count."""

from typing import Any, ClassVar

from agentspan.model.rows import ScoreRow, TagRow
from agentspan.storage.answers import LatestScore
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import LatestScores, NewestScores, Query, Tags
from tests.storage.mutants.noting import Claiming, Own, found_by

KEPT = "test_tags_and_scores_belong_to_a_run_that_exists"
ANSWERED = "test_newest_scores_and_tags_are_those_of_reading_row_by_row"


@found_by(KEPT)
class KeepsATagTwice(MemoryStorage):
    def _same(self, row: Any) -> Any:
        return None if isinstance(row, TagRow) else super()._same(row)


@found_by(KEPT)
class KeepsTheNewestScoreOnly(MemoryStorage):
    def _put(self, put: Any, *more: Any) -> Any:
        if isinstance(put.row, ScoreRow):
            for row in self.ask(Query("score", {"target_id": put.row.target_id})).rows:
                if row.id != put.row.id:
                    del self._rows[row.id]
        return super()._put(put, *more)


class AnswersAboutScores(Claiming):
    """The memory backend with answers about scores and tags, all of them right."""

    own: ClassVar[Own] = {NewestScores: "newest_scores", LatestScores: "latest_scores", Tags: "tags"}


@found_by(ANSWERED)
class CountsWhatWasWithdrawn(AnswersAboutScores):
    def newest_scores(self, asked: Any) -> Any:
        rows: Any = self.ask(Query("score")).rows
        return [row for row in rows if row.agent_instance_id in asked.instance_ids]


@found_by(ANSWERED)
class CountsScoresOfSpansForTheirRun(AnswersAboutScores):
    def latest_scores(self, asked: Any) -> Any:
        rows = self.ask(NewestScores([run.id for run in self.ask(Query("agent_instance")).rows]))
        named = [row for row in rows if row.name == asked.name and asked.source in (None, row.source)]
        return {row.agent_instance_id: LatestScore(row.value, row.label) for row in named}


@found_by(ANSWERED)
class TagsAreInOrderOfTheirIds(AnswersAboutScores):
    def tags(self, asked: Any) -> Any:
        rows: Any = self.ask(Query("tag")).rows
        return {id: [row.tag for row in rows if row.agent_instance_id == id] for id in asked.instance_ids}
