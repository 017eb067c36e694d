"""Full-text search over the summaries, payloads and results of spans. Matches are positions, never markup."""

import heapq
from collections.abc import Iterable, Iterator, Sequence

from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage import tokenizing
from agentspan.storage.analytics import Hit, Hits, Progress
from agentspan.storage.protocol import Storage
from agentspan.storage.scanning import count, scan
from agentspan.text import one_line

__all__ = ["Hit", "Hits", "Progress", "search"]

PAGE = 50
SNIPPET = 160
"""Characters of a snippet, at most."""
LEAD = 40
"""Characters of a snippet before its first match."""
FIELDS = ("summary", "payload", "result_payload")


def search(
    storage: Storage,
    words: str | Sequence[str],
    *,
    run: str | None = None,
    limit: int = PAGE,
    offset: int = 0,
    progress: Progress | None = None,
) -> Hits:
    """Return the spans that contain all of these words, the latest first. Case and accents do not matter.

    Args:
        words: one text, in which double quotes hold words together, or several texts, each held together. `*` at the
            end of a word is any ending. Nothing else is syntax, and nothing is an error.
        run: only in this run (its id).
        limit: how many hits at most.
        offset: how many to pass over.
        progress: called with how much is done, and of how much, while there is an index to be built.
    """
    asked = tokenizing.terms(words)
    if not asked:
        return Hits([], 0)
    analytics = storage.capabilities().analytics
    if run is None and analytics is not None:
        found = analytics.search_spans(asked, limit=limit, offset=offset, progress=progress)
        if found is not None:
            ids, total = found
            rows = storage.find(*ids).rows
            spans = [row for id in ids if id in rows and isinstance(row := rows[id][1], AgentSpanRow)]
            return Hits([hit(span, asked) for span in spans], total)
    latest, total = _latest(_matching(storage, asked, run, progress), offset + limit)
    return Hits([hit(span, asked) for span in latest[offset:]], total)


def _latest(spans: Iterable[AgentSpanRow], number: int) -> tuple[list[AgentSpanRow], int]:
    """Return the latest spans, and the number of all; at most `number` of them are in memory."""
    kept: list[tuple[str, AgentSpanRow]] = []
    total = 0
    for span in spans:
        total += 1
        if len(kept) < number:
            heapq.heappush(kept, (span.id, span))
        elif kept:
            heapq.heappushpop(kept, (span.id, span))
    return [span for _, span in sorted(kept, reverse=True)], total


def _matching(storage: Storage, asked: list[str], run: str | None, progress: Progress | None) -> Iterator[AgentSpanRow]:
    """Read every span; yield those that contain all terms."""
    matcher = tokenizing.Matcher(asked)
    runs = 1 if run is not None or progress is None else count(storage, "agent_instance")
    run_ids = iter((run,)) if run is not None else (row.id for row in scan(storage, AgentInstanceRow))
    for done, run_id in enumerate(run_ids, start=1):
        yield from (span for span in storage.iter_spans(run_id) if matcher.matches(span))
        if progress is not None:
            progress(done, max(done, runs))


def hit(span: AgentSpanRow, asked: Iterable[str]) -> Hit:
    """Return a span as a hit of a search for these terms."""
    best: tuple[int, str, str, list[tuple[int, int]]] | None = None
    for name in FIELDS:
        text = getattr(span, name)
        if text is None:
            continue
        text = text if name == "summary" else tokenizing.of_json(text, to_show=True)
        shown = one_line(text, len(text) + 1)
        places, kinds = _places(shown, asked)
        if best is None or kinds > best[0]:
            best = (kinds, name, shown, places)
    assert best is not None  # every span has a payload
    _, name, shown, places = best
    snippet, matches = _around(shown, places)
    return Hit(
        span.id,
        span.agent_instance_id,
        span.summary or span.schema_title,
        span.status,
        span.schema_name,
        span.started_at,
        name,
        snippet,
        matches,
    )


def _places(text: str, asked: Iterable[str]) -> tuple[list[tuple[int, int]], int]:
    """Return the positions of the terms in a text, in order, and how many terms were found."""
    spots = list(tokenizing.TOKEN.finditer(text))
    tokens = [tokenizing.fold(spot[0]) for spot in spots]
    places: set[tuple[int, int]] = set()
    kinds = 0
    for term in asked:
        parts = term.removesuffix(tokenizing.PREFIX).split(" ")
        any_ending = term.endswith(tokenizing.PREFIX)
        before = len(places)
        for start in range(len(tokens) - len(parts) + 1):
            if tokens[start] != parts[0] and (len(parts) > 1 or not any_ending):
                continue
            *firsts, last = tokens[start : start + len(parts)]
            if firsts == parts[:-1] and (last.startswith(parts[-1]) if any_ending else last == parts[-1]):
                places.add((spots[start].start(), spots[start + len(parts) - 1].end()))
        kinds += len(places) > before
    return sorted(places), kinds


def _around(text: str, places: list[tuple[int, int]]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Cut a text around the first position; return it with the positions that are in it."""
    first = places[0][0] if places else 0
    begin = 0 if len(text) <= SNIPPET or first <= LEAD else first - LEAD
    end = min(len(text), begin + SNIPPET - 2)
    mark = "…" if begin else ""
    shift = len(mark) - begin
    snippet = mark + text[begin:end] + ("…" if end < len(text) else "")
    found: list[tuple[int, int]] = []
    for start, stop in places:
        if start >= begin and stop <= end and (not found or start + shift >= found[-1][1]):
            found.append((start + shift, stop + shift))
    return snippet, tuple(found)
