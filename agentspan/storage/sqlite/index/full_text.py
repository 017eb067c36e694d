"""The words of finished spans: an FTS5 index without a copy of the texts, which are in the recorded file.

Triggers that keep such an index up to date would cost each write four times as much.
"""

import sqlite3

from agentspan.storage import tokenizing
from agentspan.storage.sqlite.index.index_file import Part
from agentspan.storage.sqlite.index.rewrites import Rewrites
from agentspan.storage.sqlite.index.span_sums import IS_OPEN
from agentspan.storage.sqlite.statements import column_of

_CAN_DELETE = sqlite3.sqlite_version_info >= (3, 43, 0)
"""True if SQLite can delete rows of an index without texts; else the index is rebuilt."""

DELETES = ", contentless_delete = 1"
CREATE = (
    "drop table if exists main.texts",
    "drop table if exists main.text_open",
    "create virtual table main.texts using fts5(text, content = ''{deletes})",
    "create table main.text_open (row integer primary key)",
)
WHOLE = ", ".join(column_of("agent_span", column, "s", "recorded") for column in ("payload", "result_payload"))
CLOSED = f"""
insert into texts (rowid, text)
select s.rowid, of_span(summary, {WHOLE})
from text_open o cross join recorded.agent_spans s where s.rowid = o.row and not {IS_OPEN} order by 1
"""
NEW = f"""
insert into texts (rowid, text)
select rowid, of_span(summary, {WHOLE})
from recorded.agent_spans s where rowid > ? and rowid <= ? and not {IS_OPEN} order by 1
"""
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
FORGET_REMOVED = """
delete from texts where rowid in (select id from texts_docsize d where id > ?
or not exists (select 1 from recorded.agent_spans s where s.rowid = d.id))
"""


class FullText(Part):
    """See the module."""

    name = "texts"
    batch = 5000
    statements = (
        *(*CREATE, CLOSED, FORGET_CLOSED, NEW, LIST_OPEN),
        *(LIST_RUN, FORGET_RUN, FORGET_ABOVE, FORGET_REMOVED),
    )
    other = 2  # of tokenizing.of_span, which computes what is indexed

    def create(self, connection: sqlite3.Connection) -> None:
        """See Part."""
        for statement in CREATE:
            connection.execute(statement.format(deletes=DELETES if _CAN_DELETE else ""))

    def take(self, connection: sqlite3.Connection, after: int, until: int) -> None:
        """See Part."""
        connection.create_function("of_span", 3, tokenizing.of_span, deterministic=True)
        connection.execute(CLOSED)
        connection.execute(FORGET_CLOSED)
        connection.execute(NEW, (after, until))
        connection.execute(LIST_OPEN, (after, until))

    def forget(self, connection: sqlite3.Connection, rewrites: Rewrites) -> bool:
        """See Part."""
        if not _CAN_DELETE:
            return False
        for run in rewrites.runs:
            connection.execute(LIST_RUN, (run, rewrites.floor))
            connection.execute(FORGET_RUN, (run, rewrites.floor))
        if rewrites.removed:
            connection.execute(FORGET_ABOVE, (rewrites.floor,))
            connection.execute(FORGET_REMOVED, (rewrites.floor,))
        return True
