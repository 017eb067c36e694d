"""The tables of the index with failed spans by signature, and the answers to FailureSums and StepUses.

A failure that only passes on the failure of a child is marked, whichever of the two is indexed first. Computing a
signature takes 20 µs, once per distinct failure of a batch.
"""

import sqlite3

from agentspan.schemas import signatures
from agentspan.schemas.signatures import ErrorParts, Key, Signature
from agentspan.storage.answers import FailureSum, StepUse
from agentspan.storage.questions import FailureSums, StepUses
from agentspan.storage.sqlite.index import index_file
from agentspan.storage.sqlite.statements import column_of

TABLES = {
    "signatures": "(sig integer primary key, id text not null unique, text text not null)",
    "failures": "(row integer primary key, run integer not null, span text not null, parent text, "
    "sig integer not null, at text not null, passes_on integer not null default 0)",
}
CREATE = (
    *(
        statement
        for table, columns in TABLES.items()
        for statement in (f"drop table if exists main.{table}", f"create table main.{table} {columns}")
    ),
    "create index failures_span on failures (span)",
    "create index failures_parent on failures (parent)",
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
FORGET = "delete from failures where run in (select run from temp.gone)"
STATEMENTS = (*CREATE, FAILED, ADD_SIGNATURE, SIGNATURE, ADD_FAILURE, PAIRS, ERROR, PASSES_ON, FORGET)


def add(connection: sqlite3.Connection) -> None:
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


SUMS = f"""
select f.run, f.sig, count(*), min(f.at), max(f.at), max(f.span) from failures f
where not f.passes_on and f.{index_file.OF_FACT} group by f.run, f.sig
"""
USES = """
select u.run, u.grp, u.spans + u.cancelled, u.failed, u.last, substr(u.reason, 21)
from temp.wanted_numbers w cross join run_groups u where u.run = w.run
"""


def failure_sums(connection: sqlite3.Connection, asked: FailureSums) -> list[FailureSum]:
    """Return the sums over the failed spans of these runs, by run and signature."""
    runs = index_file.numbered(connection, asked.run_ids)
    names = {sig: Signature(id, text) for sig, id, text in connection.execute("select sig, id, text from signatures")}
    return [
        FailureSum(runs[run], names[sig], spans, first_at, last_at, span)
        for run, sig, spans, first_at, last_at, span in connection.execute(SUMS)
    ]


def step_uses(connection: sqlite3.Connection, asked: StepUses) -> list[StepUse]:
    """Return the counts of these runs' finished spans, by run, type and label."""
    runs = index_file.numbered(connection, asked.run_ids)
    found = connection.execute("select grp, schema_name, nullif(label, '') from groups")
    names = {group: (schema_name, label) for group, schema_name, label in found}
    return [
        StepUse(runs[run], *names[group], spans, failed, last, reason)
        for run, group, spans, failed, last, reason in connection.execute(USES)
    ]
