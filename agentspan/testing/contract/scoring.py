"""Contract of a storage: tags and scores of runs; if it claims scores, the same answers as reading row by row."""

import random

from agentspan.model.changes import Put, Refused, Remove, Unit
from agentspan.model.rows import ScoreRow, TagRow
from agentspan.model.scores import age, counting
from agentspan.storage.answers import LatestScore
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import LatestScores, NewestScores, Query, Tags
from agentspan.testing.contract.base import Base
from agentspan.testing.contract.rows import T0, T1, T2, why_refused

NAMES = ("reward", "mark")


class Scoring(Base):
    """Contract: tags and scores."""

    def test_tags_and_scores_belong_to_a_run_that_exists(self, storage: Storage) -> None:
        """A run has each tag once, and any number of scores, also of spans that are not stored yet."""
        run, other = self.instance(storage), self.instance(storage)
        tags = [TagRow(self.rows.ids.new(), each.id, tag, T0) for each in (run, other) for tag in ("eval", "nightly")]
        scores = [self.score(run.id, number, target_id=target) for number in (1.0, 2.0) for target in (run.id, "later")]
        self.put(storage, *tags, *scores, self.score(other.id, None))
        again = tags[0]._replace(id=self.rows.ids.new())
        assert storage.apply([Unit((Put(again),))]) == [Refused("not_unique", tags[0])]
        assert storage.apply([Unit((Put(scores[0]),))]) == [Refused("id_used", scores[0])]
        unknown = self.rows.ids.new()
        assert why_refused(storage, Unit((Put(again._replace(agent_instance_id=unknown)),))) == "missing"
        assert why_refused(storage, Unit((Put(self.score(unknown, 1.0)),))) == "missing"
        assert storage.ask(Query("tag", {"agent_instance_id": run.id})).rows == tags[:2]
        assert storage.ask(Query("score", {"agent_instance_id": run.id, "name": "reward"})).rows == scores
        assert why_refused(storage, Unit((Remove("agent_instance", run.id),))) == "referenced"
        assert why_refused(storage, Unit((Remove("tag", tags[0].id), Put(again)))) is None
        assert storage.ask(Query("tag", {"agent_instance_id": run.id})).rows == [tags[1], again]

    def test_newest_scores_and_tags_are_those_of_reading_row_by_row(self, storage: Storage) -> None:
        """Of each target, name and judge the newest by time, then id; what withdraws counts for nothing."""
        self.answered(storage, NewestScores)
        chance, rows = random.Random(5), list[ScoreRow]()
        runs = [self.instance(storage) for _ in range(5)]
        for run in runs[1:]:
            kept = [TagRow(self.rows.ids.new(), run.id, f"tag-{number}", T0) for number in range(3, 0, -1)]
            self.put(storage, *kept)
            for _ in range(30):
                row = self.score(run.id, chance.choice((None, 0.5, 1.0)), label=chance.choice((None, None, "good")))
                is_of_span = chance.random() < 0.3
                rows.append(
                    row._replace(
                        name=chance.choice(NAMES),
                        target_type="agent_span" if is_of_span else "agent_instance",
                        target_id="span" if is_of_span else run.id,
                        source=chance.choice(("human", "code")),
                        identifier=chance.choice((None, "a", "b")),
                        inserted_at=chance.choice((T0, T1, T2)),
                    )
                )
        chance.shuffle(rows)
        self.put(storage, *rows)
        for ids in ([run.id for run in runs], [runs[2].id], [self.rows.ids.new()], []):
            assert storage.ask(NewestScores(ids)) == counting(row for row in rows if row.agent_instance_id in ids)
            assert storage.ask(Tags(ids)) == {
                id: ["tag-1", "tag-2", "tag-3"] if id in [run.id for run in runs[1:]] else [] for id in ids
            }
        for name in (*NAMES, "unknown"):
            for source in (None, "human", "model"):
                of_runs = [row for row in rows if (row.name, row.target_type) == (name, "agent_instance")]
                wanted = counting(row for row in of_runs if source in (None, row.source))
                found = {row.target_id: LatestScore(row.value, row.label) for row in sorted(wanted, key=age)}
                assert storage.ask(LatestScores(name, source)) == found

    def score(
        self, run_id: str, value: float | None, *, target_id: str | None = None, label: str | None = None
    ) -> ScoreRow:
        """A score of a run, or of another target in it."""
        target_type = "agent_instance" if target_id in (None, run_id) else "agent_span"
        id, target_id = self.rows.ids.new(), target_id or run_id
        return ScoreRow(id, run_id, target_type, target_id, "reward", value, label, "code", None, T0, None)
