"""The words that are new in each finished span, as a `tsvector` with positions under a GIN index, and their search.

A span often repeats parts of earlier spans of its run, such as messages: only parts that no earlier span has are new
(see storage.text_search). For each part, `index_parts` holds the first span with it, and how many spans have it.

Python splits texts into words (see storage.text_search), not a text search configuration, so that a search finds the
same spans as in a file. A search reads the spans whose words a `tsvector` cannot hold; `depth` says which questions the
words of a row cannot answer. It also reads late spans (see index). A search without the index reads the texts of spans:
PostgreSQL finds candidates, and `text_search` checks them.
"""

import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby

import psycopg

from agentspan.model.rows import AgentSpanRow
from agentspan.storage import text_search
from agentspan.storage.postgres.connection import Connection, Statement, rows_of, rows_of_each, storable
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.index import Cursor, Part, current
from agentspan.storage.postgres.reads import FETCHED
from agentspan.storage.postgres.statements import SELECT, quoted
from agentspan.storage.questions import Search
from agentspan.storage.sums import FoundSpan, Progress
from agentspan.storage.text_search import PREFIX, Matcher, SpanParts, search_run
from agentspan.tuning import Tuning

_OF_RUNS = "select agent_instance_id, part, id, spans from index_parts where agent_instance_id = any(%s)"
_COUNT = """
insert into index_parts (agent_instance_id, part, id, spans)
select * from unnest(%s::text[], %s::bigint[], %s::text[], %s::bigint[])
on conflict (agent_instance_id, part) do update set id = excluded.id, spans = excluded.spans
"""


