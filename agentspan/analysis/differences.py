"""Differences of two sequences (by Myers' algorithm), of two texts word by word, and of two JSON values by member."""

import json
import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from agentspan import jsontext

MAX_EDITS = 2000
"""The number of edits up to which an alignment is the shortest one.

Time and memory grow with the square of the edits: 1 s and 16 MB at this limit.
"""
FEW_EDITS = 250
"""The number of edits of each further piece, if two sequences need more than MAX_EDITS.

The time then grows with the number of pieces, no longer with the square of the edits.
"""


class Matches(NamedTuple):
    """The common elements of two sequences.

    Attributes:
        pairs: the indexes of each common element in both sequences, in order.
        is_shortest: True if no alignment has fewer edits; False if the limit of edits was reached.
        steps: the number of steps of the algorithm, for tests of its cost.
    """

    pairs: list[tuple[int, int]]
    is_shortest: bool = True
    steps: int = 0


def match(before: Sequence[Hashable], after: Sequence[Hashable], *, max_edits: int = MAX_EDITS) -> Matches:
    """Return the common elements of two sequences, by Myers' algorithm.

    After `max_edits` edits the alignment is kept up to the furthest point, and the rest is aligned in pieces.
    """
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    ends = (len(before) - end, len(after) - end)
    in_both = set(before[start : ends[0]]) & set(after[start : ends[1]])
    numbers = {key: number for number, key in enumerate(in_both)}
    a = [place for place in range(start, ends[0]) if before[place] in numbers]
    b = [place for place in range(start, ends[1]) if after[place] in numbers]
    middle = _in_pieces([numbers[before[place]] for place in a], [numbers[after[place]] for place in b], max_edits)
    pairs = [(place, place) for place in range(start)]
    pairs += [(a[x], b[y]) for x, y in middle.pairs]
    pairs += [(ends[0] + place, ends[1] + place) for place in range(end)]
    return middle._replace(pairs=pairs)


def _common(before: Sequence[Hashable], after: Sequence[Hashable]) -> int:
    """Return the length of the common prefix of two sequences."""
    both = enumerate(zip(before, after, strict=False))
    return next((place for place, (one, other) in both if one != other), min(len(before), len(after)))


def _in_pieces(before: list[int], after: list[int], max_edits: int) -> Matches:
    pairs: list[tuple[int, int]] = []
    done_before = done_after = steps = 0
    is_whole = True
    while done_before < len(before) and done_after < len(after):
        piece = _myers(before[done_before:], after[done_after:], max_edits if not steps else min(max_edits, FEW_EDITS))
        pairs += [(done_before + x, done_after + y) for x, y in piece.pairs]
        done_before, done_after = done_before + piece.end[0], done_after + piece.end[1]
        steps += piece.steps
        is_whole = is_whole and piece.is_whole
    return Matches(pairs, is_whole, steps)


class _Piece(NamedTuple):
    pairs: list[tuple[int, int]]
    end: tuple[int, int]
    steps: int
    is_whole: bool


def _myers(before: list[int], after: list[int], max_edits: int) -> _Piece:
    """Return a longest common subsequence of two sequences, or of the prefixes that `max_edits` edits reach."""
    n, m = len(before), len(after)
    rounds: list[list[int]] = []  # the furthest point on each diagonal per round, for backtracking
    furthest = [-1, 0]  # the two neighbours of each diagonal of the next round are adjacent
    steps = 0
    for edits in range(max_edits + 1):
        reached: list[int] = []
        steps += edits + 1
        for place in range(edits + 1):
            k = 2 * place - edits  # a diagonal: the place in `before` minus the place in `after`
            right, down = furthest[place] + 1, furthest[place + 1]
            x = down if right <= down else right
            y = x - k
            while x < n and y < m and before[x] == after[y]:
                x += 1
                y += 1
            reached.append(x)
            if x >= n and y >= m:
                rounds.append(reached)
                return _Piece(_way_back(rounds, place), (n, m), steps, True)
        rounds.append(reached)
        furthest = [-2, *reached, -2]
    within = [at for at, x in enumerate(reached) if x <= n and x - (2 * at - max_edits) <= m]
    best = max(within, key=lambda at: 2 * reached[at] - (2 * at - max_edits))
    return _Piece(_way_back(rounds, best), (reached[best], reached[best] - (2 * best - max_edits)), steps, False)


def _way_back(rounds: list[list[int]], place: int) -> list[tuple[int, int]]:
    """Backtrack from a diagonal of the last round; return the pairs of matched indexes, in order."""
    pairs: list[tuple[int, int]] = []
    x = rounds[-1][place]
    for edits in range(len(rounds) - 1, -1, -1):
        k = 2 * place - edits
        before = [-2, *rounds[edits - 1], -2] if edits else [-1, 0]
        right, down = before[place] + 1, before[place + 1]
        goes_down = right <= down
        begin = down if goes_down else right
        pairs += [(at, at - k) for at in range(x - 1, begin - 1, -1)]
        x, place = (down, place) if goes_down else (right - 1, place - 1)
    return pairs[::-1]


MAX_FIELDS = 20
"""The largest number of differing members that one difference lists."""
MAX_TEXT = 20_000
"""The number of characters of each text that are compared word by word, from the first difference on."""
MAX_WORD_EDITS = 400
DEEPEST = 40
"""The largest number of levels of a payload that are compared member by member."""
Op = Literal["same", "removed", "added"]
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Words:
    """A part of a text: in both runs (`same`), only in A (`removed`), or only in B (`added`)."""

    op: Op
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
    start = _common(a, b)
    while start and (a[start - 1].isalnum() or a[start - 1] == "_"):
        start -= 1
    return start


def _part(op: Op, tokens: Sequence[str]) -> list[Words]:
    return [Words(op, "".join(tokens))] if tokens else []


def _joined(parts: Sequence[Words]) -> Iterator[Words]:
    """Merge adjacent parts of one kind; blanks between changed parts count as changed, so phrases stay whole."""
    waiting: dict[Op, str] = {"removed": "", "added": ""}
    same = ""
    for number, part in enumerate(parts):
        if part.op == "same":
            is_last = number + 1 == len(parts) or parts[number + 1].op == "same"
            if waiting["removed"] and waiting["added"] and not is_last and not part.text.strip():
                waiting = {op: text + part.text for op, text in waiting.items()}
                continue
            yield from (Words(op, text) for op, text in waiting.items() if text)
            waiting = {"removed": "", "added": ""}
            same += part.text
        else:
            if same:
                yield Words("same", same)
                same = ""
            waiting[part.op] += part.text
    yield from (Words(op, text) for op, text in waiting.items() if text)
    if same:
        yield Words("same", same)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
