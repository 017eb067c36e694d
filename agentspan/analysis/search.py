"""Full-text search over the summaries, payloads and results of spans. Matches are positions, never markup.

A text that several spans of a run repeat is found only in the first of them (see storage.text_search).
"""

import re
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from agentspan.analysis.by_name import BETWEEN, find_run_or_span
from agentspan.analysis.tree import build, numbers
from agentspan.api.checks import MAX_OFFSET, count
from agentspan.errors import AgentspanError
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage import row_by_row, text_search
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Find, Outlines, Search
from agentspan.storage.row_by_row import names_of
from agentspan.storage.sums import FoundSpan, Progress
from agentspan.text import noun, one_line

PAGE = 50
SNIPPET = 160
"""The most characters of the snippet of a hit; more are cut with `…`."""
LEAD = 40
"""The number of characters of a snippet before its first match."""
MOST_STEPS = 5000
"""The largest number of spans of a run whose steps are numbered in the hits: numbering so many takes 31 ms."""
FIELDS = ("summary", "payload", "result_payload")


class Hit(NamedTuple):
    """A span that contains all words of a search, as the first span of its run.

    Attributes:
        span_id, run_id: the ids of the span and of its run.
        summary: the summary of the span, or the title of its type.
        status, schema_name, started_at: of the span.
        field: the column that the snippet is from: `summary`, `payload` or `result_payload`.
        snippet: text around the first match, on one line, without control characters.
        matches: (start, end) of each matched word in `snippet`, in code points.
        repeats: the number of later spans of the run that repeat the text.
        agent, version: the names of the run's agent and version; "" until `located` fills them in.
        step: the number of the step in its run, as `show` lists it; None until `located` fills it in, and in a run
            with more than 5,000 spans.
    """

    span_id: str
    run_id: str
    summary: str
    status: str
    schema_name: str
    started_at: str | None
    field: str
    snippet: str
    matches: tuple[tuple[int, int], ...]
    repeats: int = 0
    agent: str = ""
    version: str = ""
    step: int | None = None


class Hits(NamedTuple):
    """A page of the hits of a search, the latest first, and the number of all hits."""

    hits: list[Hit]
    total: int


def search(
    storage: Storage,
    words: str | Sequence[str],
    *,
    run: str | None = None,
    limit: int = PAGE,
    offset: int = 0,
    runs: Collection[str] | None = None,
    progress: Progress | None = None,
) -> Hits:
    """Return the spans that contain all words, the latest first; of spans of a run that repeat a text, the first.

    Case and accents are ignored.

    Args:
        words: one text, in which double quotes mark a phrase, or several texts, each of which is a phrase. `*` at the
            end of a word matches any ending. There is no other syntax, and no text is an error.
        run: the id of the only run to search.
        limit: the largest number of hits.
        offset: the number of hits to skip.
        runs: the ids of the only runs to search; all runs when left out. `run` wins over `runs`.
        progress: called with (done, total) while an index is built.

    Raises:
        InvalidValue: `limit` or `offset` is no number from 0 on.
    """
    limit, offset = count("limit", limit, 0, MAX_OFFSET), count("offset", offset, 0, MAX_OFFSET)
    asked = text_search.terms(words)
    if not asked:
        return Hits([], 0)
    question = Search(asked, limit, offset, runs if run is None else [run], progress)
    # Reading the spans of one run is faster than building an index of all spans.
    found, total = storage.ask(question) if run is None else row_by_row.answer(storage, question)
    return Hits([hit(span, asked)._replace(repeats=repeats) for span, repeats in found], total)


def located(storage: Storage, hits: Hits, *, most_steps: int = MOST_STEPS) -> Hits:
    """Return hits with the agent and version of their runs, and the number of their step, filled in.

    Args:
        most_steps: steps are numbered only in runs with at most this many spans, because it reads all their outlines.
    """
    ids = [*{hit.run_id for hit in hits.hits}]
    runs = [row for _, row in storage.ask(Find(*ids)).rows.values() if isinstance(row, AgentInstanceRow)]
    names, counts = names_of(storage, runs), storage.ask(Counts(ids))
    steps: dict[str, int] = {}
    for run in runs:
        if counts[run.id].total <= most_steps:
            steps.update(numbers(build(storage.ask(Outlines(run.id)))))
    return hits._replace(
        hits=[
            hit._replace(**names[hit.run_id]._asdict(), step=steps.get(hit.span_id)) if hit.run_id in names else hit
            for hit in hits.hits
        ]
    )


EXAMINED = 500
"""The largest number of latest hits that are grouped by run."""
RUNS = 20
"""The number of runs on a page of hits by run."""
PER_RUN = 3
"""The number of hits of a run that are shown."""


