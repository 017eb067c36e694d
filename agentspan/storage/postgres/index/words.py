"""The words that finished spans say first, as a `tsvector` with positions, under a GIN index.

The words are Python's (see tokenizing), not those of a text search configuration, so that a search finds the same as in
a file. What a `tsvector` cannot hold is read at the search: `depth` says which questions the words of a row cannot
answer.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from agentspan.model.rows import AgentSpanRow
from agentspan.storage import first_said, tokenizing
from agentspan.storage.first_said import SpanParts
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.index.parts import Parts
from agentspan.storage.postgres.index.state import Part
from agentspan.storage.postgres.lending import rows_of
from agentspan.storage.postgres.statements import listed

WHOLE, SCATTERED, UNREAD = 0, 1, 2
"""Depths: all is known; which words there are, but not all their places or endings; nothing."""
LONGEST = 500
"""Letters of a word that are stored: a lexeme has 2,046 bytes at most."""
MOST_BYTES = 500_000
"""Bytes of the words of a row, at most: a `tsvector` holds 1 MB, places included."""
LAST_PLACE = 16_383
MOST_PLACES = 255
_PLACES = tuple(map(str, range(1, LAST_PLACE + 1)))
_COPY = "copy index_texts (agent_instance_id, id, depth, words) from stdin"
_SPANS = f"select {listed(AgentSpanRow._fields)} from finished_spans s where"
_BY_IDS = f"{_SPANS} (s.agent_instance_id, s.id) in (select * from unnest(%s::text[], %s::text[]))"
_FORGET_SPANS = (
    "delete from index_texts where (agent_instance_id, id) in (select * from unnest(%s::text[], %s::text[]))"
)
_TABLES = ("index_texts", "index_parts")


def vector(text: str) -> tuple[int, str]:
    """Return the depth and the `tsvector` of a text that was folded (see tokenizing.of_span)."""
    tokens = tokenizing.TOKEN.findall(text)
    depth = WHOLE
    if max(map(len, tokens), default=0) > LONGEST:
        tokens, depth = [token[:LONGEST] for token in tokens], SCATTERED
    if len(tokens) > LAST_PLACE or (len(tokens) > MOST_PLACES and Counter(tokens).most_common(1)[0][1] > MOST_PLACES):
        depth = SCATTERED
    if depth == SCATTERED:
        words = " ".join(f"'{token}'" for token in dict.fromkeys(tokens))
    else:
        places: dict[str, str] = {}
        for token, place in zip(tokens, _PLACES, strict=False):
            places[token] = f"{places[token]},{place}" if token in places else place
        words = " ".join([f"'{token}':{place}" for token, place in places.items()])
    return (depth, words) if len(words.encode()) <= MOST_BYTES else (UNREAD, "")


class Words(Part):
    """See the module."""

    name = "words"
    of_runs = _TABLES
    statements = (_COPY,)
    other = first_said.LONG_TEXT * 10_000 + first_said.ELEMENT * 10 + 1
    """The last digit is of `vector` and tokenizing.of_span; raise it when those change."""

    def take(self, connection: Connection, condition: str, values: Sequence[object]) -> None:
        """See Part."""
        sql = f"{_SPANS} {condition} order by s.agent_instance_id, s.id"
        found = [SpanParts(AgentSpanRow._make(row)) for row in rows_of(connection, sql, values)]
        parts = Parts(connection)
        parts.read({each.span.agent_instance_id for each in found})
        for each in found:
            parts.add(each)
        parts.write()
        taken = {(each.span.agent_instance_id, each.span.id) for each in found}
        outdated = [[run for run, _ in parts.outdated - taken], [id for _, id in parts.outdated - taken]]
        if outdated[0]:
            connection.execute(_FORGET_SPANS, outdated)
            found += (SpanParts(AgentSpanRow._make(row)) for row in rows_of(connection, _BY_IDS, outdated))
        _add(connection, parts, found)


def _add(connection: Connection, parts: Parts, spans: Iterable[SpanParts]) -> None:
    with connection.cursor().copy(_COPY) as copy:
        for each in spans:
            span = each.without(parts.said_before(each))
            text = tokenizing.of_span(span.summary, span.payload, span.result_payload)
            copy.write_row((span.agent_instance_id, span.id, *vector(text)))
