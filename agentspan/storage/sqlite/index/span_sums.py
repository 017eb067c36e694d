"""The part of the index with the numbers of finished spans: sums by run and by group, durations, failures.

A group is a span type and a label. Rows are narrow. The table `facts` is sorted by duration within each bucket, so that
a percentile is found by counting buckets and stepping through one bucket.

The table `failures` has the failed spans by signature. A failure that only passes on the failure of a child is marked,
whichever of the two is indexed first. Computing a signature takes 20 µs, once per distinct failure of a batch.
"""

import sqlite3
from collections.abc import Iterator, Mapping

from agentspan.schemas import signatures
from agentspan.schemas.signatures import ErrorParts, Key, Signature
from agentspan.storage.questions import CachedCalls, FailureSums, RunSums, StepUses, TimedSums, Used
from agentspan.storage.row_by_row import CACHE_FIELDS, cached_call
from agentspan.storage.sqlite.index import index_file
from agentspan.storage.sqlite.index.index_file import Part
from agentspan.storage.sqlite.joining import failed_step
from agentspan.storage.sqlite.reads import Rewrites
from agentspan.storage.sqlite.statements import column_of
from agentspan.storage.sums import BOUNDS_MS, CANCELLED, QUARTER, CachedCall, FailureSum, RunSum, StepUse, TimedSum

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
    "run_groups": "(run integer not null, grp integer not null, spans integer not null, cancelled integer not null, "
    "failed integer not null, ms real not null, input_tokens integer, output_tokens integer, cost real, "
    "last integer not null, reason text, histogram text not null, primary key (run, grp)) without rowid",
    "cached": "(row integer primary key, run integer not null, grp integer not null, quarter integer not null, "
    "model text, provider text, input_tokens integer not null, read integer not null, written integer not null, "
    "written_1h integer not null)",
}
"""The tables by name; `cells` has the sums by group and bucket. `run_groups` has the sums of each run by group, for
comparisons of many runs. A run has few groups, so it has a third as many rows as there are spans. Cancelled spans are
counted apart, in `cancelled`. `last` is the latest start of a span. `reason` is the start and the `finish_reason` of
the latest span that has one. `cached` has the calls that used the cache of a provider.
`histogram` has one letter per complete or failed span, for its bucket: four bytes a row.
It gives the statistics of some runs without reading all facts."""
FAILURE_TABLES = {
    "signatures": "(sig integer primary key, id text not null unique, text text not null)",
    "failures": "(row integer primary key, run integer not null, span text not null, parent text, "
    "sig integer not null, at text not null, passes_on integer not null default 0)",
}


def _created(tables: Mapping[str, str]) -> Iterator[str]:
    for table, columns in tables.items():
        yield from (f"drop table if exists main.{table}", f"create table main.{table} {columns}")


CREATE = tuple(_created(TABLES))
CREATE_FAILURES = (
    *_created(FAILURE_TABLES),
    "create index failures_span on failures (span)",
    "create index failures_parent on failures (parent)",
)
FRESH = (
    "create temp table if not exists fresh (row integer primary key, run text, schema_name text, label text, "
    "bucket integer, ms real, at integer, failed integer, input_tokens integer, output_tokens integer, cost real, "
    "is_aggregate integer, reason text)"
)


