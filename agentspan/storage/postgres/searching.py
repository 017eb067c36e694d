"""Searches the words that spans say first. PostgreSQL finds runs that may have them, `first_said` reads those.

There is no full-text index: filling one costs two thirds of the speed of loading. A word that few runs have is found
with one pass over the texts; one that all have is read everywhere.
"""

import heapq
from collections.abc import Iterator, Sequence
from itertools import chain, groupby

import psycopg

from agentspan.model.rows import AgentSpanRow
from agentspan.storage.analytics import FoundSpan, Progress
from agentspan.storage.first_said import search_run
from agentspan.storage.postgres.connections import Connection
from agentspan.storage.postgres.lending import rows_of
from agentspan.storage.postgres.reads import FETCHED
from agentspan.storage.postgres.statements import SELECT
from agentspan.storage.tokenizing import PREFIX, Matcher

_TEXT = "concat_ws(' ', summary, payload, result_payload)"
# A text with other letters may have the word with an accent; with \\u, behind an escape. Those are read.
_MAY_SAY = f"({_TEXT} ~ '[^\\x01-\\x7f]' or strpos({_TEXT}, '\\u') > 0 or ({{0}}))"
_RUNS = f"select distinct agent_instance_id from agent_spans where {_MAY_SAY}"
_SPANS = f"{SELECT['agent_span']} where agent_instance_id = any(%s) order by agent_instance_id, id"
RUNS = 100
"""Runs whose spans are read by one statement."""


def search(
    connection: Connection, words: Sequence[str], limit: int, offset: int, progress: Progress | None
) -> tuple[list[FoundSpan], int]:
    """Return a page of the spans that say all these terms first, the latest first, and the number of all.

    Args:
        connection: within a snapshot.
        words: see Analytics.
    """
    matcher = Matcher(words)
    tokens = list(dict.fromkeys(token for word in words for token in word.removesuffix(PREFIX).split()))
    said = " and ".join(f"strpos(lower({_TEXT}), %s) > 0" for token in tokens if token.isascii())
    plain = [token for token in tokens if token.isascii()]
    is_ascii = len(plain) == len(tokens)
    runs = [
        run for (run,) in rows_of(connection, _RUNS.format(said if is_ascii else "false"), plain if is_ascii else ())
    ]
    latest: list[FoundSpan] = []
    total = 0
    for start in range(0, len(runs), RUNS):
        for spans in _by_run(connection, runs[start : start + RUNS]):
            found, number = search_run(spans, matcher, offset + limit)
            total += number
            latest = heapq.nlargest(offset + limit, [*latest, *found], key=lambda one: one.span.id) if found else latest
        if progress is not None:
            progress(min(start + RUNS, len(runs)), len(runs))
    return latest[offset:], total


def _by_run(connection: Connection, runs: Sequence[str]) -> Iterator[Iterator[AgentSpanRow]]:
    """Yield the spans of each run, by id, without holding more than some of them in memory."""
    with psycopg.ServerCursor(connection, "searched") as cursor:
        cursor.execute(_SPANS, (list(runs),), binary=True)
        spans = map(AgentSpanRow._make, chain.from_iterable(iter(lambda: cursor.fetchmany(FETCHED), [])))
        for _, of_run in groupby(spans, key=lambda span: span.agent_instance_id):
            yield of_run
