"""The scores and tags of runs, as they are shown together; and all scores that a run ever had."""

from collections.abc import Sequence
from typing import NamedTuple

from agentspan.model.rows import ScoreRow
from agentspan.model.scores import age
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import NewestScores, Tags
from agentspan.storage.scanning import scan


class Said(NamedTuple):
    """The tags of a run, in the order of the alphabet, and its scores that count: both are stored beside its row."""

    tags: list[str]
    scores: list[ScoreRow]


def said_of(storage: Storage, instance_ids: Sequence[str]) -> dict[str, Said]:
    """Return the tags and scores of these runs. Scores of spans are not among them."""
    said = {id: Said(tags, []) for id, tags in storage.ask(Tags(instance_ids)).items()}
    for row in storage.ask(NewestScores(instance_ids)):
        if row.target_type == "agent_instance":
            said[row.target_id].scores.append(row)
    return said


def history(storage: Storage, instance_id: str) -> list[ScoreRow]:
    """Return all scores of a run and its spans, also those that a newer one replaced or withdrew, by time and id."""
    return sorted(scan(storage, ScoreRow, {"agent_instance_id": instance_id}), key=age)
