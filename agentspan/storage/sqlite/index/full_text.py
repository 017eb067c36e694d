"""The part of the index for full-text search: an FTS5 index of the words in finished spans, without repeated parts.

It has no copy of the texts, which are in the recorded file. Triggers that keep it up to date would make each write take
four times as long.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping

from agentspan.model.rows import AgentSpanRow
from agentspan.storage import text_search
from agentspan.storage.questions import Search
from agentspan.storage.sqlite.index import index_file
from agentspan.storage.sqlite.index.index_file import Part
from agentspan.storage.sqlite.index.span_sums import IS_OPEN
from agentspan.storage.sqlite.reads import Rewrites
from agentspan.storage.sqlite.statements import column_of
from agentspan.storage.sums import FoundSpan
from agentspan.storage.text_search import SpanParts

CREATE_PARTS = (
    "drop table if exists main.text_runs",
    "drop table if exists main.text_parts",
    "create table main.text_runs (run integer primary key, id text not null unique)",
    "create table main.text_parts (run integer not null, part integer not null, row integer not null, "
    "spans integer not null, primary key (run, part)) without rowid",
)
TEXT_RUN = "select run from main.text_runs where id = ?"
ADD_TEXT_RUN = "insert into main.text_runs (id) values (?)"
PARTS_OF_RUN = """
select p.part, p.row, s.id, p.spans from main.text_parts p cross join recorded.agent_spans s
where p.run = ? and s.rowid = p.row
"""
SOME_PARTS_OF_RUN = f"{PARTS_OF_RUN} and p.part in (select value from json_each(?))"
ADD_PART = "insert or replace into main.text_parts (run, part, row, spans) values (?, ?, ?, ?)"
FORGET_PARTS = "delete from main.text_parts where run in (select run from main.text_runs where id = ?)"
PART_STATEMENTS = (*CREATE_PARTS, TEXT_RUN, ADD_TEXT_RUN, PARTS_OF_RUN, ADD_PART, FORGET_PARTS)


class Parts:
    """The parts of runs, read and changed over one connection to the index.

    Args:
        connection: a connection to the index, with the file attached as `recorded`. Its reads are one snapshot.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._runs: dict[str, dict[int, _Entry]] = {}
        self._changed: dict[str, set[int]] = {}
        self.outdated: set[int] = set()
        """The rows of indexed spans with a part whose first span is now another one: a span with a lower id was added
        later. Their indexed words are outdated."""

    def add(self, row: int, parts: SpanParts) -> None:
        """Add the parts of a finished span. `write` stores them."""
        span = parts.span
        entries, changed = self._of_run(span.agent_instance_id), self._changed.setdefault(span.agent_instance_id, set())
        for key in parts.keys:
            entry = entries.get(key)
            if entry is None:
                entries[key] = _Entry(row, span.id, 1)
            else:
                entry.spans += 1
                if span.id < entry.id:
                    self.outdated.add(entry.row)
                    entry.row, entry.id = row, span.id
            changed.add(key)

    def seen_before(self, parts: SpanParts) -> Collection[int]:
        """Return the keys of a span's parts that an earlier span of the run contains."""
        entries = self._some_of_run(parts.span.agent_instance_id, parts.keys)
        id = parts.span.id
        return {key for key in parts.keys if (entry := entries.get(key)) is not None and entry.id < id}

    def counts(self, run: str, keys: Iterable[int]) -> Mapping[int, int]:
        """Return key of a part → number of finished spans of the run that have it, for the stored keys."""
        entries = self._some_of_run(run, keys)
        return {key: entry.spans for key in keys if (entry := entries.get(key)) is not None}

    def write(self) -> None:
        """Store the parts that were added since the last call."""
        for id, keys in self._changed.items():
            if keys:
                found = self._connection.execute(TEXT_RUN, (id,)).fetchone()
                run = found[0] if found is not None else self._connection.execute(ADD_TEXT_RUN, (id,)).lastrowid
                entries = self._runs[id]
                self._connection.executemany(
                    ADD_PART, [(run, key, entries[key].row, entries[key].spans) for key in sorted(keys)]
                )
        self._changed = {}

    def _some_of_run(self, id: str, keys: Iterable[int]) -> "Mapping[int, _Entry]":
        """Return the entries of at least these parts. Not all parts of a run are read, because it may have millions."""
        found = None if id in self._runs else self._connection.execute(TEXT_RUN, (id,)).fetchone()
        if found is None:
            return self._runs.get(id, {})
        rows = self._connection.execute(SOME_PARTS_OF_RUN, (*found, json.dumps([*keys])))
        return {part: _Entry(row, span, spans) for part, row, span, spans in rows}

    def _of_run(self, id: str) -> "dict[int, _Entry]":
        entries = self._runs.get(id)
        if entries is None:
            found = self._connection.execute(TEXT_RUN, (id,)).fetchone()
            rows = [] if found is None else self._connection.execute(PARTS_OF_RUN, found)
            entries = self._runs[id] = {part: _Entry(row, span, spans) for part, row, span, spans in rows}
        return entries


