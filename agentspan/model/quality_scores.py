"""Quality payloads as scores: which judgements a JSON object of an evaluation holds."""

import math
from collections.abc import Mapping
from typing import Any

from agentspan import jsontext
from agentspan.model.schema_versions import UNNAMED
from agentspan.model.scores import MAX_EXPLANATION, MAX_NAME, Judgement

UNNAMED_SCORE = "quality"
"""The name of the score of the payload without a name."""
MAX_SCORES = 100
"""Scores of one payload."""
_VALUES, _LABELS = ("score", "value", "rating"), ("label", "verdict")
_EXPLANATIONS = ("explanation", "reason", "comment", "report")


def judgements(name: str, payload: Mapping[str, Any]) -> dict[str, Judgement]:
    """Return the scores that a quality payload holds, by their names.

    The score of the payload's name has its members `score` (or `value`, `rating`), `label` (or `verdict`) and
    `explanation` (or `reason`, `comment`, `report`). Each other member that is a number, or an object with such
    members, is a score `NAME.MEMBER`. A payload with none of them is one score, whose explanation is the payload.
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
    """Return the judgement that takes a score of a quality payload back."""
    return Judgement(name, None, None, None, "code", None)


def _add(found: dict[str, Judgement], name: str, said: Mapping[str, Any]) -> set[str]:
    """Add the score that some members are, if they are one; return the names of the members it is made of."""
    value = next((member for member in _VALUES if _is_number(said.get(member))), None)
    label = next((member for member in _LABELS if _is_text(said.get(member), MAX_NAME)), None)
    why = next((member for member in _EXPLANATIONS if _is_text(said.get(member), MAX_EXPLANATION)), None)
    used = {member for member in (value, label, why) if member is not None}
    if used:
        number = None if value is None else float(said[value])
        found[name] = Judgement(
            name, number, None if label is None else said[label], None if why is None else said[why], "code", None
        )
    return used


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) <= 1e300 and math.isfinite(value)


def _is_text(value: Any, most: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most
