"""Scores: judgements of runs and spans, which are only added. Which of them count.

Of the scores with the same target, name and identifier the newest counts; if it withdraws, none does.
"""

from collections.abc import Iterable
from typing import Literal

from agentspan.model.rows import ScoreRow

Source = Literal["human", "model", "code"]
SOURCES: tuple[Source, ...] = ("human", "model", "code")
MARK, NOTE = "mark", "note"
"""The names of scores without a number: a mark has a label, such as `bad`; a note has only an explanation."""


def counting(rows: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Return those of these scores that count, by time and id."""
    newest: dict[tuple[str, str, str | None], ScoreRow] = {}
    for row in rows:
        judged = row.target_id, row.name, row.identifier
        before = newest.get(judged)
        if before is None or age(before) < age(row):
            newest[judged] = row
    return sorted((row for row in newest.values() if not withdraws(row)), key=age)


def withdraws(row: ScoreRow) -> bool:
    """Return whether a score withdraws those before it: it has no value, no label and no explanation."""
    return row.value is None and row.label is None and row.explanation is None


def age(row: ScoreRow) -> tuple[str, str]:
    """Return the value by which scores are ordered, the oldest first."""
    return row.inserted_at, row.id
