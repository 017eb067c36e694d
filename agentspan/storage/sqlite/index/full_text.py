"""The part of the index for full-text search: an FTS5 index of the words in finished spans, without repeated parts.

It has no copy of the texts, which are in the recorded file. Triggers that keep it up to date would make each write take
four times as long.
"""

import sqlite3
from collections.abc import Iterator

from agentspan.model.rows import AgentSpanRow
from agentspan.storage import first_occurrence, tokenizing
from agentspan.storage.answers import FoundSpan
from agentspan.storage.first_occurrence import SpanParts
from agentspan.storage.questions import Search
from agentspan.storage.sqlite.index import index_file
from agentspan.storage.sqlite.index import parts as parts_table
from agentspan.storage.sqlite.index.index_file import Part
from agentspan.storage.sqlite.index.parts import Parts
from agentspan.storage.sqlite.index.rewrites import Rewrites
from agentspan.storage.sqlite.index.span_sums import IS_OPEN
from agentspan.storage.sqlite.statements import column_of

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
        *parts_table.STATEMENTS,
    )
    other = first_occurrence.LONG_TEXT * 10_000 + first_occurrence.ELEMENT * 10 + 2
    """The last digit is the version of tokenizing.of_span, which computes the indexed text. Raise it after changes."""

    def __init__(self, batch: int, sqlite_version: tuple[int, ...] = sqlite3.sqlite_version_info) -> None:
        super().__init__(batch)
        self.can_delete = sqlite_version >= DELETES_FROM

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the empty tables of words and parts, and drop existing ones."""
        for statement in CREATE:
            connection.execute(statement.format(deletes=DELETES if self.can_delete else ""))
        for statement in parts_table.CREATE:
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
            connection.execute(parts_table.FORGET, (run,))
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
    return tokenizing.of_span(span.summary, span.payload, span.result_payload)


IS_MATCH = "texts match ? and rowid not in (select row from text_outdated)"
READ_AGAIN = f"""
select s.rowid, {SPAN} from (select row from text_open union select row from text_outdated) o
cross join recorded.agent_spans s where s.rowid = o.row
"""


IS_WANTED = f"""
exists (select 1 from recorded.agent_spans s where s.rowid = texts.rowid and {index_file.OF_SPAN})
"""


def search(connection: sqlite3.Connection, asked: Search) -> tuple[list[FoundSpan], int]:
    """Return a page of the spans whose new parts contain all terms, the latest first, and the number of all of them."""
    terms, runs, end = asked.words, asked.runs, asked.offset + asked.limit
    is_match, read_also = IS_MATCH, READ_AGAIN
    if runs is not None:
        index_file.restrict(connection, runs)
        is_match, read_also = f"{IS_MATCH} and {IS_WANTED}", f"{READ_AGAIN} and {index_file.OF_SPAN}"
    ending = tokenizing.PREFIX
    query = " ".join(f'"{term.removesuffix(ending)}"{"*" if term.endswith(ending) else ""}' for term in terms)
    matcher, parts = tokenizing.Matcher(terms), Parts(connection)
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
        shown = first_occurrence.to_show(of_span.without(earlier), matcher)
        page.append(FoundSpan(shown, first_occurrence.repeats(of_span.span, keys, counts)))
    return page, indexed + len(read_again)
