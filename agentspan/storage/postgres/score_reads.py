"""PostgreSQL's own answers about scores and tags (see analytics.Scores): one statement for all runs."""

from collections.abc import Mapping, Sequence

from agentspan.model.rows import ScoreRow
from agentspan.model.scores import counting
from agentspan.storage.analytics import LatestScore
from agentspan.storage.postgres.lending import Lend, rows_of, storable
from agentspan.storage.postgres.statements import SELECT

_SCORES = f"{SELECT['score']} where agent_instance_id = any(%s)"
_TAGS = "select agent_instance_id, tag from tags where agent_instance_id = any(%s)"
# Of each judge the newest; one that withdraws counts for nothing; of the judges of a run the newest.
_LATEST = """
select distinct on (target_id) target_id, value, label from (
    select distinct on (target_id, identifier) target_id, value, label, explanation, inserted_at, id
    from scores where name = %s and target_type = 'agent_instance'{0}
    order by target_id, identifier, inserted_at desc, id desc
) newest where value is not null or label is not null or explanation is not null
order by target_id, inserted_at desc, id desc
"""


class ScoreReads:
    """The reads of Scores.

    Args:
        reading: lends the connection of a read of one statement.
    """

    def __init__(self, reading: Lend) -> None:
        self.reading = reading

    def newest_scores(self, instance_ids: Sequence[str]) -> list[ScoreRow]:
        """See Scores."""
        with self.reading() as connection:
            return counting(map(ScoreRow._make, rows_of(connection, _SCORES, (storable(instance_ids),))))

    def latest_scores(self, name: str, source: str | None = None) -> Mapping[str, LatestScore]:
        """See Scores."""
        values = (name,) if source is None else (name, source)
        if len(storable(values)) < len(values):
            return {}
        sql = _LATEST.format("" if source is None else " and source = %s")
        with self.reading() as connection:
            return {id: LatestScore(value, label) for id, value, label in rows_of(connection, sql, values)}

    def tags(self, instance_ids: Sequence[str]) -> Mapping[str, list[str]]:
        """See Scores."""
        found: dict[str, list[str]] = {id: [] for id in instance_ids}
        with self.reading() as connection:
            for id, tag in rows_of(connection, _TAGS, (storable(instance_ids),)):
                found[id].append(tag)
        return {id: sorted(tags) for id, tags in found.items()}
