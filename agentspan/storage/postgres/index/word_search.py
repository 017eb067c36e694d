"""Searches the words that spans say first, in the index; late spans are read (see state)."""

import heapq
from collections.abc import Collection, Sequence
from typing import NamedTuple

from agentspan.model.rows import AgentSpanRow
from agentspan.storage import first_said, tokenizing
from agentspan.storage.analytics import FoundSpan, Progress
from agentspan.storage.first_said import SpanParts
from agentspan.storage.postgres import searching
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.index.parts import Parts
from agentspan.storage.postgres.index.state import Cursor
from agentspan.storage.postgres.index.words import LONGEST, UNREAD, WHOLE
from agentspan.storage.postgres.lending import rows_of
from agentspan.storage.postgres.statements import listed

_LATE_RUNS = "select distinct s.agent_instance_id from finished_spans s where"
_COLUMNS = ", ".join(f"s.{column}" for column in map(listed, ((field,) for field in AgentSpanRow._fields)))
_OPEN = f"select {_COLUMNS} from open_spans s where true"
_INDEXED = "from index_texts s where"
# Told by the number of hits, which PostgreSQL does not know: it would look for a rare word from the latest span on.
_PAGE_OF_FEW = """
with hits as materialized (select s.agent_instance_id, s.id {0}) select * from hits order by id desc limit %s
"""
_PAGE_OF_MANY = "select s.agent_instance_id, s.id {0} order by s.id desc limit %s"
FEW = 20_000
_BY_IDS = f"""
select {_COLUMNS} from unnest(%s::text[], %s::text[]) asked(run, id)
join finished_spans s on s.agent_instance_id = asked.run and s.id = asked.id
"""


class _Question(NamedTuple):
    """Conditions on `words`: `has`, that all words are there; `says`, that the terms are, as WHOLE rows know."""

    has: str
    says: str


def search(
    connection: Connection,
    cursor: Cursor,
    terms: Sequence[str],
    limit: int,
    offset: int,
    *,
    runs: Collection[str] | None,
    progress: Progress | None,
) -> tuple[list[FoundSpan], int]:
    """Return a page of the spans that say all these terms first, the latest first, and the number of all.

    Args:
        connection: within the snapshot in which `cursor` was read.
        runs: ids of the only runs that are searched, which are storable; all if None.
    """
    most, matcher = offset + limit, tokenizing.Matcher(terms)
    late = {*cursor.rewritten, *(run for (run,) in rows_of(connection, f"{_LATE_RUNS} {cursor.pending}"))}
    wanted, values = "", []
    if runs is not None:
        late &= set(runs)
        wanted, values = " and s.agent_instance_id = any(%s)", [list(runs)]
    latest: list[FoundSpan] = []
    total = 0
    if late:  # what their spans say first depends on all of them: they are read whole
        latest, total = searching.search(connection, terms, most, 0, runs=late, progress=progress)
        wanted, values = f"{wanted} and s.agent_instance_id <> all(%s)", [*values, list(late)]
    parts = Parts(connection)
    read = [SpanParts(AgentSpanRow._make(row)) for row in rows_of(connection, f"{_OPEN}{wanted}", values)]
    question = _question(terms)
    unclear = f"{_INDEXED} s.depth > {WHOLE} and (s.depth = {UNREAD} or {question.has}){wanted}"  # has a SQL index
    read += _by_ids(connection, rows_of(connection, f"select s.agent_instance_id, s.id {unclear}", values))
    parts.read({each.span.agent_instance_id for each in read})
    said = [each for each in read if matcher.matches(each.without(parts.said_before(each)))]
    total += len(said)
    clear = f"{_INDEXED} s.depth = {WHOLE} and {question.says}{wanted}"
    number = rows_of(connection, f"select count(*) {clear}", values)[0][0]
    total += number
    if number:
        page = (_PAGE_OF_FEW if number <= FEW else _PAGE_OF_MANY).format(clear)
        said += _by_ids(connection, rows_of(connection, page, (*values, most)))
    found: list[tuple[str, FoundSpan | SpanParts]] = [(each.span.id, each) for each in said]
    found += ((one.span.id, one) for one in latest)
    shown = [one for _, one in heapq.nlargest(most, found, key=lambda pair: pair[0])[offset:]]
    parts.read({one.span.agent_instance_id for one in shown if isinstance(one, SpanParts)})
    return [one if isinstance(one, FoundSpan) else _found(parts, one, matcher) for one in shown], total


def _found(parts: Parts, of_span: SpanParts, matcher: tokenizing.Matcher) -> FoundSpan:
    said = parts.said_before(of_span)
    keys = of_span.matched(matcher, said)
    counts = parts.counts(of_span.span.agent_instance_id, keys)
    return FoundSpan(of_span.without(said), first_said.repeats(of_span.span, keys, counts))


def _by_ids(connection: Connection, asked: Sequence[tuple[str, str]]) -> list[SpanParts]:
    if not asked:
        return []
    runs, ids = ([*column] for column in zip(*asked, strict=True))
    return [SpanParts(AgentSpanRow._make(row)) for row in rows_of(connection, _BY_IDS, (runs, ids))]


def _question(terms: Sequence[str]) -> _Question:
    """Return the conditions of a search. A word that is too long to be stored whole is in no WHOLE row."""
    has, says = [], []
    for term in terms:
        tokens = term.removesuffix(tokenizing.PREFIX).split()
        ending = ":*" if term.endswith(tokenizing.PREFIX) else ""
        has += [f"'{token[:LONGEST]}'" for token in tokens]
        says.append(" <-> ".join(f"'{token}'" if len(token) <= LONGEST else "'-'" for token in tokens) + ending)
        has[-1] += ending
    return _Question(*(f"s.words @@ $q$({') & ('.join(each)})$q$::tsquery" for each in (has, says)))
