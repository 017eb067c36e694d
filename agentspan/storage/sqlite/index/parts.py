"""Stores, for each part of a run's finished spans, the first span with it and the number of spans that have it.

A part is a long text or a list element of a payload (see storage.first_occurrence). A run has one row per part.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping

from agentspan.storage.first_occurrence import SpanParts

CREATE = (
    "drop table if exists main.text_runs",
    "drop table if exists main.text_parts",
    "create table main.text_runs (run integer primary key, id text not null unique)",
    "create table main.text_parts (run integer not null, part integer not null, row integer not null, "
    "spans integer not null, primary key (run, part)) without rowid",
)
RUN = "select run from main.text_runs where id = ?"
ADD_RUN = "insert into main.text_runs (id) values (?)"
OF_RUN = """
select p.part, p.row, s.id, p.spans from main.text_parts p cross join recorded.agent_spans s
where p.run = ? and s.rowid = p.row
"""
SOME_OF_RUN = f"{OF_RUN} and p.part in (select value from json_each(?))"
ADD = "insert or replace into main.text_parts (run, part, row, spans) values (?, ?, ?, ?)"
FORGET = "delete from main.text_parts where run in (select run from main.text_runs where id = ?)"
STATEMENTS = (*CREATE, RUN, ADD_RUN, OF_RUN, ADD, FORGET)


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
                found = self._connection.execute(RUN, (id,)).fetchone()
                run = found[0] if found is not None else self._connection.execute(ADD_RUN, (id,)).lastrowid
                entries = self._runs[id]
                self._connection.executemany(
                    ADD, [(run, key, entries[key].row, entries[key].spans) for key in sorted(keys)]
                )
        self._changed = {}

    def _some_of_run(self, id: str, keys: Iterable[int]) -> "Mapping[int, _Entry]":
        """Return the entries of at least these parts. Not all parts of a run are read, because it may have millions."""
        found = None if id in self._runs else self._connection.execute(RUN, (id,)).fetchone()
        if found is None:
            return self._runs.get(id, {})
        rows = self._connection.execute(SOME_OF_RUN, (*found, json.dumps([*keys])))
        return {part: _Entry(row, span, spans) for part, row, span, spans in rows}

    def _of_run(self, id: str) -> "dict[int, _Entry]":
        entries = self._runs.get(id)
        if entries is None:
            found = self._connection.execute(RUN, (id,)).fetchone()
            rows = [] if found is None else self._connection.execute(OF_RUN, found)
            entries = self._runs[id] = {part: _Entry(row, span, spans) for part, row, span, spans in rows}
        return entries


class _Entry:
    """A part's first span (rowid and id), and the number of spans that have the part."""

    __slots__ = ("id", "row", "spans")

    def __init__(self, row: int, id: str, spans: int) -> None:
        self.row = row
        self.id = id
        self.spans = spans
