"""Searches the new text of spans without an index: PostgreSQL finds candidates, and `text_search` checks them.

Text is new if no earlier span of the run has it. A search is one pass over all texts, and a word that all spans have is
read in all of them. Writers fill no full-text index, which would cost two thirds of the speed of loading; readers may
fill one (see index.words).
"""

import heapq
from collections.abc import Iterator, Sequence
from itertools import chain, groupby

import psycopg

from agentspan.model.rows import AgentSpanRow
from agentspan.storage.answers import FoundSpan, Progress
from agentspan.storage.postgres.connection import Connection, rows_of, storable
from agentspan.storage.postgres.reads import FETCHED
from agentspan.storage.postgres.statements import SELECT
from agentspan.storage.questions import Search
from agentspan.storage.text_search import PREFIX, Matcher, SpanParts, search_run

_TEXT = "concat_ws(' ', summary, payload, result_payload)"
# A text beyond ASCII may have the word with an accent. A text with \\u may have it escaped. Python checks both.
_MAY_SAY = f"(({{0}}) or strpos({_TEXT}, '\\u') > 0 or octet_length({_TEXT}) <> length({_TEXT}))"
_RUNS = "select distinct agent_instance_id from agent_spans where {0}"
_SPANS = f"{SELECT['agent_span']} where {{0}} order by agent_instance_id, id"
RUNS = 100
"""The number of runs whose spans one statement reads."""


def search(connection: Connection, asked: Search) -> tuple[list[FoundSpan], int]:
    """Return a page of the spans whose new text has all terms, the latest first, and the number of such spans.

    Args:
        connection: within a snapshot.
    """
    words, runs, progress = asked.words, asked.runs, asked.progress
    matcher, most = Matcher(words), asked.offset + asked.limit
    conditions = [_says(word) for word in words]
    # An earlier span with the same part has the word, too, so spans without any of the words need not be read. Words
    # that must be adjacent may become adjacent when a repeated part is removed: then runs are read whole.
    are_single = not any(" " in word for word in words)
    with_a_word = _MAY_SAY.format(" or ".join(conditions)) if are_single else "true"
    if runs is not None:
        groups = _of_runs(connection, storable(sorted(runs)), with_a_word, progress)
    elif are_single and len(words) == 1:
        groups = _by_run(connection, with_a_word)  # one pass; it finds the runs, too
    else:
        found_in = [run for (run,) in rows_of(connection, _RUNS.format(_MAY_SAY.format(" and ".join(conditions))))]
        groups = _of_runs(connection, found_in, with_a_word, progress)
    latest: list[FoundSpan] = []
    total = 0
    for spans in groups:
        found, number = search_run(spans, matcher, most)
        total += number
        latest = heapq.nlargest(most, [*latest, *found], key=lambda one: one.span.id) if found else latest
    page = latest[asked.offset :]
    return (_without_repeats(connection, page, matcher, most) if are_single else page), total


def _without_repeats(connection: Connection, page: Sequence[FoundSpan], matcher: Matcher, most: int) -> list[FoundSpan]:
    """Return the hits of a page without parts of earlier spans. Reads their runs whole, also spans without a word."""
    runs = sorted({found.span.agent_instance_id for found in page if SpanParts(found.span).keys})
    whole: dict[str, FoundSpan] = {}
    for spans in _of_runs(connection, runs, "true", None):
        whole.update((found.span.id, found) for found in search_run(spans, matcher, most)[0])
    return [whole.get(found.span.id, found) for found in page]


def _says(word: str) -> str:
    """Return the SQL condition that a text has the tokens of a term. It is right for ASCII texts without \\u."""
    tokens = word.removesuffix(PREFIX).split()
    conditions = ["true"]
    for number, token in enumerate(tokens, start=1):
        if not token.isascii():
            return "false"
        is_whole = number < len(tokens) or not word.endswith(PREFIX)
        end = "([^a-z0-9]|$)" if is_whole else ""
        # `strpos` comes first: the pattern takes four times as long. A letter before the word may belong to an escape.
        conditions.append(f"strpos(lower({_TEXT}), '{token}') > 0")
        conditions.append(f"lower({_TEXT}) ~ '(^|[^a-z0-9]|\\\\[bfnrt]){token}{end}'")
    return f"({' and '.join(conditions)})"


def _of_runs(
    connection: Connection, runs: Sequence[str], condition: str, progress: Progress | None
) -> Iterator[Iterator[AgentSpanRow]]:
    """Yield, for each of these runs, its spans for which a condition holds."""
    for start in range(0, len(runs), RUNS):
        yield from _by_run(connection, f"agent_instance_id = any(%s) and {condition}", runs[start : start + RUNS])
        if progress is not None:
            progress(min(start + RUNS, len(runs)), len(runs))


def _by_run(connection: Connection, condition: str, *values: Sequence[str]) -> Iterator[Iterator[AgentSpanRow]]:
    """Yield, for each run, its spans for which a condition holds, by id. Few spans are in memory at a time."""
    with psycopg.ServerCursor(connection, "searched") as cursor:
        cursor.execute(_SPANS.format(condition), [list(value) for value in values], binary=True)
        spans = map(AgentSpanRow._make, chain.from_iterable(iter(lambda: cursor.fetchmany(FETCHED), [])))
        for _, of_run in groupby(spans, key=lambda span: span.agent_instance_id):
            yield of_run
