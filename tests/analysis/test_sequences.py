"""The alignment of two sequences: nothing is longer, whatever the keys; and its cost is bounded."""

import random

from hypothesis import given
from hypothesis import strategies as st

from agentspan.analysis.differences import Matches, match

keys = st.lists(st.integers(0, 4), max_size=14)


def longest(before: list[int], after: list[int]) -> int:
    """The length of the longest common subsequence, by the table."""
    row = [0] * (len(after) + 1)
    for key in before:
        above, row = row, [0]
        for place, other in enumerate(after):
            row.append(above[place] + 1 if key == other else max(above[place + 1], row[-1]))
    return row[-1]


def check(before: list[int], after: list[int], found: Matches) -> None:
    assert all(before[x] == after[y] for x, y in found.pairs)
    assert all(
        x < next_x and y < next_y for (x, y), (next_x, next_y) in zip(found.pairs, found.pairs[1:], strict=False)
    )


@given(keys, keys)
def test_nothing_in_common_is_longer(before: list[int], after: list[int]) -> None:
    found = match(before, after)
    check(before, after, found)
    assert len(found.pairs) == longest(before, after)
    assert found.is_shortest


@given(keys, keys, st.integers(1, 3))
def test_beyond_the_bound_the_result_is_valid_and_says_so(before: list[int], after: list[int], bound: int) -> None:
    found = match(before, after, max_edits=bound)
    check(before, after, found)
    assert not found.is_shortest or len(found.pairs) == longest(before, after)


def edited(number: int, edits: int, alphabet: int) -> tuple[list[int], list[int]]:
    dice = random.Random(7)
    before = [dice.randrange(alphabet) for _ in range(number)]
    after = list(before)
    for _ in range(edits):
        place = dice.randrange(len(after))
        match dice.randrange(3):
            case 0:
                after.insert(place, dice.randrange(alphabet))
            case 1:
                del after[place]
            case _:
                after[place] = alphabet + dice.randrange(10**9)
    return before, after


def test_a_thousand_edits_among_ten_thousand_take_less_than_a_million_steps() -> None:
    found = match(*edited(10_000, 1000, 60))
    assert found.is_shortest
    assert len(found.pairs) > 9200
    assert found.steps < 1_000_000  # of some 0.3 µs; a table would have 100,000,000


def test_the_cost_beyond_the_bound_grows_with_the_edits_not_with_their_square() -> None:
    before, after = edited(3000, 4000, 8)
    found = match(before, after, max_edits=300)
    check(before, after, found)
    assert not found.is_shortest
    assert len(found.pairs) > 900
    assert found.steps < 300_000
