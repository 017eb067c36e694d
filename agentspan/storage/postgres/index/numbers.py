"""The numbers of finished spans: a narrow row for each (`index_facts`), and sums for each run (`index_runs`).

A group is a span type and a label; its number is a hash of both, so that it is known before the group is stored. A
bucket is a range of durations, much smaller than those of a histogram, so that few spans share one with a percentile.

Statistics take two passes over `index_facts`, without a sort of all durations. The first pass counts and adds up each
bucket of each group. The counts tell the bucket of each percentile, and its place in the bucket. The second pass reads
only the buckets with a percentile.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from agentspan.storage.answers import BOUNDS_MS, CANCELLED, Groups, SpanGroup, Stat, groups_of
from agentspan.storage.postgres.connection import Connection, rows_of
from agentspan.storage.postgres.index.state import Cursor, Part
from agentspan.storage.postgres.statements import FAILED, compared

FINE = 16
"""The number of index buckets in each bucket of a histogram."""
BOUNDS: tuple[float, ...] = (
    *(BOUNDS_MS[0] * number / FINE for number in range(1, FINE)),
    *(low * (high / low) ** (number / FINE) for low, high in pairwise(BOUNDS_MS) for number in range(FINE)),
    BOUNDS_MS[-1],
)
"""The lower bounds of all buckets but the first, in milliseconds. The bounds of histograms are among them."""

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
    """Return the SQL assignment that adds to a sum. The sum stays null until a span has a value."""
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
    """The part of the index with the numbers of finished spans, for statistics and for sums of runs."""

    name = "numbers"
    of_runs = _TABLES
    of_all = ("index_groups",)
    statements = (_TAKE, *_TABLES)

    def take(self, connection: Connection, condition: str, values: Sequence[object]) -> None:
        """Add the numbers of the finished spans for which a condition holds."""
        connection.execute(_TAKE.format(condition), values)


PERCENTS = (50, 95, 99)
_LATE = f"select {FACT} from finished_spans s where"
_FACTS = f"select {COLUMNS} from index_facts s where"
_CELLS = """
select grp, bucket, count(*), count(*) filter (where failed), sum(ms), max(ms), sum(input_tokens)::bigint,
       sum(output_tokens)::bigint, sum(cost) from ({0}) f group by 1, 2
"""
_NAMES = """
select grp, schema_name, label, is_aggregate from index_groups union all
select distinct {0}, s.schema_name, coalesce(s.label, ''), s.is_aggregate from finished_spans s where {1}
"""
_OPEN = """
select s.schema_name, coalesce(s.label, ''), count(*), max(s.is_aggregate), sum(s.input_tokens)::bigint,
       sum(s.output_tokens)::bigint, sum(s.cost_usd) from open_spans s where true{0} group by 1, 2
"""
_PLACES = """
select w.number, (array_agg(f.ms order by f.ms))[w.place]
from unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) w(number, grp, bucket, place)
join ({0}) f on f.grp = w.grp and f.bucket = w.bucket group by w.number, w.place
"""
_HISTOGRAM = tuple(bisect_right(BOUNDS_MS, low) for low in (0.0, *BOUNDS))
"""For each index bucket, the histogram bucket that contains it."""


_Source = tuple[str, Sequence[object]]
"""A SELECT of facts, and its values."""


def statistics(
    connection: Connection, cursor: Cursor, since: str | None, until: str | None, runs: list[str] | None
) -> list[Stat]:
    """Return the statistics of the spans that began from `since` on and before `until`, in any order.

    Args:
        connection: within the snapshot in which `cursor` was read.
        runs: ids of the only runs whose spans count; all if None.
    """
    bounds = [(sign, bound) for sign, bound in ((">=", since), ("<", until)) if bound is not None]
    values: list[object] = [bound for _, bound in bounds]
    wanted = ""
    if runs is not None:
        wanted = " and s.agent_instance_id = any(%s)"
        values.append(runs)
    of_index, of_late = (
        "".join(f" and {compared(at, sign, bound)}" for sign, bound in bounds) + wanted for at in ("s.at", AT)
    )
    sources: list[_Source] = [(f"{_FACTS} true{of_index}", values)]
    late = cursor.pending
    if cursor.rewritten:
        rewritten = list(cursor.rewritten)
        sources = [(f"{_FACTS} s.agent_instance_id <> all(%s){of_index}", [rewritten, *values])]
        late = f"({late} or s.agent_instance_id = any(%s))"
        values = [rewritten, *values]
    sources.append((f"{_LATE} {late}{of_late}", values))
    groups: Groups = {}
    names = rows_of(connection, _NAMES.format(GROUP, late), values[:1] if cursor.rewritten else ())
    used_sources = [source for source in sources if _add_finished(connection, groups, names, source)]
    for name, label, spans, is_aggregate, *used in rows_of(
        connection, _OPEN.format(of_late), values[len(cursor.rewritten) > 0 :]
    ):
        for group in groups_of(groups, name, label):
            group.add_open(spans)
            group.add_used(used)
            group.is_aggregate = group.is_aggregate or bool(is_aggregate)
    found = _percentiles(connection, groups, used_sources)
    return [_stat(*key, group, found) for key, group in groups.items()]


def _add_finished(
    connection: Connection, groups: Groups, names: Sequence[tuple[int, str, str, int]], source: _Source
) -> bool:
    """Add the spans of a source to the groups; return whether the source has any spans."""
    sql, values = source
    named = {id: (name, label) for id, name, label, _ in names}
    aggregates = {id for id, *_, is_aggregate in names if is_aggregate}
    cells = rows_of(connection, _CELLS.format(sql), values)
    for id, bucket, spans, failed, ms, longest, *used in cells:
        for group in groups_of(groups, *named[id]):
            group.add_cell(id, bucket, spans, failed, ms, longest)
            group.add_used(used)
            group.is_aggregate = group.is_aggregate or id in aggregates
    return bool(cells)


def _percentiles(connection: Connection, groups: Groups, sources: Sequence[_Source]) -> dict[tuple[int, int], float]:
    """Return the duration of each percentile, by group and percent, of the groups with complete or failed spans."""
    numbers: dict[tuple[int, int], int] = {}
    asked: list[tuple[int, int, int, int]] = []
    for group in groups.values():
        for percent in PERCENTS:
            found = group.place(percent)
            if found is not None:
                bucket, place = found
                number = numbers.setdefault((id(group), percent), len(numbers))
                asked += [(number, each, bucket, place + 1) for each in group.ids]
    if not asked:
        return {}
    columns = [list(column) for column in zip(*asked, strict=True)]
    facts = " union all ".join(sql for sql, _ in sources)
    by_number = dict(
        rows_of(connection, _PLACES.format(facts), (*columns, *(v for _, parameters in sources for v in parameters)))
    )
    return {key: by_number[number] for key, number in numbers.items()}


def _stat(schema_name: str, label: str | None, group: SpanGroup, percentiles: dict[tuple[int, int], float]) -> Stat:
    histogram = [0] * (len(BOUNDS_MS) + 1)
    for bucket, spans in group.ran.items():
        histogram[_HISTOGRAM[bucket]] += spans
    return group.stat(schema_name, label, lambda percent: percentiles.get((id(group), percent)), tuple(histogram))