class Parts:
    """The parts of spans of some runs, from `index_parts`: for each, the first span with it and a count.

    Args:
        connection: a connection in a transaction, which sees the index and the spans in one state.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._runs: dict[str, dict[int, tuple[str, int]]] = {}
        self._changed: set[tuple[str, int]] = set()
        self.outdated: set[tuple[str, str]] = set()
        """The (run, id) of indexed spans that are no longer the first with a part: an earlier span was added later."""

    def read(self, runs: Collection[str]) -> None:
        """Read the parts of these runs by one statement, unless they were read before."""
        new = [run for run in runs if run not in self._runs]
        self._runs |= {run: {} for run in new}
        for run, part, id, spans in rows_of(self._connection, _OF_RUNS, (new,)) if new else ():
            self._runs[run][part] = id, spans

    def add(self, parts: SpanParts) -> None:
        """Count the parts of a finished span. Its run must have been read."""
        run, id = parts.span.agent_instance_id, parts.span.id
        entries = self._runs[run]
        for key in parts.keys:
            first, spans = entries.get(key, (id, 0))
            if id < first:
                self.outdated.add((run, first))
                first = id
            entries[key] = first, spans + 1
            self._changed.add((run, key))

    def seen_before(self, parts: SpanParts) -> Collection[int]:
        """Return the parts of a span that an earlier span of its run has already."""
        entries = self._runs[parts.span.agent_instance_id]
        id = parts.span.id
        return {key for key in parts.keys if key in entries and entries[key][0] < id}

    def counts(self, run: str, keys: Iterable[int]) -> Mapping[int, int]:
        """Return, for each of these parts, how many finished spans of a run have it."""
        entries = self._runs[run]
        return {key: entries[key][1] for key in keys if key in entries}

    def write(self) -> None:
        """Store the counts that `add` has changed."""
        if self._changed:
            self._connection.execute(_COUNT, _columns((run, key, *self._runs[run][key]) for run, key in self._changed))
            self._changed = set()


WHOLE, SCATTERED, UNREAD = 0, 1, 2
"""Values of `depth`: all words and positions are stored; words, perhaps cut, without positions; no words."""
LONGEST = 500
"""The most letters of a word that are stored: a lexeme has 2,046 bytes at most."""
MOST_BYTES = 500_000
"""The most bytes of the words of a row: a `tsvector` holds 1 MB, positions included."""
LAST_PLACE = 16_383
MOST_PLACES = 255
_PLACES = tuple(map(str, range(1, LAST_PLACE + 1)))
_COPY = "copy index_texts (agent_instance_id, id, depth, words) from stdin"
_COLUMNS = ", ".join(f"s.{quoted(field)}" for field in AgentSpanRow._fields)
_FINISHED = f"select {_COLUMNS} from finished_spans s where"
_BY_IDS = f"""
select {_COLUMNS} from unnest(%s::text[], %s::text[]) asked(run, id)
join finished_spans s on s.agent_instance_id = asked.run and s.id = asked.id
"""
_FORGET_SPANS = (
    "delete from index_texts where (agent_instance_id, id) in (select * from unnest(%s::text[], %s::text[]))"
)
_TABLES = ("index_texts", "index_parts")


def vector(text: str) -> tuple[int, str]:
    """Return the `tsvector` of a folded text (see text_search.of_span), after its depth: WHOLE, SCATTERED or UNREAD."""
    tokens = text_search.TOKEN.findall(text)
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
    """The part of the index with the words that are new in each finished span, for the search."""

    name = "words"
    of_runs = _TABLES
    statements = (_COPY,)
    other = text_search.LONG_TEXT * 10_000 + text_search.ELEMENT * 10 + 1
    """The last digit is the version of `vector` and text_search.of_span. Raise it when one of them changes."""

    def take(self, connection: Connection, condition: str, values: Sequence[object]) -> None:
        """Add the words of the finished spans for which a condition holds."""
        found = _read(connection, f"{_FINISHED} {condition} order by s.agent_instance_id, s.id", values)
        parts = Parts(connection)
        parts.read({each.span.agent_instance_id for each in found})
        for each in found:
            parts.add(each)
        parts.write()
        taken = {(each.span.agent_instance_id, each.span.id) for each in found}
        outdated = parts.outdated - taken
        if outdated:
            connection.execute(_FORGET_SPANS, _columns(outdated))
            found += _read(connection, _BY_IDS, _columns(outdated))
        with connection.cursor().copy(_COPY) as copy:
            for each in found:
                span = each.without(parts.seen_before(each))
                text = text_search.of_span(span.summary, span.payload, span.result_payload)
                copy.write_row((span.agent_instance_id, span.id, *vector(text)))


def _read(connection: Connection, sql: str, values: Sequence[object]) -> list[SpanParts]:
    return [SpanParts(AgentSpanRow._make(row)) for row in rows_of(connection, sql, values)]


def _columns(rows: Iterable[Sequence[object]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]


_LATE_RUNS = "select distinct s.agent_instance_id from finished_spans s where"
_OPEN = f"select {_COLUMNS} from open_spans s where true"
_INDEXED = "from index_texts s where"
_ESTIMATE = "explain (format json) select 1 from index_texts s where true{0}"
_ALL = "explain (format json) select 1 from index_texts"
# Both statements read the matching rows once, for the page and for their number. _FEW_HITS suits few spans, which the
# GIN index finds. _SCATTERED_HITS has no WITH, because parallel processes, which count its rows, cannot share one.
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


def search(connections: Connections, asked: Search) -> tuple[list[FoundSpan], int]:
    """Return a page of the spans whose new text has all terms, the latest first, and the number of such spans."""
    tuning = connections.tuning
    asked = asked.changed(runs=None if asked.runs is None else storable(list(asked.runs)))
    part = Words(tuning.postgres_words_batch_spans, tuning.postgres_words_late_spans)
    with current(connections, part, asked.progress) as (connection, cursor):
        if cursor is None:
            return _search_texts(connection, asked)
        return _search_words(connection, cursor, asked, tuning)


def _search_words(connection: Connection, cursor: Cursor, asked: Search, tuning: Tuning) -> tuple[list[FoundSpan], int]:
    terms, runs = asked.words, asked.runs
    most, matcher = asked.offset + asked.limit, text_search.Matcher(terms)
    late = {*cursor.rewritten, *(run for (run,) in rows_of(connection, f"{_LATE_RUNS} {cursor.pending}"))}
    wanted, values = "", []
    if runs is not None:
        late &= set(runs)
        wanted, values = " and s.agent_instance_id = any(%s)", [list(runs)]
    latest: list[FoundSpan] = []
    total = 0
    if late:  # which text is new depends on all spans of a run: late runs are read whole
        latest, total = _search_texts(connection, Search(terms, most, runs=late, progress=asked.progress))
        wanted, values = f"{wanted} and s.agent_instance_id <> all(%s)", [*values, list(late)]
    parts = Parts(connection)
    read = _read(connection, f"{_OPEN}{wanted}", values)
    has, says = _conditions(terms)
    unclear = f"{_INDEXED} s.depth > {WHOLE} and (s.depth = {UNREAD} or {has}){wanted}"  # has an index
    read += _by_ids(connection, rows_of(connection, f"select s.agent_instance_id, s.id {unclear}", values))
    parts.read({each.span.agent_instance_id for each in read})
    with_all = [each for each in read if matcher.matches(each.without(parts.seen_before(each)))]
    total += len(with_all)
    number, hits = _hits(connection, f" and s.depth = {WHOLE} and {says}{wanted}", values, most, tuning)
    total += number
    with_all += _by_ids(connection, hits)
    found: list[tuple[str, FoundSpan | SpanParts]] = [(each.span.id, each) for each in with_all]
    found += ((one.span.id, one) for one in latest)
    shown = [one for _, one in heapq.nlargest(most, found, key=lambda pair: pair[0])[asked.offset :]]
    parts.read({one.span.agent_instance_id for one in shown if isinstance(one, SpanParts)})
    return [one if isinstance(one, FoundSpan) else _found(parts, one, matcher) for one in shown], total


def _hits(
    connection: Connection, condition: str, values: Sequence[object], most: int, tuning: Tuning
) -> tuple[int, list[tuple[str, str]]]:
    """Return the number of the rows for which a condition holds, and the run and id of each of the latest rows.

    The planner's estimate decides whether words are rare: it knows the most common words of a sample.
    """
    of_those, of_all = rows_of_each(connection, [Statement(_ESTIMATE.format(condition), values), Statement(_ALL)])
    likely, all_ = (int(plan[0][0][0]["Plan"]["Plan Rows"]) for plan in (of_those, of_all))
    indexed = f"from index_texts s where true{condition}"
    few = tuning.postgres_rare_word_spans
    if likely <= few:
        return _number_and_page(rows_of(connection, _FEW_HITS.format(indexed), (*values, most)))
    # The latest of many hits lie near the end, so only counting takes time: it reads each text. A bitmap scan would
    # gain nothing, and take 1.5 times as long for terms of several words, because it reads each text as well.
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


def _found(parts: Parts, of_span: SpanParts, matcher: text_search.Matcher) -> FoundSpan:
    earlier = parts.seen_before(of_span)
    keys = of_span.matched(matcher, earlier)
    counts = parts.counts(of_span.span.agent_instance_id, keys)
    shown = text_search.to_show(of_span.without(earlier), matcher)
    return FoundSpan(shown, text_search.repeats(of_span.span, keys, counts))


def _by_ids(connection: Connection, asked: Sequence[tuple[str, str]]) -> list[SpanParts]:
    return _read(connection, _BY_IDS, _columns(asked)) if asked else []


def _conditions(terms: Sequence[str]) -> tuple[str, ...]:
    """Return the SQL conditions that all words of a search occur, and that all terms do, which is right for WHOLE rows.

    A word that is too long to be stored whole is in no WHOLE row.
    """
    has, says = [], []
    for term in terms:
        tokens = term.removesuffix(text_search.PREFIX).split()
        ending = ":*" if term.endswith(text_search.PREFIX) else ""
        has += [f"'{token[:LONGEST]}'" for token in tokens]
        says.append(" <-> ".join(f"'{token}'" if len(token) <= LONGEST else "'-'" for token in tokens) + ending)
        has[-1] += ending
    return tuple(f"s.words @@ $q$({') & ('.join(each)})$q$::tsquery" for each in (has, says))


_TEXT = "concat_ws(' ', summary, payload, result_payload)"
# A text beyond ASCII may have the word with an accent. A text with \\u may have it escaped. Python checks both.
_MAY_SAY = f"(({{0}}) or strpos({_TEXT}, '\\u') > 0 or octet_length({_TEXT}) <> length({_TEXT}))"
_RUNS = "select distinct agent_instance_id from agent_spans where {0}"
_OF_SPANS = f"{SELECT['agent_span']} where {{0}} order by agent_instance_id, id"
RUNS = 100
"""The number of runs whose spans one statement reads."""


def _search_texts(connection: Connection, asked: Search) -> tuple[list[FoundSpan], int]:
    """Search without the index: PostgreSQL finds candidates by their text, and `text_search` checks them.

    A search is one pass over all texts, and a word that all spans have is read in all of them. Writers fill no index of
    words, which would cost two thirds of the speed of loading.
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
        cursor.execute(_OF_SPANS.format(condition), [list(value) for value in values], binary=True)
        spans = map(AgentSpanRow._make, chain.from_iterable(iter(lambda: cursor.fetchmany(FETCHED), [])))
        for _, of_run in groupby(spans, key=lambda span: span.agent_instance_id):
            yield of_run
