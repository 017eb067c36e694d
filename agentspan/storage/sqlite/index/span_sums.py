"""The part of the index with the numbers of finished spans: sums by run, by group and bucket, and single durations.

A group is a span type and a label. Rows are narrow. The table `facts` is sorted by duration within each bucket, so that
a percentile is found by counting buckets and stepping through one bucket. The modules `failures` and `run_groups` have
more tables of this part.
"""

import sqlite3

from agentspan.schemas import signatures
from agentspan.storage.answers import BOUNDS_MS
from agentspan.storage.span_groups import CANCELLED
from agentspan.storage.sqlite.index import failures, run_groups
from agentspan.storage.sqlite.index.index_file import Part
from agentspan.storage.sqlite.index.rewrites import Rewrites
from agentspan.storage.sqlite.index.run_groups import plus

IS_OPEN = "status in ('pending', 'active')"
USED = "not is_aggregate"

# SQLite has no subsecond function before 3.42. `unixepoch` gets the time without its fraction, because it would round
# .9995 s up to the next second.
MICROS = "unixepoch(substr({0}, 1, 19)) * 1000000 + cast(substr({0}, 21, 6) as integer)"
AT = MICROS.format("coalesce(started_at, inserted_at)")
BUCKET = (
    f"case when status = 'cancelled' then {CANCELLED} "
    + " ".join(f"when duration_ms < {bound!r} then {bucket}" for bucket, bound in enumerate(BOUNDS_MS))
    + f" else {len(BOUNDS_MS)} end"
)

RETURNED_ERROR = (
    "case when status = 'complete' and instr(result_payload, '\"is_error\"') "
    "then json_type(result_payload, '$.is_error') = 'true' end"
)
"""The SQL condition for a span that returned an error as its result. Groups count it as failed, runs do not.

It uses `case`, which does not parse results without the text. With `and`, SQLite would parse every result.
"""

TABLES = {
    "runs": "(run integer primary key, id text not null unique, spans integer not null, failed integer not null, "
    "input_tokens integer, output_tokens integer, cost real)",
    "groups": "(grp integer primary key, schema_name text not null, label text not null, "
    "is_aggregate integer not null, unique (schema_name, label))",
    "facts": "(grp integer not null, bucket integer not null, ms real not null, row integer not null, run integer, "
    "at integer, failed integer, input_tokens integer, output_tokens integer, cost real, "
    "primary key (grp, bucket, ms, row)) without rowid",
    "cells": "(grp integer not null, bucket integer not null, spans integer not null, failed integer not null, "
    "ms real not null, longest real not null, input_tokens integer, output_tokens integer, cost real, "
    "primary key (grp, bucket)) without rowid",
    "open_spans": "(row integer primary key)",
}
CREATE = tuple(
    statement
    for table, columns in {**TABLES, **run_groups.TABLE}.items()
    for statement in (f"drop table if exists main.{table}", f"create table main.{table} {columns}")
)
FRESH = (
    "create temp table if not exists fresh (row integer primary key, run text, schema_name text, label text, "
    "bucket integer, ms real, at integer, failed integer, input_tokens integer, output_tokens integer, cost real, "
    "is_aggregate integer, died integer, reason text)"
)


def _taken(rows: str) -> str:
    """Return the INSERT that fills `fresh` with the finished spans of a FROM clause."""
    return (
        "insert into temp.fresh select s.rowid, agent_instance_id, schema_name, ifnull(label, ''), "
        f"{BUCKET}, ifnull(duration_ms, 0), {AT}, "
        f"status = 'failed' or ifnull({RETURNED_ERROR}, 0), input_tokens, output_tokens, cost_usd, is_aggregate, "
        f"status = 'failed', finish_reason from {rows} and not {IS_OPEN}"
    )


