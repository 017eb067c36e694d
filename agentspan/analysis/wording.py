"""Differences of two payloads, member by member, and of two texts, word by word; also a score as one line."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from agentspan import jsontext
from agentspan.analysis.step_keys import match
from agentspan.model.rows import ScoreRow

MAX_FIELDS = 20
"""The largest number of differing members that one difference lists."""
MAX_TEXT = 20_000
"""The number of characters of each text that are compared word by word, from the first difference on."""
MAX_WORD_EDITS = 400
DEEPEST = 40
"""The largest number of levels of a payload that are compared member by member."""
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Words:
    """A part of a text: in both runs (`same`), only in A (`removed`), or only in B (`added`)."""

    op: Literal["same", "removed", "added"]
    text: str


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A member in which two JSON values differ.

    Attributes:
        path: the place of the member, such as `arguments.city` or `messages.2.content`; for a member of a step's
            payload or result it starts with `payload` or `result`.
        a, b: the value of the member in A and in B: a text, or JSON text of another value; None if it is missing.
        words: if both values are texts, the parts of both in order.
    """

    path: str
    a: str | None
    b: str | None
    words: tuple[Words, ...]


def field_changes(path: str, a: Any, b: Any) -> Iterator[FieldChange]:
    """Yield the members in which two JSON values differ.

    Args:
        a, b: the values; `...`, which is not a JSON value, for a missing one.
    """
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
    """Yield the word-by-word difference of two texts in order: same, removed (only in A) and added (only in B)."""
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
    """Return the length of the common prefix of two texts, without a partial word at its end."""
    both = enumerate(zip(a, b, strict=False))
    start = next((place for place, (one, other) in both if one != other), min(len(a), len(b)))
    while start and (a[start - 1].isalnum() or a[start - 1] == "_"):
        start -= 1
    return start


def _part(op: Literal["same", "removed", "added"], tokens: Sequence[str]) -> list[Words]:
    return [Words(op, "".join(tokens))] if tokens else []


def _joined(parts: Sequence[Words]) -> Iterator[Words]:
    """Merge adjacent parts of one kind; blanks between changed parts count as changed, so phrases stay whole."""
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
