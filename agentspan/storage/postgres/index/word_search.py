"""Searches the words that spans say first, in the index; late spans are read (see state)."""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

from agentspan.model.rows import AgentSpanRow
from agentspan.storage import first_said, tokenizing
from agentspan.storage.answers import FoundSpan
from agentspan.storage.first_said import SpanParts
from agentspan.storage.postgres import searching
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.index.parts import Parts
from agentspan.storage.postgres.index.state import Cursor
from agentspan.storage.postgres.index.words import LONGEST, UNREAD, WHOLE
from agentspan.storage.postgres.lending import rows_of
from agentspan.storage.postgres.pipelines import Statement, rows_of_each
from agentspan.storage.postgres.statements import listed
from agentspan.storage.questions import Search
from agentspan.tuning import Tuning

_LATE_RUNS = "select distinct s.agent_instance_id from finished_spans s where"
_COLUMNS = ", ".join(f"s.{column}" for column in map(listed, ((field,) for field in AgentSpanRow._fields)))
_OPEN = f"select {_COLUMNS} from open_spans s where true"
_INDEXED = "from index_texts s where"
_ESTIMATE = "explain (format json) select 1 from index_texts s where true{0}"
_ALL = "explain (format json) select 1 from index_texts"
# Each reads what matches once, for the page and the number. The first has the index for few spans. Those of the second
# are counted by parallel processes, which may not share a WITH.
_FEW_HITS = """
with hits as materialized (select s.agent_instance_id, s.id {0})
select hits.number, page.* from (select count(*) as number from hits) hits
left join (select * from hits order by id desc limit %s) page on true order by page.id desc
"""
_SCATTERED_HITS = """
select hits.number, page.* from (
    select count(*) as number, array_agg(s.agent_instance_id) as runs, array_agg(s.id) as ids {0}
) hits left join lateral (select * from unnest(hits.runs, hits.ids) hit(run, id) order by id desc limit %s) page on true
order by page.id desc
"""
_LATEST_HITS = """
select s.agent_instance_id, s.id from (select * from index_texts order by id desc limit %s) s where true{0} limit %s
"""
_PAGE = "select s.agent_instance_id, s.id {0} order by s.id desc limit %s"
_BITMAPS = "select set_config('enable_bitmapscan', %s, true)"
_DEFAULT_BITMAPS = "set local enable_bitmapscan to default"
_BY_IDS = f"""
select {_COLUMNS} from unnest(%s::text[], %s::text[]) asked(run, id)
join finished_spans s on s.agent_instance_id = asked.run and s.id = asked.id
"""


class _Question(NamedTuple):
    """Conditions on `words`: `has`, that all words are there; `says`, that the terms are, as WHOLE rows know."""

    has: str
    says: str


def search(connection: Connection, cursor: Cursor, asked: Search, *, tuning: Tuning) -> tuple[list[FoundSpan], int]:
    """Return a page of the spans that say all terms first, the latest first, and the number of all.

    Args:
        connection: within the snapshot in which `cursor` was read.
        asked: its runs are storable.
    """
    terms, runs = asked.words, asked.runs
    most, matcher = asked.offset + asked.limit, tokenizing.Matcher(terms)
    late = {*cursor.rewritten, *(run for (run,) in rows_of(connection, f"{_LATE_RUNS} {cursor.pending}"))}
    wanted, values = "", []
    if runs is not None:
        late &= set(runs)
        wanted, values = " and s.agent_instance_id = any(%s)", [list(runs)]
    latest: list[FoundSpan] = []
    total = 0
    if late:  # what their spans say first depends on all of them: they are read whole
        latest, total = searching.search(connection, Search(terms, most, runs=late, progress=asked.progress))
        wanted, values = f"{wanted} and s.agent_instance_id <> all(%s)", [*values, list(late)]
    parts = Parts(connection)
    read = [SpanParts(AgentSpanRow._make(row)) for row in rows_of(connection, f"{_OPEN}{wanted}", values)]
    question = _question(terms)
    unclear = f"{_INDEXED} s.depth > {WHOLE} and (s.depth = {UNREAD} or {question.has}){wanted}"  # has a SQL index
    read += _by_ids(connection, rows_of(connection, f"select s.agent_instance_id, s.id {unclear}", values))
    parts.read({each.span.agent_instance_id for each in read})
    said = [each for each in read if matcher.matches(each.without(parts.said_before(each)))]
    total += len(said)
    number, hits = _hits(connection, f" and s.depth = {WHOLE} and {question.says}{wanted}", values, most, tuning)
    total += number
    said += _by_ids(connection, hits)
    found: list[tuple[str, FoundSpan | SpanParts]] = [(each.span.id, each) for each in said]
    found += ((one.span.id, one) for one in latest)
    shown = [one for _, one in heapq.nlargest(most, found, key=lambda pair: pair[0])[asked.offset :]]
    parts.read({one.span.agent_instance_id for one in shown if isinstance(one, SpanParts)})
    return [one if isinstance(one, FoundSpan) else _found(parts, one, matcher) for one in shown], total


def _hits(
    connection: Connection, condition: str, values: Sequence[object], most: int, tuning: Tuning
) -> tuple[int, list[tuple[str, str]]]:
    """Return the number of the rows for which a condition holds, and the runs and ids of the latest of them.

    Whether words are rare is asked of the planner, which has the most common words of a sample.
    """
    of_those, of_all = rows_of_each(connection, [Statement(_ESTIMATE.format(condition), values), Statement(_ALL)])
    likely, all_ = (int(plan[0][0][0]["Plan"]["Plan Rows"]) for plan in (of_those, of_all))
    indexed = f"from index_texts s where true{condition}"
    few = tuning.postgres_rare_word_spans
    if likely <= few:
        return _number_and_page(rows_of(connection, _FEW_HITS.format(indexed), (*values, most)))
    # Of many the latest lie near the end, so only their number takes time: a look at each text. A bitmap of them would
    # be made for nothing, and take 1.5 times as long for terms of several words, which it looks at as well.
    latest = rows_of(connection, _LATEST_HITS.format(condition), (few + 2 * most, *values, most))
    are_scattered = len(latest) < most and likely <= tuning.postgres_sorted_ids
    if are_scattered:
        wanted = Statement(_SCATTERED_HITS.format(indexed), (*values, most))
    else:
        wanted = Statement(f"select count(*) {indexed}", values)
    bitmaps = "on" if likely < all_ // 20 else "off"
    _, rows, _ = rows_of_each(connection, [Statement(_BITMAPS, (bitmaps,)), wanted, Statement(_DEFAULT_BITMAPS)])
    if are_scattered:
        return _number_and_page(rows)
    number = rows[0][0]
    if len(latest) < min(most, number):
        latest = rows_of(connection, _PAGE.format(indexed), (*values, most))
    return number, latest


def _number_and_page(rows: Sequence[tuple[int, str | None, str]]) -> tuple[int, list[tuple[str, str]]]:
    return rows[0][0], [(run, id) for _, run, id in rows if run is not None]


def _found(parts: Parts, of_span: SpanParts, matcher: tokenizing.Matcher) -> FoundSpan:
    said = parts.said_before(of_span)
    keys = of_span.matched(matcher, said)
    counts = parts.counts(of_span.span.agent_instance_id, keys)
    shown = first_said.to_show(of_span.without(said), matcher)
    return FoundSpan(shown, first_said.repeats(of_span.span, keys, counts))


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