class _Entry:
    """A part's first span (rowid and id), and the number of spans that have the part."""

    __slots__ = ("id", "row", "spans")

    def __init__(self, row: int, id: str, spans: int) -> None:
        self.row = row
        self.id = id
        self.spans = spans


DELETES_FROM = (3, 43, 0)
"""The first version of SQLite that can delete rows of an FTS5 index without texts. Before it, the index is rebuilt."""

DELETES = ", contentless_delete = 1"
CREATE = (
    "drop table if exists main.texts",
    "drop table if exists main.text_open",
    "drop table if exists main.text_outdated",
    "create virtual table main.texts using fts5(text, content = ''{deletes})",
    "create table main.text_open (row integer primary key)",
    "create table main.text_outdated (row integer primary key)",
)
"""The statements that create the tables. `text_outdated` lists rows of `texts` that are outdated but cannot be deleted:
a search reads their spans from the file."""
SPAN = ", ".join(column_of("agent_span", column, "s", "recorded") for column in AgentSpanRow._fields)
CLOSED = f"""
select s.rowid, {SPAN} from text_open o cross join recorded.agent_spans s
where s.rowid = o.row and not {IS_OPEN} order by 1
"""
NEW = f"""
select s.rowid, {SPAN} from recorded.agent_spans s where s.rowid > ? and s.rowid <= ? and not {IS_OPEN} order by 1
"""
BY_ROW = f"select s.rowid, {SPAN} from recorded.agent_spans s where s.rowid = ?"
ADD = "insert into texts (rowid, text) values (?, ?)"
FORGET = "delete from texts where rowid = ?"
OUTDATED = "insert or ignore into text_outdated values (?)"
LIST_OPEN = f"""
insert or ignore into text_open select rowid from recorded.agent_spans where rowid > ? and rowid <= ? and {IS_OPEN}
"""
FORGET_CLOSED = f"""
delete from text_open
where not exists (select 1 from recorded.agent_spans s where s.rowid = text_open.row and {IS_OPEN})
"""
OF_RUN = "select rowid from recorded.agent_spans where agent_instance_id = ? and rowid <= ?"
LIST_RUN = f"insert or ignore into text_open {OF_RUN}"
FORGET_RUN = f"delete from texts where rowid in ({OF_RUN})"
FORGET_ABOVE = "delete from text_open where row > ?"
RUNS_ABOVE = "select distinct agent_instance_id from recorded.agent_spans where rowid > ?"
FORGET_REMOVED = """
delete from texts where rowid in (select id from texts_docsize d where id > ?
or not exists (select 1 from recorded.agent_spans s where s.rowid = d.id))
"""


