"""The sums of each run by group, a span type and a label: what comparisons of many runs are made of.

Spans that never ran are left out. A run has few groups, so the table is a tenth of the spans, and is read whole.
"""

import sqlite3
from collections.abc import Collection

from agentspan.storage.analytics import RunSum
from agentspan.storage.sqlite.index import wanted_runs

TABLE = {
    "run_groups": "(run integer not null, grp integer not null, spans integer not null, failed integer not null, "
    "ms real not null, input_tokens integer, output_tokens integer, cost real, primary key (run, grp)) without rowid"
}


def plus(table: str, column: str) -> str:
    """Return the assignment that adds to a sum in which null means that no span has a value."""
    return f"{column} = case when excluded.{column} is null then {table}.{column} else " + (
        f"ifnull({table}.{column}, 0) + excluded.{column} end"
    )


ADD = f"""
insert into run_groups
select run, grp, count(*), sum(failed), sum(ms), sum(input_tokens), sum(output_tokens), sum(cost)
from temp.numbered where bucket >= 0 group by run, grp
on conflict (run, grp) do update set spans = run_groups.spans + excluded.spans,
failed = run_groups.failed + excluded.failed, ms = run_groups.ms + excluded.ms,
{plus("run_groups", "input_tokens")}, {plus("run_groups", "output_tokens")}, {plus("run_groups", "cost")}
"""
FORGET = "delete from run_groups where run in (select run from temp.gone)"
SELECT = """
select w.id, g.schema_name, nullif(g.label, ''), s.spans, s.failed, s.ms, s.input_tokens, s.output_tokens, s.cost,
       g.is_aggregate
from temp.wanted w cross join main.runs r cross join run_groups s cross join groups g
where r.id = w.id and s.run = r.run and g.grp = s.grp
"""


def run_sums(connection: sqlite3.Connection, runs: Collection[str]) -> list[RunSum]:
    """Return the sums of these runs, in any order."""
    wanted_runs.restrict(connection, runs)
    return [RunSum._make((*row[:9], bool(row[9]))) for row in connection.execute(SELECT)]
