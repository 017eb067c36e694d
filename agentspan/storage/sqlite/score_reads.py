"""SQLite's own answers about scores and tags (see analytics.Scores): a statement for all runs, or for CHUNK of them."""

from collections.abc import Mapping, Sequence

from agentspan.model.rows import ScoreRow
from agentspan.model.scores import age, counting
from agentspan.storage.analytics import LatestScore
from agentspan.storage.sqlite.lending import Lend, chunks

# A bare column beside max() is from the row that has the maximum. Explanations stay unread: they may be long.
# 100,000 scores of 10,000 runs: 0.11 s of CPU without an SQL index by name, 0.08 with one, which every write would pay.
_LATEST = """
select target_id, value, label, value is null and label is null and explanation is null, max(inserted_at || id)
from scores where name = ? and target_type = 'agent_instance' and {source} group by target_id, identifier
"""


class ScoreReads:
    """The reads of Scores.

    Args:
        reading: lends the connection of each read.
    """

    def __init__(self, reading: Lend) -> None:
        self.reading = reading

    def newest_scores(self, instance_ids: Sequence[str]) -> list[ScoreRow]:
        """See Scores."""
        found: list[ScoreRow] = []
        with self.reading() as connection:
            for chunk in chunks(instance_ids):
                found += counting(map(ScoreRow._make, connection.execute(_scores(len(chunk)), chunk)))
        return sorted(found, key=age)

    def latest_scores(self, name: str, source: str | None = None) -> Mapping[str, LatestScore]:
        """See Scores."""
        statement = _LATEST.format(source="1" if source is None else "source = ?")
        latest: dict[str, tuple[str, LatestScore]] = {}
        with self.reading() as connection:
            values = (name,) if source is None else (name, source)
            for id, value, label, withdraws, at in connection.execute(statement, values):
                if not withdraws and (id not in latest or latest[id][0] < at):
                    latest[id] = at, LatestScore(value, label)
        return {id: score for id, (_, score) in latest.items()}

    def tags(self, instance_ids: Sequence[str]) -> Mapping[str, list[str]]:
        """See Scores."""
        found: dict[str, list[str]] = {id: [] for id in instance_ids}
        with self.reading() as connection:
            for chunk in chunks(instance_ids):
                for id, tag in connection.execute(_tags(len(chunk)), chunk):
                    found[id].append(tag)
        return {id: sorted(tags) for id, tags in found.items()}


def _scores(number: int) -> str:
    marks = ", ".join("?" * number)
    return f"select {', '.join(ScoreRow._fields)} from scores where agent_instance_id in ({marks})"


def _tags(number: int) -> str:
    return f"select agent_instance_id, tag from tags where agent_instance_id in ({', '.join('?' * number)})"
