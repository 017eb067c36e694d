"""Differences of values and texts: which members of two payloads differ, and which words of them; a score as a line."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentspan import jsontext
from agentspan.analysis.step_keys import match
from agentspan.model.rows import ScoreRow

MAX_FIELDS = 20
"""Members that are listed of one difference, at most."""
MAX_TEXT = 20_000
"""Characters of each text that are compared word by word, from the place on where they differ."""
MAX_WORD_EDITS = 400
DEEPEST = 40
"""Levels of a payload that are taken apart, at most."""
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Words:
    """A part of a text: in both runs (`same`), only in A (`removed`), or only in B (`added`)."""

    op: Literal["same", "removed", "added"]
    text: str


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A member that differs.

    Attributes:
        path: its place, such as `arguments.city` or `messages.2.content`; of a step preceded by `payload` or `result`.
        a, b: its text, or its JSON if it is none; None where it is missing.
        words: the parts of both texts in order, if both are texts.
    """

    path: str
    a: str | None
    b: str | None
    words: tuple[Words, ...]


def field_changes(path: str, a: Any, b: Any) -> Iterator[FieldChange]:
    """Yield the members in which two JSON values differ. Missing ones are `...`, which no JSON value is."""
    if type(a) is dict and type(b) is dict and path.count(".") < DEEPEST:
        for key in [*a, *(key for key in b if key not in a)]:
            yield from field_changes(f"{path}.{key}", a.get(key, ...), b.get(key, ...))
    elif type(a) is list and type(b) is list and path.count(".") < DEEPEST:
        yield from _of_lists(path, a, b)
    else:
        one, other = (None if value is ... else value if type(value) is str else _json(value) for value in (a, b))
        if one != other or type(a) is not type(b):  # 1 and true are equal in Python
            both = tuple(words(a, b)) if type(a) is str and type(b) is str else ()
            yield FieldChange(path, one, other, both)


def _of_lists(path: str, a: list[Any], b: list[Any]) -> Iterator[FieldChange]:
    pairs = match([jsontext.canonical(item) for item in a], [jsontext.canonical(item) for item in b]).pairs
    last_a = last_b = 0
    for x, y in [*pairs, (len(a), len(b))]:
        for offset in range(max(x - last_a, y - last_b)):
            at_a, at_b = last_a + offset, last_b + offset
            one, other = a[at_a] if at_a < x else ..., b[at_b] if at_b < y else ...
            yield from field_changes(f"{path}.{at_b if at_b < y else at_a}", one, other)
        last_a, last_b = x + 1, y + 1


def words(a: str, b: str) -> Iterator[Words]:
    """Yield the parts of two texts; what only one has comes between what both have, that of A first."""
    start = _common_start(a, b)
    head, a, b = a[:start], a[start : start + MAX_TEXT], b[start : start + MAX_TEXT]
    of_a, of_b = _WORD.findall(a), _WORD.findall(b)
    parts = [Words("same", head)] if head else []
    last_a = last_b = 0
    for x, y in [*match(of_a, of_b, max_edits=MAX_WORD_EDITS).pairs, (len(of_a), len(of_b))]:
        parts += _part("removed", of_a[last_a:x]) + _part("added", of_b[last_b:y]) + _part("same", of_a[x : x + 1])
        last_a, last_b = x + 1, y + 1
    yield from _joined(parts)


def _common_start(a: str, b: str) -> int:
    """Return how many characters two texts have in common, up to the end of a word."""
    both = enumerate(zip(a, b, strict=False))
    start = next((place for place, (one, other) in both if one != other), min(len(a), len(b)))
    while start and (a[start - 1].isalnum() or a[start - 1] == "_"):
        start -= 1
    return start


def _part(op: Literal["same", "removed", "added"], tokens: Sequence[str]) -> list[Words]:
    return [Words(op, "".join(tokens))] if tokens else []


def _joined(parts: Sequence[Words]) -> Iterator[Words]:
    """Join parts side by side; blanks between two changed parts belong to both, so that phrases stay together."""
    waiting: dict[str, str] = {"removed": "", "added": ""}
    same = ""
    for number, part in enumerate(parts):
        if part.op == "same":
            is_last = number + 1 == len(parts) or parts[number + 1].op == "same"
            if waiting["removed"] and waiting["added"] and not is_last and not part.text.strip():
                waiting = {op: text + part.text for op, text in waiting.items()}
                continue
            yield from _flushed(waiting)
            waiting = {"removed": "", "added": ""}
            same += part.text
        else:
            if same:
                yield Words("same", same)
                same = ""
            waiting[part.op] += part.text
    yield from _flushed(waiting)
    if same:
        yield Words("same", same)


def _flushed(waiting: dict[str, str]) -> Iterator[Words]:
    if waiting["removed"]:
        yield Words("removed", waiting["removed"])
    if waiting["added"]:
        yield Words("added", waiting["added"])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def score_text(score: ScoreRow) -> str:
    """Return a line such as `reward 0.5 half: booked twice (by model judge-2)`."""
    value = None if score.value is None else f"{score.value:.6g}"
    judged = " ".join(part for part in (score.name, value, score.label) if part is not None)
    why = "" if score.explanation is None else f": {score.explanation}"
    by = " ".join(part for part in (score.source, score.identifier) if part is not None)
    return f"{judged}{why} (by {by})"
