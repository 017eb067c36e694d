"""Scores: judgements of runs and spans, and the rule which of them count. Scores are added, never changed.

Of the scores with the same target, name and identifier, the newest counts. If the newest withdraws, none counts.

A quality payload, the JSON object of an evaluation, holds judgements that become scores.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, SupportsFloat

from agentspan import jsontext
from agentspan.errors import InvalidValue, RequiredValue
from agentspan.model.changes import storable_text
from agentspan.model.registration import UNNAMED
from agentspan.model.rows import TYPE_OF, AgentInstanceRow, AgentSpanRow, ScoreRow

Source = Literal["human", "model", "code"]
SOURCES: tuple[Source, ...] = ("human", "model", "code")
MARK, NOTE = "mark", "note"
"""The names of scores without a number: a mark has a label, such as `bad`; a note has only an explanation."""
MAX_NAME = 200
"""The most characters of a name, a label or an identifier."""
MAX_EXPLANATION = 10_000


class Judgement(NamedTuple):
    """The content of a score, without its ids, target and time."""

    name: str
    value: float | None
    label: str | None
    explanation: str | None
    source: str
    identifier: str | None


def judgement(
    name: Any,
    value: Any = None,
    *,
    label: Any = None,
    explanation: Any = None,
    source: Any = "code",
    identifier: Any = None,
    withdraw: bool = False,
) -> Judgement:
    """Check the content of a score, and return it.

    Args:
        value: a finite number, also one of numpy; True counts as 1, False as 0.
        source: one of SOURCES.
        withdraw: True to withdraw earlier scores. The score then has no value, label or explanation.

    Raises:
        RequiredValue: there is no name; or there is no value, label or explanation, and the score does not withdraw.
        InvalidValue: an argument has the wrong type or is too long; `source` is unknown; or a score that withdraws has
            a value, label or explanation.
    """
    if source not in SOURCES:
        raise InvalidValue("source", f"must be one of {', '.join(SOURCES)}")
    checked = Judgement(
        _text("name", name) or "",
        _number(value),
        _text("label", label),
        _text("explanation", explanation, MAX_EXPLANATION),
        source,
        _text("identifier", identifier),
    )
    if not checked.name:
        raise RequiredValue("name", "is required")
    is_empty = checked.value is None and checked.label is None and checked.explanation is None
    if withdraw and not is_empty:
        raise InvalidValue("withdraw", "stands alone: a score that withdraws has no value, label or explanation")
    if is_empty and not withdraw:
        raise RequiredValue("value", "is required, or a label or an explanation; `withdraw` takes back earlier scores")
    return checked


def scored(id: str, target: AgentInstanceRow | AgentSpanRow, judged: Judgement, now: str) -> ScoreRow:
    """Return the row of a score of a run or a span."""
    run_id = target.agent_instance_id if isinstance(target, AgentSpanRow) else target.id
    return score_row(id, run_id, TYPE_OF[type(target)], target.id, judged, now)


def score_row(id: str, run_id: str, target_type: str, target_id: str, judged: Judgement, now: str) -> ScoreRow:
    """Return the row of a score whose run and target are known by id."""
    name, value, label, explanation, source, identifier = judged
    return ScoreRow(id, run_id, target_type, target_id, name, value, label, source, identifier, now, explanation)


def counting(rows: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Return the scores that count, in the order of time and id: the newest of each target, name and identifier."""
    newest: dict[tuple[str, str, str | None], ScoreRow] = {}
    for row in rows:
        judged = row.target_id, row.name, row.identifier
        before = newest.get(judged)
        if before is None or age(before) < age(row):
            newest[judged] = row
    return sorted((row for row in newest.values() if not withdraws(row)), key=age)


def withdraws(row: ScoreRow) -> bool:
    """Return whether a score withdraws earlier ones: it has no value, no label and no explanation."""
    return row.value is None and row.label is None and row.explanation is None


def age(row: ScoreRow) -> tuple[str, str]:
    """Return the key that sorts scores from the oldest to the newest."""
    return row.inserted_at, row.id


def _number(value: Any) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, SupportsFloat) and not isinstance(value, str)
    number = math.nan
    try:
        number = float(value) if is_number else math.nan
    except (OverflowError, TypeError, ValueError):
        pass
    if not math.isfinite(number):
        raise InvalidValue("value", "must be a finite number")
    return number


def _text(field: str, value: Any, most: int = MAX_NAME) -> str | None:
    return None if value == "" else storable_text(field, value, most)


UNNAMED_SCORE = "quality"
"""The name of the score that the quality payload without a name becomes."""
MAX_SCORES = 100
"""The most scores that one quality payload becomes."""
_VALUES, _LABELS = ("score", "value", "rating"), ("label", "verdict")
_EXPLANATIONS = ("explanation", "reason", "comment", "report")


def typed(text: str) -> bool | float | str:
    """Parse the value of a score that a person typed: true or false, else a number, else a word."""
    truth = {"true": True, "false": False}.get(text.lower())
    if truth is not None:
        return truth
    try:
        return float(text)
    except ValueError:
        return text


def judgements(name: str, payload: Mapping[str, Any]) -> dict[str, Judgement]:
    """Return the judgements that a quality payload holds, by the names of their scores.

    The score with the payload's name takes the members `score` (or `value`, `rating`), `label` (or `verdict`) and
    `explanation` (or `reason`, `comment`, `report`). Each other member that is a number, or an object with such
    members, becomes a score `NAME.MEMBER`. A payload without such members becomes one score, whose explanation is the
    payload.
    """
    own = (name if name != UNNAMED else UNNAMED_SCORE)[:MAX_NAME]
    found: dict[str, Judgement] = {}
    used = _add(found, own, payload)
    for member, value in payload.items():
        if member not in used and len(found) < MAX_SCORES:
            _add(found, f"{own}.{member}"[:MAX_NAME], value if isinstance(value, Mapping) else {"value": value})
    if not found:
        found[own] = Judgement(own, None, None, jsontext.encode(payload)[0][:MAX_EXPLANATION], "code", None)
    return found


def withdrawn(name: str) -> Judgement:
    """Return the judgement that withdraws a score of a quality payload."""
    return Judgement(name, None, None, None, "code", None)


def _add(found: dict[str, Judgement], name: str, members: Mapping[str, Any]) -> set[str]:
    """Add the judgement that an object's members make, if there is one. Return the names of the members used."""
    value = next((member for member in _VALUES if _is_number(members.get(member))), None)
    label = next((member for member in _LABELS if _is_text(members.get(member), MAX_NAME)), None)
    why = next((member for member in _EXPLANATIONS if _is_text(members.get(member), MAX_EXPLANATION)), None)
    used = {member for member in (value, label, why) if member is not None}
    if used:
        number = None if value is None else float(members[value])
        found[name] = Judgement(
            name, number, None if label is None else members[label], None if why is None else members[why], "code", None
        )
    return used


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= 1e300 and math.isfinite(value)


def _is_text(value: Any, most: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most
