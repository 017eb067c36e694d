"""A score as one line for people."""

from agentspan.model.rows import ScoreRow


def score_text(score: ScoreRow) -> str:
    """Return a line such as `reward 0.5 half: booked twice (by model judge-2)`."""
    value = None if score.value is None else f"{score.value:.6g}"
    judged = " ".join(part for part in (score.name, value, score.label) if part is not None)
    why = "" if score.explanation is None else f": {score.explanation}"
    by = " ".join(part for part in (score.source, score.identifier) if part is not None)
    return f"{judged}{why} (by {by})"