@dataclass(frozen=True, slots=True)
class RunHits:
    """The hits in one run.

    Attributes:
        run: the run.
        agent, version: the names of its agent and version.
        steps: the number of examined hits in the run.
        hits: the latest of these, at most as many as were asked for, with the number of their step.
    """

    run: AgentInstanceRow
    agent: str
    version: str
    steps: int
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class HitsByRun:
    """A page of the hits of a search, by run. The run with the latest hit comes first.

    Attributes:
        runs: the runs of the page.
        total: the number of all hits.
        examined: the number of latest hits that were grouped.
        found: the number of runs with examined hits.
        named: the run or span whose id, or the beginning of it, the text is; or the run with this external_identifier.
    """

    runs: tuple[RunHits, ...]
    total: int
    examined: int
    found: int
    named: AgentInstanceRow | AgentSpanRow | None = None

    @property
    def is_whole(self) -> bool:
        """True if every hit was examined."""
        return self.examined == self.total

    def __str__(self) -> str:
        steps = noun(self.total, "step")
        if self.is_whole:
            return f"{steps} in {noun(self.found, 'run')}" if self.total else "no step"
        return f"{steps}; the latest {self.examined:,} are in {noun(self.found, 'run')}"


def search_by_run(
    storage: Storage,
    words: str | Sequence[str],
    *,
    run: str | None = None,
    runs: Collection[str] | None = None,
    limit: int = RUNS,
    offset: int = 0,
    per_run: int = PER_RUN,
    examined: int = EXAMINED,
    progress: Progress | None = None,
) -> HitsByRun:
    """Return the spans that contain all words, grouped by run.

    Args:
        words, run, runs: as for `search`.
        limit: the largest number of runs.
        offset: the number of runs to skip.
        per_run: the largest number of hits of a run that are returned.
        examined: the largest number of hits that are grouped; the latest ones.
        progress: called with (done, total) while an index is built.
    """
    asked = text_search.terms(words)
    text = words if isinstance(words, str) else " ".join(words)
    named = None if run is not None else named_by(storage, text.removesuffix(text_search.PREFIX))
    if not asked:
        return HitsByRun((), 0, 0, 0, named)
    question = Search(asked, examined, 0, runs if run is None else [run], progress)
    found, total = storage.ask(question) if run is None else row_by_row.answer(storage, question)
    groups: dict[str, list[FoundSpan]] = {}
    for each in found:
        groups.setdefault(each.span.agent_instance_id, []).append(each)
    chosen = [*groups][offset : offset + limit]
    shown = [each for id in chosen for each in groups[id][:per_run]]
    hits = Hits([hit(each.span, asked)._replace(repeats=each.repeats) for each in shown], total)
    by_run: dict[str, list[Hit]] = {}
    for one in located(storage, hits).hits:
        by_run.setdefault(one.run_id, []).append(one)
    rows = storage.ask(Find(*chosen)).rows
    made = []
    for id in chosen:
        row = rows[id][1] if id in rows else None
        if isinstance(row, AgentInstanceRow):
            first = by_run[id][0]
            made.append(RunHits(row, first.agent, first.version, len(groups[id]), tuple(by_run[id])))
    return HitsByRun(tuple(made), total, len(found), len(groups), named)


def named_by(storage: Storage, text: str) -> AgentInstanceRow | AgentSpanRow | None:
    """Return the run or span that a text names: by its id or the beginning of it, or by a run's external_identifier."""
    text = text.strip().strip('"')
    if not text or len(text) > LONGEST_ID or not text.isprintable():
        return None
    for row in scan(storage, AgentInstanceRow, {"external_identifier": text}, descending=True, limit=1):
        return row
    if _ID.fullmatch(text) is None:
        return None
    try:
        return find_run_or_span(storage, text)
    except AgentspanError:
        return None


LONGEST_ID = 500
_ID = re.compile(rf"[0-9a-z]{{8,32}}(?:{BETWEEN}[0-9a-z]{{4,}})?")
"""The ids, and beginnings of ids, that a search looks for: shorter ones are words."""


def hit(span: AgentSpanRow, asked: Iterable[str]) -> Hit:
    """Return a matching span as a hit, with a snippet of the field that contains the most terms."""
    best: tuple[int, str, str, list[tuple[int, int]]] | None = None
    for name in FIELDS:
        text = getattr(span, name)
        if text is None:
            continue
        text = text if name == "summary" else text_search.of_json(text, to_show=True)
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
    """Return the positions of terms in a text, as far as a snippet reaches, and the number of terms found.

    A text may have millions of words, so only the latest few words are kept in memory.
    """
    terms = [(term.removesuffix(text_search.PREFIX).split(" "), term.endswith(text_search.PREFIX)) for term in asked]
    latest: deque[tuple[str, int]] = deque(maxlen=max((len(words) for words, _ in terms), default=1))
    places: list[tuple[int, int]] = []
    found: set[int] = set()
    for spot in text_search.TOKEN.finditer(text):
        word = text_search.fold(spot[0])
        latest.append((word, spot.start()))
        for number, (words, any_ending) in enumerate(terms):
            if not (word.startswith(words[-1]) if any_ending else word == words[-1]) or len(latest) < len(words):
                continue
            if len(words) > 1 and [each for each, _ in [*latest][-len(words) : -1]] != words[:-1]:
                continue
            found.add(number)
            start = latest[-len(words)][1]
            if not places or start < places[0][0] + SNIPPET:
                places.append((start, spot.end()))
    return sorted(set(places)), len(found)


def _around(text: str, places: list[tuple[int, int]]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Cut a snippet around the first position; return it with the positions inside it, relative to its start."""
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