TAKE_CLOSED = _taken("open_spans o cross join recorded.agent_spans s where s.rowid = o.row")
TAKE_NEW = _taken("recorded.agent_spans s where s.rowid > ? and s.rowid <= ?")
LIST_OPEN = f"""
insert or ignore into open_spans select rowid from recorded.agent_spans where rowid > ? and rowid <= ? and {IS_OPEN}
"""
FORGET_CLOSED = (
    "delete from open_spans where row in (select row from temp.fresh) "
    "or not exists (select 1 from recorded.agent_spans s where s.rowid = open_spans.row)"
)
ADD_GROUPS = """
insert into groups (schema_name, label, is_aggregate)
select schema_name, label, max(is_aggregate) from temp.fresh where true group by 1, 2
on conflict (schema_name, label) do update set is_aggregate = excluded.is_aggregate
where excluded.is_aggregate > groups.is_aggregate
"""
ADD_RUNS = f"""
insert into runs (id, spans, failed, input_tokens, output_tokens, cost)
select run, count(*), sum(died), sum(input_tokens) filter (where {USED}), sum(output_tokens) filter (where {USED}),
       sum(cost) filter (where {USED}) from temp.fresh group by run
on conflict (id) do update set spans = runs.spans + excluded.spans, failed = runs.failed + excluded.failed,
{plus("runs", "input_tokens")}, {plus("runs", "output_tokens")}, {plus("runs", "cost")}
"""
NUMBERED = (
    "create temp table if not exists numbered (grp integer, bucket integer, ms real, row integer, run integer, "
    "at integer, failed integer, input_tokens integer, output_tokens integer, cost real, reason text, "
    "primary key (grp, bucket, ms, row)) without rowid"
)
"""The table `fresh` with numbers of groups and runs, in the order of `facts`. It is joined and sorted only once."""
NUMBER = """
insert into temp.numbered
select g.grp, f.bucket, f.ms, f.row, r.run, f.at, f.failed, f.input_tokens, f.output_tokens, f.cost, f.reason
from temp.fresh f cross join groups g using (schema_name, label) cross join runs r on r.id = f.run
"""
EMPTY_NUMBERED = "delete from temp.numbered"
ADD_FACTS = """
insert into facts select grp, bucket, ms, row, run, at, failed, input_tokens, output_tokens, cost
from temp.numbered order by grp, bucket, ms, row
"""
SUMS = "count(*), sum(failed), sum(ms), max(ms), sum(input_tokens), sum(output_tokens), sum(cost)"
ADD_CELLS = f"""
insert into cells select grp, bucket, {SUMS} from temp.numbered group by 1, 2
on conflict (grp, bucket) do update set spans = cells.spans + excluded.spans, failed = cells.failed + excluded.failed,
ms = cells.ms + excluded.ms, longest = max(cells.longest, excluded.longest),
{plus("cells", "input_tokens")}, {plus("cells", "output_tokens")}, {plus("cells", "cost")}
"""


EMPTY_FRESH = "delete from temp.fresh"
TAKE = (ADD_GROUPS, ADD_RUNS, NUMBERED, EMPTY_NUMBERED, NUMBER, ADD_FACTS, ADD_CELLS, run_groups.ADD)
GONE = "create temp table gone (run integer primary key, id text)"
ADD_GONE = "insert or ignore into temp.gone select run, id from main.runs where id = ?"
LIST_GONE = """
insert or ignore into open_spans select s.rowid from temp.gone cross join recorded.agent_spans s
where s.agent_instance_id = temp.gone.id and s.rowid <= ?
"""
FORGET_ABOVE = "delete from open_spans where row > ?"
FORGET = (
    "delete from facts where run in (select run from temp.gone)",
    run_groups.FORGET,
    "delete from main.runs where run in (select run from temp.gone)",
    "delete from cells",
    f"insert into cells select grp, bucket, {SUMS} from facts group by grp, bucket",
    "drop table temp.gone",
)


class SpanSums(Part):
    """The part of the index with the numbers of finished spans (see the module's docstring)."""

    name = "numbers"
    statements = (
        *(*CREATE, FRESH, EMPTY_FRESH, TAKE_CLOSED, FORGET_CLOSED, TAKE_NEW, LIST_OPEN, *TAKE),
        *(GONE, ADD_GONE, LIST_GONE, FORGET_ABOVE, *FORGET),
        *failures.STATEMENTS,
    )
    other = signatures.VERSION

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the empty tables of numbers, and drop existing ones."""
        for statement in (*CREATE, *failures.CREATE):
            connection.execute(statement)

    def take(self, connection: sqlite3.Connection, after: int, until: int) -> None:
        """Add the numbers of the finished spans with rowids in (after, until], and of listed spans that finished."""
        connection.execute(FRESH)
        connection.execute(EMPTY_FRESH)
        connection.execute(TAKE_CLOSED)
        connection.execute(FORGET_CLOSED)
        new = connection.execute(TAKE_NEW, (after, until)).rowcount
        if new < until - after:  # else all of these spans are finished
            connection.execute(LIST_OPEN, (after, until))
        for statement in TAKE:
            connection.execute(statement)
        failures.add(connection)

    def forget(self, connection: sqlite3.Connection, rewrites: Rewrites) -> bool:
        """Remove the rewritten runs, list their spans to be added again, and compute the sums from the other runs."""
        connection.execute(GONE)
        connection.executemany(ADD_GONE, [(run,) for run in rewrites.runs])
        connection.execute(LIST_GONE, (rewrites.floor,))
        connection.execute(FORGET_ABOVE, (rewrites.floor,))
        for statement in (failures.FORGET, *FORGET):
            connection.execute(statement)
        return True
