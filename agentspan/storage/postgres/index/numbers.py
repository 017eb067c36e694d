"""The numbers of finished spans: a narrow row for each (`index_facts`), and sums for each run (`index_runs`).

A group is a span type and a label; its number is a hash of both, so that it is known before the group is stored. A
bucket is a range of durations, much smaller than those of a histogram, so that few spans share one with a percentile.
"""

from collections.abc import Sequence
from itertools import pairwise

from agentspan.storage.answers import BOUNDS_MS
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.index.state import Part
from agentspan.storage.postgres.statements import FAILED
from agentspan.storage.span_groups import CANCELLED

FINE = 16
"""Buckets between two bounds of a histogram."""
BOUNDS: tuple[float, ...] = (
    *(BOUNDS_MS[0] * number / FINE for number in range(1, FINE)),
    *(low * (high / low) ** (number / FINE) for low, high in pairwise(BOUNDS_MS) for number in range(FINE)),
    BOUNDS_MS[-1],
)
"""The lower bounds of all buckets but the first, in milliseconds; those of histograms are among them."""

GROUP = "hashtextextended(s.schema_name || E'\\x1f' || coalesce(s.label, ''), 0)"
AT = "coalesce(s.started_at, s.inserted_at)"
_BOUNDS = ", ".join(map(repr, BOUNDS))
FACT = (
    f"{AT} as at, coalesce(s.duration_ms, 0) as ms, {GROUP} as grp, (case when s.status = 'cancelled' then {CANCELLED} "
    f"else width_bucket(coalesce(s.duration_ms, 0), array[{_BOUNDS}]::double precision[]) end)::smallint as bucket, "
    f"coalesce({FAILED}, false) as failed, s.cost_usd as cost, s.input_tokens, s.output_tokens, s.agent_instance_id"
)
"""The columns of `index_facts`, computed from a finished span, `s`."""
COLUMNS = "at, ms, grp, bucket, failed, cost, input_tokens, output_tokens, agent_instance_id"
_USED = "filter (where is_aggregate = 0)"


def _added(column: str) -> str:
    """Return the assignment that adds to a sum in which null means that no span has a value."""
    return (
        f"{column} = case when excluded.{column} is null then index_runs.{column} "
        f"else coalesce(index_runs.{column}, 0) + excluded.{column} end"
    )


_TAKE = f"""
with fresh as materialized (
    select {FACT}, s.schema_name, coalesce(s.label, '') as label, s.status, s.is_aggregate
    from finished_spans s where {{0}}
), facts as (
    insert into index_facts ({COLUMNS}) select {COLUMNS} from fresh order by grp, bucket, ms
), groups as (
    insert into index_groups (grp, schema_name, label, is_aggregate)
    select grp, schema_name, label, max(is_aggregate) from fresh group by 1, 2, 3
    on conflict (grp) do update set is_aggregate = excluded.is_aggregate
    where excluded.is_aggregate > index_groups.is_aggregate
)
insert into index_runs (agent_instance_id, spans, failed, input_tokens, output_tokens, cost)
select agent_instance_id, count(*), count(*) filter (where status = 'failed'), sum(input_tokens) {_USED},
       sum(output_tokens) {_USED}, sum(cost) {_USED} from fresh group by 1
on conflict (agent_instance_id) do update set spans = index_runs.spans + excluded.spans,
failed = index_runs.failed + excluded.failed, {_added("input_tokens")}, {_added("output_tokens")}, {_added("cost")}
"""
_TABLES = ("index_facts", "index_runs")


class Numbers(Part):
    """See the module."""

    name = "numbers"
    of_runs = _TABLES
    of_all = ("index_groups",)
    statements = (_TAKE, *_TABLES)

    def take(self, connection: Connection, condition: str, values: Sequence[object]) -> None:
        """See Part."""
        connection.execute(_TAKE.format(condition), values)
