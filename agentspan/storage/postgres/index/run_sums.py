"""The sums of all runs over their spans, as SQL: of the index and the late spans, or of all spans."""

from agentspan.storage.postgres.index.state import Cursor

_USED = "filter (where is_aggregate = 0)"
_COLUMNS = "agent_instance_id, status, input_tokens, output_tokens, cost_usd, is_aggregate"


def _summed(spans: str) -> str:
    return f"""
select agent_instance_id as id, count(*) as spans, count(*) filter (where status = 'failed') as failed,
       count(*) filter (where status in ('pending', 'active')) as open,
       (sum(input_tokens) {_USED})::bigint as input_tokens, (sum(output_tokens) {_USED})::bigint as output_tokens,
       sum(cost_usd) {_USED} as cost
from {spans} group by 1
"""


def _both(column: str) -> str:
    """Return the SQL of the sum of two sums, of which null means that no span has a value."""
    return f"case when l.{column} is null then x.{column} else coalesce(x.{column}, 0) + l.{column} end as {column}"


_ALL = _summed("agent_spans")
_LATE = _summed(
    f"(select {_COLUMNS} from finished_spans s where {{0}} union all select {_COLUMNS} from open_spans) late"
)
_INDEXED = f"""
select coalesce(x.id, l.id) as id, coalesce(x.spans, 0) + coalesce(l.spans, 0) as spans,
       coalesce(x.failed, 0) + coalesce(l.failed, 0) as failed, coalesce(l.open, 0) as open,
       {_both("input_tokens")}, {_both("output_tokens")}, {_both("cost")}
from (
    select agent_instance_id as id, spans, failed, input_tokens, output_tokens, cost from index_runs{{1}}
) x full join ({_LATE}) l on l.id = x.id
"""


def sums_of_runs(cursor: Cursor | None) -> tuple[str, list[object]]:
    """Return the SELECT of the sums of runs that have spans, and its values.

    Args:
        cursor: how far the numbers are in the snapshot in which it is executed; None to read all spans.
    """
    if cursor is None:
        return _ALL, []
    if not cursor.rewritten:
        return _INDEXED.format(cursor.pending, ""), []
    late = f"{cursor.pending} or s.agent_instance_id = any(%s)"
    rewritten = list(cursor.rewritten)
    return _INDEXED.format(late, " where agent_instance_id <> all(%s)"), [rewritten, rewritten]
