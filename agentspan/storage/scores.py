"""Reads the scores that count (see model.scores), and tags of runs. A storage that claims `scores` answers itself.

Where one score of a name is wanted and several judges, each with an identifier, gave one, the newest of theirs is it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, cast

from agentspan.model.rows import ScoreRow, TagRow, Value
from agentspan.model.scores import age, counting
from agentspan.storage.analytics import LatestScore
from agentspan.storage.protocol import Storage
from agentspan.storage.scanning import scan

AT_ONCE = 100
"""Runs up to which the rows of each are read; for more runs all rows of the storage are."""


class Said(NamedTuple):
    """The tags of a run, in the order of the alphabet, and its scores that count: both are stored beside its row."""

    tags: list[str]
    scores: list[ScoreRow]


def said_of(storage: Storage, instance_ids: Sequence[str]) -> dict[str, Said]:
    """Return the tags and scores of these runs. Scores of spans are not among them."""
    said = {id: Said(tags, []) for id, tags in tags_of(storage, instance_ids).items()}
    for row in newest_scores(storage, instance_ids):
        if row.target_type == "agent_instance":
            said[row.target_id].scores.append(row)
    return said


def newest_scores(storage: Storage, instance_ids: Sequence[str]) -> list[ScoreRow]:
    """Return the scores that count, of these runs and their spans, by time and id."""
    claimed = storage.capabilities().scores
    if claimed is not None:
        return claimed.newest_scores(instance_ids)
    return counting(cast(Iterable[ScoreRow], _rows_of(storage, ScoreRow, instance_ids)))


def latest_scores(storage: Storage, name: str, source: str | None = None) -> Mapping[str, LatestScore]:
    """Return the newest score of this name for each run that has one, by the run's id. Scores of spans do not count.

    Args:
        source: only scores from this source.
    """
    claimed = storage.capabilities().scores
    if claimed is not None:
        return claimed.latest_scores(name, source)
    where: dict[str, Value] = {"name": name, "target_type": "agent_instance"}
    where |= {} if source is None else {"source": source}
    return {row.target_id: LatestScore(row.value, row.label) for row in counting(scan(storage, ScoreRow, where))}


def tags_of(storage: Storage, instance_ids: Sequence[str]) -> Mapping[str, list[str]]:
    """Return the tags of these runs, in the order of the alphabet; one without tags, or unknown, has none."""
    claimed = storage.capabilities().scores
    if claimed is not None:
        return claimed.tags(instance_ids)
    found: dict[str, list[str]] = {id: [] for id in instance_ids}
    for row in cast(Iterable[TagRow], _rows_of(storage, TagRow, instance_ids)):
        found[row.agent_instance_id].append(row.tag)
    return {id: sorted(tags) for id, tags in found.items()}


def history(storage: Storage, instance_id: str) -> list[ScoreRow]:
    """Return all scores of a run and its spans, also those that a newer one replaced or withdrew, by time and id."""
    return sorted(scan(storage, ScoreRow, {"agent_instance_id": instance_id}), key=age)


def _rows_of(
    storage: Storage, row_type: type[ScoreRow] | type[TagRow], instance_ids: Sequence[str]
) -> Iterable[ScoreRow | TagRow]:
    wanted = set(instance_ids)
    if len(wanted) > AT_ONCE:
        return (row for row in scan(storage, row_type) if row.agent_instance_id in wanted)
    return (row for id in wanted for row in scan(storage, row_type, {"agent_instance_id": id}))
