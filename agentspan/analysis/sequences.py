"""Aligns two sequences of keys: the longest common subsequence by Myers' greedy algorithm, within a bound.

E. Myers, An O(ND) difference algorithm and its variations, Algorithmica 1 (1986). Keys that only one side has are left
out first: they are no part of a common subsequence, and most edits are such keys.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

MAX_EDITS = 2000
"""Edits up to which an alignment is the shortest one. Time and memory grow with their square: 1 s and 16 MB here."""
FEW_EDITS = 250
"""Edits of each further piece, where the whole takes more than MAX_EDITS: time grows with their number then."""


class Matches(NamedTuple):
    """The common elements of two sequences.

    Attributes:
        pairs: the places of each in both, in order.
        is_shortest: whether no alignment has fewer edits; False where the bound was reached.
        steps: how many steps the algorithm took, for tests of its cost.
    """

    pairs: list[tuple[int, int]]
    is_shortest: bool = True
    steps: int = 0


def match(before: Sequence[Hashable], after: Sequence[Hashable], *, max_edits: int = MAX_EDITS) -> Matches:
    """Return the common elements of two sequences.

    After `max_edits` edits the furthest place that was reached is kept, and the rest is aligned from there, in pieces.
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
    """Return how many elements two sequences have in common, from their start."""
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
    """Return a longest common subsequence of two sequences, or of as much of them as `max_edits` edits reach."""
    n, m = len(before), len(after)
    rounds: list[list[int]] = []  # how far each diagonal was reached, for the way back
    furthest = [-1, 0]  # the diagonals around each of the next round are side by side
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
    """Return the matched places on the way to a diagonal of the last round."""
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
