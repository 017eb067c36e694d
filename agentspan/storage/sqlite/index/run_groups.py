"""The table of the index with the sums of each run by group (span type and label), for comparisons of many runs.

A run has few groups, so the table has a third as many rows as there are spans. Cancelled spans are counted apart, in
`cancelled`. `last` is the latest start of a span. `reason` is the start and the `finish_reason` of the latest span that
has one. `histogram` has one letter per complete or failed span, for its bucket: four bytes a row. It gives the
statistics of some runs without reading all facts.
"""

import sqlite3

from agentspan.storage.answers import RunSum
from agentspan.storage.questions import RunSums
from agentspan.storage.sqlite.index import index_file

TABLE = {
    "run_groups": "(run integer not null, grp integer not null, spans integer not null, cancelled integer not null, "
    "failed integer not null, ms real not null, input_tokens integer, output_tokens integer, cost real, "
    "last integer not null, reason text, histogram text not null, primary key (run, grp)) without rowid"
}


def plus(table: str, column: str) -> str:
    """Return the SQL assignment that adds `excluded` to a sum, in which null means that no span has a value."""
    return f"{column} = case when excluded.{column} is null then {table}.{column} else " + (
        f"ifnull({table}.{column}, 0) + excluded.{column} end"
    )


RAN = "filter (where bucket >= 0)"
FIRST_LETTER = 65
"""The code point of the letter for the first bucket in `histogram`."""
ADD = f"""
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
FORGET = "delete from run_groups where run in (select run from temp.gone)"
NAMES = "select grp, schema_name, nullif(label, ''), is_aggregate from groups"
SELECT = """
select u.run, u.grp, u.spans, u.failed, u.ms, u.input_tokens, u.output_tokens, u.cost
from temp.wanted_numbers w cross join run_groups u where u.run = w.run and u.spans > 0
"""


def run_sums(connection: sqlite3.Connection, asked: RunSums) -> list[RunSum]:
    """Return the sums over the spans of these runs by run, type and label, in any order."""
    ids = index_file.numbered(connection, asked.runs)
    names = {grp: (name, label, bool(is_aggregate)) for grp, name, label, is_aggregate in connection.execute(NAMES)}
    found = []
    for run, grp, spans, failed, ms, input_tokens, output_tokens, cost in connection.execute(SELECT):
        name, label, is_aggregate = names[grp]
        found.append(RunSum(ids[run], name, label, spans, failed, ms, input_tokens, output_tokens, cost, is_aggregate))
    return found
