"""Compares the contexts of two model calls: the elements that were kept, came in, left, and were cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from agentspan.analysis.context import (
    FACTS,
    ONE,
    TITLES,
    Context,
    Element,
    Source,
    by_source,
    contexts,
    numbered,
    previous_call,
    short_name,
)
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.protocol import Storage


class Range(NamedTuple):
    """Consecutive elements of the second context that are also in the first: their numbers in the second, from 1 on."""

    first: int
    last: int
    tokens: int


class Cut(NamedTuple):
    """An element that is in both contexts with different texts, such as a tool result that was cut."""

    number: int
    before: Element
    after: Element


@dataclass(frozen=True, slots=True)
class ContextDiff:
    """The difference of the contexts of two model calls.

    Attributes:
        a, b: the two contexts.
        kept: ranges of elements that are in both, by their numbers in B.
        came_in: numbers in B, and the elements that only B has.
        left: numbers in A, and the elements that only A has.
        cut: the elements whose text became shorter; `changed`: longer, or as long.
        compactions: the ids of the compactions between the two calls, if both are of one agent.
    """

    a: Context
    b: Context
    kept: tuple[Range, ...]
    came_in: tuple[tuple[int, Element], ...]
    left: tuple[tuple[int, Element], ...]
    cut: tuple[Cut, ...]
    changed: tuple[Cut, ...]
    compactions: tuple[str, ...]


def context_diff(a: Context, b: Context) -> ContextDiff:
    """Return the difference of two contexts. Elements are compared by their digests, each one once."""
    of_a: dict[str, list[int]] = {}
    for number in range(len(a.elements) - 1, -1, -1):
        of_a.setdefault(a.elements[number].digest, []).append(number)
    both: list[bool] = []
    gone = set(range(len(a.elements)))
    for each in b.elements:
        places = of_a.get(each.digest)
        both.append(bool(places))
        if places:
            gone.discard(places.pop())
    came_in = [(number, each) for number, each in enumerate(b.elements, start=1) if not both[number - 1]]
    left = [(number + 1, a.elements[number]) for number in sorted(gone)]
    changed, came_in, left = _changed(came_in, left)
    return ContextDiff(
        a,
        b,
        tuple(_ranges(b.elements, both)),
        tuple(came_in),
        tuple(left),
        tuple(each for each in changed if each.after.characters < each.before.characters),
        tuple(each for each in changed if each.after.characters >= each.before.characters),
        b.compactions[len(a.compactions) :] if b.compactions[: len(a.compactions)] == a.compactions else (),
    )


def _ranges(elements: Sequence[Element], both: Sequence[bool]) -> Iterator[Range]:
    first = tokens = 0
    for number, (each, is_kept) in enumerate(zip(elements, both, strict=True), start=1):
        if is_kept:
            first, tokens = first or number, tokens + each.tokens
        elif first:
            yield Range(first, number - 1, tokens)
            first = tokens = 0
    if first:
        yield Range(first, len(elements), tokens)


Numbered = list[tuple[int, Element]]


def _changed(came_in: Numbered, left: Numbered) -> tuple[list[Cut], Numbered, Numbered]:
    """Pair elements that are the same one with another text; return the pairs, and the elements without a partner."""
    places = {each.place: (number, each) for number, each in left if each.place is not None}
    pairs, new, paired = [], [], set()
    for number, each in came_in:
        before = places.pop(each.place, None) if each.place is not None else None
        if before is None:
            new.append((number, each))
        else:
            pairs.append(Cut(number, before[1], each))
            paired.add(before[0])
    return pairs, new, [(number, each) for number, each in left if number not in paired]


def plain_diff(found: ContextDiff) -> dict[str, Any]:
    """Return the difference of two contexts as a JSON object: without the elements that were kept."""
    sides = {
        side: {**{name: getattr(each, name) for name in FACTS}, "tokens": each.tokens, "elements": len(each.elements)}
        for side, each in (("a", found.a), ("b", found.b))
    }
    return {
        **sides,
        "kept": [each._asdict() for each in found.kept],
        "came_in": [numbered(number, each) for number, each in found.came_in],
        "left": [numbered(number, each) for number, each in found.left],
        "cut": [_plain_cut(each) for each in found.cut],
        "changed": [_plain_cut(each) for each in found.changed],
        "by_source": changes_by_source(found),
        "compactions": list(found.compactions),
    }


def _plain_cut(cut: Cut) -> dict[str, Any]:
    return {"number": cut.number, "before": cut.before._asdict(), "after": cut.after._asdict()}


def changes_by_source(found: ContextDiff) -> list[dict[str, Any]]:
    """Return a row for each source of elements, in the order of TITLES.

    A row has the tokens of the first call (`a`) and of the second call (`b`), and the tokens of the elements that
    were added (`came_in`), removed (`left`) and shortened (`cut`).
    """
    before, after = ({share.source: share.tokens for share in by_source(each.elements)} for each in (found.a, found.b))
    came_in, left = (
        {share.source: share.tokens for share in by_source(each for _, each in group)}
        for group in (found.came_in, found.left)
    )
    cut: dict[Source, int] = {}
    for each in found.cut:
        cut[each.before.source] = cut.get(each.before.source, 0) + each.before.tokens - each.after.tokens
    return [
        {
            "source": source,
            "title": title,
            "a": before.get(source, 0),
            "b": after.get(source, 0),
            "came_in": came_in.get(source, 0),
            "left": left.get(source, 0),
            "cut": cut.get(source, 0),
        }
        for source, title in TITLES.items()
        if source in before or source in after
    ]


MOST_LINES = 60
"""The most elements of each kind of change that a page lists: the largest."""


def since_previous(storage: Storage, call: AgentSpanRow) -> dict[str, Any]:
    """Return the context of a model call, compared with that of the agent's call before it, as a page shows it.

    In an agent's first call, all elements came in.

    Returns:
        `before`: the id of that call, or None. `elements`, `tokens`, `is_counted`, `is_recorded`: of the call.
        `compactions`: how many there are between both. `sources`: see changes_by_source. `changes`: objects with `mark`
        (`+` came in, `-` left, `~` cut or changed, `=` kept), `name`, `tokens`, `text` and `span` (None for kept ones).
        `more`: the number of changes that are left out, because there are more than 60 of a kind.

    Raises:
        InvalidValue: the span is no model call.
    """
    before = previous_call(storage, call)
    if before is None:
        (b,) = contexts(storage, [call])
        a = replace(b, elements=(), input_tokens=None, compactions=())
    else:
        a, b = contexts(storage, [before, call])
    found = context_diff(a, b)
    left = _largest([(number, _change("-", each)) for number, each in found.left])
    pairs = _largest([(each.number, _change_of(each)) for each in (*found.cut, *found.changed)])
    new = _largest([(number, _change("+", each)) for number, each in found.came_in])
    kept = [(each.first, _kept(each)) for each in found.kept]
    total = len(found.left) + len(found.cut) + len(found.changed) + len(found.came_in)
    return {
        "before": None if before is None else before.id,
        "elements": len(b.elements),
        "tokens": b.tokens,
        "is_counted": b.input_tokens is not None,
        "is_recorded": b.is_recorded,
        "compactions": len(found.compactions),
        "sources": changes_by_source(found),
        "changes": [each for _, each in (*left, *sorted([*kept, *pairs, *new], key=lambda pair: pair[0]))],
        "more": total - len(left) - len(pairs) - len(new),
    }


def _largest(changes: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    kept = sorted(changes, key=lambda pair: -pair[1]["tokens"])[:MOST_LINES]
    return sorted(kept, key=lambda pair: pair[0])


def _change(mark: str, element: Element) -> dict[str, Any]:
    name = ONE[element.source] if element.name is None else f"{ONE[element.source]} {short_name(element.name)}"
    return {"mark": mark, "name": name, "tokens": element.tokens, "text": element.excerpt, "span": element.span_id}


def _change_of(cut: Cut) -> dict[str, Any]:
    what = "cut" if cut.after.characters < cut.before.characters else "changed"
    text = f"{what}: {cut.before.characters:,} → {cut.after.characters:,} characters"
    return {**_change("~", cut.after), "tokens": abs(cut.before.tokens - cut.after.tokens), "text": text}


def _kept(kept: Range) -> dict[str, Any]:
    number = f"{kept.first:,}" if kept.first == kept.last else f"{kept.first:,}–{kept.last:,}"
    return {"mark": "=", "name": f"{number} kept", "tokens": kept.tokens, "text": "", "span": None}