class FullText(Part):
    """The part of the index for full-text search (see the module's docstring).

    Args:
        batch: how many spans are added in one transaction.
        sqlite_version: the version of this Python's SQLite; tests pass others.
    """

    name = "texts"
    statements = (
        *(*CREATE, CLOSED, FORGET_CLOSED, NEW, LIST_OPEN, BY_ROW, ADD, FORGET, OUTDATED),
        *(LIST_RUN, FORGET_RUN, FORGET_ABOVE, RUNS_ABOVE, FORGET_REMOVED),
        *PART_STATEMENTS,
    )
    other = text_search.LONG_TEXT * 10_000 + text_search.ELEMENT * 10 + 2
    """The last digit is the version of text_search.of_span, which computes the indexed text. Raise it after changes."""

    def __init__(self, batch: int, sqlite_version: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
        super().__init__(batch)
        self.can_delete = sqlite_version >= DELETES_FROM

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the empty tables of words and parts, and drop existing ones."""
        for statement in CREATE:
            connection.execute(statement.format(deletes=DELETES if self.can_delete else ""))
        for statement in CREATE_PARTS:
            connection.execute(statement)

    def take(self, connection: sqlite3.Connection, after: int, until: int) -> None:
        """Add the words of the finished spans with rowids in (after, until], and of listed spans that finished."""
        parts = Parts(connection)
        _add(connection, parts, CLOSED, ())
        connection.execute(FORGET_CLOSED)
        _add(connection, parts, NEW, (after, until))
        connection.execute(LIST_OPEN, (after, until))
        parts.write()
        for row in sorted(parts.outdated):
            if not self.can_delete:
                connection.execute(OUTDATED, (row,))
                continue
            connection.execute(FORGET, (row,))
            for _, of_span in _spans(connection, BY_ROW, (row,)):
                connection.execute(ADD, (row, _text(parts, of_span)))

    def forget(self, connection: sqlite3.Connection, rewrites: Rewrites) -> bool:
        """Remove the words of rewritten runs, and list their spans to be added again; False if SQLite is too old."""
        if not self.can_delete:
            return False
        runs = list(rewrites.runs)
        if rewrites.removed:  # spans above the floor are added again
            runs += [run for (run,) in connection.execute(RUNS_ABOVE, (rewrites.floor,))]
        for run in runs:
            connection.execute(LIST_RUN, (run, rewrites.floor))
            connection.execute(FORGET_RUN, (run, rewrites.floor))
            connection.execute(FORGET_PARTS, (run,))
        if rewrites.removed:
            connection.execute(FORGET_ABOVE, (rewrites.floor,))
            connection.execute(FORGET_REMOVED, (rewrites.floor,))
        return True


def _add(connection: sqlite3.Connection, parts: Parts, select: str, values: tuple[int, ...]) -> None:
    for row, of_span in _spans(connection, select, values):
        parts.add(row, of_span)
        connection.execute(ADD, (row, _text(parts, of_span)))


def _spans(
    connection: sqlite3.Connection, select: str, values: tuple[int, ...] = ()
) -> Iterator[tuple[int, SpanParts]]:
    for row, *columns in connection.execute(select, values):
        yield row, SpanParts(AgentSpanRow._make(columns))


def _text(parts: Parts, of_span: SpanParts) -> str:
    span = of_span.without(parts.seen_before(of_span))
    return text_search.of_span(span.summary, span.payload, span.result_payload)


IS_MATCH = "texts match ? and rowid not in (select row from text_outdated)"
READ_AGAIN = f"""
select s.rowid, {SPAN} from (select row from text_open union select row from text_outdated) o
cross join recorded.agent_spans s where s.rowid = o.row
"""


IS_WANTED = f"""
exists (select 1 from recorded.agent_spans s where s.rowid = texts.rowid and {index_file.OF_SPAN})
"""
IS_LISTED = """
+rowid in (
    select s.rowid from temp.wanted w cross join recorded.agent_spans s where s.agent_instance_id = w.id
)
"""
"""The same as IS_WANTED: it lists the spans of the runs first, from an index (0.1 s for 300,000). The `+` prevents FTS5
from looking each of them up."""
LISTED_FROM = 10_000
"""The number of matches from which spans are listed: for 690,000 matches it takes 0.4 s, and IS_WANTED 1.1 s."""


def search(connection: sqlite3.Connection, asked: Search) -> tuple[list[FoundSpan], int]:
    """Return a page of the spans whose new parts contain all terms, the latest first, and the number of all of them."""
    terms, runs, end = asked.words, asked.runs, asked.offset + asked.limit
    is_match, read_also = IS_MATCH, READ_AGAIN
    ending = text_search.PREFIX
    query = " ".join(f'"{term.removesuffix(ending)}"{"*" if term.endswith(ending) else ""}' for term in terms)
    if runs is not None:
        index_file.restrict(connection, runs)
        (matches,) = connection.execute(f"select count(*) from texts where {IS_MATCH}", (query,)).fetchone()
        is_match = f"{IS_MATCH} and {IS_LISTED if matches >= LISTED_FROM else IS_WANTED}"
        read_also = f"{READ_AGAIN} and {index_file.OF_SPAN}"
    matcher, parts = text_search.Matcher(terms), Parts(connection)
    read_again = {
        row: of_span
        for row, of_span in _spans(connection, read_also)
        if matcher.matches(of_span.without(parts.seen_before(of_span)))
    }
    (indexed,) = connection.execute(f"select count(*) from texts where {is_match}", (query,)).fetchone()
    found = connection.execute(f"select rowid from texts where {is_match} order by rowid desc limit ?", (query, end))
    rows = sorted([*read_again, *(row for (row,) in found)], reverse=True)[asked.offset : end]
    page = []
    for row in rows:
        ((_, of_span),) = [(row, read_again[row])] if row in read_again else _spans(connection, BY_ROW, (row,))
        earlier = parts.seen_before(of_span)
        keys = of_span.matched(matcher, earlier)
        counts = parts.counts(of_span.span.agent_instance_id, keys)
        shown = text_search.to_show(of_span.without(earlier), matcher)
        page.append(FoundSpan(shown, text_search.repeats(of_span.span, keys, counts)))
    return page, indexed + len(read_again)
