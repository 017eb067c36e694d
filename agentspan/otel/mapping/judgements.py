"""Reads and writes scores: the event `gen_ai.evaluation.result`, and OpenInference's annotations and evaluations.

The event is an event of a span, or a log record emitted inside a span. Annotations are attributes of a span, such as
`annotations.0.annotation.name`; with the prefix `trace.` they are about its trace. Scores of sessions are not read.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from agentspan.errors import AgentspanError
from agentspan.model.rows import ScoreRow
from agentspan.model.scores import MAX_EXPLANATION, MAX_NAME, SOURCES, Judgement, judgement
from agentspan.otel.span import Event, OtelSpan
from agentspan.text import cut, one_line

RESULT = "gen_ai.evaluation.result"
SCORE_ID, SCORE_SOURCE, SCORE_IDENTIFIER = "agentspan.score.id", "agentspan.score.source", "agentspan.score.identifier"
SCORE_RUN, SCORE_SPAN = "agentspan.score.run", "agentspan.score.span"
_FORMS = tuple(
    (f"{scope}{word}s.", f".{word}.", f"{scope}{word}s.0.{word}.name", bool(scope))
    for scope in ("", "trace.")
    for word in ("annotation", "evaluation")
)
"""OpenInference's forms of scores: the text before and after the number, the first name, whether about the trace."""
FIRST = frozenset(first for _, _, first, _ in _FORMS)
_KINDS = {"HUMAN": "human", "LLM": "model", "CODE": "code"}
MOST = 100
"""The most scores of one form that are read from a span."""


class FoundScore(NamedTuple):
    """A score that was found in a span or a log record.

    Attributes:
        judged: the name, value and other content of the score.
        time_ns: the time of the score; 0 if it is unknown.
        is_of_run: whether the score is about the trace, not the span.
        id: the id of the score if an agentspan wrote it; else None.
    """

    judged: Judgement
    time_ns: int
    is_of_run: bool
    id: str | None = None


def scores_in(span: OtelSpan) -> list[FoundScore]:
    """Return the scores in the events and attributes of a span (0.3 µs where there are none)."""
    attributes = span.attributes
    if not span.events and FIRST.isdisjoint(attributes):
        return []
    scores = [found for event in span.events if event.name == RESULT and (found := score_in(event)) is not None]
    for before, after, first, is_of_run in _FORMS:
        if first in attributes:
            scores += _annotations(attributes, before, after, is_of_run, span.end_ns or 0)
    return scores


def score_in(event: Event) -> FoundScore | None:
    """Return the score in an event; None if it has no usable score, such as a failed evaluation."""
    members: Mapping[str, Any] = {**event.attributes, **(event.body if isinstance(event.body, dict) else {})}
    evaluation = {name.removeprefix("gen_ai.evaluation."): value for name, value in members.items()}
    judged = _judgement(
        evaluation.get("name"),
        evaluation.get("score.value"),
        evaluation.get("score.label"),
        evaluation.get("explanation"),
        members.get(SCORE_SOURCE),
        members.get(SCORE_IDENTIFIER),
    )
    id = members.get(SCORE_ID)
    return None if judged is None else FoundScore(judged, event.time_ns, False, id if isinstance(id, str) else None)


def attributes_of(score: ScoreRow) -> dict[str, Any]:
    """Return the attributes of the event that a score is exported as. Columns without a value are None."""
    return {
        "gen_ai.evaluation.name": score.name,
        "gen_ai.evaluation.score.value": score.value,
        "gen_ai.evaluation.score.label": score.label,
        "gen_ai.evaluation.explanation": score.explanation,
        SCORE_ID: score.id,
        SCORE_SOURCE: score.source,
        SCORE_IDENTIFIER: score.identifier,
    }


def place_of(score: ScoreRow) -> dict[str, Any]:
    """Return the attributes with which another agentspan finds the run and the span of an exported score."""
    span = score.target_id if score.target_type == "agent_span" else None
    return {SCORE_RUN: score.agent_instance_id, SCORE_SPAN: span}


def _annotations(
    attributes: Mapping[str, Any], before: str, after: str, is_of_run: bool, time_ns: int
) -> Iterator[FoundScore]:
    for number in range(MOST):
        start = f"{before}{number}{after}"
        if f"{start}name" not in attributes:
            return
        fields = ("name", "score", "label", "explanation", "annotator_kind", "identifier")
        name, value, label, why, kind, identifier = (attributes.get(f"{start}{field}") for field in fields)
        judged = _judgement(name, value, label, why, _KINDS.get(str(kind).upper()), identifier)
        if judged is not None:
            yield FoundScore(judged, time_ns, is_of_run)


def _judgement(name: Any, value: Any, label: Any, why: Any, source: Any, identifier: Any) -> Judgement | None:
    """Return a judgement from the values of another program; None if they are unusable."""
    is_number = isinstance(value, int | float)
    try:
        return judgement(
            _short(name),
            value if is_number else None,
            label=_short(label),
            explanation=cut(why, MAX_EXPLANATION) if isinstance(why, str) else None,
            source=source if source in SOURCES else "code",
            identifier=_short(identifier),
        )
    except AgentspanError:
        return None


def _short(text: Any) -> str | None:
    return one_line(text, MAX_NAME) if isinstance(text, str) else None