def _taken(rows: str) -> str:
    """Return the INSERT that fills `fresh` with the finished spans of a FROM clause."""
    return (
        "insert into temp.fresh select s.rowid, agent_instance_id, schema_name, ifnull(label, ''), "
        f"{BUCKET}, ifnull(duration_ms, 0), {AT}, "
        f"{failed_step('s')}, input_tokens, output_tokens, cost_usd, is_aggregate, "
        f"finish_reason from {rows} and not {IS_OPEN}"
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


def plus(table: str, column: str) -> str:
    """Return the SQL assignment that adds `excluded` to a sum, in which null means that no span has a value."""
    return f"{column} = case when excluded.{column} is null then {table}.{column} else " + (
        f"ifnull({table}.{column}, 0) + excluded.{column} end"
    )


ADD_GROUPS = """
insert into groups (schema_name, label, is_aggregate)
select schema_name, label, max(is_aggregate) from temp.fresh where true group by 1, 2
on conflict (schema_name, label) do update set is_aggregate = excluded.is_aggregate
where excluded.is_aggregate > groups.is_aggregate
"""
ADD_RUNS = f"""
insert into runs (id, spans, failed, input_tokens, output_tokens, cost)
select run, count(*), sum(failed), sum(input_tokens) filter (where {USED}), sum(output_tokens) filter (where {USED}),
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
RAN = "filter (where bucket >= 0)"
FIRST_LETTER = 65
"""The code point of the letter for the first bucket in `histogram`."""
ADD_RUN_GROUPS = f"""
insert into run_groups
select run, grp, count(*) {RAN}, count(*) filter (where bucket < 0), sum(failed), total(ms) {RAN},
       sum(input_tokens) {RAN}, sum(output_tokens) {RAN}, sum(cost) {RAN}, max(at),
       max(case when reason is not null then printf('%020d', at) || reason end),
       ifnull(group_concat(char({FIRST_LETTER} + bucket), '') {RAN}, '')
from temp.numbered group by run, grp
on conflict (run, grp) do update set spans = run_groups.spans + excluded.spans,
cancelled = run_groups.cancelled + excluded.cancelled, failed = run_groups.failed + excluded.failed,
ms = run_groups.ms + excluded.ms, last = max(run_groups.last, excluded.last),
histogram = run_groups.histogram || excluded.histogram,
reason = case when run_groups.reason is null or excluded.reason > run_groups.reason then excluded.reason
              else run_groups.reason end,
{plus("run_groups", "input_tokens")}, {plus("run_groups", "output_tokens")}, {plus("run_groups", "cost")}
"""
EMPTY_FRESH = "delete from temp.fresh"
TAKE = (ADD_GROUPS, ADD_RUNS, NUMBERED, EMPTY_NUMBERED, NUMBER, ADD_FACTS, ADD_CELLS, ADD_RUN_GROUPS)
GONE = "create temp table gone (run integer primary key, id text)"
ADD_GONE = "insert or ignore into temp.gone select run, id from main.runs where id = ?"
LIST_GONE = """
insert or ignore into open_spans select s.rowid from temp.gone cross join recorded.agent_spans s
where s.agent_instance_id = temp.gone.id and s.rowid <= ?
"""
FORGET_ABOVE = "delete from open_spans where row > ?"
# Of a call, only plain members at the top of its texts are needed, which are never stored as parts.
CACHED = f"""
select f.row, r.run, g.grp, f.run, f.schema_name, f.label, f.at / {QUARTER}, f.input_tokens,
       case when instr(s.payload, '"provider"') or instr(s.payload, '"response_model"') then s.payload end,
       s.result_payload
from temp.fresh f cross join recorded.agent_spans s cross join groups g cross join main.runs r
where s.rowid = f.row and not f.is_aggregate and r.id = f.run and (g.schema_name, g.label) = (f.schema_name, f.label)
and ({" or ".join(f"instr(s.result_payload, '{chr(34)}{name}{chr(34)}')" for name in CACHE_FIELDS)})
"""
ADD_CACHED = "insert or replace into cached values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
FORGET = (
    "delete from cached where run in (select run from temp.gone)",
    "delete from facts where run in (select run from temp.gone)",
    "delete from run_groups where run in (select run from temp.gone)",
    "delete from main.runs where run in (select run from temp.gone)",
    "delete from cells",
    f"insert into cells select grp, bucket, {SUMS} from facts group by grp, bucket",
    "drop table temp.gone",
)


RESULT = column_of("agent_span", "result_payload", "s", "recorded")
FAILED = f"""
select s.rowid, r.run, s.id, s.parent_span_id, coalesce(s.started_at, s.inserted_at), s.schema_name, s.label, {RESULT}
from temp.fresh f cross join recorded.agent_spans s join main.runs r on r.id = s.agent_instance_id
where f.failed and s.rowid = f.row
"""
ADD_SIGNATURE = "insert or ignore into signatures (id, text) values (?, ?)"
SIGNATURE = "select sig from signatures where id = ?"
ADD_FAILURE = "insert or replace into failures (row, run, span, parent, sig, at) values (?, ?, ?, ?, ?, ?)"
PAIRS = """
select p.row, c.row from temp.fresh f cross join failures c on c.row = f.row cross join failures p on p.span = c.parent
where f.failed and p.run = c.run
union
select p.row, c.row from temp.fresh f cross join failures p on p.row = f.row cross join failures c on c.parent = p.span
where f.failed and p.run = c.run
"""
ERROR = f"select {RESULT} from recorded.agent_spans s where s.rowid = ?"
PASSES_ON = "update failures set passes_on = 1 where row = ?"
FORGET_FAILURES = "delete from failures where run in (select run from temp.gone)"


def add_failures(connection: sqlite3.Connection) -> None:
    """Add the failed spans of the table `temp.fresh`, which span_sums fills with the new finished spans."""
    errors: dict[int, ErrorParts] = {}
    known: dict[tuple[str, str | None, str | None], tuple[ErrorParts, int]] = {}
    numbers: dict[Key, int] = {}
    rows = []
    for row, run, span, parent, at, *rest in connection.execute(FAILED):
        failure = schema_name, label, result = tuple(rest)
        if failure not in known:  # many failures are equal: their text is parsed once
            error = signatures.error_parts(result)
            key = signatures.key_of(schema_name, label, error)
            if key not in numbers:
                numbers[key] = _number(connection, signatures.named(key))
            known[failure] = error, numbers[key]
        errors[row], signature = known[failure]
        rows.append((row, run, span, parent, signature, at))
    if rows:
        connection.executemany(ADD_FAILURE, rows)
        _mark_passed_on(connection, errors)


def _number(connection: sqlite3.Connection, signature: Signature) -> int:
    connection.execute(ADD_SIGNATURE, (signature.id, signature.text.encode("utf-8", "replace").decode()))
    number: int = connection.execute(SIGNATURE, (signature.id,)).fetchone()[0]
    return number


def _mark_passed_on(connection: sqlite3.Connection, errors: dict[int, ErrorParts]) -> None:
    """Mark new failures that pass on a child's failure, and older failures that pass on a new failure."""

    def error(row: int) -> ErrorParts:
        if row not in errors:
            errors[row] = signatures.error_parts(connection.execute(ERROR, (row,)).fetchone()[0])
        return errors[row]

    pairs = connection.execute(PAIRS).fetchall()
    marked = {parent for parent, child in pairs if signatures.passes_on(error(parent), error(child))}
    connection.executemany(PASSES_ON, [(row,) for row in sorted(marked)])


def _add_cached(connection: sqlite3.Connection) -> None:
    rows = []
    for row, run, group, *call in connection.execute(CACHED):
        if (found := cached_call(*call)) is not None:
            rows.append((row, run, group, *found[3:]))
    connection.executemany(ADD_CACHED, rows)


class SpanSums(Part):
    """The part of the index with the numbers of finished spans (see the module's docstring)."""

    name = "numbers"
    statements = (
        *(*CREATE, FRESH, EMPTY_FRESH, TAKE_CLOSED, FORGET_CLOSED, TAKE_NEW, LIST_OPEN, *TAKE),
        *(GONE, ADD_GONE, LIST_GONE, FORGET_ABOVE, *FORGET),
        *(CACHED, ADD_CACHED),
        *(*CREATE_FAILURES, FAILED, ADD_SIGNATURE, SIGNATURE, ADD_FAILURE, PAIRS, ERROR, PASSES_ON, FORGET_FAILURES),
    )
    other = signatures.VERSION

    def create(self, connection: sqlite3.Connection) -> None:
        """Create the empty tables of numbers, and drop existing ones."""
        for statement in (*CREATE, *CREATE_FAILURES):
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
        _add_cached(connection)
        add_failures(connection)

    def forget(self, connection: sqlite3.Connection, rewrites: Rewrites) -> bool:
        """Remove the rewritten runs, list their spans to be added again, and compute the sums from the other runs."""
        connection.execute(GONE)
        connection.executemany(ADD_GONE, [(run,) for run in rewrites.runs])
        connection.execute(LIST_GONE, (rewrites.floor,))
        connection.execute(FORGET_ABOVE, (rewrites.floor,))
        for statement in (FORGET_FAILURES, *FORGET):
            connection.execute(statement)
        return True


RUN_SUMS = """
select u.run, u.grp, u.spans, u.failed, u.ms, u.input_tokens, u.output_tokens, u.cost
from temp.wanted_numbers w cross join run_groups u where u.run = w.run and u.spans > 0
"""
TIMED = f"""
select run, grp, at / {QUARTER}, bucket >= 0, count(*), sum(input_tokens), sum(output_tokens), sum(cost) from facts
where grp in (select grp from groups where not is_aggregate) and {index_file.OF_FACT} group by 1, 2, 3, 4
"""
# Of a group with aggregates, some spans may be none: those of agents that have tokens of their own.
TIMED_MIXED = f"""
select f.run, f.grp, f.at / {QUARTER}, f.bucket >= 0, count(*), sum(f.input_tokens), sum(f.output_tokens), sum(f.cost)
from facts f cross join recorded.agent_spans s
where f.grp in (select grp from groups where is_aggregate) and f.{index_file.OF_FACT} and s.rowid = f.row
and not s.is_aggregate group by 1, 2, 3, 4
"""
TIMED_OPEN = f"""
select s.agent_instance_id, s.schema_name, nullif(s.label, ''), ({AT}) / {QUARTER}, count(*), sum(input_tokens),
       sum(output_tokens), sum(cost_usd)
from main.open_spans o cross join recorded.agent_spans s
where s.rowid = o.row and {USED} and {index_file.OF_SPAN} group by 1, 2, 3, 4
"""
CACHED_CALLS = "select run, grp, quarter, model, provider, input_tokens, read, written, written_1h from cached"
FAILURE_SUMS = f"""
select f.run, f.sig, count(*), min(f.at), max(f.at), max(f.span) from failures f
where not f.passes_on and f.{index_file.OF_FACT} group by f.run, f.sig
"""
USES = """
select u.run, u.grp, u.spans + u.cancelled, u.failed, u.last, substr(u.reason, 21)
from temp.wanted_numbers w cross join run_groups u where u.run = w.run
"""

USERS = "select r.id from main.runs r cross join run_groups u where u.run = r.run and u.grp in ({0}) group by r.run"
OPEN_USERS = """
select s.agent_instance_id, s.schema_name, s.label from main.open_spans o cross join recorded.agent_spans s
where s.rowid = o.row
"""


def group_names(connection: sqlite3.Connection) -> dict[int, tuple[str, str | None, bool]]:
    """Return number of a group → its span type, its label, and whether its spans sum up others."""
    found = connection.execute("select grp, schema_name, nullif(label, ''), is_aggregate from groups")
    return {group: (name, label, bool(is_aggregate)) for group, name, label, is_aggregate in found}


def run_sums(connection: sqlite3.Connection, asked: RunSums) -> list[RunSum]:
    """Return the sums over the spans of these runs by run, type and label, in any order."""
    ids, names = index_file.numbered(connection, asked.runs), group_names(connection)
    found = []
    for run, group, spans, failed, ms, input_tokens, output_tokens, cost in connection.execute(RUN_SUMS):
        name, label, is_aggregate = names[group]
        found.append(RunSum(ids[run], name, label, spans, failed, ms, input_tokens, output_tokens, cost, is_aggregate))
    return found


def timed_sums(connection: sqlite3.Connection, asked: TimedSums) -> list[TimedSum]:
    """Return the tokens and costs of these runs by run, type, label and quarter of an hour, in any order."""
    index_file.restrict(connection, asked.runs)
    ids, names = index_file.numbered(connection, asked.runs), group_names(connection)
    found = [
        TimedSum(ids[run], *names[group][:2], quarter, bool(ran), *sums)
        for sql in (TIMED, TIMED_MIXED)
        for run, group, quarter, ran, *sums in connection.execute(sql)
    ]
    for run, name, label, quarter, *sums in connection.execute(TIMED_OPEN):
        found.append(TimedSum(run, name, label, quarter, False, *sums))
    return found


def cached_calls(connection: sqlite3.Connection, asked: CachedCalls) -> list[CachedCall]:
    """Return the calls of these runs that used a provider's cache, in any order."""
    names, sql = group_names(connection), CACHED_CALLS
    if asked.runs is None:
        ids = dict(connection.execute("select run, id from runs").fetchall())
    else:
        ids, sql = index_file.numbered(connection, asked.runs), f"{sql} where {index_file.OF_FACT}"
    return [CachedCall(ids[run], *names[group][:2], *call) for run, group, *call in connection.execute(sql)]


def failure_sums(connection: sqlite3.Connection, asked: FailureSums) -> list[FailureSum]:
    """Return the sums over the failed spans of these runs, by run and signature."""
    runs = index_file.numbered(connection, asked.run_ids)
    names = {sig: Signature(id, text) for sig, id, text in connection.execute("select sig, id, text from signatures")}
    return [FailureSum(runs[run], names[sig], *sums) for run, sig, *sums in connection.execute(FAILURE_SUMS)]


def step_uses(connection: sqlite3.Connection, asked: StepUses) -> list[StepUse]:
    """Return the counts of these runs' finished spans, by run, type and label."""
    runs, names = index_file.numbered(connection, asked.run_ids), group_names(connection)
    return [StepUse(runs[run], *names[group][:2], *sums) for run, group, *sums in connection.execute(USES)]


def used(connection: sqlite3.Connection, asked: Used) -> frozenset[str]:
    """Return the ids of the runs with a span of the asked types and label."""
    groups = [grp for grp, (name, label, _) in group_names(connection).items() if asked.includes(name, label)]
    found = {run for run, name, label in connection.execute(OPEN_USERS) if asked.includes(name, label)}
    if groups:
        found.update(run for (run,) in connection.execute(USERS.format(", ".join(map(str, groups)))))
    return frozenset(found)
